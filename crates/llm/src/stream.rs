//! Edits of a stream in flight.

use bytes::Bytes;

/// Hides the usage chunk of an OpenAI stream from a client that did not ask for it.
#[derive(Debug, Default)]
pub struct UsageFilter {}

impl UsageFilter {
    /// A filter at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the upstream's next bytes and gives those to forward now (maybe none).
    pub fn feed(&mut self, bytes: Bytes) -> Bytes {
        bytes
    }

    /// What is still held when the upstream's body ends.
    pub fn finish(self) -> Bytes {
        Bytes::new()
    }
}
