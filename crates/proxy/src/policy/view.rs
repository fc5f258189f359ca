//! The request as policies see it.

use std::sync::Arc;

use refrain_core::{Api, Dialect, ExactOnly, Plan, UserId};
use refrain_plugin::{Api as PolicyApi, Embedding, RequestSummary, RequestView, Role, SimilarityError};

use super::slice;
use crate::ask::Asked;
use crate::request::Admitted;
use crate::snapshot::AnswerCache;

/// Headers that carry credentials: nobody's business but the proxy's.
const SECRET_HEADERS: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-openwebui-user-jwt"];

/// One request, for every hook of its policies.
pub(crate) struct Call {
    admitted: Arc<Admitted>,
    asked: Arc<Asked>,
    defaults: Plan,
    cache: Option<Arc<AnswerCache>>,
}

impl Call {
    /// `defaults` is the route's own plan; `cache` has the embedder.
    pub(crate) fn new(
        admitted: Arc<Admitted>,
        asked: Arc<Asked>,
        defaults: Plan,
        cache: Option<Arc<AnswerCache>>,
    ) -> Self {
        Self { admitted, asked, defaults, cache }
    }
}

impl RequestView for Call {
    fn summary(&self) -> RequestSummary {
        let request = &self.asked.request;
        let prompt = &request.prompt;
        RequestSummary {
            route: self.admitted.state().route.id.as_str().to_owned(),
            tenant: self.admitted.caller.identity.tenant.as_str().to_owned(),
            api: api(prompt.api),
            model: prompt.model.clone(),
            streaming: prompt.stream,
            temperature: request.temperature(),
            has_tools: request.has_tools(),
            has_media: request.has_media(),
            message_count: prompt.message_count,
            body_size: u32::try_from(request.body().len()).unwrap_or(u32::MAX),
        }
    }

    fn defaults(&self) -> &Plan {
        &self.defaults
    }

    fn method(&self) -> &str {
        self.admitted.routed.head.parts.method.as_str()
    }

    fn path(&self) -> &str {
        self.admitted.routed.head.path()
    }

    fn dialect(&self) -> &'static str {
        match self.asked.request.prompt.api.dialect() {
            Dialect::OpenAi => "openai",
            Dialect::Ollama => "ollama",
            Dialect::Anthropic => "anthropic",
        }
    }

    fn user(&self) -> Option<&str> {
        self.admitted.caller.identity.user.as_ref().map(UserId::as_str)
    }

    fn claim(&self, name: &str) -> Option<&str> {
        self.admitted.caller.identity.claims.get(name).map(String::as_str)
    }

    fn header(&self, name: &str) -> Option<&str> {
        if SECRET_HEADERS.iter().any(|secret| secret.eq_ignore_ascii_case(name)) {
            return None;
        }
        std::str::from_utf8(self.admitted.routed.head.parts.headers.get(name)?.as_bytes()).ok()
    }

    fn message_role(&self, index: u32) -> Option<Role> {
        Some(match &*self.asked.request.message_role(index)? {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" | "function" => Role::Tool,
            _ => Role::Other,
        })
    }

    fn message_text(&self, index: u32, max_bytes: u32) -> Option<String> {
        self.asked.request.message_text(index, max_bytes as usize)
    }

    fn json(&self, pointer: &str, max_bytes: u32) -> Option<String> {
        self.asked.request.json(pointer, max_bytes as usize).map(str::to_owned)
    }

    fn body(&self, offset: u32, len: u32) -> &[u8] {
        slice(self.asked.request.body(), offset, len)
    }

    fn similarity(&self, a: String, b: String) -> Embedding<'_> {
        Box::pin(async move {
            let embedder = self.cache.as_ref().and_then(|cache| cache.embedder.as_ref());
            let embedder = embedder
                .ok_or_else(|| SimilarityError::Unavailable("no embedder is configured".to_owned()))?;
            let a = embedder.embed(a).await.map_err(unavailable)?;
            let b = embedder.embed(b).await.map_err(unavailable)?;
            Ok(a.cosine(&b))
        })
    }
}

fn unavailable(reason: ExactOnly) -> SimilarityError {
    match reason {
        ExactOnly::EmbedderSlow => SimilarityError::Timeout,
        ExactOnly::TooLong => SimilarityError::TooLong,
        other => SimilarityError::Unavailable(other.as_str().to_owned()),
    }
}

fn api(api: Api) -> PolicyApi {
    match api {
        Api::ChatCompletions | Api::OllamaChat => PolicyApi::Chat,
        Api::Responses => PolicyApi::Responses,
        Api::Messages => PolicyApi::Messages,
        Api::Completions | Api::OllamaGenerate => PolicyApi::Completion,
        Api::Embeddings | Api::OllamaEmbed => PolicyApi::Embeddings,
    }
}
