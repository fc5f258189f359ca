//! What came of one request.

use std::time::Duration;

use refrain_core::Usage;
use refrain_llm::answer::AnswerError;
use tokio::time::Instant;

use super::cache_status::{CacheStatus, Served};

/// Longest piece of an error's text that is kept.
pub(super) const TEXT_CHARS_MAX: usize = 300;

/// One request from when it was sent.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// When it was begun to be sent.
    pub(crate) sent: Instant,
    /// When the first text came; none for whole answers and failures before it.
    pub(crate) first_text: Option<Instant>,
    /// When it was over.
    pub(crate) ended: Instant,
    /// What the cache said.
    pub(crate) cache: CacheStatus,
    /// What it came to.
    pub(crate) result: Result<Answered, Failure>,
}

/// A whole answer.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// Times between arrivals of text. Chunks that arrived together are one arrival.
    pub(crate) gaps: Vec<Duration>,
    /// Chunks with text.
    pub(crate) chunks: u64,
    /// What the server counted.
    pub(crate) usage: Usage,
    /// Why it ended.
    pub(crate) finish: Finish,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finish {
    /// By itself: such answers can be stored.
    Stop,
    /// By the limit of its length.
    Length,
    /// It calls tools.
    ToolCalls,
    /// Anything else.
    #[default]
    Other,
}

impl Finish {
    /// All, in the order of reports.
    pub(super) const ALL: [Self; 4] = [Self::Stop, Self::Length, Self::ToolCalls, Self::Other];

    /// From the dialect's word.
    pub(super) fn of(reason: Option<&str>, calls_tools: bool) -> Self {
        match reason {
            _ if calls_tools => Self::ToolCalls,
            Some("stop" | "end_turn" | "stop_sequence") => Self::Stop,
            Some("length" | "max_tokens") => Self::Length,
            _ => Self::Other,
        }
    }

    /// The name in reports.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Other => "other",
        }
    }
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection.
    #[error("{0}")]
    Connect(String),
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
    /// Another status than 200.
    #[error("{text}")]
    Status {
        /// The status.
        status: u16,
        /// What the server said, cut.
        text: String,
    },
    /// The answer can't be read.
    #[error("{0}")]
    Answer(#[from] AnswerError),
    /// It took longer than it may.
    #[error("no whole answer in time: --timeout")]
    Timeout,
}

impl Failure {
    /// Its name in reports.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Connect(_) => "connect".to_owned(),
            Self::Broken(_) => "broken".to_owned(),
            Self::Status { status, .. } => format!("status_{status}"),
            Self::Answer(AnswerError::Incomplete) => "incomplete".to_owned(),
            Self::Answer(AnswerError::UpstreamError) => "error_in_answer".to_owned(),
            Self::Answer(AnswerError::TooLarge { .. }) => "too_large".to_owned(),
            Self::Answer(AnswerError::Malformed { .. }) => "malformed".to_owned(),
            Self::Timeout => "timeout".to_owned(),
        }
    }
}

impl Outcome {
    /// Whether the answer was not generated for this request.
    pub(super) fn is_from_cache(&self) -> bool {
        matches!(self.cache.served, Served::Exact | Served::Semantic | Served::Stale | Served::Collapsed)
    }
}
