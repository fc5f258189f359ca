//! Whether a stored answer may be served for a similar question.
//!
//! This is the single place where that is decided, and where a learned decision (a scorer over [`Evidence`], under a
//! risk controller per route) will go: callers already hand in everything such a scorer sees, and already get back the
//! evidence that a label would be recorded with.

use refrain_core::{SemanticPlan, Veto};

use crate::evidence::{self, Evidence};

/// A neighbour that has an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CandidateView<'a> {
    /// Cosine similarity to the question.
    pub similarity: f32,
    /// The question that its answer was given to.
    pub text: &'a str,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Serve the answer of `candidates[index]`.
    Serve {
        /// Which candidate.
        index: usize,
        /// Why.
        evidence: Evidence,
    },
    /// Serve none.
    Refuse {
        /// Why not.
        reason: Refusal,
        /// Of the most similar candidate, if it was looked at.
        best: Option<Evidence>,
    },
}

/// Why no candidate is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There was none.
    NoCandidate,
    /// None was similar enough.
    BelowThreshold,
    /// What forbade the most similar one that was similar enough (the others were forbidden too).
    Veto(Veto),
}

impl Refusal {
    /// Every refusal, for metrics that list them all from the start.
    pub const ALL: [Self; 7] = [
        Self::NoCandidate,
        Self::BelowThreshold,
        Self::Veto(Veto::Number),
        Self::Veto(Veto::Negation),
        Self::Veto(Veto::Name),
        Self::Veto(Veto::Date),
        Self::Veto(Veto::Unit),
    ];

    /// The token in logs, metrics and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCandidate => "no_candidate",
            Self::BelowThreshold => "below_threshold",
            Self::Veto(Veto::Number) => "veto_number",
            Self::Veto(Veto::Negation) => "veto_negation",
            Self::Veto(Veto::Name) => "veto_name",
            Self::Veto(Veto::Date) => "veto_date",
            Self::Veto(Veto::Unit) => "veto_unit",
        }
    }
}

/// The most similar candidate that passes `plan`'s threshold and vetoes. `candidates` come best first.
///
/// A similarity that is no number passes nothing.
pub fn decide(question: &str, candidates: &[CandidateView<'_>], plan: &SemanticPlan) -> Decision {
    let mut refused = None;
    for (index, candidate) in candidates.iter().enumerate() {
        // Written so that NaN is refused.
        if !(candidate.similarity >= plan.threshold) {
            continue;
        }
        let evidence = weigh(question, candidates, index);
        match plan.vetoes.iter().find(|veto| evidence.lexical.speaks_for(**veto)) {
            None => return Decision::Serve { index, evidence },
            Some(veto) => _ = refused.get_or_insert((Refusal::Veto(*veto), evidence)),
        }
    }
    match refused {
        Some((reason, evidence)) => Decision::Refuse { reason, best: Some(evidence) },
        None if candidates.is_empty() => Decision::Refuse { reason: Refusal::NoCandidate, best: None },
        None => {
            Decision::Refuse { reason: Refusal::BelowThreshold, best: Some(weigh(question, candidates, 0)) }
        }
    }
}

fn weigh(question: &str, candidates: &[CandidateView<'_>], index: usize) -> Evidence {
    let CandidateView { similarity, text } = candidates[index];
    Evidence {
        cosine: similarity,
        margin: candidates.get(index + 1).map(|next| similarity - next.similarity),
        lexical: evidence::compare(question, text),
    }
}
