//! Questions about a finished answer: its text, its usage, whether it may be stored.

use std::borrow::Cow;

use refrain_core::{Api, Dialect, Skip, Usage};

use super::record::{Answer, Choice, Fields, PartKind};
use crate::json;

impl Answer {
    /// The API it came by and renders in.
    pub fn api(&self) -> Api {
        self.api
    }

    /// The id that it carries, by which its readers know it.
    pub fn id(&self) -> Option<String> {
        let limits = json::Limits { depth_max: 1, nodes_max: 1 };
        json::read(self.head.get("id")?.as_bytes(), limits).ok()?.root().as_str().map(Cow::into_owned)
    }

    /// Its alternatives; none for embeddings.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Its top-level fields, choices and usage apart.
    pub fn head(&self) -> &Fields {
        &self.head
    }

    /// The visible text of the first choice: no reasoning, no refusal, no tool call.
    pub fn text(&self) -> Cow<'_, str> {
        let parts = self.first().into_iter().flat_map(|choice| &choice.parts);
        let mut texts = parts.filter(|part| part.kind == PartKind::Text).map(|part| part.text.as_str());
        match (texts.next(), texts.next()) {
            (None, _) => Cow::Borrowed(""),
            (Some(only), None) => Cow::Borrowed(only),
            (Some(first), Some(second)) => [first, second].into_iter().chain(texts).collect(),
        }
    }

    /// Why the first choice ended, in the dialect's word.
    pub fn finish_reason(&self) -> Option<&str> {
        self.first()?.finish.as_deref()
    }

    /// Whether any choice calls a tool.
    pub fn has_tool_calls(&self) -> bool {
        self.choices.iter().any(Choice::calls_tools)
    }

    fn first(&self) -> Option<&Choice> {
        self.choices.iter().min_by_key(|choice| choice.index)
    }

    /// Token counts as the upstream reported them. Anthropic counts cached prompt tokens apart; here they are included.
    pub fn usage(&self) -> Usage {
        let counted =
            if self.api.dialect() == Dialect::Ollama { Some(&self.head) } else { self.usage.as_ref() };
        let cached = || counted?.get("prompt_tokens_details").and_then(cached_tokens);
        usage(self.api, |name| counted?.integer(name), cached)
    }

    /// Whether the answer itself may be stored: every choice came to a natural stop and none calls tools.
    ///
    /// # Errors
    /// The reason why not. Whether tools were *offered* is the caller's to check.
    pub fn storable(&self) -> Result<(), Skip> {
        self.choices.iter().try_for_each(storable_choice)
    }
}

fn storable_choice(choice: &Choice) -> Result<(), Skip> {
    if choice.calls_tools() {
        return Err(Skip::ToolCalls);
    }
    storable_finish(choice.finish.as_deref())
}

/// Whether what ended for this reason may be stored, if it calls no tool.
pub(super) fn storable_finish(reason: Option<&str>) -> Result<(), Skip> {
    match reason {
        Some("stop" | "end_turn" | "stop_sequence") => Ok(()),
        Some("length" | "max_tokens") => Err(Skip::Length),
        Some("tool_calls" | "tool_use" | "function_call") => Err(Skip::ToolCalls),
        _ => Err(Skip::FinishReason),
    }
}

/// Token counts in the words of the API's dialect; `count` gives the number under a name, `cached` OpenAI's detail.
pub(super) fn usage(
    api: Api,
    count: impl Fn(&str) -> Option<u64>,
    cached: impl FnOnce() -> Option<u64>,
) -> Usage {
    match api.dialect() {
        Dialect::OpenAi => Usage {
            input_tokens: count("prompt_tokens"),
            output_tokens: count("completion_tokens"),
            cached_tokens: cached(),
        },
        Dialect::Ollama => Usage {
            input_tokens: count("prompt_eval_count"),
            output_tokens: count("eval_count"),
            cached_tokens: None,
        },
        Dialect::Anthropic => {
            let cached = count("cache_read_input_tokens");
            let written = count("cache_creation_input_tokens").unwrap_or(0);
            let add = |input: u64| input.saturating_add(cached.unwrap_or(0)).saturating_add(written);
            Usage {
                input_tokens: count("input_tokens").map(add),
                output_tokens: count("output_tokens"),
                cached_tokens: cached,
            }
        }
    }
}

fn cached_tokens(details: &str) -> Option<u64> {
    let limits = json::Limits { depth_max: 8, nodes_max: 256 };
    let document = json::read(details.as_bytes(), limits).ok()?;
    document.root().member("cached_tokens")?.as_u64()
}
