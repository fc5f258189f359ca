//! Agents that start agents: a tree of requests which all begin with the same long instructions, and each with what the agents
//! above it were told. A level is asked at once, after the one above; the first agent has the last word.

use super::{Ask, Message, Session, Workload};

/// Most agents of a level; beyond, agents start fewer.
const LEVEL_AGENTS_MAX: usize = 4096;
/// Room for the tasks of one tree.
const PLACE_BITS: u32 = 20;

pub(super) fn session(workload: &Workload, number: u64) -> Session {
    let content = workload.content_of(number);
    let mut level = vec![begin(workload, content)];
    let mut waves = vec![asks(workload, &level)];
    let mut named = 1;
    for _ in 0..workload.sizes.depth {
        level = below(workload, &level, content, &mut named);
        waves.push(asks(workload, &level));
    }
    waves.push(vec![last_word(workload, content)]);
    Session { at: None, waves }
}

fn begin(workload: &Workload, content: u64) -> Vec<Message> {
    let task = workload.text("task", content, workload.sizes.prompt);
    workload.system().into_iter().chain([Message::User(task)]).collect()
}

/// What the agents of the next level are told: all that their starter was told, its answer, and a task of their own.
fn below(workload: &Workload, level: &[Vec<Message>], content: u64, named: &mut u64) -> Vec<Vec<Message>> {
    let fan_out = usize::from(workload.sizes.fan_out);
    let children = level.iter().flat_map(|starter| std::iter::repeat_n(starter, fan_out));
    let child = |starter: &Vec<Message>| {
        let place = (content << PLACE_BITS) + *named;
        *named += 1;
        let plan = Message::Assistant(workload.text("plan", content, workload.sizes.answer));
        let task = Message::User(workload.text("subtask", place, workload.sizes.prompt));
        starter.iter().cloned().chain([plan, task]).collect()
    };
    children.take(LEVEL_AGENTS_MAX).map(child).collect()
}

fn last_word(workload: &Workload, content: u64) -> Ask {
    let found = workload.text("found", content, workload.sizes.answer);
    let plan = Message::Assistant(workload.text("plan", content, workload.sizes.answer));
    let messages: Vec<Message> =
        begin(workload, content).into_iter().chain([plan, Message::User(found)]).collect();
    workload.ask(&messages, false)
}

fn asks(workload: &Workload, level: &[Vec<Message>]) -> Vec<Ask> {
    level.iter().map(|messages| workload.ask(messages, false)).collect()
}
