//! A request's body that comes bit by bit (RFC 9112, section 6): counted if its length is known, else in chunks.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;

use super::outbox::Outbox;
use crate::connection::WireFault;
use crate::request::SentBody;

/// The rest of a body.
pub(super) struct Upload {
    body: SentBody,
    framing: UploadFraming,
}

#[derive(Clone, Copy)]
enum UploadFraming {
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
}

impl Upload {
    /// None if there is nothing to come.
    pub(super) fn of(body: SentBody) -> Option<Self> {
        let framing = match body.size_hint().exact() {
            Some(0) => return None,
            Some(length) => UploadFraming::Length(length),
            None => UploadFraming::Chunked,
        };
        Some(Self { body, framing })
    }

    /// The body, for another try: only if nothing was taken of it.
    pub(super) fn into_body(self) -> SentBody {
        self.body
    }

    /// Moves the next piece to a flushed outbox; false once that was the end.
    ///
    /// # Errors
    /// [`WireFault::RequestBody`]: it failed, or has not the length that it said.
    pub(super) fn poll_into(
        &mut self,
        outbox: &mut Outbox,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, WireFault>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(self.end(outbox));
            };
            let Ok(frame) = frame else { return Poll::Ready(Err(WireFault::RequestBody)) };
            // Trailers stay behind.
            if let Ok(piece) = frame.into_data()
                && !piece.is_empty()
            {
                return Poll::Ready(self.push(piece, outbox));
            }
        }
    }

    fn push(&mut self, piece: Bytes, outbox: &mut Outbox) -> Result<bool, WireFault> {
        match &mut self.framing {
            UploadFraming::Length(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(WireFault::RequestBody)?;
                let goes_on = *left > 0;
                outbox.push(piece);
                Ok(goes_on)
            }
            UploadFraming::Chunked => {
                // A vector takes whatever is written to it.
                let _ = write!(outbox.front(), "{:x}\r\n", piece.len());
                outbox.push_framed(piece, b"\r\n");
                Ok(true)
            }
        }
    }

    fn end(&self, outbox: &mut Outbox) -> Result<bool, WireFault> {
        match self.framing {
            UploadFraming::Length(_) => Err(WireFault::RequestBody),
            UploadFraming::Chunked => {
                outbox.front().extend_from_slice(b"0\r\n\r\n");
                Ok(false)
            }
        }
    }
}
