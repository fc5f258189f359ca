//! How many HTTP/2 frames a client may send that ask for nothing, or take back what they asked for.
//!
//! h2 itself bounds memory: streams at once, resets that wait to be accepted, continuations, the size of header lists, one
//! answer to a ping or to settings at a time. What it doesn't bound is work: a client that sends resets, pings or settings as
//! fast as the network takes them keeps a data thread busy. Here each such frame costs, time gives credit, and for most of
//! them so does what the client is sent, since it must acknowledge that.

use std::time::Duration;

use tokio::time::Instant;

/// The client's connection preface (RFC 9113, section 3.4), which is no frame.
const PREFACE_BYTES: usize = 24;
/// Length, type, flags, stream (RFC 9113, section 4.1).
const HEAD_BYTES: usize = 9;
/// For resets and settings: as many at once as a connection has streams, many times over; then a hundred users who change
/// their mind each second. (nghttp2 gives 1000 and 33.)
const RESETS: Credit = Credit { left: 1000.0, max: 1000.0, per_second: 100.0 };
/// For all other frames.
const FRAMES: Credit = Credit { left: 10_000.0, max: 10_000.0, per_second: 500.0 };
/// Credit a byte that is sent: a client acknowledges a frame of data with two of its own, and the shortest token with what is
/// around it has about 100 bytes.
const CREDIT_PER_BYTE: f64 = 1.0 / 32.0;
/// Data in smaller pieces costs: hardly bounded by windows, each is work.
const DATA_BYTES_FREE: u32 = 64;

// Types and flags of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const PADDED: u8 = 8;

/// The client has spent all its credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flood;

/// Reads frame heads in what a client sends, and counts.
pub(super) struct FrameBudget {
    /// Bytes of the preface or of a payload that are still to come.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// How many bytes of the head are there.
    head_bytes: usize,
    resets: Credit,
    frames: Credit,
    at: Instant,
}

/// What may be spent.
#[derive(Clone, Copy)]
struct Credit {
    left: f64,
    /// It is never more than this.
    max: f64,
    /// What time gives.
    per_second: f64,
}

impl Credit {
    fn earn(&mut self, earned: f64) {
        self.left = (self.left + earned).min(self.max);
    }

    fn wait(&mut self, time: Duration) {
        self.earn(time.as_secs_f64() * self.per_second);
    }

    fn spend(&mut self, cost: f64) -> Result<(), Flood> {
        self.left -= cost;
        if self.left < 0.0 { Err(Flood) } else { Ok(()) }
    }
}

impl FrameBudget {
    /// At the beginning of a connection.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            resets: RESETS,
            frames: FRAMES,
            at: now,
        }
    }

    /// So many bytes were sent to the client.
    pub(super) fn earn(&mut self, bytes: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a write has far less than 2^52 bytes")]
        let earned = bytes as f64 * CREDIT_PER_BYTE;
        self.frames.earn(earned);
    }

    /// The next bytes that came from the client.
    pub(super) fn take(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        let time = now.saturating_duration_since(self.at);
        self.frames.wait(time);
        self.resets.wait(time);
        self.at = now;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEAD_BYTES - self.head_bytes).min(bytes.len());
            self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(&bytes[..taken]);
            self.head_bytes += taken;
            bytes = &bytes[taken..];
            if self.head_bytes == HEAD_BYTES {
                self.head_bytes = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = usize::try_from(length).unwrap_or(usize::MAX);
        match kind {
            RST_STREAM | SETTINGS => self.resets.spend(1.0),
            _ => self.frames.spend(cost(kind, flags, length)),
        }
    }
}

/// What another frame costs. Data is free, since its flow is controlled; but not crumbs of it, nor padding, whose window h2
/// gives back at once.
fn cost(kind: u8, flags: u8, length: u32) -> f64 {
    match kind {
        DATA if length >= DATA_BYTES_FREE && flags & PADDED == 0 => 0.0,
        // To be answered.
        PING => 5.0,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: u8 = 1;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        frame_with(kind, 0, payload)
    }

    fn frame_with(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + payload, 0xff);
        frame
    }

    fn begun() -> FrameBudget {
        let mut budget = FrameBudget::new(Instant::now());
        let now = budget.at;
        budget.take(&[b'x'; PREFACE_BYTES], now).unwrap();
        budget
    }

    /// How many of them go through at once.
    fn burst(kind: u8, payload: usize) -> usize {
        burst_of(&frame(kind, payload))
    }

    fn burst_of(frame: &[u8]) -> usize {
        let mut budget = begun();
        (0..100_000).take_while(|_| budget.take(frame, budget.at).is_ok()).count()
    }

    #[test]
    fn what_asks_for_nothing_is_counted_and_data_is_not() {
        assert_eq!(burst(RST_STREAM, 4), 1000);
        assert_eq!(burst(PING, 8), 2000);
        assert_eq!(burst(WINDOW_UPDATE, 4), 10_000);
        assert_eq!(burst(DATA, 0), 10_000);
        assert_eq!(burst(DATA, 1), 10_000, "crumbs");
        assert_eq!(burst_of(&frame_with(DATA, PADDED, 256)), 10_000, "padding");
        assert_eq!(burst(DATA, 64), 100_000);
        assert_eq!(burst(0xbe, 3), 10_000, "unknown frames");
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_split() {
        let stream: Vec<u8> =
            [frame(HEADERS, 300), frame(DATA, 70_000), frame(PING, 8), frame(RST_STREAM, 4)].concat();
        for size in [1, 2, 8, 9, 10, 333, stream.len()] {
            let mut budget = begun();
            for piece in stream.chunks(size) {
                budget.take(piece, budget.at).unwrap();
            }
            let left = (budget.frames.left, budget.resets.left);
            assert_eq!(left, (FRAMES.max - 6.0, RESETS.max - 1.0), "{size}");
        }
    }

    #[test]
    fn time_and_what_is_sent_give_credit() {
        let mut budget = begun();
        budget.frames.left = 0.0;
        assert_eq!(budget.take(&frame(PING, 8), budget.at), Err(Flood));
        budget.frames.left = 0.0;
        budget.take(&frame(PING, 8), budget.at + Duration::from_millis(11)).unwrap();
        budget.frames.left = 0.0;
        // A piece of a stream, acknowledged for the stream and for the connection.
        budget.earn(HEAD_BYTES + 100);
        budget.take(&frame(WINDOW_UPDATE, 4), budget.at).unwrap();
        budget.take(&frame(WINDOW_UPDATE, 4), budget.at).unwrap();
        budget.earn(usize::from(u16::MAX) * 1000);
        assert!(budget.frames.left <= FRAMES.max);
    }

    /// A minute of a busy honest client: a front of many users. Each stream is sent 100 tokens a second, each acknowledged
    /// twice; `cancels` streams a second are given up before anything came, and others asked instead.
    fn minute(cancels: usize) -> Result<(), Flood> {
        const STREAMS: usize = 100;
        let (mut budget, begun) = (begun(), Instant::now());
        let bytes = |frames: &[(usize, u8, usize)]| {
            let of = |&(count, kind, payload): &(usize, u8, usize)| frame(kind, payload).repeat(count);
            frames.iter().flat_map(of).collect::<Vec<_>>()
        };
        for tenth in 1..=600 {
            let now = begun + Duration::from_millis(100) * tenth;
            let tokens = STREAMS * 10;
            budget.earn(tokens * (HEAD_BYTES + 100));
            budget.take(&bytes(&[(2 * tokens, WINDOW_UPDATE, 4), (1, PING, 8)]), now)?;
            let asked = cancels / 10;
            budget.take(&bytes(&[(asked, HEADERS, 60), (asked, DATA, 2000), (asked, RST_STREAM, 4)]), now)?;
        }
        Ok(())
    }

    #[test]
    fn a_busy_honest_client_stays_within_its_budget_and_a_flood_of_resets_does_not() {
        assert_eq!(minute(90), Ok(()));
        // All of its streams at once, as when the one behind them leaves.
        assert!(burst(RST_STREAM, 4) >= 7 * 128);
        assert_eq!(minute(1000), Err(Flood));
    }
}
