//! Keeps the link to Redis: joins, listens to other proxies, and comes back when it was lost.
//!
//! Joining is always the whole way: connect, check the secret, read what happened meanwhile, ask what the server can do, and
//! try the store as a request would. Only then may requests ask.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::charter::{self, Life};
use super::news::{News, Reader};
use super::presence::BEAT_INTERVAL;
use super::probe::{self, VectorChoice, VectorMode};
use super::trouble::{StoreTrouble, Trouble};
use super::{Inner, Session, Status, search};
use crate::purge::{Epoch, Purge};
use crate::record;
use crate::self_test::SelfTest;

/// How often other proxies are listened to: a purge is known everywhere well within a second.
const LISTEN_INTERVAL: Duration = Duration::from_millis(200);
/// How often vectors are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);
/// Pause before the first attempt to come back.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Binds a sealed purge to its stream.
const PURGE_PLACE: &[u8] = b"purge";

/// What the keeper remembers from one session to the next.
pub(super) struct Keeper {
    store: Arc<Inner>,
    reader: Reader,
    life: Option<Life>,
    /// Vectors of the present life were all read.
    has_vectors: bool,
    /// New vectors are kept.
    learns: bool,
}

impl Keeper {
    pub(super) fn new(store: Arc<Inner>) -> Self {
        let reader = Reader::new(store.me.clone());
        Self { store, reader, life: None, has_vectors: false, learns: false }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            match self.join().await {
                Ok(()) => {
                    pause = PAUSE_MIN;
                    let trouble = self.listen().await;
                    self.lost(trouble);
                }
                Err(trouble) => self.lost(trouble),
            }
            // Spread, so that many proxies don't come back in one moment.
            let jitter = rand::random_range(0.5..1.5);
            sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn lost(&self, trouble: StoreTrouble) {
        self.store.link.close();
        let since = match &**self.store.status.load() {
            Status::Away { since, .. } => *since,
            Status::Up(_) => Instant::now(),
        };
        let was = self.store.tell(Status::Away { trouble: trouble.clone(), since });
        // Told once: it is tried again several times a second.
        if !matches!(&*was, Status::Away { trouble: known, .. } if known.trouble == trouble.trouble && known.message == trouble.message)
        {
            tracing::warn!(reason = %trouble, "the shared store is away: requests go on without it");
        }
    }

    async fn join(&mut self) -> Result<(), StoreTrouble> {
        let store = self.store.clone();
        let (link, names) = (&store.link, &store.entries.names);
        // Connections of before may be dead without knowing it.
        link.close();
        link.connect().await.inspect_err(|trouble| link.count(trouble))?;
        let life = charter::join(link, names, &store.secret).await?;
        if self.life.as_ref() != Some(&life) {
            self.begin_life(&life).await?;
        } else if self.reader.has_gap(link, names).await? {
            store.forget();
            self.has_vectors = false;
        }
        self.life = Some(life);
        while self.hear().await? {}
        let vectors = self.choose().await?;
        let test = store.self_test(vectors.mode).await?;
        // Without similar answers it is degraded; with anything else wrong it is worse than none.
        if !(SelfTest { paraphrase_read: None, ..test }).passed() {
            let message = format!("the store failed its self-test ({test:?})");
            return Err(StoreTrouble::new(Trouble::Refused, message));
        }
        store.presence.doubt(Instant::now());
        self.beat().await?;
        let session = Session { vectors, self_test: test };
        // Open first: whoever is told of it may ask.
        link.open();
        store.tell(Status::Up(session));
        tracing::info!(
            vectors = vectors.mode.as_str(),
            why = vectors.why,
            self_test = test.passed(),
            "the shared store is up"
        );
        Ok(())
    }

    /// Nothing that is kept of a former life holds any more.
    async fn begin_life(&mut self, life: &Life) -> Result<(), StoreTrouble> {
        let store = self.store.clone();
        store.near.bans.reset(Epoch { ms: life.born_ms, seq: 0 });
        store.forget();
        self.has_vectors = false;
        self.reader.restart(&store.link, &store.entries.names).await
    }

    async fn choose(&mut self) -> Result<VectorChoice, StoreTrouble> {
        let store = &self.store;
        if store.entries.model.is_none() {
            return Ok(VectorChoice { mode: VectorMode::None, why: "there is no embedder" });
        }
        let chosen = probe::choose(&store.link, store.vectors_wanted).await?;
        match chosen.mode {
            VectorMode::QueryEngine => search::make_index(&store.link, &store.entries).await?,
            VectorMode::Local | VectorMode::VectorSets | VectorMode::None => {}
        }
        self.has_vectors &= chosen.mode == VectorMode::Local;
        store.near.keep_vectors(chosen.mode == VectorMode::Local);
        Ok(chosen)
    }

    /// Listens until the link is lost; why it was.
    async fn listen(&mut self) -> StoreTrouble {
        let store = self.store.clone();
        // Look-ups find what was read so far; new ones are learned meanwhile.
        let needs_vectors = store.mode() == Some(VectorMode::Local) && !self.has_vectors;
        self.learns = store.mode() == Some(VectorMode::Local);
        let rebuild = store.rebuild_vectors();
        tokio::pin!(rebuild);
        let mut is_rebuilding = needs_vectors;
        let mut counts = interval(COUNT_INTERVAL);
        let mut beats = interval(BEAT_INTERVAL);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = interval(LISTEN_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                trouble = store.link.failed() => return trouble,
                rebuilt = &mut rebuild, if is_rebuilding => match rebuilt {
                    Ok(vectors) => {
                        (is_rebuilding, self.has_vectors) = (false, true);
                        tracing::info!(vectors, "vectors of the shared store are in memory");
                    }
                    Err(trouble) => return trouble,
                },
                _ = counts.tick() => self.count().await,
                _ = beats.tick() => if let Err(trouble) = self.beat().await { return trouble },
                _ = ticks.tick() => {}
            }
            loop {
                match self.hear().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(trouble) => return trouble,
                }
            }
        }
    }

    /// Counts vectors, which decides how they are searched.
    async fn count(&self) {
        let store = &self.store;
        if store.mode() == Some(VectorMode::QueryEngine) {
            // What is not known now is asked for later; trouble with the link shows soon.
            let _ = search::count_all(&store.link, &store.entries).await;
        }
    }

    /// Says that this proxy is there, and counts the others.
    async fn beat(&self) -> Result<(), StoreTrouble> {
        let Inner { presence, link, entries, secret, .. } = &*self.store;
        match presence.beat(link, &entries.names, secret).await {
            // The rest of the store may do well without it.
            Err(trouble) if trouble.trouble.is_of_one_command() => Ok(()),
            beaten => beaten,
        }
    }

    /// Hears what is new; whether there is more.
    async fn hear(&mut self) -> Result<bool, StoreTrouble> {
        let store = self.store.clone();
        let asked = Instant::now();
        let news = self.reader.read(&store.link, &store.entries.names).await?;
        if news.life.as_ref() != self.life.as_ref().map(|life| &life.id) {
            // Its data was lost: join anew.
            return Err(StoreTrouble::new(Trouble::Broken, "the data of the shared store was removed"));
        }
        let is_partial = news.is_partial;
        self.take(news).await?;
        if !is_partial {
            store.confirm(asked);
        }
        Ok(is_partial)
    }

    async fn take(&mut self, news: News) -> Result<(), StoreTrouble> {
        let store = self.store.clone();
        for (id, sealed) in news.purges {
            let purge = record::open_message(&store.secret, PURGE_PLACE, &sealed)
                .ok()
                .and_then(|body| Purge::decode(body).ok());
            match (id.parse(), purge) {
                (Ok(epoch), Some(purge)) => _ = store.near.bans.append(epoch, purge),
                // What it was about can't be known, so it was about everything.
                (Ok(epoch), None) => {
                    tracing::warn!(
                        id,
                        "a purge in Redis can't be read: everything from before it is given up"
                    );
                    store.near.bans.reset(epoch);
                }
                (Err(_), _) => {}
            }
        }
        for at in &news.changes {
            store.near.forget(&at.partition, &at.key);
        }
        if self.learns {
            // They are not told again: what was not learned now is read anew with all others.
            let learned = store.learn_vectors(&news.vectors).await;
            learned.inspect_err(|_| self.has_vectors = false)?;
        }
        Ok(())
    }
}

impl Inner {
    /// A purge as the others read it.
    pub(super) fn seal(&self, purge: &Purge) -> Vec<u8> {
        record::seal_message(&self.secret, PURGE_PLACE, &purge.encode())
    }
}
