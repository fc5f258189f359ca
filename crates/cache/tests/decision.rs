//! How often the decision is wrong, with the real model on labelled pairs. `--nocapture` shows the tables that
//! docs/decisions/0004-semantic-decision.md quotes.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that shows its table"
)]
#![allow(dead_code, reason = "`setup` holds more than this file needs")]

use refrain_cache::{CandidateView, Decision, Embedder, decide};
use refrain_core::{EmbedSource, SemanticPlan, Veto};

mod setup;

/// A labelled pair with its similarity.
struct Pair {
    asked: String,
    stored: String,
    is_same: bool,
    similarity: f32,
}

/// Shares of the pairs whose stored answer is served.
#[derive(Debug)]
struct Served {
    /// Of those that ask two things.
    false_percent: f32,
    /// Of those that ask one thing.
    kept_percent: f32,
}

async fn read(tsv: &str, embedder: &Embedder) -> Vec<Pair> {
    let mut lines = tsv.lines();
    let header: Vec<_> = lines.next().unwrap().split('\t').collect();
    let column = |name: &str| header.iter().position(|h| *h == name).unwrap();
    let (a, b, label) = (column("a"), column("b"), column("label"));
    let mut pairs = Vec::new();
    for line in lines {
        let fields: Vec<_> = line.split('\t').collect();
        let asked = embedder.embed(fields[a].into()).await.unwrap();
        let stored = embedder.embed(fields[b].into()).await.unwrap();
        pairs.push(Pair {
            asked: fields[a].into(),
            stored: fields[b].into(),
            is_same: fields[label] == "1",
            similarity: asked.cosine(&stored),
        });
    }
    pairs
}

fn measure(pairs: &[Pair], threshold: f32, vetoes: &[Veto]) -> Served {
    let plan = SemanticPlan {
        source: EmbedSource::default(),
        threshold,
        candidates: 8,
        vetoes: vetoes.to_vec(),
        shadow: false,
    };
    let percent = |is_same: bool| {
        let all: Vec<_> = pairs.iter().filter(|pair| pair.is_same == is_same).collect();
        let is_served = |pair: &&&Pair| {
            let candidate = CandidateView { similarity: pair.similarity, text: &pair.stored };
            matches!(decide(&pair.asked, &[candidate], &plan), Decision::Serve { .. })
        };
        100.0 * all.iter().filter(is_served).count() as f32 / all.len() as f32
    };
    Served { false_percent: percent(false), kept_percent: percent(true) }
}

async fn check(tsv: &str, kept_at_least: f32) {
    let pairs = read(tsv, &setup::open()).await;
    assert!(pairs.len() > 200);
    for threshold in [0.80, 0.85, 0.90, 0.95] {
        let plain = measure(&pairs, threshold, &[]);
        let vetoed = measure(&pairs, threshold, &Veto::ALL);
        println!(
            "{threshold:.2}: false {:.1} -> {:.1} %, kept {:.1} -> {:.1} %",
            plain.false_percent, vetoed.false_percent, plain.kept_percent, vetoed.kept_percent
        );
    }
    let served = measure(&pairs, 0.90, &Veto::ALL);
    assert!(served.false_percent <= 2.0 && served.kept_percent >= kept_at_least, "{served:?}");
    let served = measure(&pairs, 0.80, &Veto::ALL);
    assert!(served.false_percent <= 6.0, "{served:?}");
}

#[tokio::test]
async fn traps_of_fow_are_refused_and_paraphrases_kept() {
    check(include_str!("data/pairs_fow.tsv"), 40.0).await;
}

#[tokio::test]
async fn traps_of_kmemo_are_refused_and_paraphrases_kept() {
    check(include_str!("data/pairs_kmemo.tsv"), 36.0).await;
}
