//! The real model through the real runtime. Fails where `cargo xtask setup` has not been run.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::sync::Arc;

use refrain_cache::{
    CandidateView, DIMENSIONS, Decision, EmbedError, Embedder, Refusal, VectorIndex, decide,
};
use refrain_core::{EmbedSource, ExactOnly, SemanticPlan, Veto, settings};

mod setup;

use setup::{SET_UP, open, settings};

#[tokio::test]
async fn a_text_becomes_a_unit_vector_and_always_the_same() {
    let embedder = open();
    let first = embedder.embed("How do I reset my password?".into()).await.unwrap();
    assert_eq!(first.len(), DIMENSIONS);
    assert!((first.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4);
    let other = embedder.embed("What is the capital of Peru?".into()).await.unwrap();
    let again = embedder.embed("How do I reset my password?".into()).await.unwrap();
    assert!((first.cosine(&again) - 1.0).abs() < 1e-5);
    assert!(first.cosine(&other) < 0.3);
    assert_eq!(embedder.stats().done, 3);
}

#[tokio::test]
async fn a_paraphrase_is_closer_than_another_question() {
    let embedder = open();
    let question = embedder.embed("How do I cancel my subscription?".into()).await.unwrap();
    let paraphrase = embedder.embed("How can I cancel my subscription plan?".into()).await.unwrap();
    let other = embedder.embed("How do I bake sourdough bread?".into()).await.unwrap();
    assert!(question.cosine(&paraphrase) > 0.85, "{}", question.cosine(&paraphrase));
    assert!(question.cosine(&other) < 0.3, "{}", question.cosine(&other));
}

#[tokio::test]
async fn opposites_are_close_to_the_model_and_told_apart_by_the_decision() {
    let embedder = open();
    let plan = SemanticPlan {
        source: EmbedSource::default(),
        threshold: 0.8,
        candidates: 8,
        vetoes: Veto::ALL.to_vec(),
        shadow: false,
    };
    let index = VectorIndex::new(usize::MAX);
    let stored = "turn on dark mode";
    index.insert([1; 32], [2; 32], &embedder.embed(stored.into()).await.unwrap()).unwrap();
    for (question, served) in [("Turn on dark mode!", true), ("turn off dark mode", false)] {
        let found = index.nearest(&[1; 32], &embedder.embed(question.into()).await.unwrap(), 8);
        let candidate = CandidateView { similarity: found[0].similarity, text: stored };
        assert!(candidate.similarity > 0.85, "{question}: {}", candidate.similarity);
        match decide(question, &[candidate], &plan) {
            Decision::Serve { .. } => assert!(served, "{question}"),
            Decision::Refuse { reason, .. } => {
                assert!(!served, "{question}");
                assert_eq!(reason, Refusal::Veto(Veto::Negation));
            }
        }
    }
}

#[tokio::test]
async fn a_text_beyond_the_window_has_no_vector() {
    let embedder = open();
    // 300 words; and few "words" of many pieces, which only the tokenizer can count.
    for text in
        ["word ".repeat(300), "pneumonoultramicroscopicsilicovolcanoconiosis ".repeat(40), "x".repeat(20_000)]
    {
        assert_eq!(embedder.embed(text).await, Err(ExactOnly::TooLong));
    }
    assert!(embedder.embed("word ".repeat(254)).await.is_ok());
    assert_eq!(embedder.stats().too_long, 3);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let embedder =
        Arc::new(Embedder::open(&settings::Embedder { queue_max: 2, ..settings() }).expect(SET_UP));
    let all = (0..64).map(|i| {
        let embedder = embedder.clone();
        async move { embedder.embed(format!("question {i} {}", "and more of it ".repeat(50))).await }
    });
    let all = futures_util::future::join_all(all).await;
    let busy = all.iter().filter(|r| **r == Err(ExactOnly::EmbedderBusy)).count();
    assert!(busy > 0);
    assert!(all.iter().any(Result::is_ok));
    assert_eq!(embedder.stats().busy, busy as u64);
    assert_eq!(embedder.stats().queued, 0);
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_text_along() {
    let embedder = open();
    let texts = |i: usize| format!("question {i} {}", "and more of it ".repeat(50));
    // Ten callers queue up and leave before any answer can be read.
    let waiting: Vec<_> = (0..10).map(|i| Box::pin(embedder.embed(texts(i)))).collect();
    for mut future in waiting {
        assert!(futures_util::poll!(&mut future).is_pending());
    }
    embedder.embed("the last one".into()).await.unwrap();
    let stats = embedder.stats();
    assert!(stats.abandoned >= 1, "{stats:?}");
    assert_eq!(stats.done + stats.abandoned, 11, "{stats:?}");
}

#[test]
fn a_missing_runtime_says_what_to_do() {
    let missing = settings::Embedder { runtime_library: "/nowhere/libonnxruntime.so".into(), ..settings() };
    // Where another test of this process has loaded the runtime, the answer is that it can't be changed.
    let error = Embedder::open(&missing).map(drop).unwrap_err();
    let text = error.to_string();
    match error {
        EmbedError::Runtime { .. } => assert!(text.contains("cargo xtask setup"), "{text}"),
        EmbedError::RuntimeChanged { .. } => assert!(text.contains("restart"), "{text}"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_missing_model_says_what_to_do() {
    let missing = settings::Embedder { model_dir: "/nowhere".into(), ..settings() };
    let text = Embedder::open(&missing).map(drop).unwrap_err().to_string();
    assert!(text.contains("/nowhere/model.onnx") && text.contains("cargo xtask setup"), "{text}");
}

#[test]
fn the_identity_tells_windows_apart() {
    let wide = open();
    let narrow = Embedder::open(&settings::Embedder { window_tokens: 128, ..settings() }).expect(SET_UP);
    assert_eq!(wide.identity(), open().identity());
    assert_ne!(wide.identity(), narrow.identity());
}
