//! The wire dialects: OpenAI, Ollama and Anthropic requests and answers, as bytes in and bytes out.
//!
//! Everything here is pure: no I/O, no clock, no task, no async. The modules follow a request's way:
//! [`json`] reads bodies, [`request`] understands them and edits them for the upstream, [`answer`] reads what the
//! upstream says into one record that renders whole or streamed, [`stream`] edits a stream in flight, [`usage`] counts what passes and [`error`]
//! writes failures in the caller's dialect. HTTP statuses, keys and the decision to store belong to other crates.

pub mod answer;
pub mod error;
pub mod json;
pub mod request;
pub mod response_id;
pub mod stream;
pub mod usage;
