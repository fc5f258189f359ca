//! Parts of a key that a policy names, taken from the body.

use std::borrow::Cow;

use refrain_core::KeyPart;

use super::{ParsedRequest, view};
use crate::json::{self, Cut, Value};

/// What counts as sampling, in any dialect: the parameters that choose among what the model could say. `options` is
/// Ollama's, and holds more than sampling.
const SAMPLING: [&str; 40] = [
    "best_of",
    "dry_multiplier",
    "dynatemp_range",
    "frequency_penalty",
    "ignore_eos",
    "length_penalty",
    "logit_bias",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "min_p",
    "min_tokens",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "n",
    "n_predict",
    "options",
    "output_config",
    "presence_penalty",
    "reasoning",
    "reasoning_effort",
    "repeat_last_n",
    "repeat_penalty",
    "repetition_penalty",
    "samplers",
    "seed",
    "stop",
    "stop_sequences",
    "stop_token_ids",
    "temperature",
    "tfs_z",
    "think",
    "thinking",
    "top_k",
    "top_p",
    "typical_p",
    "use_beam_search",
    "verbosity",
    "xtc_probability",
];
/// Where tools are defined.
const TOOLS: [&str; 4] = ["functions", "mcp_servers", "tools", "web_search_options"];
/// System prompts beside the messages.
const SYSTEM: [&str; 2] = ["instructions", "system"];

impl ParsedRequest {
    /// The canonical bytes of a part of the body. None if it isn't there, or is none of the body (texts, headers and
    /// claims are the caller's). `model` is the effective one.
    ///
    /// - `Message`: the whole message, role and all, or the prompt.
    /// - `Json`: the canonical value.
    /// - `Sampling`: an object of the top-level members that sample (temperature, top_p, top_k, min_p, seed, n, penalties,
    ///   limits of tokens, stop sequences, reasoning effort, Ollama's `options`, ...); `{}` without any.
    /// - `SystemPrompt`: an array of `instructions`, `system`, and the system and developer messages; none without any.
    /// - `Tools`: an object of `tools`, `functions`, `mcp_servers` and `web_search_options`; none without any.
    /// - `Messages`, `History`: an array of all messages, and of all but the last; none without any message. A prompt is an
    ///   array of one.
    pub fn key_part<'a>(&'a self, part: &KeyPart, model: &'a str) -> Option<Cow<'a, [u8]>> {
        let text = match part {
            KeyPart::Text(_) | KeyPart::Header(_) | KeyPart::Claim(_) => return None,
            KeyPart::Model => return Some(Cow::Borrowed(model.as_bytes())),
            KeyPart::Message(index) => canonical(self.message(*index)?),
            KeyPart::Json(pointer) => canonical(json::pointer::find(self.root(), pointer)?),
            KeyPart::Sampling => self.members(&SAMPLING),
            KeyPart::Tools => Some(self.members(&TOOLS)).filter(|tools| tools != "{}")?,
            KeyPart::SystemPrompt => self.system_prompt()?,
            KeyPart::Messages => self.leading_messages(0)?,
            KeyPart::History => self.leading_messages(1)?,
        };
        Some(Cow::Owned(text.into_bytes()))
    }

    fn members(&self, names: &[&str]) -> String {
        let mut out = String::new();
        let is_named = |name: &str, value: Value<'_>| names.contains(&name) && !value.is_null();
        json::canonical_members(self.root(), is_named, Cut::default(), &mut out);
        out
    }

    fn system_prompt(&self) -> Option<String> {
        let beside = SYSTEM.iter().filter_map(|name| self.root().member(name));
        let is_system = |message: &Value<'_>| matches!(&*view::role(*message), "system" | "developer");
        let within = self.said().all().filter(is_system);
        let prompts: Vec<_> = beside.filter(|value| !value.is_null()).chain(within).collect();
        (!prompts.is_empty()).then(|| array(&prompts))
    }

    /// All messages but so many of the last.
    fn leading_messages(&self, left_out: usize) -> Option<String> {
        let all: Vec<_> = self.said().all().collect();
        (!all.is_empty()).then(|| array(&all[..all.len().saturating_sub(left_out)]))
    }
}

fn canonical(value: Value<'_>) -> String {
    let mut out = String::with_capacity(value.span().len());
    json::canonical(value, &mut out);
    out
}

fn array(values: &[Value<'_>]) -> String {
    let mut out = String::from("[");
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        json::canonical(*value, &mut out);
    }
    out.push(']');
    out
}
