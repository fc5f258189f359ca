//! Hostile and broken policies: the configured failure, in time; everybody else is served, and so is the next call.

use std::time::Instant;

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Config, Person, Policy, Refrain};

use super::with_granted;
use crate::start_with;

const LOOP: &str = "(loop $forever (br $forever))";
const BOMB: &str =
    "(loop $more (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) (br $more))";

/// Instructions that fail, and how the failure is called.
fn failing() -> [(Policy, &'static str); 6] {
    let code = |code: &str| Policy::new().on_request(code);
    [
        (code("unreachable"), "policy_trapped"),
        (code(LOOP), "policy_timed_out"),
        (code(BOMB), "policy_out_of_memory"),
        (Policy::new().threshold("nan"), "policy_invalid"),
        (code("(i32.store (i32.const 0x880) (i32.const 0x7fffffff))"), "policy_invalid"),
        (code("(drop (call $recurse (i32.const 0)))").function(
            "(func $recurse (param i32) (result i32) (i32.add (call $recurse (local.get 0)) (i32.const 1)))",
        ), "policy_trapped"),
    ]
}

#[tokio::test]
async fn a_failing_policy_costs_the_cache_and_no_more() {
    for (policy, reason) in failing() {
        let (fake, refrain) = start_with(|config| {
            config.semantic("threshold = 0.9").policy("test", &policy, "on_error = \"bypass\"")
        })
        .await;
        let reply = refrain.send(&Ask::chat("hello?")).await;
        assert_eq!(
            (reply.status, reply.cache_status()),
            (200, format!("refrain; fwd=bypass; detail={reason}"))
        );
        assert_eq!(fake.posts(), 1);
        refrain
            .counted("refrain_policy_failures_total", &[("plugin", "test"), ("reason", reason)], 1.0)
            .await;
        refrain.counted("refrain_cache_bypasses_total", &[("reason", reason)], 1.0).await;
        refrain.logged(0, reason).await;
    }
}

#[tokio::test]
async fn where_no_answer_is_wanted_without_the_policy_there_is_none() {
    for (policy, reason) in failing().into_iter().take(3) {
        let (fake, refrain) = with_granted(&policy, "on_error = \"reject\"").await;
        let reply = refrain.send(&Ask::chat("hello?")).await;
        assert_eq!((reply.status, reply.cache_status()), (503, format!("refrain; detail={reason}")));
        assert_ne!(reply.header("retry-after"), "");
        assert_eq!(fake.posts(), 0);
    }
}

#[tokio::test]
async fn with_on_error_static_the_routes_own_plan_holds() {
    let (_fake, refrain) =
        with_granted(&Policy::new().on_request("unreachable"), "on_error = \"static\"").await;
    refrain.send(&Ask::chat("hello?")).await;
    assert!(refrain.send(&Ask::chat("hello?")).await.is_hit());
}

#[tokio::test]
async fn the_default_on_error_protects_where_a_grant_protects() {
    let trap = Policy::new().on_request("unreachable");
    let (_fake, refrain) = with_granted(&trap, "grants = [\"refuse\"]").await;
    assert_eq!(refrain.send(&Ask::chat("hello?")).await.status, 503);
    let (_fake, refrain) = with_granted(&trap, "grants = [\"state\"]").await;
    assert_eq!(refrain.send(&Ask::chat("hello?")).await.status, 200);
}

#[tokio::test]
async fn a_policy_that_traps_on_every_second_call_serves_the_others() {
    // Each instance traps on its second call, and is replaced.
    let policy =
        Policy::new().on_request("(if (i32.eq (global.get $calls) (i32.const 2)) (then unreachable))");
    let (_fake, refrain) = with_granted(&policy, "on_error = \"bypass\"").await;
    refrain.send(&Ask::chat("hello?")).await;
    let trapped = refrain.send(&Ask::chat("hello?")).await;
    assert_eq!(trapped.cache_status(), "refrain; fwd=bypass; detail=policy_trapped");
    assert!(refrain.send(&Ask::chat("hello?")).await.is_hit(), "the next instance works");
}

#[tokio::test]
async fn other_routes_are_served_while_a_policy_spins() {
    let fake = FakeUpstream::start().await;
    let spin = Policy::new().on_request(LOOP);
    // A budget in which much else can be done on the same threads.
    let config = Config::new(&fake.url())
        .tables("[route.quiet]\npath = \"/v1/messages\"\npool = \"llm\"\n\n")
        .policy("test", &spin, "on_error = \"bypass\"\nlimits.decide = \"900ms\"");
    let refrain = Refrain::start(&config).await;
    refrain.send(&Ask::message("quiet?")).await;
    let asks = ["one", "two", "three"].map(Ask::chat);
    let [one, two, three] = asks.each_ref().map(|ask| refrain.send(ask));
    let spinning = async {
        let (one, two, three) = tokio::join!(one, two, three);
        ([one, two, three], Instant::now())
    };
    let others = async {
        for _ in 0..20 {
            assert!(refrain.send(&Ask::message("quiet?")).await.is_hit());
        }
        Instant::now()
    };
    let ((replies, spun), others_done) = tokio::join!(spinning, others);
    for reply in replies {
        assert_eq!(reply.cache_status(), "refrain; fwd=bypass; detail=policy_timed_out");
    }
    assert!(others_done < spun, "twenty hits were served before three loops ended");
}

#[tokio::test]
async fn a_policy_that_fails_for_many_rests_and_readiness_tells() {
    let people: Vec<Person> = (0..4).map(|n| Person::new("ann", &format!("tenant-{n}"))).collect();
    let trap = Policy::new().on_request("unreachable");
    let (_fake, refrain) = start_with(|config| {
        config.people(&people.iter().collect::<Vec<_>>()).policy("test", &trap, "on_error = \"bypass\"")
    })
    .await;
    let mut last = String::new();
    for n in 0..60 {
        last = refrain.send(&Ask::chat("hello?").by(&people[n % people.len()])).await.cache_status();
    }
    assert_eq!(last, "refrain; fwd=bypass; detail=policy_quarantined");
    let ready = refrain.readiness().await;
    assert_eq!((&ready["ready"], &ready["degraded"][0]), (&true.into(), &"policies".into()), "{ready}");
    assert_eq!(ready["policies"][0]["state"], "quarantined");
    assert!(ready["policies"][0]["last_error"].as_str().unwrap().contains("policy_trapped"), "{ready}");
}

#[tokio::test]
async fn one_tenants_crafted_prompts_switch_no_policy_off() {
    let (mallory, ann) = (Person::new("mallory", "evil"), Person::new("ann", "acme"));
    // Traps on short bodies alone; the body's length is what the host passes last.
    let policy =
        Policy::new().on_request("(if (i32.lt_u (local.get 13) (i32.const 120)) (then unreachable))");
    let (_fake, refrain) = start_with(|config| {
        config.people(&[&mallory, &ann]).policy("test", &policy, "on_error = \"bypass\"")
    })
    .await;
    let long = "a question that is long enough to be over the length at which it traps, whatever else the body holds";
    refrain.send(&Ask::chat(long).by(&ann)).await;
    for _ in 0..40 {
        refrain.send(&Ask::chat("x").by(&mallory)).await;
        let served = refrain.send(&Ask::chat(long).by(&ann)).await;
        assert!(served.is_hit(), "{}", served.cache_status());
    }
}

#[tokio::test]
async fn a_component_that_can_not_be_a_policy_ends_the_start_and_says_why() {
    let fake = FakeUpstream::start().await;
    let pinned = format!("sha256 = \"{}\"", "0".repeat(64));
    for (policy, lines, said) in
        [(Policy::new().configure("unreachable"), "", "test"), (Policy::new(), &*pinned, "sha256")]
    {
        let config = Config::new(&fake.url()).policy("test", &policy, lines);
        let (status, logs) = Refrain::run_to_end(&config).await;
        assert!(!status.success() && logs.contains(said), "{logs}");
    }
}
