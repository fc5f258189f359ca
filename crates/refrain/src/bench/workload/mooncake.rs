//! Mooncake traces: arrival times, lengths, and which blocks of 512 tokens prompts have in common. The same id is the same text,
//! so that prompts share beginnings exactly as the recorded ones did.
//!
//! Source: <https://github.com/kvcache-ai/Mooncake>, FAST25 release.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use super::lines::numbered;
use super::{Session, Workload};

/// Tokens of a block.
pub(super) const BLOCK_TOKENS: u32 = 512;

/// A line of the trace.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    /// In milliseconds from the beginning.
    timestamp: u64,
    input_length: u32,
    output_length: u32,
    /// Each block of the prompt; the last one may be shorter.
    hash_ids: Vec<u64>,
}

pub(super) fn read(file: &Path) -> anyhow::Result<Vec<Request>> {
    let mut requests: Vec<Request> = Vec::new();
    for line in numbered(file)? {
        let (number, text) = line?;
        let at = || format!("{}:{number}: no line of a Mooncake trace", file.display());
        let request: Request = serde_json::from_str(&text).with_context(at)?;
        let blocks = u64::from(request.input_length.div_ceil(BLOCK_TOKENS));
        let is_whole = blocks == request.hash_ids.len() as u64 && blocks > 0;
        anyhow::ensure!(
            is_whole,
            "{}: input_length {} makes {blocks} blocks of {BLOCK_TOKENS}, and hash_ids has {}",
            at(),
            request.input_length,
            request.hash_ids.len()
        );
        requests.push(request);
    }
    anyhow::ensure!(!requests.is_empty(), "{}: no requests in it", file.display());
    requests.sort_by_key(|request| request.timestamp);
    // A piece of a trace begins at once, too.
    let first = requests.first().map_or(0, |request| request.timestamp);
    requests.iter_mut().for_each(|request| request.timestamp -= first);
    Ok(requests)
}

pub(super) fn session(workload: &Workload, request: &Request) -> Session {
    let mut left = request.input_length;
    let blocks = request.hash_ids.iter().map(|id| {
        let tokens = left.min(BLOCK_TOKENS);
        left -= tokens;
        workload.text("block", *id, tokens)
    });
    let prompt = blocks.collect::<Vec<_>>().join(" ");
    workload.recorded(Duration::from_millis(request.timestamp), prompt, request.output_length)
}
