//! What can go wrong for a client, as one list. Only the proxy's `error_response` turns it into statuses and bodies.

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client sent something wrong.
    Client,
    /// The upstream failed.
    Upstream,
    /// A policy plugin failed.
    Plugin,
    /// The store failed.
    Store,
    /// Refrain itself failed.
    Internal,
}

/// Whether trying again can be safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Trying again can't help, or may do harm.
    Never,
    /// Safe on another endpoint, since nothing reached the first.
    IfUnsent,
    /// Safe.
    Safe,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $fault:ident;)*) => {
        /// Why a request failed, as told to the client and counted in metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code, for metrics and for the tests of every dialect.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The token in error bodies, logs and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Whose fault it is.
            pub fn fault(self) -> Fault {
                match self { $(Self::$variant => Fault::$fault,)* }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or nests too deep, or isn't UTF-8.
    InvalidJson = "invalid_json", Client;
    /// An object names a field twice: two readers could see two requests.
    DuplicateField = "duplicate_field", Client;
    /// A field has a type or value that the dialect does not allow.
    InvalidField = "invalid_field", Client;
    /// A field that the dialect needs is absent.
    MissingField = "missing_field", Client;
    /// The body is over the limit.
    BodyTooLarge = "body_too_large", Client;
    /// The head is over the limit.
    HeadTooLarge = "head_too_large", Client;
    /// The request line or a header can't be used (bad authority, bad percent-encoding, ...).
    BadRequest = "bad_request", Client;
    /// The body is compressed in a way Refrain doesn't read.
    UnsupportedEncoding = "unsupported_encoding", Client;
    /// The client stopped sending in the middle of the body.
    BodyIncomplete = "body_incomplete", Client;
    /// The client took too long to send the body.
    BodyTimeout = "body_timeout", Client;
    /// No route matches, or the path isn't open on it.
    NotFound = "not_found", Client;
    /// The path exists, the method doesn't.
    MethodNotAllowed = "method_not_allowed", Client;
    /// No valid credential.
    Unauthorized = "unauthorized", Client;
    /// Whether a credential is valid can't be told now.
    IdentityUnavailable = "identity_unavailable", Internal;
    /// A valid credential without the right.
    Forbidden = "forbidden", Client;
    /// No endpoint of the pool serves the model.
    ModelNotFound = "model_not_found", Client;
    /// `only-if-cached` and nothing fresh is stored.
    NotCached = "not_cached", Client;
    /// A policy of the route refused the request.
    PolicyRefused = "policy_refused", Client;
    /// A policy of the route failed, and the operator wants no answer without it.
    PolicyFailed = "policy_failed", Plugin;
    /// The caller has used what a limit lets it have for now.
    RateLimited = "rate_limit_exceeded", Client;
    /// The request alone is more than a limit ever lets through at once.
    OverLimit = "request_over_limit", Client;
    /// A limit can't be asked, and the operator wants no request to pass without it.
    LimitsUnavailable = "limits_unavailable", Store;
    /// Too much is waiting already.
    Overloaded = "overloaded", Internal;
    /// The model servers are at their limits, and most of what waits is of the caller's own tenant.
    TenantOverloaded = "tenant_overloaded", Client;
    /// The proxy is shutting down.
    Draining = "draining", Internal;
    /// No endpoint could be connected to.
    UpstreamUnreachable = "upstream_unreachable", Upstream;
    /// The endpoint did not begin to answer in time.
    UpstreamTimeout = "upstream_timeout", Upstream;
    /// The endpoint broke off before or within its answer, or answered nonsense.
    UpstreamBroken = "upstream_broken", Upstream;
    /// A bug: something that should never happen did.
    Internal = "internal", Internal;
}
