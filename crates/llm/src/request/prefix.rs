//! The beginnings of a prompt as hashes: requests that share one may share a model server's prefix cache.
//!
//! Not for keys of answers: the hash is fast, and anybody can make two texts collide in it. Then both go to one server.

use refrain_core::Api;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ParsedRequest;
use super::view;
use crate::json::{Kind, Value};

/// What the model reads before any message, in the order in which chat templates mostly have it.
const BEFORE: [&str; 5] = ["tools", "functions", "mcp_servers", "system", "instructions"];
/// Says where a client wants its prefix cached, not what is said: it moves from turn to turn.
const NOT_SAID: &str = "cache_control";
/// Of the first turn's text, what belongs to a conversation's beginning: longer ones are documents, about which several
/// things may be asked.
const FIRST_TURN_BYTES: usize = 2048;
/// A prompt without messages has a beginning each so many bytes.
const BLOCK_BYTES: usize = 2048;
/// Longer beginnings that are kept: the longest.
const LONGER_MAX: usize = 32;

/// Beginnings of one prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beginnings {
    /// Tools, system prompt, and the first turn of the user.
    pub first: u64,
    /// At the ends of messages from that turn on, or every 2 KiB of a prompt without any; the longest last. At most 32.
    pub longer: Vec<u64>,
}

impl ParsedRequest {
    /// The beginnings of what the model is to read. `seed` stands for what else must be the same: model, tenant.
    ///
    /// Fields beside the texts (`cache_control`) don't count, so that a conversation keeps its beginnings from turn to turn
    /// in every dialect. Costs one pass over the body.
    pub fn beginnings(&self, seed: u64) -> Beginnings {
        let root = self.root();
        let before = BEFORE.iter().filter_map(|name| root.member(name)).fold(seed, folded);
        let prompt = match self.prompt.api {
            Api::Completions | Api::OllamaGenerate => self.said().all().next(),
            _ => None,
        };
        match prompt {
            Some(prompt) => of_prompt(before, prompt),
            None => self.of_messages(before),
        }
    }

    fn of_messages(&self, before: u64) -> Beginnings {
        let (mut hash, mut first, mut longer) = (before, None, Vec::new());
        for message in self.said().all() {
            if first.is_none() && view::role(message) == "user" {
                first = Some(up_to(hash, message, &mut FIRST_TURN_BYTES.clone()));
            }
            hash = folded(hash, message);
            // What comes before is not of this conversation alone.
            if first.is_some() {
                longer.push(hash);
            }
        }
        longer.drain(..longer.len().saturating_sub(LONGER_MAX));
        Beginnings { first: first.unwrap_or(hash), longer }
    }
}

fn of_prompt(before: u64, prompt: Value<'_>) -> Beginnings {
    let text = prompt.raw().as_bytes();
    let mut longer = Vec::new();
    let (blocks, rest) = text.as_chunks::<BLOCK_BYTES>();
    let mut hash = before;
    for block in blocks {
        hash = xxh3_64_with_seed(block, hash);
        longer.push(hash);
    }
    let first = longer.first().copied().unwrap_or_else(|| xxh3_64_with_seed(rest, before));
    longer.drain(..longer.len().saturating_sub(LONGER_MAX));
    Beginnings { first, longer }
}

/// The hash of what came before and of a value's leaves.
fn folded(hash: u64, value: Value<'_>) -> u64 {
    up_to(hash, value, &mut usize::MAX.clone())
}

/// The same for as many bytes as are left of `room`.
fn up_to(hash: u64, value: Value<'_>, room: &mut usize) -> u64 {
    match value.kind() {
        Kind::Object => value
            .members()
            .filter(|(name, _)| name != NOT_SAID)
            .fold(hash, |hash, (name, value)| up_to(xxh3_64_with_seed(name.as_bytes(), hash), value, room)),
        Kind::Array => value.elements().fold(hash, |hash, value| up_to(hash, value, room)),
        _ => {
            let raw = value.raw().as_bytes();
            let raw = &raw[..raw.len().min(*room)];
            *room -= raw.len();
            xxh3_64_with_seed(raw, hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::request::{ParseLimits, parse};

    fn of(api: Api, body: &Value) -> Beginnings {
        parse(api, &Bytes::from(body.to_string()), &ParseLimits::default()).unwrap().beginnings(7)
    }

    fn chat(messages: &[(&str, &str)]) -> Beginnings {
        let messages: Vec<Value> =
            messages.iter().map(|(role, text)| json!({"role": role, "content": text})).collect();
        of(Api::ChatCompletions, &json!({"model": "m", "messages": messages}))
    }

    #[test]
    fn the_next_turn_has_all_beginnings_of_the_one_before() {
        let mut said = vec![("system", "be brief"), ("user", "hello")];
        let before = chat(&said);
        said.extend([("assistant", "hi"), ("user", "why?")]);
        let after = chat(&said);
        assert_eq!(after.first, before.first);
        assert_eq!(after.longer[..before.longer.len()], before.longer);
        assert_eq!((before.longer.len(), after.longer.len()), (1, 3));
    }

    /// Else the last conversation that ended there would draw all others to its endpoint.
    #[test]
    fn a_system_prompt_alone_is_no_beginning_of_a_conversation() {
        let alone = chat(&[("system", "be brief")]);
        let (one, other) = (
            chat(&[("system", "be brief"), ("user", "hello")]),
            chat(&[("system", "be brief"), ("user", "good evening")]),
        );
        assert!(alone.longer.iter().all(|hash| !one.longer.contains(hash)));
        assert!(one.longer.iter().all(|hash| !other.longer.contains(hash)));
        assert_ne!(one.first, other.first);
    }

    #[test]
    fn where_a_client_wants_its_prefix_cached_is_not_said() {
        let block = |marked: bool| {
            let mut block = json!({"type": "text", "text": "a long document"});
            if marked {
                block["cache_control"] = json!({"type": "ephemeral"});
            }
            of(
                Api::Messages,
                &json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}),
            )
        };
        assert_eq!(block(true), block(false));
    }

    #[test]
    fn a_prompt_without_messages_begins_with_its_blocks() {
        let prompt = |length| of(Api::Completions, &json!({"model": "m", "prompt": "x".repeat(length)}));
        let (short, long) = (prompt(3 * BLOCK_BYTES), prompt(100 * BLOCK_BYTES));
        assert_eq!((short.first, short.longer.len()), (long.first, 3));
        assert_eq!(long.longer.len(), LONGER_MAX);
    }
}
