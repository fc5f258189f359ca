//! In which order a pool's endpoints would be tried for a request, and why: the choice itself, without taking a seat, a turn
//! or a note.

use std::sync::atomic::Ordering::Relaxed;

use refrain_core::EndpointId;

use super::{Field, Order, Rank, tokens};
use crate::clock::Millis;
use crate::demand::Demand;
use crate::endpoint::{EndpointCondition, EndpointState};
use crate::models::Held;
use crate::pool::PoolState;

/// One endpoint, as it would be tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// Which.
    pub endpoint: EndpointId,
    /// Why it stands where it stands.
    pub reason: PreviewReason,
    /// Whether it may be asked.
    pub condition: EndpointCondition,
    /// Requests that it answers now.
    pub in_flight: u32,
    /// Tokens of their prompts.
    pub tokens: u64,
}

/// Why an endpoint stands where it stands in the order. Those after [`PreviewReason::OverShare`] are not asked at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviewReason {
    /// It was sent the conversation's last turn.
    Conversation,
    /// The key or the prompt's beginning prefers it.
    Home,
    /// The next that the key prefers.
    NextByKey,
    /// It is its turn, or the next one's.
    Turn,
    /// Two are drawn at random; the less busy gets it.
    LeastLoad,
    /// The model isn't in its memory, and is in another's.
    NotInMemory,
    /// It has more than its share of the load: asked after the others.
    OverShare,
    /// It has as many requests as it may.
    Full,
    /// Another endpoint keeps what the request refers to.
    OtherKeepsState,
    /// It doesn't have the model, and another has.
    NoModel,
    /// Its condition forbids it.
    Unfit,
}

impl PreviewReason {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::Home => "home",
            Self::NextByKey => "next_by_key",
            Self::Turn => "turn",
            Self::LeastLoad => "least_load",
            Self::NotInMemory => "not_in_memory",
            Self::OverShare => "over_share",
            Self::Full => "full",
            Self::OtherKeepsState => "other_keeps_state",
            Self::NoModel => "no_model",
            Self::Unfit => "unfit",
        }
    }
}

/// Every endpoint of the pool: those that would be tried in their order, then the others.
pub(crate) fn preview(pool: &PoolState, demand: &Demand, now: Millis) -> Vec<Preview> {
    let members = pool.members();
    let field = Field::of(pool, &members, demand, &[], now);
    let order = Order::at(pool, &members, demand, (pool.next_turn(), now));
    let limit = pool.limit();
    let mut ranked: Vec<(Rank, usize)> =
        (0..field.candidates.len()).map(|at| (order.rank(&field, at, tokens(demand)), at)).collect();
    ranked.sort_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let is_anywhere = field.candidates.iter().any(|one| one.model == Held::InMemory);
    let mut tried = Vec::with_capacity(members.len());
    let mut left = Vec::new();
    for (rank, at) in ranked {
        let candidate = &field.candidates[at];
        let is_away = is_anywhere && candidate.model != Held::InMemory;
        let is_full = candidate.part.in_flight >= limit;
        let reason =
            if is_full { PreviewReason::Full } else { order.reason(rank, is_away, tried.is_empty()) };
        let shown = show(candidate.endpoint, reason, now);
        if is_full { left.push(shown) } else { tried.push(shown) }
    }
    let is_shown = |endpoint: &EndpointState| {
        field.candidates.iter().any(|candidate| candidate.endpoint.id() == endpoint.id())
    };
    let model = demand.model.as_deref().map(crate::models::hash);
    for endpoint in members.iter().filter(|endpoint| !is_shown(endpoint)) {
        let has_not = model.is_some_and(|model| endpoint.held(model) == Held::Not);
        let reason = match endpoint.condition(now) {
            condition if !condition.is_asked() => PreviewReason::Unfit,
            _ if has_not => PreviewReason::NoModel,
            _ => PreviewReason::OtherKeepsState,
        };
        left.push(show(endpoint, reason, now));
    }
    tried.extend(left);
    tried
}

fn show(endpoint: &EndpointState, reason: PreviewReason, now: Millis) -> Preview {
    Preview {
        endpoint: endpoint.id().clone(),
        reason,
        condition: endpoint.condition(now),
        in_flight: endpoint.counters.in_flight.load(Relaxed),
        tokens: endpoint.counters.tokens.load(Relaxed),
    }
}

impl Order<'_> {
    fn reason(&self, rank: Rank, is_away: bool, is_first: bool) -> PreviewReason {
        match self {
            Self::Keyed { .. } if rank.0 == 2 => PreviewReason::OverShare,
            Self::Keyed { sticky: Some(_), .. } if rank == Rank(0, 0.0) => PreviewReason::Conversation,
            _ if is_away => PreviewReason::NotInMemory,
            Self::Keyed { .. } if is_first => PreviewReason::Home,
            Self::Keyed { .. } => PreviewReason::NextByKey,
            Self::Turn { .. } => PreviewReason::Turn,
            Self::LeastLoad { .. } => PreviewReason::LeastLoad,
        }
    }
}
