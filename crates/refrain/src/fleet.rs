//! How many proxies share the limits of pools: as many as a shared store counts, else what config says.

use std::time::Duration;

use refrain_core::{Drain, Settings};
use refrain_proxy::{AnswerCache, Live};
use tokio::time::{MissedTickBehavior, interval};

/// How often it is looked at: proxies come and go seldom.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How many there are, this one included.
pub(crate) fn proxies(settings: &Settings, cache: Option<&AnswerCache>) -> u32 {
    cache.and_then(|cache| cache.store.proxies()).unwrap_or(settings.fleet.proxies)
}

/// Tells the pools of the live configuration how many there are, until the process ends.
pub(crate) async fn keep_proxies(live: Live, drain: Drain) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.begun() => return,
            _ = ticks.tick() => look(&live),
        }
    }
}

fn look(live: &Live) {
    let snapshot = live.load();
    let (former, now) =
        (snapshot.upstreams.proxies(), proxies(&snapshot.settings, snapshot.cache.as_deref()));
    if former != now {
        tracing::info!(
            proxies = now,
            former,
            "the number of proxies that share the pools' limits has changed"
        );
        snapshot.upstreams.set_proxies(now);
    }
}
