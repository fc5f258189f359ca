//! Entries for tests: a real answer, read by the reader that reads upstreams'.

use refrain_core::{Api, RouteId, TenantId, UserId};
use refrain_llm::answer::{Answer, AnswerReader, Encoded, Form};

use crate::embedder::{DIMENSIONS, Embedding};
use crate::entry::{Entry, EntryMeta};
use crate::key::CacheKey;
use crate::purge::Epoch;

/// In the year 2100: the sweep goes by the real clock, and must not come between.
pub(crate) const NOW_MS: u64 = 4_102_444_800_000;

/// An answer that says `text`.
pub(crate) fn answer(text: &str) -> Answer {
    upstreams(text).finish().unwrap()
}

/// The same, as it is stored when it came whole.
pub(crate) fn encoded(text: &str) -> Encoded {
    upstreams(text).finish_encoded().unwrap()
}

fn upstreams(text: &str) -> AnswerReader {
    let body = format!(
        r#"{{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}}}"#
    );
    let mut reader = AnswerReader::new(Api::ChatCompletions, Form::Whole, 64 << 20);
    reader.feed(body.as_bytes()).unwrap();
    reader
}

/// A key that only `number` and `partition` tell apart.
pub(crate) fn key(partition: u8, number: u64) -> CacheKey {
    let digest = |context: &str| {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&[partition]);
        hasher.update(&number.to_le_bytes());
        hasher.finalize().into()
    };
    CacheKey { partition: [partition; 32], key: digest("test key"), fingerprint: digest("test fingerprint") }
}

pub(crate) fn meta(expires_at_ms: u64) -> EntryMeta {
    EntryMeta {
        stored_at_ms: NOW_MS,
        expires_at_ms,
        stale_while_revalidate_until_ms: 0,
        stale_if_error_until_ms: 0,
        seen: Epoch::ZERO,
        upstream_ms: 1234,
        route: RouteId::new("chat"),
        tenant: TenantId::new("acme"),
        user: Some(UserId::new("ann")),
        model: "m".to_owned(),
        api: Api::ChatCompletions,
        embed_text: Some("what?".to_owned()),
        exact_only: false,
        replay_headers: vec![("x-request-cost".to_owned(), "3".to_owned())],
        tags: Vec::new(),
        labels: Vec::new(),
    }
}

/// An entry of partition 1 that says its number and lives for an hour after [`NOW_MS`].
pub(crate) fn entry(number: u64) -> Entry {
    Entry::new(key(1, number), meta(NOW_MS + 3_600_000), &answer(&format!("answer {number}")))
}

/// A unit vector; vectors of neighbouring numbers are close, but not equal.
pub(crate) fn vector(number: u64) -> Embedding {
    let angle = number as f32 / 50.0;
    let numbers: Vec<f32> = (0..DIMENSIONS).map(|i| (angle * (1 + i % 7) as f32 + i as f32).sin()).collect();
    Embedding::normalised(&numbers).unwrap()
}
