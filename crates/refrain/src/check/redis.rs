//! What is asked of the Redis that proxies share: all that a proxy asks, with nothing left behind.

use std::sync::Arc;

use refrain_cache::{Counting, Embedder, Examination, KeySecret, Memory, StoreUpkeep, VectorMode};
use refrain_core::Settings;
use refrain_core::settings::{LimitPlace, RateLimit, Store};

use super::probes::{Result, failed};
use super::{Finding, Well};

/// What was found; nothing if the store is another.
pub(super) async fn all(settings: &Settings) -> Vec<Finding> {
    let Store::Redis(store) = &settings.store else { return Vec::new() };
    let finding = |what: String, result| Finding { name: "store".to_owned(), what, result };
    let nodes = store.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let secret = KeySecret::load_file(&store.secret_file);
    // A model that can't be read is told elsewhere; without it exact look-ups are what is left.
    let model = settings.embedder.as_ref().and_then(|embedder| Embedder::identity_in(embedder).ok());
    let known = secret.as_ref().ok().and_then(Option::as_ref);
    let examined = StoreUpkeep::new(store, model).examine(known, counting(settings)).await;
    let file = format!("secret in {}", store.secret_file.display());
    let mut findings = Vec::new();
    match examined {
        Err(trouble) => {
            findings.push(finding(format!("use Redis at {nodes}"), Err(failed(trouble))));
            let of_file = secret.map(|_| Well::default()).map_err(failed);
            findings.push(finding(file, of_file));
        }
        Ok(found) => {
            findings.push(finding(format!("use Redis at {nodes}"), Ok(served(&found))));
            findings.push(finding(file, judge_secret(secret.map_err(failed), &found, &store.prefix)));
            findings.extend(found.memory.as_ref().map(|memory| {
                finding(
                    "memory and disk of Redis".to_owned(),
                    Ok(Well { latency: None, note: judge(memory) }),
                )
            }));
            findings.push(finding(
                "search vectors".to_owned(),
                Ok(Well { latency: None, note: searched(&found) }),
            ));
        }
    }
    findings
}

/// Whether limits are counted there.
fn counting(settings: &Settings) -> Counting {
    let is_shared = |limit: &Arc<RateLimit>| matches!(limit.place, LimitPlace::Shared { .. });
    if settings.rate_limits.values().any(is_shared) { Counting::Limits } else { Counting::None }
}

fn served(found: &Examination) -> Well {
    let version = found.version.as_deref().map(|version| format!("version {version}"));
    let protocol = found.protocol.map(|protocol| format!("RESP{protocol}"));
    let note = [version, protocol].into_iter().flatten().collect::<Vec<_>>().join(", ");
    Well { latency: Some(found.round_trip), note }
}

fn searched(found: &Examination) -> String {
    let mode = match found.vectors.mode {
        VectorMode::None => "not at all",
        mode => mode.as_str(),
    };
    format!("{mode}: {}", found.vectors.why)
}

fn judge_secret(
    secret: std::result::Result<Option<KeySecret>, super::Failed>,
    found: &Examination,
    prefix: &str,
) -> Result {
    let note = match (secret?, found.is_joined) {
        (Some(_), true) => "the same as of the proxies that use this prefix",
        (Some(_), false) => "no proxy has used this prefix yet",
        (None, false) => "will be made at start; copy it to the other proxies",
        (None, true) => {
            return Err(failed(format!(
                "it isn't there, and proxies use the prefix {:?} already: copy their secret_file here (0600)",
                prefix
            )));
        }
    };
    Ok(Well { latency: None, note: note.to_owned() })
}

/// What a full memory and a restart would do.
fn judge(memory: &Memory) -> String {
    let Memory { bytes_max, policy, is_persistent } = memory;
    let full = match bytes_max {
        1.. if memory.evicts_anything() => format!(
            "warning: maxmemory-policy {policy} may remove what proxies tell each other, purges too; set volatile-lru"
        ),
        0 => "no maxmemory: it grows until the machine is full".to_owned(),
        _ if policy == "noeviction" => "noeviction: when it is full, answers are no longer stored".to_owned(),
        _ => policy.clone(),
    };
    match is_persistent {
        Some(false) => format!("{full}; nothing is kept over its restart"),
        _ => full,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use refrain_cache::VectorChoice;

    use super::*;

    fn judged(policy: &str, bytes_max: u64) -> String {
        judge(&Memory { bytes_max, policy: policy.to_owned(), is_persistent: None })
    }

    #[test]
    fn only_what_may_lose_purges_is_a_warning() {
        assert!(judged("allkeys-lru", 1 << 30).starts_with("warning: maxmemory-policy allkeys-lru"));
        for policy in ["volatile-lru", "noeviction", "volatile-ttl"] {
            assert!(!judged(policy, 1 << 30).contains("warning"), "{policy}");
        }
        assert!(judged("noeviction", 0).contains("no maxmemory"));
    }

    #[test]
    fn a_secret_that_others_have_and_we_lack_is_asked_for() {
        let vectors = VectorChoice { mode: VectorMode::None, why: "" };
        let found = |is_joined| Examination {
            version: None,
            protocol: None,
            round_trip: Duration::ZERO,
            vectors,
            is_joined,
            memory: None,
        };
        let judged = |secret, is_joined| judge_secret(Ok(secret), &found(is_joined), "refrain");
        let ours = || Some(KeySecret::from_bytes([1; 32]));
        assert!(judged(None, true).unwrap_err().hint.contains("copy their secret_file"));
        assert!(judged(None, false).unwrap().note.contains("will be made"));
        assert!(judged(ours(), true).is_ok() && judged(ours(), false).is_ok());
    }
}
