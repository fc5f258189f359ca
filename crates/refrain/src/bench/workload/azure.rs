//! Azure's LLM traces: arrival times and sizes. What was said isn't in them, so every prompt is new.
//!
//! Source: <https://github.com/Azure/AzurePublicDataset>, 2023 and 2024 LLM inference traces.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use super::lines::numbered;
use super::{Session, Workload};

const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";

/// A line of the trace.
#[derive(Debug)]
pub(super) struct Request {
    /// From the first.
    at: Duration,
    context_tokens: u32,
    generated_tokens: u32,
}

pub(super) fn read(file: &Path) -> anyhow::Result<Vec<Request>> {
    let mut rows = Vec::new();
    for line in numbered(file)? {
        let (number, text) = line?;
        if number == 1 && text.trim_start_matches('\u{feff}').trim() == HEADER {
            continue;
        }
        let wrong = || format!("{}:{number}: no line of an Azure trace ({HEADER})", file.display());
        rows.push(row(text.trim()).with_context(wrong)?);
    }
    let first = rows.iter().map(|(time, ..)| *time).min();
    let first = first.with_context(|| format!("{}: no requests in it", file.display()))?;
    rows.sort_by_key(|(time, ..)| *time);
    let request = |(time, context_tokens, generated_tokens): (SystemTime, u32, u32)| Request {
        at: time.duration_since(first).unwrap_or_default(),
        context_tokens,
        generated_tokens,
    };
    Ok(rows.into_iter().map(request).collect())
}

fn row(text: &str) -> anyhow::Result<(SystemTime, u32, u32)> {
    let mut cells = text.split(',');
    let mut next = || cells.next().context("three values are expected");
    // The later traces say the zone.
    let time = next()?.trim_end_matches("+00:00");
    let time = humantime::parse_rfc3339_weak(time).with_context(|| format!("{time:?} is no time"))?;
    let number = |text: &str| text.trim().parse::<u32>().with_context(|| format!("{text:?} is no number"));
    Ok((time, number(next()?)?, number(next()?)?))
}

pub(super) fn session(workload: &Workload, number: u64, request: &Request) -> Session {
    let prompt = workload.text("prompt", number, request.context_tokens.max(1));
    workload.recorded(request.at, prompt, request.generated_tokens)
}
