//! Edits of a stream in flight.

use bytes::{Bytes, BytesMut};
use memchr::{memrchr, memrchr2_iter};
use refrain_core::Dialect;

use crate::json::{self, Kind};

/// Longest event that is held back until it is complete. A usage chunk has a few hundred bytes; a longer event is
/// something else and passes as it comes.
const HELD_BYTES_MAX: usize = 64 * 1024;
const USAGE_LIMITS: json::Limits = json::Limits { depth_max: 16, nodes_max: 1024 };

/// Hides the usage chunk (`"choices":[]` with usage) of an OpenAI stream from a client that did not ask for it.
///
/// Complete events pass at once and unchanged; only an incomplete one at the end is held back.
#[derive(Debug, Default)]
pub struct UsageFilter {
    held: BytesMut,
    boundary: Boundary,
    /// Within an event that was too long to hold.
    passing: bool,
}

impl UsageFilter {
    /// A filter at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the upstream's next bytes and gives those to forward now (maybe none).
    pub fn feed(&mut self, bytes: Bytes) -> Bytes {
        let mut out = BytesMut::with_capacity(self.held.len() + bytes.len());
        let mut start = 0;
        while let Some(end) = self.boundary.next(&bytes, start) {
            self.end_event(&bytes[start..end], &mut out);
            start = end;
        }
        self.hold(&bytes[start..], &mut out);
        if out == bytes { bytes } else { out.freeze() }
    }

    /// What is still held when the upstream's body ends.
    pub fn finish(self) -> Bytes {
        self.held.freeze()
    }

    fn end_event(&mut self, end: &[u8], out: &mut BytesMut) {
        self.held.extend_from_slice(end);
        if std::mem::take(&mut self.passing) || !is_usage_chunk(&self.held) {
            out.extend_from_slice(&self.held);
        }
        self.held.clear();
    }

    fn hold(&mut self, rest: &[u8], out: &mut BytesMut) {
        self.held.extend_from_slice(rest);
        self.passing |= self.held.len() > HELD_BYTES_MAX;
        if self.passing {
            out.extend_from_slice(&self.held);
            self.held.clear();
        }
    }
}

/// Passes a stream on event by event, so that what breaks off within one can be told by another: half an event is nothing to
/// a client, and spoils what follows it.
#[derive(Debug)]
pub struct WholeEvents {
    dialect: Dialect,
    held: BytesMut,
}

impl WholeEvents {
    /// At the start of a stream of this dialect.
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, held: BytesMut::new() }
    }

    /// Takes the upstream's next bytes and gives those to forward now (maybe none): whole events, and what is too long for one.
    pub fn feed(&mut self, mut bytes: Bytes) -> Bytes {
        if self.held.is_empty() {
            let whole = bytes.split_to(self.end_of_last(&bytes));
            self.held.extend_from_slice(&bytes);
            return if self.held.len() > HELD_BYTES_MAX { self.joined(&whole) } else { whole };
        }
        self.held.extend_from_slice(&bytes);
        let end = match self.end_of_last(&self.held) {
            0 if self.held.len() > HELD_BYTES_MAX => self.held.len(),
            end => end,
        };
        self.held.split_to(end).freeze()
    }

    /// What is still held when the upstream's body ends.
    pub fn finish(self) -> Bytes {
        self.held.freeze()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn joined(&mut self, whole: &[u8]) -> Bytes {
        let held = std::mem::take(&mut self.held);
        [whole, &held].concat().into()
    }

    /// Where the last whole event ends.
    fn end_of_last(&self, bytes: &[u8]) -> usize {
        if self.dialect == Dialect::Ollama {
            return memrchr(b'\n', bytes).map_or(0, |at| at + 1);
        }
        let is_blank = |&at: &usize| {
            let (before, end) = (&bytes[..at], bytes[at]);
            before.ends_with(&[end]) || (end == b'\n' && before.ends_with(b"\n\r"))
        };
        memrchr2_iter(b'\n', b'\r', bytes).find(is_blank).map_or(0, |at| at + 1)
    }
}

/// Finds the blank lines that end events, over any split and with any line end.
#[derive(Debug)]
struct Boundary {
    line_is_empty: bool,
    after_cr: bool,
}

impl Default for Boundary {
    fn default() -> Self {
        Self { line_is_empty: true, after_cr: false }
    }
}

impl Boundary {
    /// The end of the event that begins at or before `start`, if it is within `bytes`.
    fn next(&mut self, bytes: &[u8], start: usize) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate().skip(start) {
            let rest_of_crlf = std::mem::take(&mut self.after_cr) && *byte == b'\n';
            self.after_cr = *byte == b'\r';
            match byte {
                b'\n' if rest_of_crlf => {}
                b'\n' | b'\r' if self.line_is_empty => return Some(at + 1),
                b'\n' | b'\r' => self.line_is_empty = true,
                _ => self.line_is_empty = false,
            }
        }
        None
    }
}

fn is_usage_chunk(event: &[u8]) -> bool {
    if memchr::memmem::find(event, b"\"usage\"").is_none() {
        return false;
    }
    let lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
    let mut data = lines.filter_map(|line| line.strip_prefix(b"data:"));
    let (Some(chunk), None) = (data.next(), data.next()) else { return false };
    let Ok(chunk) = json::read(chunk, USAGE_LIMITS) else { return false };
    let no_choices =
        |choices: json::Value<'_>| choices.kind() == Kind::Array && choices.elements().next().is_none();
    let reports = chunk.root().member("usage").is_some_and(|usage| !usage.is_null());
    reports && chunk.root().member("choices").is_some_and(no_choices)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\"\"}}],\"usage\":null}";
    const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}";

    fn filtered<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut filter = UsageFilter::new();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&filter.feed(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&filter.finish());
        out
    }

    #[test]
    fn only_the_usage_chunk_is_hidden_however_the_stream_is_cut() {
        for end in ["\n", "\r\n"] {
            let stream = format!(": ping||{TEXT}||{USAGE}||data: [DONE]||").replace('|', end);
            let expected = format!(": ping||{TEXT}||data: [DONE]||").replace('|', end);
            for size in 1..stream.len() {
                let out = filtered(stream.as_bytes().chunks(size));
                assert_eq!(
                    String::from_utf8(out).unwrap().replace('\r', ""),
                    expected.replace('\r', ""),
                    "{size}"
                );
            }
        }
    }

    #[test]
    fn a_complete_event_is_never_delayed_nor_copied() {
        let mut filter = UsageFilter::new();
        let event = Bytes::from(format!("{TEXT}\n\n"));
        assert_eq!(filter.feed(event.clone()).as_ptr(), event.as_ptr());
        assert_eq!(filter.feed(Bytes::from(format!("{TEXT}\n\ndata: {{"))), format!("{TEXT}\n\n"));
        assert_eq!(filter.finish(), "data: {");
    }

    #[test]
    fn an_endless_event_is_passed_instead_of_held() {
        let mut filter = UsageFilter::new();
        let piece = Bytes::from(vec![b'x'; 1024]);
        let out: usize = (0..1000).map(|_| filter.feed(piece.clone()).len()).sum();
        assert!(out >= 1000 * 1024 - HELD_BYTES_MAX);
        assert!(filter.finish().len() <= HELD_BYTES_MAX);
    }

    fn passed(dialect: Dialect, pieces: &[&str]) -> Vec<String> {
        let mut events = WholeEvents::new(dialect);
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let mut passed: Vec<String> =
            pieces.iter().map(|piece| text(events.feed(Bytes::copy_from_slice(piece.as_bytes())))).collect();
        passed.push(text(events.finish()));
        passed
    }

    #[test]
    fn half_an_event_waits_for_its_other_half() {
        let sse = ["data: a\n\ndata: b", "b\n", "\ndata: c\r\n\r\n: d\r\rdata", ": e\n\ndata: ["];
        assert_eq!(
            passed(Dialect::OpenAi, &sse),
            ["data: a\n\n", "", "data: bb\n\ndata: c\r\n\r\n: d\r\r", "data: e\n\n", "data: ["]
        );
        assert_eq!(passed(Dialect::Ollama, &["{1}\n{", "2}\n", "{3"]), ["{1}\n", "{2}\n", "", "{3"]);
    }

    #[test]
    fn whole_events_are_neither_delayed_nor_copied() {
        let mut events = WholeEvents::new(Dialect::Anthropic);
        let event = Bytes::from_static(b"event: ping\ndata: {}\n\n");
        assert_eq!(events.feed(event.clone()).as_ptr(), event.as_ptr());
        assert!(events.is_empty());
    }

    #[test]
    fn what_is_too_long_for_an_event_passes() {
        for dialect in [Dialect::OpenAi, Dialect::Ollama] {
            let mut events = WholeEvents::new(dialect);
            let long = Bytes::from(vec![b'x'; HELD_BYTES_MAX + 1]);
            assert_eq!(events.feed(long.clone()).len(), long.len());
            let out: usize = (0..1000).map(|_| events.feed(long.slice(..1000)).len()).sum();
            assert_eq!(out + events.finish().len(), 1000 * 1000);
        }
    }
}
