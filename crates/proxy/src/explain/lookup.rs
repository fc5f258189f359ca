//! What is stored for a request, and what would be served of it.

use std::sync::Arc;
use std::time::Duration;

use refrain_cache::{
    Candidate, Decision, Entry, Evidence, Found, Place, Refusal, UnderWay, compare, decide, unix_ms,
};
use refrain_core::{Code, RouteId, SemanticPlan};

use super::{Explanation, Outcome, Texts};
use crate::cache_status::CacheStatus;
use crate::failure::Failure;
use crate::generate;
use crate::insight;
use crate::key::Keyed;
use crate::lookup::{self, Hit, Lookup};
use crate::note::Note;
use crate::respond;
use crate::snapshot::AnswerCache;

/// What is stored for this very request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExactFound {
    /// Nothing.
    Nothing,
    /// An answer.
    Stored {
        /// How long it has been there.
        age: Duration,
        /// How long it stays fresh; none: its time is over.
        fresh_for: Option<Duration>,
        /// Whether it had to be fetched from the shared store.
        is_shared: bool,
        /// Whether the client's directives allow it.
        is_allowed: bool,
    },
}

/// A stored answer that would be served.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainedAnswer {
    /// The key that it is stored under.
    pub key: [u8; 32],
    /// The route that stored it.
    pub route: RouteId,
    /// How similar its question is, where it isn't the same.
    pub similarity: Option<f32>,
}

/// A stored question that is similar.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// The key of its answer.
    pub key: [u8; 32],
    /// How the questions compare.
    pub evidence: Evidence,
    /// Why its answer may not be served; none: it may.
    pub refusal: Option<Refusal>,
    /// How long its answer has been stored.
    pub age: Duration,
    /// Whether the client's directives allow it.
    pub is_allowed: bool,
    /// The question; none: it isn't told.
    pub text: Option<String>,
}

/// Looks as the path would, and says what it finds.
///
/// # Errors
/// What the client would be refused with.
pub(super) async fn explain(
    cache: &AnswerCache,
    keyed: Keyed,
    (mut note, texts): (Note, Texts),
    found: &mut Explanation,
) -> Result<(), Failure> {
    found.exact = Some(exact(cache, &keyed).await);
    if let Some(semantic) = keyed.plan.semantic.clone() {
        match neighbours(cache, &keyed, (&semantic, texts)).await {
            Ok(neighbours) => found.neighbours = neighbours,
            Err(reason) => found.exact_only = Some(reason),
        }
    }
    let (status, fresh_for) = match lookup::find(cache, keyed, &mut note).await {
        Lookup::Hit(hit) | Lookup::Stale(hit, _) | Lookup::Audited(hit, _) => {
            found.answer = Some(ExplainedAnswer::of(&hit));
            hit_status(&hit)
        }
        Lookup::Miss(miss) => {
            found.under_way = generate::under_way(cache, &miss);
            let joins = matches!(found.under_way, Some(UnderWay::Joinable(_)));
            (if joins { CacheStatus::Collapsed } else { miss.status }, None)
        }
        Lookup::NotCached => {
            return Err(Failure::new(Code::NotCached, "nothing fresh is stored for this request"));
        }
    };
    found.outcome = Outcome::Answered {
        cache_status: status.header().to_str().ok().map(str::to_owned),
        bypass: None,
        refusal: note.refusal,
        policy: note.policy_said().map(|(policy, said)| (policy.clone(), said.to_owned())),
        fresh_for,
    };
    Ok(())
}

impl ExplainedAnswer {
    fn of(hit: &Hit) -> Self {
        Self {
            key: hit.entry.key.key,
            route: hit.entry.meta.route.clone(),
            similarity: hit.similar.map(|(similarity, _)| similarity),
        }
    }
}

fn hit_status(hit: &Hit) -> (CacheStatus, Option<Duration>) {
    let Hit { tier, place, staleness, .. } = *hit;
    let ttl_s = respond::ttl_s(hit);
    let fresh_for = u64::try_from(ttl_s).ok().map(Duration::from_secs);
    (CacheStatus::Hit { tier, place, staleness, ttl_s }, fresh_for)
}

async fn exact(cache: &AnswerCache, keyed: &Keyed) -> ExactFound {
    let now_ms = unix_ms();
    let mut found = cache.store.find(&keyed.key, now_ms).await;
    if let (Found::Miss, Some(narrow)) = (&found, &keyed.narrow) {
        found = cache.store.find(narrow, now_ms).await;
    }
    let (Found::Hit(entry, place) | Found::Stale(entry, place)) = found else { return ExactFound::Nothing };
    let left_ms = entry.meta.expires_at_ms.checked_sub(now_ms).filter(|left_ms| *left_ms > 0);
    ExactFound::Stored {
        age: age(&entry, now_ms),
        fresh_for: left_ms.map(Duration::from_millis),
        is_shared: place == Place::Shared,
        is_allowed: lookup::may_serve(&entry, &keyed.plan),
    }
}

async fn neighbours(
    cache: &AnswerCache,
    keyed: &Keyed,
    (semantic, texts): (&SemanticPlan, Texts),
) -> Result<Vec<Neighbour>, refrain_core::ExactOnly> {
    let embedding = lookup::embed(cache, keyed).await?;
    let (store, partition, k) = (&cache.store, &keyed.key.partition, semantic.candidates);
    let mut near = store.nearest(partition, &embedding, k, unix_ms()).await;
    if store.has_shared_vectors() {
        for shared in store.nearest_shared(partition, &embedding, k, unix_ms()).await {
            if near.iter().all(|known| known.entry.key != shared.entry.key) {
                near.push(shared);
            }
        }
        near.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
    }
    let next = near.iter().skip(1).map(|next| Some(next.similarity)).chain([None]);
    let told = |(one, next): (&Candidate, Option<f32>)| neighbour(keyed, semantic, (one, next), texts);
    Ok(near.iter().zip(next.collect::<Vec<_>>()).map(told).collect())
}

fn neighbour(
    keyed: &Keyed,
    semantic: &SemanticPlan,
    (candidate, next): (&Candidate, Option<f32>),
    texts: Texts,
) -> Neighbour {
    let Candidate { similarity, entry } = candidate;
    let question = keyed.embed_text().unwrap_or_default();
    let stored = entry.meta.embed_text.as_deref().unwrap_or_default();
    let refusal = match decide(question, &lookup::views(&[candidate]), semantic) {
        Decision::Serve { .. } => None,
        Decision::Refuse { reason, .. } => Some(reason),
    };
    let identity = &keyed.admitted.caller.identity;
    let is_own = insight::is_asker(identity, &entry.meta);
    Neighbour {
        key: entry.key.key,
        evidence: Evidence {
            cosine: *similarity,
            margin: next.map(|next| similarity - next),
            lexical: compare(question, stored),
        },
        refusal,
        age: age(entry, unix_ms()),
        is_allowed: lookup::may_serve(entry, &keyed.plan),
        text: (texts == Texts::Shown && is_own).then(|| stored.to_owned()),
    }
}

fn age(entry: &Arc<Entry>, now_ms: u64) -> Duration {
    Duration::from_millis(entry.age_ms(now_ms))
}
