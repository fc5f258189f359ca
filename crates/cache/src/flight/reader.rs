//! One client's view of a flight.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::{ChunkPoll, Flight, FlightEnd};

/// Reads a flight from its first byte. Dropping it leaves the flight; the last to leave ends it.
pub struct Reader<H> {
    flight: Arc<Flight<H>>,
    slot: usize,
}

impl<H: Clone> Reader<H> {
    /// Waits for the response head.
    ///
    /// # Errors
    /// The flight ended without one.
    ///
    /// # Cancel safety
    /// Safe: dropping the future forgets nothing.
    pub async fn head(&mut self) -> Result<H, FlightEnd> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// [`Reader::head`] as a poll function.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<H, FlightEnd>> {
        self.flight.lock().poll_head(self.slot, cx)
    }
}

impl<H> Reader<H> {
    pub(super) fn new(flight: Arc<Flight<H>>, slot: usize) -> Self {
        Self { flight, slot }
    }

    /// The next bytes of the body; `None` once it is whole. An error is final.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> ChunkPoll {
        let (poll, woken) = self.flight.lock().poll_chunk(self.slot, cx);
        woken.wake();
        poll
    }

    /// [`Reader::poll_chunk`] as a future.
    ///
    /// # Cancel safety
    /// Safe: dropping the future loses no bytes.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, FlightEnd>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }
}

impl<H> Drop for Reader<H> {
    fn drop(&mut self) {
        let woken = self.flight.lock().remove_reader(self.slot);
        woken.wake();
    }
}
