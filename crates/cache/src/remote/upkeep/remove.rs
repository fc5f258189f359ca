//! Removing keys so that the server is never held up for long: it frees plain values in the background, but a vector set at
//! once, a microsecond a member.

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Script, cmd};
use tokio::time::{Instant, sleep};

use super::found::What;
use super::{AT_ONCE, StoreUpkeep};
use crate::remote::trouble::StoreTrouble;

/// A vector set of so many members is removed at once: about 10 ms.
const UNLINKED_MEMBERS_MAX: u64 = 10_000;
/// Members that are taken out of a vector set in one step: a few milliseconds.
pub(super) const STEP_MEMBERS: usize = 16;
/// After each step, a pause this many times as long leaves the server to others.
const PAUSE_FACTOR: u32 = 3;
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Takes some members out of a vector set, whichever; how many are left. KEYS: vector set. ARGV: how many.
static SHRINK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for _, member in ipairs(redis.call('VRANDMEMBER', KEYS[1], ARGV[1])) do redis.call('VREM', KEYS[1], member) end
return redis.call('VCARD', KEYS[1])
",
    )
});

impl StoreUpkeep {
    /// Removes keys; how many were there.
    pub(super) async fn unlink(&self, keys: &[(Vec<u8>, What)]) -> Result<u64, StoreTrouble> {
        let mut removed = 0;
        for some in keys.chunks(AT_ONCE) {
            for (name, what) in some {
                if let What::VectorSet(_) = what {
                    self.shrink(name).await?;
                }
            }
            // One by one: in a cluster they are on different servers.
            let unlinked =
                some.iter().map(async |(name, _)| self.link.ask::<u64>(cmd("UNLINK").arg(name)).await);
            for unlinked in join_all(unlinked).await {
                removed += unlinked?;
            }
        }
        self.did_remove(removed);
        Ok(removed)
    }

    async fn shrink(&self, set: &[u8]) -> Result<(), StoreTrouble> {
        // In another layout it may be something else.
        let Ok(mut left) = self.link.ask::<u64>(cmd("VCARD").arg(set)).await else { return Ok(()) };
        while left > UNLINKED_MEMBERS_MAX {
            let began = Instant::now();
            left = self.link.call(SHRINK.prepare_invoke().key(set).arg(STEP_MEMBERS)).await?;
            pause(began).await;
        }
        Ok(())
    }
}

/// Leaves the server to others after what began then.
pub(super) async fn pause(began: Instant) {
    sleep((began.elapsed() * PAUSE_FACTOR).min(PAUSE_MAX)).await;
}
