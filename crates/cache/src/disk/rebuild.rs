//! What memory must know of the disk, read once at start: which keys are there, and the vectors that lead to them.

use std::time::{Duration, Instant};

use super::places::Place;
use super::tables::{IndexKey, Tables};
use crate::record::PlaceRecord;
use crate::shared::{Counts, Shared};
use crate::store::unix_ms;

/// How long vectors are taken in; after it only keys are, and the semantic tier starts with what it has.
const VECTORS_BUDGET: Duration = Duration::from_secs(10);

/// Reads the index, latest expiry first, so that what is left out is what would go first anyway; its oldest place.
pub(super) fn rebuild(shared: &Shared, tables: &Tables, embedder: Option<[u8; 32]>) -> Option<IndexKey> {
    let (start, now_ms) = (Instant::now(), unix_ms());
    let (mut front, mut vectors) = (None, 0);
    for item in tables.places(None).rev() {
        let (at, record) = match item {
            Ok(item) => item,
            Err(error) => {
                tracing::warn!(%error, "the store's index can't be read to its end; what was read is used");
                Counts::add(&shared.counts.quarantined);
                break;
            }
        };
        front = Some(at);
        match record {
            // Expired ones are left for the sweep, which starts at the front.
            Ok(_) if at.retained_until_ms <= now_ms => {}
            Ok(record) => {
                let in_time = start.elapsed() < VECTORS_BUDGET;
                vectors += usize::from(take_in(shared, at, record, embedder.filter(|_| in_time)));
            }
            Err(error) => {
                tracing::warn!(%error, "a damaged place in the store's index is left out");
                Counts::add(&shared.counts.quarantined);
            }
        }
    }
    shared.counts.vectors_rebuilt.store(vectors, std::sync::atomic::Ordering::Relaxed);
    let (entries, bytes, ms) = (shared.places.len(), shared.places.bytes(), start.elapsed().as_millis());
    tracing::info!(entries, bytes, vectors, ms, "store opened");
    front
}

/// Notes an entry; whether its vector came in too.
fn take_in(shared: &Shared, at: IndexKey, record: PlaceRecord, embedder: Option<[u8; 32]>) -> bool {
    // The latest expiry of a key came first: an older place of it leads to nothing of its own.
    if shared.places.find(&at.key).is_some() {
        return false;
    }
    let PlaceRecord { partition, bytes, vector } = record;
    shared.places.insert(&at.key, Place { retained_until_ms: at.retained_until_ms, bytes, hidden: false });
    match vector {
        // Vectors of another model can't be compared.
        Some((model, vector)) if Some(model) == embedder => {
            let taken = shared.vectors.insert(partition, at.key, &vector).is_ok();
            if !taken {
                Counts::add(&shared.counts.vectors_refused);
            }
            taken
        }
        _ => false,
    }
}
