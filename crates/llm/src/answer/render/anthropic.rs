//! Anthropic's two forms, written from what the answer says.

use super::super::record::{Answer, Choice, Part, PartKind};
use super::{array, key, member, members, object, optional_member, text_member};

/// The joined message.
pub(super) fn whole(answer: &Answer) -> String {
    let mut out = String::from("{");
    members(&mut out, &answer.head);
    for choice in &answer.choices {
        text_member(&mut out, "role", choice.role.as_deref().unwrap_or("assistant"));
        key(&mut out, "content");
        array(&mut out, sorted_blocks(choice), |out, part| block(out, part, Said::All));
        optional_member(&mut out, "stop_reason", choice.finish.as_deref());
    }
    usage(&mut out, answer);
    out.push('}');
    out
}

/// The message as events.
pub(super) fn stream(answer: &Answer) -> String {
    let mut out = String::new();
    for choice in &answer.choices {
        event(&mut out, "message_start", |out| start(out, answer, choice));
        for (index, part) in sorted_blocks(choice).into_iter().enumerate() {
            block_events(&mut out, index, part);
        }
        event(&mut out, "message_delta", |out| {
            key(out, "delta");
            out.push('{');
            optional_member(out, "stop_reason", choice.finish.as_deref());
            member(out, "stop_sequence", answer.head.get("stop_sequence").unwrap_or("null"));
            out.push('}');
            usage(out, answer);
        });
    }
    event(&mut out, "message_stop", |_| {});
    out
}

fn event(out: &mut String, name: &str, body: impl FnOnce(&mut String)) {
    out.extend(["event: ", name, "\ndata: {"]);
    text_member(out, "type", name);
    body(out);
    out.push_str("}\n\n");
}

fn start(out: &mut String, answer: &Answer, choice: &Choice) {
    key(out, "message");
    out.push('{');
    for (name, value) in &answer.head.0 {
        member(out, name, if name == "stop_sequence" { "null" } else { value });
    }
    text_member(out, "role", choice.role.as_deref().unwrap_or("assistant"));
    member(out, "content", "[]");
    member(out, "stop_reason", "null");
    usage(out, answer);
    out.push('}');
}

fn usage(out: &mut String, answer: &Answer) {
    if let Some(usage) = &answer.usage {
        key(out, "usage");
        object(out, usage);
    }
}

fn sorted_blocks(choice: &Choice) -> Vec<&Part> {
    let mut blocks: Vec<&Part> = choice.parts.iter().collect();
    blocks.sort_by_key(|block| block.index);
    blocks
}

/// How much of a block is written: all, or what it has before its deltas.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    All,
    Nothing,
}

fn block(out: &mut String, part: &Part, said: Said) {
    let text = if said == Said::All { part.text.as_str() } else { "" };
    out.push('{');
    text_member(out, "type", &part.name);
    match part.kind {
        PartKind::Text => text_member(out, "text", text),
        PartKind::Reasoning => text_member(out, "thinking", text),
        PartKind::ToolCall => member(out, "input", if text.is_empty() { "{}" } else { text }),
        PartKind::Refusal | PartKind::Other if part.text.is_empty() => {}
        PartKind::Refusal | PartKind::Other => text_member(out, "text", &part.text),
    }
    for (name, value) in &part.fields.0 {
        let comes_later = said == Said::Nothing && name == "signature";
        member(out, name, if comes_later { "\"\"" } else { value });
    }
    out.push('}');
}

fn block_events(out: &mut String, index: usize, part: &Part) {
    let index = index.to_string();
    event(out, "content_block_start", |out| {
        member(out, "index", &index);
        key(out, "content_block");
        block(out, part, Said::Nothing);
    });
    let text_delta = match part.kind {
        PartKind::Text => Some(("text_delta", "text")),
        PartKind::Reasoning => Some(("thinking_delta", "thinking")),
        PartKind::ToolCall => Some(("input_json_delta", "partial_json")),
        PartKind::Refusal | PartKind::Other => None,
    };
    if let Some((kind, name)) = text_delta.filter(|_| !part.text.is_empty()) {
        let mut text = String::new();
        crate::json::string(&part.text, &mut text);
        delta(out, &index, kind, name, &text);
    }
    if let Some(signature) = part.fields.get("signature") {
        delta(out, &index, "signature_delta", "signature", signature);
    }
    event(out, "content_block_stop", |out| member(out, "index", &index));
}

fn delta(out: &mut String, index: &str, kind: &str, name: &str, value: &str) {
    event(out, "content_block_delta", |out| {
        member(out, "index", index);
        key(out, "delta");
        out.push('{');
        text_member(out, "type", kind);
        member(out, name, value);
        out.push('}');
    });
}
