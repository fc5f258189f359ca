//! What `refrain purge` and the admin listener say to each other: JSON that people write with curl, too.

use std::collections::BTreeMap;
use std::time::Duration;

use refrain_cache::{Conditions, Purge, PurgeHow, PurgeMode, Select};
use refrain_core::{RouteId, TenantId, UserId, unhex};
use serde::{Deserialize, Serialize};

/// Longest text of an age: `humantime` panics on sums just above `u64::MAX` seconds, which need more.
const AGE_TEXT_MAX: usize = 20;

/// What to purge, and how. Conditions are met together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PurgeRequest {
    /// A tag that a policy gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    /// The route that stored it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    /// The model that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// The tenant who asked first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<String>,
    /// The user who asked first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// One entry: 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// What was stored longer ago than this, such as `2h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) older_than: Option<String>,
    /// All entries.
    pub(crate) everything: bool,
    /// They expire, instead of being removed.
    pub(crate) soft: bool,
    /// They are only counted.
    pub(crate) dry_run: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PurgeAnswer {
    /// Entries.
    pub(crate) matched: u64,
    /// Bytes of their records before compression.
    pub(crate) bytes: u64,
    /// Entries by route.
    pub(crate) by_route: BTreeMap<String, u64>,
    /// Whether they were only counted.
    pub(crate) dry_run: bool,
    /// `hard` or `soft`.
    pub(crate) how: String,
}

impl PurgeRequest {
    /// The purge that is meant.
    ///
    /// # Errors
    /// What is wrong, and what to do, for whoever asked.
    pub(crate) fn purge(self, now_ms: u64) -> Result<(Purge, PurgeMode), String> {
        let Self { tag, route, model, tenant, user, key, older_than, everything, soft, dry_run } = self;
        let stored_before_ms = match older_than {
            Some(age) => Some(now_ms.saturating_sub(millis(parse_age(&age)?))),
            None => None,
        };
        let conditions = Conditions {
            key: key.as_deref().map(parse_key).transpose()?,
            tag,
            route: route.map(RouteId::new),
            model,
            tenant: tenant.map(TenantId::new),
            user: user.map(UserId::new),
            stored_before_ms,
        };
        let select = match everything {
            true if conditions == Conditions::default() => Select::everything(),
            true => {
                return Err("everything is everything: leave out the conditions, or leave out it".to_owned());
            }
            false => Select::of(conditions).map_err(|error| error.to_string())?,
        };
        let how = if soft { PurgeHow::Soft } else { PurgeHow::Hard };
        let mode = if dry_run { PurgeMode::DryRun } else { PurgeMode::Real };
        Ok((Purge { select, how, at_ms: now_ms }, mode))
    }
}

/// Reads `90s`, `2h`, `1d12h`.
pub(crate) fn parse_age(text: &str) -> Result<Duration, String> {
    let age = (text.len() <= AGE_TEXT_MAX).then(|| humantime::parse_duration(text).ok()).flatten();
    age.ok_or_else(|| "an age is a duration with a unit, such as \"30m\", \"2h\" or \"1d12h\"".to_owned())
}

/// Reads a key as the debug header shows it.
pub(crate) fn parse_key(text: &str) -> Result<[u8; 32], String> {
    unhex(text.as_bytes())
        .ok_or_else(|| "a key is 64 hexadecimal digits, as the header refrain-debug shows it".to_owned())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 10_000_000;

    fn read(json: &str) -> Result<(Purge, PurgeMode), String> {
        serde_json::from_str::<PurgeRequest>(json).map_err(|error| error.to_string())?.purge(NOW_MS)
    }

    fn conditions(json: &str) -> Conditions {
        read(json).unwrap().0.select.conditions().clone()
    }

    #[test]
    fn every_condition_is_read() {
        let base = Conditions::default;
        let named = conditions(r#"{"tag":"t","route":"r","model":"m","tenant":"o","user":"u"}"#);
        let expected = Conditions {
            tag: Some("t".into()),
            route: Some("r".into()),
            model: Some("m".into()),
            tenant: Some("o".into()),
            user: Some("u".into()),
            ..base()
        };
        assert_eq!(named, expected);
        let key = conditions(&format!(r#"{{"key":"{}"}}"#, "0a".repeat(32)));
        assert_eq!(key, Conditions { key: Some([10; 32]), ..base() });
        let age = conditions(r#"{"older_than":"1h"}"#);
        assert_eq!(age, Conditions { stored_before_ms: Some(NOW_MS - 3_600_000), ..base() });
        assert_eq!(conditions(r#"{"older_than":"1y"}"#).stored_before_ms, Some(0));
    }

    #[test]
    fn a_purge_is_hard_and_real_unless_said_otherwise() {
        let (purge, mode) = read(r#"{"everything":true}"#).unwrap();
        assert!(purge.select.is_everything());
        assert_eq!((purge.how, purge.at_ms, mode), (PurgeHow::Hard, NOW_MS, PurgeMode::Real));
        let (purge, mode) = read(r#"{"everything":true,"soft":true,"dry_run":true}"#).unwrap();
        assert_eq!((purge.how, mode), (PurgeHow::Soft, PurgeMode::DryRun));
    }

    #[test]
    fn what_can_not_be_meant_is_refused_with_what_to_do() {
        for (json, hint) in [
            ("{}", "name a tag"),
            (r#"{"everything":false,"soft":true}"#, "name a tag"),
            (r#"{"everything":true,"tag":"a"}"#, "leave out"),
            (r#"{"tga":"a"}"#, "unknown field `tga`, expected one of `tag`"),
            (r#"{"tag":"a","tag":"b"}"#, "duplicate field"),
            (r#"{"key":"0a"}"#, "64 hexadecimal digits"),
            (r#"{"older_than":"2"}"#, "such as \"30m\""),
            (r#"{"older_than":"18446744073709551615s 1s"}"#, "such as"),
            (r#"{"tag":7}"#, "expected a string"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(hint), "{json}: {error}");
        }
    }

    #[test]
    fn a_request_survives_its_json() {
        let request = PurgeRequest { tag: Some("a\"b".into()), soft: true, ..PurgeRequest::default() };
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<PurgeRequest>(&json).unwrap(), request);
    }
}
