//! Limits that a proxy counts in itself.

use std::time::Instant;

use refrain_tests::fake::{Answer, Gate, openai};
use refrain_tests::{Ask, Person, eventually};

use super::{RESULTS, answer, check_exact, check_refused, crowd, fresh, limited, people};
use crate::start_with;

#[tokio::test]
async fn who_asks_too_much_is_told_so_in_its_dialect_and_nobody_else_notices() {
    let people: [Person; 4] = people();
    let all = people.each_ref();
    let (_fake, refrain) = start_with(|config| limited(config.people(&all), "requests_per_minute = 1")).await;
    for (person, ask) in people.iter().zip(Ask::each_dialect("hello")) {
        let ask = ask.by(person);
        let first = refrain.send(&ask).await;
        assert_eq!(first.status, 200, "{}", first.text());
        assert_eq!(first.header("ratelimit-policy"), "\"per-user-rpm\";q=1;w=60");
        assert_eq!(first.header("ratelimit"), "\"per-user-rpm\";r=0;t=60");
        let second = refrain.send(&ask).await;
        check_refused(&second);
        assert!(second.header("retry-after").parse::<u64>().unwrap() <= 60);
        let error = second.json();
        let text = error.to_string();
        assert!(text.contains("rate_limit") || error["error"].is_string(), "{text}");
    }
    assert_eq!(refrain.send(&Ask::chat("hello").by(&people[3])).await.status, 200);
    refrain.counted(RESULTS, &[("limit", "per-user"), ("result", "admitted")], 4.0).await;
    refrain.counted(RESULTS, &[("limit", "per-user"), ("result", "requests")], 3.0).await;
    refrain.counted("refrain_limit_subjects", &[("limit", "per-user")], 4.0).await;
}

#[tokio::test]
async fn a_crowd_gets_exactly_what_the_limit_says() {
    let [ann] = people();
    let lines = "requests_per_minute = 2\nburst = \"1h\"";
    let (_fake, refrain) = start_with(|config| limited(config.people(&[&ann]).quiet(), lines)).await;
    let begun = Instant::now();
    let admitted = crowd(&[refrain], 200, &ann).await;
    check_exact(admitted, 2, begun);
}

#[tokio::test]
async fn a_request_has_its_place_until_its_answer_has_ended_or_its_client_has_left() {
    let [ann] = people();
    let (fake, refrain) = start_with(|config| limited(config.people(&[&ann]), "concurrency = 1")).await;
    let gate = Gate::default();
    let held = || Answer::stream("text/event-stream", openai::chat_events(&["a".into()], "stop", true));
    fake.next(held().gate(3, &gate));
    let mut first = refrain.open(&fresh(1).streamed().by(&ann)).await;
    first.until("\"a\"").await;
    let second = refrain.send(&fresh(2).by(&ann)).await;
    check_refused(&second);
    assert_eq!(second.header("ratelimit"), "\"per-user-concurrency\";r=0");
    gate.open();
    first.whole().await;
    let again = async || (refrain.send(&fresh(3).by(&ann)).await.status == 200).then_some(());
    eventually("room after the answer has ended", again).await;

    fake.next(held().hang(3));
    let mut leaves = refrain.open(&fresh(4).streamed().by(&ann)).await;
    leaves.until("\"a\"").await;
    check_refused(&refrain.send(&fresh(5).by(&ann)).await);
    drop(leaves);
    let again = async || (refrain.send(&fresh(6).by(&ann)).await.status == 200).then_some(());
    eventually("room after the client has left", again).await;
}

#[tokio::test]
async fn answers_are_paid_by_who_had_them_generated_and_hits_cost_a_request_alone() {
    let [ann, bob, eve] = people();
    let lines = "output_tokens_per_minute = 50\nrequests_per_day = 1000";
    let change = |config: refrain_tests::Config| {
        limited(config.people(&[&ann, &bob, &eve]).cache("scope = \"tenant\""), lines)
    };
    let (fake, refrain) = start_with(change).await;
    fake.next(answer(400));
    assert_eq!(refrain.send(&fresh(1).by(&ann)).await.status, 200);
    // The answer has been read, so it has been paid, or is in a moment.
    let refused = async || {
        let reply = refrain.send(&fresh(2).by(&ann)).await;
        (reply.status == 429).then_some(reply)
    };
    let refused = eventually("a debt of tokens", refused).await;
    check_refused(&refused);
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!(wait > 300, "what was overdrawn is worked off at 50 a minute: {wait}");
    for _ in 0..3 {
        let hit = refrain.send(&fresh(1).by(&bob)).await;
        assert!(hit.is_hit(), "{}", hit.cache_status());
        assert!(
            hit.header("ratelimit").contains("\"per-user-otpm\";r=50;t=0"),
            "{}",
            hit.header("ratelimit")
        );
    }
    let left = refrain.send(&fresh(1).by(&bob)).await.header("ratelimit");
    assert!(left.contains("\"per-user-rpd\";r=996"), "{left}");
}

#[tokio::test]
async fn what_passes_the_cache_is_counted_as_it_passes_or_by_what_had_passed_when_it_broke_off() {
    let [ann, bob] = people();
    let lines = "output_tokens_per_minute = 10";
    let change = |config: refrain_tests::Config| {
        limited(config.people(&[&ann, &bob]).without_cache().route("cache = false"), lines)
    };
    let (fake, refrain) = start_with(change).await;
    let pieces = |count: usize| -> Vec<String> { (0..count).map(|nth| format!("piece {nth}")).collect() };
    fake.next(Answer::stream("text/event-stream", openai::chat_events(&pieces(30), "stop", true)));
    refrain.open(&fresh(1).streamed().by(&ann)).await.whole().await;
    fake.next(Answer::stream("text/event-stream", openai::chat_events(&pieces(30), "stop", false)).hang(25));
    let mut leaves = refrain.open(&fresh(2).streamed().by(&bob)).await;
    leaves.until("piece 20").await;
    drop(leaves);
    for person in [&ann, &bob] {
        let refused = async || (refrain.send(&fresh(3).by(person)).await.status == 429).then_some(());
        eventually("a debt of tokens", refused).await;
    }
}

#[tokio::test]
async fn who_joins_an_answer_whose_first_client_has_left_pays_for_it() {
    let [ann] = people();
    let lines = "output_tokens_per_minute = 10";
    let (fake, refrain) = start_with(|config| limited(config.people(&[&ann]), lines)).await;
    let pieces: Vec<String> = (0..30).map(|nth| format!("piece {nth}")).collect();
    let gate = Gate::default();
    fake.next(Answer::stream("text/event-stream", openai::chat_events(&pieces, "stop", true)).gate(3, &gate));
    let ask = fresh(1).streamed().by(&ann);
    let [mut first, mut joins] = [refrain.open(&ask).await, refrain.open(&ask).await];
    first.until("piece 0").await;
    joins.until("piece 0").await;
    drop(first);
    refrain.counted("refrain_responses_total", &[("ended", "left")], 1.0).await;
    gate.open();
    joins.whole().await;
    assert_eq!(fake.posts(), 1);
    let refused = async || (refrain.send(&fresh(2).by(&ann)).await.status == 429).then_some(());
    eventually("a debt of tokens", refused).await;
}

#[tokio::test]
async fn an_answer_whose_tokens_are_counted_is_not_asked_for_compressed() {
    let [ann] = people();
    for (lines, encoding) in [("output_tokens_per_day = 10", ""), ("requests_per_day = 10", "gzip")] {
        let change = |config: refrain_tests::Config| {
            limited(config.people(&[&ann]).without_cache().route("cache = false"), lines)
        };
        let (fake, refrain) = start_with(change).await;
        let reply = refrain.send(&fresh(1).by(&ann).header("accept-encoding", "gzip")).await;
        assert_eq!(
            (reply.status, fake.last_post().header("accept-encoding").concat()),
            (200, encoding.to_owned())
        );
    }
}

#[tokio::test]
async fn a_prompt_that_can_never_fit_is_told_not_to_come_again() {
    let [ann] = people();
    let lines = "input_tokens_per_minute = 100\nrequests_per_day = 10";
    let (fake, refrain) = start_with(|config| limited(config.people(&[&ann]), lines)).await;
    let long = refrain.send(&Ask::chat(&"word ".repeat(1000)).by(&ann)).await;
    assert_eq!((long.status, long.header("x-should-retry").as_str()), (429, "false"), "{}", long.text());
    assert!(long.text().contains("request_over_limit"), "{}", long.text());
    refrain.counted(RESULTS, &[("result", "too_large")], 1.0).await;
    assert_eq!(fake.posts(), 0);
    let short = refrain.send(&Ask::chat("hello").by(&ann)).await;
    assert_eq!(short.status, 200, "{}", short.text());
    assert!(
        short.header("ratelimit").contains("\"per-user-rpd\";r=9"),
        "it cost nothing: {}",
        short.header("ratelimit")
    );
}

#[tokio::test]
async fn a_reload_changes_numbers_and_keeps_what_was_counted() {
    let [ann] = people();
    let fake = refrain_tests::fake::FakeUpstream::start().await;
    let of = |lines: &str| limited(refrain_tests::Config::new(&fake.url()).people(&[&ann]), lines);
    let refrain = refrain_tests::Refrain::start(&of("requests_per_day = 2")).await;
    for _ in 0..2 {
        assert_eq!(refrain.send(&Ask::chat("hello").by(&ann)).await.status, 200);
    }
    check_refused(&refrain.send(&Ask::chat("hello").by(&ann)).await);
    let lines = "requests_per_day = 2\n[limit.per-user.tenants.acme]\nrequests_per_day = 3";
    refrain.write_config(&of(lines));
    assert_eq!(refrain.reload().await.status, 200);
    assert_eq!(refrain.send(&Ask::chat("hello").by(&ann)).await.status, 200);
    check_refused(&refrain.send(&Ask::chat("hello").by(&ann)).await);
}
