//! Ollama's two forms, written from what the answer says.

use refrain_core::Api;

use super::super::record::{Answer, Choice};
use super::{key, member, members, text_member};

/// Fields that every line carries.
const IDENTITY: [&str; 2] = ["model", "created_at"];

/// The joined answer.
pub(super) fn whole(answer: &Answer) -> String {
    let mut out = String::from("{");
    head(&mut out, answer, |name| IDENTITY.contains(&name));
    for choice in &answer.choices {
        said(&mut out, answer.api, choice);
        end(&mut out, choice);
    }
    head(&mut out, answer, |name| !IDENTITY.contains(&name));
    out.push('}');
    out
}

/// The answer as two lines: all that is said, and the end.
pub(super) fn stream(answer: &Answer) -> String {
    let mut out = String::new();
    for choice in &answer.choices {
        out.push('{');
        head(&mut out, answer, |name| IDENTITY.contains(&name));
        said(&mut out, answer.api, choice);
        members(&mut out, &choice.extra);
        member(&mut out, "done", "false");
        out.push_str("}\n{");
        head(&mut out, answer, |name| IDENTITY.contains(&name));
        nothing_more(&mut out, answer.api, choice);
        member(&mut out, "done", "true");
        if let Some(reason) = &choice.finish {
            text_member(&mut out, "done_reason", reason);
        }
        head(&mut out, answer, |name| !IDENTITY.contains(&name));
        out.push_str("}\n");
    }
    out
}

fn head(out: &mut String, answer: &Answer, keep: impl Fn(&str) -> bool) {
    let fields = answer.head.0.iter().filter(|(name, _)| keep(name));
    fields.for_each(|(name, value)| member(out, name, value));
}

fn said(out: &mut String, api: Api, choice: &Choice) {
    let in_message = api == Api::OllamaChat;
    if in_message {
        key(out, "message");
        out.push('{');
        text_member(out, "role", choice.role.as_deref().unwrap_or("assistant"));
    }
    choice.parts.iter().for_each(|part| text_member(out, &part.name, &part.text));
    members(out, &choice.message);
    out.push_str(if in_message { "}" } else { "" });
}

fn nothing_more(out: &mut String, api: Api, choice: &Choice) {
    if api != Api::OllamaChat {
        return text_member(out, "response", "");
    }
    key(out, "message");
    out.push('{');
    text_member(out, "role", choice.role.as_deref().unwrap_or("assistant"));
    text_member(out, "content", "");
    out.push('}');
}

fn end(out: &mut String, choice: &Choice) {
    members(out, &choice.extra);
    member(out, "done", "true");
    if let Some(reason) = &choice.finish {
        text_member(out, "done_reason", reason);
    }
}
