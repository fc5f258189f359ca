//! What keeps requests apart: for each miss the most similar earlier one of its route, and the parts in which alone they
//! differ.

use std::collections::{BTreeMap, BTreeSet};

use refrain_core::RouteId;
use refrain_llm::request::PieceName;

use super::miss::{MissReason, NotedMiss};
use crate::anatomy::{Part, PartName};

/// Earlier misses that one is compared with.
const LOOKED_AT_MAX: usize = 512;
/// More differing parts than this, and two requests are just different.
const DIFFERING_MAX: usize = 3;

/// What keeps one route's requests apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// The route.
    pub route: RouteId,
    /// Misses that were noted.
    pub misses: usize,
    /// How many different questions they asked: misses are sampled by question, so few of these say little of others.
    pub questions: usize,
    /// When the first of them was, in ms since the Unix epoch.
    pub since_ms: u64,
    /// Why they missed, the most frequent first.
    pub causes: Vec<Cause>,
}

/// Why some requests missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Why.
    pub kind: CauseKind,
    /// How many.
    pub count: usize,
    /// For how many of them a similar question's answer was looked at and refused, by reason.
    pub refusals: BTreeMap<&'static str, usize>,
}

/// Why a request missed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CauseKind {
    /// It differs from an earlier one in these parts alone.
    Differs(Vec<PartName>),
    /// It equals an earlier one, whose answer is not there: never stored, past its time, purged, or evicted.
    Again,
    /// What was stored for it was past its time.
    Expired,
    /// The client wanted none that is stored.
    Forbidden,
    /// A policy, or shadow mode, was against what is stored.
    HeldBack,
    /// No earlier one resembles it.
    Unlike,
}

/// What keeps requests apart, by route. `misses`: the oldest first.
pub fn attribute<'m>(misses: impl IntoIterator<Item = &'m NotedMiss>) -> Vec<Attribution> {
    let mut by_route: BTreeMap<&RouteId, Vec<&NotedMiss>> = BTreeMap::new();
    for miss in misses {
        by_route.entry(&miss.route).or_default().push(miss);
    }
    by_route.into_iter().map(|(route, misses)| of_route(route, &misses)).collect()
}

fn of_route(route: &RouteId, misses: &[&NotedMiss]) -> Attribution {
    let mut causes: BTreeMap<CauseKind, (usize, BTreeMap<&'static str, usize>)> = BTreeMap::new();
    for (at, miss) in misses.iter().enumerate() {
        let earlier = &misses[at.saturating_sub(LOOKED_AT_MAX)..at];
        let (count, refusals) = causes.entry(cause(miss, earlier)).or_default();
        *count += 1;
        if let Some(refusal) = miss.refusal {
            *refusals.entry(refusal.as_str()).or_default() += 1;
        }
    }
    let mut causes: Vec<Cause> =
        causes.into_iter().map(|(kind, (count, refusals))| Cause { kind, count, refusals }).collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    Attribution {
        route: route.clone(),
        misses: misses.len(),
        questions: misses.iter().map(|miss| miss.question).collect::<BTreeSet<_>>().len(),
        since_ms: misses.iter().map(|miss| miss.at_ms).min().unwrap_or_default(),
        causes,
    }
}

fn cause(miss: &NotedMiss, earlier: &[&NotedMiss]) -> CauseKind {
    match miss.reason {
        MissReason::Expired => return CauseKind::Expired,
        MissReason::Forbidden => return CauseKind::Forbidden,
        MissReason::HeldBack => return CauseKind::HeldBack,
        MissReason::NothingStored => {}
    }
    // Of equally similar ones the latest; and rather one with the same question, which should have been a hit.
    let nearest = earlier.iter().rev().min_by_key(|other| {
        2 * distance(&miss.parts, &other.parts) + usize::from(miss.question != other.question)
    });
    let Some(nearest) = nearest else { return CauseKind::Unlike };
    match summed_up(differing(&miss.parts, &nearest.parts)) {
        names if names.is_empty() => CauseKind::Again,
        names if names.len() > DIFFERING_MAX => CauseKind::Unlike,
        names => CauseKind::Differs(names),
    }
}

/// How many parts only one of two lists has; both by ascending digests.
fn distance(a: &[Part], b: &[Part]) -> usize {
    let (mut at, mut other, mut shared) = (0, 0, 0);
    while let (Some(one), Some(two)) = (a.get(at), b.get(other)) {
        match one.digest.cmp(&two.digest) {
            std::cmp::Ordering::Less => at += 1,
            std::cmp::Ordering::Greater => other += 1,
            std::cmp::Ordering::Equal => (at, other, shared) = (at + 1, other + 1, shared + 1),
        }
    }
    a.len() + b.len() - 2 * shared
}

/// The names of the parts in which two requests differ, in their order.
pub fn differing(a: &[Part], b: &[Part]) -> Vec<PartName> {
    let only = |one: &[Part], other: &[Part]| -> Vec<PartName> {
        one.iter().filter(|part| !other.contains(part)).map(|part| part.name.clone()).collect()
    };
    let mut names = [only(a, b), only(b, a)].concat();
    names.sort_unstable();
    names.dedup();
    names
}

/// Several parts of a kind as one.
fn summed_up(mut names: Vec<PartName>) -> Vec<PartName> {
    let is_line =
        |name: &PartName| matches!(name, PartName::Body(PieceName::SystemLine(_) | PieceName::SystemRest));
    let is_turn = |name: &PartName| matches!(name, PartName::Body(PieceName::Turn(_)));
    let is_tool = |name: &PartName| matches!(name, PartName::Body(PieceName::Tool(_)));
    let mut sum_up = |is_one: &dyn Fn(&PartName) -> bool, most: usize, sum: PartName| {
        if names.iter().filter(|name| is_one(name)).count() > most {
            names.retain(|name| !is_one(name));
            names.push(sum);
        }
    };
    sum_up(&is_line, 2, PartName::SystemPrompt);
    sum_up(&is_turn, 1, PartName::Conversation);
    sum_up(&is_tool, 1, PartName::Tools);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: fn(u32) -> PartName = |line| PartName::Body(PieceName::SystemLine(line));
    const QUESTION: PartName = PartName::Body(PieceName::Question);

    /// A miss whose parts hold these numbers.
    fn miss(at_ms: u64, parts: &[(PartName, u64)]) -> NotedMiss {
        let digest = |(at, (_, holds)): (usize, &(PartName, u64))| (at as u64) << 32 | holds;
        let made = parts.iter().enumerate();
        let parts: Vec<Part> = made.map(|one| Part { name: one.1.0.clone(), digest: digest(one) }).collect();
        let question = parts.iter().find(|part| part.name == QUESTION).map_or(0, |part| part.digest);
        NotedMiss::new(("chat".into(), at_ms), (MissReason::NothingStored, None), (question, parts))
    }

    fn prompt(at_ms: u64, lines: [u64; 3], question: u64) -> NotedMiss {
        let [a, b, c] = lines;
        miss(at_ms, &[(PartName::Model, 1), (LINE(1), a), (LINE(2), b), (LINE(3), c), (QUESTION, question)])
    }

    fn kinds(misses: &[NotedMiss]) -> Vec<(CauseKind, usize)> {
        let found = attribute(misses);
        assert_eq!(found.len(), 1);
        found[0].causes.iter().map(|cause| (cause.kind.clone(), cause.count)).collect()
    }

    #[test]
    fn the_one_line_that_differs_is_found_among_other_questions() {
        // Ten questions again and again, and a clock in line 3: 82 of 92 misses would be hits without it.
        let misses: Vec<_> = (0..92).map(|nth| prompt(nth, [1, 2, 100 + nth], nth % 10)).collect();
        assert_eq!(attribute(&misses)[0].questions, 10);
        let found = kinds(&misses);
        assert_eq!(found[0], (CauseKind::Differs(vec![LINE(3)]), 82));
        assert_eq!(found.iter().map(|(_, count)| count).sum::<usize>(), 92);
    }

    #[test]
    fn other_questions_the_same_again_and_strangers_are_told_apart() {
        let mut misses = vec![prompt(1, [1, 2, 3], 1), prompt(2, [1, 2, 3], 2), prompt(3, [1, 2, 3], 2)];
        assert_eq!(
            kinds(&misses),
            [(CauseKind::Differs(vec![QUESTION]), 1), (CauseKind::Again, 1), (CauseKind::Unlike, 1)]
        );
        misses.push(prompt(4, [7, 8, 9], 2));
        assert!(kinds(&misses).contains(&(CauseKind::Differs(vec![PartName::SystemPrompt]), 1)));
        misses.last_mut().unwrap().reason = MissReason::Expired;
        assert!(kinds(&misses).contains(&(CauseKind::Expired, 1)));
    }

    #[test]
    fn other_questions_under_very_long_prompts_are_never_the_same_again() {
        let long = |question| {
            let lines = (1..=300).map(|line| (LINE(line), u64::from(line)));
            miss(question, &lines.chain([(QUESTION, question)]).collect::<Vec<_>>())
        };
        assert_eq!(kinds(&[long(1), long(2)])[0].0, CauseKind::Differs(vec![QUESTION]));
    }

    #[test]
    fn routes_are_never_compared_with_each_other() {
        let mut other = prompt(2, [1, 2, 4], 1);
        other.route = "other".into();
        let found = attribute(&[prompt(1, [1, 2, 3], 1), other]);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|one| one.causes[0].kind == CauseKind::Unlike));
    }
}
