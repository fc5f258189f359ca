//! What the stages tell of a request beside its response: for headers, metrics, spans and the access line.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Response};
use refrain_cache::Refusal;
use refrain_core::{Bypass, PluginId, Prompt, Role};
use refrain_plugin::Chain;
use refrain_plugin::verdict::Labels;
use refrain_upstream::Account;

use crate::body::Body;
use crate::cache_status::CacheStatus;
use crate::limits::{Granted, LimitFields};
use crate::paths::PathClass;
use crate::plan::Planned;
use crate::redaction::Redaction;
use crate::request::Admitted;
use crate::route::{RouteState, Routed};
use crate::trace::{StageKind, Trace};

const DEBUG_ASKED: HeaderName = HeaderName::from_static("x-refrain-debug");
const DEBUG: HeaderName = HeaderName::from_static("refrain-debug");

/// What is told of a request.
#[derive(Default)]
pub(crate) struct Note {
    /// Who took it.
    pub(crate) state: Option<Arc<RouteState>>,
    /// Whose it is, and of whom.
    pub(crate) admitted: Option<Arc<Admitted>>,
    /// What its limits granted it: settled when the answer has ended, given back when dropped.
    pub(crate) granted: Option<Granted>,
    /// Where it is put down that it was spared a generation of its own, if it joined another's.
    pub(crate) shared: Option<Arc<Account>>,
    /// What its response tells of limits.
    pub(crate) limits: Option<Box<LimitFields>>,
    /// Its place in a trace, if requests are traced.
    pub(crate) trace: Option<Box<Trace>>,
    /// What the cache did.
    pub(crate) status: Option<CacheStatus>,
    /// What was asked, on a route that logs it; to be redacted.
    pub(crate) prompt: Option<Box<str>>,
    /// A reason's token.
    pub(crate) detail: &'static str,
    /// The path's class or API.
    pub(crate) class: Option<PathClass>,
    /// Cosine similarity of the nearest stored question.
    pub(crate) similarity: Option<f32>,
    /// Why no similar question's answer was served.
    pub(crate) refusal: Option<Refusal>,
    /// Names the answer that is served, or else the one that would be stored.
    pub(crate) key: Option<[u8; 32]>,
    /// Whether the caller may see similarity, refusal and key, and asked to.
    pub(crate) debug: bool,
    /// What policies say of it; most routes have none.
    policy: Option<Box<PolicyNote>>,
}

/// What policies say of a request, for metrics and the access line.
#[derive(Default)]
struct PolicyNote {
    chain: Option<Arc<Chain>>,
    labels: Labels,
    /// The reason that one of them gave.
    reason: Option<(PluginId, Arc<str>)>,
}

impl Note {
    /// A route takes it.
    pub(crate) fn routed(&mut self, routed: &Routed) {
        self.state = Some(routed.state.clone());
        self.class = Some(routed.head.class);
    }

    /// Its caller is known.
    pub(crate) fn admitted(&mut self, admitted: &Arc<Admitted>) {
        self.debug = admitted.caller.identity.role == Role::Admin
            && admitted.routed.head.parts.headers.contains_key(DEBUG_ASKED);
        self.admitted = Some(admitted.clone());
    }

    /// Its body is understood.
    pub(crate) fn understood(&mut self, prompt: &Prompt) {
        if self.state.as_ref().is_some_and(|state| state.redaction.is_some()) {
            self.prompt = prompt.embed_text.as_deref().ok().map(Redaction::keep);
        }
        if let Some(trace) = &mut self.trace {
            trace.understood(prompt.api, &prompt.model, prompt.stream);
        }
    }

    /// It is decided what is to be done about it.
    pub(crate) fn planned(&mut self, planned: &Planned) {
        if let Some(trace) = &mut self.trace {
            trace.planned(planned.target.pool.id());
        }
    }

    /// Another pool stands in for the one that was to answer.
    pub(crate) fn fell_back(&mut self, planned: &Planned) {
        if let Some(state) = &self.state {
            state.metrics.fell_back();
        }
        if let Some(trace) = &mut self.trace {
            trace.goes_to(planned.target.pool.id());
        }
    }

    /// A stage is over, or for [`StageKind::Dispatch`] has begun.
    pub(crate) fn passed(&mut self, stage: StageKind) {
        if let Some(trace) = &mut self.trace {
            trace.passed(stage);
        }
    }

    /// What the route's policies say of it.
    pub(crate) fn policy(
        &mut self,
        chain: &Arc<Chain>,
        labels: Labels,
        reason: Option<(PluginId, Arc<str>)>,
    ) {
        self.policy = Some(Box::new(PolicyNote { chain: Some(chain.clone()), labels, reason }));
    }

    /// Why a policy has no stored answer served.
    pub(crate) fn policy_reason(&mut self, policy: PluginId, reason: Arc<str>) {
        self.policy.get_or_insert_default().reason = Some((policy, reason));
    }

    /// What a policy said for its reason, and which.
    pub(crate) fn policy_said(&self) -> Option<(&PluginId, &str)> {
        let (policy, reason) = self.policy.as_deref()?.reason.as_ref()?;
        Some((policy, reason))
    }

    /// A policy refused the request.
    pub(crate) fn refused(&mut self, policy: PluginId) {
        self.policy_reason(policy, "refused".into());
        self.detail = Bypass::Policy.as_str();
    }

    /// A policy failed, and the operator wants no answer without it.
    pub(crate) fn rejected(&mut self, reason: Bypass) {
        self.bypass(reason);
        self.status = Some(CacheStatus::Rejected(reason));
    }

    /// It goes past the cache.
    pub(crate) fn bypass(&mut self, reason: Bypass) {
        let before = self.status.replace(CacheStatus::Bypass(reason));
        self.detail = reason.as_str();
        // Where another pool stands in, the request goes past the cache once more, and is still one.
        if let Some(state) = self.state.as_ref().filter(|_| before != self.status) {
            state.metrics.bypass(reason);
        }
    }

    /// Counts it by the labels that policies gave.
    pub(crate) fn count_labels(&self, outcome: &'static str) {
        if let Some(PolicyNote { chain: Some(chain), labels, .. }) = self.policy.as_deref() {
            chain.count(labels, outcome);
        }
    }

    /// What policies say of it, for the access line: `policy: reason; name=value,name=value`.
    pub(crate) fn policy_line(&self) -> String {
        self.policy.as_deref().map(PolicyNote::line).unwrap_or_default()
    }

    /// Tells what only an admin may see: how near the nearest stored question was, why its answer was not served, and the key
    /// to purge by.
    pub(crate) fn add_debug(&self, response: &mut Response<Body>) {
        if !self.debug {
            return;
        }
        let similarity =
            self.similarity.map_or_else(|| "none".to_owned(), |similarity| format!("{similarity:.4}"));
        let refusal = self.refusal.map_or("none", Refusal::as_str);
        let key = self.key.map_or_else(|| "none".to_owned(), |key| refrain_core::hex(&key));
        let value = format!("similarity={similarity}; refusal={refusal}; key={key}");
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(DEBUG, value);
        }
    }
}

impl PolicyNote {
    fn line(&self) -> String {
        let labels = self.labels.iter().map(|(name, value)| format!("{name}={value}"));
        let labels: Vec<String> = labels.collect();
        match &self.reason {
            Some((policy, reason)) => format!("{policy}: {reason}; {}", labels.join(",")),
            None => labels.join(","),
        }
    }
}
