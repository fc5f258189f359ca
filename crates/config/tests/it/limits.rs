//! What callers may ask for, and whose requests go first.

use refrain_config::{load, redacted};
use refrain_core::settings::{
    HitCost, LimitBy, LimitPlace, Measure, OnLimitError, Priority, Rate, RateLimit, Window,
};

use crate::{BASE, hash, settings_of, source};

const REDIS: &str = "[store]\nkind = \"redis\"\nsecret_file = \"s\"\n[store.redis]\nurl = \"redis://a\"\n";

fn check(text: &str, expected: &[&str]) {
    let errors = load(&source(&format!("{BASE}{text}"))).unwrap_err();
    let found: Vec<_> = errors.problems().iter().map(|problem| problem.to_string()).collect();
    let without_place =
        |problem: &String| problem.splitn(4, ':').nth(3).unwrap_or_default().trim().to_owned();
    assert_eq!(found.iter().map(without_place).collect::<Vec<_>>(), expected);
}

fn limit(text: &str) -> RateLimit {
    let settings = settings_of(&format!("{BASE}limits = [\"l\"]\n[limit.l]\n{text}\n"));
    (*settings.rate_limits[&"l".into()]).clone()
}

fn rate(measure: Measure, window: Window, limit: u64, burst: u64) -> Rate {
    Rate { measure, window, limit, burst }
}

#[test]
fn a_limit_has_the_numbers_that_are_given_and_no_others() {
    let limit = limit(
        "by = [\"route\", \"key\", \"key\"]\nrequests_per_minute = 60\noutput_tokens_per_day = 5\nburst = \"10s\"\nconcurrency = 3",
    );
    assert_eq!(limit.by, [LimitBy::Key, LimitBy::Route]);
    assert_eq!(
        limit.quota.rates,
        [rate(Measure::Requests, Window::Minute, 60, 10), rate(Measure::OutputTokens, Window::Day, 5, 5),]
    );
    assert_eq!(
        (limit.quota.concurrency, limit.hits, limit.place),
        (Some(3), HitCost::Request, LimitPlace::Process)
    );
}

#[test]
fn keys_and_tenants_have_numbers_of_their_own_where_they_say_so() {
    let key =
        format!("[key.k]\ntenant = \"acme\"\nkind = \"service\"\npriority = \"low\"\nhash = \"{}\"", hash(1));
    let text = format!(
        "{BASE}limits = [\"l\", \"l\"]\npriority = \"high\"\n{key}\n[limit.l]\nby = [\"key\"]\nrequests_per_minute = 60\n\
         concurrency = 1\n[limit.l.keys.k]\nconcurrency = 9\n[limit.l.tenants.acme]\nrequests_per_minute = 6\n"
    );
    let settings = settings_of(&text);
    let limit = &settings.rate_limits[&"l".into()];
    let (key, tenant) = (&limit.keys[&"k".into()], &limit.tenants[&"acme".into()]);
    assert_eq!((key.rates[0].limit, key.concurrency), (60, Some(9)));
    assert_eq!((tenant.rates[0].limit, tenant.concurrency), (6, Some(1)));
    assert_eq!(settings.routes[0].limits, ["l".into()]);
    assert_eq!(
        (settings.routes[0].priority, settings.keys[0].priority),
        (Priority::High, Some(Priority::Low))
    );
    let dump = redacted(&settings);
    assert_eq!(dump["limit"]["l"]["keys"]["k"]["concurrency"], 9);
    assert_eq!(
        (&dump["route"]["chat"]["limits"][0], &dump["key"]["k"]["priority"]),
        (&"l".into(), &"low".into())
    );
}

#[test]
fn limits_are_shared_where_the_store_is_unless_they_say_otherwise() {
    let of = |lines: &str| {
        let text =
            format!("{BASE}limits = [\"l\"]\n{REDIS}[limit.l]\nby = [\"user\"]\nconcurrency = 1\n{lines}\n");
        settings_of(&text).rate_limits[&"l".into()].place
    };
    let shared = |on_error| LimitPlace::Shared { timeout: RateLimit::TIMEOUT, on_error };
    assert_eq!(of(""), shared(OnLimitError::Local));
    assert_eq!(of("on_error = \"refuse\""), shared(OnLimitError::Refuse));
    assert_eq!(of("shared = false"), LimitPlace::Process);
}

#[test]
fn what_limits_nothing_or_can_not_be_is_refused() {
    check(
        "limits = [\"x\"]\n[limit.l]\nby = [\"user\"]",
        &[
            "route.chat.limits[0]: unknown limit \"x\"; known: l",
            "limit.l: limits nothing: set requests_per_minute or another number",
        ],
    );
    check(
        "limits = [\"l\"]\n[limit.l]\nby = []\nconcurrency = 0",
        &[
            "limit.l.by: name at least one: tenant, key, user or route",
            "limit.l.concurrency: must be from 1 to 1000000",
        ],
    );
    check(
        "limits = [\"l\"]\n[limit.l]\nby = [\"user\"]\nconcurrency = 1\nshared = true\nburst = \"2h\"\n[limit.l.keys.k]\n",
        &[
            "limit.l.shared: needs store.kind = \"redis\": without it there is nothing that proxies share",
            "limit.l.burst: must be at most an hour; set a limit a day instead",
            "limit.l.keys.k: unknown key \"k\"; none is known",
        ],
    );
    let slow =
        format!("limits = [\"l\"]\n{REDIS}[limit.l]\nby = [\"user\"]\nconcurrency = 1\ntimeout = \"1s\"");
    check(&slow, &["limit.l.timeout: must be at most store.redis.timeout, \"100ms\""]);
}

#[test]
fn a_limit_that_no_route_names_is_warned_of() {
    let loaded = load(&source(&format!("{BASE}[limit.l]\nby = [\"user\"]\nconcurrency = 1"))).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings[0].ends_with("limit.l: no route names it in its limits: it limits nothing"),
        "{warnings:?}"
    );
}
