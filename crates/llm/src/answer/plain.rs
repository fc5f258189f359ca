//! Judges whole answers of the shape that nearly all have, without building their record.
//!
//! What it doesn't know for sure it leaves to the builder: tool calls, several forms of one field, whatever comes close to
//! a limit. Invariant: where it does judge, the builder would have read the same text without an error, and would have
//! said the same of it.

use std::borrow::Cow;

use refrain_core::{Api, Skip, Usage};

use super::anthropic::is_tool_use;
use super::judge::{storable_finish, usage};
use super::openai::CHOICES_MAX;
use super::reader::DEPTH_MAX;
use super::record::{FIELDS_MAX, PARTS_MAX};
use crate::json::{self, Kind, Value};

/// Most values and names of a text: too few for as many fields or parts as the builder refuses.
const NODES_MAX: usize = 240;

const _: () = assert!(NODES_MAX < FIELDS_MAX && NODES_MAX < PARTS_MAX);

/// What is asked of an answer before it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// See [`super::Answer::usage`].
    pub(super) usage: Usage,
    /// See [`super::Answer::storable`].
    pub(super) storable: Result<(), Skip>,
    /// See [`super::Answer::id`].
    pub(super) id: Option<String>,
}

/// Judges one whole answer; none: the builder must.
pub(super) fn judge(api: Api, text: &[u8]) -> Option<Judged> {
    let limits = json::Limits { depth_max: DEPTH_MAX, nodes_max: NODES_MAX };
    let document = json::read(text, limits).ok()?;
    let root = document.root();
    let has_failed = root.member("error").is_some_and(|error| !error.is_null()) || is(root, "type", "error");
    if root.kind() != Kind::Object || has_failed {
        return None;
    }
    match api {
        Api::ChatCompletions | Api::Completions => openai(api, root),
        Api::Messages => anthropic(root),
        Api::OllamaChat | Api::OllamaGenerate => ollama(api, root),
        Api::Embeddings | Api::OllamaEmbed | Api::Responses => None,
    }
}

/// The id that an answer carries.
fn id(root: Value<'_>) -> Option<String> {
    text(root, "id").map(Cow::into_owned)
}

fn openai(api: Api, root: Value<'_>) -> Option<Judged> {
    let choices = root.member("choices").filter(|choices| choices.kind() == Kind::Array)?;
    if !(1..=CHOICES_MAX).contains(&choices.elements().count()) {
        return None;
    }
    let mut storable = Ok(());
    for (at, choice) in choices.elements().enumerate() {
        storable = storable.and(openai_choice(at, choice)?);
    }
    Some(Judged { usage: counts(api, root.member("usage"))?, storable, id: id(root) })
}

fn openai_choice(at: usize, choice: Value<'_>) -> Option<Result<(), Skip>> {
    let is_numbered = choice.member("index").is_none_or(|index| index.as_u64() == Some(at as u64));
    let has_plain_message = choice.member("message").is_none_or(calls_nothing);
    let is_plain = choice.kind() == Kind::Object && choice.member("delta").is_none();
    (is_numbered && has_plain_message && is_plain)
        .then(|| storable_finish(text(choice, "finish_reason").as_deref()))
}

fn anthropic(root: Value<'_>) -> Option<Judged> {
    let content = root.member("content").filter(|content| content.kind() == Kind::Array)?;
    let is_plain = |block| text(block, "type").is_some_and(|kind| !is_tool_use(&kind));
    if !content.elements().all(is_plain) {
        return None;
    }
    let storable = storable_finish(text(root, "stop_reason").as_deref());
    Some(Judged { usage: counts(Api::Messages, root.member("usage"))?, storable, id: id(root) })
}

fn ollama(api: Api, root: Value<'_>) -> Option<Judged> {
    root.member("done").and_then(Value::as_bool).filter(|done| *done)?;
    let is_plain = calls_nothing(root) && root.member("message").is_none_or(calls_nothing);
    let storable = storable_finish(text(root, "done_reason").as_deref());
    is_plain.then_some(Judged { usage: counts(api, Some(root))?, storable, id: id(root) })
}

/// Whether nothing in an object can be a tool call.
fn calls_nothing(message: Value<'_>) -> bool {
    let is_empty = |calls: Value<'_>| calls.is_null() || matches!(calls.raw(), "[]");
    let has_none = |name| message.member(name).is_none_or(is_empty);
    message.kind() == Kind::Object && has_none("tool_calls") && has_none("function_call")
}

/// The counts in the object that has them; none where the builder must look.
fn counts(api: Api, counted: Option<Value<'_>>) -> Option<Usage> {
    let counted = counted.filter(|counted| !counted.is_null());
    let member = |name: &str| counted.and_then(|counted| counted.member(name));
    let details = member("prompt_tokens_details");
    // The builder reads them anew, and no deeper than some levels.
    let is_flat = |object: Value<'_>| object.members().all(|(_, value)| !is_container(value));
    if counted.is_some_and(|counted| counted.kind() != Kind::Object) || !details.is_none_or(is_flat) {
        return None;
    }
    let cached = || details?.member("cached_tokens")?.as_u64();
    Some(usage(api, |name| member(name)?.as_u64(), cached))
}

fn is_container(value: Value<'_>) -> bool {
    matches!(value.kind(), Kind::Array | Kind::Object)
}

fn text<'d>(object: Value<'d>, name: &str) -> Option<Cow<'d, str>> {
    object.member(name).and_then(Value::as_str)
}

fn is(object: Value<'_>, name: &str, said: &str) -> bool {
    text(object, name).is_some_and(|text| text == said)
}
