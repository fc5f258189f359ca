//! Where a miss goes: pools, models and routing keys that policies choose, within the caller's rights.

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Config, Person, Policy, Refrain};
use serde_json::json;

use super::{twice, with_policy};

/// Two pools, the route's own and another.
struct Fleet {
    own: FakeUpstream,
    other: FakeUpstream,
    refrain: Refrain,
}

async fn fleet(policy: &Policy, lines: &str, change: impl FnOnce(Config) -> Config) -> Fleet {
    let (own, other) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let pool = format!("[pool.other]\nendpoints = [{:?}]\n\n", other.url());
    let config = Config::new(&own.url()).tables(&pool).policy("test", policy, lines);
    let refrain = Refrain::start(&change(config)).await;
    Fleet { own, other, refrain }
}

const MAY_CHOOSE: &str = "grants = [\"pool\"]";

#[tokio::test]
async fn a_policy_that_may_sends_misses_to_another_pool() {
    let Fleet { own, other, refrain } =
        fleet(&Policy::new().pool("other"), MAY_CHOOSE, |config| config).await;
    let [first, second] = twice(&refrain, &Ask::chat("where?")).await;
    assert_eq!((first.status, second.is_hit()), (200, true));
    assert_eq!((own.posts(), other.posts()), (0, 1));
}

#[tokio::test]
async fn requests_past_the_cache_go_there_too() {
    let policy = Policy::new().bypass("declared").pool_of_bypass("other");
    let Fleet { own, other, refrain } = fleet(&policy, MAY_CHOOSE, |config| config).await;
    assert_eq!(refrain.send(&Ask::chat("where?")).await.status, 200);
    assert_eq!((own.posts(), other.posts()), (0, 1));
}

#[tokio::test]
async fn a_policy_without_the_grant_chooses_no_pool() {
    let lines = "on_error = \"bypass\"";
    let Fleet { own, other, refrain } = fleet(&Policy::new().pool("other"), lines, |config| config).await;
    let reply = refrain.send(&Ask::chat("where?")).await;
    assert_eq!(reply.cache_status(), "refrain; fwd=bypass; detail=policy_not_granted");
    assert_eq!((own.posts(), other.posts()), (1, 0));
}

#[tokio::test]
async fn a_pool_that_is_not_there_is_a_failure_of_the_policy() {
    let Fleet { own, refrain, .. } = fleet(&Policy::new().pool("nowhere"), MAY_CHOOSE, |config| config).await;
    let reply = refrain.send(&Ask::chat("where?")).await;
    assert_eq!((reply.status, own.posts()), (503, 0), "{}", reply.text());
    assert!(!reply.text().contains("nowhere"), "no internals: {}", reply.text());
}

#[tokio::test]
async fn a_caller_gets_no_pool_that_its_key_excludes() {
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "acme").pools(&["llm"]));
    let people = [&ann, &bob];
    let Fleet { other, refrain, .. } =
        fleet(&Policy::new().pool("other"), MAY_CHOOSE, |config| config.people(&people)).await;
    assert_eq!(refrain.send(&Ask::chat("where?").by(&ann)).await.status, 200);
    assert_eq!(refrain.send(&Ask::chat("where?").by(&bob)).await.status, 403);
    assert_eq!(other.posts(), 1);
}

#[tokio::test]
async fn a_policy_chooses_the_model_within_the_callers_rights() {
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "acme").only(&["m"]));
    let people = [&ann, &bob];
    let Fleet { own, refrain, .. } =
        fleet(&Policy::new().model("large"), "", |config| config.people(&people)).await;
    assert_eq!(refrain.send(&Ask::chat("which?").by(&ann)).await.status, 200);
    assert_eq!(own.last_post().json()["model"], "large");
    assert_eq!(refrain.send(&Ask::chat("which?").by(&bob)).await.status, 404);
    assert_eq!(own.posts(), 1);
}

#[tokio::test]
async fn another_model_has_entries_of_its_own() {
    let (_fake, refrain) = with_policy(&Policy::new().model("large")).await;
    let named = |model: &str| Ask::chat("which?").field("model", json!(model));
    refrain.send(&named("m")).await;
    assert!(refrain.send(&named("small")).await.is_hit(), "both are asked of the same model");
}

#[tokio::test]
async fn requests_with_the_same_routing_key_go_to_the_same_endpoint() {
    let fakes = [FakeUpstream::start().await, FakeUpstream::start().await, FakeUpstream::start().await];
    let endpoints: Vec<String> = fakes.iter().map(FakeUpstream::url).collect();
    let pool = format!(
        "[pool.many]\nendpoints = {endpoints:?}\n\n[route.many]\npath = \"/v1\"\npool = \"many\"\n\
                        plugins = [\"test\"]\n\n"
    );
    let policy = Policy::new().route_by_system_prompt();
    let config = Config::new(&fakes[0].url()).tables(&pool).policy("test", &policy, "");
    let refrain = Refrain::start(&config).await;
    for system in ["be kind", "be brief", "be strict", "be wise"] {
        let before = fakes.each_ref().map(FakeUpstream::posts);
        for turn in 0..6 {
            let messages = json!([
                {"role": "system", "content": system},
                {"role": "user", "content": format!("turn {turn}")},
            ]);
            let reply = refrain.send(&Ask::chat("").field("messages", messages)).await;
            assert_eq!(reply.cache_status(), "refrain; fwd=miss");
        }
        let after = fakes.each_ref().map(FakeUpstream::posts);
        let asked = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert_eq!(asked, 1, "{system}: {before:?} {after:?}");
    }
    let spread = fakes.iter().filter(|fake| fake.posts() > 0).count();
    assert!(spread > 1, "four prompts all went to one of three");
}
