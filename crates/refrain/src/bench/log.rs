//! `--log FILE`: a line of JSON for each request, warm-up too.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::Instant;

use super::drive::Done;

/// The file, or nothing.
pub(super) struct RequestLog(Option<BufWriter<File>>);

#[derive(Serialize)]
struct Line {
    due_s: f64,
    late_ms: f64,
    ttft_ms: Option<f64>,
    e2e_ms: f64,
    served: &'static str,
    output_tokens: Option<u64>,
    longest_gap_ms: Option<f64>,
    failure: Option<String>,
}

impl RequestLog {
    /// Makes the file, if one is asked for.
    pub(super) fn create(file: Option<&Path>) -> anyhow::Result<Self> {
        let create = |file: &Path| {
            let opened = File::create(file).with_context(|| format!("can't write {}", file.display()));
            opened.map(BufWriter::new)
        };
        Ok(Self(file.map(create).transpose()?))
    }

    /// Adds a request. Writes to the disk now and then; requests of that moment are a little late.
    pub(super) fn add(&mut self, start: Instant, done: &Done) -> anyhow::Result<()> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        serde_json::to_writer(&mut *file, &line(start, done))?;
        Ok(file.write_all(b"\n")?)
    }

    /// Writes what is still held.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        self.0.map_or(Ok(()), |mut file| Ok(file.flush()?))
    }
}

fn line(start: Instant, done: &Done) -> Line {
    let outcome = &done.outcome;
    let answered = outcome.result.as_ref().ok();
    Line {
        due_s: done.due.duration_since(start).as_secs_f64(),
        late_ms: millis(outcome.sent.duration_since(done.due)),
        ttft_ms: outcome.first_text.map(|first| millis(first.duration_since(done.due))),
        e2e_ms: millis(outcome.ended.duration_since(done.due)),
        served: outcome.cache.served.as_str(),
        output_tokens: answered.and_then(|answered| answered.usage.output_tokens),
        longest_gap_ms: answered.and_then(|answered| answered.gaps.iter().max().copied().map(millis)),
        failure: outcome.result.as_ref().err().map(super::outcome::Failure::kind),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
