//! Sharing, instances, compiled code, and what policies are offered.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod fixture;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fixture::{
    Answered, Ask, Bench, Found, Says, ask, bypassed, changes, granted, hostile, plan, planned, route,
};
use refrain_core::settings::{Grant, Isolation, PluginHost as HostSettings, RoutePlugin};
use refrain_core::{Freshness, KeyPart, Scope};
use refrain_plugin::verdict::{Decision, Outcome, Verdict};
use refrain_plugin::{CandidatesView, Chain, PluginError, RequestView, ResponseView, SimilarityError};

/// Writes the number of calls that the instance has had into the TTL.
const COUNTS_CALLS: &str = "(i32.store (i32.const 0x844) (global.get $calls))";

async fn ttl(chain: &Chain) -> u64 {
    planned(chain.on_request(&ask("acme")).await).plan.freshness.ttl.as_secs()
}

/// Waits until so many components are in memory: the compiler's thread may still hold the last.
async fn components_become(bench: &Bench, count: usize) {
    let settled = async {
        while bench.host.components() != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), settled).await.expect("it settles");
}

#[tokio::test]
async fn a_route_without_policies_has_no_chain() {
    assert!(Bench::new().host.chain(&route(vec![])).await.expect("no error").is_none());
}

#[tokio::test]
async fn a_policy_is_told_the_route_s_plan_and_may_return_it_as_it_is() {
    let bench = Bench::new();
    let chain = bench.chain(&changes("")).await;
    for scope in [Scope::User, Scope::Tenant, Scope::Claim("g".into()), Scope::WithinUser("p".into())] {
        let mut ask = Ask::default();
        ask.plan.scope = scope;
        ask.plan.directives.no_cache = true;
        let expected = ask.plan.clone();
        let request: Arc<dyn RequestView> = Arc::new(ask);
        assert_eq!(planned(chain.on_request(&request).await).plan, expected);
    }
}

#[tokio::test]
async fn instances_are_reused_until_they_have_served_their_calls() {
    let bench = Bench::new();
    let mut plugin = bench.plugin(&changes(COUNTS_CALLS));
    plugin.limits.calls_max = 3;
    let chain = bench.load(vec![plugin]).await.expect("it loads");
    let mut seen = Vec::new();
    for _ in 0..7 {
        seen.push(ttl(&chain).await);
    }
    assert_eq!(seen, [1, 2, 3, 1, 2, 3, 1]);
}

#[tokio::test]
async fn an_instance_that_grew_is_replaced() {
    let bench = Bench::new();
    let grows = format!("(drop (memory.grow (i32.const 1))) {COUNTS_CALLS}");
    let mut plugin = bench.plugin(&changes(&grows));
    plugin.limits.memory_bytes_max = 6 * 65_536;
    let chain = bench.load(vec![plugin]).await.expect("it loads");
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(ttl(&chain).await);
    }
    assert_eq!(seen, [1, 2, 3, 1, 2, 3], "two pages at first, four to spare, half of them may be used");
}

#[tokio::test]
async fn an_aged_instance_is_replaced() {
    let bench = Bench::new();
    let mut plugin = bench.plugin(&changes(COUNTS_CALLS));
    plugin.limits.age_max = Duration::ZERO;
    let chain = bench.load(vec![plugin]).await.expect("it loads");
    assert_eq!((ttl(&chain).await, ttl(&chain).await), (1, 1));
}

#[tokio::test]
async fn request_isolation_leaves_nothing_for_the_next() {
    let bench = Bench::new();
    let mut plugin = bench.plugin(&changes(COUNTS_CALLS));
    plugin.isolation = Isolation::Request;
    let chain = bench.load(vec![plugin]).await.expect("it loads");
    assert_eq!((ttl(&chain).await, ttl(&chain).await), (1, 1));
    assert_eq!(bench.host.policies()[0].instances, 0);
}

#[tokio::test]
async fn a_call_that_is_left_takes_its_instance_along() {
    let bench = Bench::new();
    let similar = "(call $similarity (i32.const 0xc00) (i32.const 5) (i32.const 0xc06) (i32.const 4) (i32.const 0xb00))";
    let plugin = granted(bench.plugin(&changes(similar)), &[Grant::Embed]);
    let chain = bench.load(vec![plugin]).await.expect("it loads");
    assert_eq!(bench.host.policies()[0].instances, 1);
    let waits: Arc<dyn RequestView> = Arc::new(Ask { similarity: None, ..Ask::default() });
    {
        let mut call = std::pin::pin!(chain.on_request(&waits));
        let polled =
            std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
        assert!(polled, "it waits for the embedder");
    }
    assert_eq!(bench.host.policies()[0].instances, 0);
    planned(chain.on_request(&ask("acme")).await);
}

#[tokio::test]
async fn nobody_waits_longer_for_an_instance_than_config_says() {
    let bench = Bench::new();
    let similar = "(call $similarity (i32.const 0xc00) (i32.const 5) (i32.const 0xc06) (i32.const 4) (i32.const 0xb00))";
    let mut plugin = granted(bench.plugin(&changes(similar)), &[Grant::Embed]);
    plugin.limits.instances_max = 1;
    plugin.limits.instance_wait = Duration::from_millis(1);
    let chain = bench.load(vec![plugin]).await.expect("it loads");
    let waits: Arc<dyn RequestView> = Arc::new(Ask { similarity: None, ..Ask::default() });
    let (first, second) = tokio::join!(chain.on_request(&waits), chain.on_request(&waits));
    planned(first);
    assert_eq!(bypassed(second), "policy_busy");
}

#[tokio::test]
async fn idle_instances_of_others_make_room() {
    let bench = Bench::with(HostSettings { code_dir: None, instances_max: 2 });
    let mut chains = Vec::new();
    for n in 0..4 {
        chains.push(bench.chain(&changes(&format!("(drop (i32.const {n}))"))).await);
    }
    for chain in chains.iter().chain(&chains) {
        planned(chain.on_request(&ask("acme")).await);
    }
    let live: usize = bench.host.policies().iter().map(|status| status.instances).sum();
    assert!(live <= 2, "{live}");
}

/// Stores the result of `similarity` as the TTL: its case, and for an error the error's case times 10.
const TELLS_SIMILARITY: &str = "
    (call $similarity (i32.const 0xc00) (i32.const 5) (i32.const 0xc06) (i32.const 4) (i32.const 0xb00))
    (i32.store (i32.const 0x844) (i32.load8_u (i32.const 0xb00)))
    (if (i32.load8_u (i32.const 0xb00))
      (then (i32.store (i32.const 0x844) (i32.add (i32.const 1) (i32.mul (i32.const 10) (i32.load8_u (i32.const 0xb04)))))))";

#[tokio::test(start_paused = true)]
async fn similarity_needs_its_grant_and_is_waited_for_so_long() {
    let bench = Bench::new();
    let granted = granted(bench.plugin(&changes(TELLS_SIMILARITY)), &[Grant::Embed]);
    let with = bench.load(vec![granted]).await.expect("it loads");
    let without = bench.chain(&changes(TELLS_SIMILARITY)).await;
    let told = async |chain: &Chain, similarity| {
        let request: Arc<dyn RequestView> = Arc::new(Ask { similarity, ..Ask::default() });
        planned(chain.on_request(&request).await).plan.freshness.ttl.as_secs()
    };
    assert_eq!(told(&without, Some(Ok(0.5))).await, 1, "denied");
    assert_eq!(told(&with, Some(Ok(0.5))).await, 0, "a similarity");
    assert_eq!(told(&with, Some(Err(SimilarityError::TooLong))).await, 21);
    assert_eq!(told(&with, None).await, 11, "the embedder never answers");
}

#[tokio::test]
async fn state_needs_its_grant_and_outlives_instances() {
    let bench = Bench::new();
    let counts = "(i32.store (i32.const 0x844) (i32.trunc_f64_u
        (call $add (i32.const 0xc00) (i32.const 5) (f64.const 1) (i32.const 60))))";
    let mut plugin = granted(bench.plugin(&changes(counts)), &[Grant::State]);
    plugin.isolation = Isolation::Request;
    let with = bench.load(vec![plugin]).await.expect("it loads");
    assert_eq!((ttl(&with).await, ttl(&with).await, ttl(&with).await), (1, 2, 3));
    let without = bench.chain(&changes(counts)).await;
    assert_eq!((ttl(&without).await, ttl(&without).await), (1, 1));
}

#[tokio::test]
async fn the_body_is_read_a_megabyte_at_a_time() {
    let bench = Bench::new();
    let reads = "(call $body (i32.const 0) (i32.const -1) (i32.const 0xb00))
        (i32.store (i32.const 0x844) (i32.load (i32.const 0xb04)))";
    let chain = bench.chain(&changes(reads)).await;
    for (size, read) in [(10_000, 10_000), (3_000_000, 86_400)] {
        let request: Arc<dyn RequestView> = Arc::new(Ask { body: vec![7; size], ..Ask::default() });
        let ttl = planned(chain.on_request(&request).await).plan.freshness.ttl.as_secs();
        assert_eq!(ttl, read, "1048576, cut to the route's longest TTL");
    }
}

#[tokio::test]
async fn optional_hooks_are_found_by_their_exports() {
    let bench = Bench::new();
    let bare = bench.chain(&changes("")).await;
    assert!(!bare.validates() && !bare.judges());
    let accepts_second = "(i32.store (i32.const 0x904) (i32.const 1))";
    let keeps = "(i32.store (i32.const 0xa04) (i32.const 60)) (i32.store8 (i32.const 0xa20) (i32.const 1))";
    let hooked = Says { hooks: Some((accepts_second, keeps)), ..Says::default() }.component();
    let chain = bench.chain(&hooked).await;
    assert!(chain.validates() && chain.judges());
    let contexts = planned(chain.on_request(&ask("acme")).await).contexts;
    let found: Arc<dyn CandidatesView> = Arc::new(Found(vec![0.95, 0.93]));
    assert_eq!(chain.on_candidates(&ask("acme"), &contexts, &found).await, Verdict::Accept(1));
    let answered: Arc<dyn ResponseView> = Arc::new(Answered);
    let Outcome::Keep(keep) = chain.on_response(&ask("acme"), &contexts, &plan(), &answered).await else {
        panic!("not kept");
    };
    assert_eq!(keep.freshness, Freshness::of_ttl(Duration::from_secs(60)));
    assert!(keep.exact_only);
    let inspected = bench.host.inspect(hooked.into()).await.expect("a component");
    assert!(inspected.hooks.validate && inspected.hooks.store);
    assert!(inspected.imports.iter().any(|import| import == "refrain:policy/host@0.1.0"));
}

#[tokio::test]
async fn the_next_policy_sees_the_accepted_candidate_alone() {
    let bench = Bench::new();
    let hooks = |on_candidates| Says { hooks: Some((on_candidates, "")), ..Says::default() }.component();
    let second = bench.plugin(&hooks("(i32.store (i32.const 0x904) (i32.const 1))"));
    let first_of_one = bench.plugin(&hooks(""));
    let chain = bench.load(vec![second, first_of_one]).await.expect("it loads");
    let contexts = planned(chain.on_request(&ask("acme")).await).contexts;
    let found: Arc<dyn CandidatesView> = Arc::new(Found(vec![0.95, 0.93]));
    assert_eq!(chain.on_candidates(&ask("acme"), &contexts, &found).await, Verdict::Accept(1));
}

#[tokio::test]
async fn undeclared_reasons_are_not_told() {
    let bench = Bench::new();
    // A bypass whose reason is "declared", or the first letters of it.
    let bypass = |len: u32| {
        changes(&format!(
            "(memory.fill (i32.const 0x800) (i32.const 0) (i32.const 0x84))
             (i32.store8 (i32.const 0x800) (i32.const 1))
             (call $text (i32.const 0x804) (i32.const 0x509) (i32.const {len}))"
        ))
    };
    for (len, told) in [(8, "declared"), (7, "undeclared")] {
        let chain = bench.chain(&bypass(len)).await;
        match chain.on_request(&ask("acme")).await {
            Ok(Decision::Bypass(bypassed)) => assert_eq!(&*bypassed.reason, told),
            other => panic!("no bypass: {other:?}"),
        }
    }
}

/// `refuse` with this status.
fn refuses(status: u32) -> String {
    changes(&format!(
        "(memory.fill (i32.const 0x800) (i32.const 0) (i32.const 0x84))
         (i32.store8 (i32.const 0x800) (i32.const 2))
         (i32.store16 (i32.const 0x804) (i32.const {status}))"
    ))
}

#[tokio::test]
async fn what_widens_or_refuses_needs_its_grant() {
    let bench = Bench::new();
    let without = bench.chain(&refuses(429)).await;
    assert_eq!(bypassed(without.on_request(&ask("acme")).await), "policy_not_granted");
    let with = granted(bench.plugin(&refuses(429)), &[Grant::Refuse]);
    let with = bench.load(vec![bench.plugin(&changes("")), with]).await.expect("it loads");
    assert!(
        matches!(with.on_request(&ask("acme")).await, Ok(Decision::Refuse(refusal)) if refusal.status == 429)
    );
    let wrong = granted(bench.plugin(&refuses(200)), &[Grant::Refuse]);
    let wrong = bench.load(vec![wrong]).await.expect("it loads");
    assert_eq!(bypassed(wrong.on_request(&ask("acme")).await), "policy_invalid");

    let pool = "(i32.store8 (i32.const 0x854) (i32.const 1)) (call $text (i32.const 0x858) (i32.const 0xc00) (i32.const 5))";
    let chain = bench.chain(&changes(pool)).await;
    assert_eq!(bypassed(chain.on_request(&ask("acme")).await), "policy_not_granted");

    let shared = "(i32.store8 (i32.const 0x818) (i32.const 4)) (call $text (i32.const 0x81c) (i32.const 0xc00) (i32.const 5))";
    let clamped = planned(bench.chain(&changes(shared)).await.on_request(&ask("acme")).await);
    assert_eq!(clamped.plan.scope, Scope::User);
    assert_eq!(clamped.key_add, [KeyPart::Text("scope known".into())]);
    let wide = granted(bench.plugin(&changes(shared)), &[Grant::SharedScope]);
    let wide = bench.load(vec![wide]).await.expect("it loads").on_request(&ask("acme")).await;
    assert_eq!(planned(wide).plan.scope, Scope::Shared("known".into()));
}

#[tokio::test]
async fn policies_that_contradict_each_other_fail_the_request() {
    let bench = Bench::new();
    let model = |len: u32| {
        bench.plugin(&changes(&format!(
            "(i32.store8 (i32.const 0x868) (i32.const 1))
             (call $text (i32.const 0x86c) (i32.const 0xc00) (i32.const {len}))"
        )))
    };
    let agree = bench.load(vec![model(5), model(5)]).await.expect("it loads");
    assert_eq!(planned(agree.on_request(&ask("acme")).await).upstream.model.as_deref(), Some("known"));
    let contradict = bench.load(vec![model(5), model(4)]).await.expect("it loads");
    assert_eq!(bypassed(contradict.on_request(&ask("acme")).await), "policy_conflict");
}

#[tokio::test]
async fn a_thousand_reloads_share_everything_and_leave_nothing() {
    let bench = Bench::new();
    let same = route(vec![bench.plugin(&changes(COUNTS_CALLS))]);
    let kept = bench.host.chain(&same).await.expect("it loads").expect("a chain");
    for n in 1..=1000 {
        let chain = bench.host.chain(&same).await.expect("it loads").expect("a chain");
        assert_eq!(ttl(&chain).await, n, "the instance stays warm");
        assert_eq!(chain.identity(), kept.identity());
    }
    assert_eq!((bench.host.policies().len(), bench.host.policies()[0].instances), (1, 1));
    assert_eq!(bench.host.components(), 1);

    // Another config each time: another policy, of the same component.
    for n in 0..100 {
        let mut other = same.clone();
        other.plugins =
            vec![RoutePlugin { plugin: same.plugins[0].plugin.clone(), config: format!("{{\"n\":{n}}}") }];
        let chain = bench.host.chain(&other).await.expect("it loads").expect("a chain");
        assert_ne!(chain.identity(), kept.identity(), "{n}");
        assert_eq!((bench.host.policies().len(), bench.host.components()), (2, 1));
    }
    drop(kept);
    assert_eq!(bench.host.policies().len(), 0);
    components_become(&bench, 0).await;
}

#[tokio::test]
async fn a_compilation_that_nobody_waits_for_is_kept_for_the_next() {
    let bench = Bench::new();
    let component: bytes::Bytes = changes("").into();
    {
        let mut left = std::pin::pin!(bench.host.inspect(component.clone()));
        let pending =
            std::future::poll_fn(|cx| std::task::Poll::Ready(left.as_mut().poll(cx).is_pending())).await;
        assert!(pending, "it compiles on another thread");
    }
    // Compiled in order: once this one is done, so is the other.
    bench.host.inspect(changes("(nop)").into()).await.expect("a component");
    components_become(&bench, 1).await; // The abandoned one, which waits to be asked for.
    let first = bench.host.inspect(component).await.expect("a component");
    assert!(first.compile_time > Duration::ZERO);
    components_become(&bench, 0).await;
}

fn with_code(dir: &Path) -> HostSettings {
    HostSettings { code_dir: Some(dir.to_owned()), instances_max: 2 }
}

async fn compile_time(dir: &Path) -> Duration {
    let bench = Bench::with(with_code(dir));
    let inspected = bench.host.inspect(changes("").into()).await.expect("a component");
    planned(bench.chain(&changes("")).await.on_request(&ask("acme")).await);
    inspected.compile_time
}

fn only_file(dir: &Path) -> std::path::PathBuf {
    let files: Vec<_> =
        std::fs::read_dir(dir).expect("a directory").map(|file| file.expect("a file").path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[tokio::test]
async fn compiled_code_is_kept_and_taken_back_unless_it_was_touched() {
    let dir = tempfile::tempdir().expect("a directory");
    let code = dir.path().join("code");
    assert!(compile_time(&code).await > Duration::ZERO);
    assert_eq!(code.metadata().expect("made").permissions().mode() & 0o777, 0o700);
    assert_eq!(compile_time(&code).await, Duration::ZERO, "taken from the directory");

    let file = only_file(&code);
    let whole = std::fs::read(&file).expect("read");
    let mut tampered = whole.clone();
    tampered[whole.len() / 2] ^= 1;
    for damaged in [&tampered[..], &whole[..whole.len() / 2], &[]] {
        std::fs::write(&file, damaged).expect("written");
        assert!(compile_time(&code).await > Duration::ZERO, "compiled anew");
        assert!(std::fs::read(only_file(&code)).expect("read").len() == whole.len(), "and kept anew");
    }

    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).expect("set");
    assert!(compile_time(&code).await > Duration::ZERO, "others could have written it");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_costs_time_and_no_more() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let below = file.path().join("code");
    assert!(compile_time(&below).await > Duration::ZERO);
    assert!(compile_time(&below).await > Duration::ZERO, "compiled anew");
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o770)).expect("set");
    let error = refrain_plugin::PluginHost::start(&with_code(dir.path())).expect_err("refused");
    assert!(
        matches!(&error, PluginError::CodeDir { .. }) && error.to_string().contains("chmod 700"),
        "{error}"
    );
}

#[tokio::test]
async fn guests_with_wasi_load_and_learn_nothing() {
    let bench = Bench::new();
    let wasi = r#"
  (import "wasi:clocks/wall-clock@0.2.0" (instance $clock
    (type $datetime' (record (field "seconds" u64) (field "nanoseconds" u32)))
    (export "datetime" (type $datetime (eq $datetime')))
    (export "now" (func (result $datetime)))))
  (core func $now (canon lower (func $clock "now") (memory $memory)))
  (core instance $wasi (export "now" (func $now)))
  (core module $policy
    (import "base" "memory" (memory 1))
    (import "host" "defaults" (func $defaults (param i32)))
    (import "wasi" "now" (func $now (param i32)))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0x400))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (call $defaults (i32.const 0x804))
      (call $now (i32.const 0xb00))
      (i32.store (i32.const 0x844) (i32.load (i32.const 0xb00)))
      (i32.const 0x800)))"#;
    let wat = fixture::component(wasi).replace(
        "(with \"host\" (instance $functions))",
        "(with \"host\" (instance $functions)) (with \"wasi\" (instance $wasi))",
    );
    assert_eq!(ttl(&*bench.chain(&wat).await).await, 0, "its clock stands still");
}

/// Waits an hour by WASI's means.
const SLEEPS: &str = r#"
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable' (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable'))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $pollable''))
    (export "pollable" (type $pollable' (eq $pollable'')))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable'))))))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core instance $wasi (export "subscribe" (func $subscribe)) (export "block" (func $block)))
  (core module $policy
    (import "base" "memory" (memory 1))
    (import "wasi" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "wasi" "block" (func $block (param i32)))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0x400))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (call $block (call $subscribe (i64.const 3600000000000)))
      (unreachable)))"#;

#[tokio::test(start_paused = true)]
async fn a_guest_that_sleeps_is_not_waited_for() {
    let bench = Bench::new();
    let wat = fixture::component(SLEEPS).replace(
        "(with \"host\" (instance $functions))",
        "(with \"host\" (instance $functions)) (with \"wasi\" (instance $wasi))",
    );
    let chain = bench.chain(&wat).await;
    let began = tokio::time::Instant::now();
    assert_eq!(bypassed(chain.on_request(&ask("acme")).await), "policy_timed_out");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_few_instances() {
    let bench = Bench::new();
    let mut plugin = bench.plugin(&changes(COUNTS_CALLS));
    plugin.limits.instances_max = 2;
    let chain = bench.load(vec![plugin]).await.expect("it loads");
    let tasks = refrain_core::Tasks::new();
    for _ in 0..16 {
        let chain = chain.clone();
        tasks.spawn(async move {
            for _ in 0..20 {
                planned(chain.on_request(&ask("acme")).await);
            }
        });
    }
    assert!(tasks.drain(Duration::from_secs(30)).await);
    let instances = bench.host.policies()[0].instances as u64;
    assert!((1..=2).contains(&instances));
    let mut calls = 0;
    for _ in 0..instances {
        calls += ttl(&chain).await;
    }
    assert_eq!(calls, 16 * 20 + instances, "no call was lost, and no instance made anew");
}

#[tokio::test]
async fn a_failing_policy_is_not_loaded_into_the_registry() {
    let bench = Bench::new();
    bench.load(vec![bench.plugin(&hostile!("failing_config"))]).await.expect_err("refused");
    assert!(bench.host.policies().is_empty());
    components_become(&bench, 0).await;
}
