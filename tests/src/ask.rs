//! Requests, made readable: `Ask::chat("hello").streamed().by(&ann)`.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::Person;

/// A request that can be sent again and again.
#[derive(Clone, Debug)]
pub struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Json(Value),
    Bytes(Bytes),
}

impl Ask {
    /// Any request without a body.
    pub fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Body::Bytes(Bytes::new()) }
    }

    /// `GET`.
    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    /// `POST` with a JSON body.
    pub fn post(path: &str, body: Value) -> Self {
        let ask = Self { body: Body::Json(body), ..Self::new(Method::POST, path) };
        ask.header("content-type", "application/json")
    }

    /// `POST` with any bytes, said to be JSON.
    pub fn post_bytes(path: &str, body: impl Into<Bytes>) -> Self {
        let ask = Self { body: Body::Bytes(body.into()), ..Self::new(Method::POST, path) };
        ask.header("content-type", "application/json")
    }

    /// OpenAI chat with one user message.
    pub fn chat(text: &str) -> Self {
        let messages = json!([{"role": "user", "content": text}]);
        Self::post("/v1/chat/completions", json!({"model": "m", "messages": messages, "temperature": 0}))
    }

    /// OpenAI text completion.
    pub fn completion(text: &str) -> Self {
        Self::post("/v1/completions", json!({"model": "m", "prompt": text, "temperature": 0}))
    }

    /// Anthropic message with one user message.
    pub fn message(text: &str) -> Self {
        let messages = json!([{"role": "user", "content": text}]);
        let body = json!({"model": "m", "max_tokens": 64, "messages": messages, "temperature": 0});
        Self::post("/v1/messages", body).header("anthropic-version", "2023-06-01")
    }

    /// Ollama chat with one user message, whole.
    pub fn ollama_chat(text: &str) -> Self {
        let messages = json!([{"role": "user", "content": text}]);
        Self::post("/api/chat", json!({"model": "m", "messages": messages, "stream": false}))
    }

    /// Ollama generate, whole.
    pub fn ollama_generate(text: &str) -> Self {
        Self::post("/api/generate", json!({"model": "m", "prompt": text, "stream": false}))
    }

    /// One ask of each dialect, with the same text.
    pub fn each_dialect(text: &str) -> [Self; 3] {
        [Self::chat(text), Self::ollama_chat(text), Self::message(text)]
    }

    /// The answer shall come as a stream.
    pub fn streamed(self) -> Self {
        self.field("stream", json!(true))
    }

    /// Sets a field of the body.
    pub fn field(mut self, name: &str, value: Value) -> Self {
        let Body::Json(body) = &mut self.body else { panic!("the body is not JSON") };
        body[name] = value;
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Asks as somebody.
    pub fn by(self, person: &Person) -> Self {
        self.header("authorization", &format!("Bearer {}", person.token()))
    }

    /// Adds `Cache-Control`.
    pub fn cache_control(self, directives: &str) -> Self {
        self.header("cache-control", directives)
    }

    /// Names and values of its headers.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The body's bytes.
    pub fn body(&self) -> Bytes {
        match &self.body {
            Body::Json(body) => body.to_string().into(),
            Body::Bytes(bytes) => bytes.clone(),
        }
    }
}
