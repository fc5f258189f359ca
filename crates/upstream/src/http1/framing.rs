//! Where an answer's body ends (RFC 9112, section 6.3).

use bytes::{Bytes, BytesMut};
use http_body::SizeHint;

use super::chunked::Chunked;
use crate::connection::WireFault;

/// How the end of a body is told, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many more bytes.
    Length(u64),
    /// By the last chunk.
    Chunked(Chunked),
    /// By the end of the connection.
    UntilClose,
}

/// What an inbox held of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A piece, never empty.
    Data(Bytes),
    /// Its end.
    End,
    /// Nothing yet: more has to be read.
    Wanting,
}

impl Framing {
    /// A body that is not there.
    pub(super) const NONE: Self = Self::Length(0);

    /// A chunked body from its beginning.
    pub(super) const CHUNKED: Self = Self::Chunked(Chunked::Size);

    /// Takes what there is of the body off the inbox.
    pub(super) fn decode(&mut self, inbox: &mut BytesMut) -> Result<Decoded, WireFault> {
        let data = match self {
            _ if self.is_done() => return Ok(Decoded::End),
            Self::Length(left) => {
                let bytes = usize::try_from(*left).map_or(inbox.len(), |left| left.min(inbox.len()));
                *left -= bytes as u64;
                Some(inbox.split_to(bytes).freeze())
            }
            Self::Chunked(chunked) => chunked.decode(inbox)?,
            Self::UntilClose => Some(inbox.split().freeze()),
        };
        Ok(match data {
            Some(data) if !data.is_empty() => Decoded::Data(data),
            _ if self.is_done() => Decoded::End,
            _ => Decoded::Wanting,
        })
    }

    /// Whether its last byte was taken.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked::End))
    }

    /// Whether a close of the connection is its end.
    pub(super) fn ends_at_close(&self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// How many bytes are to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            _ if self.is_done() => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}
