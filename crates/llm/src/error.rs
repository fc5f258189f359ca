//! Failures in the caller's dialect: bodies, and events within a stream. Statuses are chosen elsewhere.

use bytes::Bytes;
use refrain_core::{Code, Dialect};

use crate::json;

/// A JSON error body. `kind` is the dialect's own class (`invalid_request_error`, `overloaded_error`, ...).
pub fn error_body(dialect: Dialect, code: Code, kind: &str, message: &str) -> Bytes {
    body(dialect, code, kind, message).into()
}

/// The error as an event of a stream that has already begun. No terminator may follow it.
pub fn error_event(dialect: Dialect, code: Code, kind: &str, message: &str) -> Bytes {
    let body = body(dialect, code, kind, message);
    match dialect {
        Dialect::OpenAi => format!("data: {body}\n\n"),
        Dialect::Ollama => format!("{body}\n"),
        Dialect::Anthropic => format!("event: error\ndata: {body}\n\n"),
    }
    .into()
}

fn body(dialect: Dialect, code: Code, kind: &str, message: &str) -> String {
    let (kind, message) = (quoted(kind), quoted(message));
    match dialect {
        Dialect::OpenAi => {
            let code = quoted(code.as_str());
            format!(r#"{{"error":{{"message":{message},"type":{kind},"param":null,"code":{code}}}}}"#)
        }
        Dialect::Ollama => format!(r#"{{"error":{message}}}"#),
        Dialect::Anthropic => format!(r#"{{"type":"error","error":{{"type":{kind},"message":{message}}}}}"#),
    }
}

fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json::string(text, &mut json);
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dialect: Dialect, expected_body: &str, expected_event: &str) {
        let (code, kind, message) = (Code::InvalidField, "invalid_request_error", "say \"m\"\n");
        assert_eq!(error_body(dialect, code, kind, message), expected_body);
        assert_eq!(error_event(dialect, code, kind, message), expected_event);
    }

    #[test]
    fn errors_have_the_dialects_shape_and_escape_their_text() {
        let openai = r#"{"error":{"message":"say \"m\"\n","type":"invalid_request_error","param":null,"code":"invalid_field"}}"#;
        check(Dialect::OpenAi, openai, &format!("data: {openai}\n\n"));
        let ollama = r#"{"error":"say \"m\"\n"}"#;
        check(Dialect::Ollama, ollama, &format!("{ollama}\n"));
        let anthropic =
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"say \"m\"\n"}}"#;
        check(Dialect::Anthropic, anthropic, &format!("event: error\ndata: {anthropic}\n\n"));
    }
}
