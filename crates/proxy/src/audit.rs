//! An answer to a similar question was served: of some of those, the question itself is asked too, behind the client's back, and
//! both answers are compared. That says how often what is served is wrong, instead of how similar questions look.

use std::sync::Arc;

use rand::Rng as _;
use refrain_cache::Lead;
use refrain_core::Skip;
use refrain_upstream::Purpose;
use tokio::sync::OwnedSemaphorePermit;

use crate::generate::{self, FlightHead};
use crate::lookup::Miss;
use crate::refresh::drain;
use crate::snapshot::AnswerCache;
use crate::worker::Worker;

/// Audits of a worker under way at once: more are left out. They come after everybody's requests, and must not pile up behind
/// a fleet that has no room.
pub(crate) const UNDER_WAY_MAX: usize = 4;
/// Two answers that share fewer of their words than this say something else.
const ALIKE_MIN: f32 = 0.3;

/// What an audit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audited {
    /// Both answers say the same, word for word.
    Same,
    /// They share some words: a judge would have to say.
    Unsure,
    /// They share few.
    Other,
    /// There is no whole answer to compare with.
    Failed,
}

impl Audited {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 4] = [Self::Same, Self::Unsure, Self::Other, Self::Failed];

    /// The label in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Unsure => "unsure",
            Self::Other => "other",
            Self::Failed => "failed",
        }
    }

    /// By the part of their words that two answers share.
    pub(crate) fn of(alike: Result<f32, Skip>) -> Self {
        match alike {
            Ok(alike) if alike >= 1.0 => Self::Same,
            Ok(alike) if alike < ALIKE_MIN => Self::Other,
            Ok(_) => Self::Unsure,
            Err(_) => Self::Failed,
        }
    }
}

/// Whether a hit is audited, where this share of them is.
pub(crate) fn is_drawn(share: f32) -> bool {
    share > 0.0 && rand::rng().random::<f32>() < share
}

/// Asks the upstream what a stored answer was served for, unless enough is asked already. Never fails, and stores nothing.
pub(crate) fn begin(worker: &Arc<Worker>, cache: &Arc<AnswerCache>, miss: Miss) {
    let Ok(turn) = worker.audits.clone().try_acquire_owned() else { return };
    // Nobody joins it: who asks the same is served what is stored.
    let (lead, reader) = cache.flights.solo(cache.store.epoch().flight(&miss.keyed.key));
    worker.tasks.spawn(audit((worker.clone(), cache.clone()), miss, lead, turn));
    worker.tasks.spawn(drain(reader));
}

async fn audit(
    (worker, cache): (Arc<Worker>, Arc<AnswerCache>),
    miss: Miss,
    lead: Lead<Arc<FlightHead>>,
    _turn: OwnedSemaphorePermit,
) {
    match generate::generation(&worker, &cache, (&Arc::new(miss), Purpose::Audit), None) {
        Ok(generation) => generation.pump(lead).await,
        Err(failure) => tracing::debug!(code = failure.code.as_str(), "a hit can't be audited"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_say_the_same_or_share_little_are_called_sure() {
        let found = [Ok(1.0), Ok(0.999), Ok(0.3), Ok(0.29), Ok(0.0), Err(Skip::Incomplete)].map(Audited::of);
        let [same, unsure, other, failed] = Audited::ALL;
        assert_eq!(found, [same, unsure, unsure, other, other, failed]);
    }

    #[test]
    fn about_its_share_of_hits_is_audited() {
        let drawn = |share| (0..10_000).filter(|_| is_drawn(share)).count();
        assert_eq!((drawn(0.0), drawn(1.0)), (0, 10_000));
        assert!((400..600).contains(&drawn(0.05)));
    }
}
