//! Whatever a policy does, its request fails as configured and within its budget, others are served, and the next call
//! works.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fixture::{Bench, Says, ask, bypassed, changes, hostile, planned};
use refrain_core::settings::{OnError, PluginLimits};
use refrain_core::{Bypass, KeyPart};
use refrain_plugin::verdict::Failed;
use refrain_plugin::{PluginError, RequestView};

/// Lists that `colliding_parts.wat` has.
const COLLIDING_LISTS: usize = 48;

/// The policy fails for this reason each time, and takes its instance along; a good policy of the same host works on.
async fn fails_with(hostile: &str, reason: Bypass) {
    let bench = Bench::new();
    let bad = bench.chain(hostile).await;
    let good = bench.chain(&changes("")).await;
    for _ in 0..3 {
        assert_eq!(bypassed(bad.on_request(&ask("acme")).await), reason.as_str());
        planned(good.on_request(&ask("acme")).await);
    }
    let statuses = bench.host.policies();
    let of = |name: &str| statuses.iter().find(|status| status.plugin.as_str() == name).expect("in use");
    assert_eq!(of("p1").instances, 1, "the good policy keeps its instance");
    let error = of("p0").last_error.clone().expect("a last error");
    assert!(error.contains(reason.as_str()), "{error}");
}

#[tokio::test]
async fn an_endless_loop_is_stopped() {
    fails_with(&hostile!("loop"), Bypass::PolicyTimedOut).await;
}

#[tokio::test]
async fn others_are_served_while_a_policy_loops() {
    let bench = Bench::new();
    let mut bad = bench.plugin(&hostile!("loop"));
    bad.limits.decide_budget = Duration::from_millis(100);
    let bad = bench.load(vec![bad]).await.expect("it loads");
    let good = bench.chain(&changes("")).await;
    let stopped = AtomicBool::new(false);
    let request = ask("acme");
    let looping = async {
        assert_eq!(bypassed(bad.on_request(&request).await), "policy_timed_out");
        stopped.store(true, Ordering::SeqCst);
    };
    let working = async {
        for _ in 0..50 {
            planned(good.on_request(&request).await);
            tokio::task::yield_now().await;
        }
        assert!(!stopped.load(Ordering::SeqCst), "fifty calls fit into the loop's hundred milliseconds");
    };
    tokio::join!(looping, working);
}

#[tokio::test]
async fn a_memory_bomb_is_told_apart_and_its_memory_returns() {
    let bench = Bench::new();
    let mut bad = bench.plugin(&hostile!("memory_bomb"));
    bad.limits.decide_budget = Duration::from_secs(5);
    let bad = bench.load(vec![bad]).await.expect("it loads");
    let before = resident_bytes();
    // Nineteen, so that it doesn't come to rest: each takes 64 MiB.
    for _ in 0..19 {
        assert_eq!(bypassed(bad.on_request(&ask("acme")).await), "policy_out_of_memory");
        assert_eq!(bench.host.policies()[0].instances, 0);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 512 << 20, "{grown} bytes did not return");
}

/// The parts that `colliding_parts` says of the nth body.
async fn colliding_parts(chain: &refrain_plugin::Chain, nth: usize) -> Vec<KeyPart> {
    let body = vec![b' '; COLLIDING_LISTS + nth];
    let request: Arc<dyn RequestView> = Arc::new(fixture::Ask { body, ..Default::default() });
    planned(chain.on_request(&request).await).key_add
}

#[tokio::test]
async fn parts_that_are_made_to_collide_arrive_apart() {
    let bench = Bench::new();
    let chain = bench.chain(&hostile!("colliding_parts")).await;
    let mut lists: Vec<Vec<KeyPart>> = Vec::new();
    for nth in 0..COLLIDING_LISTS {
        let list = colliding_parts(&chain, nth).await;
        assert!(!lists.contains(&list), "list {nth}: {list:?}");
        lists.push(list);
    }
    for (nth, list) in lists.iter().enumerate() {
        assert_eq!(colliding_parts(&chain, nth).await, *list, "the same list each time");
    }
}

/// Memory of this process, other tests' included.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize =
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

#[tokio::test]
async fn a_stack_overflow_is_a_trap() {
    fails_with(&hostile!("stack_overflow"), Bypass::PolicyTrapped).await;
}

#[tokio::test]
async fn operators_are_told_where_in_the_guest_it_failed() {
    let bench = Bench::new();
    let chain = bench.chain(&hostile!("stack_overflow")).await;
    assert_eq!(bypassed(chain.on_request(&ask("acme")).await), "policy_trapped");
    let error = bench.host.policies()[0].last_error.clone().expect("a last error");
    assert!(error.contains("call stack exhausted (in deeper < deeper"), "{error}");
}

#[tokio::test]
async fn a_huge_text_is_no_answer() {
    fails_with(&hostile!("huge_string"), Bypass::PolicyInvalid).await;
}

#[tokio::test]
async fn a_huge_list_is_no_answer_and_is_never_copied() {
    fails_with(&hostile!("huge_list"), Bypass::PolicyInvalid).await;
}

#[tokio::test]
async fn an_answer_outside_of_memory_is_none() {
    fails_with(&hostile!("wild_pointer"), Bypass::PolicyInvalid).await;
}

#[tokio::test]
async fn thresholds_that_are_no_numbers_are_no_answers() {
    let bench = Bench::new();
    for wat in [hostile!("nan_threshold"), hostile!("infinite_threshold")] {
        let chain = bench.chain(&wat).await;
        assert_eq!(bypassed(chain.on_request(&ask("acme")).await), "policy_invalid");
    }
}

#[tokio::test]
async fn a_trap_costs_one_call_and_one_instance() {
    let bench = Bench::new();
    let chain = bench.chain(&hostile!("trap_on_third_call")).await;
    for round in 0..3 {
        planned(chain.on_request(&ask("acme")).await);
        planned(chain.on_request(&ask("acme")).await);
        assert_eq!(bypassed(chain.on_request(&ask("acme")).await), "policy_trapped", "round {round}");
        assert_eq!(bench.host.policies()[0].instances, 0);
    }
}

#[tokio::test]
async fn floods_of_lines_and_metrics_are_dropped() {
    let bench = Bench::new();
    let mut flood = bench.plugin(&hostile!("flood"));
    flood.limits.decide_budget = Duration::from_secs(5);
    let chain = bench.load(vec![flood]).await.expect("it loads");
    planned(chain.on_request(&ask("acme")).await);
}

#[tokio::test]
async fn on_error_decides_what_becomes_of_a_request() {
    let bench = Bench::new();
    let with = |on_error| {
        let mut plugin = bench.plugin(&hostile!("wild_pointer"));
        plugin.on_error = on_error;
        plugin
    };
    let reject = bench.load(vec![with(OnError::Reject)]).await.expect("it loads");
    let failed = reject.on_request(&ask("acme")).await;
    assert!(matches!(failed, Err(Failed::Reject { reason: Bypass::PolicyInvalid, .. })), "{failed:?}");

    let passed_over = bench.load(vec![with(OnError::Static)]).await.expect("it loads");
    let planned = planned(passed_over.on_request(&ask("acme")).await);
    assert_eq!(planned.plan, fixture::plan(), "as if it were not there");

    // A policy that passes over must not hide that another rejects.
    let both = bench.load(vec![with(OnError::Bypass), with(OnError::Reject)]).await.expect("it loads");
    assert!(matches!(both.on_request(&ask("acme")).await, Err(Failed::Reject { .. })));
}

#[tokio::test]
async fn a_policy_that_fails_for_many_tenants_rests() {
    let bench = Bench::new();
    let chain = bench.chain(&hostile!("wild_pointer")).await;
    for tenant in ["a", "a", "a", "b", "b"] {
        assert_eq!(bypassed(chain.on_request(&ask(tenant)).await), "policy_invalid");
    }
    assert_eq!(bypassed(chain.on_request(&ask("c")).await), "policy_quarantined");
    let state = bench.host.policies()[0].state;
    assert!(matches!(state, refrain_plugin::PolicyState::Quarantined { .. }), "{state:?}");
}

#[tokio::test]
async fn what_one_tenant_breaks_works_on_for_others() {
    let bench = Bench::new();
    // Traps on bodies of other than two bytes.
    let wat = changes("(if (i32.ne (local.get 13) (i32.const 2)) (then (unreachable)))");
    let chain = bench.chain(&wat).await;
    let crafted: Arc<dyn RequestView> =
        Arc::new(fixture::Ask { tenant: "mallory".into(), body: vec![0; 3], ..Default::default() });
    planned(chain.on_request(&ask("acme")).await);
    for _ in 0..100 {
        assert_eq!(bypassed(chain.on_request(&crafted).await), "policy_trapped");
    }
    planned(chain.on_request(&ask("acme")).await);
}

async fn refused(bench: &Bench, wat: &str) -> PluginError {
    bench.load(vec![bench.plugin(wat)]).await.expect_err("it is refused")
}

#[tokio::test]
async fn what_can_not_be_loaded_says_what_to_do() {
    let bench = Bench::new();
    let check = async |wat: &str, expected: &str| {
        let message = refused(&bench, wat).await.to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(&hostile!("failing_config"), "refuses its config: no such colour: 42").await;
    check(&hostile!("needs_pool"), "needs the grant \"pool\"").await;
    check(&hostile!("extra_import"), "imports evil:files/read@1.0.0").await;
    check(
        include_str!("../../../plugins/_hostile/other_world.wat"),
        "doesn't export refrain:policy/decide@0.1.0",
    )
    .await;
    check(&hostile!("loop_in_configure"), "policy_timed_out").await;
    check(&hostile!("big_at_start"), "policy_out_of_memory").await;
    let good = changes("");
    check(&good[..good.len() / 2], "not a usable component").await;
    check("\0asm\x0d\0\x01\0\x07\x40", "not a usable component").await;
    check("", "not a usable component").await;
    check("\0asm\x01\0\0\0", "make a component of it").await;
}

#[tokio::test]
async fn a_wrong_pin_and_a_missing_file_are_told() {
    let bench = Bench::new();
    let mut pinned = bench.plugin(&changes(""));
    pinned.sha256 = Some([7; 32]);
    let message = bench.load(vec![pinned]).await.expect_err("refused").to_string();
    assert!(message.contains("config pins 0707"), "{message}");

    let missing = fixture::plugin("/nowhere/policy.wasm".into(), "missing");
    let message = bench.load(vec![missing]).await.expect_err("refused").to_string();
    assert!(message.contains("/nowhere/policy.wasm"), "{message}");
}

#[tokio::test]
async fn a_failed_validate_is_a_miss_and_a_failed_store_is_not_stored() {
    let bench = Bench::new();
    let wat = Says { hooks: Some(("(unreachable)", "(unreachable)")), ..Says::default() }.component();
    let mut plugin = bench.plugin(&wat);
    plugin.on_error = OnError::Static;
    plugin.limits = PluginLimits { instances_max: 1, ..plugin.limits };
    let chain = bench.load(vec![plugin]).await.expect("it loads");
    let contexts = planned(chain.on_request(&ask("acme")).await).contexts;
    let found: Arc<dyn refrain_plugin::CandidatesView> = Arc::new(fixture::Found(vec![0.95]));
    let verdict = chain.on_candidates(&ask("acme"), &contexts, &found).await;
    assert!(
        matches!(&verdict, refrain_plugin::verdict::Verdict::Miss { reason, .. } if &**reason == "failed"),
        "{verdict:?}"
    );
    let answered: Arc<dyn refrain_plugin::ResponseView> = Arc::new(fixture::Answered);
    let outcome = chain.on_response(&ask("acme"), &contexts, &fixture::plan(), &answered).await;
    assert!(matches!(outcome, refrain_plugin::verdict::Outcome::Failed { .. }), "{outcome:?}");
}
