//! What keeps requests apart, in sentences and with what to do about it.

use std::collections::BTreeMap;

use refrain_cache::{Attribution, Cause, CauseKind, NotedMiss, PartName, attribute, unix_ms};
use refrain_llm::request::PieceName;
use serde::{Deserialize, Serialize};

use super::page::span;

/// Fewer misses than this tell nothing.
const TELLING_MIN: usize = 10;
/// Misses of fewer questions than this tell little of others: misses are sampled by question.
const QUESTIONS_TELLING_MIN: usize = 20;
/// Causes of a route on the page.
const CAUSES_SHOWN: usize = 8;

/// What keeps requests apart, by route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MissesAnswer {
    pub(crate) routes: Vec<RouteMisses>,
}

/// Of one route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RouteMisses {
    pub(crate) route: String,
    /// Misses that were noted.
    pub(crate) misses: usize,
    /// How many different questions they asked.
    #[serde(default)]
    pub(crate) questions: usize,
    /// How long ago the first of them was, in seconds.
    pub(crate) since_s: u64,
    /// The most frequent first.
    pub(crate) causes: Vec<ToldCause>,
}

/// Why some of them missed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToldCause {
    /// `differs`, `again`, `expired`, `forbidden`, `held_back`, `unlike`.
    pub(crate) kind: String,
    /// The parts that alone differ.
    pub(crate) parts: Vec<String>,
    pub(crate) count: usize,
    pub(crate) percent: f64,
    /// For how many of them a similar question's answer was refused, by reason.
    pub(crate) refusals: BTreeMap<String, usize>,
    /// In a sentence.
    pub(crate) says: String,
    /// What to do about it.
    pub(crate) advice: String,
}

impl MissesAnswer {
    /// Of what was noted.
    pub(crate) fn of<'m>(misses: impl IntoIterator<Item = &'m NotedMiss>) -> Self {
        Self { routes: attribute(misses).into_iter().map(of_route).collect() }
    }
}

fn of_route(attribution: Attribution) -> RouteMisses {
    let Attribution { route, misses, questions, since_ms, causes } = attribution;
    let told = |cause: Cause| {
        let Cause { kind, count, refusals } = cause;
        let percent = 100.0 * count as f64 / misses.max(1) as f64;
        let (name, parts) = match &kind {
            CauseKind::Differs(parts) => ("differs", parts.iter().map(PartName::to_string).collect()),
            CauseKind::Again => ("again", Vec::new()),
            CauseKind::Expired => ("expired", Vec::new()),
            CauseKind::Forbidden => ("forbidden", Vec::new()),
            CauseKind::HeldBack => ("held_back", Vec::new()),
            CauseKind::Unlike => ("unlike", Vec::new()),
        };
        ToldCause {
            kind: name.to_owned(),
            count,
            percent: (percent * 10.0).round() / 10.0,
            refusals: refusals.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
            says: format!("{} of misses on `{route}` {}", share(count, misses), says(&kind, &parts)),
            advice: advice(&kind).to_owned(),
            parts,
        }
    };
    RouteMisses {
        misses,
        questions,
        since_s: unix_ms().saturating_sub(since_ms) / 1000,
        causes: causes.into_iter().map(told).collect(),
        route: route.as_str().to_owned(),
    }
}

/// In whole percent, but neither all nor nothing where it isn't.
fn share(count: usize, of: usize) -> String {
    match 100.0 * count as f64 / of.max(1) as f64 {
        percent if percent < 1.0 => "less than 1 %".to_owned(),
        percent if percent > 99.0 && count < of => "over 99 %".to_owned(),
        percent => format!("{percent:.0} %"),
    }
}

fn says(kind: &CauseKind, parts: &[String]) -> String {
    match kind {
        CauseKind::Differs(_) => match parts {
            [one] => format!("differ only in {}", the(one)),
            many => format!(
                "differ only in {}",
                many.iter().map(|part| the(part)).collect::<Vec<_>>().join(" and ")
            ),
        },
        CauseKind::Again => "ask exactly what was asked before, and its answer is not there".to_owned(),
        CauseKind::Expired => "find an answer that is past its time".to_owned(),
        CauseKind::Forbidden => {
            "find an answer that the client doesn't want (no-cache, max-age, asked again)".to_owned()
        }
        CauseKind::HeldBack => "find an answer that a policy or shadow mode holds back".to_owned(),
        CauseKind::Unlike => "resemble no earlier one".to_owned(),
    }
}

/// `line 3 of the system prompt`, as people say it.
fn the(part: &str) -> String {
    match part.strip_prefix("system prompt line ") {
        Some(line) => format!("line {line} of the system prompt"),
        None => format!("the {part}"),
    }
}

fn advice(kind: &CauseKind) -> &'static str {
    let parts = match kind {
        CauseKind::Differs(parts) => parts,
        CauseKind::Again => {
            return "past cache.ttl, or look at refrain_cache_skips_total (never stored), refrain_store_evictions_total (no room) and at purges";
        }
        CauseKind::Expired => return "raise cache.ttl, or set cache.stale_while_revalidate",
        CauseKind::Forbidden => {
            return "cache.directives says which of these are honoured; cache.regenerate what repeating means";
        }
        CauseKind::HeldBack => {
            return "refrain explain says which policy; shadow mode is off with semantic.shadow = false";
        }
        CauseKind::Unlike => return "new questions, as far as was noted: nothing to gain",
    };
    let has = |wanted: fn(&PartName) -> bool| parts.iter().any(wanted);
    if has(|part| matches!(part, PartName::Body(PieceName::Turn(_)) | PartName::Conversation)) {
        "conversations that go on: only an identical conversation has the same answer"
    } else if has(|part| *part == PartName::Body(PieceName::Question)) {
        "other questions about the same: a semantic tier (cache.semantic, first with shadow = true) finds those that mean one thing"
    } else if has(|part| {
        matches!(
            part,
            PartName::SystemPrompt | PartName::Body(PieceName::SystemLine(_) | PieceName::SystemRest)
        )
    }) {
        "the client changes its system prompt from request to request (a date, a session id): send it elsewhere, or cut such \
         lines from the key with a policy such as agent-safe (drop_lines)"
    } else if has(|part| *part == PartName::Scope) {
        "others ask the same: cache.scope says who may share an answer; widen it only if everybody in it may read all answers"
    } else if has(|part| matches!(part, PartName::ModelIdentity)) {
        "the model was replaced by another build: answers of the old one are not served"
    } else if has(|part| matches!(part, PartName::Policy)) {
        "policies or their config have changed: answers from before are not served"
    } else if has(|part| matches!(part, PartName::Tools | PartName::Body(PieceName::Tool(_)))) {
        "tool definitions change from request to request: let the client send them in one order, with nothing of the moment in them"
    } else if has(|part| matches!(part, PartName::Header(_))) {
        "this header changes answers, so it is part of the key: let the client send one value"
    } else {
        "clients send other values of this parameter: settle on one, or cut it from the key with a policy (edits)"
    }
}

/// The same for people.
pub(super) fn page(answer: &MissesAnswer) -> String {
    if answer.routes.is_empty() {
        return "No miss was noted yet: of each route, those of a part of the questions are (cache.miss_sample).\n".to_owned();
    }
    answer.routes.iter().map(route_page).collect::<Vec<_>>().join("\n")
}

fn route_page(route: &RouteMisses) -> String {
    let RouteMisses { route, misses, questions, since_s, causes } = route;
    let mut out = format!("{route}: {misses} misses of {questions} questions noted in {}\n", span(*since_s));
    for ToldCause { count, refusals, says, advice, .. } in causes.iter().take(CAUSES_SHOWN) {
        out.push_str(&format!("\n  {says} ({count})\n"));
        if !refusals.is_empty() {
            let refused = refusals.iter().map(|(reason, count)| format!("{reason} {count}"));
            out.push_str(&format!("    similar questions: {}\n", refused.collect::<Vec<_>>().join(", ")));
        }
        out.push_str(&format!("    {advice}\n"));
    }
    let more: usize = causes.iter().skip(CAUSES_SHOWN).map(|cause| cause.count).sum();
    if more > 0 {
        out.push_str(&format!("\n  and {more} for {} other reasons: --json\n", causes.len() - CAUSES_SHOWN));
    }
    if *misses < TELLING_MIN {
        out.push_str("\n  These are too few to conclude from.\n");
    } else if *questions < QUESTIONS_TELLING_MIN {
        out.push_str("\n  Only so few questions are noted (cache.miss_sample is a part of the questions): others may miss for other reasons.\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_said_as_people_say_it_with_what_to_do() {
        let kind = CauseKind::Differs(vec![PartName::Body(PieceName::SystemLine(3))]);
        let cause = Cause { kind, count: 82, refusals: BTreeMap::new() };
        let attribution = Attribution {
            route: "chat".into(),
            misses: 100,
            questions: 30,
            since_ms: unix_ms(),
            causes: vec![cause],
        };
        let route = of_route(attribution);
        assert_eq!(
            route.causes[0].says,
            "82 % of misses on `chat` differ only in line 3 of the system prompt"
        );
        assert!(route_page(&route).contains("agent-safe"));
    }

    #[test]
    fn the_same_question_by_others_is_about_the_scope() {
        assert!(advice(&CauseKind::Differs(vec![PartName::Scope])).contains("cache.scope"));
        let seed = CauseKind::Differs(vec![PartName::Body(PieceName::Field("seed".into()))]);
        assert!(advice(&seed).contains("parameter"));
    }
}
