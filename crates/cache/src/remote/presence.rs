//! How many proxies there are. Each says that it is there, in a short stream whose ids are the server's clock, and counts
//! who lately said so; who stops says that, too. A message holds a random name and nothing else.
//!
//! It decides how much of the servers' limits a proxy takes, so the count falls late rather than early: where messages may
//! be missing, the last count holds.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::cmd;
use redis::streams::{StreamId, StreamRangeReply};
use refrain_core::hex;
use tokio::time::Instant;

use super::link::Link;
use super::names::Names;
use super::trouble::StoreTrouble;

/// How often a proxy says that it is there.
pub(super) const BEAT_INTERVAL: Duration = Duration::from_secs(2);
/// Who said nothing for so long has gone.
const LIVE: Duration = Duration::from_secs(6);
/// How long the last count holds where Redis can't be asked.
const COUNT_KEPT: Duration = Duration::from_secs(60);
/// Messages that are kept and read: those of over a thousand proxies.
const MESSAGES_MAX: usize = 4096;

/// This process among others: random. One for all stores of the process, which a reload may have two of.
static ME: LazyLock<String> = LazyLock::new(|| hex(&rand::random::<[u8; 8]>()));

/// This proxy among the others.
#[derive(Debug, Default)]
pub(super) struct Presence {
    seen: Mutex<Seen>,
    has_left: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    count: Option<(u32, Instant)>,
    /// Until then others may not have said anything yet.
    doubted_until: Option<Instant>,
}

impl Presence {
    /// Redis was away, or has lost its data: so it was for the others.
    pub(super) fn doubt(&self, now: Instant) {
        self.seen.lock().doubted_until = Some(now + LIVE);
    }

    /// Says that this proxy is there, and counts.
    ///
    /// # Errors
    /// Redis could not be asked; the last count holds for a while.
    pub(super) async fn beat(&self, link: &Link, names: &Names) -> Result<(), StoreTrouble> {
        if self.has_left.load(Ordering::Acquire) {
            return Ok(());
        }
        let stream = names.proxies();
        let id: String = link.ask(&message(&stream, "here")).await?;
        let now_ms: u64 = id.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or_default();
        let since = now_ms.saturating_sub(LIVE.as_millis() as u64);
        let mut lately = cmd("XRANGE");
        lately.arg(&stream).arg(since).arg("+").arg("COUNT").arg(MESSAGES_MAX);
        let lately: StreamRangeReply = link.ask(&lately).await?;
        self.note(live(&lately.ids), Instant::now());
        Ok(())
    }

    /// Says that this proxy is no longer there, and nothing more.
    ///
    /// # Errors
    /// Redis could not be asked: the others find out by themselves.
    pub(super) async fn leave(&self, link: &Link, names: &Names) -> Result<(), StoreTrouble> {
        self.has_left.store(true, Ordering::Release);
        link.ask::<String>(&message(&names.proxies(), "gone")).await.map(drop)
    }

    /// How many proxies there are, this one included; none: not known.
    pub(super) fn count(&self, now: Instant) -> Option<u32> {
        let (count, at) = self.seen.lock().count?;
        (now.saturating_duration_since(at) <= COUNT_KEPT).then_some(count)
    }

    fn note(&self, live: u32, now: Instant) {
        let mut seen = self.seen.lock();
        let is_doubted = seen.doubted_until.is_some_and(|until| now < until);
        let former = seen.count.filter(|_| is_doubted).map_or(1, |(count, _)| count);
        seen.count = Some((live.max(former), now));
    }
}

fn message(stream: &str, what: &str) -> redis::Cmd {
    let mut add = cmd("XADD");
    add.arg(stream).arg("MAXLEN").arg("~").arg(MESSAGES_MAX).arg("*").arg(what).arg(&*ME);
    add
}

/// Whose last word is that they are there.
fn live(messages: &[StreamId]) -> u32 {
    let mut last = HashMap::new();
    for message in messages {
        for (what, is_there) in [("here", true), ("gone", false)] {
            if let Some(who) = message.map.get(what).and_then(super::entries::bytes_of) {
                last.insert(who, is_there);
            }
        }
    }
    u32::try_from(last.values().filter(|is_there| **is_there).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn said(what: &str, who: &str) -> StreamId {
        let map = [(what.to_owned(), Value::BulkString(who.as_bytes().to_vec()))];
        StreamId { id: "5-1".to_owned(), map: map.into_iter().collect(), ..StreamId::default() }
    }

    #[test]
    fn fleet_members_are_those_whose_last_word_says_so() {
        let messages =
            [said("here", "a"), said("here", "b"), said("gone", "a"), said("here", "b"), said("odd", "c")];
        assert_eq!(live(&messages), 1);
        assert_eq!(live(&[said("gone", "a"), said("here", "a")]), 1, "it came back");
        assert_eq!(live(&[]), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn fleet_count_holds_for_a_while_and_falls_only_when_all_had_time_to_speak() {
        let (presence, start) = (Presence::default(), Instant::now());
        assert_eq!(presence.count(start), None);
        presence.note(3, start);
        assert_eq!(presence.count(start + COUNT_KEPT), Some(3));
        assert_eq!(presence.count(start + COUNT_KEPT + BEAT_INTERVAL), None);

        presence.doubt(start);
        presence.note(1, start + BEAT_INTERVAL);
        assert_eq!(presence.count(start), Some(3), "the others join again only now");
        presence.note(4, start + BEAT_INTERVAL);
        assert_eq!(presence.count(start), Some(4));
        presence.note(2, start + LIVE);
        assert_eq!(presence.count(start), Some(2));
        presence.note(0, start + LIVE);
        assert_eq!(presence.count(start), Some(1), "this one is there");
    }
}
