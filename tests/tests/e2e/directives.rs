//! What a client may ask of the cache by `Cache-Control`.

use refrain_tests::{Ask, Person};

use crate::{start, start_with};

#[tokio::test]
async fn no_cache_asks_again_and_the_new_answer_replaces_the_old() {
    let (_fake, refrain) = start().await;
    let ask = Ask::chat("fresh?");
    let fresh = ask.clone().cache_control("no-cache");
    assert_eq!(refrain.send(&fresh).await.cache_status(), "refrain; fwd=miss");
    let first = refrain.send(&ask).await;
    assert!(first.is_hit());
    let second = refrain.send(&fresh).await;
    assert_eq!(second.cache_status(), "refrain; fwd=request");
    assert_ne!(second.answer(), first.answer());
    let third = refrain.send(&ask).await;
    assert!(third.is_hit());
    assert_eq!(third.answer(), second.answer());
}

#[tokio::test]
async fn no_store_forbids_storing_and_not_reuse() {
    let (fake, refrain) = start().await;
    let ask = Ask::chat("secret");
    let silent = ask.clone().cache_control("no-store");
    assert_eq!(refrain.send(&silent).await.cache_status(), "refrain; fwd=miss");
    assert_eq!(refrain.send(&ask).await.cache_status(), "refrain; fwd=miss");
    assert!(refrain.send(&silent).await.is_hit());
    assert_eq!(fake.posts(), 2);
}

#[tokio::test]
async fn both_together_measure_misses_and_leave_the_entry_alone() {
    let (_fake, refrain) = start().await;
    let ask = Ask::chat("measure");
    let first = refrain.send(&ask).await.answer();
    let measured = refrain.send(&ask.clone().cache_control("no-cache, no-store")).await;
    assert_eq!(measured.cache_status(), "refrain; fwd=request");
    assert_ne!(measured.answer(), first);
    assert_eq!(refrain.send(&ask).await.answer(), first);
}

#[tokio::test]
async fn max_age_refuses_older_entries_and_takes_younger_ones() {
    let (_fake, refrain) = start().await;
    let ask = Ask::chat("young?");
    refrain.send(&ask).await;
    assert!(refrain.send(&ask.clone().cache_control("max-age=600")).await.is_hit());
    let reply = refrain.send(&ask.cache_control("max-age=0")).await;
    assert_eq!(reply.cache_status(), "refrain; fwd=request");
}

#[tokio::test]
async fn only_if_cached_without_an_entry_is_a_504_that_sdks_do_not_retry() {
    let (fake, refrain) = start().await;
    for ask in Ask::each_dialect("is it there?") {
        let only = ask.clone().cache_control("only-if-cached");
        let reply = refrain.send(&only).await;
        assert_eq!((reply.status, reply.cache_status().as_str()), (504, "refrain"), "{ask:?}");
        assert_eq!(reply.header("x-should-retry"), "false");
        assert_eq!(fake.posts(), 0);
    }
    for ask in Ask::each_dialect("is it there?") {
        refrain.send(&ask).await;
        assert!(refrain.send(&ask.cache_control("only-if-cached")).await.is_hit());
    }
}

#[tokio::test]
async fn only_if_cached_is_no_oracle_where_others_share() {
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "acme"));
    let (_fake, refrain) =
        start_with(|config| config.people(&[&ann, &bob]).cache("scope = \"tenant\"")).await;
    let ask = Ask::chat("did anybody ask this?").cache_control("only-if-cached").by(&bob);
    let reply = refrain.send(&ask).await;
    assert_eq!((reply.status, reply.cache_status().as_str()), (200, "refrain; fwd=miss"));
}

#[tokio::test]
async fn directives_that_the_route_does_not_allow_are_ignored() {
    let (_fake, refrain) = start_with(|config| config.cache("directives = [\"no-store\"]")).await;
    let ask = Ask::chat("no regenerating here");
    refrain.send(&ask).await;
    for directive in ["no-cache", "max-age=0", "NO-CACHE, max-age=0"] {
        assert!(refrain.send(&ask.clone().cache_control(directive)).await.is_hit(), "{directive}");
    }
    let absent = Ask::chat("not there").cache_control("only-if-cached");
    assert_eq!(refrain.send(&absent).await.status, 200);
}

#[tokio::test]
async fn unknown_and_malformed_directives_are_ignored() {
    let (_fake, refrain) = start().await;
    let ask = Ask::chat("odd");
    refrain.send(&ask).await;
    for directive in
        ["", ",,,", "max-age", "max-age=soon", "max-age=-1", "stale-if-error=5", "no-cachee", "private"]
    {
        assert!(refrain.send(&ask.clone().cache_control(directive)).await.is_hit(), "{directive:?}");
    }
}
