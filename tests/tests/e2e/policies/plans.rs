//! `on-request`: time to live, scope, key, shadow, bypass and refusal, and what logs and metrics say of them.

use refrain_tests::{Ask, Person, Policy, Scope};
use serde_json::json;

use super::{twice, with_granted, with_policy};
use crate::start_with;

fn ttl_of(status: &str) -> u64 {
    let ttl = status.split("ttl=").nth(1).and_then(|rest| rest.split(';').next());
    ttl.and_then(|ttl| ttl.parse().ok()).unwrap_or_else(|| panic!("{status}"))
}

#[tokio::test]
async fn a_policys_time_to_live_holds() {
    let (_fake, refrain) = with_policy(&Policy::new().ttl(77)).await;
    let [first, second] = twice(&refrain, &Ask::chat("how long?")).await;
    assert_eq!(first.cache_status(), "refrain; fwd=miss");
    assert!((70..=77).contains(&ttl_of(&second.cache_status())), "{}", second.cache_status());
}

#[tokio::test]
async fn a_policy_keeps_requests_out_of_the_cache_and_says_why() {
    let (fake, refrain) =
        with_policy(&Policy::new().bypass("declared").label_of_bypass("tier", "gold")).await;
    let log = refrain.logs().len();
    let [first, second] = twice(&refrain, &Ask::chat("weather?")).await;
    for reply in [&first, &second] {
        assert_eq!((reply.status, &*reply.cache_status()), (200, "refrain; fwd=bypass; detail=policy"));
    }
    assert_eq!(fake.posts(), 2);
    refrain.logged(log, "test: declared").await;
    let labels = [("plugin", "test"), ("route", "all"), ("reason", "declared")];
    refrain.counted("refrain_policy_reasons_total", &labels, 2.0).await;
    refrain.counted("refrain_cache_bypasses_total", &[("reason", "policy")], 2.0).await;
}

#[tokio::test]
async fn a_reason_that_was_not_declared_is_no_label() {
    let (_fake, refrain) = with_policy(&Policy::new().bypass("user 4711 asked")).await;
    refrain.send(&Ask::chat("weather?")).await;
    refrain.counted("refrain_policy_reasons_total", &[("reason", "undeclared")], 1.0).await;
    assert!(!refrain.metrics().await.text().contains("4711"));
}

#[tokio::test]
async fn a_policy_that_may_refuses_requests_in_every_dialect() {
    let policy = Policy::new().refuse(429, "not today", 17);
    let (fake, refrain) = with_granted(&policy, "grants = [\"refuse\"]").await;
    for ask in Ask::each_dialect("please") {
        let reply = refrain.send(&ask).await;
        assert_eq!((reply.status, &*reply.header("retry-after")), (429, "17"));
        assert!(reply.text().contains("not today"), "{}", reply.text());
        assert!(!reply.json()["error"].is_null(), "{}", reply.text());
    }
    assert_eq!(fake.posts(), 0);
    refrain.counted("refrain_errors_total", &[("code", "policy_refused")], 3.0).await;
}

#[tokio::test]
async fn a_policy_narrows_the_scope() {
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "acme"));
    let config = |policy: Policy| {
        let people = [ann.clone(), bob.clone()];
        start_with(move |config| {
            let config = config.people(&people.each_ref()).cache("scope = \"tenant\"");
            config.policy("test", &policy, "")
        })
    };
    let (_fake, wide) = config(Policy::new()).await;
    wide.send(&Ask::chat("salary?").by(&ann)).await;
    assert!(wide.send(&Ask::chat("salary?").by(&bob)).await.is_hit());

    for scope in [Scope::User, Scope::WithinUser("project"), Scope::Claim("group")] {
        let (_fake, refrain) = config(Policy::new().scope(scope)).await;
        refrain.send(&Ask::chat("salary?").by(&ann)).await;
        assert!(!refrain.send(&Ask::chat("salary?").by(&bob)).await.is_hit(), "{scope:?}");
        let own = refrain.send(&Ask::chat("salary?").by(&ann)).await;
        match scope {
            Scope::Claim(_) => assert_eq!(own.cache_status(), "refrain; fwd=bypass; detail=no_claim"),
            _ => assert!(own.is_hit(), "{scope:?}"),
        }
    }
}

#[tokio::test]
async fn people_of_one_claim_share_what_a_policy_scopes_by_it() {
    let member = |name: &str, group: &str| Person::new(name, "acme").claim("groups", group);
    let [ann, bob, eve] = [member("ann", "legal"), member("bob", "legal"), member("eve", "sales")];
    let policy = Policy::new().scope(Scope::Claim("groups"));
    let (_fake, refrain) = start_with(|config| {
        config.people(&[&ann, &bob, &eve]).cache("scope = \"tenant\"").policy("test", &policy, "")
    })
    .await;
    refrain.send(&Ask::chat("our case?").by(&ann)).await;
    assert!(refrain.send(&Ask::chat("our case?").by(&bob)).await.is_hit());
    assert!(!refrain.send(&Ask::chat("our case?").by(&eve)).await.is_hit());
}

#[tokio::test]
async fn a_header_that_a_policy_adds_to_the_key_parts_answers() {
    let (_fake, refrain) = with_policy(&Policy::new().key_header("x-project")).await;
    let plain = Ask::chat("status?");
    let [red, blue] = ["red", "blue"].map(|project| plain.clone().header("x-project", project));
    for ask in [&plain, &red, &blue] {
        let [first, second] = twice(&refrain, ask).await;
        assert_eq!(first.cache_status(), "refrain; fwd=miss");
        assert!(second.is_hit());
    }
}

#[tokio::test]
async fn credentials_are_no_header_to_a_policy() {
    let (_fake, refrain) = with_policy(&Policy::new().key_header("authorization")).await;
    let ask = |token| Ask::chat("who?").header("authorization", token);
    refrain.send(&ask("Bearer one")).await;
    assert!(refrain.send(&ask("Bearer two")).await.is_hit(), "it reads as absent");
}

#[tokio::test]
async fn noise_is_edited_out_of_the_key_and_of_what_is_sent() {
    let noise = |nth: u32| {
        let system = format!("x-noise: {nth}\nYou are kind.");
        Ask::message("hello?").field("system", json!(system))
    };
    let kept = Policy::new().drop_lines("/system", "x-noise:", false);
    let (fake, refrain) = with_granted(&kept, "grants = [\"key-edit\"]").await;
    refrain.send(&noise(1)).await;
    assert_eq!(fake.last_post().json()["system"], "x-noise: 1\nYou are kind.");
    assert!(refrain.send(&noise(2)).await.is_hit());

    let sent = Policy::new().drop_lines("/system", "x-noise:", true);
    let (fake, refrain) = with_granted(&sent, "grants = [\"key-edit\", \"rewrite\"]").await;
    refrain.send(&noise(1)).await;
    assert_eq!(fake.last_post().json()["system"], "You are kind.");
    assert!(refrain.send(&noise(2)).await.is_hit());
    let other = Ask::message("hello?").field("system", json!("x-noise: 3\nYou are strict."));
    assert!(!refrain.send(&other).await.is_hit(), "only the noise is left out");
}

#[tokio::test]
async fn in_shadow_the_upstream_is_asked_always() {
    let (fake, refrain) = with_policy(&Policy::new().shadow()).await;
    for reply in twice(&refrain, &Ask::chat("who is there?")).await {
        assert!(!reply.is_hit());
    }
    assert_eq!(fake.posts(), 2);
    refrain.counted("refrain_semantic_shadow_hits_total", &[], 1.0).await;
}

#[tokio::test]
async fn what_a_policy_does_not_want_stored_is_looked_up_only() {
    let (fake, refrain) = with_policy(&Policy::new().no_store()).await;
    for reply in twice(&refrain, &Ask::chat("a secret")).await {
        assert_eq!(reply.cache_status(), "refrain; fwd=miss");
    }
    assert_eq!(fake.posts(), 2);
    refrain.counted("refrain_cache_skips_total", &[("reason", "no_store")], 2.0).await;
}

#[tokio::test]
async fn declared_labels_are_counted_with_outcomes_and_all_are_logged() {
    let (_fake, refrain) = with_policy(&Policy::new().label("tier", "gold")).await;
    let log = refrain.logs().len();
    twice(&refrain, &Ask::chat("label me")).await;
    refrain.logged(log, "tier=gold").await;
    let counted = |outcome| [("plugin", "test"), ("value", "gold"), ("outcome", outcome)];
    refrain.counted("refrain_policy_outcomes_total", &counted("miss"), 1.0).await;
    refrain.counted("refrain_policy_outcomes_total", &counted("hit_exact"), 1.0).await;
}

#[tokio::test]
async fn several_policies_are_merged_to_the_strictest() {
    let (long, short) = (Policy::new().ttl(500), Policy::new().ttl(50).label("tier", "gold"));
    let (_fake, refrain) =
        start_with(|config| config.policy("long", &long, "").policy("short", &short, "")).await;
    let [_, second] = twice(&refrain, &Ask::chat("how long?")).await;
    assert!(ttl_of(&second.cache_status()) <= 50, "{}", second.cache_status());
}

#[tokio::test]
async fn another_policy_or_config_has_entries_of_its_own() {
    let (_fake, refrain) = with_policy(&Policy::new()).await;
    refrain.send(&Ask::chat("mine?")).await;
    let text = std::fs::read_to_string(refrain.config_path()).unwrap();
    refrain.write_config_text(&text.replace("[plugin.test]", "[plugin.test]\nconfig = { other = true }"));
    let reply = refrain.reload().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(!refrain.send(&Ask::chat("mine?")).await.is_hit());
}
