//! OpenTelemetry's names for generative AI, in one place: they are still in development, and change.
//!
//! Source: <https://github.com/open-telemetry/semantic-conventions-genai>. Names that begin with `refrain.` are Refrain's own.

use refrain_core::{Api, Dialect};

/// What is asked of a model.
pub(crate) const OPERATION: &str = "gen_ai.operation.name";
/// Whose API is spoken: who serves the model behind it is not known.
pub(crate) const PROVIDER: &str = "gen_ai.provider.name";
/// The model that was asked for.
pub(crate) const REQUEST_MODEL: &str = "gen_ai.request.model";
/// Whether a stream was asked for.
pub(crate) const REQUEST_STREAM: &str = "gen_ai.request.stream";
/// Tokens of the prompt.
pub(crate) const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
/// Tokens of the answer.
pub(crate) const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
/// Tokens of the prompt that the model server had in its own cache.
pub(crate) const CACHED_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
/// What went wrong.
pub(crate) const ERROR: &str = "error.type";
/// Status of the response.
pub(crate) const STATUS: &str = "http.response.status_code";
/// The host of who answered.
pub(crate) const SERVER: &str = "server.address";
/// Its port.
pub(crate) const SERVER_PORT: &str = "server.port";

/// Our histograms that are these of the conventions.
pub(crate) const HISTOGRAMS: [(&str, &str); 3] = [
    ("refrain_response_seconds", "gen_ai.server.request.duration"),
    ("refrain_response_first_token_seconds", "gen_ai.server.time_to_first_token"),
    ("refrain_response_token_gap_seconds", "gen_ai.server.time_per_output_token"),
];

/// The operation of an API.
pub(crate) fn operation(api: Api) -> &'static str {
    match api {
        Api::ChatCompletions | Api::Responses | Api::OllamaChat | Api::Messages => "chat",
        Api::Completions | Api::OllamaGenerate => "text_completion",
        Api::Embeddings | Api::OllamaEmbed => "embeddings",
    }
}

/// The provider whose API it is.
pub(crate) fn provider(api: Api) -> &'static str {
    match api.dialect() {
        Dialect::OpenAi => "openai",
        Dialect::Ollama => "ollama",
        Dialect::Anthropic => "anthropic",
    }
}
