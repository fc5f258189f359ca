//! Probes: what a user can learn of what others asked. From what an answer says of the cache: nothing.

use refrain_tests::fake::{FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Client, Config, Person, Refrain, Reply};

use crate::start_with;

fn ann() -> Person {
    Person::new("ann", "acme")
}

fn eve() -> Person {
    Person::new("eve", "acme")
}

async fn start() -> (FakeUpstream, Refrain) {
    start_with(|config| config.people(&[&ann(), &eve()])).await
}

/// What a reply says but for the answer's own text and the clock.
fn told(reply: &Reply) -> (u16, Vec<(String, String)>) {
    let clock = ["date", "content-length"];
    let headers = reply.headers.iter().filter(|(name, _)| !clock.contains(&name.as_str()));
    let mut headers: Vec<_> =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    headers.sort();
    (reply.status, headers)
}

/// Eve's reply to a question that Ann asked is like that to one that nobody asked.
async fn check_alike(refrain: &Refrain, probe: impl Fn(&str) -> Ask) {
    refrain.send(&Ask::chat("asked by ann").by(&ann())).await;
    assert!(refrain.send(&Ask::chat("asked by ann").by(&ann())).await.is_hit());
    let asked = refrain.send(&probe("asked by ann").by(&eve())).await;
    let unasked = refrain.send(&probe("asked by none").by(&eve())).await;
    assert_eq!(told(&asked), told(&unasked));
}

#[tokio::test]
async fn a_plain_question_tells_nothing_of_who_asked_before() {
    let (_fake, refrain) = start().await;
    check_alike(&refrain, Ask::chat).await;
}

#[tokio::test]
async fn only_if_cached_tells_nothing_of_others_entries() {
    let (fake, refrain) = start().await;
    check_alike(&refrain, |text| Ask::chat(text).cache_control("only-if-cached")).await;
    assert_eq!(fake.posts(), 1, "Ann's own");
    let refused = refrain.send(&Ask::chat("asked by ann").cache_control("only-if-cached").by(&eve())).await;
    assert_eq!((refused.status, refused.header("age").as_str()), (504, ""));
    assert!(!refused.cache_status().contains("hit") && !refused.cache_status().contains("fwd"));
}

#[tokio::test]
async fn only_if_cached_is_no_oracle_where_a_tenant_shares() {
    let (_fake, refrain) =
        start_with(|config| config.people(&[&ann(), &eve()]).cache("scope = \"tenant\"")).await;
    refrain.send(&Ask::chat("asked by ann").by(&ann())).await;
    for text in ["asked by ann", "asked by none"] {
        let reply = refrain.send(&Ask::chat(text).cache_control("only-if-cached").by(&eve())).await;
        assert_ne!(reply.status, 504, "the directive is not honoured beyond one's own entries");
    }
}

#[tokio::test]
async fn directives_tell_nothing_of_others_entries() {
    let (_fake, refrain) = start().await;
    for directives in ["no-cache", "no-store", "max-age=0", "max-age=3600", "min-fresh=1", "max-stale"] {
        check_alike(&refrain, |text| Ask::chat(text).cache_control(&format!("{directives}, no-store"))).await;
    }
}

#[tokio::test]
async fn the_debug_header_needs_the_right_to_see_it() {
    let (_fake, refrain) = start().await;
    check_alike(&refrain, |text| Ask::chat(text).header("x-refrain-debug", "1")).await;
    let reply = refrain.send(&Ask::chat("asked by ann").header("x-refrain-debug", "1").by(&eve())).await;
    assert_eq!(reply.header("refrain-debug"), "");
}

#[tokio::test]
async fn a_similar_question_of_another_tells_nothing() {
    let (_fake, refrain) =
        start_with(|config| config.people(&[&ann(), &eve()]).semantic("threshold = 0.8")).await;
    refrain.send(&Ask::chat("How do I reset my password?").by(&ann())).await;
    let similar = refrain.send(&Ask::chat("How can I reset my password?").by(&eve())).await;
    let other = refrain.send(&Ask::chat("What is the capital of France?").by(&eve())).await;
    assert_eq!(told(&similar), told(&other));
}

#[tokio::test]
async fn a_generation_of_another_that_is_under_way_tells_nothing() {
    let (fake, refrain) = start().await;
    let gate = Gate::default();
    for text in ["anns", "eves", "eves other"] {
        fake.next(openai::chat_stream(&[text], "stop").gate(2, &gate));
    }
    let client = Client::http(refrain.address());
    let anns = client.open(&Ask::chat("under way").streamed().by(&ann())).await;
    let asked = client.open(&Ask::chat("under way").streamed().by(&eve())).await;
    let unasked = client.open(&Ask::chat("not under way").streamed().by(&eve())).await;
    // Each has a generation of its own at the model server, so that none is faster for another's.
    fake.posted(3).await;
    gate.open();
    let (asked, unasked) = (asked.whole().await, unasked.whole().await);
    assert_eq!(told(&asked), told(&unasked));
    assert_eq!(asked.cache_status(), "refrain; fwd=miss");
    anns.whole().await;
}

#[tokio::test]
async fn errors_tell_nothing_of_others_entries() {
    let (fake, refrain) = start().await;
    refrain.send(&Ask::chat("asked by ann").by(&ann())).await;
    for broken in [refrain_tests::fake::Answer::close(), refrain_tests::fake::Answer::json(500, &"x".into())]
    {
        let mut replies = Vec::new();
        for text in ["asked by ann", "asked by none"] {
            for _ in 0..8 {
                fake.next(broken.clone());
            }
            replies.push(told(&refrain.send(&Ask::chat(text).by(&eve())).await));
            // What the retries left over.
            while refrain
                .send(&Ask::chat("spent").cache_control("no-cache, no-store").by(&ann()))
                .await
                .status
                != 200
            {}
        }
        assert_eq!(replies[0], replies[1]);
    }
}

#[tokio::test]
async fn who_may_not_come_in_learns_nothing_at_all() {
    let (fake, refrain) = start().await;
    let stranger = Person::new("mallory", "nowhere");
    refrain.send(&Ask::chat("asked by ann").by(&ann())).await;
    let mut replies = Vec::new();
    for text in ["asked by ann", "asked by none"] {
        for directives in ["", "only-if-cached", "no-cache"] {
            let reply = refrain.send(&Ask::chat(text).cache_control(directives).by(&stranger)).await;
            assert_eq!((reply.status, reply.cache_status().as_str()), (401, ""));
            replies.push((told(&reply), reply.text()));
        }
    }
    replies.dedup();
    assert_eq!(replies.len(), 1);
    assert_eq!(fake.posts(), 1);
}

#[tokio::test]
async fn ones_own_entries_are_told_of() {
    let config = |config: Config| config.people(&[&ann(), &eve()]);
    let (_fake, refrain) = start_with(config).await;
    refrain.send(&Ask::chat("mine").by(&ann())).await;
    let own = refrain.send(&Ask::chat("mine").cache_control("only-if-cached").by(&ann())).await;
    assert!(own.is_hit() && !own.header("age").is_empty(), "the other tests could see a difference");
}
