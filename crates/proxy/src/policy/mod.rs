//! What the route's policies are told, and what becomes of what they say.
//!
//! `refrain-plugin` runs them and keeps them within the operator's bounds; here their answers meet a request: names become
//! bytes of a key, edits a body, an upstream's name a pool that the caller may use.

mod candidates;
mod parts;
mod response;
mod view;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use refrain_core::settings::Limits;
use refrain_core::{Bypass, Code, Edit, Plan};
use refrain_plugin::verdict::{Bypassed, Contexts, Decision, Failed, Planned as Said, Refusal, Upstream};
use refrain_plugin::{Chain, RequestView};
use refrain_upstream::Upstreams;

use crate::ask::{self, Asked, Target};
use crate::failure::Failure;
use crate::note::Note;
use crate::plan::{Meeting, Planned};
use crate::request::Admitted;
use crate::snapshot::Snapshot;
use crate::tenancy;

pub(crate) use candidates::{Choice, Seen, choose, choose_exact};
pub(crate) use parts::Part;
pub(crate) use response::Answered;
pub(crate) use view::Call;

/// What the route's policies want of a request that is cached.
pub(crate) struct Policed {
    /// The policies.
    pub(crate) chain: Arc<Chain>,
    /// What they are shown of the request.
    pub(crate) call: Arc<dyn RequestView>,
    /// What each wants to be told in its later hooks.
    pub(crate) contexts: Contexts,
    /// What they add to the key, in order.
    pub(crate) key: Vec<Part>,
}

/// Asks the policies, and follows them as far as the caller's rights go.
///
/// # Errors
/// One refuses the request; one failed, and the operator wants no answer without it; what they made of the request can't be
/// sent; the caller has no right to the model or pool that they chose.
pub(crate) async fn decide(
    snapshot: &Snapshot,
    admitted: &Arc<Admitted>,
    chain: &Arc<Chain>,
    (asked, target, plan, bypass): (Arc<Asked>, Target, Plan, Option<Bypass>),
    note: &mut Note,
) -> Result<(Arc<Planned>, Meeting), Failure> {
    let call: Arc<dyn RequestView> =
        Arc::new(Call::new(admitted.clone(), asked.clone(), plan, snapshot.cache.clone()));
    let upstreams = &snapshot.upstreams;
    let decided =
        Decided { upstreams, limits: &snapshot.settings.limits, admitted, asked: &asked, call: &call };
    match chain.on_request(&call).await {
        Ok(Decision::Cache(said)) => {
            note.policy(chain, said.labels.clone(), None);
            let (planned, plan) = decided.cached(chain, *said)?;
            Ok((Arc::new(planned), bypass.map_or(Ok(plan), Err)))
        }
        Ok(Decision::Bypass(said)) => {
            let Bypassed { policy, reason, upstream, labels } = said;
            note.policy(chain, labels, Some((policy, reason)));
            let target = decided.target(&upstream)?;
            Ok((Planned::as_asked(asked, target), Err(bypass.unwrap_or(Bypass::Policy))))
        }
        Ok(Decision::Refuse(refusal)) => Err(refused(refusal, note)),
        Err(Failed::Bypass { reason, .. }) => Ok((Planned::as_asked(asked, target), Err(reason))),
        Err(Failed::Reject { reason, .. }) => {
            note.rejected(reason);
            Err(Failure::new(Code::PolicyFailed, "a policy of this route failed; try again shortly"))
        }
    }
}

/// One request while what its policies said is followed.
pub(crate) struct Decided<'a> {
    /// Pools to choose from.
    pub(crate) upstreams: &'a Upstreams,
    /// Bounds of a body that was edited.
    pub(crate) limits: &'a Limits,
    /// Who asks.
    pub(crate) admitted: &'a Admitted,
    /// What the client asked.
    pub(crate) asked: &'a Arc<Asked>,
    /// What policies are shown of it.
    pub(crate) call: &'a Arc<dyn RequestView>,
}

impl Decided<'_> {
    /// Follows a plan: the caller's rights hold, edits are made, named parts looked up.
    pub(crate) fn cached(&self, chain: &Arc<Chain>, said: Said) -> Result<(Planned, Plan), Failure> {
        let Said { plan, key_add, edits, upstream, labels: _, contexts } = said;
        let target = self.target(&upstream)?;
        let sent = self.edited(edits.iter().filter(|edit| edit.send_upstream))?;
        let asked = if edits.iter().all(|edit| edit.send_upstream) {
            sent.clone()
        } else {
            self.edited(edits.iter())?
        };
        let key = self.parts(&key_add, &asked, &target);
        let policed = Policed { chain: chain.clone(), call: self.call.clone(), contexts, key };
        Ok((Planned { asked, sent, target, policed: Some(Arc::new(policed)) }, plan))
    }

    /// The request with the edits, or the same one where they change nothing.
    fn edited<'e>(&self, edits: impl Iterator<Item = &'e Edit>) -> Result<Arc<Asked>, Failure> {
        let Some(body) = self.asked.request.edited(edits) else { return Ok(self.asked.clone()) };
        let request = ask::read(self.asked.request.prompt.api, &body, self.limits);
        let request = request.map_err(|error| {
            // What it was to leave out must not go upstream, so there is nothing to fall back to.
            tracing::warn!(route = %self.admitted.state().route.id, %error, "a policy's edits leave no valid request");
            Failure::new(Code::PolicyFailed, "a policy of this route made the request invalid")
        })?;
        Ok(Arc::new(self.asked.reworded(request)))
    }

    /// Where a miss goes, within the caller's rights.
    pub(crate) fn target(&self, upstream: &Upstream) -> Result<Target, Failure> {
        let caller = &self.admitted.caller;
        let pool = match &upstream.pool {
            None => self.admitted.state().pool.clone(),
            Some(id) => {
                let pool = self.upstreams.pool(id).cloned().ok_or_else(|| {
                    tracing::warn!(route = %self.admitted.state().route.id, pool = %id, "a policy chose a pool that isn't there");
                    Failure::new(Code::PolicyFailed, "a policy of this route chose a pool that isn't there")
                })?;
                if !caller.entitlements.allow_pool(id) {
                    return Err(Failure::new(
                        Code::Forbidden,
                        "this key can't use the pool that the route chose",
                    ));
                }
                tenancy::admit(&pool, caller)?;
                pool
            }
        };
        let named = &self.asked.request.prompt.model;
        let model = match &upstream.model {
            Some(model) if ask::may_ask(caller, &[model]) => model.clone(),
            None if ask::may_ask(caller, &[named, ask::alias(&pool, named)]) => {
                ask::alias(&pool, named).to_owned()
            }
            _ => return Err(ask::not_entitled()),
        };
        let mut target = Target { pool, model, routing_key: None };
        if !upstream.routing_key.is_empty() {
            let parts = self.parts(&upstream.routing_key, self.asked, &target);
            target.routing_key = Some(parts::routing_key(&caller.identity.tenant, &parts));
        }
        Ok(target)
    }

    fn parts(&self, named: &[refrain_core::KeyPart], asked: &Asked, target: &Target) -> Vec<Part> {
        named.iter().map(|part| Part::resolve(part, self.call.as_ref(), asked, target)).collect()
    }
}

fn refused(refusal: Refusal, note: &mut Note) -> Failure {
    let Refusal { policy, status, message, retry_after_s } = refusal;
    tracing::debug!(%policy, status, "a policy refused a request");
    note.refused(policy);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
    Failure::new(Code::PolicyRefused, message).with_status(status, retry_after_s)
}

/// Bytes that policies may be shown a call.
pub(crate) const BODY_BYTES_MAX: u32 = 1024 * 1024;

/// At most this range of a body, within its bounds.
pub(crate) fn slice(body: &Bytes, offset: u32, len: u32) -> &[u8] {
    let start = (offset as usize).min(body.len());
    let end = start.saturating_add(len.min(BODY_BYTES_MAX) as usize).min(body.len());
    &body[start..end]
}
