//! Counts of limits that proxies share: one script a request and subject, which sees and changes all of a subject's counts at
//! once, by the server's clock.
//!
//! What may be taken is said by whoever asks; here is only the arithmetic, in whole numbers, as the proxy does it for counts
//! of its own. A place among those under way is leased: whoever dies gives it back by letting it expire.
//!
//! ```text
//! {refrain:1:l:SUBJECT}:meters   hash      slot -> "level tick"; expires once all has drained
//! {refrain:1:l:SUBJECT}:leases   sorted set of requests under way, by when their leases end
//! ```

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Script, ScriptInvocation};
use refrain_core::hex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Inner;
use super::trouble::{StoreTrouble, Trouble};

/// How long a place stays taken whose proxy has died, or can't reach Redis.
const LEASE: Duration = Duration::from_secs(30);
/// How often leases are renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// Requests whose ends may wait to be told. Beyond, tokens are lost and leases expire.
const ENDS_MAX: usize = 16_384;
/// Ends that are told in one go.
const BATCH: usize = 64;
/// Longest wait of a request for its thread's connection.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

/// KEYS: meters, leases. ARGV: "take", "look" (the same, and nothing is taken) or "end", places (0: any number), lease ("": none), its length in ms, number of rates;
/// for each rate: slot, limit, capacity, grain, length of a tick in ms, units. Answers: whether it was taken, the time in ms,
/// requests under way, and the rates' levels.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local takes, looks, places, lease = ARGV[1] ~= 'end', ARGV[1] == 'look', tonumber(ARGV[2]), ARGV[3]
local slots, rates = {}, {}
for i = 1, tonumber(ARGV[5]) do
  local at = 6 * i
  slots[i] = ARGV[at]
  rates[i] = {
    limit = tonumber(ARGV[at + 1]), capacity = tonumber(ARGV[at + 2]), grain = tonumber(ARGV[at + 3]),
    tick = tonumber(ARGV[at + 4]), units = tonumber(ARGV[at + 5]),
  }
end
local free = true
local known = #slots > 0 and redis.call('HMGET', KEYS[1], unpack(slots)) or {}
for i, rate in ipairs(rates) do
  rate.at, rate.level = math.floor(now / rate.tick), 0
  if known[i] then
    local level, at = string.match(known[i], '^(%d+) (%d+)$')
    rate.level = math.max(0, tonumber(level) - math.max(0, rate.at - tonumber(at)) * rate.limit)
    rate.at = math.max(rate.at, tonumber(at))
  end
  if takes and rate.level + math.max(1, rate.units * rate.grain) > rate.capacity then free = false end
end
local under_way = 0
if lease ~= '' then
  if not takes then redis.call('ZREM', KEYS[2], lease) end
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
  under_way = redis.call('ZCARD', KEYS[2])
  if takes and places > 0 and under_way >= places then free = false end
end
if free and not looks then
  local drained, changes = 0, {}
  for i, rate in ipairs(rates) do
    if rate.units ~= 0 then
      rate.level = math.max(0, rate.level + rate.units * rate.grain)
      changes[#changes + 1] = slots[i]
      changes[#changes + 1] = string.format('%.0f %.0f', rate.level, rate.at)
    end
    drained = math.max(drained, (rate.at + math.ceil(rate.level / rate.limit)) * rate.tick)
  end
  if #changes > 0 then
    redis.call('HSET', KEYS[1], unpack(changes))
    local kept = redis.call('PTTL', KEYS[1])
    local wanted = drained - now + 1000
    if kept < wanted then redis.call('PEXPIRE', KEYS[1], string.format('%.0f', wanted)) end
  end
  if takes and lease ~= '' then
    redis.call('ZADD', KEYS[2], string.format('%.0f', now + tonumber(ARGV[4])), lease)
    redis.call('PEXPIRE', KEYS[2], ARGV[4])
    under_way = under_way + 1
  end
end
local told = { free and 1 or 0, now, under_way }
for i, rate in ipairs(rates) do told[3 + i] = rate.level end
return told
",
    )
});

/// Leases go on. KEYS: leases. ARGV: their length in ms, and those that are held.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local ends = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], string.format('%.0f', ends), ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
",
    )
});

/// One rate of a subject: how much drains each tick, how much fits, and how many units are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaRate {
    /// Its place among all rates of the subject.
    pub slot: usize,
    /// Grains that drain each tick; at least 1.
    pub limit: i64,
    /// Grains that fit.
    pub capacity: i64,
    /// Grains of a unit.
    pub grain: i64,
    /// Length of a tick.
    pub tick_ms: i64,
    /// Units to take; below zero: to give back.
    pub units: i64,
}

/// What a shared count said.
#[derive(Clone, Debug)]
pub struct QuotaTold {
    /// A hold on what was taken; none: there was too little, or it was only looked.
    pub held: Option<QuotaHold>,
    /// Whether there was enough.
    pub is_free: bool,
    /// The server's Unix time, in milliseconds.
    pub now_ms: u64,
    /// Requests under way, this one included if it was let in.
    pub in_flight: u32,
    /// Grains taken of each rate by now.
    pub levels: Vec<i64>,
}

/// Counts that proxies share. Cloned freely.
#[derive(Clone)]
pub struct Quotas {
    store: Arc<Inner>,
    ends: mpsc::Sender<End>,
    leases: Leases,
}

/// A request's hold on a subject's counts. Tell its end with [`Quotas::end`]; dropped without, its place expires.
#[derive(Clone, Debug)]
pub struct QuotaHold {
    subject: [u8; 32],
    lease: Option<Lease>,
}

/// A place that may be taken though nobody heard so: Redis was too slow, or who asked has left. Given back when dropped, or a
/// moment of slowness would keep callers out for as long as a lease lasts.
struct Unheard<'s> {
    store: &'s Arc<Inner>,
    hold: QuotaHold,
}

impl Unheard<'_> {
    fn was_heard(mut self) {
        self.hold.lease = None;
    }
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        // Told on this thread's connection, where it comes after what took the place. A runtime that ends tells nothing.
        if self.hold.lease.is_some() && Handle::try_current().is_ok() {
            let (store, hold) = (self.store.clone(), self.hold.clone());
            self.store.link.spawn(async move { store.tell_end(&hold, &[]).await });
        }
    }
}

type Lease = [u8; 8];
/// Those that are held, by subject.
type Leases = Arc<Mutex<HashMap<[u8; 32], Vec<Lease>>>>;

/// What is told when requests have ended.
enum End {
    Request(QuotaHold, Vec<QuotaRate>),
    /// All before it are told.
    Flush(oneshot::Sender<()>),
}

/// Tells ends, and renews leases.
pub(super) struct Teller {
    store: Arc<Inner>,
    ends: mpsc::Receiver<End>,
    leases: Leases,
}

/// Counts that have yet to be asked.
pub(super) fn quotas(store: &Arc<Inner>) -> (Quotas, Teller) {
    let (sender, ends) = mpsc::channel(ENDS_MAX);
    let leases = Leases::default();
    let quotas = Quotas { store: store.clone(), ends: sender, leases: leases.clone() };
    (quotas, Teller { store: store.clone(), ends, leases })
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Quotas(..)")
    }
}

impl Quotas {
    /// What names of subjects are to be hashed with, the same for all proxies.
    pub fn subject_key(&self) -> &[u8; 32] {
        self.store.secret.subject_key()
    }

    /// Takes units of all rates and, where `places` bounds requests under way, one of those: all or nothing. Waits no longer
    /// than `patience`; where this thread has yet to connect, for half a second more.
    ///
    /// # Errors
    /// Redis could not be asked. It may have counted the request nevertheless; a place is given back then.
    ///
    /// # Cancel safety
    /// As an error: what was taken stays taken, but for the place.
    pub async fn take(
        &self,
        subject: &[u8; 32],
        rates: &[QuotaRate],
        places: Option<u32>,
        patience: Duration,
    ) -> Result<QuotaTold, StoreTrouble> {
        self.ask("take", subject, (rates, places), patience).await.map(|(told, lease)| {
            let held = told.is_free.then(|| self.hold(subject, lease));
            QuotaTold { held, ..told }
        })
    }

    /// What [`Quotas::take`] would say now. Takes nothing.
    ///
    /// # Errors
    /// Redis could not be asked.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn look(
        &self,
        subject: &[u8; 32],
        rates: &[QuotaRate],
        places: Option<u32>,
        patience: Duration,
    ) -> Result<QuotaTold, StoreTrouble> {
        self.ask("look", subject, (rates, places), patience).await.map(|(told, _)| told)
    }

    async fn ask(
        &self,
        what: &str,
        subject: &[u8; 32],
        (rates, places): (&[QuotaRate], Option<u32>),
        patience: Duration,
    ) -> Result<(QuotaTold, Option<Lease>), StoreTrouble> {
        let Inner { link, .. } = &*self.store;
        if !link.is_up() {
            return Err(StoreTrouble::new(Trouble::Broken, "away"));
        }
        // Once a thread, whenever Redis was joined: a connection takes longer than a command.
        link.connected(CONNECT_PATIENCE).await?;
        let lease = places.map(|_| rand::random::<Lease>());
        let unheard = Unheard { store: &self.store, hold: QuotaHold { subject: *subject, lease } };
        let call = self.store.count(what, subject, places.unwrap_or(0), lease, rates);
        let answered = timeout(patience, link.call::<Vec<i64>>(&call)).await;
        let told = answered.unwrap_or_else(|_| {
            let trouble = StoreTrouble::timed_out();
            link.count(&trouble);
            Err(trouble)
        })?;
        unheard.was_heard();
        let [taken, now_ms, in_flight, levels @ ..] = told.as_slice() else {
            return Err(StoreTrouble::new(Trouble::Refused, "a shared count gave an odd answer"));
        };
        let told = QuotaTold {
            held: None,
            is_free: *taken == 1,
            now_ms: u64::try_from(*now_ms).unwrap_or_default(),
            in_flight: u32::try_from(*in_flight).unwrap_or(u32::MAX),
            levels: levels.to_vec(),
        };
        Ok((told, lease))
    }

    fn hold(&self, subject: &[u8; 32], lease: Option<Lease>) -> QuotaHold {
        if let Some(lease) = lease {
            self.leases.lock().entry(*subject).or_default().push(lease);
        }
        QuotaHold { subject: *subject, lease }
    }

    /// A request has ended: takes or gives back what has come to light, and gives its place back. Never blocks.
    pub fn end(&self, hold: &QuotaHold, rates: Vec<QuotaRate>) {
        if let Some(lease) = hold.lease {
            forget(&self.leases, &hold.subject, lease);
        }
        // Where too much waits already, its place expires.
        let _ = self.ends.try_send(End::Request(hold.clone(), rates));
    }

    /// Waits until the ends so far are told.
    pub(super) async fn flush(&self) {
        let (sender, told) = oneshot::channel();
        if self.ends.send(End::Flush(sender)).await.is_ok() {
            let _ = told.await;
        }
    }
}

fn forget(leases: &Leases, subject: &[u8; 32], lease: Lease) {
    let mut leases = leases.lock();
    if let Some(held) = leases.get_mut(subject) {
        held.retain(|other| *other != lease);
        if held.is_empty() {
            leases.remove(subject);
        }
    }
}

impl Teller {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut renewals = interval(RENEW_INTERVAL);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            // Renewals and ends one after the other: what has ended is never renewed after it was told.
            tokio::select! {
                count = self.ends.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.tell(&mut batch).await;
                }
                _ = renewals.tick() => self.renew().await,
            }
        }
    }

    async fn tell(&self, batch: &mut Vec<End>) {
        let mut flushes = Vec::new();
        let tell = batch.drain(..).filter_map(|end| match end {
            End::Request(hold, rates) => Some(async move { self.store.tell_end(&hold, &rates).await }),
            End::Flush(sender) => {
                flushes.push(sender);
                None
            }
        });
        join_all(tell.collect::<Vec<_>>()).await;
        for flush in flushes {
            // Who asked may have gone.
            let _ = flush.send(());
        }
    }

    async fn renew(&self) {
        let held: Vec<([u8; 32], Vec<Lease>)> =
            self.leases.lock().iter().map(|(subject, leases)| (*subject, leases.clone())).collect();
        for some in held.chunks(BATCH) {
            join_all(some.iter().map(|(subject, leases)| self.store.renew(subject, leases))).await;
        }
    }
}

impl Inner {
    fn count(
        &self,
        what: &str,
        subject: &[u8; 32],
        places: u32,
        lease: Option<Lease>,
        rates: &[QuotaRate],
    ) -> ScriptInvocation<'static> {
        let (meters, leases) = self.entries.names.quota(subject);
        let mut call = COUNT.prepare_invoke();
        call.key(meters).key(leases);
        let lease = lease.map(|lease| hex(&lease)).unwrap_or_default();
        call.arg(what).arg(places).arg(lease).arg(millis(LEASE)).arg(rates.len());
        for QuotaRate { slot, limit, capacity, grain, tick_ms, units } in rates {
            call.arg(*slot).arg(*limit).arg(*capacity).arg(*grain).arg(*tick_ms).arg(*units);
        }
        call
    }

    async fn tell_end(&self, hold: &QuotaHold, rates: &[QuotaRate]) {
        if self.link.is_up() {
            let call = self.count("end", &hold.subject, 0, hold.lease, rates);
            // While Redis is away nothing is counted; the place expires.
            let _ = self.link.call::<Vec<i64>>(&call).await;
        }
    }

    async fn renew(&self, subject: &[u8; 32], leases: &[Lease]) {
        if self.link.is_up() {
            let mut call = RENEW.prepare_invoke();
            call.key(self.entries.names.quota(subject).1).arg(millis(LEASE));
            leases.iter().for_each(|lease| _ = call.arg(hex(lease)));
            // The next renewal comes before they end.
            let _ = self.link.call::<i64>(&call).await;
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
