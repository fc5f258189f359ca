//! Where prompts with a certain beginning went lately, so that a conversation that was sent away from its home stays where
//! its prefix now is.
//!
//! A table of fixed size without locks: two prefixes may have one place, and the later one takes it. What is lost is a hint.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Millis;

/// Places; 8 bytes each.
const PLACES: usize = 1 << 16;
/// For how long an endpoint is believed to keep a prefix that nobody asked for.
pub(crate) const PREFIX_KEPT: Duration = Duration::from_secs(15 * 60);
/// For how long it is believed to keep a response that may be referred to.
pub(crate) const RESPONSE_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Unit of time in a place: 16 bits of it wrap after twelve days, when what was there looks recent once more.
const TICK: Duration = Duration::from_secs(16);
const TICK_BITS: u32 = 16;
const ENDPOINT_BITS: u32 = 16;

/// Prefixes and the endpoints that had them last. A place holds 32 bits of the hash, 16 of the endpoint's key, 16 of time.
pub(crate) struct Recent {
    places: Box<[AtomicU64]>,
    kept: Duration,
}

impl Recent {
    /// Forgets what is older than this.
    pub(crate) fn new(kept: Duration) -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), kept }
    }

    /// The endpoint that was sent the longest of these beginnings, by the low bits of its key.
    pub(crate) fn find(&self, longer: &[u64], now: Millis) -> Option<u16> {
        longer.iter().rev().find_map(|&hash| self.at(hash, now))
    }

    /// Notes where a prompt with this beginning went.
    pub(crate) fn note(&self, hash: u64, endpoint: u64, now: Millis) {
        let entry =
            (tag(hash) << (TICK_BITS + ENDPOINT_BITS)) | ((endpoint & 0xffff) << TICK_BITS) | tick(now);
        self.place(hash).store(entry, Relaxed);
    }

    fn at(&self, hash: u64, now: Millis) -> Option<u16> {
        let entry = self.place(hash).load(Relaxed);
        let age = tick(now).wrapping_sub(entry) & 0xffff;
        let is_it = entry != 0
            && entry >> (TICK_BITS + ENDPOINT_BITS) == tag(hash)
            && age <= self.kept.as_secs() / TICK.as_secs();
        is_it.then_some((entry >> TICK_BITS) as u16)
    }

    fn place(&self, hash: u64) -> &AtomicU64 {
        &self.places[hash as usize % PLACES]
    }
}

impl std::fmt::Debug for Recent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recent(..)")
    }
}

/// The bits that the place doesn't tell.
fn tag(hash: u64) -> u64 {
    hash >> 32
}

fn tick(now: Millis) -> u64 {
    (now.0 / TICK.as_millis() as u64) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_that_is_known_counts() {
        let recent = Recent::new(PREFIX_KEPT);
        let now = Millis(1_000_000);
        recent.note(0xa_0000_0001, 3, now);
        recent.note(0xb_0000_0002, 4, now);
        assert_eq!(recent.find(&[0xa_0000_0001, 0xb_0000_0002, 0xc_0000_0003], now), Some(4));
        assert_eq!(recent.find(&[0xa_0000_0001, 0xc_0000_0003], now), Some(3));
        assert_eq!(recent.find(&[0xc_0000_0003], now), None);
        assert_eq!(recent.find(&[0xd_0000_0001], now), None, "same place, other hash");
    }

    #[test]
    fn what_nobody_asked_for_in_a_while_is_forgotten() {
        let recent = Recent::new(PREFIX_KEPT);
        let then = Millis(5_000_000);
        recent.note(7 << 32, 3, then);
        assert_eq!(recent.find(&[7 << 32], then.after(PREFIX_KEPT)), Some(3));
        assert_eq!(recent.find(&[7 << 32], then.after(PREFIX_KEPT + 2 * TICK)), None);
    }

    #[test]
    fn time_that_wraps_is_no_trouble() {
        let recent = Recent::new(PREFIX_KEPT);
        let before = Millis(TICK.as_millis() as u64 * 0x1_0000 - 1);
        recent.note(7 << 32, 3, before);
        assert_eq!(recent.find(&[7 << 32], before.after(TICK)), Some(3));
    }
}
