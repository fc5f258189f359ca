//! What all proxies of a prefix agree on: the secret that their keys come from, and the life of the data.
//!
//! A life begins when the first proxy finds nothing there, and ends with the data (`FLUSHALL`, a restart without
//! persistence): whoever sees another life than before forgets what it keeps of the former one.

use std::sync::LazyLock;

use redis::{Script, cmd};
use refrain_core::hex;

use super::link::Link;
use super::names::Names;
use super::trouble::{StoreTrouble, Trouble};
use crate::secret::KeySecret;

/// Makes what isn't there and returns what is. Reads first: a replica answers, and is told by its first write.
static JOIN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local known = redis.call('HMGET', KEYS[1], 'check', 'life', 'born')
if known[1] and known[2] and known[3] then return known end
local time = redis.call('TIME')
local born = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], 'check', ARGV[1], 'life', ARGV[2], 'born', born)
return {ARGV[1], ARGV[2], born}
",
    )
});

/// One life of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// Random.
    pub(super) id: String,
    /// When it began, in ms since the Unix epoch by the server's clock.
    pub(super) born_ms: u64,
}

/// Checks the secret, and tells the life.
///
/// # Errors
/// [`Trouble::Secret`] if proxies with another secret share the prefix.
pub(super) async fn join(link: &Link, names: &Names, secret: &KeySecret) -> Result<Life, StoreTrouble> {
    let check = hex(secret.check_value());
    let id = hex(&rand::random::<[u8; 16]>());
    let mut call = JOIN.prepare_invoke();
    let known: (String, String, u64) = link.call(call.key(names.meta()).arg(&check).arg(id)).await?;
    let (found, id, born_ms) = known;
    compare(&found, secret).inspect_err(|trouble| link.count(trouble))?;
    Ok(Life { id, born_ms })
}

/// Whether proxies have joined before, with this secret if there is one. Makes nothing.
///
/// # Errors
/// [`Trouble::Secret`] if it is another's.
pub(super) async fn look(
    link: &Link,
    names: &Names,
    secret: Option<&KeySecret>,
) -> Result<bool, StoreTrouble> {
    let found: Option<String> = link.ask(cmd("HGET").arg(names.meta()).arg("check")).await?;
    if let (Some(found), Some(secret)) = (&found, secret) {
        compare(found, secret)?;
    }
    Ok(found.is_some())
}

fn compare(found: &str, secret: &KeySecret) -> Result<(), StoreTrouble> {
    if found == hex(secret.check_value()) {
        return Ok(());
    }
    Err(StoreTrouble::new(Trouble::Secret, "proxies with another cache secret use this prefix"))
}
