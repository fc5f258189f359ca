//! The files: two keyspaces of one `fjall` database, changed together in one atomic batch.
//!
//! `answers` holds a record by key. `index` holds, by expiry and key, what is needed at start and for eviction, so that
//! neither reads answers: the oldest expiry comes first.

use std::fs;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::entry::Entry;
use crate::error::StoreError;
use crate::purge::Epoch;
use crate::record::{self, PlaceRecord, RecordError};
use crate::secret::KeySecret;

/// The database within the store's directory.
const DIR: &str = "answers";
/// Where a database goes that can't be opened; one is kept.
const SET_ASIDE: &str = "answers.set-aside";
/// Version of the layout of keyspaces. Records have their own.
const LAYOUT: &[u8] = b"refrain store 3";
/// Where the newest purge is noted.
const EPOCH: &str = "purged";
/// The block cache: entries are cached above, decoded.
const BLOCK_CACHE_BYTES: u64 = 8 << 20;
const MEMTABLE_BYTES: u64 = 16 << 20;
/// The smallest that the engine allows.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
const WORKERS: usize = 2;

/// The open database.
pub(super) struct Tables {
    db: Database,
    answers: Keyspace,
    index: Keyspace,
    meta: Keyspace,
    /// The newest purge, when it was opened.
    epoch: Epoch,
    secret: Arc<KeySecret>,
}

/// A key of the index: expiry, big-endian so that the oldest comes first, then the entry's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IndexKey {
    pub(super) retained_until_ms: u64,
    pub(super) key: [u8; 32],
}

/// Changes that become visible together.
pub(super) struct Batch<'a> {
    tables: &'a Tables,
    batch: fjall::OwnedWriteBatch,
}

impl Tables {
    /// Opens the database of a store directory. One that can't be opened is set aside, with a warning, for a new one.
    pub(super) fn open(dir: &Path, secret: &Arc<KeySecret>) -> Result<Self, StoreError> {
        let path = dir.join(DIR);
        let reason = match Self::try_open(&path, secret) {
            Ok(tables) => return Ok(tables),
            Err(fjall::Error::Locked) => return Err(StoreError::Locked { dir: dir.into() }),
            Err(fjall::Error::Io(source)) if is_of_the_machine(&source) => {
                return Err(StoreError::Directory { dir: dir.into(), source });
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!(dir = %path.display(), %reason, "the store can't be opened; it is set aside for an empty one");
        set_aside(dir, &path).map_err(|source| StoreError::Directory { dir: dir.into(), source })?;
        Self::try_open(&path, secret)
            .map_err(|error| StoreError::Unusable { dir: dir.into(), reason: error.to_string() })
    }

    /// The engine may panic over damaged files: that is one more way of not opening.
    fn try_open(path: &Path, secret: &Arc<KeySecret>) -> fjall::Result<Self> {
        let unwound = || fjall::Error::Unrecoverable;
        catch_unwind(AssertUnwindSafe(|| Self::open_as_is(path, secret))).unwrap_or_else(|_| Err(unwound()))
    }

    fn open_as_is(path: &Path, secret: &Arc<KeySecret>) -> fjall::Result<Self> {
        let db = Database::builder(path)
            .cache_size(BLOCK_CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .journal_compression(CompressionType::None)
            .worker_threads(WORKERS)
            .open()?;
        let meta = db.keyspace("meta", options)?;
        match (meta.get("layout")?, meta.get("secret")?) {
            (None, None) => {
                meta.insert("layout", LAYOUT)?;
                meta.insert("secret", *secret.check_value())?;
            }
            (Some(layout), Some(check)) if *layout == *LAYOUT && *check == *secret.check_value() => {}
            // Of another layout or another secret: nothing in it could be read.
            _ => return Err(fjall::Error::Unrecoverable),
        }
        let answers = db.keyspace("answers", options)?;
        let index = db.keyspace("index", options)?;
        let epoch = meta.get(EPOCH)?.and_then(|bytes| epoch_of(&bytes)).unwrap_or(Epoch::ZERO);
        Ok(Self { db, answers, index, meta, epoch, secret: secret.clone() })
    }

    /// The entry that was stored under a key.
    pub(super) fn read(&self, key: &[u8; 32]) -> Result<Option<Entry>, ReadError> {
        let Some(bytes) = self.answers.get(key).map_err(ReadError::Engine)? else { return Ok(None) };
        record::decode(&self.secret, key, &bytes).map(Some).map_err(ReadError::Record)
    }

    /// The newest purge that was noted when it was opened.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Notes the newest purge, so that none of a later process gets an earlier place, whatever its clock says.
    pub(super) fn note_epoch(&self, epoch: Epoch) -> fjall::Result<()> {
        self.meta.insert(EPOCH, epoch.to_string())
    }

    /// The entries after a key, or the one that is named, with their keys. Damaged ones come with their error.
    pub(super) fn answers<'a>(
        &'a self,
        after: Option<&[u8]>,
        only: Option<[u8; 32]>,
    ) -> impl Iterator<Item = fjall::Result<(Vec<u8>, Result<Entry, RecordError>)>> + use<'a> {
        let from = match (after, &only) {
            (Some(after), _) => Bound::Excluded(after.to_vec()),
            (None, Some(only)) => Bound::Included(only.to_vec()),
            (None, None) => Bound::Unbounded,
        };
        let to = only.map_or(Bound::Unbounded, |only| Bound::Included(only.to_vec()));
        // Nothing lies between a key and itself, and the engine may not be asked for it.
        let is_over = after.is_some() && only.is_some();
        let items = (!is_over).then(|| self.answers.range((from, to)));
        items.into_iter().flatten().map(|item| {
            let (key, value) = item.into_inner()?;
            let entry = <&[u8; 32]>::try_from(&*key).map_err(|_| RecordError::Foreign);
            let entry = entry.and_then(|key| record::decode(&self.secret, key, &value));
            Ok((key.to_vec(), entry))
        })
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { tables: self, batch: self.db.batch() }
    }

    /// The index from a place on, oldest expiry first. Damaged places come with their error.
    pub(super) fn places(
        &self,
        from: Option<IndexKey>,
    ) -> impl DoubleEndedIterator<Item = fjall::Result<(IndexKey, Result<PlaceRecord, RecordError>)>> {
        let from = from.map_or_else(Vec::new, |from| from.to_bytes().to_vec());
        self.index.range(from..).filter_map(|item| match item.into_inner() {
            Ok((key, value)) => {
                let place = record::decode_place(&self.secret, &key, &value);
                IndexKey::from_bytes(&key).map(|key| Ok((key, place)))
            }
            Err(error) => Some(Err(error)),
        })
    }

    /// Makes what was committed survive a power failure.
    pub(super) fn sync(&self) -> fjall::Result<()> {
        self.db.persist(PersistMode::SyncData)
    }

    /// Bytes of all files.
    pub(super) fn file_bytes(&self) -> u64 {
        self.db.disk_space().unwrap_or(0)
    }
}

impl Batch<'_> {
    /// Puts an entry; the bytes of its records.
    pub(super) fn put(
        &mut self,
        entry: &Entry,
        vector: Option<([u8; 32], crate::embedder::Embedding)>,
    ) -> u32 {
        let Tables { answers, index, secret, .. } = self.tables;
        let answer = record::encode(secret, entry);
        let place =
            IndexKey { retained_until_ms: entry.meta.retained_until_ms(), key: entry.key.key }.to_bytes();
        let vector_bytes = if vector.is_some() { 4 * crate::embedder::DIMENSIONS } else { 0 };
        let bytes = u32::try_from(answer.len() + vector_bytes + 256).unwrap_or(u32::MAX);
        let record = PlaceRecord { partition: entry.key.partition, bytes, vector };
        self.batch.insert(index, place, record::encode_place(secret, &place, &record));
        self.batch.insert(answers, entry.key.key, answer);
        bytes
    }

    /// Replaces an entry's record by that of another state of it, which is of use as long.
    pub(super) fn rewrite(&mut self, entry: &Entry) {
        let Tables { answers, secret, .. } = self.tables;
        self.batch.insert(answers, entry.key.key, record::encode(secret, entry));
    }

    /// Removes an entry and its place.
    pub(super) fn remove(&mut self, entry: &Entry) {
        let (retained_until_ms, key) = (entry.meta.retained_until_ms(), entry.key.key);
        self.remove_answer(key);
        self.remove_place(IndexKey { retained_until_ms, key });
    }

    /// Removes an answer.
    pub(super) fn remove_answer(&mut self, key: [u8; 32]) {
        self.batch.remove(&self.tables.answers, key);
    }

    /// Removes a place from the index.
    pub(super) fn remove_place(&mut self, place: IndexKey) {
        self.batch.remove(&self.tables.index, place.to_bytes());
    }

    pub(super) fn commit(self) -> fjall::Result<()> {
        self.batch.commit()
    }
}

impl IndexKey {
    fn to_bytes(self) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&self.retained_until_ms.to_be_bytes());
        bytes[8..].copy_from_slice(&self.key);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (expires, key) = bytes.split_first_chunk()?;
        Some(Self { retained_until_ms: u64::from_be_bytes(*expires), key: key.try_into().ok()? })
    }
}

/// Why an entry could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The engine says so.
    #[error(transparent)]
    Engine(fjall::Error),
    /// What the engine gave is no record.
    #[error(transparent)]
    Record(RecordError),
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
}

fn epoch_of(bytes: &[u8]) -> Option<Epoch> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Failures that another directory entry would not cure: the store's contents are not to blame.
fn is_of_the_machine(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | StorageFull)
}

fn set_aside(dir: &Path, path: &Path) -> io::Result<()> {
    let aside = dir.join(SET_ASIDE);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(path, aside)
}
