//! The store that several proxies share, in Redis, with what of it this process keeps near.
//!
//! Redis may be away at any time: nothing here makes a request wait longer than one command's deadline, and nothing is
//! served that Redis could not confirm for longer than the lease. Decides nothing about whose answer may be served: the
//! key does.

mod charter;
mod claim;
mod entries;
mod keeper;
mod link;
mod local;
mod names;
mod news;
mod presence;
mod probe;
mod purge;
mod quota;
mod scan;
mod search;
mod server;
mod sizes;
mod trial;
mod trouble;
mod upkeep;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use refrain_core::settings::{RedisStore, VectorSearch};
use refrain_core::{Skip, hex};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::embedder::Embedding;
use crate::entry::{Candidate, Entry};
use crate::key::CacheKey;
use crate::meters::{self, Work};
use crate::purge::Verdict;
use crate::secret::KeySecret;
use crate::self_test::SelfTest;
use crate::shared::Shared;
use crate::store::unix_ms;
use entries::{Entries, Written};
use keeper::Keeper;
use link::Link;
use names::Names;
use news::{Pointer, Reader};
use presence::Presence;
use server::Server;
use writer::Queue;

pub use claim::{Claim, ClaimGuard};
pub use probe::{VectorChoice, VectorMode};
pub use quota::{QuotaHold, QuotaRate, QuotaTold, Quotas};
pub use trouble::{StoreTrouble, Trouble};
pub use upkeep::{
    Collect, Collected, Counting, Dropped, Examination, Layouts, ListedKind, Listing, Memory, Models,
    Progress, Row, StoreUpkeep, UpkeepMode,
};

/// How long closing waits for what is still to be written.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// How often what has expired is forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The shared store.
pub(crate) struct Remote {
    inner: Arc<Inner>,
    queue: Queue,
    quotas: Quotas,
    status: watch::Receiver<()>,
    /// Keeper, writer and sweeper: they end with the store.
    tasks: parking_lot::Mutex<JoinSet<()>>,
    runtime: Handle,
}

/// What requests and the store's own tasks share.
struct Inner {
    link: Link,
    entries: Entries,
    secret: Arc<KeySecret>,
    vectors_wanted: VectorSearch,
    lease: Duration,
    /// This process, among others: random.
    me: String,
    near: Arc<Shared>,
    presence: Presence,
    status: ArcSwap<Status>,
    told: watch::Sender<()>,
    began: Instant,
    /// When what is kept here was last known to be right, in ms since it began; 0: never.
    confirmed_ms: AtomicU64,
    expiries: local::Expiries,
    counts: Counts,
}

/// Look-ups, as they ended.
#[derive(Default)]
struct Counts {
    near_hits: AtomicU64,
    shared_hits: AtomicU64,
    misses: AtomicU64,
    away: AtomicU64,
}

/// Whether the shared store can be used.
#[derive(Clone, Debug)]
enum Status {
    /// It is.
    Up(Session),
    /// It isn't, and is asked again and again.
    Away { trouble: StoreTrouble, since: Instant },
}

/// What was found when it was joined.
#[derive(Clone, Copy, Debug)]
struct Session {
    vectors: VectorChoice,
    self_test: SelfTest,
}

/// How the shared store is, for the readiness report and for metrics.
#[derive(Clone, Debug)]
pub struct RemoteStats {
    /// How vectors are searched; none while it is away.
    pub vectors: Option<VectorChoice>,
    /// What the self-test found when it was last joined; none while it is away.
    pub self_test: Option<SelfTest>,
    /// Why it is away.
    pub trouble: Option<StoreTrouble>,
    /// How long it has been away.
    pub away_for: Duration,
    /// Look-ups that were answered from this process.
    pub near_hits: u64,
    /// Look-ups that were answered by Redis.
    pub shared_hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// Look-ups that could not ask Redis.
    pub away: u64,
    /// Writes that Redis has taken.
    pub written: u64,
    /// Writes that were given up: too many waited, or Redis was away for too long.
    pub dropped: u64,
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
    /// Values that were refused: foreign, of another version, with a wrong digest, malformed.
    pub refused: [u64; 4],
    /// Times that each trouble was met, in the order of [`Trouble::ALL`].
    pub troubles: [u64; Trouble::ALL.len()],
}

impl Remote {
    /// Begins to join Redis, on the runtime that runs now; asks nothing yet. `model`: identity of the embedder.
    pub(crate) fn open(
        settings: &RedisStore,
        secret: &Arc<KeySecret>,
        model: Option<[u8; 32]>,
        near: &Arc<Shared>,
    ) -> Self {
        let names = Names::new(&settings.prefix);
        let (told, status) = watch::channel(());
        let trouble = StoreTrouble::new(Trouble::Unreachable, "not connected yet");
        let inner = Arc::new(Inner {
            link: Link::new(Server::new(settings.clone()), settings.command_timeout),
            entries: Entries::new(names, secret.clone(), model, settings.entry_bytes_max),
            secret: secret.clone(),
            vectors_wanted: settings.vectors,
            lease: settings.lease,
            me: hex(&rand::random::<[u8; 8]>()),
            near: near.clone(),
            presence: Presence::default(),
            status: ArcSwap::from_pointee(Status::Away { trouble, since: Instant::now() }),
            told,
            began: Instant::now(),
            confirmed_ms: AtomicU64::new(0),
            expiries: local::Expiries::default(),
            counts: Counts::default(),
        });
        let (queue, outlet) = writer::queue(settings.write_queue_bytes_max);
        let runtime = Handle::current();
        let mut tasks = JoinSet::new();
        tasks.spawn_on(Keeper::new(inner.clone()).run(), &runtime);
        tasks.spawn_on(outlet.run(inner.clone()), &runtime);
        tasks.spawn_on(sweep(inner.clone()), &runtime);
        let (quotas, teller) = quota::quotas(&inner);
        tasks.spawn_on(teller.run(), &runtime);
        Self { inner, queue, quotas, status, tasks: parking_lot::Mutex::new(tasks), runtime }
    }

    /// Waits until Redis was joined, or an attempt has failed.
    ///
    /// # Errors
    /// Why the attempt failed.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn joined(&self) -> Result<SelfTest, StoreTrouble> {
        let mut status = self.status.clone();
        // The keeper lives as long as the store.
        let _ = status.changed().await;
        match &**self.inner.status.load() {
            Status::Up(session) => Ok(session.self_test),
            Status::Away { trouble, .. } => Err(trouble.clone()),
        }
    }

    /// Whether what this process keeps may be served: Redis has confirmed it within the lease.
    pub(crate) fn is_confirmed(&self) -> bool {
        let confirmed_ms = self.inner.confirmed_ms.load(Ordering::Acquire);
        let lease = self.inner.lease;
        confirmed_ms > 0 && self.inner.began.elapsed() <= Duration::from_millis(confirmed_ms) + lease
    }

    /// The entry of a key in Redis; none as well if Redis can't be asked.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn find(&self, key: &CacheKey, now_ms: u64) -> Option<Entry> {
        let found = self.entry_at(&key.partition, &key.key, now_ms).await.filter(|entry| entry.answers(key));
        if found.is_some() {
            self.count(LookupEnd::Shared);
        }
        found
    }

    /// The entry under a partition and a key in Redis; none as well if Redis can't be asked.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn entry_at(&self, partition: &[u8; 32], key: &[u8; 32], now_ms: u64) -> Option<Entry> {
        let Inner { link, entries, .. } = &*self.inner;
        if !link.is_up() {
            self.count(LookupEnd::Away);
            return None;
        }
        let begun = Instant::now();
        let read = entries.read(link, partition, key).await;
        meters::took(Work::Read, begun.into_std());
        match read {
            Ok(Some(entry)) if entry.is_retained(now_ms) && entry.key.partition == *partition => Some(entry),
            Ok(_) => {
                self.count(LookupEnd::Miss);
                None
            }
            Err(_) => {
                self.count(LookupEnd::Away);
                None
            }
        }
    }

    /// Entries in Redis whose questions are most like the vector's, best first.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn nearest(&self, partition: &[u8; 32], vector: &Embedding, k: usize) -> Vec<Candidate> {
        let Some(mode) = self.inner.mode() else { return Vec::new() };
        // What is not there any more is passed over, and the set's member is swept.
        self.inner.nearest(mode, partition, vector, k).await.unwrap_or_default()
    }

    /// Whether the server searches vectors, so that there is more to find than this process knows.
    pub(crate) fn searches(&self) -> bool {
        matches!(self.inner.mode(), Some(VectorMode::QueryEngine | VectorMode::VectorSets))
    }

    /// Has an entry written soon.
    ///
    /// # Errors
    /// [`Skip::StoreBusy`]: too much waits.
    pub(crate) fn put(&self, entry: &Arc<Entry>, vector: Option<Embedding>) -> Result<(), Skip> {
        self.queue.put(entry.clone(), vector)
    }

    /// Has an entry removed soon.
    ///
    /// # Errors
    /// [`Skip::StoreBusy`]: too much waits.
    pub(crate) fn remove(&self, key: &CacheKey) -> Result<(), Skip> {
        self.queue.remove(key.partition, key.key)
    }

    /// Waits until everything inserted so far is in Redis, or was given up.
    ///
    /// # Errors
    /// [`Skip::StoreDown`]: Redis is away.
    pub(crate) async fn flush(&self) -> Result<(), Skip> {
        let flushed = self.queue.flush().await;
        if flushed && self.inner.link.is_up() { Ok(()) } else { Err(Skip::StoreDown) }
    }

    /// Counts that proxies share.
    pub(crate) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// How many proxies share it, this one included; none: that isn't known, or not any more.
    pub(crate) fn proxies(&self) -> Option<u32> {
        self.inner.presence.count(Instant::now())
    }

    /// Tells the other proxies that this one stops. They find out by themselves where it can't be told.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn leave(&self) {
        let Inner { link, entries, presence, secret, .. } = &*self.inner;
        if link.is_up() {
            let _ = presence.leave(link, &entries.names, secret).await;
        }
    }

    /// Writes what waits, for a second at most, and ends. Blocks; call it off the reactor.
    pub(crate) fn close(&self) {
        let flush = async {
            timeout(CLOSE_PATIENCE, async { (self.queue.flush().await, self.quotas.flush().await) }).await
        };
        // What could not be written in time is lost: it is generated again, or not counted.
        let _ = self.runtime.block_on(flush);
        self.tasks.lock().abort_all();
    }

    pub(crate) fn count(&self, end: LookupEnd) {
        let Counts { near_hits, shared_hits, misses, away } = &self.inner.counts;
        let count = match end {
            LookupEnd::Near => near_hits,
            LookupEnd::Shared => shared_hits,
            LookupEnd::Miss => misses,
            LookupEnd::Away => away,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> RemoteStats {
        let Inner { link, entries, status, counts, .. } = &*self.inner;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (session, away) = match &**status.load() {
            Status::Up(session) => (Some(*session), None),
            Status::Away { trouble, since } => (None, Some((trouble.clone(), since.elapsed()))),
        };
        RemoteStats {
            vectors: session.map(|session| session.vectors),
            self_test: session.map(|session| session.self_test),
            away_for: away.as_ref().map_or(Duration::ZERO, |(_, since)| *since),
            trouble: away.map(|(trouble, _)| trouble),
            near_hits: load(&counts.near_hits),
            shared_hits: load(&counts.shared_hits),
            misses: load(&counts.misses),
            away: load(&counts.away),
            written: load(&self.queue.counts().written),
            dropped: load(&self.queue.counts().dropped),
            queued_bytes: self.queue.bytes(),
            refused: entries.refused(),
            troubles: link.troubles(),
        }
    }
}

/// Forgets what has expired.
async fn sweep(store: Arc<Inner>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        let now_ms = unix_ms();
        store.near.sweep(now_ms);
        store.sweep_vectors(now_ms);
    }
}

/// How a look-up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupEnd {
    Near,
    Shared,
    Miss,
    /// Redis could not be asked.
    Away,
}

impl Inner {
    fn mode(&self) -> Option<VectorMode> {
        match &**self.status.load() {
            Status::Up(session) if self.link.is_up() => Some(session.vectors.mode),
            Status::Up(_) | Status::Away { .. } => None,
        }
    }

    fn tell(&self, status: Status) -> Arc<Status> {
        let was = self.status.swap(Arc::new(status));
        self.told.send_replace(());
        was
    }

    /// Everything up to a moment is known.
    fn confirm(&self, asked: Instant) {
        let since = asked.saturating_duration_since(self.began);
        self.confirmed_ms
            .store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Release);
    }

    /// Forgets everything that is kept here.
    fn forget(&self) {
        self.near.clear();
        self.expiries.clear();
    }

    async fn nearest(
        &self,
        mode: VectorMode,
        partition: &[u8; 32],
        vector: &Embedding,
        k: usize,
    ) -> Result<Vec<Candidate>, StoreTrouble> {
        let begun = Instant::now();
        let near = self.search(mode, partition, vector, k).await;
        meters::took(Work::Search, begun.into_std());
        let near = near?;
        let mut candidates = Vec::with_capacity(near.len());
        for search::Near { similarity, key, entry, vector } in near {
            let Some(entry) = entry.filter(|entry| entry.key.partition == *partition && entry.key.key == key)
            else {
                continue;
            };
            let entry = Arc::new(entry);
            if let Some(vector) = vector {
                self.near.put_if_absent(&entry, &vector);
            }
            candidates.push(Candidate { similarity, entry });
        }
        Ok(candidates)
    }

    async fn search(
        &self,
        mode: VectorMode,
        partition: &[u8; 32],
        vector: &Embedding,
        k: usize,
    ) -> Result<Vec<search::Near>, StoreTrouble> {
        match mode {
            VectorMode::QueryEngine => {
                search::by_engine(&self.link, &self.entries, partition, vector, k).await
            }
            VectorMode::VectorSets => search::by_set(&self.link, &self.entries, partition, vector, k).await,
            VectorMode::Local | VectorMode::None => Ok(Vec::new()),
        }
    }

    /// Writes an entry, and tells the other proxies what they need to know of it.
    async fn write(&self, entry: &Arc<Entry>, vector: Option<&Embedding>) -> Result<(), StoreTrouble> {
        let Some(mode) = self.mode() else { return Err(StoreTrouble::new(Trouble::Broken, "away")) };
        if self.near.bans.verdict_outside(&entry.key, &entry.meta) == Verdict::Gone {
            return Ok(());
        }
        let begun = Instant::now();
        let written = self.entries.write(&self.link, mode, entry, vector).await;
        meters::took(Work::Write, begun.into_std());
        let written = written?;
        let at = Pointer { partition: entry.key.partition, key: entry.key.key };
        if written == Written::Replaced {
            self.link.ask::<redis::Value>(&Reader::tell_change(&self.me, &self.entries.names, &at)).await?;
        }
        if let (VectorMode::Local, Some(vector)) = (mode, vector) {
            self.keep_vector(at.partition, at.key, vector, entry.meta.retained_until_ms());
            self.link.ask::<redis::Value>(&Reader::tell_vector(&self.me, &self.entries.names, &at)).await?;
        }
        Ok(())
    }

    /// Removes an entry, and tells the other proxies.
    async fn erase(&self, partition: &[u8; 32], key: &[u8; 32]) -> Result<(), StoreTrouble> {
        let Some(mode) = self.mode() else { return Err(StoreTrouble::new(Trouble::Broken, "away")) };
        if self.entries.remove(&self.link, mode, (partition, key)).await? {
            let at = Pointer { partition: *partition, key: *key };
            self.link.ask::<redis::Value>(&Reader::tell_change(&self.me, &self.entries.names, &at)).await?;
        }
        Ok(())
    }
}
