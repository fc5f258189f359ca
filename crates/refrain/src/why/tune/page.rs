//! What came of tuning, for people.

use refrain_core::settings::RouteSemantic;

use super::choice::{Aim, Expected, Row, Tuned};
use crate::columns::columns;

/// Thresholds on the page, in hundredths.
const SHOWN_FROM: f64 = 0.75;

/// The page.
pub(super) fn page(tuned: &Tuned, route: Option<(&str, Option<&RouteSemantic>)>) -> String {
    let Tuned { aim, labels, right_labels, groups, rows, proposed, expected, labels_wanted, .. } = tuned;
    let (precision, sure) = (percent(aim.precision), percent(aim.confidence));
    let mut out = format!(
        "{labels} labels, {right_labels} of them of pairs with one answer; {groups} groups without a question in common\n\n"
    );
    out.push_str(&table(rows, *proposed));
    match (proposed, expected) {
        (Some(threshold), Some(expected)) => {
            out.push_str(&promise(*threshold, expected, *aim));
            out.push_str(&lines(*threshold, route));
        }
        _ => out.push_str(&format!(
            "\nNo threshold is proposed: none is shown to have {precision} of its hits right, {sure} sure.\n\
             It takes {labels_wanted} labelled hits without an error in the choosing half; label more, or ask for less with \
             --precision.\n"
        )),
    }
    out
}

/// What makes this worth less than it looks.
pub(super) fn remarks(tuned: &Tuned, (unsure, is_by_people): (usize, bool)) -> String {
    let Tuned { labels, groups, largest_group, .. } = tuned;
    let mut remarks = Vec::new();
    if *groups > 1 && largest_group * 4 > *labels || *groups == 1 && *labels > 1 {
        remarks.push(format!(
            "{largest_group} of the labels hang together by their questions: they say much the same, and all this is less \
             sure than it looks."
        ));
    }
    if unsure > 0 {
        remarks.push(format!(
            "{unsure} lines were left out: their answers are neither alike nor unlike. What is said here holds for the others."
        ));
    }
    if is_by_people {
        remarks.push(
            "Labels that people gave are of answers that somebody looked at: no random part of all hits, and none below the \
             threshold that was in force."
                .to_owned(),
        );
    }
    remarks.iter().map(|remark| format!("\n! {remark}")).collect::<String>()
        + if remarks.is_empty() { "" } else { "\n" }
}

fn table(rows: &[Row], proposed: Option<f64>) -> String {
    let head =
        ["THRESHOLD", "HITS", "RIGHT", "PRECISION", "AT LEAST", "KEPT", ""].map(str::to_owned).to_vec();
    let is_shown = |row: &&Row| row.threshold >= proposed.unwrap_or(SHOWN_FROM).min(SHOWN_FROM) - 1e-9;
    let line = |row: &Row| {
        let precision = if row.hits == 0 { "-".to_owned() } else { percent(row.precision) };
        let mark = if Some(row.threshold) == proposed { "<- proposed" } else { "" };
        vec![
            format!("{:.2}", row.threshold),
            row.hits.to_string(),
            row.right.to_string(),
            precision,
            percent(row.at_least),
            percent(row.kept),
            mark.to_owned(),
        ]
    };
    columns(&std::iter::once(head).chain(rows.iter().filter(is_shown).map(line)).collect::<Vec<_>>())
}

fn promise(threshold: f64, expected: &Expected, aim: Aim) -> String {
    let Expected { row, interval: (low, high), is_confirmed } = expected;
    let (precision, sure) = (percent(aim.precision), percent(aim.confidence));
    let mut out = format!(
        "\nThreshold {threshold:.2} is the loosest of which the choosing half shows, {sure} sure, that {precision} of its hits are right.\n"
    );
    if row.hits == 0 {
        out.push_str("The held-out half has no hit at it: nothing is known of what to expect.\n");
        return out;
    }
    out.push_str(&format!(
        "Expect {} of hits to be right ({} to {}, {sure} sure), and {} of the similar questions to hit: \
         {} of {} hits in the held-out half, which had no part in the choice.\n",
        percent(row.precision),
        percent(*low),
        percent(*high),
        percent(row.kept),
        row.right,
        row.hits,
    ));
    if !is_confirmed {
        out.push_str(&format!(
            "The held-out half alone does not show {precision}: it shows {} at least. More labels would tell.\n",
            percent(row.at_least)
        ));
    }
    out
}

/// What to write into the config.
fn lines(threshold: f64, route: Option<(&str, Option<&RouteSemantic>)>) -> String {
    let (name, semantic) = route.unwrap_or(("NAME", None));
    let mut out = format!("\n[route.{name}.cache.semantic]\nthreshold = {threshold:.2}\n");
    if semantic.is_some_and(|semantic| f64::from(semantic.threshold_floor) > threshold + 1e-6) {
        out.push_str(&format!("threshold_floor = {threshold:.2}  # no higher than threshold\n"));
    }
    out
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
