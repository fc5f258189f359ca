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
    /// Ask for a stream where the client wants a whole answer.
    pub stream: bool,
    /// vLLM's `cache_salt`; none: none goes upstream, whatever the client says.
    pub salt: Option<String>,
}

/// The places of a body that may be rewritten.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) model: Range<usize>,
    /// Where and what to write so that an OpenAI stream reports usage; none if it does, or nothing can be asked.
    pub(super) usage: Option<(Range<usize>, &'static str)>,
    /// Whether the client asks for a stream.
    pub(super) streams: bool,
    /// Where `stream` stands.
    pub(super) stream: Option<Range<usize>>,
    /// Just before the end of the body's object.
    pub(super) end: usize,
    /// A client's `cache_salt`: never goes upstream with a body that is read, since it chooses whose prefix cache the client
    /// shares.
    pub(super) salt: Option<Range<usize>>,
}

impl Places {
    /// Finds where `stream_options.include_usage: true` must be written.
    pub(super) fn usage_edit(api: Api, fields: Fields<'_>) -> Option<(Range<usize>, &'static str)> {
        if !matches!(api, Api::ChatCompletions | Api::Completions) {
            return None;
        }
        let before_end = |object: json::Value<'_>| object.span().end - 1..object.span().end - 1;
        let Some(options) = fields.member("stream_options") else {
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
    pub(super) fn apply(&self, body: &Bytes, model: Option<&str>, rewrite: &Rewrite) -> Bytes {
        let model = model.map(|model| (self.model.clone(), quoted(model)));
        let streams = self.streams || rewrite.stream;
        let usage = self.usage.as_ref().filter(|_| rewrite.include_usage && streams);
        let usage = usage.map(|(span, text)| (span.clone(), (*text).to_owned()));
        let stream = rewrite.stream.then(|| self.set("stream", self.stream.as_ref(), "true"));
        let salt = match (&rewrite.salt, &self.salt) {
            (Some(salt), span) => Some(self.set("cache_salt", span.as_ref(), &quoted(salt))),
            // As `null` it is absent to the servers that know it, and the rest of the body keeps its bytes.
            (None, Some(span)) => Some((span.clone(), "null".to_owned())),
            (None, None) => None,
        };
        let edits = model.into_iter().chain(usage).chain(stream).chain(salt);
        let mut edits: Vec<(Range<usize>, String)> = edits.collect();
        if edits.is_empty() {
            return body.clone();
        }
        edits.sort_by_key(|(span, _)| span.start);
        splice(body, &edits)
    }

    /// Gives a field this JSON value, where it stands or as the last one.
    fn set(&self, name: &str, at: Option<&Range<usize>>, value: &str) -> (Range<usize>, String) {
        match at {
            Some(span) => (span.clone(), value.to_owned()),
            None => (self.end..self.end, format!(",\"{name}\":{value}")),
        }
    }
}

fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json::string(text, &mut json);
    json
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
