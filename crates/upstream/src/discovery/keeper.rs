//! Looks at every source of the live configuration, again and again, and tells the pools who their members are.
//!
//! One task a source; a reload starts, stops and keeps tasks, and what was found stays as long as its source does. Only this
//! file's own task touches pools.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use refrain_core::settings::{Discovery, Endpoint};
use refrain_core::{Drain, PoolId};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::guard::MembershipGuard;
use super::listing::Listing;
use super::source::Source;
use super::status::SourceRecord;
use super::{Discoveries, DiscoveryError};
use crate::{Client, PoolState, Upstreams};

/// How soon a reload is noticed.
const RELOAD_INTERVAL: Duration = Duration::from_millis(250);

/// Pause after a failure of a source that says how long its lists hold.
const PAUSE: Duration = Duration::from_secs(5);

/// How often the pause doubles while a source fails.
const DOUBLINGS_MAX: u32 = 3;

/// Keeps the members of pools with sources as these list them, until the process drains. `current` gives the pools of the
/// live configuration. How it goes is in [`Upstreams::discoveries`].
///
/// Belongs on the control runtime, with a client of that runtime.
///
/// # Cancel safety
/// Safe: looks under way are given up, the pools keep their members.
pub async fn keep_members(current: impl Fn() -> Arc<Upstreams> + Send, client: Client, drain: Drain) {
    let mut keeper = Keeper::new(client);
    loop {
        keeper.reconcile(&current());
        tokio::select! {
            () = drain.begun() => return,
            () = keeper.stirred.notified() => {}
            () = sleep(RELOAD_INTERVAL) => {}
        }
    }
}

/// The sources that run, and what the pools were told.
struct Keeper {
    client: Client,
    upstreams: Option<Arc<Upstreams>>,
    running: Vec<Running>,
    told: BTreeMap<PoolId, Told>,
    /// Raised after each look.
    stirred: Arc<Notify>,
    /// The tasks end with it.
    tasks: JoinSet<()>,
}

struct Running {
    record: Arc<SourceRecord>,
    task: AbortHandle,
}

/// What a pool was told last.
struct Told {
    pool: Arc<PoolState>,
    members: Vec<Endpoint>,
    /// Why it could not use some of them, and when it is told again: files may be there by then.
    problems: Vec<String>,
    again_at: Instant,
}

impl Told {
    /// Whether there is nothing to say to this pool.
    fn is(&self, pool: &Arc<PoolState>, members: &[Endpoint], now: Instant) -> bool {
        let is_done = self.problems.is_empty() || now < self.again_at;
        Arc::ptr_eq(&self.pool, pool) && self.members == members && is_done
    }
}

impl Keeper {
    fn new(client: Client) -> Self {
        Self {
            client,
            upstreams: None,
            running: Vec::new(),
            told: BTreeMap::new(),
            stirred: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    fn reconcile(&mut self, upstreams: &Arc<Upstreams>) {
        if self.upstreams.as_ref().is_none_or(|known| !Arc::ptr_eq(known, upstreams)) {
            self.follow(upstreams);
            self.upstreams = Some(upstreams.clone());
        }
        // Tasks that were stopped.
        while self.tasks.try_join_next().is_some() {}
        for pool in upstreams.pools() {
            self.tell(pool, upstreams.discoveries());
        }
        upstreams.discoveries().note_settled();
    }

    /// Starts sources that are new, stops those that are gone, keeps those that did not change.
    fn follow(&mut self, upstreams: &Upstreams) {
        let mut old = std::mem::take(&mut self.running);
        for pool in upstreams.pools() {
            for discovery in &pool.config().discover {
                let is_it = |running: &Running| {
                    running.record.pool == *pool.id() && running.record.discovery.name == discovery.name
                };
                let former = old.iter().position(is_it).map(|index| old.swap_remove(index));
                let running = self.succeed(pool.id(), discovery, former);
                self.running.push(running);
            }
        }
        for gone in old {
            info!(pool = %gone.record.pool, source = gone.record.discovery.name, "source of endpoints is not asked any more");
            gone.task.abort();
        }
        self.told.retain(|id, _| upstreams.pool(id).is_some());
        upstreams.discoveries().set(self.running.iter().map(|running| running.record.clone()).collect());
    }

    /// What runs in the place of a former source.
    fn succeed(&mut self, pool: &PoolId, discovery: &Arc<Discovery>, former: Option<Running>) -> Running {
        let Some(former) = former else {
            return self.start(pool, discovery, MembershipGuard::new(discovery.shrinking));
        };
        if former.record.discovery == *discovery {
            return former;
        }
        former.task.abort();
        let members = former.record.members();
        let is_same_list = former.record.discovery.source == discovery.source;
        let guard = if is_same_list { MembershipGuard::holding } else { MembershipGuard::inheriting };
        self.start(pool, discovery, guard(discovery.shrinking, members))
    }

    fn start(&mut self, pool: &PoolId, discovery: &Arc<Discovery>, guard: MembershipGuard) -> Running {
        let record = SourceRecord::new(pool, discovery, guard.members());
        let looks = Looks {
            record: record.clone(),
            guard,
            client: self.client.clone(),
            stirred: self.stirred.clone(),
            source: None,
            failures: 0,
        };
        Running { record, task: self.tasks.spawn(looks.run()) }
    }

    /// Tells a pool its members and what they cost, if it doesn't know.
    fn tell(&mut self, pool: &Arc<PoolState>, discoveries: &Discoveries) {
        let found = discoveries.found(pool.id());
        let members: Vec<Endpoint> = found.iter().map(|listed| listed.endpoint.clone()).collect();
        let now = Instant::now();
        let is_told = match self.told.get(pool.id()) {
            Some(told) => told.is(pool, &members, now),
            None => members.is_empty(),
        };
        if !is_told {
            self.tell_members(pool, members, now);
        }
        // They change without the endpoints.
        pool.price_discovered(&found);
    }

    fn tell_members(&mut self, pool: &Arc<PoolState>, members: Vec<Endpoint>, now: Instant) {
        let problems = pool.replace_discovered(&members);
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let known = self.told.remove(pool.id()).map(|former| former.problems).unwrap_or_default();
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            error!(pool = %pool.id(), %problem, "an endpoint that was found can't be used; the others are");
        }
        let told = Told { pool: pool.clone(), members, problems, again_at: now + PAUSE };
        self.told.insert(pool.id().clone(), told);
    }
}

/// One source, looked at again and again.
struct Looks {
    record: Arc<SourceRecord>,
    guard: MembershipGuard,
    client: Client,
    stirred: Arc<Notify>,
    /// Made anew after a failure: name servers and certificates of authorities may have changed.
    source: Option<Source>,
    /// In a row.
    failures: u32,
}

impl Looks {
    async fn run(mut self) {
        loop {
            let pause = match self.look().await {
                Ok(listing) => self.admit(listing),
                Err(error) => self.fail(error),
            };
            self.stirred.notify_one();
            sleep(pause).await;
        }
    }

    async fn look(&mut self) -> Result<Listing, DiscoveryError> {
        let source = match self.source.take() {
            Some(source) => source,
            None => Source::new(&self.record.discovery, self.client.clone())?,
        };
        let listing = source.look().await?;
        self.source = Some(source);
        Ok(listing)
    }

    /// Takes a list in; gives the pause until the next look.
    fn admit(&mut self, listing: Listing) -> Duration {
        let Listing { endpoints, unusable, fresh_for } = listing;
        self.failures = 0;
        let now = Instant::now();
        self.guard.admit(endpoints, now);
        self.report(unusable);
        let (shortest, longest) = Discovery::TTL_RANGE;
        let held = fresh_for.unwrap_or(PAUSE).clamp(shortest, longest);
        let pause = jittered(self.record.discovery.interval.unwrap_or(held));
        let release = self.guard.release_at().map(|at| at.saturating_duration_since(now).max(shortest));
        release.map_or(pause, |release| release.min(pause))
    }

    fn report(&self, unusable: usize) {
        let news = self.record.note_success(&self.guard, unusable);
        let (pool, source) = (&self.record.pool, self.record.discovery.name.as_str());
        if news.recovered {
            info!(%pool, source, "source of endpoints answers again");
        }
        if !news.added.is_empty() || !news.removed.is_empty() {
            let members = self.guard.members().len();
            info!(%pool, source, members, added = ?news.added, removed = ?news.removed, "members changed");
        }
        if news.newly_unusable {
            warn!(%pool, source, unusable, "some of what the source lists can't be used: a port or an address is missing");
        }
        if news.newly_held_back {
            let held_back = self.guard.held_back();
            warn!(%pool, source, held_back, "too many endpoints are gone at once: some are kept for now (max_shrink)");
        }
    }

    /// Notes a failure; gives the pause until the next try.
    fn fail(&mut self, error: DiscoveryError) -> Duration {
        let (pool, source) = (&self.record.pool, self.record.discovery.name.as_str());
        let members = self.guard.members().len();
        let pause = backoff(self.record.discovery.interval.unwrap_or(PAUSE), self.failures);
        let pause = error.retry_after().map_or(pause, |wait| pause.max(wait));
        self.failures = self.failures.saturating_add(1);
        if self.record.note_failure(error.clone()) {
            warn!(%pool, source, members, %error, "endpoints can't be looked up; those that are known stay");
        } else {
            debug!(%pool, source, %error, "endpoints can't be looked up");
        }
        pause
    }
}

/// Twice as long for each failure, up to eight times, and never in step with other proxies.
fn backoff(interval: Duration, failures: u32) -> Duration {
    jittered(interval * 2u32.pow(failures.min(DOUBLINGS_MAX)))
}

/// Up to a tenth longer.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + 0.1 * rand::rng().random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_eight_times_and_are_not_equal() {
        let second = Duration::from_secs(1);
        for (failures, expected) in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 8), (u32::MAX, 8)] {
            let pause = backoff(second, failures);
            assert!((expected * second..=expected * second * 11 / 10).contains(&pause), "{pause:?}");
        }
        assert!((0..100).any(|_| jittered(second) != jittered(second)));
    }
}
