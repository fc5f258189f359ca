//! Purges of the embedded store, in memory and on disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use refrain_core::settings::EmbeddedStore;
use refrain_core::{RouteId, Skip, TenantId, UserId};

use crate::embedder::Embedding;
use crate::entry::{Entry, EntryMeta};
use crate::error::PurgeError;
use crate::purge::{Conditions, Epoch, Purge, PurgeHow, PurgeMode, PurgeReport, Select};
use crate::secret::KeySecret;
use crate::store::{Found, Store};
use crate::test_support::{NOW_MS, answer, entry, key, meta, vector};

const PARTITION: [u8; 32] = [1; 32];

fn open(dir: Option<&Path>) -> Store {
    let settings =
        EmbeddedStore { memory_bytes_max: 16 << 20, dir: dir.map(Into::into), ..EmbeddedStore::default() };
    Store::open(&settings, &Arc::new(KeySecret::from_bytes([3; 32])), Some([8; 32])).unwrap()
}

/// Entry `number` of the test population: what it is like follows from its number.
fn citizen(store: &Store, number: u64) -> (Entry, Embedding) {
    let odd = number % 2 == 1;
    let meta = EntryMeta {
        route: RouteId::new(if odd { "chat" } else { "docs" }),
        tenant: TenantId::new(if number < 4 { "acme" } else { "umbrella" }),
        user: (number != 3).then(|| UserId::new(if odd { "ann" } else { "ben" })),
        model: if number == 5 { "large" } else { "small" }.to_owned(),
        tags: if number.is_multiple_of(3) {
            vec!["other".to_owned(), "prices".to_owned()]
        } else {
            Vec::new()
        },
        stored_at_ms: NOW_MS - 1000 * number,
        seen: store.epoch(),
        ..meta(NOW_MS + 3_600_000)
    };
    (Entry::new(key(1, number), meta, &answer(&format!("answer {number}"))), vector(number))
}

const CITIZENS: u64 = 8;

fn populate(store: &Store) {
    for number in 0..CITIZENS {
        let (entry, vector) = citizen(store, number);
        store.insert(entry, Some(vector)).unwrap();
    }
}

fn hard(conditions: Conditions) -> Purge {
    Purge { select: Select::of(conditions).unwrap(), how: PurgeHow::Hard, at_ms: NOW_MS }
}

fn of_tag(tag: &str) -> Purge {
    hard(Conditions { tag: Some(tag.to_owned()), ..Conditions::default() })
}

fn everything(how: PurgeHow) -> Purge {
    Purge { select: Select::everything(), how, at_ms: NOW_MS }
}

async fn found(store: &Store, now_ms: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for number in 0..CITIZENS {
        if let Found::Hit(entry, _) = store.find(&key(1, number), now_ms).await {
            assert_eq!(entry.answer().unwrap(), answer(&format!("answer {number}")));
            found.push(number);
        }
    }
    found
}

async fn similar(store: &Store) -> Vec<u64> {
    let near = store.nearest(&PARTITION, &vector(1), 2 * CITIZENS as usize, NOW_MS).await;
    let number = |key: [u8; 32]| (0..CITIZENS).find(|number| crate::test_support::key(1, *number).key == key);
    let mut numbers: Vec<_> = near.iter().map(|near| number(near.entry.key.key).unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// Purges in memory, on disk and in memory, and on disk alone; what is left, then and after a restart.
async fn check(purge: Purge, left: &[u64]) {
    let matched = CITIZENS - left.len() as u64;
    for (on_disk, in_memory) in [(false, true), (true, true), (true, false)] {
        let dir = tempfile::tempdir().unwrap();
        let dir = on_disk.then(|| dir.path());
        let mut store = open(dir);
        populate(&store);
        if !in_memory {
            store.close();
            drop(store);
            store = open(dir);
        }
        let counted = store.purge(&purge, PurgeMode::DryRun).await.unwrap();
        assert_eq!((counted.matched, counted.by_route.values().sum()), (matched, matched), "{purge:?}");
        assert_eq!(found(&store, NOW_MS).await.len() as u64, CITIZENS, "a dry run removes nothing");
        assert_eq!(similar(&store).await.len() as u64, CITIZENS);
        assert_eq!(store.epoch(), Epoch::ZERO);
        let report = store.purge(&purge, PurgeMode::Real).await.unwrap();
        assert_eq!(report, counted);
        assert_eq!(found(&store, NOW_MS).await, left);
        assert_eq!(similar(&store).await, left);
        let stats = store.stats();
        assert_eq!((stats.entries, stats.vectors), (left.len(), left.len()));
        assert_eq!(stats.disk.map(|disk| disk.entries), on_disk.then_some(left.len()));
        if on_disk {
            store.close();
            drop(store);
            let store = open(dir);
            assert_eq!((found(&store, NOW_MS).await, similar(&store).await), (left.to_vec(), left.to_vec()));
            store.close();
        }
    }
}

#[tokio::test]
async fn what_has_the_tag_is_gone_and_nothing_else() {
    check(of_tag("prices"), &[1, 2, 4, 5, 7]).await;
    check(of_tag("price"), &[0, 1, 2, 3, 4, 5, 6, 7]).await;
}

#[tokio::test]
async fn conditions_are_met_one_by_one() {
    let base = Conditions::default;
    check(hard(Conditions { route: Some(RouteId::new("chat")), ..base() }), &[0, 2, 4, 6]).await;
    check(hard(Conditions { model: Some("large".into()), ..base() }), &[0, 1, 2, 3, 4, 6, 7]).await;
    check(hard(Conditions { tenant: Some(TenantId::new("acme")), ..base() }), &[4, 5, 6, 7]).await;
    check(hard(Conditions { user: Some(UserId::new("ann")), ..base() }), &[0, 2, 3, 4, 6]).await;
    check(hard(Conditions { key: Some(key(1, 6).key), ..base() }), &[0, 1, 2, 3, 4, 5, 7]).await;
    check(hard(Conditions { key: Some(key(2, 6).key), ..base() }), &[0, 1, 2, 3, 4, 5, 6, 7]).await;
    check(hard(Conditions { stored_before_ms: Some(NOW_MS - 4000), ..base() }), &[0, 1, 2, 3, 4]).await;
    check(everything(PurgeHow::Hard), &[]).await;
}

#[tokio::test]
async fn conditions_are_met_together() {
    let tenant = Some(TenantId::new("acme"));
    let user = Some(UserId::new("ben"));
    check(hard(Conditions { tenant, user, ..Conditions::default() }), &[1, 3, 4, 5, 6, 7]).await;
}

#[tokio::test]
async fn the_report_says_how_much_of_which_route() {
    let store = open(None);
    populate(&store);
    let PurgeReport { matched, bytes, by_route } =
        store.purge(&of_tag("prices"), PurgeMode::DryRun).await.unwrap();
    let one = citizen(&store, 0).0.record_bytes() as u64;
    assert!(matched == 3 && bytes > 2 * one && bytes < 4 * one, "{matched} of {bytes} bytes");
    let by_route: Vec<_> = by_route.iter().map(|(route, count)| (route.as_str(), *count)).collect();
    assert_eq!(by_route, [("chat", 1), ("docs", 2)]);
}

#[tokio::test]
async fn what_was_begun_before_a_purge_is_not_stored_after_it() {
    for how in PurgeHow::ALL {
        let store = open(None);
        let (early, _) = citizen(&store, 1);
        store.purge(&everything(how), PurgeMode::Real).await.unwrap();
        assert!(!store.admits(&early));
        assert_eq!(store.insert(early, None).unwrap_err(), Skip::Purged);
        let (late, _) = citizen(&store, 1);
        store.insert(late, None).unwrap();
        assert_eq!(found(&store, NOW_MS).await, [1]);
        let counted = store.purge(&everything(how), PurgeMode::DryRun).await.unwrap();
        assert_eq!(counted.matched, 1, "what came after a purge is there for the next");
    }
}

#[tokio::test]
async fn a_purge_of_others_does_not_keep_an_answer_out() {
    let store = open(None);
    let (early, _) = citizen(&store, 1);
    store.purge(&of_tag("prices"), PurgeMode::Real).await.unwrap();
    store.insert(early, None).unwrap();
    assert_eq!(found(&store, NOW_MS).await, [1]);
}

#[tokio::test]
async fn a_purge_is_in_force_before_the_first_await() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [None, Some(dir.path())] {
        let store = open(dir);
        populate(&store);
        // Polled once, then dropped: what was begun comes to its end.
        let tag = of_tag("prices");
        let mut purge = Box::pin(store.purge(&tag, PurgeMode::Real));
        let begun = futures_util::poll!(&mut purge);
        drop(purge);
        assert_eq!(found(&store, NOW_MS).await, [1, 2, 4, 5, 7], "{begun:?}");
        assert_eq!(similar(&store).await, [1, 2, 4, 5, 7]);
        let nothing = store.purge(&of_tag("none"), PurgeMode::Real).await.unwrap();
        assert_eq!((nothing.matched, store.stats().entries), (0, 5), "purges end one after the other");
        store.close();
    }
}

/// Fresh for 10 s after [`NOW_MS`], and 10 s longer while revalidating.
fn with_window(store: &Store, number: u64) -> Entry {
    let meta = EntryMeta {
        stale_while_revalidate_until_ms: NOW_MS + 20_000,
        seen: store.epoch(),
        ..meta(NOW_MS + 10_000)
    };
    Entry::new(key(1, number), meta, &answer(&format!("answer {number}")))
}

async fn is_stale(store: &Store, number: u64, now_ms: u64) -> bool {
    match store.find(&key(1, number), now_ms).await {
        Found::Stale(entry, _) => {
            assert!(entry.may_serve_while_revalidating(now_ms) && !entry.may_serve_if_error(now_ms));
            true
        }
        Found::Hit(..) => panic!("fresh after a soft purge"),
        Found::Miss => false,
    }
}

#[tokio::test]
async fn a_soft_purge_leaves_the_stale_windows_and_no_more() {
    // The sweep goes by the real clock: the test's, in the future, would have its entries expire later.
    let soft = Purge { at_ms: crate::store::unix_ms(), ..everything(PurgeHow::Soft) };
    for in_memory in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(Some(dir.path()));
        store.insert(with_window(&store, 1), Some(vector(1))).unwrap();
        store.insert(entry(2), Some(vector(2))).unwrap();
        if !in_memory {
            store.close();
            drop(store);
            store = open(Some(dir.path()));
        }
        assert_eq!(store.purge(&soft, PurgeMode::Real).await.unwrap().matched, 2);
        for restart in [false, true] {
            if restart {
                store.close();
                drop(store);
                store = open(Some(dir.path()));
            }
            assert!(is_stale(&store, 1, NOW_MS).await && is_stale(&store, 1, NOW_MS + 19_999).await);
            assert!(!is_stale(&store, 1, NOW_MS + 20_000).await);
            assert!(!is_stale(&store, 2, NOW_MS).await, "it has no window: it is as if gone");
            assert!(store.nearest(&PARTITION, &vector(1), 2, NOW_MS).await.is_empty());
            assert_eq!(store.stats().disk.unwrap().entries, 1);
        }
        store.insert(with_window(&store, 1), None).unwrap();
        assert_eq!(found(&store, NOW_MS).await, [1], "a refreshed answer is fresh");
        store.close();
    }
}

#[tokio::test]
async fn a_soft_purge_in_force_but_not_swept_gives_stale_answers() {
    let store = open(None);
    store.insert(with_window(&store, 1), None).unwrap();
    store.insert(entry(2), None).unwrap();
    let soft = everything(PurgeHow::Soft);
    let conditions = Conditions { route: Some(RouteId::new("chat")), ..Conditions::default() };
    let soft = Purge { select: Select::of(conditions).unwrap(), ..soft };
    store.shared.bans.append(Epoch { ms: 1, seq: 0 }, soft);
    for now_ms in [NOW_MS - 1, NOW_MS, NOW_MS + 19_999] {
        assert!(is_stale(&store, 1, now_ms).await, "whose clock is behind sees it stale as well");
        assert!(!is_stale(&store, 2, now_ms).await);
    }
}

#[tokio::test]
async fn places_in_the_order_of_purges_only_rise_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = Epoch::ZERO;
    for _ in 0..3 {
        let store = open(Some(dir.path()));
        assert_eq!(store.epoch(), last);
        for _ in 0..2 {
            populate(&store);
            store.purge(&of_tag("prices"), PurgeMode::Real).await.unwrap();
            assert!(store.epoch() > last);
            last = store.epoch();
        }
        assert_eq!(found(&store, NOW_MS).await, [1, 2, 4, 5, 7]);
        store.close();
    }
}

#[tokio::test]
async fn many_entries_are_purged_in_steps_while_others_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(Some(dir.path()));
    const MANY: u64 = 1500;
    for number in 100..100 + MANY {
        store.insert(Entry::new(key(1, number), meta(NOW_MS + 3_600_000), &answer("x")), None).unwrap();
        if number.is_multiple_of(200) {
            store.flush().await.unwrap();
        }
    }
    let tag = everything(PurgeHow::Hard);
    let mut purge = Box::pin(store.purge(&tag, PurgeMode::Real));
    assert!(futures_util::poll!(&mut purge).is_pending());
    populate(&store);
    assert_eq!(purge.await.unwrap().matched, MANY);
    assert_eq!(found(&store, NOW_MS).await.len() as u64, CITIZENS, "what was begun after it stays");
    store.close();
    drop(store);
    let store = open(Some(dir.path()));
    assert_eq!(store.stats().disk.unwrap().entries as u64, CITIZENS);
    store.close();
}

#[tokio::test]
async fn a_closed_store_says_that_nothing_was_purged() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [None, Some(dir.path())] {
        let store = open(dir);
        store.close();
        assert_eq!(store.purge(&of_tag("a"), PurgeMode::Real).await, Err(PurgeError::Closed));
        assert_eq!(store.epoch(), Epoch::ZERO);
    }
}

/// What is found at least was begun at that place in the order of purges, or later; how much that is.
async fn check_seen(store: &Store, least: Epoch) -> usize {
    let mut found = 0;
    for number in 0..CITIZENS {
        if let Found::Hit(entry, _) = store.find(&key(1, number), NOW_MS).await {
            assert!(entry.meta.seen >= least, "{} came back after {least}", entry.meta.seen);
            found += 1;
        }
    }
    for near in store.nearest(&PARTITION, &vector(1), 2 * CITIZENS as usize, NOW_MS).await {
        assert!(near.entry.meta.seen >= least);
    }
    found
}

#[tokio::test]
async fn nothing_comes_back_while_others_write_and_read_as_fast_as_they_can() {
    const PURGES: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(Some(dir.path())));
    let (done, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let write = |store: Arc<Store>, done: Arc<AtomicBool>, refused: Arc<AtomicUsize>| {
        for number in (0..CITIZENS).cycle().take_while(|_| !done.load(Relaxed)) {
            let (entry, vector) = citizen(&store, number);
            std::thread::yield_now();
            if store.insert(entry, Some(vector)).is_err_and(|skip| skip == Skip::Purged) {
                refused.fetch_add(1, Relaxed);
            }
        }
    };
    let writers = [0; 3].map(|_| {
        let (store, done, refused) = (store.clone(), done.clone(), refused.clone());
        std::thread::spawn(move || write(store, done, refused))
    });
    let (mut purges, mut found) = (0, 0);
    // Both must have happened, or nothing was tried.
    while purges < PURGES || found == 0 || refused.load(Relaxed) == 0 {
        store.purge(&everything(PurgeHow::Hard), PurgeMode::Real).await.unwrap();
        found += check_seen(&store, store.epoch()).await;
        purges += 1;
    }
    done.store(true, Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let last = store.epoch();
    store.close();
    drop(store);
    let store = open(Some(dir.path()));
    assert_eq!(store.epoch(), last);
    check_seen(&store, last).await;
    store.close();
}
