//! An explanation on one page, for somebody at night: what would happen first, then why, stage by stage.

use std::fmt::Write as _;
use std::time::Duration;

use super::explained::{
    ExplainAnswer, ToldCaller, ToldExact, ToldKey, ToldLimit, ToldNeighbour, ToldOutcome, ToldRate,
    ToldServer, ToldUpstream,
};
use crate::columns::columns;
use crate::plugin::decision;

/// Of a key, what tells it from others on a page.
const KEY_SHOWN: usize = 16;
/// Of a text, in characters.
const TEXT_SHOWN: usize = 60;

/// The page.
pub(super) fn page(answer: &ExplainAnswer) -> String {
    let ExplainAnswer {
        routes,
        caller,
        limits,
        policies,
        plan,
        key,
        exact,
        exact_only,
        neighbours,
        under_way,
        upstream,
        outcome,
    } = answer;
    let mut out = format!("{}\n", verdict(outcome, exact.as_ref()));
    let mut section = |name: &str, text: String| {
        if !text.is_empty() {
            // Writing to a String can't fail.
            let _ = write!(out, "\n{name}\n{}", indented(&text));
        }
    };
    let tried = routes.iter().map(|tried| match &tried.mismatch {
        None => format!("{}  takes it\n", tried.route),
        Some(condition) => format!("{}  no: another {condition}\n", tried.route),
    });
    section("ROUTE", tried.collect());
    section("CALLER", caller.as_ref().map(caller_line).unwrap_or_default());
    section("LIMITS, as they are now", columns(&limits.iter().flat_map(limit_rows).collect::<Vec<_>>()));
    let says = |policy: &super::explained::ToldPolicy| {
        format!("{}\n{}", policy.policy, indented(&columns(&decision::rows(&policy.says, &decision::KEYS))))
    };
    section("POLICIES, each on its own", policies.iter().map(says).collect());
    section(
        "PLAN",
        plan.as_ref().map(|plan| columns(&decision::rows(plan, &decision::KEYS))).unwrap_or_default(),
    );
    section("KEY", key.as_ref().map(key_table).unwrap_or_default());
    section("STORED FOR THIS VERY REQUEST", exact.as_ref().map(exact_line).unwrap_or_default());
    let not_compared = exact_only.as_ref().map(|reason| format!("not looked for: {reason}\n"));
    section("SIMILAR QUESTIONS", not_compared.unwrap_or_else(|| neighbour_table(neighbours)));
    section("BEING GENERATED NOW", under_way.as_deref().map(under_way_line).unwrap_or_default());
    section("A MISS WOULD GO TO", upstream.as_ref().map(upstream_table).unwrap_or_default());
    out
}

/// What would happen, and why, in a sentence or two.
fn verdict(outcome: &ToldOutcome, exact: Option<&ToldExact>) -> String {
    let ToldOutcome { cache_status, bypass, refusal, policy, error, message } = outcome;
    if let Some(error) = error {
        return format!("REFUSED: {error}: {}", message.as_deref().unwrap_or_default());
    }
    let Some(status) = cache_status else {
        return "ANSWERED by refrain itself, or past what it caches.".to_owned();
    };
    let by_policy = policy.as_ref().map(|policy| format!(" Policy {policy}.")).unwrap_or_default();
    let why = if status.contains("; hit") {
        "HIT: answered from the cache.".to_owned()
    } else if let Some(reason) = bypass {
        format!("BYPASS ({reason}): neither looked up nor stored.")
    } else if status.contains("collapsed") {
        "JOINS: the same question is being answered, and this request gets that answer.".to_owned()
    } else if status.contains("fwd=stale") {
        "MISS: what is stored is past its time.".to_owned()
    } else if status.contains("fwd=request") {
        "MISS: an answer is stored, and the request doesn't want it (Cache-Control, or asked again at once)."
            .to_owned()
    } else if exact.is_some_and(|exact| exact.stored) {
        "MISS: an answer is stored, and a policy or shadow mode holds it back.".to_owned()
    } else {
        let similar = match refusal.as_deref() {
            None => String::new(),
            Some("no_candidate") => " No similar question is stored either.".to_owned(),
            Some("below_threshold") => " The most similar question is below the threshold.".to_owned(),
            Some(reason) => format!(" A similar question's answer was refused: {reason}."),
        };
        format!("MISS: nothing is stored for this request.{similar}")
    };
    format!("{why}{by_policy}\nCache-Status: {status}")
}

fn caller_line(caller: &ToldCaller) -> String {
    let ToldCaller { tenant, user, claims, role, key, models, pools } = caller;
    let mut rows = vec![
        vec!["tenant".to_owned(), tenant.clone()],
        vec!["user".to_owned(), user.clone().unwrap_or_else(|| "none is verified".to_owned())],
    ];
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    key.iter().for_each(|key| row("key", key.clone()));
    if !claims.is_empty() {
        row(
            "claims",
            claims.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", "),
        );
    }
    row("role", role.clone());
    row("models", if models.is_empty() { "all".to_owned() } else { models.join(", ") });
    if !pools.is_empty() {
        row("pools", pools.join(", "));
    }
    columns(&rows)
}

fn limit_rows(limit: &ToldLimit) -> Vec<Vec<String>> {
    let ToldLimit { limit, admits, unavailable, rates, under_way, under_way_max } = limit;
    let verdict = match (admits, unavailable) {
        (true, false) => "admits",
        (true, true) => "admits: its counts can't be asked",
        (false, false) => "refuses",
        (false, true) => "refuses: its counts can't be asked",
    };
    let mut rows = vec![vec![limit.clone(), verdict.to_owned()]];
    rows.extend(rates.iter().map(|ToldRate { name, limit, left, full_in_s }| {
        let full = if left < limit { format!(", all of it in {}", span(*full_in_s)) } else { String::new() };
        vec![format!("  {name}"), format!("{left} of {limit} left{full}")]
    }));
    rows.extend(
        under_way
            .zip(*under_way_max)
            .map(|(now, max)| vec!["  under way".to_owned(), format!("{now} of {max}")]),
    );
    rows
}

fn under_way_line(seen: &str) -> String {
    match seen {
        "joinable" => "the same question: this request would join it\n",
        "apart" => "apart: it can't be shared, or too many wait for it\n",
        _ => "no\n",
    }
    .to_owned()
}

fn key_table(key: &ToldKey) -> String {
    let mut rows =
        vec![vec!["whole".to_owned(), key.key.clone()], vec!["partition".to_owned(), key.partition.clone()]];
    for part in &key.parts {
        let text = part.text.as_deref().map(cut).unwrap_or_default();
        rows.push(vec![part.name.clone(), part.hash.clone(), text]);
    }
    columns(&rows)
}

fn exact_line(exact: &ToldExact) -> String {
    let ToldExact { stored, age_s, fresh_for_s, shared, allowed } = exact;
    if !stored {
        return "nothing\n".to_owned();
    }
    let fresh = match fresh_for_s {
        Some(left) => format!("fresh for {}", span(*left)),
        None => "past its time".to_owned(),
    };
    let place = if *shared { "in the shared store" } else { "in this proxy" };
    let allowed = if *allowed { "" } else { "; the client's Cache-Control forbids it" };
    format!("an answer, {} old, {fresh}, {place}{allowed}\n", span(age_s.unwrap_or_default()))
}

fn neighbour_table(neighbours: &[ToldNeighbour]) -> String {
    if neighbours.is_empty() {
        return String::new();
    }
    let head =
        ["COSINE", "VERDICT", "WORDS SHARED", "DIFFERS IN", "AGE", "KEY", ""].map(str::to_owned).to_vec();
    let row = |neighbour: &ToldNeighbour| {
        let verdict = match (&neighbour.refusal, neighbour.allowed) {
            (_, false) => "not allowed".to_owned(),
            (Some(refusal), true) => refusal.clone(),
            (None, true) => "may be served".to_owned(),
        };
        let differs =
            if neighbour.differs.is_empty() { "-".to_owned() } else { neighbour.differs.join(", ") };
        vec![
            format!("{:.4}", neighbour.cosine),
            verdict,
            format!("{:.0} %", 100.0 * neighbour.jaccard),
            differs,
            span(neighbour.age_s),
            neighbour.key[..KEY_SHOWN.min(neighbour.key.len())].to_owned(),
            neighbour.text.as_deref().map(cut).unwrap_or_default(),
        ]
    };
    columns(&std::iter::once(head).chain(neighbours.iter().map(row)).collect::<Vec<_>>())
}

fn upstream_table(upstream: &ToldUpstream) -> String {
    let ToldUpstream { pool, model, servers, fallback } = upstream;
    let row = |(nth, server): (usize, &ToldServer)| {
        let ToldServer { endpoint, reason, state, in_flight, tokens } = server;
        let load = format!("{in_flight} in flight, {tokens} tokens");
        vec![format!("{}.", nth + 1), endpoint.clone(), reason.replace('_', " "), state.clone(), load]
    };
    let table = columns(&servers.iter().enumerate().map(row).collect::<Vec<_>>());
    let after = fallback.as_ref().map(|pool| format!("then pool {pool}\n")).unwrap_or_default();
    format!("pool {pool}, model {model}\n{table}{after}")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// A text's start on one line.
fn cut(text: &str) -> String {
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    match line.char_indices().nth(TEXT_SHOWN) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

/// `2h 5m`; two units at most.
pub(super) fn span(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
