//! OpenAI's two forms, written from what the answer says.

use refrain_core::Api;

use super::super::record::{Answer, Choice, Part, PartKind};
use super::{array, key, member, members, object, optional_member, text_member};

/// Fields that every chunk carries.
const IDENTITY: [&str; 6] = ["id", "object", "created", "model", "system_fingerprint", "service_tier"];

/// The joined answer.
pub(super) fn whole(answer: &Answer) -> String {
    let mut out = String::from("{");
    for (name, value) in &answer.head.0 {
        let value = if value == "\"chat.completion.chunk\"" { "\"chat.completion\"" } else { value };
        member(&mut out, name, value);
    }
    key(&mut out, "choices");
    array(&mut out, answer.sorted_choices(), |out, choice| whole_choice(out, answer.api, choice));
    if let Some(usage) = &answer.usage {
        key(&mut out, "usage");
        object(&mut out, usage);
    }
    out.push('}');
    out
}

fn whole_choice(out: &mut String, api: Api, choice: &Choice) {
    out.push('{');
    member(out, "index", &choice.index.to_string());
    if api == Api::Completions {
        text_member(out, "text", choice.parts.first().map_or("", |part| &part.text));
    } else {
        key(out, "message");
        message(out, choice);
    }
    logprobs(out, choice);
    optional_member(out, "finish_reason", choice.finish.as_deref());
    extras(out, choice);
    out.push('}');
}

fn message(out: &mut String, choice: &Choice) {
    out.push('{');
    text_member(out, "role", choice.role.as_deref().unwrap_or("assistant"));
    fields_without_parts(out, choice);
    let texts = choice.parts.iter().filter(|part| part.kind != PartKind::ToolCall);
    texts.for_each(|part| text_member(out, &part.name, &part.text));
    let has_content = choice.parts.iter().any(|part| part.name == "content");
    if !has_content && choice.message.get("content").is_none() {
        member(out, "content", "null");
    }
    if let Some(call) = choice.parts.iter().find(|part| part.name == "function_call") {
        key(out, "function_call");
        function(out, call);
    }
    let mut calls: Vec<&Part> = choice.parts.iter().filter(|part| part.name == "tool_calls").collect();
    calls.sort_by_key(|call| call.index);
    if !calls.is_empty() {
        key(out, "tool_calls");
        array(out, calls, |out, call| tool_call(out, call, None));
    }
    out.push('}');
}

/// The message's further fields, but for a null that a part has replaced since.
fn fields_without_parts(out: &mut String, choice: &Choice) {
    let replaced = |name: &str| choice.parts.iter().any(|part| part.name == name);
    let fields = choice.message.0.iter().filter(|(name, _)| !replaced(name));
    fields.for_each(|(name, value)| member(out, name, value));
}

fn tool_call(out: &mut String, call: &Part, index: Option<u64>) {
    out.push('{');
    if let Some(index) = index {
        member(out, "index", &index.to_string());
    }
    members(out, &call.fields);
    key(out, "function");
    function(out, call);
    out.push('}');
}

fn function(out: &mut String, call: &Part) {
    out.push('{');
    members(out, &call.function);
    text_member(out, "arguments", &call.text);
    out.push('}');
}

fn logprobs(out: &mut String, choice: &Choice) {
    key(out, "logprobs");
    match &choice.logprobs {
        Some(lists) => object(out, lists),
        None => out.push_str("null"),
    }
}

fn extras(out: &mut String, choice: &Choice) {
    let extras = choice.extra.0.iter().filter(|(name, _)| name != "logprobs");
    extras.for_each(|(name, value)| member(out, name, value));
}

/// The answer as chunks: for each choice its role, its texts, its tool calls and its end; then usage.
pub(super) fn stream(answer: &Answer, include_usage: bool) -> String {
    let mut chunks = Chunks { answer, out: String::new(), is_first: true };
    for choice in answer.sorted_choices() {
        if answer.api == Api::Completions {
            chunks.completion(choice);
        } else {
            chunks.chat(choice);
        }
    }
    if let Some(usage) = answer.usage.as_ref().filter(|_| include_usage) {
        chunks.chunk(|out| {
            member(out, "choices", "[]");
            key(out, "usage");
            object(out, usage);
        });
    }
    chunks.out.push_str("data: [DONE]\n\n");
    chunks.out
}

struct Chunks<'a> {
    answer: &'a Answer,
    out: String,
    is_first: bool,
}

impl Chunks<'_> {
    fn chunk(&mut self, body: impl FnOnce(&mut String)) {
        self.out.push_str("data: {");
        let is_first = std::mem::take(&mut self.is_first);
        for (name, value) in &self.answer.head.0 {
            if is_first || IDENTITY.contains(&name.as_str()) {
                let value = if value == "\"chat.completion\"" { "\"chat.completion.chunk\"" } else { value };
                member(&mut self.out, name, value);
            }
        }
        body(&mut self.out);
        self.out.push_str("}\n\n");
    }

    fn choice(&mut self, choice: &Choice, finishes: bool, body: impl FnOnce(&mut String)) {
        self.chunk(|out| {
            key(out, "choices");
            out.push_str("[{");
            member(out, "index", &choice.index.to_string());
            body(out);
            optional_member(out, "finish_reason", choice.finish.as_deref().filter(|_| finishes));
            if finishes {
                extras(out, choice);
            }
            out.push_str("}]");
        });
    }

    fn completion(&mut self, choice: &Choice) {
        self.choice(choice, false, |out| {
            text_member(out, "text", choice.parts.first().map_or("", |part| &part.text));
            logprobs(out, choice);
        });
        self.choice(choice, true, |out| {
            text_member(out, "text", "");
            member(out, "logprobs", "null");
        });
    }

    fn chat(&mut self, choice: &Choice) {
        self.choice(choice, false, |out| {
            key(out, "delta");
            out.push('{');
            text_member(out, "role", choice.role.as_deref().unwrap_or("assistant"));
            fields_without_parts(out, choice);
            out.push('}');
        });
        let mut logprobs_left = choice.logprobs.is_some();
        for part in choice.parts.iter().filter(|part| part.kind != PartKind::ToolCall) {
            let carries = logprobs_left && matches!(part.kind, PartKind::Text | PartKind::Refusal);
            logprobs_left &= !carries;
            self.choice(choice, false, |out| {
                key(out, "delta");
                out.push('{');
                text_member(out, &part.name, &part.text);
                out.push('}');
                if carries {
                    logprobs(out, choice);
                }
            });
        }
        for call in choice.parts.iter().filter(|part| part.kind == PartKind::ToolCall) {
            self.choice(choice, false, |out| call_delta(out, call));
        }
        self.choice(choice, true, |out| {
            member(out, "delta", "{}");
            if logprobs_left {
                logprobs(out, choice);
            }
        });
    }
}

fn call_delta(out: &mut String, call: &Part) {
    key(out, "delta");
    out.push('{');
    if call.name == "function_call" {
        key(out, "function_call");
        function(out, call);
    } else {
        key(out, "tool_calls");
        array(out, [call], |out, call| tool_call(out, call, Some(call.index)));
    }
    out.push('}');
}
