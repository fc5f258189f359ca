//! Conversations as bodies of the three APIs.

use refrain_core::{Api, Dialect};
use serde_json::{Map, Value, json};

use super::{Ask, Conversation, Message};
use crate::cli::AskingArguments;

/// What Anthropic's API wants to be told, where the workload doesn't say it.
const MESSAGES_TOKENS_MAX: u32 = 4096;

/// Writes bodies.
#[derive(Debug)]
pub(super) struct Renderer {
    api: Api,
    model: String,
    is_streamed: bool,
}

impl Renderer {
    pub(super) fn new(asking: &AskingArguments) -> Self {
        let model = asking.model.clone().unwrap_or_default();
        Self { api: asking.api.api(), model, is_streamed: !asking.whole }
    }

    /// The request of a conversation.
    pub(super) fn render(&self, conversation: &Conversation<'_>) -> Ask {
        let mut body = Map::new();
        let messages = conversation.messages.iter();
        if self.api.dialect() == Dialect::Anthropic {
            let system = messages.clone().find_map(|message| match message {
                Message::System(text) => Some(json!(text)),
                _ => None,
            });
            body.extend(system.map(|text| ("system".to_owned(), text)));
        }
        body.insert("messages".to_owned(), messages.filter_map(|message| self.message(message)).collect());
        if conversation.has_tools {
            body.insert("tools".to_owned(), self.tools());
        }
        match (self.api.dialect(), conversation.max_tokens) {
            (Dialect::Anthropic, tokens) => {
                body.insert("max_tokens".to_owned(), json!(tokens.unwrap_or(MESSAGES_TOKENS_MAX)));
            }
            (Dialect::OpenAi, Some(tokens)) => {
                body.insert("max_tokens".to_owned(), json!(tokens));
            }
            (Dialect::Ollama, Some(tokens)) => {
                body.insert("options".to_owned(), json!({ "num_predict": tokens }));
            }
            (_, None) => {}
        }
        self.complete(body)
    }

    /// A body with what the command line says: the model if it names none, and how the answer is to come.
    pub(super) fn complete(&self, mut body: Map<String, Value>) -> Ask {
        body.entry("model").or_insert_with(|| json!(self.model));
        body.insert("stream".to_owned(), json!(self.is_streamed));
        if self.is_streamed && self.api == Api::ChatCompletions {
            body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
        Ask { path: self.api.path(), body: Value::Object(body).to_string().into() }
    }

    fn message(&self, message: &Message) -> Option<Value> {
        let anthropic = self.api.dialect() == Dialect::Anthropic;
        Some(match message {
            Message::System(_) if anthropic => return None,
            Message::System(text) => json!({ "role": "system", "content": text }),
            Message::User(text) => json!({ "role": "user", "content": text }),
            Message::Assistant(text) => json!({ "role": "assistant", "content": text }),
            Message::Call { id, name, arguments } => self.call(id, name, arguments),
            Message::Result { id, name, text } => self.result(id, name, text),
        })
    }

    fn call(&self, id: &str, name: &str, arguments: &str) -> Value {
        let parsed = || serde_json::from_str::<Value>(arguments).unwrap_or_default();
        match self.api.dialect() {
            Dialect::OpenAi => {
                let function = json!({ "name": name, "arguments": arguments });
                let calls = json!([{ "id": id, "type": "function", "function": function }]);
                json!({ "role": "assistant", "content": null, "tool_calls": calls })
            }
            Dialect::Ollama => {
                let calls = json!([{ "function": { "name": name, "arguments": parsed() } }]);
                json!({ "role": "assistant", "content": "", "tool_calls": calls })
            }
            Dialect::Anthropic => {
                let block = json!({ "type": "tool_use", "id": id, "name": name, "input": parsed() });
                json!({ "role": "assistant", "content": [block] })
            }
        }
    }

    fn result(&self, id: &str, name: &str, text: &str) -> Value {
        match self.api.dialect() {
            Dialect::OpenAi => json!({ "role": "tool", "tool_call_id": id, "content": text }),
            Dialect::Ollama => json!({ "role": "tool", "tool_name": name, "content": text }),
            Dialect::Anthropic => {
                let block = json!({ "type": "tool_result", "tool_use_id": id, "content": text });
                json!({ "role": "user", "content": [block] })
            }
        }
    }

    fn tools(&self) -> Value {
        let offered = [
            ("lookup_order", "Find an order by its number", "order"),
            ("search_docs", "Search the manual", "query"),
            ("send_mail", "Write to the customer", "text"),
        ];
        offered.iter().map(|(name, says, takes)| self.tool(name, says, takes)).collect()
    }

    fn tool(&self, name: &str, says: &str, takes: &str) -> Value {
        let schema = json!({
            "type": "object", "properties": { takes: { "type": "string" } }, "required": [takes],
        });
        if self.api.dialect() == Dialect::Anthropic {
            return json!({ "name": name, "description": says, "input_schema": schema });
        }
        json!({ "type": "function", "function": { "name": name, "description": says, "parameters": schema } })
    }
}
