use proptest::prelude::*;
use refrain_core::{RouteId, TenantId, UserId};

use super::*;
use crate::entry::{Entry, EntryMeta};
use crate::test_support::{NOW_MS, answer, key, meta};

fn names() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[ab]")
}

prop_compose! {
    /// Conditions that often meet each other.
    fn conditions()(
        number in proptest::option::of(0u64..3),
        names in (names(), names(), names(), names(), names()),
        stored_before_ms in proptest::option::of(0u64..4),
    ) -> Conditions {
        let (tag, route, model, tenant, user) = names;
        Conditions {
            key: number.map(|number| key(1, number).key),
            tag,
            route: route.map(RouteId::new),
            model,
            tenant: tenant.map(TenantId::new),
            user: user.map(UserId::new),
            stored_before_ms,
        }
    }
}

pub(crate) fn selects() -> impl Strategy<Value = Select> {
    conditions().prop_map(|conditions| Select::of(conditions).unwrap_or_else(|_| Select::everything()))
}

fn purges() -> impl Strategy<Value = Purge> {
    (selects(), any::<bool>(), NOW_MS..NOW_MS + 4).prop_map(|(select, soft, at_ms)| {
        let how = if soft { PurgeHow::Soft } else { PurgeHow::Hard };
        Purge { select, how, at_ms }
    })
}

fn epoch(seq: u64) -> Epoch {
    Epoch { ms: 7, seq }
}

prop_compose! {
    fn entries()(
        number in 0u64..3,
        names in ("[ab]", "[ab]", "[ab]", names()),
        tags in proptest::collection::vec("[ab]", 0..2),
        stored_at_ms in 0u64..4,
        seen in 0u64..12,
        expires in 0u64..6,
    ) -> Entry {
        let (route, model, tenant, user) = names;
        let meta = EntryMeta {
            stored_at_ms,
            expires_at_ms: NOW_MS + expires,
            seen: epoch(seen),
            route: RouteId::new(route),
            tenant: TenantId::new(tenant),
            user: user.map(UserId::new),
            model,
            tags,
            ..meta(0)
        };
        Entry::new(key(1, number), meta, &answer("yes"))
    }
}

/// The meaning, said plainly: a list of everything that happened.
#[derive(Default)]
struct Model {
    purges: Vec<(Epoch, Purge)>,
    floor: Epoch,
}

impl Model {
    fn verdict(&self, entry: &Entry) -> Verdict {
        if entry.meta.seen < self.floor {
            return Verdict::Gone;
        }
        let about = |(epoch, purge): &&(Epoch, Purge)| {
            *epoch > entry.meta.seen && purge.select.matches(&entry.key, &entry.meta)
        };
        let about: Vec<_> = self.purges.iter().filter(about).map(|(_, purge)| purge).collect();
        if about.iter().any(|purge| purge.how == PurgeHow::Hard) {
            return Verdict::Gone;
        }
        let since_ms = about.iter().map(|purge| purge.at_ms).min().unwrap_or(u64::MAX);
        if since_ms < entry.meta.expires_at_ms { Verdict::Stale { since_ms } } else { Verdict::Clear }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Append(u64, Purge),
    Reset(u64),
    /// A look that may leave a mark.
    Look,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (1u64..12, purges()).prop_map(|(seq, purge)| Event::Append(seq, purge)),
        1 => (1u64..6).prop_map(Event::Reset),
        4 => Just(Event::Look),
    ];
    proptest::collection::vec(event, 0..20)
}

proptest! {
    #[test]
    fn a_verdict_is_what_the_whole_history_says(entry in entries(), events in events()) {
        let (bans, mut model) = (Bans::new(Epoch::ZERO), Model::default());
        for event in events {
            match event {
                Event::Append(seq, purge) => {
                    let (at, was_floor) = (epoch(seq), model.floor);
                    let is_known = at <= was_floor || model.purges.iter().any(|(known, _)| *known == at);
                    prop_assert_eq!(bans.append(at, purge.clone()), !is_known);
                    if !is_known {
                        model.purges.push((at, purge));
                    }
                }
                Event::Reset(seq) => {
                    bans.reset(epoch(seq));
                    model.floor = model.floor.max(epoch(seq));
                    let floor = model.floor;
                    model.purges.retain(|(at, _)| *at > floor);
                }
                Event::Look => {
                    prop_assert_eq!(bans.verdict(&entry), model.verdict(&entry));
                    // What is clear has taken into account what came before: a later floor says nothing new.
                    if model.verdict(&entry) == Verdict::Clear {
                        break;
                    }
                }
            }
            prop_assert_eq!(bans.verdict_outside(&entry.key, &entry.meta), model.verdict(&entry));
            let newest = model.purges.iter().map(|(at, _)| *at).max().unwrap_or_default();
            prop_assert_eq!((bans.latest(), bans.floor()), (newest.max(model.floor), model.floor));
        }
    }

    #[test]
    fn a_mark_hides_no_later_purge(entry in entries(), purges in proptest::collection::vec((1u64..12, purges()), 0..8)) {
        let (bans, mut model) = (Bans::new(Epoch::ZERO), Model::default());
        for (seq, purge) in purges {
            if bans.append(epoch(seq), purge.clone()) {
                model.purges.push((epoch(seq), purge));
            }
            prop_assert_eq!(bans.verdict(&entry), model.verdict(&entry));
        }
    }

    #[test]
    fn a_softened_entry_is_clear_and_its_windows_end_when_they_would_have(
        entry in entries(), window in 0u64..9, at_ms in NOW_MS..NOW_MS + 4,
    ) {
        let bans = Bans::new(Epoch::ZERO);
        bans.append(epoch(20), Purge { select: Select::everything(), how: PurgeHow::Soft, at_ms });
        let mut meta = entry.meta.clone();
        meta.stale_while_revalidate_until_ms = NOW_MS + window;
        let entry = Entry::new(entry.key, meta, &answer("yes"));
        if let Verdict::Stale { since_ms } = bans.verdict(&entry) {
            let soft = entry.expired_at(since_ms);
            prop_assert_eq!(bans.verdict(&soft), Verdict::Clear);
            prop_assert!(!soft.is_fresh(at_ms));
            let had_window = NOW_MS + window > entry.meta.expires_at_ms;
            for now_ms in at_ms..NOW_MS + 10 {
                let stale = had_window && now_ms < NOW_MS + window;
                prop_assert_eq!(soft.may_serve_while_revalidating(now_ms), stale);
            }
        } else {
            prop_assert!(entry.meta.expires_at_ms <= at_ms);
        }
    }

    #[test]
    fn a_purge_survives_its_encoding(purge in purges()) {
        prop_assert_eq!(Purge::decode(&purge.encode()), Ok(purge));
    }

    #[test]
    fn any_bytes_are_read_without_panic_and_what_is_read_is_what_is_written(
        purge in purges(), cut: prop::sample::Index, at: prop::sample::Index, byte: u8,
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = purge.encode();
        prop_assert!(Purge::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let mut changed = bytes.clone();
        changed[at.index(bytes.len())] = byte;
        for bytes in [&changed[..], &noise, &[&bytes[..], &[0]].concat(), &[&bytes[..24], &noise].concat()] {
            if let Ok(read) = Purge::decode(bytes) {
                prop_assert_eq!(read.encode(), bytes);
            }
        }
    }

    #[test]
    fn an_epoch_survives_its_text_and_the_next_is_later(ms: u64, seq: u64, now_ms: u64) {
        let epoch = Epoch { ms, seq };
        prop_assert_eq!(epoch.to_string().parse(), Ok(epoch));
        prop_assume!(epoch < Epoch { ms: u64::MAX, seq: u64::MAX });
        prop_assert!(epoch.next(now_ms) > epoch);
    }
}

#[test]
fn nothing_but_two_whole_numbers_is_an_epoch() {
    for text in ["", "-", "1", "1-", "-1", "1-2-3", "+1-2", "1- 2", "1-99999999999999999999", "a-b"] {
        assert_eq!(text.parse::<Epoch>(), Err(EpochError), "{text:?}");
    }
}

#[test]
fn no_condition_is_not_everything_and_no_name_is_endless() {
    assert_eq!(Select::of(Conditions::default()), Err(SelectError::Empty));
    let tag = Some("x".repeat(SELECT_NAME_BYTES_MAX + 1));
    assert_eq!(Select::of(Conditions { tag, ..Conditions::default() }), Err(SelectError::TooLong("tag")));
    let tag = Some(String::new());
    assert!(!Select::of(Conditions { tag, ..Conditions::default() }).unwrap().is_everything());
}

#[test]
fn a_selection_is_told_in_words() {
    let conditions = Conditions {
        tag: Some("a\n".into()),
        tenant: Some(TenantId::new("acme")),
        stored_before_ms: Some(9),
        key: Some([0xab; 32]),
        ..Conditions::default()
    };
    let expected = r#"key abababab.., tag "a\n", tenant "acme", stored before 9 ms"#;
    assert_eq!(Select::of(conditions).unwrap().to_string(), expected);
    assert_eq!(Select::everything().to_string(), "everything");
}

#[test]
fn purges_of_another_version_are_told_apart() {
    let purge = Purge { select: Select::everything(), how: PurgeHow::Hard, at_ms: 1 };
    let mut bytes = purge.encode();
    bytes[0] += 1;
    assert_eq!(Purge::decode(&bytes), Err(PurgeDecodeError::Version));
    assert_eq!(Purge::decode(b"?"), Err(PurgeDecodeError::Malformed));
}

/// A purge by a tag that nothing has.
fn of_nothing() -> Purge {
    let select = Select::of(Conditions { tag: Some("none".into()), ..Conditions::default() }).unwrap();
    Purge { select, how: PurgeHow::Hard, at_ms: 1 }
}

#[test]
fn the_list_is_bounded_and_what_may_have_been_forgotten_is_gone() {
    let bans = Bans::new(Epoch::ZERO);
    let new =
        |seen: u64| Entry::new(key(1, 1), EntryMeta { seen: epoch(seen), ..meta(NOW_MS) }, &answer("yes"));
    let (old, looked_at) = (new(0), new(0));
    for seq in 1..=BANS_MAX as u64 {
        bans.append(epoch(seq), of_nothing());
    }
    assert_eq!((bans.len(), bans.floor(), bans.latest()), (BANS_MAX, Epoch::ZERO, epoch(BANS_MAX as u64)));
    assert_eq!(bans.verdict(&looked_at), Verdict::Clear);
    bans.append(epoch(BANS_MAX as u64 + 1), of_nothing());
    assert_eq!((bans.len(), bans.floor()), (BANS_MAX, epoch(1)));
    assert_eq!(bans.verdict(&old), Verdict::Gone);
    assert_eq!(bans.verdict(&looked_at), Verdict::Clear, "it was held against the forgotten one");
    assert_eq!(bans.verdict_outside(&old.key, &old.meta), Verdict::Gone);
    assert_eq!(bans.verdict(&new(1)), Verdict::Clear);
    bans.reset(bans.latest());
    assert_eq!(bans.verdict(&looked_at), Verdict::Gone, "nobody knows what was missed");
    assert!(bans.is_empty());
}

#[test]
fn what_was_settled_is_not_asked_again_but_for_answers_outside() {
    let bans = Bans::new(Epoch::ZERO);
    bans.append(epoch(1), Purge { select: Select::everything(), ..of_nothing() });
    let entry = Entry::new(key(1, 1), meta(NOW_MS), &answer("yes"));
    assert_eq!(bans.verdict(&entry), Verdict::Gone);
    bans.settle(epoch(1));
    assert_eq!(bans.verdict(&entry), Verdict::Clear, "a sweep has let it stand");
    assert_eq!(bans.verdict_outside(&entry.key, &entry.meta), Verdict::Gone);
    bans.append(epoch(2), Purge { select: Select::everything(), ..of_nothing() });
    assert_eq!(bans.verdict(&entry), Verdict::Gone);
}

#[test]
fn who_asks_after_a_purge_joins_no_flight_from_before() {
    let names = [Epoch::ZERO, epoch(1), epoch(2)].map(|epoch| epoch.flight(&key(1, 1)));
    assert_eq!(names[0], key(1, 1).key);
    assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
    assert_ne!(epoch(1).flight(&key(1, 2)), names[1]);
}
