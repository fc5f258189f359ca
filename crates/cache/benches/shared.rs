//! Cost of the shared store beside bare commands to the same Redis: `cargo xtask bench --only redis` starts the servers and
//! runs it. By hand: `REDIS_URL=redis://... cargo bench -p refrain-cache --bench shared`. Everything in that Redis is removed,
//! unless `REUSE=1` says that a former run's vectors are there still: then the search alone is timed.
//!
//! One connection, one request at a time, both sides on this machine: medians of latency in microseconds. Bare commands go
//! over a plain blocking connection.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark without its server ends"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redis::{Connection, Value, cmd, pipe};
use refrain_cache::{
    CacheKey, DIMENSIONS, Embedding, Entry, EntryMeta, Epoch, Found, KeySecret, Place, Store, unix_ms,
};
use refrain_core::settings::{EmbeddedStore, RedisCredentials, RedisNode, RedisStore, VectorSearch};
use refrain_core::{Api, RouteId, TenantId, UserId};
use refrain_llm::answer::{Answer, AnswerReader, Form};

const MODEL: [u8; 32] = [5; 32];
const PARTITION: [u8; 32] = [7; 32];
/// Look-ups a figure.
const LOOKUPS: u64 = 3_000;
/// Real entries around the question: whatever a search finds is one of them.
const NEIGHBOURS: u64 = 64;
/// Of an answer's text.
const ANSWER_BYTES: usize = 1_000;

fn main() {
    let Ok(url) = std::env::var("REDIS_URL") else {
        println!("REDIS_URL is not set: run `cargo xtask bench --only redis`");
        return;
    };
    let vectors: usize = std::env::var("VECTORS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    // As in the proxy: connections are kept by another thread than the one that asks.
    let keeper = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let worker = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut bare = redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
    let bench = Bench { settings: settings(&url), secret: Arc::new(KeySecret::from_bytes([3; 32])) };
    let reuses = std::env::var_os("REUSE").is_some();
    if !reuses {
        let _: () = cmd("FLUSHALL").query(&mut bare).unwrap();
    }
    let writer = bench.open(&keeper);
    let stats = writer.stats().remote.unwrap();
    let mode = stats.vectors.unwrap().mode.as_str();
    println!("\n{url}: vectors by {mode}");
    if !reuses {
        bench.exact(&keeper, &worker, &writer, &mut bare);
    }
    if mode != "local" {
        bench.semantic(&keeper, &worker, &writer, &mut bare, (mode, vectors, reuses));
    }
    writer.close();
}

struct Bench {
    settings: RedisStore,
    secret: Arc<KeySecret>,
}

impl Bench {
    fn open(&self, keeper: &tokio::runtime::Runtime) -> Store {
        let _here = keeper.enter();
        let store = Store::open_shared(&self.settings, &self.secret, Some(MODEL));
        assert!(keeper.block_on(store.joined()).unwrap().unwrap().passed());
        store
    }

    fn exact(
        &self,
        keeper: &tokio::runtime::Runtime,
        worker: &tokio::runtime::Runtime,
        writer: &Store,
        bare: &mut Connection,
    ) {
        let embedded = Store::open(&EmbeddedStore::default(), &self.secret, None).unwrap();
        for number in 0..LOOKUPS {
            writer.insert(entry(number), None).unwrap();
            embedded.insert(entry(number), None).unwrap();
            if number % 1000 == 999 {
                keeper.block_on(writer.flush()).unwrap();
            }
        }
        let name: Vec<String> = cmd("KEYS").arg("*:e:*").query(bare).unwrap();
        let record: Vec<u8> = cmd("HGET").arg(&name[0]).arg("r").query(bare).unwrap();
        let _: () = cmd("SET").arg("bare").arg(&record).query(bare).unwrap();
        let reader = self.open(keeper);
        let find = |store: &Store, number: u64, place: Place| {
            let began = Instant::now();
            let found = worker.block_on(store.find(&key(number), unix_ms()));
            let took = began.elapsed();
            assert!(matches!(found, Found::Hit(_, at) if at == place));
            took
        };
        let get = |bare: &mut Connection| {
            timed(|| assert_eq!(cmd("GET").arg("bare").query::<Vec<u8>>(bare).unwrap().len(), record.len()))
        };
        // In turn, since the machine's speed drifts.
        let (mut gets, mut shared) = (Vec::new(), Vec::new());
        for number in 0..LOOKUPS {
            gets.push(get(bare));
            shared.push(find(&reader, number, Place::Shared));
        }
        let (mut near, mut own) = (Vec::new(), Vec::new());
        for number in 0..LOOKUPS {
            near.push(find(&reader, number, Place::Near));
            own.push(find(&embedded, number, Place::Near));
        }
        let (get, shared) = (median(gets), median(shared));
        println!(
            "exact: bare GET of {} bytes {get:.1} us, by the store {shared:.1}: + {:.1} (wanted 150)",
            record.len(),
            shared - get
        );
        let (near, own) = (median(near), median(own));
        println!("near: {near:.2} us, embedded store {own:.2}: {:.2} x (wanted 1.2)", near / own);
        reader.close();
    }

    fn semantic(
        &self,
        keeper: &tokio::runtime::Runtime,
        worker: &tokio::runtime::Runtime,
        writer: &Store,
        bare: &mut Connection,
        (mode, vectors, reuses): (&str, usize, bool),
    ) {
        let mut rng = StdRng::seed_from_u64(1);
        let question = random(&mut rng);
        for number in 0..NEIGHBOURS {
            writer.insert(entry(1_000_000 + number), Some(near(&question, &mut rng))).unwrap();
        }
        keeper.block_on(writer.flush()).unwrap();
        if !reuses {
            fill(bare, mode, vectors, &mut rng);
        }
        let reader = self.open(keeper);
        let (mut bares, mut shared) = (Vec::new(), Vec::new());
        for _ in 0..LOOKUPS / 6 {
            let asked = near(&question, &mut rng);
            let search = search(bare, mode, &asked);
            bares.push(timed(|| drop(search.query::<Value>(bare).unwrap())));
            let began = Instant::now();
            let found = worker.block_on(reader.nearest_shared(&PARTITION, &asked, 8, unix_ms()));
            shared.push(began.elapsed());
            assert_eq!(found.len(), 8);
        }
        let (bare, shared) = (median(bares), median(shared));
        println!(
            "semantic at {vectors}: bare search {bare:.0} us, by the store {shared:.0}: + {:.0} (wanted 200)",
            shared - bare
        );
        reader.close();
    }
}

/// Vectors that lead to no sound entry, put in directly: the store itself writes slowly on purpose.
fn fill(bare: &mut Connection, mode: &str, vectors: usize, rng: &mut StdRng) {
    let names: Vec<String> = cmd("KEYS").arg("*:e:*").query(bare).unwrap();
    let (root, _) = names[0].rsplit_once(':').unwrap();
    let sets: Vec<String> = cmd("KEYS").arg("*:s:*").query(bare).unwrap();
    let field = vector_field(bare, &names);
    for batch in 0..vectors.div_ceil(100) {
        let mut pipeline = pipe();
        for _ in 0..100 {
            let (id, vector): ([u8; 32], _) = (rng.random(), random(rng).to_bytes());
            if mode == "vector-sets" {
                let add = pipeline.cmd("VADD").arg(&sets[0]).arg("FP32").arg(vector);
                add.arg(&id[..]).ignore();
            } else {
                let add =
                    pipeline.cmd("HSET").arg(format!("{root}:{}", refrain_core::hex(&id))).arg("r").arg("x");
                add.arg("p").arg(refrain_core::hex(&PARTITION)).arg(&field).arg(vector).ignore();
            }
        }
        let _: () = pipeline.query(bare).unwrap();
        if batch % 100 == 99 {
            println!("  {} vectors", (batch + 1) * 100);
        }
    }
}

fn vector_field(bare: &mut Connection, names: &[String]) -> String {
    let mut fields = names.iter().flat_map(|name| cmd("HKEYS").arg(name).query::<Vec<String>>(bare).unwrap());
    fields.find(|field| field.starts_with('v')).unwrap()
}

fn search(bare: &mut Connection, mode: &str, asked: &Embedding) -> redis::Cmd {
    let mut search;
    if mode == "vector-sets" {
        let sets: Vec<String> = cmd("KEYS").arg("*:s:*").query(bare).unwrap();
        search = cmd("VSIM");
        search.arg(&sets[0]).arg("FP32").arg(asked.to_bytes()).arg("WITHSCORES").arg("COUNT").arg(8);
        search.arg("EF").arg(50).arg("NOTHREAD");
    } else {
        let indexes: Vec<String> = cmd("FT._LIST").query(bare).unwrap();
        let field = format!("v{}", indexes[0].rsplit(':').next().unwrap());
        let partition = refrain_core::hex(&PARTITION);
        search = cmd("FT.SEARCH");
        search.arg(&indexes[0]).arg(format!("(@p:{{{partition}}})=>[KNN 8 @{field} $q EF_RUNTIME 50 AS d]"));
        search
            .arg("PARAMS")
            .arg(2)
            .arg("q")
            .arg(asked.to_bytes())
            .arg("SORTBY")
            .arg("d")
            .arg("LIMIT")
            .arg(0)
            .arg(8);
        search.arg("RETURN").arg(1).arg("d").arg("DIALECT").arg(2);
    }
    search
}

fn timed(run: impl FnOnce()) -> Duration {
    let began = Instant::now();
    run();
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn random(rng: &mut StdRng) -> Embedding {
    let numbers: Vec<f32> = (0..DIMENSIONS).map(|_| rng.random_range(-1.0..1.0)).collect();
    Embedding::normalised(&numbers).unwrap()
}

fn near(question: &Embedding, rng: &mut StdRng) -> Embedding {
    let numbers: Vec<f32> = question.iter().map(|x| x + rng.random_range(-0.01..0.01)).collect();
    Embedding::normalised(&numbers).unwrap()
}

fn settings(url: &str) -> RedisStore {
    let (host, port) = url.trim_start_matches("redis://").split_once(':').unwrap();
    RedisStore {
        memory_bytes_max: RedisStore::MEMORY_BYTES_MAX,
        entry_bytes_max: RedisStore::ENTRY_BYTES_MAX,
        secret_file: "unused".into(),
        nodes: vec![RedisNode::Tcp { host: host.to_owned(), port: port.parse().unwrap() }],
        cluster: false,
        database: 0,
        credentials: RedisCredentials::default(),
        tls: None,
        prefix: "bench".to_owned(),
        vectors: VectorSearch::Auto,
        connect_timeout: RedisStore::CONNECT_TIMEOUT,
        command_timeout: Duration::from_secs(5),
        lease: RedisStore::LEASE_MAX,
        write_queue_bytes_max: RedisStore::WRITE_QUEUE_BYTES_MAX,
        required: true,
    }
}

fn key(number: u64) -> CacheKey {
    let digest = |context: &str| {
        *blake3::Hasher::new_derive_key(context).update(&number.to_le_bytes()).finalize().as_bytes()
    };
    CacheKey { partition: PARTITION, key: digest("bench key"), fingerprint: digest("bench fingerprint") }
}

fn entry(number: u64) -> Entry {
    let now_ms = unix_ms();
    let meta = EntryMeta {
        stored_at_ms: now_ms,
        expires_at_ms: now_ms + 3_600_000,
        stale_while_revalidate_until_ms: 0,
        stale_if_error_until_ms: 0,
        // Whenever the life of the data began, no purge is older.
        seen: Epoch { ms: now_ms, seq: 0 },
        upstream_ms: 900,
        route: RouteId::new("chat"),
        tenant: TenantId::new("acme"),
        user: Some(UserId::new("ann")),
        model: "m".to_owned(),
        api: Api::ChatCompletions,
        embed_text: Some("what is it?".to_owned()),
        exact_only: false,
        replay_headers: Vec::new(),
        tags: Vec::new(),
        labels: Vec::new(),
    };
    Entry::new(key(number), meta, &answer())
}

fn answer() -> Answer {
    // Not to be compressed away.
    let mut rng = StdRng::seed_from_u64(9);
    let text: String = (0..ANSWER_BYTES).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
    let body = format!(
        r#"{{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}}}"#
    );
    let mut reader = AnswerReader::new(Api::ChatCompletions, Form::Whole, 1 << 20);
    reader.feed(body.as_bytes()).unwrap();
    reader.finish().unwrap()
}
