//! One warm `on-request` of a compiled policy that takes the route's plan, and what a fresh instance costs.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark")]

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use divan::Bencher;
use fixture::{Ask, Bench, changes, planned};
use refrain_core::settings::Isolation;
use refrain_plugin::RequestView;

fn main() {
    divan::main();
}

/// The body is never copied, so its size must not show.
#[divan::bench(args = [1024, 256 * 1024])]
fn warm(bencher: Bencher<'_, '_>, body_bytes: usize) {
    call(bencher, body_bytes, Isolation::Reuse);
}

#[divan::bench(args = [1024])]
fn fresh(bencher: Bencher<'_, '_>, body_bytes: usize) {
    call(bencher, body_bytes, Isolation::Request);
}

fn call(bencher: Bencher<'_, '_>, body_bytes: usize, isolation: Isolation) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = Bench::new();
    let mut plugin = bench.plugin(&changes(""));
    plugin.isolation = isolation;
    plugin.limits.calls_max = u64::MAX;
    let chain = runtime.block_on(bench.load(vec![plugin])).expect("it loads");
    let request: Arc<dyn RequestView> = Arc::new(Ask { body: vec![b'x'; body_bytes], ..Ask::default() });
    let _entered = runtime.enter();
    bencher.bench_local(|| {
        let mut call = std::pin::pin!(chain.on_request(&request));
        loop {
            if let Poll::Ready(decision) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                break planned(decision);
            }
        }
    });
}
