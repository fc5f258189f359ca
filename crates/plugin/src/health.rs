//! Whether a policy is asked: one that fails for many rests for a while, one that fails for somebody's crafted prompts
//! does not.
//!
//! A policy rests when, within the window, half of the tenants that used it saw it fail, failures make up a tenth of its
//! calls, and no single tenant is to blame: a tenant's failures count up to three. Where there is but one tenant, half of
//! at least twenty calls must have failed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How far back failures count.
const WINDOW: Duration = Duration::from_secs(30);
/// Failures that make a policy rest, each tenant's counted up to [`TENANT_FAILURES_MAX`].
const FAILURES: usize = 5;
/// Failures of one tenant that count.
const TENANT_FAILURES_MAX: usize = 3;
/// Calls that must have been made before a lone tenant's failures count.
const LONE_CALLS: u64 = 20;
/// Tenants that are told apart; more count as one of these.
const TENANTS_MAX: usize = 64;
/// First rest.
const REST: Duration = Duration::from_secs(2);
/// Longest rest; each one after a failed probe is twice the last.
const REST_MAX: Duration = Duration::from_secs(120);

/// A tenant, as far as health tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TenantMark(u8);

impl TenantMark {
    pub(crate) fn of(tenant: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        tenant.hash(&mut hasher);
        Self((hasher.finish() % TENANTS_MAX as u64) as u8)
    }
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may.
    Normal,
    /// It may, and says whether the policy's rest is over.
    Probe,
    /// The policy rests.
    Refused,
}

/// How a policy has been doing. Times are milliseconds since it was made, so that they fit atomics.
#[derive(Debug)]
pub(crate) struct Health {
    since: Instant,
    window_start: AtomicU64,
    calls: AtomicU64,
    /// One bit a tenant that called in this window.
    tenants: AtomicU64,
    /// When a resting policy may be probed; 0: it does not rest.
    rests_until: AtomicU64,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    window_start: u64,
    by_tenant: HashMap<u8, usize>,
    all: u64,
    rest: Duration,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            window_start: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            tenants: AtomicU64::new(0),
            rests_until: AtomicU64::new(0),
            failures: Mutex::default(),
        }
    }

    /// Whether a call may be made now. Of a policy that has rested enough, one call at a time is let through to probe it.
    pub(crate) fn admit(&self, now: Instant) -> Admission {
        let until = self.rests_until.load(Ordering::Relaxed);
        if until == 0 {
            return Admission::Normal;
        }
        let now = self.millis(now);
        if now < until {
            return Admission::Refused;
        }
        let next = now + millis_of(self.failures.lock().rest);
        match self.rests_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Admission::Probe,
            Err(_) => Admission::Refused,
        }
    }

    /// How long the policy still rests; none if it does not.
    pub(crate) fn rest(&self, now: Instant) -> Option<Duration> {
        match self.rests_until.load(Ordering::Relaxed) {
            0 => None,
            until => Some(Duration::from_millis(until.saturating_sub(self.millis(now)))),
        }
    }

    /// A call went well. Takes no lock.
    pub(crate) fn succeeded(&self, admission: Admission, tenant: TenantMark, now: Instant) {
        self.called(tenant, self.millis(now));
        if admission == Admission::Probe {
            self.failures.lock().forget();
            self.rests_until.store(0, Ordering::Relaxed);
        }
    }

    /// A call failed by the policy's own fault. True if the policy rests from now on.
    pub(crate) fn failed(&self, admission: Admission, tenant: TenantMark, now: Instant) -> bool {
        let now = self.millis(now);
        self.called(tenant, now);
        let mut failures = self.failures.lock();
        failures.begin(self.window_start.load(Ordering::Relaxed));
        failures.all += 1;
        *failures.by_tenant.entry(tenant.0).or_default() += 1;
        failures.rest = match admission {
            Admission::Probe => (failures.rest * 2).min(REST_MAX),
            // A call that began before the rest.
            _ if self.rests_until.load(Ordering::Relaxed) != 0 => return false,
            _ if !self.is_ill(&failures) => return false,
            _ => REST,
        };
        self.rests_until.store(now + millis_of(failures.rest), Ordering::Relaxed);
        true
    }

    fn is_ill(&self, failures: &Failures) -> bool {
        let (calls, seen) = (self.calls.load(Ordering::Relaxed), self.tenants.load(Ordering::Relaxed));
        let tenants = seen.count_ones() as usize;
        if tenants <= 1 {
            return calls >= LONE_CALLS && failures.all * 2 >= calls;
        }
        let weight: usize = failures.by_tenant.values().map(|&n| n.min(TENANT_FAILURES_MAX)).sum();
        weight >= FAILURES && failures.by_tenant.len() * 2 >= tenants && failures.all * 10 >= calls
    }

    fn called(&self, tenant: TenantMark, now: u64) {
        let start = self.window_start.load(Ordering::Relaxed);
        if now.saturating_sub(start) >= millis_of(WINDOW)
            && self.window_start.compare_exchange(start, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.calls.store(0, Ordering::Relaxed);
            self.tenants.store(0, Ordering::Relaxed);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        let bit = 1 << tenant.0;
        if self.tenants.load(Ordering::Relaxed) & bit == 0 {
            self.tenants.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// At least 1, so that 0 is free to mean "never".
    fn millis(&self, now: Instant) -> u64 {
        millis_of(now.saturating_duration_since(self.since)).max(1)
    }
}

impl Failures {
    fn begin(&mut self, window_start: u64) {
        if self.window_start != window_start {
            let rest = self.rest;
            *self = Self { window_start, rest, ..Self::default() };
        }
    }

    fn forget(&mut self) {
        self.by_tenant.clear();
        self.all = 0;
    }
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantMark = TenantMark(1);
    const B: TenantMark = TenantMark(2);
    const C: TenantMark = TenantMark(3);

    fn at(health: &Health, seconds: u64) -> Instant {
        health.since + Duration::from_secs(seconds)
    }

    fn fail(health: &Health, tenant: TenantMark, seconds: u64) -> bool {
        health.failed(Admission::Normal, tenant, at(health, seconds))
    }

    fn succeed(health: &Health, tenant: TenantMark) {
        health.succeeded(Admission::Normal, tenant, at(health, 1));
    }

    fn resting() -> Health {
        let health = Health::new();
        assert!([A, A, A, B, B].map(|tenant| fail(&health, tenant, 1))[4]);
        health
    }

    #[test]
    fn one_tenants_failures_switch_nothing_off_for_others() {
        let health = Health::new();
        succeed(&health, B);
        assert!((0..10_000).all(|_| !fail(&health, A, 1)));
        assert_eq!(health.admit(at(&health, 2)), Admission::Normal);
    }

    #[test]
    fn failing_for_most_tenants_makes_a_policy_rest() {
        let health = Health::new();
        succeed(&health, C);
        let failed = [A, A, A, B, B].map(|tenant| fail(&health, tenant, 1));
        assert_eq!(failed, [false, false, false, false, true]);
        assert_eq!(health.admit(at(&health, 1)), Admission::Refused);
        assert_eq!(health.rest(at(&health, 1)), Some(REST));
    }

    #[test]
    fn a_few_failures_among_many_calls_are_nothing() {
        let health = Health::new();
        (0..1000).for_each(|_| succeed(&health, A));
        assert_eq!([A, A, A, B, B, B].map(|tenant| fail(&health, tenant, 1)), [false; 6]);
    }

    #[test]
    fn a_lone_tenant_is_judged_by_share() {
        let health = Health::new();
        let failed: Vec<_> = (0..20).map(|_| fail(&health, A, 1)).collect();
        assert!(failed[..19].iter().all(|rests| !rests) && failed[19]);
    }

    #[test]
    fn failures_of_another_window_are_forgotten() {
        let health = Health::new();
        for second in [1, 40, 80, 120, 160, 200] {
            assert!(!fail(&health, A, second) && !fail(&health, B, second));
        }
    }

    #[test]
    fn after_its_rest_one_probe_at_a_time_is_let_through() {
        let health = resting();
        assert_eq!(health.admit(at(&health, 4)), Admission::Probe);
        assert_eq!(health.admit(at(&health, 4)), Admission::Refused);
        health.succeeded(Admission::Probe, A, at(&health, 4));
        assert_eq!(health.admit(at(&health, 4)), Admission::Normal);
        assert!(!fail(&health, A, 4), "what was before the rest is forgotten");
    }

    #[test]
    fn calls_that_began_before_the_rest_change_nothing() {
        let health = resting();
        assert!(!fail(&health, A, 1) && !fail(&health, C, 1));
        succeed(&health, A);
        assert_eq!(health.rest(at(&health, 1)), Some(REST));
    }

    #[test]
    fn each_failed_probe_doubles_the_rest() {
        let health = resting();
        let mut now = 4;
        for rest in [4, 8, 16, 32, 64, 120, 120] {
            assert_eq!(health.admit(at(&health, now)), Admission::Probe);
            assert!(health.failed(Admission::Probe, A, at(&health, now)));
            assert_eq!(health.rest(at(&health, now)), Some(Duration::from_secs(rest)));
            now += rest;
        }
    }

    #[test]
    fn a_probe_that_never_ends_is_followed_by_another() {
        let health = resting();
        assert_eq!(health.admit(at(&health, 4)), Admission::Probe);
        assert_eq!(health.admit(at(&health, 7)), Admission::Probe);
    }
}
