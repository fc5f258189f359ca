//! Entries in Redis: one hash each, with the record, and the vector that leads to it.
//!
//! A record is sealed for its key and holds its partition, so that one that was copied elsewhere, damaged, or written by
//! another secret or version is a miss and a count, and never parsed further.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::{Script, Value, cmd};
use refrain_core::hex;

use super::link::Link;
use super::names::Names;
use super::probe::VectorMode;
use super::sizes::Sizes;
use super::trouble::StoreTrouble;
use crate::embedder::Embedding;
use crate::entry::Entry;
use crate::record::{self, RecordError};
use crate::secret::KeySecret;

/// Field of the record.
const RECORD: &str = "r";
/// Field of the partition, a TAG of the query engine.
pub(super) const PARTITION: &str = "p";
/// Expired members that one write removes from a vector set.
const SWEPT_MAX: u32 = 4;

/// Writes an entry in one step: it and its vector appear together, or not at all. Says whether it replaced one.
///
/// KEYS: entry, vector set, expiries (the last two with a vector set only).
/// ARGV: record, end of retention in ms, partition, vector or '', field of the vector, member, how many to sweep, what the
/// record that is there must end with or ''.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local entry, set, expiries = KEYS[1], KEYS[2], KEYS[3]
local record, ends, partition, vector, field, member, sweep, guard = unpack(ARGV)
if guard ~= '' and string.sub(redis.call('HGET', entry, 'r') or '', -#guard) ~= guard then return -1 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ends) <= now then return -1 end
if set and vector ~= '' then redis.call('VADD', set, 'FP32', vector, member) end
-- Memory is asked for by a script's first write alone, and DEL needs none: without this one, a full server would be
-- written to all the same.
local replaced = redis.call('EXISTS', entry)
redis.call('SET', entry, '')
redis.call('DEL', entry)
if vector ~= '' then
  redis.call('HSET', entry, 'r', record, 'p', partition, field, vector)
else
  redis.call('HSET', entry, 'r', record)
end
redis.call('PEXPIREAT', entry, ends)
if set then
  if vector ~= '' then
    redis.call('ZADD', expiries, ends, member)
  else
    redis.call('VREM', set, member)
    redis.call('ZREM', expiries, member)
  end
  for _, gone in ipairs(redis.call('ZRANGE', expiries, '-inf', now, 'BYSCORE', 'LIMIT', 0, sweep)) do
    redis.call('VREM', set, gone)
    redis.call('ZREM', expiries, gone)
  end
  local last = redis.call('ZRANGE', expiries, -1, -1, 'WITHSCORES')
  if last[2] then
    redis.call('PEXPIREAT', set, last[2])
    redis.call('PEXPIREAT', expiries, last[2])
  end
end
return replaced
",
    )
});

/// Removes an entry with its vector. KEYS: entry, vector set, expiries. ARGV: member, what the record must end with or ''.
static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local guard = ARGV[2]
if guard ~= '' and string.sub(redis.call('HGET', KEYS[1], 'r') or '', -#guard) ~= guard then return 0 end
local removed = redis.call('DEL', KEYS[1])
if KEYS[2] then
  redis.call('VREM', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
end
return removed
",
    )
});

/// Bytes of a record's digest.
const GUARD_BYTES: usize = 32;

/// Reads and writes entries.
pub(super) struct Entries {
    pub(super) names: Names,
    secret: Arc<KeySecret>,
    /// Which model's vectors these are, as names and fields have it; none: there are no vectors.
    pub(super) model: Option<String>,
    /// Of partitions, where the query engine searches.
    pub(super) sizes: Sizes,
    record_bytes_max: usize,
    refused: [AtomicU64; 4],
}

/// An entry with its vector, where it was read too.
pub(super) struct Read {
    pub(super) entry: Option<Entry>,
    pub(super) vector: Option<Embedding>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It stands there, as the first of its key.
    New,
    /// It took another's place.
    Replaced,
    /// It had expired before it was written.
    Expired,
}

impl Entries {
    /// `model`: identity of the embedder.
    pub(super) fn new(
        names: Names,
        secret: Arc<KeySecret>,
        model: Option<[u8; 32]>,
        entry_bytes_max: usize,
    ) -> Self {
        // Half of the digest is told apart as well, and names stay short.
        let model = model.map(|identity| hex(&identity[..16]));
        Self {
            names,
            secret,
            model,
            sizes: Sizes::new(),
            record_bytes_max: entry_bytes_max.saturating_mul(2),
            refused: Default::default(),
        }
    }

    /// Records that were refused: foreign, of another version, with a wrong digest, malformed.
    pub(super) fn refused(&self) -> [u64; 4] {
        std::array::from_fn(|index| self.refused[index].load(Ordering::Relaxed))
    }

    /// The field that holds vectors of this model.
    pub(super) fn field(&self) -> Option<String> {
        self.model.as_ref().map(|model| format!("v{model}"))
    }

    /// The entry under a key; none as well if what stands there is no record of ours.
    pub(super) async fn read(
        &self,
        link: &Link,
        partition: &[u8; 32],
        key: &[u8; 32],
    ) -> Result<Option<Entry>, StoreTrouble> {
        let name = self.names.entry(partition, key);
        let record: Option<Vec<u8>> = link.ask(cmd("HGET").arg(name).arg(RECORD)).await?;
        Ok(record.and_then(|record| self.open(key, &record)))
    }

    /// The entries of a partition under these keys, and the vector of the first, in one round trip.
    pub(super) async fn read_all(
        &self,
        link: &Link,
        partition: &[u8; 32],
        keys: &[[u8; 32]],
    ) -> Result<Vec<Read>, StoreTrouble> {
        let mut pipeline = redis::pipe();
        for (index, key) in keys.iter().enumerate() {
            let field = self.field().filter(|_| index == 0);
            pipeline
                .cmd("HMGET")
                .arg(self.names.entry(partition, key))
                .arg(RECORD)
                .arg(field.as_deref().unwrap_or(RECORD));
        }
        let read: Vec<[Option<Vec<u8>>; 2]> = link.ask_all(&pipeline).await?;
        let read = keys.iter().zip(read).enumerate().map(|(index, (key, [record, vector]))| Read {
            entry: record.and_then(|record| self.open(key, &record)),
            vector: vector.filter(|_| index == 0).and_then(|vector| Embedding::from_bytes(&vector)),
        });
        Ok(read.collect())
    }

    /// What a record says, if it is one, and stood under this key.
    pub(super) fn open(&self, key: &[u8; 32], bytes: &[u8]) -> Option<Entry> {
        let opened = if bytes.len() > self.record_bytes_max {
            Err(RecordError::Foreign)
        } else {
            record::decode(&self.secret, key, bytes)
        };
        opened.inspect_err(|error| self.refuse(*error)).ok()
    }

    fn refuse(&self, error: RecordError) {
        let index = match error {
            RecordError::Foreign => 0,
            RecordError::Version => 1,
            RecordError::Digest => 2,
            RecordError::Malformed => 3,
        };
        self.refused[index].fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "a value in Redis was refused");
    }

    /// Writes an entry and its vector.
    pub(super) async fn write(
        &self,
        link: &Link,
        mode: VectorMode,
        entry: &Entry,
        vector: Option<&Embedding>,
    ) -> Result<Written, StoreTrouble> {
        self.write_if(link, mode, entry, vector, &Guard::default()).await
    }

    /// The same if the record that it shall replace is still there.
    pub(super) async fn write_if(
        &self,
        link: &Link,
        mode: VectorMode,
        entry: &Entry,
        vector: Option<&Embedding>,
        guard: &Guard,
    ) -> Result<Written, StoreTrouble> {
        let partition = &entry.key.partition;
        let key = &entry.key.key;
        let ends = entry.meta.retained_until_ms();
        let vector = vector.map(Embedding::to_bytes).unwrap_or_default();
        let mut call = WRITE.prepare_invoke();
        call.key(self.names.entry(partition, key));
        if let (VectorMode::VectorSets, Some(model)) = (mode, &self.model) {
            call.key(self.names.set(partition, model)).key(self.names.expiries(partition, model));
        }
        call.arg(record::encode(&self.secret, entry)).arg(ends).arg(hex(partition)).arg(vector);
        call.arg(self.field().unwrap_or_default()).arg(&key[..]).arg(SWEPT_MAX).arg(&guard.0);
        let replaced: i64 = link.call(&call).await?;
        Ok(match replaced {
            0 => Written::New,
            1.. => Written::Replaced,
            _ => Written::Expired,
        })
    }

    /// Removes an entry and its vector; whether it was there.
    pub(super) async fn remove(
        &self,
        link: &Link,
        mode: VectorMode,
        place: (&[u8; 32], &[u8; 32]),
    ) -> Result<bool, StoreTrouble> {
        self.remove_if(link, mode, place, &Guard::default()).await
    }

    /// The same if its record is still there. `place`: partition and key.
    pub(super) async fn remove_if(
        &self,
        link: &Link,
        mode: VectorMode,
        (partition, key): (&[u8; 32], &[u8; 32]),
        guard: &Guard,
    ) -> Result<bool, StoreTrouble> {
        let mut call = REMOVE.prepare_invoke();
        call.key(self.names.entry(partition, key));
        if let (VectorMode::VectorSets, Some(model)) = (mode, &self.model) {
            call.key(self.names.set(partition, model)).key(self.names.expiries(partition, model));
        }
        link.call(call.arg(&key[..]).arg(&guard.0)).await
    }

    /// The entry of that name, and what tells its record from a later one.
    pub(super) async fn read_named(
        &self,
        link: &Link,
        name: &[u8],
        key: &[u8; 32],
    ) -> Result<Option<(Entry, Guard)>, StoreTrouble> {
        let record: Option<Vec<u8>> = link.ask(cmd("HGET").arg(name).arg(RECORD)).await?;
        let guard = |record: &[u8]| Guard(record[record.len().saturating_sub(GUARD_BYTES)..].to_vec());
        Ok(record.and_then(|record| Some((self.open(key, &record)?, guard(&record)))))
    }
}

/// The end of a record, which is its digest: tells whether it is still the same. Empty: any will do.
#[derive(Debug, Default)]
pub(super) struct Guard(Vec<u8>);

/// The bytes of a bulk or simple string.
pub(super) fn bytes_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}
