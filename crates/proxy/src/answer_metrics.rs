//! How answers came, in histograms by route, API and origin. Only combinations that occur are registered: a route may be asked
//! in every dialect, and mostly is in one.

use std::sync::{Arc, OnceLock};

use metrics::{Counter, Histogram, counter, histogram};
use refrain_core::{Api, RouteId, Usage};

use crate::gaps::{GapStats, Gaps};
use crate::origin::Origin;
use crate::paths::PathClass;
use crate::tally::{Ending, Tally};

/// Origins of an answer.
const ORIGINS: usize = 3;

/// One route's histograms of answers.
pub(crate) struct AnswerMetrics {
    route: String,
    /// By API (the last: none), then by origin.
    made: [[OnceLock<Box<Series>>; ORIGINS]; Api::ALL.len() + 1],
    ended: [Counter; 3],
    /// By the status's first digit.
    statuses: [Counter; 5],
    /// Between chunks of streams. One for all reloads.
    gaps: Arc<Gaps>,
}

/// One API and origin.
struct Series {
    duration: Histogram,
    first_byte: Histogram,
    first_token: Histogram,
    stall: Histogram,
    token_gap: Histogram,
    tokens_per_second: Histogram,
    input_tokens: Counter,
    cached_tokens: Counter,
    output_tokens: Counter,
}

impl AnswerMetrics {
    /// Of a route. `former`: what it had before a reload.
    pub(crate) fn new(route: &RouteId, former: Option<&Self>) -> Self {
        let ended = |how: &'static str| counter!("refrain_responses_total", "route" => route.as_str().to_owned(), "ended" => how);
        let status = |class: &'static str| counter!("refrain_response_heads_total", "route" => route.as_str().to_owned(), "status" => class);
        Self {
            route: route.as_str().to_owned(),
            made: Default::default(),
            ended: ["complete", "failed", "left"].map(ended),
            statuses: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(status),
            gaps: former.map(|former| former.gaps.clone()).unwrap_or_default(),
        }
    }

    /// The gaps between chunks of streams.
    pub(crate) fn gaps(&self) -> GapStats {
        self.gaps.stats()
    }

    /// An answer that has ended.
    pub(crate) fn settled(&self, tally: &Tally, usage: Option<Usage>) {
        self.ended[place(tally.ending())].increment(1);
        let class = tally.answered.map(|head| usize::from(head.status.as_u16() / 100));
        if let Some(counter) = class.and_then(|class| self.statuses.get(class.checked_sub(1)?)) {
            counter.increment(1);
        }
        let api = tally.note.class.and_then(PathClass::api);
        let series = self.series(api, &tally.origin);
        series.duration.record(tally.begun.elapsed().as_secs_f64());
        if let Some(first) = tally.pace.first() {
            series.first_byte(tally, (first - tally.begun).as_secs_f64());
        }
        if let Some(usage) = usage {
            series.count(usage);
        }
        // The chunks of a whole answer are how it was cut on its way, not how it was generated.
        if tally.is_stream && tally.pace.chunks > 1 {
            self.gaps.add(&tally.pace.gaps, tally.pace.lasted());
            series.stream(tally, usage);
        }
    }

    fn series(&self, api: Option<Api>, origin: &Origin) -> &Series {
        let row = api.map_or(Api::ALL.len(), |api| api as usize);
        let column = match origin {
            Origin::Own => 0,
            Origin::Stored(_) => 1,
            Origin::Flight(_) | Origin::Passed(_) => 2,
        };
        self.made[row][column].get_or_init(|| {
            Box::new(Series::new(&self.route, api.map_or("other", Api::as_str), origin.as_str()))
        })
    }
}

impl Series {
    fn new(route: &str, api: &'static str, origin: &'static str) -> Self {
        let labels = [("route", route.to_owned()), ("api", api.to_owned()), ("origin", origin.to_owned())];
        let tokens = |kind: &'static str| counter!("refrain_response_tokens_total", "route" => route.to_owned(), "api" => api, "origin" => origin, "type" => kind);
        Self {
            duration: histogram!("refrain_response_seconds", &labels),
            first_byte: histogram!("refrain_response_first_byte_seconds", &labels),
            first_token: histogram!("refrain_response_first_token_seconds", &labels),
            stall: histogram!("refrain_response_stall_seconds", &labels),
            token_gap: histogram!("refrain_response_token_gap_seconds", &labels),
            tokens_per_second: histogram!("refrain_response_tokens_per_second", &labels),
            input_tokens: tokens("input"),
            cached_tokens: tokens("input_cached"),
            output_tokens: tokens("output"),
        }
    }

    /// A stream's first byte is its first token's. What comes whole doesn't show when its first token came.
    fn first_byte(&self, tally: &Tally, seconds: f64) {
        self.first_byte.record(seconds);
        if tally.is_stream && tally.answered.is_some_and(|head| head.status.is_success()) {
            self.first_token.record(seconds);
        }
    }

    fn count(&self, usage: Usage) {
        self.input_tokens.increment(usage.input_tokens.unwrap_or_default());
        self.cached_tokens.increment(usage.cached_tokens.unwrap_or_default());
        self.output_tokens.increment(usage.output_tokens.unwrap_or_default());
    }

    /// How a stream flowed. The gap between tokens is a mean: chunks may hold several.
    fn stream(&self, tally: &Tally, usage: Option<Usage>) {
        self.stall.record(tally.pace.longest_gap.as_secs_f64());
        let tokens = usage.and_then(|usage| usage.output_tokens).unwrap_or_default();
        let seconds = tally.pace.lasted().as_secs_f64();
        if tokens > 1 && seconds > 0.0 && tally.ending() == Ending::Complete {
            let gaps = (tokens - 1) as f64;
            self.token_gap.record(seconds / gaps);
            self.tokens_per_second.record(gaps / seconds);
        }
    }
}

fn place(ending: Ending) -> usize {
    match ending {
        Ending::Complete => 0,
        Ending::Failed(_) => 1,
        Ending::Left => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apis_number_is_its_place_in_the_list() {
        for (index, api) in Api::ALL.into_iter().enumerate() {
            assert_eq!(api as usize, index);
        }
    }
}
