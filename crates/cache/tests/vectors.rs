//! The vector index on the model's own vectors.

#![allow(clippy::expect_used, clippy::unwrap_used, dead_code, reason = "a test")]

use refrain_cache::{Embedding, VectorIndex};

mod setup;

#[tokio::test]
async fn the_nearest_question_is_the_one_a_full_scan_finds() {
    let embedder = setup::open();
    let tsv = [include_str!("data/pairs_fow.tsv"), include_str!("data/pairs_kmemo.tsv")];
    let (mut stored, mut asked) = (Vec::new(), Vec::new());
    for line in tsv.iter().flat_map(|tsv| tsv.lines().skip(1)) {
        let fields: Vec<_> = line.split('\t').collect();
        stored.push(embedder.embed(fields[1].into()).await.unwrap());
        asked.push(embedder.embed(fields[2].into()).await.unwrap());
    }
    let index = VectorIndex::new(usize::MAX);
    for (n, vector) in stored.iter().enumerate() {
        index.insert([0; 32], id(n), vector).unwrap();
    }
    for question in &asked {
        let best = stored.iter().map(|vector| vector.cosine(question)).fold(f32::MIN, f32::max);
        let found = index.nearest(&[0; 32], question, 8)[0];
        let true_similarity = cosine_of(&stored, found.id, question);
        // Equal texts share a place: what counts is that nothing closer was missed, up to the stored precision.
        assert!(best - true_similarity < 0.005, "{best} was missed for {true_similarity}");
        assert!((found.similarity - true_similarity).abs() < 0.005);
    }
    assert!(stored.len() > 400);
}

fn id(n: usize) -> [u8; 32] {
    *blake3::hash(&n.to_le_bytes()).as_bytes()
}

fn cosine_of(stored: &[Embedding], wanted: [u8; 32], question: &Embedding) -> f32 {
    (0..stored.len()).find(|n| id(*n) == wanted).map(|n| stored[n].cosine(question)).expect("a stored id")
}
