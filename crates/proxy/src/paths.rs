//! What the paths of model servers mean: which are asked for answers, which tell about models, which change a server.

use refrain_core::Api;

/// The meaning of a request path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathClass {
    /// An API that Refrain understands.
    Api(Api),
    /// Reads or computes something and changes nothing: passed through.
    Plain,
    /// A list of models: merged over the pool, filtered by what the caller may use.
    Models,
    /// Changes or inspects a server: for admins only.
    Admin,
    /// `/`: answered by Refrain itself.
    Root,
    /// Unknown: refused unless a route lists it.
    Unknown,
}

impl PathClass {
    /// The API, if it is one.
    pub(crate) fn api(self) -> Option<Api> {
        match self {
            Self::Api(api) => Some(api),
            Self::Plain | Self::Models | Self::Admin | Self::Root | Self::Unknown => None,
        }
    }

    /// The name in logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Api(api) => api.as_str(),
            Self::Plain | Self::Root => "plain",
            Self::Models => "models",
            Self::Admin => "admin",
            Self::Unknown => "extra",
        }
    }
}

/// Paths that change or inspect a server, whole or as a prefix of segments.
const ADMIN: &[&str] = &[
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/blobs",
    "/slots",
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/reset_prefix_cache",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/lora-adapters",
    "/models/load",
    "/models/unload",
];

/// Inference-like paths that are passed through as they are.
const PLAIN: &[&str] = &[
    "/api/version",
    "/api/show",
    "/api/embeddings",
    "/v1/messages/count_tokens",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/speech",
    "/v1/rerank",
    "/v1/score",
    "/tokenize",
    "/detokenize",
];

/// Lists of models.
const MODELS: &[&str] = &["/v1/models", "/api/tags", "/api/ps"];

/// What a path means.
pub(crate) fn classify(path: &str) -> PathClass {
    if let Some(api) = Api::of_path(path) {
        return PathClass::Api(api);
    }
    if path == "/" {
        return PathClass::Root;
    }
    if ADMIN.iter().any(|prefix| is_at_or_below(path, prefix)) {
        return PathClass::Admin;
    }
    if MODELS.contains(&path) {
        return PathClass::Models;
    }
    if PLAIN.contains(&path) || is_below(path, "/v1/models") || is_below(path, "/v1/responses") {
        return PathClass::Plain;
    }
    PathClass::Unknown
}

/// Whether `path` is `prefix` or lies below it, at a segment border.
pub(crate) fn is_at_or_below(path: &str, prefix: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_a_server_is_for_admins_also_below() {
        for path in ["/api/pull", "/api/blobs/sha256:ab", "/slots/0", "/sleep", "/v1/load_lora_adapter"] {
            assert_eq!(classify(path), PathClass::Admin, "{path}");
        }
        assert_eq!(classify("/api/pullx"), PathClass::Unknown);
    }

    #[test]
    fn known_paths_have_their_class_and_others_are_unknown() {
        assert_eq!(classify("/v1/chat/completions"), PathClass::Api(Api::ChatCompletions));
        assert_eq!(classify("/v1/models"), PathClass::Models);
        assert_eq!(classify("/v1/models/gemma"), PathClass::Plain);
        assert_eq!(classify("/"), PathClass::Root);
        for path in ["/metrics", "/v1", "/v1/files", "/admin", "/v1/chat/completions/render"] {
            assert_eq!(classify(path), PathClass::Unknown, "{path}");
        }
    }
}
