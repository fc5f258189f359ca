//! The `Cache-Status` field of RFC 9211: what the cache did with a request.

use std::fmt::Write;
use std::sync::LazyLock;

use http::HeaderValue;
use refrain_cache::Place;
use refrain_core::Bypass;

use crate::metrics::Outcome;

/// What the cache did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheStatus {
    /// Answered from an entry; seconds left until it expires.
    Hit {
        /// By which tier.
        tier: Tier,
        /// From which store.
        place: Place,
        /// Whether its time is over.
        staleness: Staleness,
        /// Seconds left; below zero once its time is over.
        ttl_s: i64,
    },
    /// Asked the upstream: nothing usable was stored.
    Miss,
    /// Asked the upstream, since a policy would not have a stored answer served.
    Refused,
    /// Asked the upstream: what was stored is past its time.
    Stale,
    /// Joined another request's generation.
    Collapsed,
    /// Asked the upstream, though a fresh entry existed: the request forbade it.
    Request,
    /// Neither looked up nor stored.
    Bypass(Bypass),
    /// `only-if-cached` and nothing was stored: neither hit nor forwarded.
    NotCached,
    /// A policy failed, and the operator wants no answer without it: neither hit nor forwarded.
    Rejected(Bypass),
}

/// Whether a served entry's time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Staleness {
    /// It was not.
    Fresh,
    /// It is being refreshed.
    WhileRevalidating,
    /// No upstream could answer.
    IfError,
}

/// Which tier answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// The same question.
    Exact,
    /// A question with the same meaning.
    Semantic,
}

impl Tier {
    /// The token in headers, logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Semantic => "semantic",
        }
    }

    /// The token in headers for what the shared store had to be asked for.
    fn as_shared_str(self) -> &'static str {
        match self {
            Self::Exact => "exact_shared",
            Self::Semantic => "semantic_shared",
        }
    }
}

impl CacheStatus {
    /// The field's value.
    pub(crate) fn header(self) -> HeaderValue {
        match self {
            Self::Hit { tier, place, staleness, ttl_s } => {
                let detail = match (staleness, place) {
                    (Staleness::Fresh, Place::Near) => tier.as_str(),
                    (Staleness::Fresh, Place::Shared) => tier.as_shared_str(),
                    (Staleness::WhileRevalidating, _) => "stale_while_revalidate",
                    (Staleness::IfError, _) => "stale_if_error",
                };
                let mut value = String::with_capacity(64);
                // Writing to a String can't fail.
                let _ = write!(value, "refrain; hit; ttl={ttl_s}; detail={detail}");
                HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("refrain; hit"))
            }
            Self::Miss => HeaderValue::from_static("refrain; fwd=miss"),
            Self::Refused => HeaderValue::from_static("refrain; fwd=miss; detail=policy"),
            Self::Stale => HeaderValue::from_static("refrain; fwd=stale"),
            Self::Collapsed => HeaderValue::from_static("refrain; fwd=miss; collapsed"),
            Self::Request => HeaderValue::from_static("refrain; fwd=request"),
            Self::Bypass(reason) => bypass_header(reason),
            Self::NotCached => HeaderValue::from_static("refrain"),
            Self::Rejected(reason) => HeaderValue::try_from(format!("refrain; detail={}", reason.as_str()))
                .unwrap_or(HeaderValue::from_static("refrain")),
        }
    }

    /// The outcome in metrics and logs.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Hit { staleness: Staleness::WhileRevalidating | Staleness::IfError, .. } => {
                Outcome::HitStale
            }
            Self::Hit { tier: Tier::Exact, .. } => Outcome::HitExact,
            Self::Hit { tier: Tier::Semantic, .. } => Outcome::HitSemantic,
            Self::Miss | Self::Refused | Self::Stale => Outcome::Miss,
            Self::Collapsed => Outcome::Collapsed,
            Self::Request => Outcome::Request,
            Self::Bypass(_) => Outcome::Bypass,
            Self::NotCached | Self::Rejected(_) => Outcome::Error,
        }
    }
}

/// Made once a reason: routes that don't cache send it with every response.
fn bypass_header(reason: Bypass) -> HeaderValue {
    static HEADERS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
        let value = |reason: &Bypass| format!("refrain; fwd=bypass; detail={}", reason.as_str());
        Bypass::ALL.iter().filter_map(|reason| HeaderValue::try_from(value(reason)).ok()).collect()
    });
    HEADERS.get(reason as usize).cloned().unwrap_or(HeaderValue::from_static("refrain; fwd=bypass"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_never_says_fwd_and_a_forward_never_says_hit() {
        let all = [
            CacheStatus::Hit { tier: Tier::Exact, place: Place::Near, staleness: Staleness::Fresh, ttl_s: 7 },
            CacheStatus::Hit {
                tier: Tier::Semantic,
                place: Place::Near,
                staleness: Staleness::WhileRevalidating,
                ttl_s: -3,
            },
            CacheStatus::Hit {
                tier: Tier::Exact,
                place: Place::Near,
                staleness: Staleness::IfError,
                ttl_s: -4,
            },
            CacheStatus::Refused,
            CacheStatus::Stale,
            CacheStatus::Rejected(Bypass::PolicyTimedOut),
            CacheStatus::Miss,
            CacheStatus::Collapsed,
            CacheStatus::Request,
            CacheStatus::Bypass(Bypass::NoUser),
            CacheStatus::NotCached,
        ];
        for status in all {
            let value = status.header();
            let value = value.to_str().unwrap();
            assert!(value.starts_with("refrain"));
            assert!(!(value.contains("hit") && value.contains("fwd")), "{value}");
        }
        assert_eq!(all[0].header(), "refrain; hit; ttl=7; detail=exact");
        assert_eq!(all[1].header(), "refrain; hit; ttl=-3; detail=stale_while_revalidate");
        assert_eq!(all[2].header(), "refrain; hit; ttl=-4; detail=stale_if_error");
        assert_eq!(all[5].header(), "refrain; detail=policy_timed_out");
        assert_eq!(CacheStatus::Bypass(Bypass::NoUser).header(), "refrain; fwd=bypass; detail=no_user");
        assert_eq!(CacheStatus::NotCached.header(), "refrain");
        for &reason in Bypass::ALL {
            let expected = format!("refrain; fwd=bypass; detail={}", reason.as_str());
            assert_eq!(CacheStatus::Bypass(reason).header(), expected);
        }
    }
}
