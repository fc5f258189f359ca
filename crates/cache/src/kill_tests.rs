//! A process that is killed while it writes leaves a store of which every answer that is found is right.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use refrain_core::settings::EmbeddedStore;

use crate::secret::KeySecret;
use crate::store::{Found, Store};
use crate::test_support::{NOW_MS, answer, key, meta, vector};
use crate::{DIMENSIONS, Entry};

/// Names the directory to the child process.
const DIR: &str = "REFRAIN_KILL_TEST_DIR";
const KEYS: u64 = 300;
const KILLS: u64 = 6;

fn open(dir: &std::path::Path) -> Store {
    let settings =
        EmbeddedStore { dir: Some(dir.into()), memory_bytes_max: 8 << 20, ..EmbeddedStore::default() };
    Store::open(&settings, &Arc::new(KeySecret::from_bytes([3; 32])), Some([8; 32])).unwrap()
}

/// Text of an entry: long enough that records span blocks.
fn text(number: u64, version: u64) -> String {
    format!("{number} in version {version} {}", "and so on ".repeat(usize::try_from(number % 400).unwrap()))
}

#[test]
fn every_answer_found_after_kill_9_is_right() {
    if let Some(dir) = std::env::var_os(DIR) {
        write_until_killed(dir.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut found_before = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill_tests::every_answer_found_after_kill_9_is_right"])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_millis(250 + 130 * kill);
        while Instant::now() < deadline {
            assert!(child.try_wait().unwrap().is_none(), "the writing process ended by itself");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        found_before = found_before.max(check(dir.path()));
    }
    assert!(found_before > 10, "only {found_before} answers survived");
}

/// Reopens; each key must have an answer of its own, whole, or none. How many have one.
fn check(dir: &std::path::Path) -> usize {
    let store = open(dir);
    let disk = store.stats().disk.unwrap();
    assert_eq!((disk.quarantined, disk.vectors_rebuilt), (0, disk.entries));
    assert!(!dir.join("answers.set-aside").exists(), "the store did not open");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let found = (0..KEYS).filter(|number| runtime.block_on(is_right(&store, *number))).count();
    assert_eq!(found, disk.entries);
    let near = runtime.block_on(store.nearest(&[1; 32], &vector(1), 5, NOW_MS));
    assert_eq!(near.len(), found.min(5));
    store.close();
    found
}

async fn is_right(store: &Store, number: u64) -> bool {
    let Found::Hit(entry, _) = store.find(&key(1, number), NOW_MS).await else { return false };
    let version = entry.meta.upstream_ms;
    assert_eq!(entry.answer().unwrap(), answer(&text(number, version)));
    assert_eq!(vector(number).len(), DIMENSIONS);
    true
}

/// The child: replaces and removes entries as fast as the store takes them.
fn write_until_killed(dir: &std::path::Path) -> ! {
    let store = open(dir);
    let mut version = 0;
    loop {
        version += 1;
        for number in 0..KEYS {
            let mut meta = meta(NOW_MS + 3_600_000 + version % 7);
            meta.upstream_ms = version;
            let entry = Entry::new(key(1, number), meta, &answer(&text(number, version)));
            let _ = store.insert(entry, Some(vector(number)));
            if number % 10 == version % 10 {
                let _ = store.remove(&key(1, number));
            }
        }
    }
}
