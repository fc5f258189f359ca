//! Why requests hit or not, and what becomes of an answer that is wrong.

mod explain;
mod feedback;
mod misses;
mod tune;

use std::time::Duration;

use refrain_tests::{Ask, Refrain, refrain_binary, within_time};
use serde_json::{Map, Value, json};

const QUESTION: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";

/// A command that asks, or embeds some hundred questions, on a busy machine.
const COMMAND_DEADLINE: Duration = Duration::from_secs(240);

/// What the admin listener is asked to explain about a request, as its own headers say who asks.
fn to_explain(ask: &Ask) -> Value {
    let headers: Map<String, Value> =
        ask.headers().iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let body = String::from_utf8(ask.body().to_vec()).unwrap();
    json!({"path": ask.path(), "headers": headers, "body": body})
}

async fn explained(refrain: &Refrain, what: Value) -> Value {
    let reply = refrain.admin(&Ask::post("/explain", what)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// Runs a command: whether it succeeded, and what it said.
async fn run(arguments: &[&str]) -> (bool, String) {
    let mut process = tokio::process::Command::new(refrain_binary());
    process.args(arguments).kill_on_drop(true);
    let output = within_time(COMMAND_DEADLINE, "the command", process.output()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// A chat with a system prompt.
fn chat(system: &str, question: &str) -> Ask {
    let messages = json!([{"role": "system", "content": system}, {"role": "user", "content": question}]);
    Ask::chat("").field("messages", messages)
}
