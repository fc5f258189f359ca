//! Cost of a semantic look-up: `cargo bench -p refrain-cache --bench semantic`. Needs `cargo xtask setup`.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark without its model ends")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use divan::{Bencher, black_box};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use refrain_cache::{CandidateView, DIMENSIONS, Embedder, Embedding, VectorIndex, compare, decide};
use refrain_core::{EmbedSource, SemanticPlan, Veto, settings};

const PARTITION: [u8; 32] = [7; 32];

fn main() {
    divan::main();
}

fn random(rng: &mut StdRng) -> Embedding {
    let numbers: Vec<f32> = (0..DIMENSIONS).map(|_| rng.random_range(-1.0..1.0)).collect();
    Embedding::normalised(&numbers).expect("a direction")
}

fn filled(count: usize) -> VectorIndex {
    let mut rng = StdRng::seed_from_u64(1);
    let index = VectorIndex::new(usize::MAX);
    for n in 0..count {
        let id = *blake3::hash(&n.to_le_bytes()).as_bytes();
        index.insert(PARTITION, id, &random(&mut rng)).expect("room");
    }
    index
}

#[divan::bench(args = [1_000, 10_000, 100_000])]
fn nearest_8(bencher: Bencher, count: usize) {
    let index = filled(count);
    let query = random(&mut StdRng::seed_from_u64(2));
    bencher.bench_local(|| index.nearest(&PARTITION, black_box(&query), 8));
}

#[divan::bench(args = [1_000, 100_000])]
fn replace(bencher: Bencher, count: usize) {
    let index = filled(count);
    let vector = random(&mut StdRng::seed_from_u64(3));
    let id = *blake3::hash(&5_usize.to_le_bytes()).as_bytes();
    bencher.bench_local(|| index.insert(PARTITION, id, black_box(&vector)));
}

const STORED: &str =
    "How long does it take to fly from London to New York with a stop in Dublin on a weekday morning?";
const ASKED: &str =
    "how many hours is the flight from new york to london if it stops in dublin on weekday mornings please";

#[divan::bench]
fn evidence_20_words() -> refrain_cache::Lexical {
    compare(black_box(STORED), black_box(ASKED))
}

/// As long as the model's window allows.
#[divan::bench]
fn evidence_250_words(bencher: Bencher) {
    let stored = [STORED; 13].join(" ");
    let asked = [ASKED; 13].join(" ");
    bencher.bench_local(|| compare(black_box(&stored), black_box(&asked)));
}

#[divan::bench]
fn decide_8_candidates(bencher: Bencher) {
    let plan = SemanticPlan {
        source: EmbedSource::default(),
        threshold: 0.8,
        candidates: 8,
        vetoes: Veto::ALL.to_vec(),
        shadow: false,
    };
    let candidates = [CandidateView { similarity: 0.9, text: STORED }; 8];
    bencher.bench_local(|| decide(black_box(ASKED), black_box(&candidates), &plan));
}

#[divan::bench(args = ["How do I reset my password?", STORED])]
fn embed(bencher: Bencher, text: &str) {
    let embedder = Embedder::open(&embedder_settings()).expect("run `cargo xtask setup`");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    bencher.bench_local(|| runtime.block_on(embedder.embed(text.to_owned())));
}

fn embedder_settings() -> settings::Embedder {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.refrain");
    let dir = std::env::var_os("REFRAIN_SETUP_DIR").filter(|dir| !dir.is_empty()).map_or(root, PathBuf::from);
    let manifest = std::fs::read_to_string(dir.join("manifest.json")).expect("run `cargo xtask setup`");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("run `cargo xtask setup`");
    let path = |name: &str| PathBuf::from(manifest[name].as_str().expect("run `cargo xtask setup`"));
    settings::Embedder {
        model_dir: path("model_dir"),
        runtime_library: path("onnxruntime"),
        threads: 1,
        queue_max: 64,
        budget: Duration::from_secs(30),
        window_tokens: 256,
    }
}
