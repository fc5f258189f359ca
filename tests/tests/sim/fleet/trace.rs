//! The recorded requests: when they came, how long they were, which beginnings they shared.

use refrain_upstream::{Affinity, Demand, Millis, Prefix};
use serde::Deserialize;

/// Tokens of a block.
const BLOCK_TOKENS: u32 = 512;
/// Beginnings of a prompt that the product sends at most: the longest.
const LONGER_MAX: usize = 32;
/// Of these a prompt's home is made.
const HOME_BLOCKS: usize = 2;
/// When the first request comes: the clock never says 0.
const START: u64 = 1_000;

/// One request of the trace.
#[derive(Deserialize)]
pub(super) struct Request {
    /// In milliseconds from the first.
    timestamp: u64,
    input_length: u32,
    pub(super) output_length: u32,
    /// Each block of the prompt; the same id is the same beginning up to there.
    #[serde(rename = "hash_ids")]
    pub(super) blocks: Vec<u32>,
}

/// All of it, in the order of time.
pub(super) fn read() -> Vec<Request> {
    let lines =
        zstd::decode_all(&include_bytes!("../../../data/mooncake_conversation.jsonl.zst")[..]).unwrap();
    let lines = serde_json::Deserializer::from_slice(&lines);
    let trace: Vec<Request> = lines.into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(trace.len(), 12_031);
    trace
}

impl Request {
    pub(super) fn arrival(&self) -> Millis {
        Millis(START + self.timestamp)
    }

    /// What the product would know of it: its home by its first two blocks (the first is the same in all), longer
    /// beginnings at the ends of whole blocks.
    pub(super) fn demand(&self) -> Demand {
        let hashes = chained(&self.blocks);
        let whole = (self.input_length / BLOCK_TOKENS) as usize;
        let longer = hashes.get(HOME_BLOCKS..whole).unwrap_or_default();
        let longer = longer[longer.len().saturating_sub(LONGER_MAX)..].to_vec();
        let prefix = Prefix { home: hashes[HOME_BLOCKS - 1], longer };
        Demand { affinity: Affinity::Prefix(prefix), tokens: self.input_length, ..Demand::default() }
    }
}

/// The hash of all blocks up to each.
fn chained(blocks: &[u32]) -> Vec<u64> {
    let mut hasher = blake3::Hasher::new();
    let up_to = |block: &u32| {
        let hash = *hasher.update(&block.to_le_bytes()).finalize().as_bytes();
        u64::from_le_bytes(*hash.first_chunk().unwrap())
    };
    blocks.iter().map(up_to).collect()
}
