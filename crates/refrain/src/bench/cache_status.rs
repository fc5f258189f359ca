//! What `Cache-Status` (RFC 9211) says of an answer.

use http::HeaderMap;

/// Where an answer came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Served {
    /// The same question was asked before.
    Exact,
    /// A question that means the same was asked before.
    Semantic,
    /// Older than it should be, and served all the same.
    Stale,
    /// The same question was being answered.
    Collapsed,
    /// Generated.
    Miss,
    /// Generated because the request said so.
    Request,
    /// Generated past the cache.
    Bypass,
    /// The header is not there, or says nothing of this.
    #[default]
    Unknown,
}

impl Served {
    /// All, in the order of reports.
    pub(crate) const ALL: [Self; 8] = [
        Self::Exact,
        Self::Semantic,
        Self::Stale,
        Self::Collapsed,
        Self::Miss,
        Self::Request,
        Self::Bypass,
        Self::Unknown,
    ];

    /// The name in reports.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Semantic => "semantic",
            Self::Stale => "stale",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Bypass => "bypass",
            Self::Unknown => "unknown",
        }
    }
}

/// Where an answer came from, and the word that explains it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheStatus {
    /// Where from.
    pub(crate) served: Served,
    /// Why it bypassed the cache.
    pub(crate) bypass: Option<String>,
}

impl CacheStatus {
    /// From an answer's headers: the word of the cache nearest to this client, which comes last.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let last = headers.get_all("cache-status").iter().next_back().and_then(|value| value.to_str().ok());
        last.map(Self::parse).unwrap_or_default()
    }

    fn parse(value: &str) -> Self {
        let nearest = value.rsplit(',').next().unwrap_or_default();
        let mut parameters = nearest.split(';').skip(1).map(|parameter| {
            let (name, value) = parameter.trim().split_once('=').unwrap_or((parameter.trim(), ""));
            (name, value.trim_matches('"'))
        });
        let (mut is_hit, mut is_collapsed, mut forwarded, mut detail) = (false, false, "", "");
        for (name, value) in &mut parameters {
            match name {
                "hit" => is_hit = true,
                "collapsed" => is_collapsed = true,
                "fwd" => forwarded = value,
                "detail" => detail = value,
                _ => {}
            }
        }
        let served = match forwarded {
            _ if is_hit && detail.starts_with("stale") => Served::Stale,
            _ if is_hit && detail.starts_with("semantic") => Served::Semantic,
            _ if is_hit => Served::Exact,
            _ if is_collapsed => Served::Collapsed,
            "bypass" => Served::Bypass,
            "request" => Served::Request,
            "" => Served::Unknown,
            _ => Served::Miss,
        };
        let bypass = (served == Served::Bypass).then(|| detail.to_owned());
        Self { served, bypass }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_proxy_has_its_kind() {
        let cases = [
            ("refrain; hit; ttl=7; detail=exact", Served::Exact),
            ("refrain; hit; ttl=7; detail=exact_shared", Served::Exact),
            ("refrain; hit; ttl=7; detail=semantic_shared", Served::Semantic),
            ("refrain; hit; ttl=-3; detail=stale_while_revalidate", Served::Stale),
            ("refrain; fwd=miss; collapsed", Served::Collapsed),
            ("refrain; fwd=miss", Served::Miss),
            ("refrain; fwd=stale", Served::Miss),
            ("refrain; fwd=request", Served::Request),
            ("refrain; fwd=bypass; detail=no_user", Served::Bypass),
            ("refrain; detail=policy_timed_out", Served::Unknown),
            ("refrain; hit; detail=exact, refrain; fwd=miss", Served::Miss),
            ("CDN; hit", Served::Exact),
        ];
        for (value, expected) in cases {
            assert_eq!(CacheStatus::parse(value).served, expected, "{value}");
        }
        let bypass = CacheStatus::parse("refrain; fwd=bypass; detail=no_user").bypass;
        assert_eq!(bypass.as_deref(), Some("no_user"));
    }

    #[test]
    fn without_the_header_nothing_is_known() {
        assert_eq!(CacheStatus::of(&HeaderMap::new()), CacheStatus::default());
    }
}
