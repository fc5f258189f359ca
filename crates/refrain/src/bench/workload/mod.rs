//! Workloads: what is asked, in which order, and what of it may be asked at the same time. Nothing depends on the clock or on
//! answers: session `n` of a seed is always the same, so that one workload can be replayed before different set-ups.

mod agents;
mod azure;
mod chat;
mod lines;
mod mooncake;
mod own;
mod render;
mod tools;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;

use super::random::{Random, Words};
use crate::cli::{AskingArguments, WorkloadArguments, WorkloadKind};
use chat::Paraphrases;
use render::Renderer;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Where it goes.
    pub(crate) path: &'static str,
    /// What it says: JSON.
    pub(crate) body: Bytes,
}

/// A conversation, or one request of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// When it was recorded, from the trace's beginning.
    pub(crate) at: Option<Duration>,
    /// Requests of one wave may be asked at once; a wave follows the answers of the one before.
    pub(crate) waves: Vec<Vec<Ask>>,
}

/// What is said, whatever the API.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Message {
    System(String),
    User(String),
    Assistant(String),
    /// The model calls the tool.
    Call {
        id: String,
        name: &'static str,
        arguments: String,
    },
    /// What the tool said.
    Result {
        id: String,
        name: &'static str,
        text: String,
    },
}

/// One request, whatever the API.
struct Conversation<'a> {
    messages: &'a [Message],
    has_tools: bool,
    max_tokens: Option<u32>,
}

/// A workload that is read and ready.
#[derive(Debug)]
pub(crate) struct Workload {
    kind: Kind,
    sizes: Sizes,
    renderer: Renderer,
    words: Words,
    seed: u64,
    /// What the texts are drawn from: another one for each set-up of a comparison, so that what servers remember of one
    /// doesn't help the next.
    text_seed: u64,
}

#[derive(Debug)]
enum Kind {
    Chat(Option<Paraphrases>),
    Tools,
    Agents,
    Mooncake(Vec<mooncake::Request>),
    Azure(Vec<azure::Request>),
    Own(Vec<own::Request>),
}

/// How much, and how often again.
#[derive(Clone, Debug)]
struct Sizes {
    turns: u16,
    prompt: u32,
    answer: u32,
    shared: u32,
    max_tokens: Option<u32>,
    repeat: f64,
    depth: u16,
    fan_out: u16,
    speed: f64,
}

impl Workload {
    /// Reads what the arguments name. Blocks on files.
    ///
    /// # Errors
    /// A file is missing, or a line of it is not as it should be: the message names both.
    pub(crate) fn read(asking: &AskingArguments, arguments: &WorkloadArguments) -> anyhow::Result<Self> {
        let WorkloadArguments { turns, depth, fan_out, speed, max_tokens, repeat, seed, .. } = *arguments;
        Ok(Self {
            kind: Kind::read(arguments)?,
            sizes: Sizes {
                turns,
                prompt: arguments.prompt_tokens,
                answer: arguments.answer_tokens,
                shared: arguments.shared_tokens,
                max_tokens,
                repeat,
                depth,
                fan_out,
                speed,
            },
            renderer: Renderer::new(asking),
            words: Words::default(),
            seed,
            text_seed: seed,
        })
    }

    /// The same with other words in the same places.
    #[must_use]
    pub(crate) fn reworded(mut self, salt: u64) -> Self {
        self.text_seed = Random::new(self.seed, "text", salt).number();
        self
    }

    /// Whether it says when its requests come.
    pub(crate) fn has_times(&self) -> bool {
        match &self.kind {
            Kind::Mooncake(_) | Kind::Azure(_) => true,
            Kind::Own(requests) => requests.iter().any(|request| request.at.is_some()),
            Kind::Chat(_) | Kind::Tools | Kind::Agents => false,
        }
    }

    /// How many sessions there are, if they end.
    pub(crate) fn len(&self) -> Option<usize> {
        match &self.kind {
            Kind::Mooncake(requests) => Some(requests.len()),
            Kind::Azure(requests) => Some(requests.len()),
            Kind::Own(requests) => Some(requests.len()),
            Kind::Chat(_) | Kind::Tools | Kind::Agents => None,
        }
    }

    /// Session `number`, counted from 0; none after the last.
    pub(crate) fn session(&self, number: u64) -> Option<Session> {
        let place = usize::try_from(number).ok();
        match &self.kind {
            Kind::Chat(paraphrases) => Some(chat::session(self, paraphrases.as_ref(), number)),
            Kind::Tools => Some(tools::session(self, number)),
            Kind::Agents => Some(agents::session(self, number)),
            Kind::Mooncake(requests) => Some(mooncake::session(self, requests.get(place?)?)),
            Kind::Azure(requests) => Some(azure::session(self, number, requests.get(place?)?)),
            Kind::Own(requests) => Some(own::session(self, requests.get(place?)?)),
        }
    }

    /// The session that this one says again: itself, or an earlier one; those that were often repeated are repeated more.
    fn content_of(&self, number: u64) -> u64 {
        let mut content = number;
        while content > 0 {
            let mut random = Random::new(self.seed, "repeat", content);
            if !random.happens(self.sizes.repeat) {
                break;
            }
            content = random.below(content);
        }
        content
    }

    fn text(&self, purpose: &str, number: u64, tokens: u32) -> String {
        self.words.text(&mut Random::new(self.text_seed, purpose, number), tokens)
    }

    fn system(&self) -> Option<Message> {
        let tokens = self.sizes.shared;
        (tokens > 0).then(|| Message::System(self.text("system", 0, tokens)))
    }

    fn ask(&self, messages: &[Message], has_tools: bool) -> Ask {
        let max_tokens = self.sizes.max_tokens.filter(|tokens| *tokens > 0);
        self.renderer.render(&Conversation { messages, has_tools, max_tokens })
    }

    /// A trace's request: one question, and how long the answer was.
    fn recorded(&self, at: Duration, question: String, output_tokens: u32) -> Session {
        let max_tokens = self.sizes.max_tokens.unwrap_or(output_tokens);
        let conversation = Conversation {
            messages: &[Message::User(question)],
            has_tools: false,
            max_tokens: Some(max_tokens).filter(|tokens| *tokens > 0),
        };
        let ask = self.renderer.render(&conversation);
        Session { at: Some(at.div_f64(self.sizes.speed)), waves: vec![vec![ask]] }
    }
}

impl Kind {
    fn read(arguments: &WorkloadArguments) -> anyhow::Result<Self> {
        let paraphrases = arguments.paraphrases.as_deref();
        let kind = arguments.workload;
        if paraphrases.is_some() && kind != WorkloadKind::Chat {
            anyhow::bail!("--paraphrases is for --workload chat");
        }
        let trace = || {
            let needed = || format!("--workload {} needs --trace FILE", kind.as_str());
            arguments.trace.as_deref().with_context(needed)
        };
        Ok(match kind {
            WorkloadKind::Chat => {
                let read = |file| Paraphrases::read(file, arguments.paraphrase);
                Self::Chat(paraphrases.map(read).transpose()?)
            }
            WorkloadKind::Tools => Self::Tools,
            WorkloadKind::Agents => Self::Agents,
            WorkloadKind::Mooncake => Self::Mooncake(mooncake::read(trace()?)?),
            WorkloadKind::Azure => Self::Azure(azure::read(trace()?)?),
            WorkloadKind::File => Self::Own(own::read(trace()?)?),
        })
    }
}

/// Requests in the order in which an open loop asks them: of so many sessions in turns, wave by wave.
pub(crate) struct Flow {
    workload: Arc<Workload>,
    next: u64,
    open: Vec<std::vec::IntoIter<(Option<Duration>, Ask)>>,
    turn: usize,
}

impl Flow {
    /// From the first session on, with `width` sessions that take turns.
    pub(crate) fn new(workload: Arc<Workload>, width: usize) -> Self {
        Self { workload, next: 0, open: vec![Vec::new().into_iter(); width.max(1)], turn: 0 }
    }

    fn next_session(&mut self) -> Option<std::vec::IntoIter<(Option<Duration>, Ask)>> {
        let session = self.workload.session(self.next)?;
        self.next += 1;
        let at = session.at;
        let asks: Vec<_> = session.waves.into_iter().flatten().map(|ask| (at, ask)).collect();
        Some(asks.into_iter())
    }
}

impl Iterator for Flow {
    type Item = (Option<Duration>, Ask);

    fn next(&mut self) -> Option<Self::Item> {
        for _ in 0..self.open.len() {
            self.turn = (self.turn + 1) % self.open.len();
            if let Some(ask) = self.open[self.turn].next() {
                return Some(ask);
            }
            if let Some(session) = self.next_session() {
                self.open[self.turn] = session;
                return self.open[self.turn].next();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
