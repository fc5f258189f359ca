//! How many HTTP/2 frames a client may send that ask for nothing, or take back what they asked for.
//!
//! h2 itself bounds memory: streams at once, resets that wait to be accepted, continuations, the size of header lists, one
//! answer to a ping or to settings at a time. What it doesn't bound is work: a client that sends resets, pings or settings as
//! fast as the network takes them keeps a data thread busy. Here each such frame costs, time gives credit, and so does what
//! the client is sent, since it must acknowledge that.

use std::time::Duration;

use tokio::time::Instant;

/// The client's connection preface (RFC 9113, section 3.4), which is no frame.
const PREFACE_BYTES: usize = 24;
/// Length, type, flags, stream (RFC 9113, section 4.1).
const HEAD_BYTES: usize = 9;
/// Credit at the beginning, and the most of it.
const CREDIT_MAX: f64 = 5000.0;
/// Credit a second.
const CREDIT_PER_SECOND: f64 = 500.0;
/// Credit a byte that is sent: a client acknowledges a frame of data with two of its own.
const CREDIT_PER_BYTE: f64 = 1.0 / 64.0;

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
    credit: f64,
    at: Instant,
}

impl FrameBudget {
    /// At the beginning of a connection.
    pub(super) fn new(now: Instant) -> Self {
        Self { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], head_bytes: 0, credit: CREDIT_MAX, at: now }
    }

    /// So many bytes were sent to the client.
    pub(super) fn earn(&mut self, bytes: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a write has far less than 2^52 bytes")]
        let earned = bytes as f64 * CREDIT_PER_BYTE;
        self.credit = (self.credit + earned).min(CREDIT_MAX);
    }

    /// The next bytes that came from the client.
    pub(super) fn take(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        self.wait(now.saturating_duration_since(self.at));
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

    fn wait(&mut self, time: Duration) {
        self.credit = (self.credit + time.as_secs_f64() * CREDIT_PER_SECOND).min(CREDIT_MAX);
    }

    fn frame(&mut self) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = usize::try_from(length).unwrap_or(usize::MAX);
        self.credit -= cost(kind, flags, length);
        if self.credit < 0.0 { Err(Flood) } else { Ok(()) }
    }
}

/// What a frame costs (types: RFC 9113, section 6). Data with something in it is free: its flow is controlled.
fn cost(kind: u8, flags: u8, length: u32) -> f64 {
    const END_STREAM: u8 = 1;
    match kind {
        0 if length > 0 || flags & END_STREAM != 0 => 0.0,
        // RST_STREAM: a request was begun for nothing (CVE-2023-44487). SETTINGS: to be applied and answered.
        3 | 4 => 10.0,
        // PING: to be answered.
        6 => 5.0,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
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
        let (mut budget, frame) = (begun(), frame(kind, payload));
        (0..100_000).take_while(|_| budget.take(&frame, budget.at).is_ok()).count()
    }

    #[test]
    fn what_asks_for_nothing_is_counted_and_data_is_not() {
        assert_eq!(burst(RST_STREAM, 4), 500);
        assert_eq!(burst(PING, 8), 1000);
        assert_eq!(burst(WINDOW_UPDATE, 4), 5000);
        assert_eq!(burst(DATA, 0), 5000);
        assert_eq!(burst(DATA, 1), 100_000);
        assert_eq!(burst(0xbe, 3), 5000, "unknown frames");
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
            assert!((budget.credit - (CREDIT_MAX - 16.0)).abs() < 0.1, "{size}: {}", budget.credit);
        }
    }

    #[test]
    fn time_and_what_is_sent_give_credit() {
        let mut budget = begun();
        budget.credit = 0.0;
        assert_eq!(budget.take(&frame(PING, 8), budget.at), Err(Flood));
        budget.credit = 0.0;
        budget.take(&frame(PING, 8), budget.at + Duration::from_millis(11)).unwrap();
        budget.credit = 0.0;
        // A piece of a stream, acknowledged for the stream and for the connection.
        budget.earn(HEAD_BYTES + 150);
        budget.take(&frame(WINDOW_UPDATE, 4), budget.at).unwrap();
        budget.take(&frame(WINDOW_UPDATE, 4), budget.at).unwrap();
        budget.earn(usize::from(u16::MAX) * 1000);
        assert!(budget.credit <= CREDIT_MAX);
    }
}
