//! Stored answers as policies see them, and the policies' choice among them.

use std::sync::Arc;

use refrain_cache::{Entry, Evidence, unix_ms};
use refrain_plugin::CandidatesView;
use refrain_plugin::verdict::{Candidate, Verdict};

use super::Policed;
use crate::note::Note;

/// What policies say of stored answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Serve this one.
    Serve(usize),
    /// Serve none.
    Miss,
}

/// Whether policies let the answer to this very question be served.
pub(crate) async fn choose_exact(policed: Option<&Policed>, entry: &Arc<Entry>, note: &mut Note) -> Choice {
    let exact = Seen { entry: entry.clone(), evidence: None };
    choose(policed, || vec![exact], note).await
}

/// Which of the answers to similar questions policies let be served: the first, if none has an opinion. There is one at
/// least.
pub(crate) async fn choose(
    policed: Option<&Policed>,
    candidates: impl FnOnce() -> Vec<Seen>,
    note: &mut Note,
) -> Choice {
    let Some(policed) = policed.filter(|policed| policed.chain.validates()) else {
        return Choice::Serve(0);
    };
    let seen: Arc<dyn CandidatesView> = Arc::new(Candidates { all: candidates(), now_ms: unix_ms() });
    // Boxed: most requests have no policy to ask, and hold room for what they may wait for.
    match Box::pin(policed.chain.on_candidates(&policed.call, &policed.contexts, &seen)).await {
        Verdict::Accept(index) => Choice::Serve(index),
        Verdict::Miss { policy, reason } => {
            note.policy_reason(policy, reason);
            Choice::Miss
        }
    }
}

/// A stored answer that may be served.
pub(crate) struct Seen {
    /// The entry.
    pub(crate) entry: Arc<Entry>,
    /// How its question compares; none: it is the same.
    pub(crate) evidence: Option<Evidence>,
}

struct Candidates {
    all: Vec<Seen>,
    now_ms: u64,
}

impl CandidatesView for Candidates {
    fn list(&self) -> Vec<Candidate> {
        let candidate = |seen: &Seen| {
            let meta = &seen.entry.meta;
            Candidate {
                similarity: seen.evidence.as_ref().map_or(1.0, |evidence| evidence.cosine),
                exact: seen.evidence.is_none(),
                age_s: u32::try_from(seen.entry.age_ms(self.now_ms) / 1000).unwrap_or(u32::MAX),
                stale: !seen.entry.is_fresh(self.now_ms),
                source_text: meta.embed_text.clone().unwrap_or_default(),
                model: meta.model.clone(),
                labels: meta.labels.clone(),
            }
        };
        self.all.iter().map(candidate).collect()
    }

    fn evidence(&self, index: u32, name: &str) -> Option<f32> {
        self.all.get(index as usize)?.evidence.as_ref()?.measure(name)
    }

    fn answer(&self, index: u32, max_bytes: u32) -> Option<String> {
        let answer = self.all.get(index as usize)?.entry.answer().ok()?;
        Some(super::response::cut(answer.text().into_owned(), max_bytes))
    }
}
