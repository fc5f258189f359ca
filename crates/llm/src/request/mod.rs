//! Requests: bytes to [`Prompt`], and the few edits that a body may see on its way upstream.

use bytes::Bytes;
use refrain_core::{Api, Code, Prompt};

/// Bounds of what is parsed. The body's length itself is bounded by the reader of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLimits {
    /// Deepest nesting of arrays and objects.
    pub depth_max: usize,
    /// Most values and object names in one body.
    pub nodes_max: usize,
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self { depth_max: 64, nodes_max: 1 << 20 }
    }
}

/// Why a body is refused.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// A field that the dialect needs is absent.
    #[error("missing field `{path}`")]
    Missing {
        /// Where it should be.
        path: String,
    },
}

impl ParseError {
    /// The code to answer with.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => Code::MissingField,
        }
    }
}

/// A request that was understood, with its original bytes.
#[derive(Clone, Debug)]
pub struct ParsedRequest {
    /// What is asked.
    pub prompt: Prompt,
    body: Bytes,
}

/// What to change in a body on its way upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The upstream's name for the model, if it differs from the client's.
    pub model: Option<String>,
    /// Ask an OpenAI stream for usage where the client didn't.
    pub include_usage: bool,
}

/// Reads a request body of `api`.
///
/// # Errors
/// See [`ParseError`]: the body isn't strict JSON, or a field that is read has the wrong type or is missing.
pub fn parse(api: Api, body: &Bytes, limits: &ParseLimits) -> Result<ParsedRequest, ParseError> {
    let _ = (api, body, limits);
    Err(ParseError::Missing { path: "model".into() })
}

impl ParsedRequest {
    /// The body to send: the client's own bytes (not copied) where nothing is rewritten, else those with only the
    /// rewritten places changed.
    pub fn upstream_body(&self, rewrite: &Rewrite) -> Bytes {
        let _ = rewrite;
        self.body.clone()
    }
}
