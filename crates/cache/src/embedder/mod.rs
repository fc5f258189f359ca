//! Texts to vectors, on threads of their own and within a time budget.
//!
//! Each thread owns one ONNX session and embeds one text at a time, unpadded: with dynamic int8 a vector depends on what
//! it is batched with. A caller that leaves takes its text out of the queue; a panic below costs its own caller only.
//!
//! Vectors are not memoised: the exact tier already answers repeats, and a memo shared by all callers would tell by its
//! speed what somebody else asked.

mod embedding;
mod queue;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use refrain_core::{ExactOnly, settings};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::meters::{self, Work};
pub use embedding::{DIMENSIONS, Embedding};
use queue::{Job, Queue, Refused};
use session::{Model, Session};

/// Longest text that is tokenised at all. The window is some hundred tokens, so a longer text doesn't fit anyway.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Why the embedder can't start. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// ONNX Runtime's library is missing, too old or broken.
    #[error(
        "ONNX Runtime {path}: {reason}; run `cargo xtask setup` or set [embedder] runtime_library (1.24 or newer)"
    )]
    Runtime {
        /// Where it was looked for.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// Another library is loaded already, and a process can hold one.
    #[error("ONNX Runtime is loaded from {loaded}; restart to change [embedder] runtime_library")]
    RuntimeChanged {
        /// The one in use.
        loaded: String,
    },
    /// A file of the model can't be read.
    #[error("model file {path}: {source}; run `cargo xtask setup` or set [embedder] model_dir")]
    ModelFile {
        /// Which.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The files are no sentence embedding model of [`DIMENSIONS`] dimensions.
    #[error("model in {path}: {reason}; run `cargo xtask setup` or set [embedder] model_dir")]
    Model {
        /// Its directory.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// The system gave no thread.
    #[error("embedder thread: {0}; lower [embedder] threads")]
    Thread(std::io::Error),
}

/// Counters since the start, and the queue's length now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbedderStats {
    /// Texts that wait.
    pub queued: usize,
    /// Texts embedded.
    pub done: u64,
    /// Texts whose caller gave up at its budget.
    pub slow: u64,
    /// Texts refused because the queue was full.
    pub busy: u64,
    /// Texts beyond the window.
    pub too_long: u64,
    /// Texts skipped because their caller had left.
    pub abandoned: u64,
    /// Texts that the runtime failed or panicked on.
    pub failed: u64,
    /// Threads alive.
    pub threads: usize,
}

#[derive(Debug, Default)]
struct Counters {
    done: AtomicU64,
    slow: AtomicU64,
    too_long: AtomicU64,
    failed: AtomicU64,
}

/// The pool of embedding threads. Dropping it lets them end after the text at hand.
#[derive(Debug)]
pub struct Embedder {
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    budget: Duration,
    window_tokens: usize,
    identity: [u8; 32],
}

impl Embedder {
    /// Loads runtime and model, and starts the threads. Blocks for some hundred milliseconds: call it off the reactor.
    pub fn open(settings: &settings::Embedder) -> Result<Self, EmbedError> {
        let model = Arc::new(Model::read(settings)?);
        let queue = Arc::new(Queue::new(settings.queue_max));
        let counters = Arc::new(Counters::default());
        let embedder = Self {
            queue: queue.clone(),
            counters: counters.clone(),
            budget: settings.budget,
            window_tokens: settings.window_tokens,
            identity: model.identity(),
        };
        for index in 0..settings.threads.max(1) {
            let worker = Worker {
                session: Some(model.open()?),
                model: model.clone(),
                queue: queue.clone(),
                counters: counters.clone(),
            };
            queue.join();
            thread::Builder::new()
                .name(format!("embed-{index}"))
                .spawn(move || worker.run())
                .inspect_err(|_| queue.leave())
                .map_err(EmbedError::Thread)?;
        }
        Ok(embedder)
    }

    /// The vector of `text`, or why only the exact tier can serve: beyond the window, queue full, over budget, no thread.
    ///
    /// # Cancel safety
    /// Dropping the future takes the text out of the queue, or discards its vector.
    pub async fn embed(&self, text: String) -> Result<Embedding, ExactOnly> {
        if self.is_surely_too_long(&text) {
            self.counters.too_long.fetch_add(1, Ordering::Relaxed);
            return Err(ExactOnly::TooLong);
        }
        let begun = Instant::now();
        let (reply, answer) = oneshot::channel();
        self.queue.push(Job { text, reply }).map_err(|refused| match refused {
            Refused::Full => ExactOnly::EmbedderBusy,
            Refused::Closed => ExactOnly::EmbedderDown,
        })?;
        let answered = timeout(self.budget, answer).await;
        meters::took(Work::Embed, begun);
        match answered {
            Ok(Ok(result)) => result,
            Ok(Err(_dropped)) => Err(ExactOnly::EmbedderDown),
            Err(_elapsed) => {
                self.counters.slow.fetch_add(1, Ordering::Relaxed);
                Err(ExactOnly::EmbedderSlow)
            }
        }
    }

    /// Hash of the model's files and of the precision in use. Vectors of different identities are never compared.
    pub fn identity(&self) -> [u8; 32] {
        self.identity
    }

    /// The identity that a model would have if it were opened here. Reads its files; loads nothing.
    ///
    /// # Errors
    /// [`EmbedError::ModelFile`].
    pub fn identity_in(settings: &settings::Embedder) -> Result<[u8; 32], EmbedError> {
        Model::identity_in(settings)
    }

    /// Counters for metrics and readiness.
    pub fn stats(&self) -> EmbedderStats {
        let queue = self.queue.stats();
        EmbedderStats {
            queued: queue.queued,
            done: self.counters.done.load(Ordering::Relaxed),
            slow: self.counters.slow.load(Ordering::Relaxed),
            busy: queue.busy,
            too_long: self.counters.too_long.load(Ordering::Relaxed),
            abandoned: queue.abandoned,
            failed: self.counters.failed.load(Ordering::Relaxed),
            threads: queue.threads,
        }
    }

    /// Each word is at least one token, and two are special. What passes is counted by the tokenizer.
    fn is_surely_too_long(&self, text: &str) -> bool {
        let words_max = self.window_tokens.saturating_sub(2);
        text.len() > TEXT_BYTES_MAX || text.split_ascii_whitespace().nth(words_max).is_some()
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// One thread's session.
struct Worker {
    session: Option<Session>,
    model: Arc<Model>,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
}

impl Worker {
    fn run(mut self) {
        while let Some(job) = self.queue.pop() {
            let result = self.embed(&job.text);
            // The caller may have left meanwhile.
            let _ = job.reply.send(result);
            if self.session.is_none() {
                tracing::error!("embedder thread ends: its session can't be opened again");
                break;
            }
        }
    }

    fn embed(&mut self, text: &str) -> Result<Embedding, ExactOnly> {
        let Some(session) = self.session.as_mut() else { return Err(ExactOnly::EmbedderDown) };
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| session.embed(text)));
        let counters = &self.counters;
        match caught {
            Ok(Ok(Some(embedding))) => {
                counters.done.fetch_add(1, Ordering::Relaxed);
                Ok(embedding)
            }
            Ok(Ok(None)) => {
                counters.too_long.fetch_add(1, Ordering::Relaxed);
                Err(ExactOnly::TooLong)
            }
            Ok(Err(reason)) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(reason, "embedding failed");
                Err(ExactOnly::EmbedderDown)
            }
            Err(_panic) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                // A session that unwound half-way is not trusted any more.
                self.session = self.model.open().ok();
                Err(ExactOnly::EmbedderDown)
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An embedder whose one thread never comes to take a text.
    fn stuck(queue_max: usize) -> Embedder {
        let queue = Arc::new(Queue::new(queue_max));
        queue.join();
        Embedder {
            queue,
            counters: Arc::default(),
            budget: Duration::from_millis(20),
            window_tokens: 256,
            identity: [0; 32],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_text_over_its_budget_is_given_up_and_leaves_the_queue() {
        let embedder = stuck(1);
        assert_eq!(embedder.embed("one".into()).await, Err(ExactOnly::EmbedderSlow));
        assert_eq!(embedder.stats().slow, 1);
        // Its place is free for the next one.
        assert_eq!(embedder.embed("two".into()).await, Err(ExactOnly::EmbedderSlow));
        assert_eq!(embedder.stats().abandoned, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_at_once() {
        let embedder = stuck(1);
        let (first, second) = tokio::join!(embedder.embed("one".into()), embedder.embed("two".into()));
        assert_eq!((first, second), (Err(ExactOnly::EmbedderSlow), Err(ExactOnly::EmbedderBusy)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_thread_leaves_nobody_waiting() {
        let embedder = stuck(4);
        let die = async { embedder.queue.leave() };
        let (waiting, ()) = tokio::join!(embedder.embed("one".into()), die);
        assert_eq!(waiting, Err(ExactOnly::EmbedderDown));
        assert_eq!(embedder.embed("two".into()).await, Err(ExactOnly::EmbedderDown));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_fit_the_window_is_not_queued() {
        let embedder = stuck(4);
        for text in ["word ".repeat(255), "x".repeat(TEXT_BYTES_MAX + 1)] {
            assert_eq!(embedder.embed(text).await, Err(ExactOnly::TooLong));
        }
        assert_eq!((embedder.stats().too_long, embedder.stats().queued), (2, 0));
    }
}
