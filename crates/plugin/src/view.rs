//! What a guest may see of a request, of candidates and of a response: traits that the proxy implements.
//!
//! Shared with the guest's store, which outlives the borrow checker's patience: so they are `Arc`s. Nothing here may block.

use std::pin::Pin;

use refrain_core::Plan;

/// Which API a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// A chat.
    Chat,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
    /// One prompt.
    Completion,
    /// Vectors of texts.
    Embeddings,
    /// Anything else.
    Other,
}

/// Who speaks in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The system prompt.
    System,
    /// OpenAI's developer messages.
    Developer,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
    /// Anybody else.
    Other,
}

/// What every hook is told by value; see `types.request-summary`.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestSummary {
    /// The route's name.
    pub route: String,
    /// The verified tenant.
    pub tenant: String,
    /// The API.
    pub api: Api,
    /// As the client named it.
    pub model: String,
    /// Whether the client wants a stream.
    pub streaming: bool,
    /// None: the request doesn't say.
    pub temperature: Option<f32>,
    /// Tools offered, called or answered.
    pub has_tools: bool,
    /// Images, audio or files.
    pub has_media: bool,
    /// Number of messages.
    pub message_count: u32,
    /// Bytes of the body.
    pub body_size: u32,
}

/// What `on-response` is told by value; see `types.response-summary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseSummary {
    /// The upstream's status.
    pub status: u16,
    /// As the API reports it; empty if unknown.
    pub finish_reason: String,
    /// Whether it ended as its dialect says.
    pub complete: bool,
    /// Whether it calls tools.
    pub has_tool_calls: bool,
    /// Tokens of the prompt.
    pub input_tokens: Option<u32>,
    /// Tokens of the answer.
    pub output_tokens: Option<u32>,
    /// The endpoint's name.
    pub upstream: String,
    /// From the upstream request's first byte to the response's last.
    pub latency_ms: u32,
    /// Bytes of the answer's text.
    pub text_size: u32,
}

/// The request that a call is about. `max_bytes` cut at a character boundary.
pub trait RequestView: Send + Sync {
    /// In short, by value. Made once a request and cloned into each call.
    fn summary(&self) -> RequestSummary;
    /// The route's own plan: what `route.defaults` tells, and what holds where no policy says otherwise.
    fn defaults(&self) -> &Plan;
    /// HTTP method.
    fn method(&self) -> &str;
    /// Path without query.
    fn path(&self) -> &str;
    /// "openai", "ollama" or "anthropic".
    fn dialect(&self) -> &'static str;
    /// The verified user.
    fn user(&self) -> Option<&str>;
    /// A verified claim.
    fn claim(&self, name: &str) -> Option<&str>;
    /// First value of a header, lower-case name; never one that carries credentials.
    fn header(&self, name: &str) -> Option<&str>;
    /// Who speaks in a message.
    fn message_role(&self, index: u32) -> Option<Role>;
    /// Text of a message.
    fn message_text(&self, index: u32, max_bytes: u32) -> Option<String>;
    /// JSON text at a pointer; none if it is longer than `max_bytes`.
    fn json(&self, pointer: &str, max_bytes: u32) -> Option<String>;
    /// Bytes of the body; fewer at its end.
    fn body(&self, offset: u32, len: u32) -> &[u8];
    /// The route's embedder, for policies that may use it.
    fn similarity(&self, a: String, b: String) -> Embedding<'_>;
}

/// A similarity on its way.
pub type Embedding<'a> = Pin<Box<dyn Future<Output = Result<f32, SimilarityError>> + Send + 'a>>;

/// Why there is no similarity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SimilarityError {
    /// The embedder took too long.
    Timeout,
    /// A text is longer than the embedder's window.
    TooLong,
    /// There is no embedder, or it failed.
    Unavailable(String),
}

/// The candidates that a call is about, best first.
pub trait CandidatesView: Send + Sync {
    /// By value, as `on-candidates` is told them.
    fn list(&self) -> Vec<crate::verdict::Candidate>;
    /// One measure of one candidate.
    fn evidence(&self, index: u32, name: &str) -> Option<f32>;
    /// Text of a stored answer.
    fn answer(&self, index: u32, max_bytes: u32) -> Option<String>;
}

/// The response that a call is about.
pub trait ResponseView: Send + Sync {
    /// In short, by value.
    fn summary(&self) -> ResponseSummary;
    /// First value of a header, lower-case name; never `set-cookie`.
    fn header(&self, name: &str) -> Option<&str>;
    /// Text of the answer.
    fn text(&self, max_bytes: u32) -> String;
}
