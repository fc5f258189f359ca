//! The official Python clients, unmodified, and curl: what they parse from a hit equals what they parsed from its miss.
//!
//! OpenAI's and Anthropic's talk to the real llama.cpp server (`real_llm`), Ollama's to the fake Ollama.

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Config, RealLlm, Refrain, python, within};
use serde_json::{Value, json};

use crate::model_known;

const RIVER: &str = "The capital of River is";
const MOUNTAIN: &str = "The capital of Mountain is";

/// What a script printed for one call.
struct Call(Value);

impl Call {
    fn is_hit(&self) -> bool {
        self.status().starts_with("refrain; hit;")
    }

    fn status(&self) -> &str {
        self.0["cache_status"].as_str().unwrap()
    }

    /// What the SDK made of the answer: a model, or a list of them for a stream.
    fn parsed(&self) -> &Value {
        &self.0["parsed"]
    }

    /// The whole answer, also where it was streamed.
    fn whole(&self) -> &Value {
        &self.0["whole"]
    }
}

async fn calls(script: &str, refrain: &Refrain, jobs: &[Value]) -> Vec<Call> {
    let job = json!({"base_url": refrain.url(), "jobs": jobs});
    let Value::Array(results) = python(script, &job).await else { panic!("no list") };
    results.into_iter().map(Call).collect()
}

/// Each job twice: the first is a miss, the second a hit that parses to the same.
async fn check_pairs(script: &str, refrain: &Refrain, jobs: &[Value]) {
    let twice: Vec<Value> = jobs.iter().flat_map(|job| [job.clone(), job.clone()]).collect();
    let results = calls(script, refrain, &twice).await;
    assert_eq!(results.len(), twice.len());
    for (pair, job) in results.chunks(2).zip(jobs) {
        let [miss, hit] = pair else { panic!("pairs") };
        assert_eq!(miss.status(), "refrain; fwd=miss", "{job}");
        assert!(hit.is_hit(), "{job}: {}", hit.status());
        assert_eq!(hit.parsed(), miss.parsed(), "{job}");
        assert_eq!(hit.whole(), miss.whole(), "{job}");
    }
}

/// A streamed miss serves a whole hit and the other way round, alike in everything that both forms have.
async fn check_crosswise(script: &str, refrain: &Refrain, job: impl Fn(&str, bool) -> Value, alike: &[&str]) {
    let jobs = [job(RIVER, true), job(RIVER, false), job(MOUNTAIN, false), job(MOUNTAIN, true)];
    let results = calls(script, refrain, &jobs).await;
    for pair in results.chunks(2) {
        let [miss, hit] = pair else { panic!("pairs") };
        assert_eq!(miss.status(), "refrain; fwd=miss");
        assert!(hit.is_hit(), "{}", hit.status());
        for place in alike {
            let (of_hit, of_miss) = (hit.whole().pointer(place), miss.whole().pointer(place));
            assert_eq!(of_hit, of_miss, "{place}: {} / {}", hit.whole(), miss.whole());
            assert!(of_hit.is_some(), "{place} is nowhere: {}", hit.whole());
        }
    }
}

async fn before_the_real_llm() -> Refrain {
    Refrain::start(&Config::new(&RealLlm::shared().await.url())).await
}

/// A base model babbles, or only closes its turn: going on with a begun sentence it says several words and stops.
fn begun(sentence: &str) -> Value {
    json!([{"role": "user", "content": "Name a place."}, {"role": "assistant", "content": sentence}])
}

fn openai_chat(text: &str, stream: bool, usage: bool) -> Value {
    let messages = begun(text);
    let mut arguments = json!({
        "model": "gemma", "messages": messages, "temperature": 0, "max_tokens": 64, "stop": ["\n", "."], "stream": stream,
    });
    if usage {
        arguments["stream_options"] = json!({"include_usage": true});
    }
    json!({"call": "chat", "arguments": arguments})
}

fn anthropic_message(text: &str, stream: bool) -> Value {
    let messages = begun(text);
    json!({"call": "messages", "stream": stream, "arguments": {
        "model": "gemma", "messages": messages, "max_tokens": 64, "stop_sequences": ["\n", "."],
        "extra_body": {"temperature": 0},
    }})
}

#[tokio::test]
async fn openai_chat_hits_parse_like_their_misses_real_llm() {
    let refrain = before_the_real_llm().await;
    let jobs = [
        openai_chat("The capital of France is", false, false),
        openai_chat("The capital of Spain is", true, false),
        openai_chat("The capital of Italy is", true, true),
    ];
    check_pairs("openai_calls.py", &refrain, &jobs).await;
}

#[tokio::test]
async fn openai_chat_hits_cross_streamed_and_whole_real_llm() {
    let refrain = before_the_real_llm().await;
    let alike = [
        "/choices/0/message/content",
        "/choices/0/finish_reason",
        "/usage/completion_tokens",
        "/usage/prompt_tokens",
    ];
    check_crosswise("openai_calls.py", &refrain, |text, stream| openai_chat(text, stream, stream), &alike)
        .await;
}

#[tokio::test]
async fn openai_completions_hits_parse_like_their_misses_real_llm() {
    let refrain = before_the_real_llm().await;
    let job = |prompt: &str, stream: bool| {
        json!({"call": "completions", "arguments": {
            "model": "gemma", "prompt": prompt, "temperature": 0, "max_tokens": 64, "stop": ["."], "stream": stream,
        }})
    };
    check_pairs(
        "openai_calls.py",
        &refrain,
        &[job("The capital of France is", false), job("The capital of Spain is", true)],
    )
    .await;
}

#[tokio::test]
async fn openai_embeddings_hits_parse_like_their_misses_real_llm() {
    let refrain = Refrain::start(&Config::new(&RealLlm::shared_embedding().await.url())).await;
    let job = |arguments: Value| json!({"call": "embeddings", "arguments": arguments});
    let jobs = [
        // The SDK asks for base64 by itself and returns floats.
        job(json!({"model": "gemma", "input": "one text"})),
        job(json!({"model": "gemma", "input": ["one text", "and two"], "encoding_format": "float"})),
        job(json!({"model": "gemma", "input": "one text", "encoding_format": "base64"})),
    ];
    check_pairs("openai_calls.py", &refrain, &jobs[..2]).await;
    // Explicit base64 is the SDK's default spelled out: the first job's entry serves it, as what it is asked for.
    let spelled = &calls("openai_calls.py", &refrain, &jobs[2..]).await[0];
    assert!(spelled.is_hit(), "{}", spelled.status());
    assert!(spelled.parsed()["data"][0]["embedding"].is_string(), "{}", spelled.parsed());
}

#[tokio::test]
async fn anthropic_hits_parse_like_their_misses_real_llm() {
    let refrain = before_the_real_llm().await;
    let jobs = [
        anthropic_message("The capital of France is", false),
        anthropic_message("The capital of Spain is", true),
    ];
    check_pairs("anthropic_calls.py", &refrain, &jobs).await;
}

#[tokio::test]
async fn anthropic_hits_cross_streamed_and_whole_real_llm() {
    let refrain = before_the_real_llm().await;
    let alike = ["/content/0/text", "/stop_reason", "/usage/output_tokens", "/usage/input_tokens"];
    check_crosswise("anthropic_calls.py", &refrain, anthropic_message, &alike).await;
}

#[tokio::test]
async fn sdks_raise_their_own_errors_real_llm() {
    let refrain = before_the_real_llm().await;
    let mut bad = openai_chat("x", false, false);
    bad["arguments"]["stream"] = json!("yes");
    let openai = python("openai_calls.py", &json!({"base_url": refrain.url(), "jobs": [bad]})).await;
    assert_eq!(
        (&openai[0]["error"], &openai[0]["status"]),
        (&json!("BadRequestError"), &json!(400)),
        "{openai}"
    );
    let mut absent = openai_chat("never asked before", false, false);
    absent["arguments"]["extra_headers"] = json!({"cache-control": "only-if-cached"});
    let openai = python("openai_calls.py", &json!({"base_url": refrain.url(), "jobs": [absent]})).await;
    assert_eq!(openai[0]["status"], 504, "{openai}");
    // `x-should-retry: false` was heard.
    refrain.counted("refrain_errors_total", &[("code", "not_cached")], 1.0).await;
    assert!(refrain.metrics().await.sum("refrain_errors_total", &[("code", "not_cached")]) < 1.5);
    let mut bad = anthropic_message("x", false);
    bad["arguments"]["messages"] = json!("hello");
    let anthropic = python("anthropic_calls.py", &json!({"base_url": refrain.url(), "jobs": [bad]})).await;
    assert_eq!(anthropic[0]["error"], "BadRequestError", "{anthropic}");
    assert_eq!(anthropic[0]["body"]["error"]["type"], "invalid_request_error", "{anthropic}");
}

#[tokio::test]
async fn ollama_client_hits_parse_like_their_misses_before_the_fake_ollama() {
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&Config::new(&fake.url()).ollama()).await;
    let job = |call: &str, arguments: Value| json!({"call": call, "arguments": arguments});
    let chat = |text: &str, stream: bool| {
        let messages = json!([{"role": "user", "content": text}]);
        job("chat", json!({"model": "m", "messages": messages, "stream": stream}))
    };
    model_known(&refrain).await;
    let jobs = [
        chat("one", false),
        chat("two", true),
        job("generate", json!({"model": "m", "prompt": "one", "stream": false})),
        job("generate", json!({"model": "m", "prompt": "two", "stream": true})),
        job("embed", json!({"model": "m", "input": ["one", "two"]})),
    ];
    check_pairs("ollama_calls.py", &refrain, &jobs).await;
    let alike = ["/message/content", "/done_reason", "/eval_count", "/total_duration"];
    check_crosswise("ollama_calls.py", &refrain, chat, &alike).await;
    let others = calls("ollama_calls.py", &refrain, &[job("list", json!({})), job("ps", json!({}))]).await;
    assert_eq!(others[0].parsed()["models"][1]["model"], "m:latest");
}

#[tokio::test]
async fn the_fake_itself_satisfies_the_official_clients() {
    let fake = FakeUpstream::start().await;
    let ask = |script: &'static str, jobs: Value| {
        let job = json!({"base_url": fake.url(), "jobs": jobs});
        async move { python(script, &job).await }
    };
    let openai =
        ask("openai_calls.py", json!([openai_chat("a b", false, false), openai_chat("a b", true, true)]))
            .await;
    for (result, text) in openai.as_array().unwrap().iter().zip(["answer 1 to a b", "answer 2 to a b"]) {
        let whole = &result["whole"];
        assert_eq!(whole["choices"][0]["message"]["content"], text, "{openai}");
        assert_eq!(
            (&whole["choices"][0]["finish_reason"], &whole["usage"]["total_tokens"]),
            (&json!("stop"), &json!(12))
        );
    }
    let anthropic =
        ask("anthropic_calls.py", json!([anthropic_message("a b", false), anthropic_message("a b", true)]))
            .await;
    for (result, text) in anthropic.as_array().unwrap().iter().zip(["answer 3 to a b", "answer 4 to a b"]) {
        assert_eq!(result["whole"]["content"][0]["text"], text, "{anthropic}");
        assert_eq!(result["whole"]["usage"]["output_tokens"], 5);
    }
    let messages = json!([{"role": "user", "content": "a b"}]);
    let chat = |stream: bool| json!({"call": "chat", "arguments": {"model": "m", "messages": messages, "stream": stream}});
    let ollama = ask("ollama_calls.py", json!([chat(false), chat(true)])).await;
    for (result, text) in ollama.as_array().unwrap().iter().zip(["answer 5 to a b", "answer 6 to a b"]) {
        assert_eq!(result["whole"]["message"]["content"], text, "{ollama}");
        assert_eq!(
            (&result["whole"]["done_reason"], &result["whole"]["eval_count"]),
            (&json!("stop"), &json!(5))
        );
    }
}

#[tokio::test]
async fn curl_with_its_own_content_type_is_served() {
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&Config::new(&fake.url())).await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    for (nth, path) in ["/v1/chat/completions", "/v1/chat/completions"].iter().enumerate() {
        let said = curl(&["-sS", "-i", "-d", body, &format!("{}{path}", refrain.url())]).await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        assert_eq!(said.to_lowercase().contains("cache-status: refrain; hit"), nth == 1, "{said}");
        assert!(said.contains("answer 1 to hi"), "{said}");
    }
    // Large enough for `Expect: 100-continue`.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body.json");
    let large =
        json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(2_000_000)}]}).to_string();
    std::fs::write(&file, &large).unwrap();
    let data = format!("@{}", file.display());
    let url = format!("{}/api/chat", refrain.url());
    let said = curl(&["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary", &data, &url]).await;
    assert_eq!(said, "200");
    assert_eq!(fake.last_post().text(), large);
    let head = curl(&["-sS", "-I", &format!("{}/", refrain.url())]).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

async fn curl(arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("curl").args(arguments).kill_on_drop(true).output();
    let output = within("curl", output).await.expect("curl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
