//! Failures in the caller's dialect: bodies, and events within a stream. Statuses are chosen elsewhere.

use bytes::Bytes;
use refrain_core::{Code, Dialect};

/// A JSON error body. `kind` is the dialect's own class (`invalid_request_error`, `overloaded_error`, ...).
pub fn error_body(dialect: Dialect, code: Code, kind: &str, message: &str) -> Bytes {
    let _ = (dialect, code, kind, message);
    Bytes::new()
}

/// The error as an event of a stream that has already begun.
pub fn error_event(dialect: Dialect, code: Code, kind: &str, message: &str) -> Bytes {
    let _ = (dialect, code, kind, message);
    Bytes::new()
}
