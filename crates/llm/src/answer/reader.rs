//! The incremental reader: bytes to documents by the dialect's framing, documents to the record.

use refrain_core::{Api, Dialect};

use super::encode::{WHOLE_HEADER_BYTES, whole_header};
use super::frame::{Frame, Recording};
use super::record::{Answer, Choice, Fields, PartKind};
use super::sse::{Event, EventReader};
use super::{AnswerError, Encoded, Form, ndjson};
use crate::json::{self, Kind, Value};

pub(super) const DEPTH_MAX: usize = 128;

/// Reads an upstream's answer as it arrives. After an error every further call gives that error again.
#[derive(Debug)]
pub struct AnswerReader {
    builder: Builder,
    framing: Framing,
    bytes_left: usize,
    bytes_max: usize,
    failed: Option<AnswerError>,
}

#[derive(Debug)]
enum Framing {
    /// With the header of an [`Encoded`] before the first byte.
    Whole(Vec<u8>),
    Events(EventReader),
    Lines(ndjson::LineReader),
}

impl AnswerReader {
    /// Reads at most `bytes_max` bytes of an answer of `api`.
    pub fn new(api: Api, form: Form, bytes_max: usize) -> Self {
        let framing = match (form, api.dialect()) {
            (Form::Whole, _) => Framing::Whole(Vec::new()),
            (Form::Stream, Dialect::Ollama) => Framing::Lines(ndjson::LineReader::default()),
            (Form::Stream, Dialect::OpenAi | Dialect::Anthropic) => Framing::Events(EventReader::default()),
        };
        Self { builder: Builder::new(api, form), framing, bytes_left: bytes_max, bytes_max, failed: None }
    }

    /// Takes the next bytes; how they are split makes no difference.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), AnswerError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.take(bytes);
        self.failed = result.clone().err();
        result
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), AnswerError> {
        let too_large = AnswerError::TooLarge { limit: self.bytes_max };
        self.bytes_left = self.bytes_left.checked_sub(bytes.len()).ok_or(too_large)?;
        let builder = &mut self.builder;
        match &mut self.framing {
            Framing::Whole(body) => {
                if body.is_empty() {
                    body.reserve_exact(WHOLE_HEADER_BYTES + bytes.len());
                    body.extend_from_slice(&whole_header(builder.api));
                }
                body.extend_from_slice(bytes);
                Ok(())
            }
            Framing::Events(events) => events.feed(bytes, &mut |event| builder.event(event)),
            Framing::Lines(lines) => lines.feed(bytes, &mut |line| builder.document(line, String::new())),
        }
    }

    /// Whether the dialect's terminator has been seen: nothing of meaning follows.
    pub fn is_terminated(&self) -> bool {
        self.builder.terminated
    }

    /// How many chunks so far brought text: of the answer, its reasoning or a tool call's arguments.
    pub fn text_chunks(&self) -> u64 {
        self.builder.text_chunks
    }

    /// The answer, once the upstream's body has ended.
    ///
    /// # Errors
    /// See [`AnswerError`]; [`AnswerError::Incomplete`] without the dialect's terminator.
    pub fn finish(mut self) -> Result<Answer, AnswerError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match &mut self.framing {
            Framing::Whole(body) => {
                let body = std::mem::take(body);
                self.builder.document(body.get(WHOLE_HEADER_BYTES..).unwrap_or_default(), String::new())?;
            }
            Framing::Lines(lines) => {
                let builder = &mut self.builder;
                lines.finish(&mut |line| builder.document(line, String::new()))?;
            }
            Framing::Events(_) => {}
        }
        self.builder.finish()
    }

    /// The answer as it is stored, without its record where that can be done.
    ///
    /// # Errors
    /// As [`AnswerReader::finish`].
    pub fn finish_encoded(mut self) -> Result<Encoded, AnswerError> {
        if let (Framing::Whole(body), None) = (&mut self.framing, &self.failed)
            && let Some(encoded) = Encoded::of_whole(body)
        {
            return Ok(encoded);
        }
        Ok(Encoded::from(&self.finish()?))
    }
}

/// The record while it grows. The dialects' modules add their reading to it.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) api: Api,
    pub(super) form: Form,
    pub(super) head: Fields,
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Option<Fields>,
    pub(super) terminated: bool,
    text_chunks: u64,
    recording: Recording,
}

pub(super) fn malformed(reason: &'static str) -> AnswerError {
    AnswerError::Malformed { reason }
}

impl Builder {
    fn new(api: Api, form: Form) -> Self {
        Self {
            api,
            form,
            head: Fields::default(),
            choices: Vec::new(),
            usage: None,
            terminated: false,
            text_chunks: 0,
            recording: Recording::default(),
        }
    }

    /// The place of the choice that the upstream numbers `index`.
    pub(super) fn choice(&mut self, index: u64) -> usize {
        let found = self.choices.iter().position(|choice| choice.index == index);
        found.unwrap_or_else(|| {
            self.choices.push(Choice { index, ..Choice::default() });
            self.choices.len() - 1
        })
    }

    /// A string field of a message: the next piece of the part with that name.
    pub(super) fn text(&mut self, place: usize, name: &str, value: Value<'_>, frame: &mut Frame) {
        let kind = match name {
            "content" | "text" | "response" => PartKind::Text,
            "reasoning" | "reasoning_content" | "thinking" => PartKind::Reasoning,
            "refusal" => PartKind::Refusal,
            _ => PartKind::Other,
        };
        frame.piece(&mut self.choices, place, (kind, name, 0), &value.as_str().unwrap_or_default());
    }

    fn event(&mut self, event: Event) -> Result<(), AnswerError> {
        if self.terminated {
            return Ok(());
        }
        if self.api.dialect() == Dialect::OpenAi && event.data == b"[DONE]" {
            self.terminated = true;
            return Ok(());
        }
        if event.name == "error" {
            return Err(AnswerError::UpstreamError);
        }
        self.document(&event.data, event.name)
    }

    fn document(&mut self, text: &[u8], event: String) -> Result<(), AnswerError> {
        if self.terminated {
            return Ok(());
        }
        // A node needs two bytes of text at least, so the text bounds the nodes.
        let limits = json::Limits { depth_max: DEPTH_MAX, nodes_max: text.len() + 1 };
        let document = json::read(text, limits).map_err(|_| malformed("not json"))?;
        let root = document.root();
        if root.kind() != Kind::Object {
            return Err(malformed("not an object"));
        }
        let is_error = |value: Value<'_>| value.as_str().is_some_and(|kind| kind == "error");
        if root.member("error").is_some_and(|error| !error.is_null())
            || root.member("type").is_some_and(is_error)
        {
            return Err(AnswerError::UpstreamError);
        }
        let mut frame = Frame::new(event);
        if self.read(root, &mut frame)? {
            self.text_chunks += u64::from(frame.has_text());
            self.recording.push(frame);
        }
        Ok(())
    }

    /// Reads one document; false if it isn't part of the answer.
    fn read(&mut self, root: Value<'_>, frame: &mut Frame) -> Result<bool, AnswerError> {
        let whole = self.form == Form::Whole;
        match self.api {
            Api::ChatCompletions | Api::Completions => self.openai(root, frame)?,
            Api::OllamaChat | Api::OllamaGenerate => self.ollama(root, frame)?,
            Api::Messages if whole => {
                root.member("content").ok_or(malformed("no content"))?;
                self.anthropic_message(root, frame)?;
            }
            Api::Messages => return self.anthropic_event(root, frame),
            Api::Embeddings if whole => self.embeddings(root, "data", frame)?,
            Api::OllamaEmbed if whole => self.embeddings(root, "embeddings", frame)?,
            Api::Embeddings | Api::OllamaEmbed => return Err(malformed("embeddings are not streamed")),
            Api::Responses => return Err(malformed("responses are passed through, not read")),
        }
        self.terminated |= whole && !matches!(self.api, Api::OllamaChat | Api::OllamaGenerate);
        Ok(true)
    }

    fn embeddings(&mut self, root: Value<'_>, vectors: &str, frame: &mut Frame) -> Result<(), AnswerError> {
        let is_array = root.member(vectors).is_some_and(|vectors| vectors.kind() == Kind::Array);
        if !is_array {
            return Err(malformed("no embeddings"));
        }
        frame.literal("{");
        for (name, value) in root.members() {
            frame.key(&name);
            if name == "usage" && value.kind() == Kind::Object {
                self.usage = Some(Fields::of(value));
            } else if name != vectors {
                self.head.set(&name, value);
            }
            frame.value(value);
        }
        frame.literal("}");
        Ok(())
    }

    fn finish(self) -> Result<Answer, AnswerError> {
        if !self.terminated {
            return Err(AnswerError::Incomplete);
        }
        let usage_is_full = self.usage.as_ref().is_some_and(Fields::is_full);
        if usage_is_full || self.head.is_full() || self.choices.iter().any(Choice::is_full) {
            return Err(malformed("too many fields"));
        }
        let has_choices = !matches!(self.api, Api::Embeddings | Api::OllamaEmbed);
        if has_choices && self.choices.is_empty() {
            return Err(malformed("no choices"));
        }
        if self.api == Api::Messages && !self.choices.iter().all(has_readable_inputs) {
            return Err(malformed("a tool's input is not json"));
        }
        let original = self.recording.into_original(self.form);
        Ok(Answer { api: self.api, head: self.head, choices: self.choices, usage: self.usage, original })
    }
}

/// Anthropic's tool inputs are streamed as text but are JSON in a whole message.
fn has_readable_inputs(choice: &Choice) -> bool {
    let is_json = |text: &str| {
        let limits = json::Limits { depth_max: DEPTH_MAX, nodes_max: text.len() + 1 };
        text.is_empty() || json::read(text.as_bytes(), limits).is_ok()
    };
    choice.parts.iter().all(|part| part.kind != PartKind::ToolCall || is_json(&part.text))
}
