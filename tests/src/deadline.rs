//! Deadlines: a test that waits for what never comes fails and says for what.

use std::time::Duration;

/// Long enough for a busy machine, short enough to wait for.
const DEADLINE: Duration = Duration::from_secs(20);

/// How often a state that tells no one of its changes is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(15);

/// The future's output, or a panic that names what was waited for.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    within_time(DEADLINE, what, future).await
}

/// [`within`] with its own deadline.
pub async fn within_time<F: Future>(deadline: Duration, what: &str, future: F) -> F::Output {
    match tokio::time::timeout(deadline, Box::pin(future)).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {deadline:?}"),
    }
}

/// Looks again and again, for state of another process that sends no events (its counters, its files).
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        loop {
            interval.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    within(what, looking).await
}
