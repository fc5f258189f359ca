//! The one place that knows status codes: turns a [`Failure`] into a response in the client's dialect.

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, Response, StatusCode};
use refrain_core::{Code, Dialect};
use refrain_llm::error::{error_body, error_event};

use crate::body::Body;
use crate::failure::{Challenge, Failure};

const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The whole error response. 429 and 503 carry `Retry-After`; what can't succeed on a retry says so to the SDKs.
pub(crate) fn render(failure: &Failure, dialect: Dialect) -> Response<Body> {
    let (status, kind) = status_and_kind(failure.code);
    let mut response = Response::new(Body::full(error_body(dialect, failure.code, kind, &failure.message)));
    let status = failure.status.unwrap_or(status);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = failure.retry_after_s {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    // By the status: it may be a policy's.
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(failure.challenge.as_str()));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static(failure.allowed));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            if failure.code != Code::OverLimit =>
        {
            headers.entry(RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
        }
        _ => {}
    }
    // The official SDKs retry every 5xx and 409 unless told otherwise.
    if matches!(failure.code, Code::NotCached | Code::OverLimit) {
        headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}

impl Challenge {
    /// RFC 9110, section 11.6.1; RFC 6750, section 3: a client that sent no credential is told of no error.
    fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "Bearer realm=\"refrain\"",
            Self::Another => "Bearer realm=\"refrain\", error=\"invalid_token\"",
        }
    }
}

/// The dialect's error event for a stream whose head is already sent.
pub(crate) fn event(code: Code, message: &str, dialect: Dialect) -> bytes::Bytes {
    error_event(dialect, code, status_and_kind(code).1, message)
}

fn status_and_kind(code: Code) -> (StatusCode, &'static str) {
    match code {
        Code::InvalidJson
        | Code::DuplicateField
        | Code::InvalidField
        | Code::MissingField
        | Code::BadRequest
        | Code::BodyIncomplete => (StatusCode::BAD_REQUEST, "invalid_request_error"),
        Code::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error"),
        Code::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "invalid_request_error"),
        Code::UnsupportedEncoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error"),
        Code::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "timeout_error"),
        Code::NotFound | Code::ModelNotFound => (StatusCode::NOT_FOUND, "not_found_error"),
        Code::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error"),
        Code::Unauthorized => (StatusCode::UNAUTHORIZED, "authentication_error"),
        Code::Forbidden | Code::PolicyRefused => (StatusCode::FORBIDDEN, "permission_error"),
        Code::NotCached => (StatusCode::GATEWAY_TIMEOUT, "not_cached_error"),
        Code::TenantOverloaded | Code::RateLimited | Code::OverLimit => {
            (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error")
        }
        Code::Overloaded
        | Code::Draining
        | Code::PolicyFailed
        | Code::IdentityUnavailable
        | Code::LimitsUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "overloaded_error"),
        Code::UpstreamTimeout => (StatusCode::GATEWAY_TIMEOUT, "api_error"),
        Code::UpstreamUnreachable | Code::UpstreamBroken => (StatusCode::BAD_GATEWAY, "api_error"),
        Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "api_error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_an_error_status_and_a_json_body_in_every_dialect() {
        for &code in Code::ALL {
            for dialect in [Dialect::OpenAi, Dialect::Ollama, Dialect::Anthropic] {
                let response = render(&Failure::new(code, "why"), dialect);
                assert!(response.status().is_client_error() || response.status().is_server_error());
                assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            }
        }
    }

    #[test]
    fn every_status_that_wants_a_header_has_it_whoever_chose_the_status() {
        for &code in Code::ALL {
            for status in [None, Some(401), Some(405), Some(429), Some(503)] {
                let status = status.map(|status| StatusCode::from_u16(status).unwrap());
                let response = render(&Failure { status, ..Failure::new(code, "why") }, Dialect::OpenAi);
                let header = match response.status() {
                    StatusCode::UNAUTHORIZED => WWW_AUTHENTICATE,
                    StatusCode::METHOD_NOT_ALLOWED => ALLOW,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
                        if code != Code::OverLimit =>
                    {
                        RETRY_AFTER
                    }
                    _ => CONTENT_TYPE,
                };
                assert!(response.headers().contains_key(&header), "{code:?} {header}");
            }
        }
    }

    #[test]
    fn only_who_sent_a_credential_is_told_that_it_is_invalid() {
        let challenge = |challenge| {
            let failure = Failure { challenge, ..Failure::new(Code::Unauthorized, "why") };
            render(&failure, Dialect::OpenAi).headers()[WWW_AUTHENTICATE].clone()
        };
        assert_eq!(challenge(Challenge::Credential), "Bearer realm=\"refrain\"");
        assert_eq!(challenge(Challenge::Another), "Bearer realm=\"refrain\", error=\"invalid_token\"");
    }
}
