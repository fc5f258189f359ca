//! Sixth stage: what to do about caching. For now the route's own settings; policies will narrow them here.

use http::HeaderMap;
use refrain_core::settings::{Route, Sampled, Store};
use refrain_core::{Bypass, Freshness, Plan, Prompt, SemanticPlan};

use crate::directives;

/// The plan for one request.
///
/// # Errors
/// Why it is neither looked up nor stored.
pub(crate) fn decide(
    route: &Route,
    store: &Store,
    headers: &HeaderMap,
    prompt: &Prompt,
) -> Result<Plan, Bypass> {
    let cache = &route.cache;
    if !cache.enabled {
        return Err(Bypass::CacheOff);
    }
    if let Some(reason) = prompt.bypass {
        return Err(reason);
    }
    if prompt.sampled && cache.sampled == Sampled::Skip {
        return Err(Bypass::Sampled);
    }
    let Store::Embedded(store) = store else { return Err(Bypass::CacheOff) };
    Ok(Plan {
        scope: cache.scope.clone(),
        semantic: cache.semantic.as_ref().map(|semantic| SemanticPlan {
            threshold: semantic.threshold,
            candidates: semantic.candidates,
            vetoes: semantic.vetoes.clone(),
            shadow: semantic.shadow,
        }),
        freshness: Freshness { ttl: cache.ttl },
        collapse: cache.collapse,
        store_tool_offers: cache.store_tool_offers,
        entry_bytes_max: store.entry_bytes_max,
        directives: directives::read(headers, cache.directives, &cache.scope),
    })
}
