//! The threshold that labels speak for.

use std::collections::BTreeMap;

use serde::Serialize;
use statrs::distribution::{Beta, ContinuousCDF as _};

use super::halves::{Half, Judged};

/// Thresholds that are tried, in hundredths: below, everything is similar.
const TRIED: std::ops::RangeInclusive<u32> = 50..=99;

/// What is wanted.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Aim {
    /// Part of the hits that must be right.
    pub(super) precision: f64,
    /// How sure that must be.
    pub(super) confidence: f64,
}

/// What a threshold would do to some labelled pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) threshold: f64,
    /// Pairs whose stored answer would be served.
    pub(super) hits: u64,
    /// Those for which it is right.
    pub(super) right: u64,
    /// Part of the pairs with one answer that are hits.
    pub(super) kept: f64,
    pub(super) precision: f64,
    /// One-sided Clopper-Pearson bound, at the confidence that is wanted.
    pub(super) at_least: f64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Tuned {
    pub(super) aim: Aim,
    pub(super) labels: usize,
    pub(super) right_labels: usize,
    /// Groups of labels that have no question and no answer in common.
    pub(super) groups: usize,
    /// Labels of the largest of them.
    pub(super) largest_group: usize,
    /// Of the choosing half.
    pub(super) rows: Vec<Row>,
    /// The loosest threshold that meets the aim on the choosing half, no looser than the labels that speak for it.
    pub(super) proposed: Option<f64>,
    /// What the half that had no part in the choice says of it.
    pub(super) expected: Option<Expected>,
    /// Hits without an error that prove the aim.
    pub(super) labels_wanted: u64,
}

/// What to expect of a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Expected {
    pub(super) row: Row,
    /// Two-sided Clopper-Pearson interval of the precision.
    pub(super) interval: (f64, f64),
    /// Whether the held-out half meets the aim by itself.
    pub(super) is_confirmed: bool,
}

/// Chooses on one half, and looks at the other.
pub(super) fn tuned(judged: &[Judged], aim: Aim) -> Tuned {
    let half = |half: Half| judged.iter().filter(move |one| one.half == half).collect::<Vec<_>>();
    let (choosing, held_out) = (half(Half::Choosing), half(Half::HeldOut));
    let rows: Vec<Row> = TRIED.map(|hundredths| row(&choosing, f64::from(hundredths) / 100.0, aim)).collect();
    let proposed = proposed(&rows, aim);
    let expected = proposed.map(|threshold| {
        let row = row(&held_out, threshold, aim);
        let interval = interval(row.right, row.hits, aim.confidence);
        Expected { row, interval, is_confirmed: row.hits > 0 && row.at_least >= aim.precision }
    });
    let mut groups: BTreeMap<usize, usize> = BTreeMap::new();
    judged.iter().for_each(|one| *groups.entry(one.group).or_default() += 1);
    Tuned {
        aim,
        groups: groups.len(),
        largest_group: groups.values().copied().max().unwrap_or_default(),
        labels: judged.len(),
        right_labels: judged.iter().filter(|one| one.same).count(),
        rows,
        proposed,
        expected,
        labels_wanted: labels_wanted(aim),
    }
}

/// Of thresholds with the same hits the tightest: what lies between it and the next label below, nobody has looked at.
fn proposed(rows: &[Row], aim: Aim) -> Option<f64> {
    let loosest = rows.iter().position(|row| row.hits > 0 && row.at_least >= aim.precision)?;
    let same = rows[loosest..].iter().take_while(|row| row.hits == rows[loosest].hits);
    same.last().map(|row| row.threshold)
}

fn row(judged: &[&Judged], threshold: f64, aim: Aim) -> Row {
    // As the path compares: in single precision.
    let is_hit = |one: &&&Judged| one.similarity.is_some_and(|similarity| similarity >= threshold as f32);
    let hits = judged.iter().filter(is_hit).count() as u64;
    let right = judged.iter().filter(is_hit).filter(|one| one.same).count() as u64;
    let same = judged.iter().filter(|one| one.same).count();
    let part = |count: u64, of: u64| if of == 0 { 0.0 } else { count as f64 / of as f64 };
    Row {
        threshold,
        hits,
        right,
        kept: part(right, same as u64),
        precision: part(right, hits),
        at_least: lower(right, hits, 1.0 - aim.confidence),
    }
}

/// The least share that `right` of `all` leaves possible, with this chance of being wrong (Clopper and Pearson, 1934).
fn lower(right: u64, all: u64, chance: f64) -> f64 {
    if right == 0 {
        return 0.0;
    }
    let beta = Beta::new(right as f64, (all - right + 1) as f64);
    beta.map_or(0.0, |beta| beta.inverse_cdf(chance))
}

/// The greatest, likewise.
fn upper(right: u64, all: u64, chance: f64) -> f64 {
    if right == all {
        return 1.0;
    }
    let beta = Beta::new((right + 1) as f64, (all - right) as f64);
    beta.map_or(1.0, |beta| beta.inverse_cdf(1.0 - chance))
}

fn interval(right: u64, all: u64, confidence: f64) -> (f64, f64) {
    let chance = (1.0 - confidence) / 2.0;
    (lower(right, all, chance), upper(right, all, chance))
}

/// So many hits, all right, prove the aim: `precision ^ n <= 1 - confidence`.
fn labels_wanted(aim: Aim) -> u64 {
    ((1.0 - aim.confidence).ln() / aim.precision.ln()).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const AIM: Aim = Aim { precision: 0.98, confidence: 0.9 };

    fn judged(pairs: &[(f32, bool, usize)]) -> Vec<Judged> {
        let halves = |(similarity, same, count): (f32, bool, usize)| {
            [Half::Choosing, Half::HeldOut].into_iter().flat_map(move |half| {
                std::iter::repeat_n(Judged { similarity: Some(similarity), same, half, group: 0 }, count)
            })
        };
        pairs.iter().copied().flat_map(halves).collect()
    }

    #[test]
    fn error_free_labels_that_prove_an_aim_are_as_many_as_the_theory_says() {
        let wanted = |precision| labels_wanted(Aim { precision, ..AIM });
        assert_eq!([wanted(0.99), wanted(0.98), wanted(0.95)], [230, 114, 45]);
        assert!(lower(114, 114, 0.1) >= 0.98 && lower(113, 113, 0.1) < 0.98);
    }

    #[test]
    fn bounds_are_those_of_clopper_and_pearson() {
        // Known values: 8 of 10, 95 %, two-sided.
        let (low, high) = interval(8, 10, 0.95);
        assert!((low - 0.4439).abs() < 1e-4 && (high - 0.9748).abs() < 1e-4, "{low} {high}");
        assert_eq!((lower(0, 5, 0.1), upper(5, 5, 0.1)), (0.0, 1.0));
    }

    #[test]
    fn the_loosest_threshold_that_meets_the_aim_is_proposed() {
        let tuned = tuned(&judged(&[(0.95, true, 300), (0.85, true, 50), (0.852, false, 20)]), AIM);
        // Nobody has looked at what lies between 0.86 and 0.95.
        assert_eq!(tuned.proposed, Some(0.95));
        let expected = tuned.expected.unwrap();
        assert_eq!((expected.row.hits, expected.row.right, expected.is_confirmed), (300, 300, true));
        assert!((expected.row.kept - 300.0 / 350.0).abs() < 1e-9);
    }

    #[test]
    fn no_threshold_is_proposed_below_the_labels_that_speak_for_it() {
        assert_eq!(tuned(&judged(&[(0.9, true, 300)]), AIM).proposed, Some(0.9));
        assert_eq!(tuned(&judged(&[(0.9, true, 300), (0.731, true, 1)]), AIM).proposed, Some(0.73));
    }

    #[test]
    fn too_few_labels_propose_nothing() {
        let tuned = tuned(&judged(&[(0.95, true, 113)]), AIM);
        assert_eq!((tuned.proposed, tuned.labels_wanted), (None, 114));
    }

    #[test]
    fn what_vetoes_forbid_is_no_hit_at_any_threshold() {
        let mut labels = judged(&[(0.95, true, 200)]);
        labels.extend(labels.clone().into_iter().map(|one| Judged { similarity: None, same: false, ..one }));
        assert_eq!(tuned(&labels, AIM).proposed, Some(0.95));
    }
}
