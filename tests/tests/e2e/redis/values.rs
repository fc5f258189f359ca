//! What stands in Redis and is not what this fleet wrote there is a miss, and never an error or an answer.

use std::path::PathBuf;

use refrain_tests::redis::{Flavour, RedisServer};
use refrain_tests::{Ask, Config, Manifest, Person, Refrain};
use tempfile::TempDir;

use super::{
    ERRORS, Fleet, PARAPHRASE, QUESTION, REFUSED, away, check_miss, detail, entries, look, stored, up,
};

/// Where a record has its version, as two bytes.
const VERSION: usize = 4;

async fn record(redis: &RedisServer, name: &str) -> Vec<u8> {
    redis.command(&["HGET", name, "r"]).await.bytes().to_vec()
}

async fn write(redis: &RedisServer, name: &str, record: &[u8]) {
    redis.command(&[b"HSET", name.as_bytes(), b"r", record]).await.integer();
}

/// The only entry's name.
async fn only_entry(redis: &RedisServer) -> String {
    let names = entries(redis).await;
    assert_eq!(names.len(), 1, "{names:?}");
    names[0].clone()
}

/// The name of the entry that asking this makes.
async fn entry_of(redis: &RedisServer, refrain: &Refrain, ask: &Ask) -> String {
    let before = entries(redis).await;
    stored(refrain, ask).await;
    entries(redis).await.into_iter().find(|name| !before.contains(name)).expect("a new entry")
}

/// A change to the bytes of a record.
type Spoil = fn(Vec<u8>) -> Vec<u8>;

const SPOILT: [(&str, &str, Spoil); 9] = [
    ("a byte changed in the middle", "digest", |mut record| {
        let middle = record.len() / 2;
        record[middle] ^= 1;
        record
    }),
    ("a byte changed at the end", "digest", |mut record| {
        *record.last_mut().unwrap() ^= 0x80;
        record
    }),
    ("said to be compressed", "digest", |mut record| {
        record[VERSION + 2] ^= 1;
        record
    }),
    ("another length", "digest", |mut record| {
        record[VERSION + 3] ^= 1;
        record
    }),
    ("cut by one byte", "digest", |mut record| {
        record.pop();
        record
    }),
    ("cut to its beginning", "foreign", |record| record[..20].to_vec()),
    ("empty", "foreign", |_| Vec::new()),
    ("foreign", "foreign", |_| {
        b"{\"choices\":[{\"message\":{\"content\":\"somebody else's words\"}}]}".to_vec()
    }),
    ("of a newer version", "version", |mut record| {
        record[VERSION] += 1;
        record
    }),
];

#[tokio::test]
async fn a_spoilt_value_is_a_miss_and_counted_and_replaced() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::of(&redis).await;
    for (nth, (what, reason, spoil)) in SPOILT.into_iter().enumerate() {
        let [a, b] = fleet.pair().await;
        let ask = Ask::chat(&format!("question {nth}"));
        let name = entry_of(&redis, &a, &ask).await;
        write(&redis, &name, &spoil(record(&redis, &name).await)).await;
        let miss = stored(&b, &ask).await;
        assert_eq!(miss.answer(), format!("answer {} to question {nth}", fleet.fake.posts()), "{what}");
        let metrics = b.metrics().await;
        assert!(metrics.sum(REFUSED, &[("reason", reason)]) >= 1.0, "{what}: {}", metrics.text());
        assert!(metrics.sum(REFUSED, &[]) - metrics.sum(REFUSED, &[("reason", reason)]) < 0.5, "{what}");
        let later = fleet.proxy().await;
        assert_eq!(later.send(&ask).await.answer(), miss.answer(), "{what}");
    }
    assert_eq!(fleet.fake.posts(), 2 * SPOILT.len());
}

#[tokio::test]
async fn a_spoilt_value_is_no_similar_answer_either() {
    for flavour in [Flavour::QueryEngine, Flavour::VectorSets, Flavour::Plain] {
        let redis = RedisServer::start(flavour).await;
        let fleet = Fleet::of(&redis).await;
        let [a, b] = fleet.pair_with(|config| config.semantic("threshold = 0.85")).await;
        stored(&a, &Ask::chat(QUESTION)).await;
        let name = only_entry(&redis).await;
        let mut spoilt = record(&redis, &name).await;
        spoilt[30] ^= 1;
        write(&redis, &name, &spoilt).await;
        // Where each process searches for itself, this one knows every vector from its start.
        let later = fleet.proxy_with(|config| config.semantic("threshold = 0.85")).await;
        for proxy in [&b, &later] {
            check_miss(proxy, &Ask::chat(PARAPHRASE)).await;
        }
        later.counted(REFUSED, &[("reason", "digest")], 1.0).await;
    }
}

#[tokio::test]
async fn a_value_of_another_kind_is_a_miss() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let [a, b] = fleet.pair().await;
    let ask = Ask::chat("what now?");
    let name = entry_of(&redis, &a, &ask).await;
    assert!(redis.command(&["SET", &name, "a string, no hash"]).await.is_ok());
    let miss = stored(&b, &ask).await;
    assert_eq!(miss.answer(), "answer 2 to what now?");
    assert_eq!(super::report(&b).await["state"], "up");
    assert_eq!(detail(&look(&fleet.proxy().await, &ask).await), "exact_shared");
    redis.command(&["DEL", &name]).await;
    assert_eq!(redis.command(&["HSET", &name, "another field", "x"]).await.integer(), 1);
    check_miss(&fleet.proxy().await, &ask).await;
}

#[tokio::test]
async fn a_value_copied_to_another_key_or_user_is_refused() {
    let redis = RedisServer::start(Flavour::QueryEngine).await;
    let fleet = Fleet::of(&redis).await;
    let people = [Person::new("ann", "acme"), Person::new("bob", "acme"), Person::new("ann", "umbrella")];
    let with_people = |config: Config| config.people(&people.each_ref()).semantic("threshold = 0.85");
    let [a, b] = fleet.pair_with(with_people).await;
    let own = Ask::chat(QUESTION).by(&people[0]);
    let name = entry_of(&redis, &a, &own).await;
    let answer = a.send(&own).await.answer();
    let others = [
        Ask::chat("What is the weather like?").by(&people[0]),
        Ask::chat(QUESTION).by(&people[1]),
        Ask::chat(QUESTION).by(&people[2]),
    ];
    for (nth, other) in others.iter().enumerate() {
        let place = entry_of(&redis, &a, other).await;
        // The whole of it, its vector too, beneath the other's name.
        redis.command(&["DEL", &place]).await;
        assert_eq!(redis.command(&["COPY", &name, &place]).await.integer(), 1);
        let reply = look(&b, other).await;
        assert_eq!(reply.cache_status(), "refrain; fwd=miss", "{other:?}");
        assert_ne!(reply.answer(), answer);
        #[expect(clippy::cast_precision_loss, reason = "three")]
        b.counted(REFUSED, &[("reason", "digest")], (nth + 1) as f64).await;
    }
    for stranger in &people[1..] {
        let reply = look(&b, &Ask::chat(PARAPHRASE).by(stranger)).await;
        assert_ne!(reply.answer(), answer, "{stranger:?}");
    }
}

#[tokio::test]
async fn a_proxy_with_another_secret_is_told_so_and_shares_nothing() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let a = fleet.proxy().await;
    stored(&a, &Ask::chat("what now?")).await;
    let stranger = Fleet { dir: tempfile::tempdir().unwrap(), ..fleet };
    let b = Refrain::start(&stranger.config()).await;
    away(&b, "secret").await;
    let reason = super::report(&b).await["reason"].to_string();
    assert!(reason.contains("secret_file") && reason.contains("prefix"), "{reason}");
    assert_eq!(b.readiness().await["store"]["state"], "degraded");
    for _ in 0..2 {
        let reply = b.send(&Ask::chat("what now?")).await;
        assert_eq!((reply.status, reply.cache_status().as_str()), (200, "refrain; fwd=miss"));
    }
    assert_eq!(entries(&redis).await.len(), 1, "it has written nothing");
    let hit = a.send(&Ask::chat("what now?")).await;
    assert_eq!((detail(&hit).as_str(), hit.answer().as_str()), ("exact", "answer 1 to what now?"));
}

#[tokio::test]
async fn a_secret_that_comes_to_fit_is_noticed() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let a = fleet.proxy().await;
    drop(a);
    let stranger = Fleet { dir: tempfile::tempdir().unwrap(), ..fleet };
    let b = Refrain::start(&stranger.config()).await;
    away(&b, "secret").await;
    // The operator starts anew.
    assert!(redis.command(&["FLUSHALL"]).await.is_ok());
    up(&b).await;
    stored(&b, &Ask::chat("what now?")).await;
}

/// The prepared model with one byte more, which is another model.
fn another_model() -> TempDir {
    let (dir, manifest) = (tempfile::tempdir().unwrap(), Manifest::load());
    for file in std::fs::read_dir(manifest.model_dir()).unwrap() {
        let (from, to) = file.map(|file| (file.path(), dir.path().join(file.file_name()))).unwrap();
        std::os::unix::fs::symlink(from, to).unwrap();
    }
    let tokenizer: PathBuf = dir.path().join("tokenizer.json");
    let mut text = std::fs::read(&tokenizer).unwrap();
    text.push(b'\n');
    std::fs::remove_file(&tokenizer).unwrap();
    std::fs::write(tokenizer, text).unwrap();
    dir
}

#[tokio::test]
async fn vectors_of_another_model_are_never_compared() {
    let other = another_model();
    for flavour in [Flavour::QueryEngine, Flavour::VectorSets, Flavour::Plain] {
        let redis = RedisServer::start(flavour).await;
        let fleet = Fleet::of(&redis).await;
        let semantic = |config: Config| config.semantic("threshold = 0.85");
        let [a, same] = fleet.pair_with(semantic).await;
        let b = fleet.proxy_with(|config| semantic(config).model_dir(other.path())).await;
        let answer = stored(&a, &Ask::chat(QUESTION)).await.answer();
        let similar = async || {
            let reply = look(&same, &Ask::chat(PARAPHRASE)).await;
            reply.is_hit().then(|| reply.answer())
        };
        assert_eq!(refrain_tests::eventually("a similar hit", similar).await, answer);
        check_miss(&b, &Ask::chat(PARAPHRASE)).await;
        let later = fleet.proxy_with(|config| semantic(config).model_dir(other.path())).await;
        check_miss(&later, &Ask::chat(PARAPHRASE)).await;
        // Each model finds what was stored with it.
        let answer = stored(&b, &Ask::chat("How do I bake bread at home?")).await.answer();
        let hit = look(&b, &Ask::chat("How can I bake bread at home?")).await;
        assert_eq!((hit.is_hit(), hit.answer()), (true, answer), "{flavour:?}");
        check_miss(&same, &Ask::chat("How can I bake bread at home?")).await;
        for proxy in [&a, &b] {
            assert!(proxy.metrics().await.sum(ERRORS, &[]) < 0.5);
        }
    }
}

#[tokio::test]
async fn another_layout_beside_ours_is_left_alone() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let foreign = "refrain:2:{00}:e:00";
    redis.command(&["HSET", foreign, "r", "of the future"]).await;
    let fleet = Fleet::of(&redis).await;
    let a = fleet.proxy().await;
    stored(&a, &Ask::chat("what now?")).await;
    assert_eq!(record(&redis, foreign).await, b"of the future");
    assert!(a.metrics().await.sum(REFUSED, &[]) < 0.5);
}
