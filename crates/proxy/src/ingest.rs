//! Fourth stage: the request's body, whole, within its bounds.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use hyper::body::Incoming;
use refrain_core::Code;
use refrain_core::settings::Limits;

use crate::failure::Failure;
use crate::upload::Upload;

/// Reads a body that is to be understood.
///
/// # Errors
/// Over the limit, cut short, too slow, or compressed.
pub(crate) async fn read(headers: &HeaderMap, body: Incoming, limits: &Limits) -> Result<Bytes, Failure> {
    refuse_encoding(headers)?;
    refuse_length(headers, limits.body_bytes_max)?;
    whole(body, limits).await
}

/// Reads the body whatever it holds. A body in one piece is not copied.
///
/// # Errors
/// Over the limit, cut short or too slow.
pub(crate) async fn whole(body: Incoming, limits: &Limits) -> Result<Bytes, Failure> {
    let mut upload = Upload::new(body, limits);
    let Some(first) = upload.next().await.transpose()? else { return Ok(Bytes::new()) };
    if upload.is_ended() && first.len() <= limits.body_bytes_max {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() * 2);
    let mut chunk = Some(first);
    while let Some(bytes) = chunk {
        if whole.len() + bytes.len() > limits.body_bytes_max {
            return Err(too_large(limits.body_bytes_max));
        }
        whole.extend_from_slice(&bytes);
        chunk = upload.next().await.transpose()?;
    }
    Ok(whole.freeze())
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
