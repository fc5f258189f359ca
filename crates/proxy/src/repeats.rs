//! Who asks the same again at once wants another answer: for routes whose front ends regenerate by repeating.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use refrain_cache::CacheKey;
use refrain_core::Identity;
use refrain_core::settings::Regenerate;

/// Questions remembered a route; beyond, the oldest windows are forgotten.
const ASKED_MAX: usize = 10_000;

/// What was asked lately on one route, and by whom.
pub(crate) struct Repeats {
    window: Option<Duration>,
    asked: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Repeats {
    /// Remembers nothing unless the route says so.
    pub(crate) fn new(regenerate: Regenerate) -> Self {
        let window = match regenerate {
            Regenerate::Never => None,
            Regenerate::Repeat { window } => Some(window),
        };
        Self { window, asked: Mutex::default() }
    }

    /// Whether the question would be a repeat now. Notes nothing.
    pub(crate) fn would_repeat(&self, key: &CacheKey, identity: &Identity, now: Instant) -> bool {
        let Some(window) = self.window else { return false };
        let asked = self.asked.lock();
        asked.get(&asker(key, identity)).is_some_and(|before| now.duration_since(*before) < window)
    }

    /// Notes the question; true if the same caller asked it within the window before.
    pub(crate) fn is_repeat(&self, key: &CacheKey, identity: &Identity, now: Instant) -> bool {
        let Some(window) = self.window else { return false };
        let asker = asker(key, identity);
        let mut asked = self.asked.lock();
        if asked.len() >= ASKED_MAX && !asked.contains_key(&asker) {
            asked.retain(|_, at| now.duration_since(*at) < window);
            if asked.len() >= ASKED_MAX {
                asked.clear();
            }
        }
        asked.insert(asker, now).is_some_and(|before| now.duration_since(before) < window)
    }
}

fn asker(key: &CacheKey, identity: &Identity) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(&key.key);
    hasher.update(identity.tenant.as_str().as_bytes()).update(&[0]);
    hasher.update(identity.user.as_ref().map_or("", |user| user.as_str()).as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use refrain_core::{Role, UserId};

    #[test]
    fn only_the_same_caller_within_the_window_repeats() {
        let repeats = Repeats::new(Regenerate::Repeat { window: Duration::from_secs(10) });
        let key = CacheKey { partition: [1; 32], key: [2; 32], fingerprint: [3; 32] };
        let ann = Identity::anonymous(Role::Caller);
        let bob = Identity { user: Some(UserId::new("bob")), ..ann.clone() };
        let start = Instant::now();
        assert!(!repeats.is_repeat(&key, &ann, start));
        assert!(!repeats.is_repeat(&key, &bob, start));
        assert!(repeats.is_repeat(&key, &ann, start + Duration::from_secs(9)));
        assert!(!repeats.is_repeat(&key, &ann, start + Duration::from_secs(30)));
        let never = Repeats::new(Regenerate::Never);
        assert!(!never.is_repeat(&key, &ann, start) && !never.is_repeat(&key, &ann, start));
    }
}
