use std::path::Path;
use std::sync::Arc;

use refrain_core::settings::EmbeddedStore;
use refrain_llm::answer::as_it_came;

use super::*;
use crate::entry::EntryMeta;
use crate::test_support::{NOW_MS, answer, encoded, entry, key, meta, vector};

const MODEL: Option<[u8; 32]> = Some([8; 32]);

fn settings(dir: Option<&Path>) -> EmbeddedStore {
    EmbeddedStore { memory_bytes_max: 16 << 20, dir: dir.map(Into::into), ..EmbeddedStore::default() }
}

fn open(settings: &EmbeddedStore) -> Store {
    Store::open(settings, &Arc::new(KeySecret::from_bytes([3; 32])), MODEL).unwrap()
}

fn hit(found: Found) -> Arc<Entry> {
    match found {
        Found::Hit(entry, _) => entry,
        other => panic!("{other:?} where a hit was expected"),
    }
}

fn is_miss(found: &Found) -> bool {
    matches!(found, Found::Miss)
}

fn long_lived(number: u64) -> Entry {
    Entry::new(key(1, number), meta(NOW_MS + 3_600_000), &answer(&format!("answer {number}")))
}

#[tokio::test]
async fn an_entry_is_found_by_its_own_three_digests_only() {
    let store = open(&settings(None));
    store.insert(entry(1), None).unwrap();
    assert_eq!(hit(store.find(&key(1, 1), NOW_MS).await).answer().unwrap(), answer("answer 1"));
    assert!(is_miss(&store.find(&key(1, 2), NOW_MS).await));
    let mut colliding = key(1, 1);
    colliding.fingerprint[0] ^= 1;
    assert!(is_miss(&store.find(&colliding, NOW_MS).await));
    let mut elsewhere = key(1, 1);
    elsewhere.partition[0] ^= 1;
    assert!(is_miss(&store.find(&elsewhere, NOW_MS).await));
}

#[tokio::test]
async fn an_entry_is_never_served_from_its_expiry_on_and_a_hit_does_not_extend_it() {
    let store = open(&settings(None));
    store.insert(entry(1), Some(vector(1))).unwrap();
    let expiry = NOW_MS + 3_600_000;
    hit(store.find(&key(1, 1), expiry - 1).await);
    assert!(is_miss(&store.find(&key(1, 1), expiry).await));
    assert!(store.nearest(&[1; 32], &vector(1), 8, expiry).await.is_empty());
}

/// Fresh for 1 s after [`NOW_MS`], then stale for 1 s more while revalidating, and for 3 s more on errors.
fn with_windows(number: u64) -> Entry {
    let mut meta = meta(NOW_MS + 1000);
    meta.stale_while_revalidate_until_ms = NOW_MS + 2000;
    meta.stale_if_error_until_ms = NOW_MS + 4000;
    Entry::new(key(1, number), meta, &answer(&format!("answer {number}")))
}

/// What may be done with the stale entry of a key: serve it while revalidating, serve it on errors.
async fn stale(store: &Store, number: u64, now_ms: u64) -> Option<(bool, bool)> {
    match store.find(&key(1, number), now_ms).await {
        Found::Stale(entry, _) => {
            assert_eq!(entry.answer().unwrap(), answer(&format!("answer {number}")));
            Some((entry.may_serve_while_revalidating(now_ms), entry.may_serve_if_error(now_ms)))
        }
        Found::Hit(..) | Found::Miss => None,
    }
}

#[tokio::test]
async fn a_stale_entry_is_found_within_its_windows_in_memory_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(Some(dir.path()));
    for restart in [false, true] {
        let store = open(&settings);
        if !restart {
            store.insert(with_windows(1), None).unwrap();
        }
        // Once from disk, then from memory.
        for _ in 0..2 {
            assert_eq!(stale(&store, 1, NOW_MS + 1000).await, Some((true, true)));
            assert_eq!(stale(&store, 1, NOW_MS + 2000).await, Some((false, true)));
            assert_eq!(stale(&store, 1, NOW_MS + 3999).await, Some((false, true)));
            assert!(is_miss(&store.find(&key(1, 1), NOW_MS + 4000).await));
            let fresh = hit(store.find(&key(1, 1), NOW_MS + 999).await);
            assert!(!fresh.may_serve_while_revalidating(NOW_MS) && !fresh.may_serve_if_error(NOW_MS));
        }
        let mut elsewhere = key(1, 1);
        elsewhere.fingerprint[0] ^= 1;
        assert!(is_miss(&store.find(&elsewhere, NOW_MS + 1000).await), "stale or not, the digests decide");
        store.close();
    }
}

#[tokio::test]
async fn the_sweep_keeps_what_may_still_be_served_stale() {
    let store = open(&settings(None));
    store.insert(with_windows(1), Some(vector(1))).unwrap();
    store.shared.sweep(NOW_MS + 3999);
    assert_eq!(store.stats().entries, 1);
    store.shared.sweep(NOW_MS + 4000);
    assert_eq!((store.stats().entries, store.stats().vectors), (0, 0));
}

#[tokio::test]
async fn a_stale_entry_is_no_candidate_and_makes_room_for_fresh_ones() {
    let store = open(&settings(None));
    for number in 1..10 {
        store.insert(with_windows(number), Some(vector(number))).unwrap();
    }
    assert_eq!(store.nearest(&[1; 32], &vector(3), 3, NOW_MS + 999).await.len(), 3);
    store.insert(entry(20), Some(vector(20))).unwrap();
    // Stale ones lie nearer, and more of them than one look sees.
    while store.stats().vectors > 1 {
        let before = store.stats().vectors;
        for candidate in store.nearest(&[1; 32], &vector(3), 1, NOW_MS + 1000).await {
            assert_eq!(candidate.entry.key, key(1, 20));
        }
        assert!(store.stats().vectors < before, "nothing is learned from a look");
    }
    assert_eq!(store.nearest(&[1; 32], &vector(3), 1, NOW_MS + 1000).await.len(), 1);
    assert_eq!(stale(&store, 3, NOW_MS + 1000).await, Some((true, true)), "by its key it is found");
}

#[tokio::test]
async fn a_refreshed_entry_is_a_candidate_again() {
    let store = open(&settings(None));
    store.insert(with_windows(1), Some(vector(1))).unwrap();
    assert!(store.nearest(&[1; 32], &vector(1), 1, NOW_MS + 1000).await.is_empty());
    store.insert(entry(1), Some(vector(1))).unwrap();
    assert_eq!(store.nearest(&[1; 32], &vector(1), 1, NOW_MS + 1000).await.len(), 1);
}

#[tokio::test]
async fn an_exact_only_entry_is_found_by_its_key_and_by_no_vector() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(Some(dir.path()));
    let store = open(&settings);
    store.insert(entry(1), Some(vector(1))).unwrap();
    let mut meta = meta(NOW_MS + 3_600_000);
    meta.exact_only = true;
    let personal = Entry::new(key(1, 1), meta, &answer("answer 1"));
    store.insert(personal, Some(vector(1))).unwrap();
    assert_eq!(store.stats().vectors, 0, "the vector of the entry that it replaces is gone");
    store.close();
    drop(store);
    let store = open(&settings);
    assert!(hit(store.find(&key(1, 1), NOW_MS).await).meta.exact_only);
    assert!(store.nearest(&[1; 32], &vector(1), 8, NOW_MS).await.is_empty());
    store.close();
}

#[tokio::test]
async fn tags_and_labels_over_their_bounds_are_refused() {
    use crate::entry::{LABEL_BYTES_MAX, LABELS_MAX, TAG_BYTES_MAX, TAGS_MAX};
    let store = open(&settings(None));
    let insert = |tags: Vec<String>, labels: Vec<(String, String)>| {
        let meta = EntryMeta { tags, labels, ..meta(NOW_MS + 1000) };
        store.insert(Entry::new(key(1, 1), meta, &answer("x")), None).map(|_| ())
    };
    let label = |bytes: usize| ("n".to_owned(), "v".repeat(bytes - 1));
    insert(vec!["t".repeat(TAG_BYTES_MAX); TAGS_MAX], vec![label(LABEL_BYTES_MAX); LABELS_MAX]).unwrap();
    for (tags, labels) in [
        (vec![String::new(); TAGS_MAX + 1], vec![]),
        (vec!["t".repeat(TAG_BYTES_MAX + 1)], vec![]),
        (vec![], vec![label(1); LABELS_MAX + 1]),
        (vec![], vec![label(LABEL_BYTES_MAX + 1)]),
    ] {
        assert_eq!(insert(tags, labels), Err(Skip::TooLarge));
    }
}

#[tokio::test]
async fn nearest_stays_within_the_partition_and_comes_best_first() {
    let store = open(&settings(None));
    for number in 0..20 {
        store.insert(entry(number), Some(vector(number))).unwrap();
    }
    let other = Entry::new(key(2, 100), meta(NOW_MS + 1000), &answer("other"));
    store.insert(other, Some(vector(7))).unwrap();
    let found = store.nearest(&[1; 32], &vector(7), 5, NOW_MS).await;
    assert_eq!(found.len(), 5);
    assert_eq!(found[0].entry.key, key(1, 7));
    assert!(found.iter().all(|candidate| candidate.entry.key.partition == [1; 32]));
    assert!(found.is_sorted_by(|a, b| a.similarity >= b.similarity));
}

#[tokio::test]
async fn a_removed_entry_is_found_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    for settings in [settings(None), settings(Some(dir.path()))] {
        let store = open(&settings);
        store.insert(long_lived(1), Some(vector(1))).unwrap();
        store.remove(&key(1, 1)).unwrap();
        assert!(is_miss(&store.find(&key(1, 1), NOW_MS).await));
        assert!(store.nearest(&[1; 32], &vector(1), 8, NOW_MS).await.is_empty());
        let _ = store.flush().await;
        assert!(is_miss(&store.find(&key(1, 1), NOW_MS).await));
        store.close();
    }
}

#[tokio::test]
async fn memory_stays_within_its_bound_and_vectors_of_evicted_entries_go() {
    let store = open(&settings(None));
    for number in 0..4000 {
        let long = Entry::new(key(1, number), meta(NOW_MS + 1000), &answer(&"x".repeat(4000)));
        store.insert(long, Some(vector(number))).unwrap();
    }
    let stats = store.stats();
    assert!(stats.evictions > 0);
    assert!(stats.bytes <= 12 << 20, "{stats:?}");
    assert_eq!(stats.vectors, stats.entries, "{stats:?}");
}

#[tokio::test]
async fn kept_bodies_are_charged() {
    let store = open(&settings(None));
    let stored = store.insert(entry(1), None).unwrap();
    let before = store.stats().bytes;
    let body = store.render(&stored, Rendering::Whole).unwrap();
    assert_eq!(store.stats().bytes, before + body.len() as u64);
    assert_eq!(store.render(&stored, Rendering::Whole).unwrap().as_ptr(), body.as_ptr());
}

#[tokio::test]
async fn an_answer_that_is_wanted_as_it_came_takes_no_more_memory() {
    let store = open(&settings(None));
    let stored = store.insert(Entry::new(key(1, 1), meta(NOW_MS + 1000), encoded("yes")), None).unwrap();
    let before = store.stats().bytes;
    let came = as_it_came(encoded("yes").bytes(), Rendering::Whole);
    assert_eq!(store.render(&stored, Rendering::Whole).ok(), came);
    assert_eq!(store.stats().bytes, before);
    let streamed = Rendering::Stream { include_usage: true };
    let body = store.render(&stored, streamed).unwrap();
    assert_eq!(body, answer("yes").render(streamed));
    assert_eq!(store.stats().bytes, before + body.len() as u64);
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_its_reason() {
    let small = EmbeddedStore { entry_bytes_max: 1000, ..settings(None) };
    let store = open(&small);
    let large = Entry::new(key(1, 1), meta(NOW_MS + 1000), &answer(&"x".repeat(2000)));
    assert_eq!(store.insert(large, None).unwrap_err(), Skip::TooLarge);
    assert!(is_miss(&store.find(&key(1, 1), NOW_MS).await));
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart_with_its_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(Some(dir.path()));
    let store = open(&settings);
    for number in 0..200 {
        store.insert(long_lived(number), Some(vector(number))).unwrap();
    }
    store.close();
    drop(store);

    let store = open(&settings);
    let disk = store.stats().disk.unwrap();
    assert_eq!((disk.entries, disk.vectors_rebuilt, store.stats().entries), (200, 200, 0));
    let found = hit(store.find(&key(1, 42), NOW_MS).await);
    assert_eq!((&found.answer().unwrap(), found.key), (&answer("answer 42"), key(1, 42)));
    assert_eq!(store.stats().entries, 1);
    let near = store.nearest(&[1; 32], &vector(99), 3, NOW_MS).await;
    assert_eq!((near.len(), near[0].entry.key), (3, key(1, 99)));
    store.close();
}

#[tokio::test]
async fn vectors_of_another_model_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(Some(dir.path()));
    let store = open(&settings);
    store.insert(long_lived(1), Some(vector(1))).unwrap();
    store.close();
    drop(store);
    let secret = Arc::new(KeySecret::from_bytes([3; 32]));
    let store = Store::open(&settings, &secret, Some([9; 32])).unwrap();
    assert!(store.nearest(&[1; 32], &vector(1), 3, NOW_MS).await.is_empty());
    hit(store.find(&key(1, 1), NOW_MS).await);
    store.close();
}

#[tokio::test]
async fn a_newer_answer_replaces_the_older_one_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(Some(dir.path()));
    let store = open(&settings);
    for (text, ttl_ms) in [("old", 9_000_000), ("new", 3_600_000)] {
        let entry = Entry::new(key(1, 1), meta(NOW_MS + ttl_ms), &answer(text));
        store.insert(entry, None).unwrap();
        store.flush().await.unwrap();
    }
    assert_eq!(store.stats().disk.unwrap().entries, 1);
    store.close();
    drop(store);
    let store = open(&settings);
    assert_eq!(hit(store.find(&key(1, 1), NOW_MS).await).answer().unwrap(), answer("new"));
    store.close();
}

#[tokio::test]
async fn the_disk_stays_within_its_bound_and_loses_what_expires_first() {
    let dir = tempfile::tempdir().unwrap();
    let settings = EmbeddedStore { disk_bytes_max: 100_000, ..settings(Some(dir.path())) };
    let store = open(&settings);
    let now = NOW_MS;
    for number in 0..300 {
        let entry = Entry::new(key(1, number), meta(now + 3_600_000 + number), &answer("x"));
        store.insert(entry, None).unwrap();
    }
    store.flush().await.unwrap();
    let disk = store.stats().disk.unwrap();
    assert!(disk.bytes <= 100_000 && disk.entries > 50 && disk.evictions > 0, "{disk:?}");
    store.close();
    drop(store);
    let store = open(&settings);
    assert!(is_miss(&store.find(&key(1, 0), NOW_MS).await));
    hit(store.find(&key(1, 299), NOW_MS).await);
    store.close();
}

#[tokio::test]
async fn a_store_that_is_in_use_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(Some(dir.path()));
    let store = open(&settings);
    let second = Store::open(&settings, &Arc::new(KeySecret::from_bytes([3; 32])), MODEL);
    let Err(error) = second else { panic!("opened twice") };
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("another store.dir"), "{error}");
    store.close();
}

#[tokio::test]
async fn a_store_of_another_secret_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(Some(dir.path()));
    let store = open(&settings);
    store.insert(long_lived(1), None).unwrap();
    store.close();
    drop(store);
    let store = Store::open(&settings, &Arc::new(KeySecret::from_bytes([4; 32])), MODEL).unwrap();
    assert!(is_miss(&store.find(&key(1, 1), NOW_MS).await));
    assert!(dir.path().join("answers.set-aside").is_dir());
    store.close();
}

#[tokio::test]
async fn a_record_under_another_key_is_never_served_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(Some(dir.path()));
    let store = open(&settings);
    for number in 0..2 {
        store.insert(long_lived(number), Some(vector(number))).unwrap();
    }
    store.close();
    drop(store);
    with_answers(dir.path(), |answers| {
        let other = answers.get(key(1, 0).key).unwrap().unwrap();
        answers.insert(key(1, 1).key, other).unwrap();
    });
    let store = open(&settings);
    assert!(is_miss(&store.find(&key(1, 1), NOW_MS).await));
    hit(store.find(&key(1, 0), NOW_MS).await);
    store.flush().await.unwrap();
    let disk = store.stats().disk.unwrap();
    assert_eq!((disk.quarantined, disk.entries), (1, 1));
    store.close();
    drop(store);
    with_answers(dir.path(), |answers| assert_eq!(answers.iter().count(), 1));
}

#[tokio::test]
async fn what_has_expired_leaves_the_disk_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(Some(dir.path()));
    let store = open(&settings);
    store.insert(long_lived(1), None).unwrap();
    store.insert(Entry::new(key(1, 2), meta(unix_ms() - 1), &answer("late")), Some(vector(2))).unwrap();
    store.close();
    drop(store);
    let store = open(&settings);
    let stats = store.stats();
    assert_eq!((stats.disk.unwrap().entries, stats.vectors), (1, 0));
    store.close();
    drop(store);
    with_answers(dir.path(), |answers| assert_eq!(answers.iter().count(), 1));
}

#[tokio::test]
async fn the_sweep_empties_memory_of_what_has_expired() {
    let store = open(&settings(None));
    store.insert(entry(1), Some(vector(1))).unwrap();
    store.shared.sweep(NOW_MS + 3_599_999);
    assert_eq!((store.stats().entries, store.stats().vectors), (1, 1));
    store.shared.sweep(NOW_MS + 3_600_000);
    assert_eq!((store.stats().entries, store.stats().vectors), (0, 0));
}

#[tokio::test]
async fn without_its_threads_the_store_goes_on_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&settings(Some(dir.path())));
    store.close();
    store.insert(long_lived(1), None).unwrap();
    hit(store.find(&key(1, 1), NOW_MS).await);
    assert_eq!(store.stats().disk, None);
    assert_eq!(store.flush().await, Err(Skip::StoreDown));
}

/// Changes the closed store's answers behind its back.
fn with_answers(dir: &Path, change: impl FnOnce(&fjall::Keyspace)) {
    let db = fjall::Database::builder(dir.join("answers")).open().unwrap();
    change(&db.keyspace("answers", fjall::KeyspaceCreateOptions::default).unwrap());
}

#[tokio::test]
async fn a_damaged_file_gives_right_answers_or_none() {
    use rand::{Rng, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut found = 0;
    for round in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(Some(dir.path()));
        let store = open(&settings);
        for number in 0..100 {
            store.insert(long_lived(number), Some(vector(number))).unwrap();
        }
        store.close();
        drop(store);
        let files = files(&dir.path().join("answers"));
        damage(&files[random.random_range(0..files.len())], round % 2 == 0, &mut random);

        let store = open(&settings);
        for number in 0..100 {
            if let Found::Hit(entry, _) = store.find(&key(1, number), NOW_MS).await {
                assert_eq!(entry.answer().unwrap(), answer(&format!("answer {number}")));
                found += 1;
            }
        }
        store.insert(long_lived(1000), None).unwrap();
        hit(store.find(&key(1, 1000), NOW_MS).await);
        store.close();
    }
    assert!(found > 0, "no answer survived any damage");
}

/// Cuts a file, or flips one of its bits.
fn damage(path: &Path, cut: bool, random: &mut impl rand::Rng) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    // The journal is allocated ahead: only what was written, and that is little, can be damaged.
    let mut start = vec![0; 256 << 10];
    let read = file.read_at(&mut start, 0).unwrap();
    let written = start[..read].iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let at = random.random_range(0..written);
    if cut {
        file.set_len(at as u64).unwrap();
    } else {
        file.write_all_at(&[start[at] ^ (1 << random.random_range(0..8u8))], at as u64).unwrap();
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
