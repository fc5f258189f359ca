//! How a pool's requests are spread over its endpoints, bounded, and kept apart.

use std::time::Duration;

use super::PoolKind;
use crate::TenantId;

/// Which endpoint of a pool is asked.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Balance {
    /// The one that most likely has the prompt's prefix in its own cache.
    #[default]
    Prefix,
    /// The same one for the same value.
    Hash(HashBy),
    /// The one of two at random with fewer outstanding prompt tokens.
    LeastLoad,
    /// Each in turn.
    RoundRobin,
}

/// What [`Balance::Hash`] goes by. The tenant always belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// A request header, lower case.
    Header(String),
    /// The value at a JSON pointer of the body.
    Field(String),
    /// The verified user.
    User,
    /// What [`Sessions`] find.
    Session,
}

/// Where clients say which conversation a request belongs to. The first that is there counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// Request headers, lower case.
    pub headers: Vec<String>,
    /// JSON pointers into the body.
    pub fields: Vec<String>,
}

impl Default for Sessions {
    /// Headers of vLLM and Open WebUI, and OpenAI's field.
    fn default() -> Self {
        Self {
            headers: vec!["x-session-id".into(), "x-openwebui-chat-id".into()],
            fields: vec!["/prompt_cache_key".into(), "/session_id".into()],
        }
    }
}

/// How much a pool takes. Limits are those of the fleet: several proxies divide them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Requests in flight an endpoint; more wait in the pool's queue.
    pub concurrency: u32,
    /// Requests that an endpoint computes side by side (`--max-num-seqs`, `-np`, `OLLAMA_NUM_PARALLEL`): up to so many, a
    /// request is never sent away from its preferred endpoint for the sake of balance.
    pub parallelism: u32,
    /// Requests that wait for an endpoint; one more is refused.
    pub queue_max: usize,
    /// Longest wait.
    pub queue_timeout: Duration,
}

impl Admission {
    /// What holds for servers of this kind where config says nothing else: an Ollama computes few requests side by side.
    pub fn of(kind: PoolKind) -> Self {
        match kind {
            PoolKind::Generic => Self::default(),
            PoolKind::Ollama => Self { parallelism: 8, ..Self::default() },
        }
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self { concurrency: 256, parallelism: 16, queue_max: 1024, queue_timeout: Duration::from_secs(30) }
    }
}

/// How it is noticed that an endpoint can't answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// How often each endpoint is asked for its models; none: never, only answers tell.
    pub interval: Option<Duration>,
    /// How long a first ejection lasts; the nth lasts n times as long.
    pub ejection: Duration,
    /// Over how long a new or returned endpoint gets its full share.
    pub slow_start: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(2)),
            ejection: Duration::from_secs(10),
            slow_start: Duration::from_secs(15),
        }
    }
}

/// How tenants are kept apart in the prefix caches of a pool's endpoints, whose timing tells what somebody else has asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenancy {
    /// vLLM's `cache_salt` is set, from a keyed hash of the tenant.
    Salted,
    /// The pool serves this tenant alone.
    Dedicated(TenantId),
    /// They aren't.
    Shared,
}

/// What the process knows of others of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Proxies in front of the same endpoints, this one included, as far as no shared store counts them.
    pub proxies: u32,
}

impl Default for Fleet {
    fn default() -> Self {
        Self { proxies: 1 }
    }
}
