//! How many proxies there are. Each says that it is there, in a short stream whose ids are the server's clock, and counts
//! who lately said so; who stops says that, too. A message holds a random name and nothing else, sealed: who doesn't know the
//! fleet's secret makes nobody up. Who may write to Redis can still repeat a message or remove one.
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
use crate::record::{open_message, seal_message};
use crate::secret::KeySecret;

/// How often a proxy says that it is there.
pub(super) const BEAT_INTERVAL: Duration = Duration::from_secs(2);
/// Who said nothing for so long has gone.
const LIVE: Duration = Duration::from_secs(6);
/// How long the last count holds where Redis can't be asked.
const COUNT_KEPT: Duration = Duration::from_secs(60);
/// Messages that are kept and read: those of over a thousand proxies.
const MESSAGES_MAX: usize = 4096;

/// What a proxy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Here,
    Gone,
}

impl Word {
    const ALL: [Self; 2] = [Self::Here, Self::Gone];

    /// Its field in a message.
    fn field(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Gone => "gone",
        }
    }

    /// Binds a sealed name to it.
    fn place(self) -> &'static [u8] {
        match self {
            Self::Here => b"proxy is here",
            Self::Gone => b"proxy is gone",
        }
    }
}

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
    pub(super) async fn beat(
        &self,
        link: &Link,
        names: &Names,
        secret: &KeySecret,
    ) -> Result<(), StoreTrouble> {
        if self.has_left.load(Ordering::Acquire) {
            return Ok(());
        }
        let stream = names.proxies();
        let id: String = link.ask(&message(&stream, Word::Here, secret)).await?;
        let now_ms: u64 = id.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or_default();
        let since = now_ms.saturating_sub(LIVE.as_millis() as u64);
        let mut lately = cmd("XRANGE");
        lately.arg(&stream).arg(since).arg("+").arg("COUNT").arg(MESSAGES_MAX);
        let lately: StreamRangeReply = link.ask(&lately).await?;
        self.note(live(&lately.ids, secret), Instant::now());
        Ok(())
    }

    /// Says that this proxy is no longer there, and nothing more.
    ///
    /// # Errors
    /// Redis could not be asked: the others find out by themselves.
    pub(super) async fn leave(
        &self,
        link: &Link,
        names: &Names,
        secret: &KeySecret,
    ) -> Result<(), StoreTrouble> {
        self.has_left.store(true, Ordering::Release);
        link.ask::<String>(&message(&names.proxies(), Word::Gone, secret)).await.map(drop)
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

fn message(stream: &str, word: Word, secret: &KeySecret) -> redis::Cmd {
    let sealed = seal_message(secret, word.place(), ME.as_bytes());
    let mut add = cmd("XADD");
    add.arg(stream).arg("MAXLEN").arg("~").arg(MESSAGES_MAX).arg("*").arg(word.field()).arg(sealed);
    add
}

/// Whose last word is that they are there. What is not sealed by this fleet's secret was not said.
fn live(messages: &[StreamId], secret: &KeySecret) -> u32 {
    let mut last = HashMap::new();
    for message in messages {
        for word in Word::ALL {
            let sealed = message.map.get(word.field()).and_then(super::entries::bytes_of);
            if let Some(Ok(who)) = sealed.map(|sealed| open_message(secret, word.place(), sealed)) {
                last.insert(who, word);
            }
        }
    }
    u32::try_from(last.values().filter(|word| **word == Word::Here).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn secret() -> KeySecret {
        KeySecret::from_bytes([7; 32])
    }

    fn said(word: Word, who: &str) -> StreamId {
        field(word.field(), seal_message(&secret(), word.place(), who.as_bytes()))
    }

    fn field(name: &str, value: Vec<u8>) -> StreamId {
        let map = [(name.to_owned(), Value::BulkString(value))];
        StreamId { id: "5-1".to_owned(), map: map.into_iter().collect(), ..StreamId::default() }
    }

    #[test]
    fn fleet_members_are_those_whose_last_word_says_so() {
        let messages =
            [said(Word::Here, "a"), said(Word::Here, "b"), said(Word::Gone, "a"), said(Word::Here, "b")];
        assert_eq!(live(&messages, &secret()), 1);
        assert_eq!(live(&[said(Word::Gone, "a"), said(Word::Here, "a")], &secret()), 1, "it came back");
        assert_eq!(live(&[], &secret()), 0);
    }

    #[test]
    fn fleet_members_are_not_made_up_by_who_does_not_know_the_secret() {
        let other = seal_message(&KeySecret::from_bytes([8; 32]), Word::Here.place(), b"b");
        let gone = seal_message(&secret(), Word::Gone.place(), b"c");
        let made_up = [field("here", b"a".to_vec()), field("here", other), field("here", gone)];
        assert_eq!(live(&made_up, &secret()), 0);
        assert_eq!(live(&[said(Word::Here, "a"), field("gone", b"a".to_vec())], &secret()), 1);
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
