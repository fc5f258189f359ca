//! Fourth stage: the request's body, whole, within its bounds.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use hyper::body::Incoming;
use refrain_core::Code;

use crate::failure::Failure;
use crate::room::{Room, Share};
use crate::upload::Upload;

/// A whole body, and the memory that it holds.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    /// What was sent.
    pub(crate) bytes: Bytes,
    /// To be kept as long as the bytes.
    pub(crate) room: Room,
}

impl Whole {
    /// Of bytes that somebody else accounts for.
    pub(crate) fn of(bytes: Bytes) -> Self {
        Self { bytes, room: Room::default() }
    }
}

/// Reads a body that is to be understood.
///
/// # Errors
/// Over the limit, cut short, too slow, compressed, or one too many.
pub(crate) async fn read(headers: &HeaderMap, body: Incoming, share: Share<'_>) -> Result<Whole, Failure> {
    refuse_encoding(headers)?;
    refuse_length(headers, share.limits.body_bytes_max)?;
    whole(body, share).await
}

/// Reads the body whatever it holds. A body in one piece is not copied.
///
/// # Errors
/// Over the limit, cut short, too slow, or one too many.
pub(crate) async fn whole(body: Incoming, share: Share<'_>) -> Result<Whole, Failure> {
    let bytes_max = share.limits.body_bytes_max;
    let mut upload = Upload::new(body, share.limits);
    let Some(first) = upload.next().await.transpose()? else { return Ok(Whole::default()) };
    let mut room = Room::default();
    share.hold(&mut room, first.len())?;
    if upload.is_ended() && first.len() <= bytes_max {
        return Ok(Whole { bytes: first, room });
    }
    let mut whole = BytesMut::with_capacity(first.len() * 2);
    let mut chunk = Some(first);
    while let Some(bytes) = chunk {
        if whole.len() + bytes.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        share.hold(&mut room, whole.len() + bytes.len())?;
        whole.extend_from_slice(&bytes);
        chunk = upload.next().await.transpose()?;
    }
    Ok(Whole { bytes: whole.freeze(), room })
}

/// Refuses a body whose announced length is over the limit before any of it is read.
pub(crate) fn refuse_length(headers: &HeaderMap, bytes_max: usize) -> Result<(), Failure> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match announced {
        Some(length) if length > bytes_max as u64 => Err(too_large(bytes_max)),
        _ => Ok(()),
    }
}

/// Refuses a compressed body.
pub(crate) fn refuse_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(CONTENT_ENCODING) {
        None => Ok(()),
        Some(encoding) if encoding == "identity" => Ok(()),
        Some(_) => Err(Failure::new(Code::UnsupportedEncoding, "send the body uncompressed")),
    }
}

/// The failure of a body over the limit.
pub(crate) fn too_large(bytes_max: usize) -> Failure {
    Failure::new(Code::BodyTooLarge, format!("the body is larger than {bytes_max} bytes"))
}
