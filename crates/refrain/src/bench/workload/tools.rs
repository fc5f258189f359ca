//! Function calling: each question is asked with tools on offer, and asked again with a call and what the tool said.

use super::{Message, Session, Workload};

/// The tool that is called; [`super::render`] offers it with others.
const TOOL: &str = "lookup_order";

pub(super) fn session(workload: &Workload, number: u64) -> Session {
    let content = workload.content_of(number);
    let turns = u64::from(workload.sizes.turns);
    let mut messages: Vec<Message> = workload.system().into_iter().collect();
    let mut waves = Vec::new();
    for place in content * turns..(content + 1) * turns {
        messages.push(Message::User(workload.text("question", place, workload.sizes.prompt)));
        waves.push(vec![workload.ask(&messages, true)]);
        messages.extend(call(workload, place));
        waves.push(vec![workload.ask(&messages, true)]);
        messages.push(Message::Assistant(workload.text("answer", place, workload.sizes.answer)));
    }
    Session { at: None, waves }
}

/// What the workload takes for the model's call, and the tool's answer.
fn call(workload: &Workload, place: u64) -> [Message; 2] {
    let id = format!("call_{place}");
    let arguments = format!("{{\"order\":\"A-{place}\"}}");
    let text = workload.text("result", place, workload.sizes.answer);
    [Message::Call { id: id.clone(), name: TOOL, arguments }, Message::Result { id, name: TOOL, text }]
}
