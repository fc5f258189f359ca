//! The one place that knows status codes: turns a [`Failure`] into a response in the client's dialect.

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, Response, StatusCode};
use refrain_core::{Code, Dialect};
use refrain_llm::error::{error_body, error_event};

use crate::body::Body;
use crate::failure::Failure;

const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The whole error response. 429 and 503 carry `Retry-After`; what can't succeed on a retry says so to the SDKs.
pub(crate) fn render(failure: &Failure, dialect: Dialect) -> Response<Body> {
    let (status, kind) = status_and_kind(failure.code);
    let mut response = Response::new(Body::full(error_body(dialect, failure.code, kind, &failure.message)));
    *response.status_mut() = failure.status.unwrap_or(status);
    let headers = response.headers_mut();
    if let Some(seconds) = failure.retry_after_s {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match failure.code {
        Code::Unauthorized => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Code::MethodNotAllowed => {
            headers.insert(ALLOW, HeaderValue::from_static(failure.allowed));
        }
        Code::Overloaded
        | Code::TenantOverloaded
        | Code::RateLimited
        | Code::LimitsUnavailable
        | Code::Draining
        | Code::PolicyFailed
            if !headers.contains_key(RETRY_AFTER) =>
        {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // The official SDKs retry every 5xx and 409 unless told otherwise.
        Code::NotCached | Code::OverLimit => {
            headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        _ => {}
    }
    response
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
}
