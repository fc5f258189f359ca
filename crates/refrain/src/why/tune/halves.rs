//! Labels in two halves that have nothing to do with each other: one chooses, the other says what to expect.
//!
//! Labels of one question, or of one stored answer, say much the same: were they in both halves, the second would only repeat
//! the first. So whatever hangs together by questions and answers is a group, and a group is in one half.

use std::collections::HashMap;

/// What somebody said of a question and a stored answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    /// How similar the questions are; none: the answer of one is never served to the other, however low the threshold.
    pub(super) similarity: Option<f32>,
    /// Whether one answer serves both.
    pub(super) same: bool,
    /// What stands for the question and for the stored answer.
    pub(super) names: [String; 2],
}

/// A label in its half.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    /// As in [`Said`].
    pub(super) similarity: Option<f32>,
    pub(super) same: bool,
    /// Which half it belongs to: the same in every run with the same labels.
    pub(super) half: Half,
    /// Which group.
    pub(super) group: usize,
}

/// One of two halves of the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Chooses the threshold.
    Choosing,
    /// Says what to expect of it.
    HeldOut,
}

/// Puts each group into the half that has less. Of labels with the same names the last one counts.
pub(super) fn halved(said: Vec<Said>) -> Vec<Judged> {
    let said = latest(said);
    let groups = groups(&said);
    let mut sizes: HashMap<usize, (usize, [u8; 32])> = HashMap::new();
    for (one, group) in said.iter().zip(&groups) {
        let name = *blake3::hash(one.names.concat().as_bytes()).as_bytes();
        let (size, least) = sizes.entry(*group).or_insert((0, name));
        (*size, *least) = (*size + 1, (*least).min(name));
    }
    let mut order: Vec<_> = sizes.into_iter().collect();
    // Large ones first; equal ones by chance, but by the same one in each run.
    order.sort_by_key(|(_, (size, least))| (std::cmp::Reverse(*size), *least));
    let (mut choosing, mut held_out) = (0, 0);
    let mut halves = HashMap::new();
    for (group, (size, _)) in order {
        let (half, filled) = if choosing <= held_out {
            (Half::Choosing, &mut choosing)
        } else {
            (Half::HeldOut, &mut held_out)
        };
        *filled += size;
        halves.insert(group, half);
    }
    let judged = |(Said { similarity, same, .. }, group): (Said, usize)| {
        let half = halves.get(&group).copied().unwrap_or(Half::Choosing);
        Judged { similarity, same, half, group }
    };
    said.into_iter().zip(groups).map(judged).collect()
}

fn latest(said: Vec<Said>) -> Vec<Said> {
    let mut places: HashMap<[String; 2], usize> = HashMap::new();
    let mut kept: Vec<Said> = Vec::new();
    for one in said {
        match places.get(&one.names) {
            Some(at) => kept[*at] = one,
            None => {
                places.insert(one.names.clone(), kept.len());
                kept.push(one);
            }
        }
    }
    kept
}

/// The group of each: the lowest place of a label that hangs together with it.
fn groups(said: &[Said]) -> Vec<usize> {
    let mut parents: Vec<usize> = (0..said.len()).collect();
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (at, one) in said.iter().enumerate() {
        for name in &one.names {
            let other = *first.entry(name).or_insert(at);
            let (a, b) = (root(&mut parents, at), root(&mut parents, other));
            parents[a.max(b)] = a.min(b);
        }
    }
    (0..said.len()).map(|at| root(&mut parents, at)).collect()
}

fn root(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(question: &str, answer: &str, same: bool) -> Said {
        Said { similarity: Some(0.9), same, names: [question.to_owned(), answer.to_owned()] }
    }

    #[test]
    fn what_shares_a_question_or_an_answer_is_in_one_half() {
        let mut labels: Vec<Said> = (0..50).map(|nth| said(&format!("q{nth}"), "popular", true)).collect();
        labels.extend((0..50).map(|nth| said(&format!("r{nth}"), &format!("a{nth}"), true)));
        labels.push(said("q7", "a7", false));
        let judged = halved(labels);
        let of_popular: Vec<Half> = judged[..50].iter().map(|one| one.half).collect();
        assert!(of_popular.iter().all(|half| *half == of_popular[0]));
        assert_eq!((judged[57].group, judged[100].group), (judged[7].group, judged[7].group));
        let choosing = judged.iter().filter(|one| one.half == Half::Choosing).count();
        assert!((45..=55).contains(&choosing), "{choosing}");
    }

    #[test]
    fn what_is_said_last_of_a_pair_counts() {
        let judged = halved(vec![said("q", "a", false), said("r", "b", true), said("q", "a", true)]);
        assert_eq!(judged.iter().map(|one| one.same).collect::<Vec<_>>(), [true, true]);
    }
}
