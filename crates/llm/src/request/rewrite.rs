//! Edits of a body on its way upstream: spans of the original are replaced, everything else keeps its bytes.

use std::ops::Range;

use bytes::Bytes;
use refrain_core::Api;

use super::fields::Fields;
use crate::json;

/// What to change in a body on its way upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The upstream's name for the model, if it differs from the client's.
    pub model: Option<String>,
    /// Ask an OpenAI stream for usage where the client didn't.
    pub include_usage: bool,
}

/// The places of a body that may be rewritten.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) model: Range<usize>,
    /// Where and what to write so that an OpenAI stream reports usage; none if it does, or isn't a stream.
    pub(super) usage: Option<(Range<usize>, &'static str)>,
    /// A client's `cache_salt`: never goes upstream, since it chooses whose prefix cache the client shares.
    pub(super) salt: Option<Range<usize>>,
}

impl Places {
    /// Finds where `stream_options.include_usage: true` must be written.
    pub(super) fn usage_edit(api: Api, fields: Fields<'_>) -> Option<(Range<usize>, &'static str)> {
        if !matches!(api, Api::ChatCompletions | Api::Completions) {
            return None;
        }
        let before_end = |object: json::Value<'_>| object.span().end - 1..object.span().end - 1;
        let Some(options) = fields.object.member("stream_options") else {
            return Some((before_end(fields.object), ",\"stream_options\":{\"include_usage\":true}"));
        };
        match options.member("include_usage") {
            Some(value) => Some((value.span(), "true")),
            None if options.members().next().is_some() => {
                Some((before_end(options), ",\"include_usage\":true"))
            }
            None => Some((options.span(), "{\"include_usage\":true}")),
        }
    }

    /// The body with the edits in place, or the same bytes if there are none.
    pub(super) fn apply(&self, body: &Bytes, model: Option<&str>, include_usage: bool) -> Bytes {
        let model = model.map(|model| {
            let mut json = String::with_capacity(model.len() + 2);
            json::string(model, &mut json);
            (self.model.clone(), json)
        });
        let usage = self.usage.as_ref().filter(|_| include_usage);
        let usage = usage.map(|(span, text)| (span.clone(), (*text).to_owned()));
        // As `null` it is absent to the servers that know it, and the rest of the body keeps its bytes.
        let salt = self.salt.clone().map(|span| (span, "null".to_owned()));
        let mut edits: Vec<(Range<usize>, String)> = model.into_iter().chain(usage).chain(salt).collect();
        if edits.is_empty() {
            return body.clone();
        }
        edits.sort_by_key(|(span, _)| span.start);
        splice(body, &edits)
    }
}

/// The body with spans replaced. They come in order and don't overlap.
pub(super) fn splice(body: &[u8], edits: &[(Range<usize>, String)]) -> Bytes {
    let added: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + added);
    let mut at = 0;
    for (span, text) in edits {
        out.extend_from_slice(&body[at..span.start]);
        out.extend_from_slice(text.as_bytes());
        at = span.end;
    }
    out.extend_from_slice(&body[at..]);
    out.into()
}
