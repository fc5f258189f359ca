//! Whether a stored answer may be served for a similar question.
//!
//! This is the single place where that is decided, and where a learned decision (a scorer over [`Evidence`], under a
//! risk controller per route) will go: callers already hand in everything such a scorer sees, and already get back the
//! evidence that a label would be recorded with.

use refrain_core::{SemanticPlan, Veto};

use crate::evidence::{Evidence, Question};

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
    /// A policy of the route accepted none.
    Policy,
}

impl Refusal {
    /// Every refusal, for metrics that list them all from the start.
    pub const ALL: [Self; 8] = [
        Self::NoCandidate,
        Self::BelowThreshold,
        Self::Veto(Veto::Number),
        Self::Veto(Veto::Negation),
        Self::Veto(Veto::Name),
        Self::Veto(Veto::Date),
        Self::Veto(Veto::Unit),
        Self::Policy,
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
            Self::Policy => "policy",
        }
    }
}

/// A candidate that passes threshold and vetoes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passed {
    /// Which candidate.
    pub index: usize,
    /// Why.
    pub evidence: Evidence,
}

/// The most similar candidate that passes `plan`'s threshold and vetoes. `candidates` come best first.
///
/// A similarity that is no number passes nothing.
pub fn decide(question: &str, candidates: &[CandidateView<'_>], plan: &SemanticPlan) -> Decision {
    let mut weighing = Weighing::new(question, candidates, plan);
    match weighing.next() {
        Some(Passed { index, evidence }) => Decision::Serve { index, evidence },
        None => {
            let (reason, best) = weighing.refusal();
            Decision::Refuse { reason, best }
        }
    }
}

/// Every candidate that passes, best first, for a policy to choose among; without any, what [`decide`] says.
///
/// # Errors
/// Why none passes.
pub fn passing(
    question: &str,
    candidates: &[CandidateView<'_>],
    plan: &SemanticPlan,
) -> Result<Vec<Passed>, Refusal> {
    let mut weighing = Weighing::new(question, candidates, plan);
    let passed: Vec<Passed> = weighing.by_ref().collect();
    if passed.is_empty() { Err(weighing.refusal().0) } else { Ok(passed) }
}

/// Goes through the candidates, and remembers what forbade the first.
struct Weighing<'a> {
    question: &'a str,
    /// The question as it is compared: read when the first candidate is similar enough.
    read: Option<Question>,
    candidates: &'a [CandidateView<'a>],
    plan: &'a SemanticPlan,
    next: usize,
    refused: Option<(Refusal, Evidence)>,
}

impl<'a> Weighing<'a> {
    fn new(question: &'a str, candidates: &'a [CandidateView<'a>], plan: &'a SemanticPlan) -> Self {
        Self { question, read: None, candidates, plan, next: 0, refused: None }
    }

    fn weigh(&mut self, index: usize) -> Evidence {
        let CandidateView { similarity, text } = self.candidates[index];
        let question = self.read.get_or_insert_with(|| Question::read(self.question));
        Evidence {
            cosine: similarity,
            margin: self.candidates.get(index + 1).map(|next| similarity - next.similarity),
            lexical: question.compare(text),
        }
    }

    /// Once no more candidate passes.
    fn refusal(mut self) -> (Refusal, Option<Evidence>) {
        match self.refused {
            Some((reason, evidence)) => (reason, Some(evidence)),
            None if self.candidates.is_empty() => (Refusal::NoCandidate, None),
            None => (Refusal::BelowThreshold, Some(self.weigh(0))),
        }
    }
}

impl Iterator for Weighing<'_> {
    type Item = Passed;

    fn next(&mut self) -> Option<Passed> {
        while let Some(candidate) = self.candidates.get(self.next) {
            let index = self.next;
            self.next += 1;
            if candidate.similarity.is_nan() || candidate.similarity < self.plan.threshold {
                continue;
            }
            let evidence = self.weigh(index);
            match self.plan.vetoes.iter().find(|veto| evidence.lexical.speaks_for(**veto)) {
                None => return Some(Passed { index, evidence }),
                Some(veto) => _ = self.refused.get_or_insert((Refusal::Veto(*veto), evidence)),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use refrain_core::EmbedSource;

    use super::*;

    fn plan(threshold: f32, vetoes: &[Veto]) -> SemanticPlan {
        SemanticPlan {
            source: EmbedSource::default(),
            threshold,
            candidates: 8,
            vetoes: vetoes.to_vec(),
            shadow: false,
        }
    }

    fn candidates<'a>(all: &[(f32, &'a str)]) -> Vec<CandidateView<'a>> {
        all.iter().map(|(similarity, text)| CandidateView { similarity: *similarity, text }).collect()
    }

    fn served(question: &str, all: &[(f32, &str)], plan: &SemanticPlan) -> Result<usize, &'static str> {
        match decide(question, &candidates(all), plan) {
            Decision::Serve { index, .. } => Ok(index),
            Decision::Refuse { reason, .. } => Err(reason.as_str()),
        }
    }

    #[test]
    fn the_most_similar_candidate_above_the_threshold_is_served() {
        let all = [(0.97, "How can I turn on 2FA?"), (0.9, "turn on 2fa")];
        assert_eq!(served("How do I enable 2FA?", &all, &plan(0.9, &Veto::ALL)), Ok(0));
        assert_eq!(served("How do I enable 2FA?", &all, &plan(0.98, &Veto::ALL)), Err("below_threshold"));
        assert_eq!(served("How do I enable 2FA?", &[], &plan(0.5, &[])), Err("no_candidate"));
    }

    #[test]
    fn a_vetoed_candidate_gives_way_to_the_next() {
        let all = [(0.98, "turn off dark mode"), (0.93, "switch on dark mode"), (0.6, "turn on dark mode")];
        assert_eq!(served("turn on dark mode", &all, &plan(0.9, &Veto::ALL)), Ok(1));
        assert_eq!(served("turn on dark mode", &all, &plan(0.95, &Veto::ALL)), Err("veto_negation"));
    }

    #[test]
    fn only_the_plans_vetoes_count() {
        let all = [(0.98, "20 miles in km")];
        assert_eq!(served("10 miles in km", &all, &plan(0.9, &Veto::ALL)), Err("veto_number"));
        assert_eq!(served("10 miles in km", &all, &plan(0.9, &[Veto::Date])), Ok(0));
    }

    #[test]
    fn a_similarity_that_is_no_number_is_never_served() {
        let all = [(f32::NAN, "same"), (0.99, "same")];
        assert_eq!(served("same", &all, &plan(0.9, &[])), Ok(1));
        assert_eq!(served("same", &all[..1], &plan(0.0, &[])), Err("below_threshold"));
    }

    #[test]
    fn the_evidence_tells_the_margin_to_the_next_candidate() {
        let all = candidates(&[(0.9, "open the door"), (0.75, "open a door")]);
        let Decision::Serve { evidence, .. } = decide("open the door", &all, &plan(0.8, &[])) else {
            panic!()
        };
        assert_eq!(evidence.cosine, 0.9);
        assert!((evidence.margin.unwrap() - 0.15).abs() < 1e-6);
        assert_eq!(evidence.lexical.jaccard, 1.0);
        let Decision::Refuse { best, .. } = decide("open the door", &all[1..], &plan(0.8, &[])) else {
            panic!()
        };
        assert_eq!(best.unwrap().margin, None);
    }

    #[test]
    fn every_candidate_that_passes_is_there_best_first() {
        let all = candidates(&[
            (0.98, "turn off dark mode"),
            (0.97, "switch on dark mode"),
            (0.93, "turn on dark mode"),
            (f32::NAN, "turn on dark mode"),
            (0.6, "turn on dark mode"),
        ]);
        let question = "turn on dark mode";
        let passed = passing(question, &all, &plan(0.9, &Veto::ALL)).unwrap();
        assert_eq!(passed.iter().map(|passed| passed.index).collect::<Vec<_>>(), [1, 2]);
        let Decision::Serve { index, evidence } = decide(question, &all, &plan(0.9, &Veto::ALL)) else {
            panic!()
        };
        assert_eq!(passed[0], Passed { index, evidence });
        for threshold in [0.95, 0.98, 0.99] {
            let plan = plan(threshold, &[Veto::Negation, Veto::Date]);
            let Decision::Refuse { reason, .. } = decide(question, &all[..1], &plan) else { panic!() };
            assert_eq!(passing(question, &all[..1], &plan), Err(reason));
        }
    }

    #[test]
    fn evidence_is_told_by_name() {
        let all = candidates(&[(0.9, "turn off 2 lamps"), (0.75, "turn on 3 lamps")]);
        let measures = |index: usize, names: &[&str]| -> Vec<Option<f32>> {
            let passed = passing("turn on 2 lamps", &all, &plan(0.5, &[])).unwrap();
            names.iter().map(|name| passed[index].evidence.measure(name)).collect()
        };
        assert_eq!(measures(0, &["cosine", "number", "negation"]), [Some(0.9), Some(0.0), Some(1.0)]);
        assert_eq!(measures(1, &["cosine", "number", "negation"]), [Some(0.75), Some(1.0), Some(0.0)]);
        assert_eq!(measures(1, &["margin", "Cosine", "bigram_jaccard", ""]), [None; 4]);
        assert!((measures(0, &["margin"])[0].unwrap() - 0.15).abs() < 1e-6);
        for veto in Veto::ALL {
            assert!(measures(0, &[veto.as_str(), "jaccard"]).iter().all(Option::is_some), "{veto:?}");
        }
    }

    #[test]
    fn every_refusal_has_its_own_name() {
        let mut names: Vec<_> = Refusal::ALL.iter().map(|reason| reason.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Refusal::ALL.len());
    }
}
