//! What a policy may read of a request, without parsing it anew.
//!
//! Messages are those of `messages`. Where there are none, the prompt (of completions and Ollama's generate) or the input
//! (of embeddings and Responses) is message 0, said by the user. A system prompt that stands beside the messages
//! (Anthropic's and Ollama's `system`, OpenAI's `instructions`) is no message: [`ParsedRequest::json`] reads it, and
//! [`refrain_core::KeyPart::SystemPrompt`] names it.

use std::borrow::Cow;

use bytes::Bytes;
use refrain_core::{Api, Dialect};

use super::{ParsedRequest, question};
use crate::json::{self, Kind, Value};

/// Who speaks where no message says so.
const PROMPT_ROLE: &str = "user";
/// Words within the types of content parts that aren't text.
const MEDIA: [&str; 5] = ["image", "audio", "video", "file", "document"];

/// What is said: messages, or one prompt.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said<'d> {
    Messages(Value<'d>),
    Prompt(Value<'d>),
    Nothing,
}

impl<'d> Said<'d> {
    fn of(api: Api, root: Value<'d>) -> Self {
        let name = match api {
            Api::ChatCompletions | Api::OllamaChat | Api::Messages => "messages",
            Api::Completions | Api::OllamaGenerate => "prompt",
            Api::Embeddings | Api::OllamaEmbed | Api::Responses => "input",
        };
        match root.member(name).filter(|value| !value.is_null()) {
            Some(value) if name == "messages" => Self::Messages(value),
            Some(value) if api == Api::Responses && value.kind() == Kind::Array => Self::Messages(value),
            Some(value) => Self::Prompt(value),
            None => Self::Nothing,
        }
    }

    /// Every message, or the prompt alone.
    pub(super) fn all(self) -> impl DoubleEndedIterator<Item = Value<'d>> {
        let all: Vec<_> = match self {
            Self::Messages(messages) => messages.elements().collect(),
            Self::Prompt(prompt) => vec![prompt],
            Self::Nothing => Vec::new(),
        };
        all.into_iter()
    }
}

impl ParsedRequest {
    /// The body as the client sent it.
    pub fn body(&self) -> &Bytes {
        self.body.as_bytes()
    }

    /// Who speaks in a message, in the dialect's word. None if there is no such message.
    pub fn message_role(&self, index: u32) -> Option<Cow<'_, str>> {
        Some(role(self.message(index)?))
    }

    /// The text of a message up to a character boundary at most `bytes_max` in: its text parts joined by a line end, empty if
    /// it has none. None if there is no such message.
    pub fn message_text(&self, index: u32, bytes_max: usize) -> Option<String> {
        let message = self.message(index)?;
        let content = if message.kind() == Kind::Object { message.member("content") } else { Some(message) };
        Some(content.map_or_else(String::new, |content| text(content, bytes_max)))
    }

    /// The JSON text at a JSON pointer (RFC 6901), as the client wrote it. None if the pointer leads nowhere, or to more than
    /// `bytes_max`.
    pub fn json(&self, pointer: &str, bytes_max: usize) -> Option<&str> {
        json::pointer::find(self.root(), pointer).map(Value::raw).filter(|raw| raw.len() <= bytes_max)
    }

    /// Whether there are images, audio, video or files.
    pub fn has_media(&self) -> bool {
        let root = self.root();
        has_images(root) || self.said().all().any(|message| is_media_message(message))
    }

    /// Whether tools are offered, called or answered.
    pub fn has_tools(&self) -> bool {
        self.prompt.offers_tools || self.has_tool_messages
    }

    /// The temperature that the request names.
    pub fn temperature(&self) -> Option<f32> {
        let root = self.root();
        let fields = match self.prompt.api.dialect() {
            Dialect::Ollama => root.member("options")?,
            Dialect::OpenAi | Dialect::Anthropic => root,
        };
        let temperature: f32 = fields.member("temperature")?.as_number()?.parse().ok()?;
        Some(temperature).filter(|temperature| temperature.is_finite())
    }

    pub(super) fn root(&self) -> Value<'_> {
        self.outline.root(&self.body)
    }

    pub(super) fn said(&self) -> Said<'_> {
        Said::of(self.prompt.api, self.root())
    }

    /// A message, or the prompt as message 0.
    pub(super) fn message(&self, index: u32) -> Option<Value<'_>> {
        // Listed once: a policy may go through all of them.
        let places = self.messages.get_or_init(|| self.said().all().map(Value::place).collect());
        Some(self.root().at(*places.get(index as usize)?))
    }
}

/// Who speaks in a message or prompt; nobody in an item of Responses that has no role.
pub(super) fn role(message: Value<'_>) -> Cow<'_, str> {
    let unsaid = if message.kind() == Kind::Object { "" } else { PROMPT_ROLE };
    message.member("role").and_then(Value::as_str).unwrap_or(Cow::Borrowed(unsaid))
}

fn text(content: Value<'_>, bytes_max: usize) -> String {
    if content.kind() != Kind::Array {
        return content.as_str_up_to(bytes_max).unwrap_or_default().into_owned();
    }
    let mut joined = String::new();
    for (at, part) in content.elements().filter_map(part_text).enumerate() {
        if at > 0 {
            joined.push('\n');
        }
        let room = bytes_max.saturating_sub(joined.len());
        joined.push_str(&part.as_str_up_to(room).unwrap_or_default());
        if joined.len() >= bytes_max {
            break;
        }
    }
    joined.truncate(joined.floor_char_boundary(bytes_max));
    joined
}

/// The text of a part, as a string value.
pub(super) fn part_text(part: Value<'_>) -> Option<Value<'_>> {
    match part.kind() {
        Kind::PlainString | Kind::EscapedString => Some(part),
        _ => {
            let kind = part.member("type")?.as_str()?;
            let is_text = matches!(&*kind, "text" | "input_text" | "output_text");
            part.member("text").filter(|text| is_text && text.as_str_up_to(0).is_some())
        }
    }
}

fn has_images(object: Value<'_>) -> bool {
    object.member("images").is_some_and(|images| images.elements().next().is_some())
}

fn is_media_message(message: Value<'_>) -> bool {
    let names_audio = message.member("audio").is_some_and(|audio| !audio.is_null());
    has_images(message) || names_audio || message.member("content").is_some_and(holds_media)
}

fn holds_media(content: Value<'_>) -> bool {
    content.elements().any(|part| {
        let kind = part.member("type").and_then(Value::as_str).unwrap_or_default();
        MEDIA.iter().any(|media| kind.contains(media)) || part.member("content").is_some_and(holds_media)
    })
}

/// The text of a message that is plain text and nothing else.
pub(super) fn plain(message: Value<'_>) -> Option<Value<'_>> {
    if message.kind() != Kind::Object {
        return message.as_str_up_to(0).map(|_| message);
    }
    let content = message.member("content").filter(|content| !content.is_null())?;
    let text = question::plain_text(content).ok()?;
    text.as_str_up_to(0).filter(|_| !is_media_message(message)).map(|_| text)
}
