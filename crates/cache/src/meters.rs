//! How long other things than memory take: Redis, and the embedder. Handles are made once.

use std::sync::LazyLock;
use std::time::Instant;

use metrics::{Histogram, histogram};

/// What takes so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Reading an entry from Redis.
    Read,
    /// Searching vectors in Redis.
    Search,
    /// Writing an entry to Redis, behind every request's back.
    Write,
    /// Embedding a text, its wait in the queue included.
    Embed,
}

static MADE: LazyLock<[Histogram; 4]> = LazyLock::new(|| {
    let redis = |operation: &'static str| histogram!("refrain_store_redis_seconds", "operation" => operation);
    [redis("read"), redis("search"), redis("write"), histogram!("refrain_embedder_text_seconds")]
});

/// Notes what a piece of work took that began then.
pub(crate) fn took(work: Work, begun: Instant) {
    MADE[work as usize].record(begun.elapsed().as_secs_f64());
}
