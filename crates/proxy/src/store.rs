//! Last stage: may a generated answer be stored, and as what.

use std::time::Duration;

use refrain_cache::{Entry, EntryMeta, unix_ms};
use refrain_core::{Identity, Plan, Prompt, Skip};
use refrain_llm::answer::Answer;

use crate::ask::Asked;
use crate::generate::FlightHead;
use crate::lookup::Miss;
use crate::route::RouteState;
use crate::upstream_headers;

/// Whether an answer may be stored.
///
/// # Errors
/// Why not.
pub(crate) fn judge(answer: Answer, plan: &Plan, prompt: &Prompt) -> Result<Answer, Skip> {
    if plan.directives.no_store {
        return Err(Skip::NoStore);
    }
    if prompt.offers_tools && !plan.store_tool_offers {
        return Err(Skip::ToolsOffered);
    }
    answer.storable()?;
    Ok(answer)
}

/// The entry of a judged answer. `took` is how long the upstream took: what a hit will save.
pub(crate) fn entry(
    state: &RouteState,
    (asked, miss): (&Asked, &Miss),
    identity: &Identity,
    head: &FlightHead,
    answer: &Answer,
    took: Duration,
) -> Entry {
    let prompt = &asked.request.prompt;
    let now = unix_ms();
    let ttl = u64::try_from(miss.plan.freshness.ttl.as_millis()).unwrap_or(u64::MAX);
    let meta = EntryMeta {
        stored_at_ms: now,
        expires_at_ms: now.saturating_add(ttl),
        upstream_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        route: state.route.id.clone(),
        tenant: identity.tenant.clone(),
        user: identity.user.clone(),
        model: asked.model.clone(),
        api: prompt.api,
        embed_text: prompt.embed_text.as_ref().ok().cloned(),
        replay_headers: upstream_headers::replayed(&head.headers, &state.route.cache.replay_headers),
    };
    Entry::new(miss.key, meta, answer)
}
