//! Token counts of an answer that nobody else reads, found while it passes. Nothing of the answer is kept: a few hundred
//! bytes at most, whatever its length, and what is malformed is only not counted.

mod scan;

use refrain_core::{Dialect, Usage};

use crate::answer::Form;
use crate::json;
use scan::{Found, Scan};

/// Bytes of an answer for a token of it, about.
const BYTES_A_TOKEN: u64 = 4;
const USAGE_LIMITS: json::Limits = json::Limits { depth_max: 8, nodes_max: 512 };

/// Watches an answer of any API of a dialect for the usage that its server reports: an OpenAI stream's last chunk,
/// Anthropic's first and last events, the last line of Ollama's, or a member of a whole answer.
#[derive(Debug)]
pub struct UsageObserver {
    dialect: Dialect,
    form: Form,
    line: Line,
    scan: Scan,
    counts: Counts,
    /// Events or lines of a stream so far.
    events: u64,
    bytes: u64,
}

/// Where in a stream's line the next byte stands.
#[derive(Clone, Copy, Debug)]
enum Line {
    /// So many bytes of the field name before it.
    Name(usize),
    /// In a field that says nothing here.
    Other,
    /// In a document.
    Data,
}

/// What was reported last under each name.
#[derive(Debug, Default)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    cached: Option<u64>,
    /// Anthropic's, which counts apart what it reads from its cache and what it writes there.
    written: Option<u64>,
}

impl UsageObserver {
    /// At the start of an answer.
    pub fn new(dialect: Dialect, form: Form) -> Self {
        let line =
            if form == Form::Stream && dialect != Dialect::Ollama { Line::Name(0) } else { Line::Data };
        let (scan, counts) = (Scan::default(), Counts::default());
        Self { dialect, form, line, scan, counts, events: 0, bytes: 0 }
    }

    /// Looks at the next bytes; how they are split makes no difference.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.form == Form::Whole {
            return self.document(bytes);
        }
        let mut rest = bytes;
        while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
            self.piece(&rest[..at]);
            self.end_line();
            rest = &rest[at + 1..];
        }
        self.piece(rest);
    }

    /// What the server has reported so far. Anthropic counts cached prompt tokens apart; here they are included.
    pub fn usage(&self) -> Usage {
        let Counts { input, output, cached, written } = self.counts;
        let apart = match self.dialect {
            Dialect::Anthropic => cached.unwrap_or(0).saturating_add(written.unwrap_or(0)),
            Dialect::OpenAi | Dialect::Ollama => 0,
        };
        Usage {
            input_tokens: input.map(|input| input.saturating_add(apart)),
            output_tokens: output,
            cached_tokens: cached,
        }
    }

    /// About how many tokens have passed, for answers that break off before their usage: servers send a token an event.
    pub fn passed_tokens(&self) -> u64 {
        match self.form {
            Form::Stream => self.events,
            Form::Whole => self.bytes / BYTES_A_TOKEN,
        }
    }

    /// A part of a stream's line.
    fn piece(&mut self, mut bytes: &[u8]) {
        const NAME: &[u8] = b"data:";
        while let (Line::Name(known), Some((first, rest))) = (self.line, bytes.split_first()) {
            self.line = match NAME.get(known) {
                Some(expected) if expected == first && known + 1 == NAME.len() => Line::Data,
                Some(expected) if expected == first => Line::Name(known + 1),
                _ => Line::Other,
            };
            bytes = rest;
        }
        if let (Line::Data, false) = (self.line, bytes.is_empty()) {
            self.document(bytes);
        }
    }

    fn end_line(&mut self) {
        if self.scan.has_begun() {
            self.events += 1;
        }
        self.scan = Scan::default();
        self.line = if self.dialect == Dialect::Ollama { Line::Data } else { Line::Name(0) };
    }

    fn document(&mut self, bytes: &[u8]) {
        let Self { scan, counts, .. } = self;
        scan.feed(bytes, &mut |found| counts.take(&found));
    }
}

impl Counts {
    fn take(&mut self, found: &Found<'_>) {
        match *found {
            Found::Usage(text) => self.usage(text),
            Found::PromptCount(count) => self.input = Some(count),
            Found::AnswerCount(count) => self.output = Some(count),
        }
    }

    fn usage(&mut self, text: &[u8]) {
        let Ok(document) = json::read(text, USAGE_LIMITS) else { return };
        let root = document.root();
        let count = |name: &str| root.member(name)?.as_u64();
        let detail = |name: &str| root.member(name)?.member("cached_tokens")?.as_u64();
        let input = count("prompt_tokens").or_else(|| count("input_tokens"));
        let output = count("completion_tokens").or_else(|| count("output_tokens"));
        let cached = count("cache_read_input_tokens")
            .or_else(|| detail("prompt_tokens_details"))
            .or_else(|| detail("input_tokens_details"));
        // Anthropic's later events name only what has changed.
        self.input = input.or(self.input);
        self.output = output.or(self.output);
        self.cached = cached.or(self.cached);
        self.written = count("cache_creation_input_tokens").or(self.written);
    }
}

#[cfg(test)]
mod tests;
