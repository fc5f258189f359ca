//! Conversations of several turns, all with one system prompt; some are an earlier one again, some a question that was asked
//! in other words.

use std::path::Path;

use super::lines::numbered;
use super::{Message, Random, Session, Workload};

/// Questions with the same answer, a group a line of a file.
#[derive(Debug)]
pub(super) struct Paraphrases {
    groups: Vec<Vec<String>>,
    share: f64,
}

impl Paraphrases {
    pub(super) fn read(file: &Path, share: f64) -> anyhow::Result<Self> {
        let mut groups = Vec::new();
        for line in numbered(file)? {
            let (_, text) = line?;
            let group: Vec<String> =
                text.split('\t').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect();
            groups.push(group);
        }
        groups.retain(|group| !group.is_empty());
        anyhow::ensure!(!groups.is_empty(), "{}: no questions in it", file.display());
        Ok(Self { groups, share })
    }

    /// One of the wordings of one of the questions, if it is this session's turn.
    fn question(&self, seed: u64, session: u64) -> Option<&str> {
        let mut random = Random::new(seed, "paraphrase", session);
        if !random.happens(self.share) {
            return None;
        }
        let group = place(&mut random, self.groups.len());
        let wording = place(&mut random, self.groups[group].len());
        Some(&self.groups[group][wording])
    }
}

fn place(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).unwrap_or_default()
}

pub(super) fn session(workload: &Workload, paraphrases: Option<&Paraphrases>, number: u64) -> Session {
    let mut messages: Vec<Message> = workload.system().into_iter().collect();
    if let Some(question) = paraphrases.and_then(|known| known.question(workload.seed, number)) {
        messages.push(Message::User(question.to_owned()));
        return Session { at: None, waves: vec![vec![workload.ask(&messages, false)]] };
    }
    let content = workload.content_of(number);
    let turns = u64::from(workload.sizes.turns);
    let waves = (0..turns).map(|turn| {
        let place = content * turns + turn;
        messages.push(Message::User(workload.text("question", place, workload.sizes.prompt)));
        let ask = workload.ask(&messages, false);
        messages.push(Message::Assistant(workload.text("answer", place, workload.sizes.answer)));
        vec![ask]
    });
    Session { at: None, waves: waves.collect() }
}
