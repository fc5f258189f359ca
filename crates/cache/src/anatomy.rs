//! A key taken apart: each of its parts with a hash of its own, so that it can be told in which of them two requests differ,
//! without keeping a word of either.
//!
//! Keys themselves are made in `key`. Two requests of one secret have the same key if, and only if, they have the same parts.

use std::fmt;

use blake3::Hasher;
use refrain_llm::request::{ParsedRequest, PieceName};

use crate::key::{KeyParts, PartHasher};
use crate::secret::KeySecret;

/// Which part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartName {
    /// The endpoint.
    Api,
    /// The effective model.
    Model,
    /// Which build of it.
    ModelIdentity,
    /// The route's `cache.namespace`.
    Namespace,
    /// Who shares the entry.
    Scope,
    /// The policies and their configuration.
    Policy,
    /// The pool that answers.
    Pool,
    /// The query of the request's target.
    Query,
    /// A header of the request.
    Header(String),
    /// What a policy adds.
    Added(String),
    /// What is compared by meaning, where a policy chose something else than the last message.
    Source,
    /// A piece of the body.
    Body(PieceName),
    /// Of a request with very many parts, those that are remembered together.
    Further,
    /// Several lines of the system prompt: only in summaries.
    SystemPrompt,
    /// Several earlier messages: only in summaries.
    Conversation,
    /// Several tools: only in summaries.
    Tools,
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Api => "api",
            Self::Model => "model",
            Self::ModelIdentity => "build of the model",
            Self::Namespace => "namespace",
            Self::Scope => "scope",
            Self::Policy => "policies",
            Self::Pool => "pool",
            Self::Query => "query",
            Self::Header(name) => return write!(f, "header {name}"),
            Self::Added(name) => return write!(f, "policy's {name}"),
            Self::Source => "compared text",
            Self::Body(piece) => return piece.fmt(f),
            Self::Further => "further parts",
            Self::SystemPrompt => "system prompt",
            Self::Conversation => "earlier messages",
            Self::Tools => "tools",
        })
    }
}

/// A part's name with a digest of what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which part.
    pub name: PartName,
    /// Of name and content: equal contents of two parts don't show.
    pub digest: u64,
}

/// Gives each part's name to `take`, with what it holds.
pub(crate) fn dissect(
    secret: &KeySecret,
    (parts, request, source): (&KeyParts<'_>, &ParsedRequest, Option<&str>),
    tell: &mut dyn FnMut(PartName, &[u8]),
) {
    // Without `..`, as where the key is made: a new part can't be forgotten here.
    let KeyParts {
        api,
        model,
        model_identity,
        namespace,
        scope,
        policy,
        pool,
        query,
        headers,
        partition_body: _, // Both are told piece by piece.
        excised: _,
        extra,
    } = *parts;
    tell(PartName::Api, api.as_str().as_bytes());
    tell(PartName::Model, model.as_bytes());
    tell(PartName::ModelIdentity, model_identity.as_bytes());
    tell(PartName::Namespace, namespace.as_bytes());
    let mut framed = PartHasher::new(secret.part_key());
    scope.hash_into(&mut framed);
    tell(PartName::Scope, &framed.finish());
    let present = |text: &[u8]| (!text.is_empty()).then(|| text.to_vec());
    present(policy).into_iter().for_each(|policy| tell(PartName::Policy, &policy));
    tell(PartName::Pool, pool.as_bytes());
    present(query.as_bytes()).into_iter().for_each(|query| tell(PartName::Query, &query));
    for (name, text) in grouped(headers.iter().map(|(name, value)| (*name, Some(*value)))) {
        tell(PartName::Header(name), &text);
    }
    for (name, text) in grouped(extra.iter().copied()) {
        tell(PartName::Added(name), &text);
    }
    source.into_iter().for_each(|source| tell(PartName::Source, source.as_bytes()));
    request.pieces(&mut |piece, text| tell(PartName::Body(piece), text.as_bytes()));
}

/// Values of one name together, so that each name is there once. A value alone stands as it is; an absent one is none.
fn grouped<'a>(pairs: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Vec<(String, Vec<u8>)> {
    let mut groups: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, value) in pairs {
        match groups.iter_mut().find(|(known, _)| known == name) {
            Some((_, text)) => {
                let value = value.unwrap_or(b"(absent)");
                text.extend_from_slice(format!(" | {} bytes: ", value.len()).as_bytes());
                text.extend_from_slice(value);
            }
            None => groups.extend(value.map(|value| (name.to_owned(), value.to_vec()))),
        }
    }
    groups
}

/// A digest that may be shown: who lacks the secret can't find out by trying what it is of. The same for all proxies that share
/// the secret.
pub(crate) fn digest(secret: &KeySecret, name: &PartName, text: &[u8]) -> u64 {
    let name = name.to_string();
    let mut hasher = Hasher::new_keyed(secret.part_key());
    hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(text);
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
