//! What is to be written to a connection, in as few system calls as may be, without copying what is long.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};

use super::Io;

/// Pieces up to this size, in bytes, are copied behind what goes before them: cheaper than another slice.
const COPIED_BYTES_MAX: usize = 8 * 1024;

/// Room that is kept for the next request, in bytes.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// What waits to be written: `front`, then `piece`, then `back`. Holds at most one long piece at a time.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    front: Vec<u8>,
    /// So much of `front` is written.
    written: usize,
    piece: Bytes,
    back: &'static [u8],
    /// What was written may still lie in the stream's own buffers.
    is_buffered: bool,
    is_touched: bool,
    has_failed: bool,
}

impl Outbox {
    /// The end of what is to be written, to write a head to. Only while there is no piece.
    pub(super) fn front(&mut self) -> &mut Vec<u8> {
        &mut self.front
    }

    /// Adds a piece of a body. The one before it has to be flushed, if that was long.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.push_framed(piece, b"");
    }

    /// Adds a piece, and what ends it.
    pub(super) fn push_framed(&mut self, piece: Bytes, back: &'static [u8]) {
        if piece.len() <= COPIED_BYTES_MAX {
            self.front.extend_from_slice(&piece);
            self.front.extend_from_slice(back);
        } else {
            (self.piece, self.back) = (piece, back);
        }
    }

    /// Whether nothing of the present request was accepted by the system.
    pub(super) fn is_untouched(&self) -> bool {
        !self.is_touched
    }

    /// Whether everything was written.
    pub(super) fn is_flushed(&self) -> bool {
        !self.is_buffered && !self.has_failed && !self.has_more()
    }

    fn has_more(&self) -> bool {
        self.written < self.front.len() || !self.piece.is_empty() || !self.back.is_empty()
    }

    /// Drops what can't be written any more.
    pub(super) fn give_up(&mut self) {
        *self = Self { has_failed: true, is_touched: true, ..Self::default() };
    }

    /// The request is over: the next one begins untouched, and a long head's room is given back.
    pub(super) fn rest(&mut self) {
        self.is_touched = false;
        if self.front.capacity() > KEPT_BYTES_MAX {
            self.front = Vec::new();
        }
    }

    /// Ready once everything is written.
    ///
    /// # Errors
    /// That the connection takes nothing more.
    pub(super) fn poll_flush(
        &mut self,
        mut io: Pin<&mut dyn Io>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.has_more() {
            let written = ready!(self.poll_write(io.as_mut(), cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        if self.is_buffered {
            ready!(io.poll_flush(cx))?;
            self.is_buffered = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&self, io: Pin<&mut dyn Io>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let front = &self.front[self.written..];
        if self.piece.is_empty() && self.back.is_empty() {
            return io.poll_write(cx, front);
        }
        let slices = [front, &self.piece, self.back].map(IoSlice::new);
        io.poll_write_vectored(cx, &slices)
    }

    fn advance(&mut self, written: usize) {
        (self.is_buffered, self.is_touched) = (true, true);
        let of_front = written.min(self.front.len() - self.written);
        self.written += of_front;
        let of_piece = (written - of_front).min(self.piece.len());
        self.piece.advance(of_piece);
        self.back = &self.back[written - of_front - of_piece..];
        if self.written == self.front.len() {
            self.front.clear();
            self.written = 0;
        }
        if self.piece.is_empty() {
            // Else it would keep its memory until the next one.
            drop(mem::take(&mut self.piece));
        }
    }
}
