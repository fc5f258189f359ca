//! How many endpoints a pool should have, and how fast its answers come: for autoscalers, and for people who rent by hand.
//!
//! Nothing here starts or stops a server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use refrain_core::Drain;
use tokio::time::{MissedTickBehavior, interval};

use crate::Upstreams;
use crate::clock::Millis;

/// The part of its limit that an endpoint should be at: the rest is room for a burst, until another endpoint has started.
const UTILISATION: f64 = 0.9;
/// How long less must have been enough before less is asked for: endpoints take minutes to start.
const CALM: Duration = Duration::from_secs(120);
/// How often load is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Looks that are remembered: those of [`CALM`].
const LOOKS_MAX: usize = 128;
/// Over how long the rate of tokens is smoothed: an answer's tokens are told when it has ended.
const SMOOTHING: Duration = Duration::from_secs(30);

/// Looks at every pool's load until the process drains. `current` gives the pools of the live configuration.
///
/// # Cancel safety
/// Safe.
pub async fn keep_scaling(current: impl Fn() -> Arc<Upstreams> + Send, drain: Drain) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.begun() => return,
            _ = ticks.tick() => current().pools().for_each(|pool| pool.note_load(Millis::now())),
        }
    }
}

/// What a pool has to do at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Requests of this proxy that are being answered or wait.
    pub(crate) requests: u64,
    /// Requests that an endpoint takes from all proxies.
    pub(crate) concurrency: u32,
    /// How many proxies there are.
    pub(crate) proxies: u32,
    /// Whether any endpoint is asked: where none is, requests are refused at once, and nobody sees how many are wanted.
    pub(crate) is_served: bool,
}

impl Load {
    /// How many endpoints would be at [`UTILISATION`] with this load, if every proxy had as much as this one; 1 at least.
    pub(crate) fn replicas(self) -> u32 {
        let requests = self.requests as f64 * f64::from(self.proxies.max(1));
        let each = UTILISATION * f64::from(self.concurrency.max(1));
        // Beyond `u32` it stays at the largest.
        ((requests / each).ceil() as u32).max(1)
    }
}

/// A pool's demand over time. Kept over reloads.
#[derive(Debug, Default)]
pub(crate) struct Scale {
    output_tokens: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    replicas: Calm,
    tokens: TokenRate,
}

/// What was asked for lately, so that the most of it can be told: values fall from front to back.
#[derive(Debug, Default)]
struct Calm {
    looks: VecDeque<(Millis, u32)>,
}

/// Tokens a second, smoothed.
#[derive(Debug, Default)]
struct TokenRate {
    last: Option<(Millis, u64)>,
    per_second: f64,
}

impl Scale {
    /// Notes the load of now.
    pub(crate) fn note(&self, now: Millis, load: Load) {
        let mut seen = self.seen.lock();
        let least = if load.is_served { 1 } else { seen.replicas.most() };
        seen.replicas.note(now, load.replicas().max(least));
        seen.tokens.note(now, self.output_tokens.load(Relaxed));
    }

    /// How many endpoints there should be: what `load` needs, or the most that was needed within [`CALM`].
    pub(crate) fn replicas(&self, load: Load) -> u32 {
        load.replicas().max(self.seen.lock().replicas.most())
    }

    /// Adds tokens that were generated.
    pub(crate) fn add_output_tokens(&self, count: u64) {
        self.output_tokens.fetch_add(count, Relaxed);
    }

    /// Tokens generated so far, and a second of late.
    pub(crate) fn output_tokens(&self) -> (u64, f64) {
        (self.output_tokens.load(Relaxed), self.seen.lock().tokens.per_second)
    }
}

impl Calm {
    fn note(&mut self, now: Millis, replicas: u32) {
        while self.looks.back().is_some_and(|(_, less)| *less <= replicas) {
            self.looks.pop_back();
        }
        if self.looks.len() >= LOOKS_MAX {
            self.looks.pop_front();
        }
        self.looks.push_back((now, replicas));
        while self.looks.front().is_some_and(|(then, _)| now.since(*then) >= CALM) {
            self.looks.pop_front();
        }
    }

    /// The most of what was noted within [`CALM`] of the last look.
    fn most(&self) -> u32 {
        self.looks.front().map_or(0, |(_, replicas)| *replicas)
    }
}

impl TokenRate {
    fn note(&mut self, now: Millis, total: u64) {
        let Some((then, before)) = self.last.replace((now, total)) else { return };
        let span = now.since(then).as_secs_f64();
        if span > 0.0 {
            let sample = total.saturating_sub(before) as f64 / span;
            let newest = 1.0 - (-span / SMOOTHING.as_secs_f64()).exp();
            self.per_second += newest * (sample - self.per_second);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(requests: u64) -> Load {
        Load { requests, concurrency: 10, proxies: 1, is_served: true }
    }

    fn second(nth: usize) -> Millis {
        Millis(1).after(LOOK_INTERVAL * nth as u32)
    }

    #[test]
    fn fleet_replicas_leave_a_tenth_of_each_free() {
        assert_eq!(
            [0, 1, 9, 10, 18, 19, 90].map(|requests| load(requests).replicas()),
            [1, 1, 1, 2, 2, 3, 10]
        );
        assert_eq!(Load { proxies: 2, ..load(9) }.replicas(), 2, "the other proxy has as much to do");
        assert_eq!(load(u64::MAX).replicas(), u32::MAX);
    }

    #[test]
    fn fleet_replicas_stay_while_nobody_is_in_service() {
        let scale = Scale::default();
        scale.note(second(0), load(90));
        let outage = Load { is_served: false, ..load(0) };
        (1..600).for_each(|nth| scale.note(second(nth), outage));
        assert_eq!(scale.replicas(outage), 10);
        (600..600 + CALM.as_secs() as usize).for_each(|nth| scale.note(second(nth), load(0)));
        assert_eq!(scale.replicas(load(0)), 1);
    }

    #[test]
    fn fleet_token_rate_follows_what_is_generated() {
        let scale = Scale::default();
        for nth in 0..200 {
            scale.add_output_tokens(50);
            scale.note(second(nth), load(0));
        }
        let (total, rate) = scale.output_tokens();
        assert_eq!(total, 10_000);
        assert!((rate - 50.0).abs() < 1.0, "{rate}");
        (200..500).for_each(|nth| scale.note(second(nth), load(0)));
        assert!(scale.output_tokens().1 < 1.0);
    }

    proptest! {
        #[test]
        fn fleet_replicas_rise_at_once_and_fall_to_the_most_of_the_calm(
            all in prop::collection::vec((1u64..200, 1usize..30), 1..100),
        ) {
            let scale = Scale::default();
            let mut noted = Vec::new();
            let mut at = 0;
            for (requests, gap) in all {
                at += gap;
                scale.note(second(at), load(requests));
                noted.push((at, load(requests).replicas()));
                let calm = CALM.as_secs() as usize;
                let most = noted.iter().filter(|(then, _)| at - then < calm).map(|(_, replicas)| *replicas).max();
                prop_assert_eq!(Some(scale.replicas(load(0))), most);
                let more = load(requests + 1000);
                prop_assert_eq!(scale.replicas(more), more.replicas(), "at once");
            }
        }

        #[test]
        fn fleet_replicas_suffice_and_one_less_would_not(
            requests in 0u64..1_000_000, concurrency in 1u32..1000, proxies in 1u32..20,
        ) {
            let load = Load { requests, concurrency, proxies, is_served: true };
            let room = |replicas: u32| f64::from(replicas) * UTILISATION * f64::from(concurrency);
            let all = requests as f64 * f64::from(proxies);
            let replicas = load.replicas();
            prop_assert!(room(replicas) >= all * (1.0 - 1e-9));
            prop_assert!(replicas == 1 || room(replicas - 1) < all * (1.0 + 1e-9));
        }
    }
}
