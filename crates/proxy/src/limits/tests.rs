use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use refrain_core::Usage;
use refrain_core::settings::{HitCost, LimitBy, LimitPlace, Measure, Quota, Rate, RateLimit, Window};

use super::granted::Hold;
use super::local::{self, What};
use super::state::{LimitState, Terms};
use super::subject::Subject;
use super::{Estimate, Granted};
use crate::metrics::Outcome;
use crate::tally::Spent;

const NOON_MS: u64 = 1_700_000_000_000 / 86_400_000 * 86_400_000 + 43_200_000;

fn per_minute(measure: Measure, limit: u64) -> Rate {
    Rate { measure, window: Window::Minute, limit, burst: limit }
}

fn config(rates: Vec<Rate>, concurrency: Option<u32>) -> RateLimit {
    RateLimit {
        id: "per-user".into(),
        by: vec![LimitBy::User],
        quota: Quota { rates, concurrency },
        burst: RateLimit::BURST,
        keys: BTreeMap::new(),
        tenants: BTreeMap::new(),
        hits: HitCost::Request,
        place: LimitPlace::Process,
        subjects_max: RateLimit::SUBJECTS_MAX,
    }
}

fn states(
    config: RateLimit,
    former: &HashMap<refrain_core::LimitId, Arc<LimitState>>,
) -> HashMap<refrain_core::LimitId, Arc<LimitState>> {
    LimitState::all(&BTreeMap::from([(config.id.clone(), Arc::new(config))]), former)
}

fn state(config: RateLimit) -> Arc<LimitState> {
    states(config, &HashMap::new()).into_values().next().unwrap()
}

fn subject() -> Subject {
    Subject::of_key("ann")
}

fn terms(limit: &LimitState) -> Arc<Terms> {
    limit.terms(None, &"acme".into()).clone()
}

/// One request; why it was refused, or its hold.
fn ask(limit: &Arc<LimitState>, input_tokens: u64, now_ms: u64) -> Result<Granted, What> {
    let estimate = Estimate { input_tokens };
    let terms = terms(limit);
    let taken = local::take(limit, &terms, &subject(), estimate, now_ms);
    if let Some(lack) = taken.lack {
        return Err(lack.what);
    }
    let mut granted = Granted::default();
    granted.add(Hold::new(limit.clone(), terms, subject(), (taken.held, taken.now_ms), estimate));
    Ok(granted)
}

fn spent(outcome: Outcome, usage: Usage) -> Spent {
    Spent { usage, passed_tokens: 0, status: Some(http::StatusCode::OK), outcome }
}

#[test]
fn a_limit_is_exact_over_many_threads() {
    let limit = state(config(vec![per_minute(Measure::Requests, 1_000)], None));
    let (now_ms, admitted) = (AtomicU64::new(NOON_MS), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let now_ms = now_ms.fetch_add(1, Relaxed);
                    admitted.fetch_add(ask(&limit, 0, now_ms).is_ok().into(), Relaxed);
                }
            });
        }
    });
    // 40 s of virtual time: the burst, and what comes back at 1000 a minute.
    let expected = 1_000 + 1_000 * 40_000 / 60_000;
    let admitted = admitted.load(Relaxed);
    assert!(admitted.abs_diff(expected) <= 1, "{admitted} of {expected}");
}

#[test]
fn no_more_are_under_way_than_may_be_and_a_dropped_one_makes_room() {
    let limit = state(config(Vec::new(), Some(3)));
    let mut held: Vec<Granted> = (0..3).map(|_| ask(&limit, 0, NOON_MS).unwrap()).collect();
    assert_eq!(ask(&limit, 0, NOON_MS).unwrap_err(), What::Concurrency);
    held.pop();
    held.push(ask(&limit, 0, NOON_MS).unwrap());
    assert_eq!(ask(&limit, 0, NOON_MS).unwrap_err(), What::Concurrency);
    drop(held);
    assert!(ask(&limit, 0, NOON_MS).is_ok());
}

#[test]
fn many_threads_never_hold_more_places_than_there_are() {
    let limit = state(config(Vec::new(), Some(5)));
    let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    if let Ok(granted) = ask(&limit, 0, NOON_MS) {
                        most.fetch_max(held.fetch_add(1, Relaxed) + 1, Relaxed);
                        std::thread::yield_now();
                        held.fetch_sub(1, Relaxed);
                        drop(granted);
                    }
                }
            });
        }
    });
    assert!((1..=5).contains(&most.load(Relaxed)));
    assert_eq!((0..9).map(|_| ask(&limit, 0, NOON_MS)).collect::<Vec<_>>().iter().flatten().count(), 5);
}

#[test]
fn prompts_are_corrected_and_answers_are_paid_when_they_have_ended() {
    let rates = vec![per_minute(Measure::InputTokens, 1_000), per_minute(Measure::OutputTokens, 100)];
    let limit = state(config(rates, None));
    let now_ms = super::now_ms();
    let mut granted = ask(&limit, 900, now_ms).unwrap();
    assert_eq!(ask(&limit, 200, now_ms).unwrap_err(), What::Rate(0));
    let usage = Usage { input_tokens: Some(300), ..Usage::default() };
    granted.settle(&Spent { passed_tokens: 160, ..spent(Outcome::Miss, usage) });
    drop(granted);
    let now_ms = super::now_ms();
    assert_eq!(ask(&limit, 200, now_ms).unwrap_err(), What::Rate(1), "the answer has overdrawn its tokens");
    // 60 of debt and something to spend.
    assert!(ask(&limit, 200, now_ms + 37_000).is_ok());
}

#[test]
fn hits_cost_a_request_and_tokens_only_where_config_says_so() {
    let rates = || vec![per_minute(Measure::Requests, 100), per_minute(Measure::InputTokens, 1_000)];
    let usage = Usage { input_tokens: Some(700), output_tokens: Some(1), cached_tokens: None };
    for (hits, passes) in [(HitCost::Request, true), (HitCost::Tokens, false)] {
        let limit = state(RateLimit { hits, ..config(rates(), None) });
        let mut granted = ask(&limit, 900, super::now_ms()).unwrap();
        granted.settle(&spent(Outcome::HitExact, usage));
        drop(granted);
        let left = limit.table.with(&subject(), super::now_ms(), |counts| counts.meters[0]).1;
        assert_ne!(left, super::meter::Meter::default(), "the request counts");
        assert_eq!(ask(&limit, 900, super::now_ms()).is_ok(), passes);
    }
}

#[test]
fn a_request_that_another_limit_refuses_counts_for_nothing() {
    let limit = state(config(vec![per_minute(Measure::Requests, 1)], None));
    let mut granted = ask(&limit, 0, super::now_ms()).unwrap();
    granted.take_back();
    drop(granted);
    assert!(ask(&limit, 0, super::now_ms()).is_ok());
    assert!(ask(&limit, 0, super::now_ms()).is_err());
}

#[tokio::test(start_paused = true)]
async fn what_midnight_has_given_back_is_not_given_back_again() {
    let per_day = Rate { measure: Measure::InputTokens, window: Window::Day, limit: 1_000, burst: 1_000 };
    let limit = state(config(vec![per_day], None));
    let mut long = ask(&limit, 1_000, super::now_ms()).unwrap();
    long.settle(&spent(Outcome::Miss, Usage { input_tokens: Some(10), ..Usage::default() }));
    tokio::time::advance(Duration::from_secs(86_400)).await;
    let _other = ask(&limit, 700, super::now_ms()).unwrap();
    drop(long);
    assert_eq!(ask(&limit, 301, super::now_ms()).unwrap_err(), What::Rate(0));
    assert!(ask(&limit, 300, super::now_ms()).is_ok());
}

#[test]
fn a_prompt_beyond_the_limit_waits_for_all_of_it_and_pays_the_rest() {
    let limit = state(config(vec![per_minute(Measure::InputTokens, 100)], None));
    let mut granted = ask(&limit, 5_000, super::now_ms()).unwrap();
    granted.settle(&spent(Outcome::Bypass, Usage { input_tokens: Some(150), ..Usage::default() }));
    drop(granted);
    let now_ms = super::now_ms();
    assert!(ask(&limit, 1, now_ms + 29_000).is_err());
    assert!(ask(&limit, 1, now_ms + 31_000).is_ok());
}

#[test]
fn a_reload_keeps_what_was_counted() {
    let first = states(config(vec![per_minute(Measure::Requests, 10)], None), &HashMap::new());
    let limit = first.values().next().unwrap();
    assert_eq!((0..20).filter(|_| ask(limit, 0, NOON_MS).is_ok()).count(), 10);
    let second = states(config(vec![per_minute(Measure::Requests, 15)], None), &first);
    let limit = second.values().next().unwrap();
    assert_eq!((0..20).filter(|_| ask(limit, 0, NOON_MS).is_ok()).count(), 5);
    let by_tenant =
        RateLimit { by: vec![LimitBy::Tenant], ..config(vec![per_minute(Measure::Requests, 15)], None) };
    let third = states(by_tenant, &second);
    assert!(ask(third.values().next().unwrap(), 0, NOON_MS).is_ok());
}

#[test]
fn policies_are_told_as_structured_fields() {
    let day = Rate { measure: Measure::OutputTokens, window: Window::Day, limit: 5_000, burst: 5_000 };
    let limit = state(config(vec![per_minute(Measure::Requests, 60), day], Some(4)));
    let terms = terms(&limit);
    let mut fields = super::LimitFields::default();
    let taken = local::take(&limit, &terms, &subject(), Estimate { input_tokens: 0 }, NOON_MS);
    fields.add(&limit, &terms, &taken.readings[..2], taken.in_flight);
    let mut headers = http::HeaderMap::new();
    fields.write(&mut headers);
    assert_eq!(
        headers["ratelimit-policy"],
        "\"per-user-rpm\";q=60;w=60, \"per-user-otpd\";q=5000;qu=\"output-tokens\";w=86400, \
         \"per-user-concurrency\";q=4;qu=\"concurrent-requests\""
    );
    assert_eq!(
        headers["ratelimit"],
        "\"per-user-rpm\";r=59;t=1, \"per-user-otpd\";r=5000;t=0, \"per-user-concurrency\";r=3"
    );
}

#[test]
fn a_debt_for_ages_is_still_a_structured_field() {
    let day = Rate { measure: Measure::OutputTokens, window: Window::Day, limit: 1, burst: 1 };
    let limit = state(config(vec![day], None));
    let mut readings = [super::meter::Reading::default()];
    readings[0].reset = Duration::from_secs(u64::MAX);
    let (mut fields, mut headers) = (super::LimitFields::default(), http::HeaderMap::new());
    fields.add(&limit, &terms(&limit), &readings, 0);
    fields.write(&mut headers);
    assert_eq!(headers["ratelimit"], "\"per-user-otpd\";r=0;t=999999999999999", "15 digits at most");
}
