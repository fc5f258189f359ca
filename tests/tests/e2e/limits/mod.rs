//! Limits on what callers may ask for: the real binary, counting in itself and in real Redis servers.

mod here;
mod shared;

use std::time::Instant;

use refrain_tests::fake::{Answer, openai};
use refrain_tests::{Ask, Client, Config, Person, Refrain, Reply};
use serde_json::json;
use tokio::task::JoinSet;

const RESULTS: &str = "refrain_limit_requests_total";

/// A route with this limit by user.
fn limited(config: Config, lines: &str) -> Config {
    config.route("limits = [\"per-user\"]").tables(&format!("[limit.per-user]\nby = [\"user\"]\n{lines}\n"))
}

fn people<const N: usize>() -> [Person; N] {
    std::array::from_fn(|nth| Person::new(&format!("person-{nth}"), "acme"))
}

/// A question like no other.
fn fresh(nth: usize) -> Ask {
    Ask::chat(&format!("question {nth}"))
}

/// Refused by a limit, with what clients need to do better.
fn check_refused(reply: &Reply) {
    assert_eq!(reply.status, 429, "{}", reply.text());
    let wait: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait}");
    assert!(reply.header("ratelimit-policy").contains("\"per-user-"), "{:?}", reply.headers);
    assert!(reply.text().contains("limit") || reply.text().contains("under way"), "{}", reply.text());
}

/// An answer of so many tokens.
fn answer(tokens: usize) -> Answer {
    let message = json!({"role": "assistant", "content": "a long one"});
    Answer::json(200, &openai::chat_whole(1, &message, "stop", tokens))
}

/// Asks so many different questions of each proxy at once; how many were let in.
async fn crowd(proxies: &[Refrain], count: usize, person: &Person) -> usize {
    let mut asking = JoinSet::new();
    for nth in 0..count {
        for (at, proxy) in proxies.iter().enumerate() {
            let (client, ask) = (Client::http(proxy.address()), fresh(nth * proxies.len() + at).by(person));
            asking.spawn(async move { client.send(&ask).await });
        }
    }
    let mut admitted = 0;
    for reply in asking.join_all().await {
        match reply.status {
            200 => admitted += 1,
            _ => check_refused(&reply),
        }
    }
    admitted
}

/// What a limit of so many a minute, all of an hour's at once, lets in within the time of a test: within 1 %.
fn check_exact(admitted: usize, per_minute: usize, begun: Instant) {
    let burst = per_minute * 60;
    let refilled = per_minute * usize::try_from(begun.elapsed().as_secs()).unwrap() / 60 + 1;
    let most = burst + refilled.max(burst / 100);
    assert!((burst..=most).contains(&admitted), "{admitted} of {burst} to {most}");
}
