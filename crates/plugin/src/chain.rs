//! The policies of a route, as one: each is asked in its order, and what they say is merged.

use std::sync::Arc;
use std::time::Duration;

use refrain_core::settings::{OnError, Route};
use refrain_core::{Bypass, Plan, PluginId};

use crate::answer::{Answer, BypassWanted, Judged, RefusalWanted, Stored};
use crate::hook::{Failure, Hook, cut};
use crate::instance::Stillborn;
use crate::merge::{Bounds, Conflict, KeepMerge, Merge};
use crate::policy::Policy;
use crate::verdict::{Bypassed, Candidate, Contexts, Decision, Failed, Labels, Outcome, Refusal, Verdict};
use crate::view::{CandidatesView, RequestView, ResponseView};

/// Of a candidate's text that guests are told, in bytes.
const SOURCE_BYTES_MAX: usize = 2 * 1024;
/// For the instance of a rehearsal, when all are taken.
const REHEARSAL_WAIT: Duration = Duration::from_secs(1);

/// The policies of a route, as one. Cheap to share; dropped with the snapshot that holds it.
///
/// Its calls need a tokio runtime with timers. They return at once where a policy is quick, and yield each millisecond where
/// it is not.
pub struct Chain {
    identity: [u8; 32],
    policies: Vec<Arc<Policy>>,
    bounds: Bounds,
}

impl Chain {
    pub(crate) fn new(policies: Vec<Arc<Policy>>, route: &Route) -> Self {
        Self { identity: identity(&policies), policies, bounds: Bounds::of(route) }
    }

    /// Digest of the components and their configs, in order: part of every key of the route.
    pub fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    /// Whether any policy wants to see candidates.
    pub fn validates(&self) -> bool {
        self.policies.iter().any(|policy| policy.validates())
    }

    /// Whether any policy wants to see answers before they are stored.
    pub fn judges(&self) -> bool {
        self.policies.iter().any(|policy| policy.judges())
    }

    /// The same policies for requests that nobody made: what they are asked is counted nowhere, logged nowhere and changes
    /// nothing that the real ones keep.
    ///
    /// # Errors
    /// A policy can't be started: what went wrong.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn rehearsal(&self) -> Result<Self, String> {
        let mut policies = Vec::with_capacity(self.policies.len());
        for policy in &self.policies {
            let copy = policy.rehearsal(REHEARSAL_WAIT).await.map_err(|why| {
                let plugin = &policy.site().plugin;
                match why {
                    Stillborn::Refused(message) => format!("policy {plugin}: {message}"),
                    Stillborn::Failed(failure) => format!("policy {plugin}: {failure}"),
                }
            })?;
            policies.push(Arc::new(copy));
        }
        Ok(Self { identity: self.identity, policies, bounds: self.bounds.clone() })
    }

    /// Each policy alone, in their order.
    pub fn each(&self) -> impl Iterator<Item = (&PluginId, Self)> {
        self.policies.iter().map(|policy| {
            let (policies, bounds) = (vec![policy.clone()], self.bounds.clone());
            (&policy.site().plugin, Self { identity: self.identity, policies, bounds })
        })
    }

    /// What is to be done with a request. Every policy is asked, in order, until one refuses or fails in a way that does.
    ///
    /// # Errors
    /// [`Failed`] where a policy failed and may not be passed over, or where two contradict each other.
    ///
    /// # Cancel safety
    /// Safe: the instance that was at work is thrown away.
    pub async fn on_request(&self, request: &Arc<dyn RequestView>) -> Result<Decision, Failed> {
        let mut asked = Asked::new(self.policies.len());
        for policy in &self.policies {
            match policy.on_request(request).await {
                Ok(Answer::Refuse(refusal)) => return Ok(refuse(policy, refusal)),
                Ok(answer) => self.take(&mut asked, policy, answer, request.defaults())?,
                Err(reason) => asked.fail(policy, reason)?,
            }
        }
        asked.into_decision(request.defaults())
    }

    /// Which of the candidates, of which there is at least one, is served. `contexts` is what [`Chain::on_request`]
    /// planned. The first policy with the hook sees all of them, each next one only the accepted one. A policy that fails
    /// accepts none.
    ///
    /// # Cancel safety
    /// Safe, as [`Chain::on_request`].
    pub async fn on_candidates(
        &self,
        request: &Arc<dyn RequestView>,
        contexts: &Contexts,
        candidates: &Arc<dyn CandidatesView>,
    ) -> Verdict {
        let mut list = candidates.list();
        list.iter_mut().for_each(|candidate| cut(&mut candidate.source_text, SOURCE_BYTES_MAX));
        let mut accepted = Accepted { list, view: candidates.clone(), index: 0 };
        for (n, policy) in self.policies.iter().enumerate().filter(|(_, policy)| policy.validates()) {
            let (view, list) = (accepted.view.clone(), accepted.list.clone());
            match policy.on_candidates(request, context(contexts, n), view, list).await {
                Ok(Judged::Accept(index)) => accepted.narrow(index as usize),
                Ok(Judged::Miss(said)) => {
                    let reason = policy.site().meters.reason(Hook::OnCandidates, &said);
                    return Verdict::Miss { policy: policy.site().plugin.clone(), reason };
                }
                Err(_) => {
                    return Verdict::Miss { policy: policy.site().plugin.clone(), reason: "failed".into() };
                }
            }
        }
        Verdict::Accept(accepted.index)
    }

    /// How a finished answer is stored; never for longer or for more callers than `plan` says.
    ///
    /// # Cancel safety
    /// Safe, as [`Chain::on_request`].
    pub async fn on_response(
        &self,
        request: &Arc<dyn RequestView>,
        contexts: &Contexts,
        plan: &Plan,
        response: &Arc<dyn ResponseView>,
    ) -> Outcome {
        let mut merge = KeepMerge::new(plan);
        for (n, policy) in self.policies.iter().enumerate().filter(|(_, policy)| policy.judges()) {
            let id = || policy.site().plugin.clone();
            match policy.on_response(request, context(contexts, n), response).await {
                Ok(None) => {}
                Ok(Some(Stored::Skip(said))) => {
                    let reason = policy.site().meters.reason(Hook::OnResponse, &said);
                    return Outcome::Skip { policy: id(), reason };
                }
                Ok(Some(Stored::Keep(wanted))) => {
                    if let Err(conflict) = merge.keep(wanted) {
                        tell(policy, Hook::OnResponse, conflict);
                        return Outcome::Failed { policy: id() };
                    }
                }
                Err(_) => return Outcome::Failed { policy: id() },
            }
        }
        Outcome::Keep(merge.into_keep())
    }

    /// Counts a request's outcome ("hit", "miss", ...) by those of its labels that its policies declared.
    pub fn count(&self, labels: &Labels, outcome: &'static str) {
        for policy in &self.policies {
            policy.site().meters.outcome(labels, outcome);
        }
    }

    /// Takes what one policy says of a request.
    fn take(
        &self,
        asked: &mut Asked,
        policy: &Arc<Policy>,
        answer: Answer,
        defaults: &Plan,
    ) -> Result<(), Failed> {
        let site = policy.site();
        let merged = match answer {
            Answer::Cache(mut wanted) => {
                site.meters.clamped(self.bounds.clamp(&mut wanted, defaults, &site.grants));
                asked.contexts.push(std::mem::take(&mut wanted.context));
                asked.merge.plan(*wanted, defaults)
            }
            Answer::Bypass(BypassWanted { reason, upstream, labels }) => {
                let reason = site.meters.reason(Hook::OnRequest, &reason);
                asked.contexts.push(String::new());
                asked.bypass.get_or_insert((policy.clone(), reason));
                asked.merge.way(upstream, labels)
            }
            // Told before it gets here.
            Answer::Refuse(_) => Ok(()),
        };
        merged.or_else(|conflict| {
            tell(policy, Hook::OnRequest, conflict);
            self.conflict(asked, policy)
        })
    }

    /// Two policies contradict each other: the strictest `on_error` of the route decides, and passing one over is none.
    fn conflict(&self, asked: &mut Asked, policy: &Arc<Policy>) -> Result<(), Failed> {
        let id = policy.site().plugin.clone();
        if self.policies.iter().any(|policy| policy.on_error() == OnError::Reject) {
            return Err(Failed::Reject { policy: id, reason: Bypass::PolicyConflict });
        }
        let failed = Failed::Bypass { policy: id, reason: Bypass::PolicyConflict };
        asked.failed.get_or_insert(failed);
        Ok(())
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let policies: Vec<_> = self.policies.iter().map(|policy| policy.site().plugin.as_str()).collect();
        f.debug_struct("Chain").field("policies", &policies).finish_non_exhaustive()
    }
}

/// What the policies asked so far say.
struct Asked {
    merge: Merge,
    contexts: Vec<String>,
    bypass: Option<(Arc<Policy>, Arc<str>)>,
    failed: Option<Failed>,
}

impl Asked {
    fn new(policies: usize) -> Self {
        Self { merge: Merge::default(), contexts: Vec::with_capacity(policies), bypass: None, failed: None }
    }

    /// Takes a failure as the policy's `on_error` says: later ones are still asked, since they may refuse.
    fn fail(&mut self, policy: &Policy, reason: Bypass) -> Result<(), Failed> {
        self.contexts.push(String::new());
        let id = policy.site().plugin.clone();
        match policy.on_error() {
            OnError::Static => {}
            OnError::Reject => return Err(Failed::Reject { policy: id, reason }),
            OnError::Bypass => {
                self.failed.get_or_insert(Failed::Bypass { policy: id, reason });
            }
        }
        Ok(())
    }

    fn into_decision(self, defaults: &Plan) -> Result<Decision, Failed> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        Ok(match self.bypass {
            Some((policy, reason)) => {
                let (upstream, labels) = self.merge.into_way();
                let policy = policy.site().plugin.clone();
                Decision::Bypass(Bypassed { policy, reason, upstream, labels })
            }
            None => Decision::Cache(Box::new(self.merge.into_planned(defaults, self.contexts.into()))),
        })
    }
}

/// The candidates that are still in question, and where the first of them stands among all.
struct Accepted {
    list: Vec<Candidate>,
    view: Arc<dyn CandidatesView>,
    index: usize,
}

impl Accepted {
    fn narrow(&mut self, index: usize) {
        self.index += index;
        self.list = self.list.drain(..).skip(index).take(1).collect();
        let one = One { all: self.view.clone(), index: u32::try_from(index).unwrap_or(u32::MAX) };
        self.view = Arc::new(one);
    }
}

/// One candidate, as if there were no others.
struct One {
    all: Arc<dyn CandidatesView>,
    index: u32,
}

impl CandidatesView for One {
    fn list(&self) -> Vec<Candidate> {
        self.all.list().into_iter().skip(self.index as usize).take(1).collect()
    }

    fn evidence(&self, index: u32, name: &str) -> Option<f32> {
        (index == 0).then(|| self.all.evidence(self.index, name)).flatten()
    }

    fn answer(&self, index: u32, max_bytes: u32) -> Option<String> {
        (index == 0).then(|| self.all.answer(self.index, max_bytes)).flatten()
    }
}

fn refuse(policy: &Policy, refusal: RefusalWanted) -> Decision {
    let RefusalWanted { status, message, retry_after_s } = refusal;
    Decision::Refuse(Refusal { policy: policy.site().plugin.clone(), status, message, retry_after_s })
}

fn tell(policy: &Policy, hook: Hook, Conflict(what): Conflict) {
    let message = format!("another policy of the route says otherwise: {what}");
    policy.site().failed(hook, &Failure::new(Bypass::PolicyConflict, message));
}

fn context(contexts: &Contexts, n: usize) -> &str {
    contexts.get(n).map_or("", String::as_str)
}

fn identity(policies: &[Arc<Policy>]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("refrain 2026 policies of a route v1");
    for policy in policies {
        hasher.update(policy.sha256());
        hasher.update(&(policy.config().len() as u64).to_le_bytes());
        hasher.update(policy.config().as_bytes());
    }
    *hasher.finalize().as_bytes()
}
