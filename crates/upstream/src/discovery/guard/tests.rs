//! What the guard promises, for any sequence of lists.

use std::time::Duration;

use proptest::prelude::*;
use refrain_core::settings::Endpoint;

use super::*;

const WINDOW: Duration = Shrinking::WINDOW;

fn listed(ids: impl IntoIterator<Item = u8>) -> Vec<Listed> {
    let listed = |id: u8| Listed {
        endpoint: Endpoint::plain(format!("s:{id}").as_str(), "10.0.0.1", 8000),
        price_per_hour: None,
        started: None,
    };
    ids.into_iter().map(listed).collect()
}

fn ids(guard: &MembershipGuard) -> Vec<String> {
    guard.members().iter().map(|listed| listed.endpoint.id.to_string()).collect()
}

fn guard(permille_max: u32, allow_empty: bool) -> MembershipGuard {
    MembershipGuard::new(Shrinking { permille_max, allow_empty })
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_changes_nothing() {
    let mut guard = guard(1000, false);
    guard.admit(listed(0..4), Instant::now());
    for _ in 0..10 {
        tokio::time::advance(WINDOW).await;
        guard.admit(Vec::new(), Instant::now());
    }
    assert_eq!(guard.members().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn half_of_the_endpoints_leave_in_a_minute_and_half_of_the_rest_in_the_next() {
    let mut guard = guard(500, false);
    guard.admit(listed(0..8), Instant::now());
    let mut sizes = Vec::new();
    for _ in 0..4 {
        guard.admit(listed([7]), Instant::now());
        tokio::time::advance(WINDOW / 2).await;
        guard.admit(listed([7]), Instant::now());
        sizes.push(guard.members().len());
        tokio::time::advance(WINDOW / 2).await;
    }
    assert_eq!(sizes, [4, 2, 1, 1]);
    assert_eq!((ids(&guard), guard.held_back()), (vec!["s:7".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn one_may_leave_where_half_would_be_none() {
    let mut guard = guard(0, false);
    guard.admit(listed([1, 2, 3]), Instant::now());
    guard.admit(listed([1]), Instant::now());
    assert_eq!((guard.members().len(), guard.held_back()), (2, 1));
    assert_eq!(guard.release_at(), Some(Instant::now() + WINDOW));
    tokio::time::advance(WINDOW).await;
    guard.admit(listed([1]), Instant::now());
    assert_eq!((ids(&guard), guard.release_at()), (vec!["s:1".to_owned()], None));
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_again_stays_and_has_its_new_settings() {
    let mut guard = guard(0, false);
    guard.admit(listed([1, 2, 3]), Instant::now());
    guard.admit(listed([1]), Instant::now());
    let mut back = listed([1, 2, 3]);
    back[2].endpoint.port = 9000;
    guard.admit(back.clone(), Instant::now());
    assert_eq!(guard.held_back(), 0);
    assert!(guard.members().contains(&back[2]));
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_that_is_allowed_shrinks_as_any_other() {
    let mut guard = guard(500, true);
    guard.admit(listed(0..4), Instant::now());
    guard.admit(Vec::new(), Instant::now());
    assert_eq!(guard.members().len(), 2);
    for _ in 0..2 {
        tokio::time::advance(WINDOW).await;
        guard.admit(Vec::new(), Instant::now());
    }
    assert_eq!(guard.members().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn inherited_members_stay_until_something_is_listed_and_then_leave_at_once() {
    let mut guard = MembershipGuard::inheriting(Shrinking::default(), listed(0..4));
    guard.admit(Vec::new(), Instant::now());
    assert_eq!(guard.members().len(), 4);
    guard.admit(listed([9]), Instant::now());
    assert_eq!(ids(&guard), ["s:9"]);
}

/// A list, some seconds after the one before.
fn step() -> impl Strategy<Value = (u64, Vec<u8>)> {
    (0..40u64, proptest::collection::vec(0..24u8, 0..24))
}

proptest! {
    #[test]
    fn no_sequence_of_lists_breaks_what_the_guard_promises(
        permille_max in 0..=1000u32,
        allow_empty: bool,
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let start = Instant::now();
        let mut guard = guard(permille_max, allow_empty);
        let mut now = start;
        let mut left: Vec<(Instant, usize, usize)> = Vec::new();
        for (seconds, list) in steps {
            now += Duration::from_secs(seconds);
            let before = ids(&guard);
            guard.admit(listed(list.iter().copied()), now);
            let after = ids(&guard);
            for id in &list {
                prop_assert!(after.contains(&format!("s:{id}")), "listed and not a member");
            }
            prop_assert!(allow_empty || before.is_empty() || !after.is_empty(), "emptied");
            let gone = before.iter().filter(|id| !after.contains(id)).count();
            let lately: usize = left.iter().filter(|(at, ..)| now - *at < WINDOW).map(|(_, gone, _)| gone).sum();
            let known = before.len() + lately;
            let allowed = (known * permille_max as usize / 1000).max(1);
            prop_assert!(gone == 0 || lately + gone <= allowed, "{lately} and {gone} left of {known}");
            left.push((now, gone, known));
        }
    }

    #[test]
    fn a_list_that_stays_is_followed_in_the_end(
        first in proptest::collection::btree_set(0..24u8, 1..24),
        then in proptest::collection::btree_set(0..24u8, 1..24),
        permille_max in 0..=1000u32,
    ) {
        let mut guard = guard(permille_max, false);
        let mut now = Instant::now();
        guard.admit(listed(first), now);
        for _ in 0..24 {
            guard.admit(listed(then.iter().copied()), now);
            now += WINDOW;
        }
        prop_assert_eq!(guard.members().len(), then.len());
        prop_assert_eq!(guard.release_at(), None);
    }
}
