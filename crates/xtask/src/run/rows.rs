//! The requests that show what the cache does, and the table of what it did.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::relay::Relay;
use crate::http::{Answer, Client};

const TIMEOUT: Duration = Duration::from_secs(120);
/// Enough for a line of the small base model, which babbles.
const MAX_TOKENS: u32 = 48;

const QUESTION: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";
const TEN_MILES: &str = "How many kilometres are 10 miles?";
const TWENTY_MILES: &str = "How many kilometres are 20 miles?";

/// One request and what must become of it.
struct Row {
    title: &'static str,
    question: &'static str,
    stream: bool,
    /// Whether it asks the upstream to keep the answer (`store`), which no cache may stand between.
    stateful: bool,
    headers: &'static [(&'static str, &'static str)],
    expected: Expected,
}

#[derive(Clone, Copy)]
enum Expected {
    /// The upstream answers, for this reason: what follows `fwd=`.
    Forwarded(&'static str),
    /// The cache answers by this tier, with the answer to this question, and the upstream is not asked.
    Hit { tier: &'static str, question: &'static str },
}

const MISS: Expected = Expected::Forwarded("miss");

/// The header of the route with a policy.
pub(super) const POLICY_HEADER: (&str, &str) = ("x-route", "policy");
const BY_POLICY: &[(&str, &str)] = &[POLICY_HEADER];
const WEATHER: &str = "What is the weather in Paris today?";
const CAPITAL: &str = "What is the capital of France?";

const ROWS: [Row; 11] = [
    Row { title: "miss", question: QUESTION, stream: false, stateful: false, headers: &[], expected: MISS },
    Row {
        title: "exact hit",
        question: QUESTION,
        stream: false,
        stateful: false,
        headers: &[],
        expected: Expected::Hit { tier: "exact", question: QUESTION },
    },
    Row {
        title: "semantic hit (a paraphrase)",
        question: PARAPHRASE,
        stream: false,
        stateful: false,
        headers: &[],
        expected: Expected::Hit { tier: "semantic", question: QUESTION },
    },
    Row {
        title: "streamed hit",
        question: QUESTION,
        stream: true,
        stateful: false,
        headers: &[],
        expected: Expected::Hit { tier: "exact", question: QUESTION },
    },
    Row {
        title: "miss, streamed (10 miles)",
        question: TEN_MILES,
        stream: true,
        stateful: false,
        headers: &[],
        expected: MISS,
    },
    Row {
        title: "near miss (20 miles)",
        question: TWENTY_MILES,
        stream: false,
        stateful: false,
        headers: &[],
        expected: MISS,
    },
    Row {
        title: "no-store, no-cache",
        question: QUESTION,
        stream: false,
        stateful: false,
        headers: &[("cache-control", "no-store, no-cache")],
        expected: Expected::Forwarded("request"),
    },
    Row {
        title: "bypass (keeps state upstream)",
        question: QUESTION,
        stream: false,
        stateful: true,
        headers: &[],
        expected: Expected::Forwarded("bypass; detail=stateful"),
    },
    Row {
        title: "policy: changes by the day",
        question: WEATHER,
        stream: false,
        stateful: false,
        headers: BY_POLICY,
        expected: Expected::Forwarded("bypass; detail=policy"),
    },
    Row {
        title: "policy: a fact, a week",
        question: CAPITAL,
        stream: false,
        stateful: false,
        headers: BY_POLICY,
        expected: MISS,
    },
    Row {
        title: "policy: the fact again",
        question: CAPITAL,
        stream: true,
        stateful: false,
        headers: BY_POLICY,
        expected: Expected::Hit { tier: "exact", question: CAPITAL },
    },
];

/// Asks everything in order, prints the table, and gives the number of rows that were not as expected.
pub(super) fn ask_all(data: SocketAddr, model: &str, relay: &Relay) -> Result<usize> {
    let client = Client::new(TIMEOUT);
    let url = format!("http://{data}/v1/chat/completions");
    let mut told = Vec::new();
    let mut wrong = 0;
    print_line(&["row", "expected", "Cache-Status", "upstream ms", "own ms", "ok"]);
    for row in &ROWS {
        let outcome = ask(&client, &url, model, row, relay)?;
        let problem = row.problem(&outcome, &told);
        print_row(row, &outcome, problem.is_none());
        if let Some(problem) = problem {
            println!("  ^ {problem}");
            wrong += 1;
        }
        told.push((row.question, outcome.text));
    }
    Ok(wrong)
}

/// A chat request whose answer ends naturally: base models never stop by themselves, so a line's end stops it.
pub(crate) fn body(model: &str, question: &str, stream: bool) -> String {
    request(model, question, stream).to_string()
}

fn request(model: &str, question: &str, stream: bool) -> Value {
    json!({
        "model": model,
        "messages": [{ "role": "user", "content": question }],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "stop": ["\n"],
        "stream": stream,
    })
}

/// Everything that is asked, for tests of the upstream.
#[cfg(test)]
pub(crate) fn questions() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.question)
}

struct Outcome {
    cache_status: String,
    text: String,
    total: Duration,
    upstream: Option<Duration>,
}

fn ask(client: &Client, url: &str, model: &str, row: &Row, relay: &Relay) -> Result<Outcome> {
    relay.take();
    let start = Instant::now();
    let mut request = request(model, row.question, row.stream);
    if row.stateful {
        request["store"] = true.into();
    }
    let answer = client.post(url, &request.to_string(), row.headers)?;
    let total = start.elapsed();
    let text = text(&answer, row.stream).with_context(|| format!("{}: {}", row.title, answer.body))?;
    Ok(Outcome { cache_status: answer.cache_status, text, total, upstream: relay.take() })
}

/// The text of an answer, whole or streamed.
fn text(answer: &Answer, stream: bool) -> Result<String> {
    if answer.status != 200 {
        bail!("status {}", answer.status);
    }
    if stream {
        return streamed_text(&answer.body);
    }
    let answer: Value = serde_json::from_str(&answer.body)?;
    content(&answer, "/choices/0/message/content").context("no text in the answer")
}

fn streamed_text(body: &str) -> Result<String> {
    let mut events = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let mut text = String::new();
    for event in events.by_ref().take_while(|event| *event != "[DONE]") {
        text += &content(&serde_json::from_str(event)?, "/choices/0/delta/content").unwrap_or_default();
    }
    if !body.trim_end().ends_with("data: [DONE]") {
        bail!("the stream has no end");
    }
    Ok(text)
}

fn content(json: &Value, pointer: &str) -> Option<String> {
    json.pointer(pointer)?.as_str().map(str::to_owned)
}

impl Row {
    /// What is wrong with the outcome. `told` are the questions asked so far, with their answers.
    fn problem(&self, outcome: &Outcome, told: &[(&str, String)]) -> Option<String> {
        match self.expected {
            Expected::Forwarded(reason) => {
                let as_expected = outcome.cache_status == format!("refrain; fwd={reason}");
                match (as_expected, outcome.upstream) {
                    (false, _) => Some("it should have been forwarded".into()),
                    (true, None) => Some("the upstream saw nothing of it".into()),
                    (true, Some(_)) => None,
                }
            }
            Expected::Hit { tier, question } => {
                let first = told.iter().find(|(asked, _)| *asked == question).map(|(_, text)| text.as_str());
                let tier = format!("detail={tier}");
                if !has(&outcome.cache_status, "hit") || !has(&outcome.cache_status, &tier) {
                    Some("it should have been answered from the cache".into())
                } else if outcome.upstream.is_some() {
                    Some("the upstream was asked in spite of the hit".into())
                } else if first != Some(&outcome.text) {
                    Some(format!("another text than the stored one: {:?}, not {first:?}", outcome.text))
                } else {
                    None
                }
            }
        }
    }

    fn expected_text(&self) -> String {
        match self.expected {
            Expected::Forwarded(reason) => format!("fwd={reason}"),
            Expected::Hit { tier, .. } => format!("hit, {tier}"),
        }
    }
}

/// Whether a `Cache-Status` value has a parameter.
fn has(cache_status: &str, parameter: &str) -> bool {
    cache_status.split(';').any(|part| part.trim() == parameter)
}

fn print_row(row: &Row, outcome: &Outcome, ok: bool) {
    let upstream = outcome.upstream.map_or("-".into(), milliseconds);
    let own = milliseconds(outcome.total.saturating_sub(outcome.upstream.unwrap_or_default()));
    let ok = if ok { "yes" } else { "NO" };
    print_line(&[row.title, &row.expected_text(), &outcome.cache_status, &upstream, &own, ok]);
}

fn print_line(cells: &[&str; 6]) {
    let [row, expected, status, upstream, own, ok] = cells;
    println!("{row:<30} {expected:<27} {status:<44} {upstream:>11} {own:>8}  {ok}");
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Expected = Expected::Hit { tier: "exact", question: QUESTION };

    fn check(expected: Expected, cache_status: &str, text: &str, asked: bool, ok: bool) {
        let row =
            Row { title: "row", question: QUESTION, stream: false, stateful: false, headers: &[], expected };
        let outcome = Outcome {
            cache_status: cache_status.into(),
            text: text.into(),
            total: Duration::from_millis(2),
            upstream: asked.then_some(Duration::from_millis(1)),
        };
        let problem = row.problem(&outcome, &[(QUESTION, "an answer".into())]);
        assert_eq!(problem.is_none(), ok, "{cache_status}, {text}, {asked}: {problem:?}");
    }

    #[test]
    fn a_hit_counts_only_with_its_tier_its_text_and_without_the_upstream() {
        let hit = "refrain; hit; ttl=3599; detail=exact";
        check(EXACT, hit, "an answer", false, true);
        check(EXACT, hit, "another", false, false);
        check(EXACT, hit, "an answer", true, false);
        check(EXACT, "refrain; hit; ttl=3599; detail=semantic", "an answer", false, false);
        check(EXACT, "refrain; fwd=miss", "an answer", true, false);
        check(EXACT, "", "an answer", false, false);
    }

    #[test]
    fn a_forward_counts_only_with_its_reason_and_the_upstream() {
        check(MISS, "refrain; fwd=miss", "an answer", true, true);
        check(MISS, "refrain; fwd=miss", "an answer", false, false);
        check(MISS, "refrain; fwd=bypass; detail=no_user", "an answer", true, false);
        check(MISS, "refrain; hit; detail=semantic", "an answer", false, false);
    }

    #[test]
    fn a_streams_text_is_the_sum_of_its_deltas() {
        let event =
            |text: &str| format!("data: {}\n\n", json!({ "choices": [{ "delta": { "content": text } }] }));
        let body = event("Hel") + &event("lo") + "data: {\"choices\":[]}\n\ndata: [DONE]\n\n";
        assert_eq!(streamed_text(&body).unwrap(), "Hello");
        assert!(streamed_text(&event("Hel")).is_err(), "cut");
    }
}
