//! A fake Ollama: routes, streaming by default, load and unload, digests and error lines, after `server/routes.go` and
//! `api/types.go` of ollama/ollama.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Answer, Recorded, pieces};

const NDJSON: &str = "application/x-ndjson";
const CREATED_AT: &str = "2026-08-21T10:00:00.123456789Z";

/// Which models it has.
pub(super) struct Models {
    /// Name -> how often it was pulled.
    pulled: BTreeMap<String, u32>,
    /// In memory.
    resident: BTreeSet<String>,
}

impl Default for Models {
    fn default() -> Self {
        let pulled = ["m:latest", "gemma3:270m"].map(|name| (name.to_owned(), 1)).into();
        Self { pulled, resident: BTreeSet::new() }
    }
}

impl Models {
    pub(super) fn pull(&mut self, model: &str) {
        *self.pulled.entry(full(model)).or_default() += 1;
    }

    fn has(&self, model: &str) -> bool {
        self.pulled.contains_key(&full(model))
    }

    /// A call loads its model, or unloads it.
    fn note(&mut self, model: &str, stays: bool) {
        if stays {
            self.resident.insert(full(model));
        } else {
            self.resident.remove(&full(model));
        }
    }

    fn resident(&self) -> Vec<Value> {
        self.resident
            .iter()
            .map(|name| json!({"name": name, "model": name, "size_vram": 253_000_000}))
            .collect()
    }

    fn list(&self) -> Vec<Value> {
        let details = json!({"format": "gguf", "family": "gemma3", "parameter_size": "270M", "quantization_level": "Q4_K_M"});
        let models = self.pulled.iter().map(|(name, pulled)| {
            json!({
                "name": name, "model": name, "modified_at": CREATED_AT, "size": 253_000_000,
                "digest": format!("{pulled:064x}"), "details": details,
            })
        });
        models.collect()
    }
}

fn full(model: &str) -> String {
    if model.contains(':') { model.to_owned() } else { format!("{model}:latest") }
}

pub(super) fn answer(models: &mut Models, request: &Recorded, generations: &mut u64) -> Answer {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET" | "HEAD", "/api/version") => Answer::json(200, &json!({"version": "0.11.6"})),
        ("GET" | "HEAD", "/api/tags") => Answer::json(200, &json!({"models": models.list()})),
        ("GET", "/api/ps") => Answer::json(200, &json!({"models": models.resident()})),
        ("POST", "/api/chat" | "/api/generate" | "/api/embed" | "/api/show") => {
            let body = request.json();
            let model = body["model"].as_str().unwrap_or_default();
            if !models.has(model) {
                return Answer::json(404, &json!({"error": format!("model '{model}' not found")}));
            }
            models.note(model, body["keep_alive"] != 0);
            *generations += 1;
            match request.path.as_str() {
                "/api/embed" => embed(&body, *generations),
                "/api/show" => Answer::json(
                    200,
                    &json!({"details": {"family": "gemma3"}, "capabilities": ["completion"]}),
                ),
                path => generate(path == "/api/chat", &body, *generations),
            }
        }
        ("POST" | "DELETE", "/api/pull" | "/api/delete" | "/api/copy") => {
            Answer::json(200, &json!({"status": "success"}))
        }
        _ => Answer::whole(404, "text/plain", "404 page not found"),
    }
}

fn embed(body: &Value, nth: u64) -> Answer {
    let count = body["input"].as_array().map_or(1, Vec::len);
    Answer::json(
        200,
        &json!({
            "model": body["model"], "embeddings": vec![json!([nth, 0.25, -0.5]); count],
            "total_duration": 14_143_917, "load_duration": 1_019_500, "prompt_eval_count": 8,
        }),
    )
}

/// The fake's own answer to a chat.
pub fn chat(body: &Value, nth: u64) -> Answer {
    generate(true, body, nth)
}

/// Chat or generate.
fn generate(is_chat: bool, body: &Value, nth: u64) -> Answer {
    let nothing_to_say = if is_chat {
        body["messages"].as_array().is_none_or(Vec::is_empty)
    } else {
        body["prompt"].as_str().is_none_or(str::is_empty)
    };
    if nothing_to_say {
        let reason = if body["keep_alive"] == 0 { "unload" } else { "load" };
        let mut done = line(is_chat, body, "");
        (done["done"], done["done_reason"]) = (json!(true), json!(reason));
        return Answer::json(200, &done);
    }
    let pieces = pieces(body, nth);
    let finish = finish(body, &pieces);
    if body["stream"] == false {
        let mut whole = line(is_chat, body, &pieces.concat());
        close(&mut whole, is_chat, finish, pieces.len());
        return Answer::json(200, &whole);
    }
    Answer::stream(NDJSON, stream_lines(is_chat, body, &pieces, finish))
}

/// The lines of a stream of these pieces.
pub fn stream_lines(is_chat: bool, body: &Value, pieces: &[String], finish: &str) -> Vec<String> {
    let mut lines: Vec<Value> = pieces.iter().map(|piece| line(is_chat, body, piece)).collect();
    let mut last = line(is_chat, body, "");
    close(&mut last, is_chat, finish, pieces.len());
    lines.push(last);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Ollama's busy answer.
pub fn busy() -> Answer {
    let error = "server busy, please try again.  maximum pending requests exceeded";
    Answer::json(503, &json!({"error": error}))
}

/// A stream that fails after its first line, as Ollama says it: by a line, the status being sent.
pub fn failing_stream(body: &Value) -> Answer {
    let error = json!({"error": "an error was encountered while running the model"});
    Answer::stream(NDJSON, [format!("{}\n", line(true, body, "half ")), format!("{error}\n")])
}

/// An answer that was cut by a token limit.
pub fn cut_by_length(body: &Value) -> Answer {
    let mut whole = line(true, body, "half");
    close(&mut whole, true, "length", 1);
    Answer::json(200, &whole)
}

fn finish(body: &Value, pieces: &[String]) -> &'static str {
    let limit =
        body["options"]["num_predict"].as_u64().map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
    if pieces.len() > limit { "length" } else { "stop" }
}

fn line(is_chat: bool, body: &Value, text: &str) -> Value {
    let mut line = json!({"model": body["model"], "created_at": CREATED_AT, "done": false});
    if is_chat {
        line["message"] = json!({"role": "assistant", "content": text});
    } else {
        line["response"] = json!(text);
    }
    line
}

fn close(line: &mut Value, is_chat: bool, reason: &str, tokens: usize) {
    let timings = json!({
        "done": true, "done_reason": reason, "total_duration": 4_935_886_791_u64, "load_duration": 534_986_708,
        "prompt_eval_count": 26, "prompt_eval_duration": 107_345_000, "eval_count": tokens,
        "eval_duration": 4_289_432_000_u64,
    });
    for (name, value) in timings.as_object().unwrap() {
        line[name] = value.clone();
    }
    if !is_chat {
        line["context"] = json!([1, 2, 3]);
    }
}
