//! What a policy keeps between calls: small, in memory, gone with the process.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Keys of a policy on a route.
const KEYS_MAX: usize = 1024;
/// Keys and values together, in bytes.
const BYTES_MAX: usize = 1024 * 1024;
/// A value, in bytes.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// A key, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// Values by key, each with its end.
#[derive(Debug, Default)]
pub(crate) struct State {
    entries: Mutex<Entries>,
}

#[derive(Clone, Debug, Default)]
struct Entries {
    by_key: HashMap<String, Entry>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    value: Value,
    ends: Instant,
}

#[derive(Clone, Debug)]
enum Value {
    Bytes(Vec<u8>),
    /// What `add` counts; reads as decimal text.
    Number(f64),
}

impl State {
    /// The same values, from now on apart.
    pub(crate) fn copy(&self) -> Self {
        Self { entries: Mutex::new(self.entries.lock().clone()) }
    }

    /// A value that has not ended.
    pub(crate) fn find(&self, key: &str) -> Option<Vec<u8>> {
        self.entries.lock().live(key, Instant::now()).map(|entry| entry.value.to_bytes())
    }

    /// Keeps a value for a time; false if it is over the bounds.
    pub(crate) fn set(&self, key: String, value: Vec<u8>, ttl_s: u32) -> bool {
        value.len() <= VALUE_BYTES_MAX && self.put(key, Value::Bytes(value), ttl_s, Instant::now())
    }

    /// Forgets a value.
    pub(crate) fn delete(&self, key: &str) {
        self.entries.lock().remove(key);
    }

    /// Adds to a number, which starts at 0 and ends `ttl_s` after it started. What is no finite number adds nothing.
    pub(crate) fn add(&self, key: String, delta: f64, ttl_s: u32) -> f64 {
        let now = Instant::now();
        let delta = if delta.is_finite() { delta } else { 0.0 };
        if let Some(Entry { value: Value::Number(number), .. }) = self.entries.lock().live(&key, now) {
            *number = (*number + delta).clamp(f64::MIN, f64::MAX);
            return *number;
        }
        self.put(key, Value::Number(delta), ttl_s, now);
        delta
    }

    fn put(&self, key: String, value: Value, ttl_s: u32, now: Instant) -> bool {
        let bytes = key.len() + value.len();
        let mut entries = self.entries.lock();
        entries.remove(&key);
        if key.len() > KEY_BYTES_MAX {
            return false;
        }
        if !entries.has_room(bytes) {
            entries.drop_ended(now);
        }
        if !entries.has_room(bytes) {
            return false;
        }
        entries.bytes += bytes;
        entries.by_key.insert(key, Entry { value, ends: now + Duration::from_secs(u64::from(ttl_s)) });
        true
    }
}

impl Entries {
    fn live(&mut self, key: &str, now: Instant) -> Option<&mut Entry> {
        self.by_key.get_mut(key).filter(|entry| now < entry.ends)
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.by_key.len() < KEYS_MAX && self.bytes + bytes <= BYTES_MAX
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.by_key.remove(key) {
            self.bytes -= key.len() + entry.value.len();
        }
    }

    fn drop_ended(&mut self, now: Instant) {
        self.by_key.retain(|_, entry| now < entry.ends);
        self.bytes = self.by_key.iter().map(|(key, entry)| key.len() + entry.value.len()).sum();
    }
}

impl Value {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Number(_) => size_of::<f64>(),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Number(number) => number.to_string().into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_add_up_and_read_as_text() {
        let state = State::default();
        assert_eq!(state.add("n".into(), 2.0, 60), 2.0);
        assert_eq!(state.add("n".into(), 0.5, 60), 2.5);
        assert_eq!(state.add("n".into(), f64::NAN, 60), 2.5);
        assert_eq!(state.find("n"), Some(b"2.5".to_vec()));
        state.delete("n");
        assert_eq!(state.find("n"), None);
    }

    #[test]
    fn what_is_over_the_bounds_is_not_kept() {
        let state = State::default();
        assert!(!state.set("k".into(), vec![0; VALUE_BYTES_MAX + 1], 60));
        assert!(!state.set("k".repeat(KEY_BYTES_MAX + 1), vec![], 60));
        let kept = (0..KEYS_MAX + 9).filter(|n| state.set(format!("k{n}"), vec![], 60)).count();
        assert_eq!(kept, KEYS_MAX);
    }

    #[test]
    fn bytes_are_bounded_together() {
        let state = State::default();
        let kept = (0..32).filter(|n| state.set(format!("{n:02}"), vec![0; VALUE_BYTES_MAX - 2], 60)).count();
        assert_eq!(kept, BYTES_MAX / VALUE_BYTES_MAX);
        assert!(state.set("00".into(), vec![0; 9], 60), "a key may be replaced");
    }

    #[test]
    fn ended_values_make_room() {
        let state = State::default();
        for n in 0..KEYS_MAX {
            assert!(state.set(format!("k{n}"), vec![], 0));
        }
        assert_eq!(state.find("k1"), None);
        assert!(state.set("new".into(), vec![1], 60));
    }
}
