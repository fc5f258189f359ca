//! Who generates an answer, among proxies: so that a crowd which is spread over them asks the fleet once.
//!
//! Only a hint: whoever waits for another proxy waits for a moment, and then generates itself.

use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, cmd};

use super::writer::Entrance;
use super::{Inner, Remote};
use crate::key::CacheKey;

/// How long a claim lasts if its proxy dies.
const CLAIM_TTL: Duration = Duration::from_secs(5);

/// Gives a claim back, if it is still one's own. KEYS: claim. ARGV: whose.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
    )
});

/// Who generates.
#[derive(Debug)]
pub enum Claim {
    /// This process, for as long as the guard lives.
    Mine(ClaimGuard),
    /// Another proxy: its answer may be stored soon.
    Theirs,
    /// Nobody says: proxies don't share the store, or it is away.
    Free,
}

/// Gives a claim back when it is dropped, or lets it expire if too much waits to be written.
#[derive(Debug)]
pub struct ClaimGuard {
    key: CacheKey,
    entrance: Entrance,
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        self.entrance.release(&self.key);
    }
}

impl Remote {
    /// Claims the generation of an answer.
    ///
    /// # Cancel safety
    /// Safe: a claim that nobody holds expires within seconds.
    pub(crate) async fn claim(&self, key: &CacheKey) -> Claim {
        let Inner { link, entries, me, .. } = &*self.inner;
        if !link.is_up() {
            return Claim::Free;
        }
        let name = entries.names.claim(&key.partition, &key.key);
        let ttl_ms = u64::try_from(CLAIM_TTL.as_millis()).unwrap_or(u64::MAX);
        let mut set = cmd("SET");
        set.arg(name).arg(me).arg("NX").arg("PX").arg(ttl_ms);
        match link.ask::<Option<String>>(&set).await {
            Ok(Some(_)) => Claim::Mine(ClaimGuard { key: *key, entrance: self.queue.entrance() }),
            Ok(None) => Claim::Theirs,
            Err(_) => Claim::Free,
        }
    }
}

impl Inner {
    pub(super) async fn release(self: &Arc<Self>, partition: &[u8; 32], key: &[u8; 32]) {
        let mut call = RELEASE.prepare_invoke();
        call.key(self.entries.names.claim(partition, key)).arg(&self.me);
        // It expires where this fails.
        let _ = self.link.call::<i64>(&call).await;
    }
}
