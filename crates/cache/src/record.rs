//! Entries as bytes on disk.
//!
//! A record is a header, a body (compressed where that pays) and a keyed digest over both *and over its place*: what is
//! damaged, cut, foreign, or put under another key is an error, and the parser sees only what this secret wrote.
//!
//! ```text
//! "RFRN"  version u16  flags u8  length of the plain body u32  body  digest [u8; 32]      (little-endian)
//! ```

use refrain_core::{Api, RouteId, TenantId, UserId};

use crate::embedder::Embedding;
use crate::entry::{Entry, EntryMeta};
use crate::fields::{Fields, FieldsMut};
use crate::key::CacheKey;
use crate::purge::Epoch;
use crate::secret::KeySecret;

const MAGIC: [u8; 4] = *b"RFRN";
const VERSION: u16 = 3;
const HEADER_BYTES: usize = 4 + 2 + 1 + 4;
const DIGEST_BYTES: usize = 32;
/// Bit in the flags: the body is zstd.
const COMPRESSED: u8 = 1;
/// Smaller bodies are not worth a decompression on the way to a client.
const COMPRESS_BYTES_MIN: usize = 2 << 10;
const COMPRESS_LEVEL: i32 = 1;
/// Bound on what a record may claim to unpack to, well above the largest entry that config allows by default.
const PLAIN_BYTES_MAX: usize = 256 << 20;

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Too short, or not one of ours.
    #[error("not a record")]
    Foreign,
    /// Written by another version.
    #[error("written by another version")]
    Version,
    /// The digest differs: damaged, moved, or of another secret.
    #[error("digest mismatch")]
    Digest,
    /// The digest is right and the contents are not: a bug of the writer.
    #[error("malformed contents")]
    Malformed,
}

/// The record of an entry.
pub(crate) fn encode(secret: &KeySecret, entry: &Entry) -> Vec<u8> {
    let plain = body_of(entry);
    let compressed = compress(&plain);
    let flags = if compressed.is_some() { COMPRESSED } else { 0 };
    let body = compressed.as_deref().unwrap_or(&plain);
    seal(secret, &entry.key.key, flags, plain.len(), body)
}

/// Reads the record that stood under `key`.
///
/// # Errors
/// See [`RecordError`].
pub(crate) fn decode(secret: &KeySecret, key: &[u8; 32], record: &[u8]) -> Result<Entry, RecordError> {
    let (header, body) = open(secret, key, record)?;
    let [_, _, _, _, _, _, flags, length @ ..] = *header;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| RecordError::Malformed)?;
    if flags & COMPRESSED == 0 {
        return entry_of(*key, body).ok_or(RecordError::Malformed);
    }
    if length > PLAIN_BYTES_MAX {
        return Err(RecordError::Malformed);
    }
    let plain = zstd::bulk::decompress(body, length).map_err(|_| RecordError::Malformed)?;
    entry_of(*key, &plain).ok_or(RecordError::Malformed)
}

/// Header, body and the digest that binds them to their place.
fn seal(secret: &KeySecret, place: &[u8], flags: u8, plain_len: usize, body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER_BYTES + body.len() + DIGEST_BYTES);
    record.extend_from_slice(&MAGIC);
    record.extend_from_slice(&VERSION.to_le_bytes());
    record.push(flags);
    record.extend_from_slice(&u32::try_from(plain_len).unwrap_or(u32::MAX).to_le_bytes());
    record.extend_from_slice(body);
    let digest = digest(secret, place, &record);
    record.extend_from_slice(digest.as_bytes());
    record
}

/// Checks header and digest; the header and what is between them.
fn open<'a>(
    secret: &KeySecret,
    place: &[u8],
    record: &'a [u8],
) -> Result<(&'a [u8; HEADER_BYTES], &'a [u8]), RecordError> {
    let (sealed, digest_found) = record.split_last_chunk::<DIGEST_BYTES>().ok_or(RecordError::Foreign)?;
    let (header, body) = sealed.split_first_chunk::<HEADER_BYTES>().ok_or(RecordError::Foreign)?;
    let [a, b, c, d, version @ .., _, _, _, _, _] = *header;
    if [a, b, c, d] != MAGIC {
        return Err(RecordError::Foreign);
    }
    if u16::from_le_bytes(version) != VERSION {
        return Err(RecordError::Version);
    }
    // `blake3::Hash` compares in constant time.
    if digest(secret, place, sealed) != *digest_found {
        return Err(RecordError::Digest);
    }
    Ok((header, body))
}

fn digest(secret: &KeySecret, place: &[u8], bytes: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(secret.record_key());
    hasher.update(&(place.len() as u64).to_le_bytes());
    hasher.update(place);
    hasher.update(bytes);
    hasher.finalize()
}

fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() < COMPRESS_BYTES_MIN {
        return None;
    }
    let compressed = zstd::bulk::compress(plain, COMPRESS_LEVEL).ok()?;
    (compressed.len() < plain.len() / 4 * 3).then_some(compressed)
}

fn body_of(entry: &Entry) -> Vec<u8> {
    let EntryMeta {
        stored_at_ms,
        expires_at_ms,
        stale_while_revalidate_until_ms,
        stale_if_error_until_ms,
        seen,
        upstream_ms,
        route,
        tenant,
        user,
        model,
        api,
        embed_text,
        exact_only,
        replay_headers,
        tags,
        labels,
    } = &entry.meta;
    let CacheKey { partition, key: _, fingerprint } = &entry.key; // The key is the record's place.
    let mut body = FieldsMut::with_capacity(entry.record_bytes() + 256);
    body.array(partition);
    body.array(fingerprint);
    body.number(*stored_at_ms);
    body.number(*expires_at_ms);
    body.number(*stale_while_revalidate_until_ms);
    body.number(*stale_if_error_until_ms);
    body.number(seen.ms);
    body.number(seen.seq);
    body.number(*upstream_ms);
    body.text(route.as_str());
    body.text(tenant.as_str());
    body.optional(user.as_ref().map(UserId::as_str));
    body.text(model);
    body.text(api.as_str());
    body.optional(embed_text.as_deref());
    body.number(u64::from(*exact_only));
    body.pairs(replay_headers);
    body.number(tags.len() as u64);
    tags.iter().for_each(|tag| body.text(tag));
    body.pairs(labels);
    body.bytes(entry.encoded());
    body.into_bytes()
}

fn entry_of(key: [u8; 32], body: &[u8]) -> Option<Entry> {
    let mut fields = Fields::new(body);
    let (partition, fingerprint) = (fields.array()?, fields.array()?);
    let meta = EntryMeta {
        stored_at_ms: fields.number()?,
        expires_at_ms: fields.number()?,
        stale_while_revalidate_until_ms: fields.number()?,
        stale_if_error_until_ms: fields.number()?,
        seen: Epoch { ms: fields.number()?, seq: fields.number()? },
        upstream_ms: fields.number()?,
        route: RouteId::new(fields.text()?),
        tenant: TenantId::new(fields.text()?),
        user: fields.optional()?.map(UserId::new),
        model: fields.text()?.to_owned(),
        api: api_named(fields.text()?)?,
        embed_text: fields.optional()?.map(str::to_owned),
        exact_only: fields.flag()?,
        replay_headers: fields.pairs()?,
        tags: tags_of(&mut fields)?,
        labels: fields.pairs()?,
    };
    let encoded = fields.bytes()?;
    fields.end()?;
    Entry::decode(CacheKey { partition, key, fingerprint }, meta, encoded).ok()
}

fn tags_of(fields: &mut Fields<'_>) -> Option<Vec<String>> {
    let count = fields.number()?;
    (0..count).map(|_| Some(fields.text()?.to_owned())).collect()
}

fn api_named(name: &str) -> Option<Api> {
    Api::ALL.into_iter().find(|api| api.as_str() == name)
}

/// A message to those who know the secret, bound to its place.
pub(crate) fn seal_message(secret: &KeySecret, place: &[u8], body: &[u8]) -> Vec<u8> {
    seal(secret, place, 0, body.len(), body)
}

/// Reads what [`seal_message`] wrote for that place.
///
/// # Errors
/// See [`RecordError`].
pub(crate) fn open_message<'a>(
    secret: &KeySecret,
    place: &[u8],
    sealed: &'a [u8],
) -> Result<&'a [u8], RecordError> {
    open(secret, place, sealed).map(|(_, body)| body)
}

/// What the disk's index knows of an entry without reading its answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlaceRecord {
    pub(crate) partition: [u8; 32],
    /// Bytes of the entry's record and of this one.
    pub(crate) bytes: u32,
    /// The question's vector, with the identity of the model that made it.
    pub(crate) vector: Option<([u8; 32], Embedding)>,
}

/// The place record, bound to its place in the index.
pub(crate) fn encode_place(secret: &KeySecret, place: &[u8], record: &PlaceRecord) -> Vec<u8> {
    let PlaceRecord { partition, bytes, vector } = record;
    let mut fields = FieldsMut::with_capacity(2 << 10);
    fields.array(partition);
    fields.number(u64::from(*bytes));
    fields.number(u64::from(vector.is_some()));
    if let Some((model, vector)) = vector {
        fields.array(model);
        fields.bytes(&vector.to_bytes());
    }
    let body = fields.into_bytes();
    seal(secret, place, 0, body.len(), &body)
}

/// Reads what [`encode_place`] wrote at that place.
///
/// # Errors
/// See [`RecordError`].
pub(crate) fn decode_place(
    secret: &KeySecret,
    place: &[u8],
    record: &[u8],
) -> Result<PlaceRecord, RecordError> {
    let (_, body) = open(secret, place, record)?;
    place_of(body).ok_or(RecordError::Malformed)
}

fn place_of(body: &[u8]) -> Option<PlaceRecord> {
    let mut fields = Fields::new(body);
    let partition = fields.array()?;
    let bytes = u32::try_from(fields.number()?).ok()?;
    let vector = match fields.number()? {
        0 => None,
        1 => Some((fields.array()?, Embedding::from_bytes(fields.bytes()?)?)),
        _ => return None,
    };
    fields.end()?;
    Some(PlaceRecord { partition, bytes, vector })
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
