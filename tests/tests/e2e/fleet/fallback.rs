//! A pool that stands in for another.

use refrain_tests::fake::{Answer, FakeUpstream};
use refrain_tests::{Ask, Config, Person, Policy, Refrain};
use serde_json::json;

/// A pool at this URL, with another one behind it that calls its model otherwise.
fn config(first: &str, second: &FakeUpstream, lines: &str) -> Config {
    let tables = format!(
        "[pool.first]\nendpoints = [{first:?}]\nfallback = \"second\"\n{lines}\n\
         [pool.second]\nendpoints = [{:?}]\nmodels = {{ m = \"other\" }}\n\
         [route.both]\npool = \"first\"\npath = \"/v1\"\n",
        second.url()
    );
    Config::new("http://127.0.0.1:1").tables(&tables)
}

const NOBODY: &str = "http://127.0.0.1:1";

#[tokio::test]
async fn what_one_pool_cannot_answer_another_one_does_and_its_answer_is_its_own() {
    let second = FakeUpstream::start().await;
    let refrain = Refrain::start(&config(NOBODY, &second, "")).await;
    let reply = refrain.send(&Ask::chat("hello")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(second.last_post().json()["model"], "other");
    let again = refrain.send(&Ask::chat("hello")).await;
    assert!(again.is_hit() && again.answer() == reply.answer());
    assert_eq!(second.posts(), 1);
}

#[tokio::test]
async fn a_stand_ins_answer_is_never_the_first_pools() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let refrain = Refrain::start(&config(&first.url(), &second, "")).await;
    first.next(Answer::json(503, &json!({"error": {"message": "server busy"}})));
    let stand_in = refrain.send(&Ask::chat("hello")).await;
    assert_eq!((stand_in.status, second.posts()), (200, 1));
    // The first one is back: it is asked, since nothing of its own is stored.
    let own = refrain.send(&Ask::chat("hello")).await;
    assert!(!own.is_hit(), "{}", own.cache_status());
    assert_eq!((first.posts(), second.posts()), (2, 1));
}

#[tokio::test]
async fn the_model_that_a_policy_chose_is_asked_of_the_stand_in_too() {
    let second = FakeUpstream::start().await;
    let tables = format!(
        "[pool.second]\nendpoints = [{:?}]\nmodels = {{ m = \"other\", small = \"tiny\" }}\n",
        second.url()
    );
    let policy = Policy::new().model("small");
    let config =
        Config::new(NOBODY).pool("fallback = \"second\"").tables(&tables).policy("test", &policy, "");
    let refrain = Refrain::start(&config).await;
    assert_eq!(refrain.send(&Ask::chat("hello")).await.status, 200);
    assert_eq!(second.last_post().json()["model"], "tiny");
}

#[tokio::test]
async fn errors_of_the_request_itself_go_nowhere_else() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let refrain = Refrain::start(&config(&first.url(), &second, "")).await;
    first.next(Answer::json(400, &json!({"error": {"message": "bad"}})));
    first.next(Answer::json(500, &json!({"error": {"message": "broken"}})));
    for status in [400, 500] {
        assert_eq!(refrain.send(&Ask::chat("hello")).await.status, status);
    }
    assert_eq!(second.posts(), 0);
}

#[tokio::test]
async fn who_may_not_use_the_stand_in_is_told_so_by_the_first_ones_error() {
    let second = FakeUpstream::start().await;
    let (ann, bob) = (Person::new("ann", "acme").only(&["m"]), Person::new("bob", "acme").pools(&["first"]));
    let refrain = Refrain::start(&config(NOBODY, &second, "").people(&[&ann, &bob])).await;
    assert_eq!(refrain.send(&Ask::chat("hello").by(&ann)).await.status, 200);
    let refused = refrain.send(&Ask::chat("hello").by(&bob)).await;
    assert_eq!(refused.status, 502);
    assert_eq!(second.posts(), 1);
}

#[tokio::test]
async fn pools_that_stand_in_for_each_other_are_asked_once_each() {
    let tables = format!(
        "[pool.a]\nendpoints = [{NOBODY:?}]\nfallback = \"b\"\n[pool.b]\nendpoints = [{NOBODY:?}]\nfallback = \"a\"\n\
         [route.both]\npool = \"a\"\npath = \"/v1\"\n"
    );
    let refrain = Refrain::start(&Config::new(NOBODY).tables(&tables)).await;
    assert_eq!(refrain.send(&Ask::chat("hello")).await.status, 502);
}
