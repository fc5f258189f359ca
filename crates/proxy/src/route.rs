//! Second stage: which route takes a request, by its head alone.

use std::sync::Arc;
use std::time::Instant;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{Method, StatusCode};
use refrain_core::settings::{Route, RouteMatch};
use refrain_core::{Code, Role};
use refrain_plugin::Chain;
use refrain_upstream::PoolState;

use crate::auth::Caller;
use crate::crowds::Crowds;
use crate::failure::Failure;
use crate::gaps::GapStats;
use crate::head::Head;
use crate::limits::LimitState;
use crate::metrics::RouteMetrics;
use crate::paths::{PathClass, is_at_or_below};
use crate::redaction::Redaction;
use crate::repeats::Repeats;
use crate::tenancy::{self, Salts};

/// A route with what it needs at hand.
pub struct RouteState {
    /// What config says.
    pub route: Arc<Route>,
    /// Where its misses go.
    pub pool: Arc<PoolState>,
    /// Headers (lower case) that say who somebody is, and are for Refrain alone.
    pub(crate) identity_headers: Arc<[String]>,
    /// Its policies, if it has any.
    pub(crate) chain: Option<Arc<Chain>>,
    /// Who asked what lately, where that means something.
    pub(crate) repeats: Repeats,
    /// What callers may ask of it; most routes have none.
    pub(crate) limits: Vec<Arc<LimitState>>,
    /// Leaves out of prompts what must not be logged; none: prompts are not.
    pub(crate) redaction: Option<Redaction>,
    /// How many questions its stored answers served by likeness.
    pub(crate) crowds: Arc<Crowds>,
    /// Keeps tenants apart behind it.
    pub(crate) salts: Salts,
    /// Its counters.
    pub(crate) metrics: RouteMetrics,
}

impl RouteState {
    /// The same route for a request that nobody made: it counts nothing, and asks these policies.
    pub(crate) fn rehearsal(&self, chain: Option<Arc<Chain>>) -> Self {
        Self {
            route: self.route.clone(),
            pool: self.pool.clone(),
            identity_headers: self.identity_headers.clone(),
            chain,
            repeats: Repeats::new(self.route.cache.regenerate),
            limits: Vec::new(),
            redaction: None,
            crowds: Arc::default(),
            salts: self.salts,
            metrics: RouteMetrics::mute(&self.route.id),
        }
    }

    /// The most different questions that one stored answer has served by likeness of late.
    pub fn crowd(&self) -> usize {
        self.crowds.most(Instant::now())
    }

    /// The gaps between chunks of its streams.
    pub fn gaps(&self) -> GapStats {
        self.metrics.gaps()
    }
}

/// Proof that a route takes the request and that its path is open there.
pub(crate) struct Routed {
    /// The request's head.
    pub(crate) head: Head,
    /// The route.
    pub(crate) state: Arc<RouteState>,
}

/// The first route that takes the request; `routes` are in the order of `Settings::routes`.
///
/// # Errors
/// [`Code::NotFound`]: none takes it, or the path is closed; [`Code::MethodNotAllowed`]: an API by another method.
pub(crate) fn select(routes: &[Arc<RouteState>], head: Head) -> Result<Routed, Failure> {
    let method = effective_method(&head);
    let state = routes
        .iter()
        .find(|state| takes(&state.route.matches, &head, &method))
        .ok_or_else(|| Failure::new(Code::NotFound, "no route takes this host, path and method"))?;
    let listed = state.route.extra_paths.iter().any(|path| path == head.path());
    match head.class {
        PathClass::Unknown if !listed => {
            Err(Failure::new(Code::NotFound, "this path is not open; a route can list it in extra_paths"))
        }
        PathClass::Api(_) if method != Method::POST => {
            Err(Failure::new(Code::MethodNotAllowed, "this API takes POST"))
        }
        _ => Ok(Routed { state: state.clone(), head }),
    }
}

/// Refuses what only admins may do, and pools that are for others alone.
pub(crate) fn authorize(routed: &Routed, caller: &Caller) -> Result<(), Failure> {
    tenancy::admit(&routed.state.pool, caller)?;
    if !caller.entitlements.allow_own_pool(routed.state.pool.id()) {
        return Err(Failure::new(
            Code::Forbidden,
            "your organisation may not use the model servers of this route",
        ));
    }
    match (routed.head.class, caller.identity.role) {
        (PathClass::Admin, Role::Caller) => Err(Failure::new(
            Code::Forbidden,
            "this path changes or inspects a model server: it needs role admin",
        )),
        // What names its model in a way that Refrain doesn't read can't be checked.
        (PathClass::Plain | PathClass::Unknown, _) if caller.entitlements.limit_models() => {
            Err(Failure::new(
                Code::Forbidden,
                "this key is for certain models only, and this path can't be checked for its model",
            ))
        }
        _ => Ok(()),
    }
}

/// A preflight asks for another method's sake.
fn effective_method(head: &Head) -> Method {
    let asked = || head.header(&ACCESS_CONTROL_REQUEST_METHOD)?.parse().ok();
    match head.parts.method {
        Method::OPTIONS if head.parts.headers.contains_key(ORIGIN) => asked().unwrap_or(Method::OPTIONS),
        ref method => method.clone(),
    }
}

fn takes(matches: &RouteMatch, head: &Head, method: &Method) -> bool {
    mismatch(matches, head, method).is_none()
}

/// The first condition of a route that a request doesn't meet.
pub(crate) fn why_not(matches: &RouteMatch, head: &Head) -> Option<&'static str> {
    mismatch(matches, head, &effective_method(head))
}

fn mismatch(matches: &RouteMatch, head: &Head, method: &Method) -> Option<&'static str> {
    let RouteMatch { listeners, hosts, path, methods, headers } = matches;
    let has_headers = || {
        headers.iter().all(|(name, value)| {
            head.parts.headers.get(name).is_some_and(|actual| actual.as_bytes() == value.as_bytes())
        })
    };
    if !is_at_or_below(head.path(), path) {
        Some("path")
    } else if !listeners.is_empty() && !listeners.contains(&head.listener) {
        Some("listener")
    } else if !hosts.is_empty() && !hosts.iter().any(|pattern| is_host(pattern, &head.host)) {
        Some("host")
    } else if !methods.is_empty() && !methods.iter().any(|allowed| allowed == method.as_str()) {
        Some("method")
    } else if !has_headers() {
        Some("headers")
    } else {
        None
    }
}

/// `*.example.com` stands for exactly one label.
fn is_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => pattern == host,
    }
}

/// The answer to `GET /` and `HEAD /`, with which clients look whether somebody is there.
pub(crate) const ROOT: (StatusCode, &str) = (StatusCode::OK, "Refrain is running");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_host_stands_for_one_label() {
        assert!(is_host("*.example.com", "llm.example.com"));
        assert!(!is_host("*.example.com", "a.b.example.com"));
        assert!(!is_host("*.example.com", "example.com"));
        assert!(!is_host("*.example.com", ".example.com"));
        assert!(is_host("example.com", "example.com"));
    }
}
