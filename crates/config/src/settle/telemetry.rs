//! The OpenTelemetry collector, and prompts in the log.

use std::time::Duration;

use refrain_core::settings::{Otlp, ParentContext, PromptLog, Traces};
use regex::Regex;

use super::Context;
use super::endpoints::{Access, RawAccess};
use crate::raw;

/// More often than this, a collector has no use for metrics.
const METRICS_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// None without a URL, which is known already.
pub(super) fn otlp(context: &mut Context<'_>, raw: raw::Otlp) -> Option<Otlp> {
    let raw::Otlp {
        url,
        tls,
        authorization,
        headers,
        service_name,
        traces,
        sample,
        trust_parent,
        metrics,
        metrics_interval,
    } = raw;
    let of_url = url?.0;
    let access =
        Access::of(context, &["otlp"], RawAccess { http_version: None, tls, authorization, headers });
    if access.has_tls() && of_url.tls.is_none() {
        let message = "has no effect: only a URL that begins with https:// means TLS";
        context.refuse(&["otlp", "tls"], message, None);
    }
    let interval = metrics_interval.map_or(Otlp::METRICS_INTERVAL, |span| span.0);
    if interval < METRICS_INTERVAL_MIN {
        context.refuse(&["otlp", "metrics_interval"], "must be at least \"1s\"", None);
    }
    let default = Traces::default();
    let of_requests = Traces {
        sample: sample.unwrap_or(default.sample),
        parent: match trust_parent {
            Some(false) => ParentContext::Ignored,
            Some(true) => ParentContext::Followed,
            None => default.parent,
        },
    };
    Some(Otlp {
        endpoint: access.endpoint(of_url),
        service_name: service_name.map_or_else(|| Otlp::SERVICE_NAME.to_owned(), |name| name.0),
        traces: traces.unwrap_or(true).then_some(of_requests),
        metrics_interval: metrics.unwrap_or(true).then_some(interval),
    })
}

/// None unless the route says so, which is worth a warning each time.
pub(super) fn prompt_log(context: &mut Context<'_>, route: &str, raw: raw::RouteLog) -> Option<PromptLog> {
    let raw::RouteLog { prompts, redact } = raw;
    for (index, pattern) in redact.iter().enumerate() {
        if let Err(error) = Regex::new(pattern) {
            let message = format!("is no regular expression: {}", reason(&error));
            context.refuse(&["route", route, "log", "redact", &index.to_string()], message, None);
        }
    }
    if prompts != Some(true) {
        return None;
    }
    let message = "what people ask on this route is written to the log, whoever reads that; redaction is a sieve, not a wall";
    context.warn(&["route", route, "log", "prompts"], message);
    Some(PromptLog { redact })
}

/// The last line of a long message, which says what is wrong.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
