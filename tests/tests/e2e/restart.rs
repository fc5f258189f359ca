//! What is on disk survives, and what is read after any end of the process is right.

use std::fs;

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Config, Refrain, eventually, wire};

use crate::start_with;

async fn on_disk() -> (FakeUpstream, Refrain) {
    start_with(Config::on_disk).await
}

/// Waits until the store's writer has put so many entries on disk: kill -9 may lose what it has not.
async fn written(refrain: &Refrain, entries: f64) {
    eventually("entries on disk", async || {
        let metrics = refrain.metrics().await;
        let queued = metrics.sum("refrain_store_disk_queued_writes", &[]);
        (metrics.sum("refrain_store_disk_entries", &[]) >= entries && queued < 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn entries_survive_sigterm_in_every_dialect_and_form() {
    let (fake, refrain) = on_disk().await;
    let asks = Ask::each_dialect("remember me");
    let mut answers = Vec::new();
    for ask in &asks {
        answers.push(refrain.send(ask).await);
    }
    let refrain = refrain.restart().await;
    for (ask, miss) in asks.iter().zip(&answers) {
        let hit = refrain.send(ask).await;
        assert!(hit.is_hit(), "{ask:?}: {}", hit.cache_status());
        assert_eq!(hit.json(), miss.json());
        let streamed = refrain.send(&ask.clone().streamed()).await;
        assert!(streamed.is_hit());
        assert_eq!(streamed.answer(), miss.answer());
    }
    assert_eq!(fake.posts(), 3);
}

#[tokio::test]
async fn a_stored_stream_survives_with_its_deltas() {
    let (_fake, refrain) = on_disk().await;
    let ask = Ask::chat("one two three").streamed();
    let miss = refrain.send(&ask).await.text();
    let refrain = refrain.restart().await;
    let hit = refrain.send(&ask).await;
    assert!(hit.is_hit(), "{}", hit.cache_status());
    assert_eq!(wire::events(&hit.text()), wire::events(&miss));
}

#[tokio::test]
async fn written_entries_survive_kill_9_and_the_rest_are_misses() {
    let (fake, refrain) = on_disk().await;
    let ask = |nth: usize| Ask::chat(&format!("question {nth}"));
    let mut answers = Vec::new();
    for nth in 0..20 {
        answers.push(refrain.send(&ask(nth)).await.answer());
    }
    written(&refrain, 20.0).await;
    // These may or may not reach the disk.
    for nth in 20..30 {
        answers.push(refrain.send(&ask(nth)).await.answer());
    }
    let refrain = refrain.kill9_and_restart().await;
    let posts = fake.posts();
    for (nth, answer) in answers.iter().enumerate() {
        let reply = refrain.send(&ask(nth)).await;
        assert!(reply.is_hit() || nth >= 20, "{nth}: {}", reply.cache_status());
        if reply.is_hit() {
            assert_eq!(reply.answer(), *answer);
        }
    }
    assert!(fake.posts() - posts <= 10);
}

#[tokio::test]
async fn age_goes_on_over_a_restart() {
    let (_fake, refrain) = start_with(|config| config.on_disk().cache("ttl = \"2s\"")).await;
    let ask = Ask::chat("short-lived");
    let first = refrain.send(&ask).await.answer();
    let refrain = refrain.restart().await;
    let next = eventually("expiry", async || {
        let reply = refrain.send(&ask).await;
        (!reply.is_hit()).then_some(reply)
    });
    assert_ne!(next.await.answer(), first);
}

#[tokio::test]
async fn without_a_data_folder_nothing_is_kept() {
    let (_fake, refrain) = start_with(|config| config).await;
    let ask = Ask::chat("forget me");
    refrain.send(&ask).await;
    let refrain = refrain.restart().await;
    assert_eq!(refrain.send(&ask).await.cache_status(), "refrain; fwd=miss");
}

#[tokio::test]
async fn another_secret_finds_nothing() {
    let (_fake, refrain) = on_disk().await;
    let ask = Ask::chat("whose?");
    refrain.send(&ask).await;
    let data = refrain.dir().join("data");
    let secret = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let secret =
        secret.filter(|path| path.is_file() && path.to_string_lossy().contains("secret")).collect::<Vec<_>>();
    assert_eq!(secret.len(), 1, "{secret:?}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&secret[0]).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let mut refrain = refrain;
    refrain.sigterm();
    refrain.ended().await;
    fs::remove_file(&secret[0]).unwrap();
    let refrain = refrain.start_again().await;
    assert_eq!(refrain.send(&ask).await.cache_status(), "refrain; fwd=miss");
}

#[tokio::test]
async fn damaged_files_never_stop_the_start_or_give_a_wrong_answer() {
    let (_fake, refrain) = on_disk().await;
    let ask = |nth: usize| Ask::chat(&format!("question {nth} {}", "x".repeat(2000)));
    let mut answers = Vec::new();
    for nth in 0..20 {
        answers.push(refrain.send(&ask(nth)).await.answer());
    }
    let mut refrain = refrain;
    refrain.sigterm();
    refrain.ended().await;
    damage(&refrain.dir().join("data"));
    let mut refrain = refrain.start_again().await;
    for (nth, answer) in answers.iter().enumerate() {
        let reply = refrain.send(&ask(nth)).await;
        assert_eq!(reply.status, 200);
        if reply.is_hit() {
            assert_eq!(reply.answer(), *answer, "a damaged record was served");
        }
    }
    assert!(refrain.is_alive());
    assert!(!refrain.logs().contains("panicked"), "{}", refrain.logs());
}

/// Turns some bits in every file of the store but the secret.
fn damage(dir: &std::path::Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damage(&path);
        } else if !path.to_string_lossy().contains("secret") {
            let mut bytes = fs::read(&path).unwrap();
            for at in (50..bytes.len()).step_by(997) {
                bytes[at] ^= 0x55;
            }
            fs::write(&path, bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn an_ollama_pull_changes_the_key() {
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&Config::new(&fake.url()).ollama().on_disk()).await;
    let ask = Ask::ollama_chat("which build?");
    cached(&refrain, &ask).await;
    fake.pull("m");
    let refrain = refrain.restart().await;
    let fresh = cached_or_miss(&refrain, &ask).await;
    assert_eq!(fresh, "refrain; fwd=miss");
}

#[tokio::test]
async fn an_ollama_pull_is_noticed_while_running() {
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&Config::new(&fake.url()).ollama()).await;
    let ask = Ask::ollama_chat("which build?");
    let old = cached(&refrain, &ask).await;
    fake.pull("m");
    let new = eventually("another digest", async || {
        let reply = refrain.send(&ask).await;
        (!reply.is_hit()).then_some(reply)
    });
    assert_ne!(new.await.answer(), old);
}

/// Asks until the answer comes from the cache: an Ollama's digests are learned soon after the start, not before it.
async fn cached(refrain: &Refrain, ask: &Ask) -> String {
    let look = async || Some(refrain.send(ask).await).filter(refrain_tests::Reply::is_hit);
    eventually("a hit", look).await.answer()
}

/// The first `Cache-Status` after the model's identity is known.
async fn cached_or_miss(refrain: &Refrain, ask: &Ask) -> String {
    let look = async || {
        Some(refrain.send(ask).await.cache_status()).filter(|status| !status.contains("model_unknown"))
    };
    eventually("the model's identity", look).await
}

#[tokio::test]
async fn a_data_folder_in_use_is_refused() {
    let (fake, refrain) = on_disk().await;
    let dir = refrain.dir().join("data");
    let second = Config::new(&fake.url()).tables(&format!("[store]\ndir = {dir:?}"));
    let (status, output) = Refrain::run_to_end(&second).await;
    assert!(!status.success(), "{output}");
    assert!(output.contains(dir.to_str().unwrap()), "{output}");
    // The first is as it was.
    refrain.send(&Ask::chat("mine")).await;
    assert!(refrain.send(&Ask::chat("mine")).await.is_hit());
}
