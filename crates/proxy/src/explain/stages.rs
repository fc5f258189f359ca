//! The stages, one after the other, as [`crate::request`] has them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderValue, Request, Version};
use refrain_cache::{Part, PartName};
use refrain_core::{Api, Bypass, Code, ListenerId};
use refrain_plugin::RequestView;

use super::lookup;
use super::{
    AskedBy, ExplainedCaller, ExplainedKey, ExplainedRequest, ExplainedUpstream, Explanation, Outcome, Texts,
};
use crate::ask::{self, Asked, Target};
use crate::auth::Caller;
use crate::cache_status::CacheStatus;
use crate::failure::Failure;
use crate::head::Head;
use crate::ingest::Whole;
use crate::key::Keyed;
use crate::note::Note;
use crate::paths::PathClass;
use crate::plan::{Meeting, Planned};
use crate::policy::Call;
use crate::request::{Admitted, Entrance};
use crate::route::{RouteState, Routed};
use crate::snapshot::{AnswerCache, Snapshot};
use crate::{affinity, cors, head, ingest, insight, key, limits, plan, request, route};

/// Longest text of a part that is told.
const TEXT_BYTES_MAX: usize = 2 * 1024;

/// Goes through the stages, and says what it finds. `refused`: what limits would refuse it with, which ends nothing here.
///
/// # Errors
/// What a client would be refused with.
pub(super) async fn pass(
    snapshot: &Snapshot,
    explained: ExplainedRequest,
    (found, refused): (&mut Explanation, &mut Option<Failure>),
) -> Result<(), Failure> {
    let head = checked(snapshot, &explained)?;
    if head.class == PathClass::Root {
        return answered_here(found);
    }
    found.routes = tried(&snapshot.routes, &head);
    let routed = route::select(&snapshot.routes, head)?;
    let live = routed.state.clone();
    let routed = rehearsed(routed).await?;
    if cors::preflight(&routed).is_some() {
        return answered_here(found);
    }
    let caller = caller(snapshot, &routed, &explained.by).await?;
    found.caller = Some(ExplainedCaller::of(&caller));
    route::authorize(&routed, &caller)?;
    let priority = snapshot.priority(&routed, &caller);
    let admitted = Arc::new(Admitted { routed, caller, priority });
    let mut look = limits::look(snapshot, &live, &admitted).await;
    (found.limits, *refused) = (std::mem::take(&mut look.limits), look.refusal.take());
    if admitted.routed.head.class == PathClass::Models {
        return answered_here(found);
    }
    let Some(api) = admitted.reads() else {
        return past_the_cache(found, Bypass::CacheOff, &Note::default());
    };
    let asked = understood(snapshot, (&admitted, api), &explained.body)?;
    look.check_length(&asked.0.request)?;
    planned(snapshot, (&admitted, &live), (asked, explained.texts), found).await
}

/// The body, as the path reads it.
fn understood(
    snapshot: &Snapshot,
    (admitted, api): (&Admitted, Api),
    body: &Bytes,
) -> Result<(Asked, Target), Failure> {
    let bounds = &snapshot.settings.limits;
    ingest::refuse_encoding(&admitted.routed.head.parts.headers)?;
    if body.len() > bounds.body_bytes_max {
        return Err(ingest::too_large(bounds.body_bytes_max));
    }
    ask::understand(api, Whole::of(body.clone()), admitted, bounds)
}

/// From the plan on: policies, where a miss would go, and what is stored.
async fn planned(
    snapshot: &Snapshot,
    (admitted, live): (&Arc<Admitted>, &RouteState),
    (asked, texts): ((Asked, Target), Texts),
    found: &mut Explanation,
) -> Result<(), Failure> {
    let mut note = Note::default();
    let (original, defaults) =
        (Arc::new(asked.0.reworded(asked.0.request.clone())), default_plan(snapshot, admitted));
    let (planned, meeting) = plan::decide(snapshot, admitted, asked, &mut note).await?;
    found.policies = said(snapshot, admitted, (original, defaults)).await;
    found.upstream = Some(upstream(admitted, &planned));
    found.plan = meeting.clone().ok();
    let (cache, keyed) = match named(snapshot, (admitted, live), (&planned, meeting)) {
        Ok(named) => named,
        Err(reason) => return past_the_cache(found, reason, &note),
    };
    found.plan = Some(keyed.plan.clone());
    found.key = Some(taken_apart(cache, &keyed, texts));
    lookup::explain(cache, keyed, (note, texts), found).await
}

/// The head as a client would have sent it.
fn checked(snapshot: &Snapshot, explained: &ExplainedRequest) -> Result<Head, Failure> {
    let listeners = &snapshot.settings.listeners;
    let listener = match &explained.listener {
        Some(id) => id.clone(),
        None => listeners.first().map_or_else(|| ListenerId::new("main"), |listener| listener.id.clone()),
    };
    head::check(&listener, &snapshot.settings.limits, parts(explained)?)
}

fn parts(explained: &ExplainedRequest) -> Result<Parts, Failure> {
    let mut http = Request::new(());
    // It names no host where nobody does.
    *http.version_mut() = Version::HTTP_10;
    *http.method_mut() = explained.method.clone();
    *http.headers_mut() = explained.headers.clone();
    *http.uri_mut() =
        explained.path.parse().map_err(|_| Failure::new(Code::BadRequest, "the path can't be read"))?;
    // Limits on tokens go by it.
    http.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(explained.body.len()));
    Ok(http.into_parts().0)
}

/// The routes up to the one that takes it.
fn tried(routes: &[Arc<RouteState>], head: &Head) -> Vec<(refrain_core::RouteId, Option<&'static str>)> {
    let mut tried = Vec::new();
    for state in routes {
        let why_not = route::why_not(&state.route.matches, head);
        tried.push((state.route.id.clone(), why_not));
        if why_not.is_none() {
            break;
        }
    }
    tried
}

/// The same with a route that counts nothing.
async fn rehearsed(routed: Routed) -> Result<Routed, Failure> {
    let chain = match &routed.state.chain {
        None => None,
        Some(chain) => Some(Arc::new(chain.rehearsal().await.map_err(|why| {
            Failure::new(Code::PolicyFailed, format!("the route's policies can't be rehearsed: {why}"))
        })?)),
    };
    Ok(Routed { state: Arc::new(routed.state.rehearsal(chain)), head: routed.head })
}

async fn caller(snapshot: &Snapshot, routed: &Routed, by: &AskedBy) -> Result<Caller, Failure> {
    match by {
        AskedBy::Headers => {
            // Nobody connects.
            let peer = Ipv4Addr::UNSPECIFIED.into();
            let entrance = Entrance { listener: routed.head.listener.clone(), peer, certificate: None };
            request::identify(snapshot, routed, &entrance).await
        }
        AskedBy::Key(id) => snapshot
            .auth
            .of_key(id)
            .ok_or_else(|| Failure::new(Code::Unauthorized, format!("config has no key named {id:?}"))),
        AskedBy::Identity(identity) => Ok(Caller::of(identity.clone())),
    }
}

impl ExplainedCaller {
    fn of(caller: &Caller) -> Self {
        Self {
            identity: (*caller.identity).clone(),
            key: caller.key.clone(),
            models: caller.entitlements.models().to_vec(),
            pools: caller.entitlements.pools().to_vec(),
        }
    }
}

fn default_plan(snapshot: &Snapshot, admitted: &Admitted) -> refrain_core::Plan {
    let route = &admitted.state().route;
    plan::of_route(route, &snapshot.settings.store, &admitted.routed.head.parts.headers)
}

/// What each policy says on its own.
async fn said(
    snapshot: &Snapshot,
    admitted: &Arc<Admitted>,
    (asked, defaults): (Arc<Asked>, refrain_core::Plan),
) -> Vec<super::Said> {
    let Some(chain) = &admitted.state().chain else { return Vec::new() };
    let call: Arc<dyn RequestView> =
        Arc::new(Call::new(admitted.clone(), asked, defaults, snapshot.cache.clone()));
    let mut said = Vec::new();
    for (policy, alone) in chain.each() {
        said.push((policy.clone(), alone.on_request(&call).await));
    }
    said
}

fn upstream(admitted: &Admitted, planned: &Planned) -> ExplainedUpstream {
    let target = &planned.target;
    ExplainedUpstream {
        pool: target.pool.id().clone(),
        model: target.model.clone(),
        servers: target.pool.preview(&affinity::demand(admitted, planned)),
        fallback: target.pool.config().fallback.clone(),
    }
}

/// The request's name, and whether its user has just asked the same: the live route knows that.
fn named<'s>(
    snapshot: &'s Snapshot,
    (admitted, live): (&Arc<Admitted>, &RouteState),
    (planned, meeting): (&Arc<Planned>, Meeting),
) -> Result<(&'s Arc<AnswerCache>, Keyed), Bypass> {
    let plan = meeting?;
    let cache = snapshot.cache.as_ref().ok_or(Bypass::CacheOff)?;
    let mut keyed = key::name(cache, admitted.clone(), planned.clone(), plan)?;
    if live.repeats.would_repeat(&keyed.key, &admitted.caller.identity, Instant::now()) {
        keyed.plan.directives.no_cache = true;
    }
    Ok((cache, keyed))
}

fn taken_apart(cache: &AnswerCache, keyed: &Keyed, texts: Texts) -> ExplainedKey {
    let mut parts: Vec<(Part, Option<String>)> = Vec::new();
    let told = keyed.dissect(cache, &mut |name, text| {
        let is_text = !matches!(name, PartName::Scope | PartName::Policy);
        let told = (texts == Texts::Shown && is_text).then(|| shown(text));
        parts.push((cache.part(name, text), told));
    });
    // The key could be made, so that the scope is filled.
    debug_assert!(told.is_ok());
    let narrow = keyed.narrow.map(|narrow| narrow.key);
    let question = insight::question(cache, keyed);
    ExplainedKey { key: keyed.key.key, narrow, question, partition: keyed.key.partition, parts }
}

/// A text's start.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

fn answered_here(found: &mut Explanation) -> Result<(), Failure> {
    found.outcome =
        Outcome::Answered { cache_status: None, bypass: None, refusal: None, policy: None, fresh_for: None };
    Ok(())
}

fn past_the_cache(found: &mut Explanation, reason: Bypass, note: &Note) -> Result<(), Failure> {
    let header = CacheStatus::Bypass(reason).header();
    found.outcome = Outcome::Answered {
        cache_status: header.to_str().ok().map(str::to_owned),
        bypass: Some(reason),
        refusal: None,
        policy: note.policy_said().map(|(policy, said)| (policy.clone(), said.to_owned())),
        fresh_for: None,
    };
    Ok(())
}
