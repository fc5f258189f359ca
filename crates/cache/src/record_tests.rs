use proptest::prelude::*;
use refrain_llm::answer::Encoded;

use super::*;
use crate::test_support::{answer, encoded, key, vector};

const PLACE: [u8; 40] = [5; 40];

fn secret() -> KeySecret {
    KeySecret::from_bytes([3; 32])
}

prop_compose! {
    fn metas()(
        stored_at_ms: u64,
        expires_at_ms: u64,
        stale_while_revalidate_until_ms: u64,
        stale_if_error_until_ms: u64,
        seen in (any::<u64>(), any::<u64>()),
        upstream_ms: u64,
        names in proptest::array::uniform3(".{0,8}"),
        user in proptest::option::of(".{0,8}"),
        embed_text in proptest::option::of(".{0,40}"),
        api in 0..Api::ALL.len(),
        exact_only: bool,
        replay_headers in proptest::collection::vec(("[a-z-]{0,8}", ".{0,8}"), 0..4),
        tags in proptest::collection::vec(".{0,8}", 0..4),
        labels in proptest::collection::vec((".{0,8}", ".{0,8}"), 0..4),
    ) -> EntryMeta {
        let [route, tenant, model] = names;
        EntryMeta {
            stored_at_ms,
            expires_at_ms,
            stale_while_revalidate_until_ms,
            stale_if_error_until_ms,
            seen: Epoch { ms: seen.0, seq: seen.1 },
            upstream_ms,
            route: RouteId::new(route),
            tenant: TenantId::new(tenant),
            user: user.map(UserId::new),
            model,
            api: Api::ALL[api],
            embed_text,
            exact_only,
            replay_headers,
            tags,
            labels,
        }
    }
}

prop_compose! {
    /// Small ones and some that are worth compressing, as records and as they came.
    fn entries()(
        meta in metas(), number: u64, words in prop_oneof![0usize..5, 500usize..700], as_it_came: bool,
    ) -> Entry {
        let text = "so it goes ".repeat(words);
        let answer = if as_it_came { encoded(&text) } else { Encoded::from(&answer(&text)) };
        Entry::new(key(1, number), meta, answer)
    }
}

fn place() -> PlaceRecord {
    PlaceRecord { partition: [2; 32], bytes: 77, vector: Some(([4; 32], vector(1))) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_entry_survives_its_record(entry in entries()) {
        let record = encode(&secret(), &entry);
        let back = decode(&secret(), &entry.key.key, &record).unwrap();
        prop_assert_eq!(back.key, entry.key);
        prop_assert_eq!(&back.meta, &entry.meta);
        prop_assert_eq!(back.encoded(), entry.encoded());
        prop_assert_eq!(back.usage, entry.usage);
        prop_assert_eq!(back.answer().unwrap(), entry.answer().unwrap());
    }

    #[test]
    fn a_changed_bit_anywhere_is_an_error(entry in entries(), at: prop::sample::Index, bit in 0u8..8) {
        let mut record = encode(&secret(), &entry);
        let at = at.index(record.len());
        record[at] ^= 1 << bit;
        prop_assert!(decode(&secret(), &entry.key.key, &record).is_err());
    }

    #[test]
    fn a_record_cut_or_grown_is_an_error(entry in entries(), at: prop::sample::Index) {
        let mut record = encode(&secret(), &entry);
        prop_assert!(decode(&secret(), &entry.key.key, &record[..at.index(record.len())]).is_err());
        record.push(0);
        prop_assert!(decode(&secret(), &entry.key.key, &record).is_err());
    }

    /// Past the digest too, nothing panics: a bug of an older writer must not take the process down.
    #[test]
    fn any_bytes_under_a_right_digest_are_read_without_panic(
        flags in 0u8..2, length in 0usize..4096, body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let record = seal(&secret(), &[1; 32], flags, length, &body);
        let _ = decode(&secret(), &[1; 32], &record);
        let _ = decode_place(&secret(), &[1; 32], &record);
    }

    #[test]
    fn a_damaged_place_is_an_error(at: prop::sample::Index, bit in 0u8..8) {
        let mut record = encode_place(&secret(), &PLACE, &place());
        let at = at.index(record.len());
        record[at] ^= 1 << bit;
        prop_assert!(decode_place(&secret(), &PLACE, &record).is_err());
    }
}

#[test]
fn a_record_under_another_key_or_secret_is_refused() {
    let entry = crate::test_support::entry(1);
    let record = encode(&secret(), &entry);
    let elsewhere = decode(&secret(), &[0; 32], &record).unwrap_err();
    assert_eq!(elsewhere, RecordError::Digest);
    let foreign = decode(&KeySecret::from_bytes([4; 32]), &entry.key.key, &record).unwrap_err();
    assert_eq!(foreign, RecordError::Digest);
}

#[test]
fn a_record_of_another_version_is_told_apart() {
    let entry = crate::test_support::entry(1);
    for version in [VERSION - 1, VERSION + 1] {
        let mut record = encode(&secret(), &entry);
        record[4..6].copy_from_slice(&version.to_le_bytes());
        assert_eq!(decode(&secret(), &entry.key.key, &record).unwrap_err(), RecordError::Version);
    }
    assert_eq!(decode(&secret(), &entry.key.key, b"something else").unwrap_err(), RecordError::Foreign);
}

#[test]
fn a_place_survives_its_record_and_is_bound_to_where_it_stands() {
    let record = encode_place(&secret(), &PLACE, &place());
    let back = decode_place(&secret(), &PLACE, &record).unwrap();
    assert_eq!((back.partition, back.bytes), (place().partition, place().bytes));
    let ((model, found), (_, stored)) = (back.vector.unwrap(), place().vector.unwrap());
    assert_eq!(model, [4; 32]);
    assert!(found.cosine(&stored) > 0.9999);
    assert_eq!(decode_place(&secret(), &[6; 40], &record).unwrap_err(), RecordError::Digest);
}

#[test]
fn long_answers_are_compressed() {
    let long = Entry::new(key(1, 1), crate::test_support::meta(0), &answer(&"the same again ".repeat(1000)));
    assert!(encode(&secret(), &long).len() < long.record_bytes() / 4);
}
