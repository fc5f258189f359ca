//! A policy can only tighten: what widens or removes needs the operator's word.

use refrain_tests::{Ask, Person, Policy, Scope};

use super::{second_status, twice};
use crate::start_with;
use refrain_tests::Config;
use refrain_tests::fake::FakeUpstream;

#[tokio::test]
async fn no_policy_shares_more_widely_than_its_route_without_the_grant() {
    let (ann, bob, other) =
        (Person::new("ann", "acme"), Person::new("bob", "acme"), Person::new("ann", "umbrella"));
    for (scope, grants, shared_with) in [
        (Scope::Tenant, "", vec![]),
        (Scope::Shared("all"), "", vec![]),
        (Scope::Claim("group"), "", vec![]),
        (Scope::Tenant, "grants = [\"shared-scope\"]", vec![&bob]),
        (Scope::Shared("all"), "grants = [\"shared-scope\"]", vec![&bob, &other]),
    ] {
        let people = [&ann, &bob, &other];
        let policy = Policy::new().scope(scope);
        let (_fake, refrain) =
            start_with(|config| config.people(&people).policy("test", &policy, grants)).await;
        let own = refrain.send(&Ask::chat("salary?").by(&ann)).await;
        assert_eq!(own.status, 200);
        for person in [&bob, &other] {
            let reply = refrain.send(&Ask::chat("salary?").by(person).cache_control("no-store")).await;
            let expected = shared_with.iter().any(|sharer| sharer.token() == person.token());
            assert_eq!(reply.is_hit(), expected, "{scope:?} {grants:?} {person:?}");
        }
    }
}

#[tokio::test]
async fn no_policy_keeps_answers_longer_than_the_operator_allows() {
    let fake = FakeUpstream::start().await;
    let ttl = |status: String| -> u32 {
        let ttl = status.split("ttl=").nth(1).and_then(|rest| rest.split(';').next()).map(str::to_owned);
        ttl.unwrap_or_else(|| panic!("{status}")).parse().unwrap()
    };
    let config = Config::new(&fake.url()).policy("test", &Policy::new().ttl(u32::MAX), "");
    assert!(ttl(second_status(&config).await) <= 3600, "the route's own");
    let widened = config.cache("ttl = \"1h\"\nttl_max = \"2h\"");
    assert!((7000..=7200).contains(&ttl(second_status(&widened).await)));
}

#[tokio::test]
async fn no_policy_goes_below_the_operators_threshold() {
    let policy = Policy::new().threshold("0.0");
    let (_fake, refrain) =
        start_with(|config| config.semantic("threshold = 0.97\nvetoes = []").policy("test", &policy, ""))
            .await;
    refrain.send(&Ask::chat("How do I bake bread?")).await;
    assert!(!refrain.send(&Ask::chat("How do I bake a cake?")).await.is_hit());
}

#[tokio::test]
async fn what_needs_a_grant_is_a_failure_without_it() {
    let drop = Policy::new().drop_lines("/messages/0/content", "x", false);
    for policy in [Policy::new().refuse(403, "no", 1), drop] {
        let (_fake, refrain) =
            start_with(|config| config.policy("test", &policy, "on_error = \"bypass\"")).await;
        let [reply, _] = twice(&refrain, &Ask::chat("x\ny")).await;
        assert_eq!(reply.cache_status(), "refrain; fwd=bypass; detail=policy_not_granted");
    }
    let unsent = Policy::new().drop_lines("/messages/0/content", "x", true);
    let (_fake, refrain) =
        start_with(|config| config.policy("test", &unsent, "on_error = \"bypass\"\ngrants = [\"key-edit\"]"))
            .await;
    let reply = refrain.send(&Ask::chat("x\ny")).await;
    assert_eq!(reply.cache_status(), "refrain; fwd=bypass; detail=policy_not_granted");
}
