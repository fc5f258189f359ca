//! The environment wins over the file, and says where it doesn't fit.

use refrain_config::{Source, load};
use refrain_core::Settings;

use crate::BASE;

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&Source::from_text("refrain.toml", text, environment))
        .map(|loaded| loaded.settings)
        .map_err(|errors| errors.to_string())
}

#[test]
fn a_variable_wins_over_the_file_and_over_defaults() {
    let text = format!("{BASE}cache = {{ ttl = \"1h\" }}\n[limits]\nheaders = 10");
    let settings = load_with(
        &text,
        &[
            ("REFRAIN_ROUTE__CHAT__CACHE__TTL", "10m"),
            ("REFRAIN_LIMITS__HEADERS", "20"),
            ("REFRAIN_STORE__MEMORY", "1 GiB"),
            ("REFRAIN_ROUTE__CHAT__FORWARD_CREDENTIALS", "true"),
            ("REFRAIN_ROUTE__CHAT__HOSTS", "[\"a.example\"]"),
            ("REFRAIN_EMBEDDER__MODEL_DIR", "m"),
            ("REFRAIN_EMBEDDER__RUNTIME_LIBRARY", "o"),
        ],
    )
    .unwrap();
    let route = &settings.routes[0];
    assert_eq!(route.cache.freshness.ttl.as_secs(), 600);
    assert_eq!(settings.limits.headers_max, 20);
    assert!(route.forward_credentials);
    assert_eq!(route.matches.hosts, ["a.example"]);
    assert!(settings.embedder.is_some());
}

#[test]
fn names_match_whatever_their_case_with_dash_and_underscore_equal() {
    for variable in ["REFRAIN_POOL__GPU_A__REVISION", "REFRAIN_pool__Gpu-A__revision"] {
        let settings = load_with(BASE, &[(variable, "7")]).unwrap();
        // A number where a string belongs is the text that it is.
        assert_eq!(settings.pools.values().next().unwrap().revision, "7");
    }
}

#[test]
fn items_of_arrays_are_named_by_index() {
    let settings = load_with(BASE, &[("REFRAIN_POOL__GPU_A__ENDPOINTS__0", "http://b:1")]).unwrap();
    assert_eq!(settings.pools.values().next().unwrap().endpoints[0].host, "b");
    let error = load_with(BASE, &[("REFRAIN_POOL__GPU_A__ENDPOINTS__1", "http://b:1")]).unwrap_err();
    assert_eq!(
        error,
        "REFRAIN_POOL__GPU_A__ENDPOINTS__1: pool.gpu-a.endpoints: no item \"1\" in an array of 1"
    );
}

#[test]
fn what_is_wrong_in_a_variable_names_the_variable() {
    for (variable, value, expected) in [
        (
            "REFRAIN_ROUTE__CHAT__CACHE__TTL",
            "soon",
            "route.chat.cache.ttl: expected a duration with a unit, like \"250ms\", \"30s\" or \"1h30m\"",
        ),
        (
            "REFRAIN_ROUTE__CHAT__CACHE__TTLL",
            "1h",
            "route.chat.cache: unknown key \"ttll\"; did you mean \"ttl\"?",
        ),
        ("REFRAIN_ROUTE__CODE__POOL", "gpu-a", "route: unknown key \"code\"; known: chat"),
        ("REFRAIN_ROUTE__CHAT__POOL", "gpu-b", "route.chat.pool: unknown pool \"gpu-b\"; known: gpu-a"),
        ("REFRAIN_LIMITS__WAITERS", "0", "limits.waiters: must be from 1 to 1000000"),
        ("REFRAIN_ROUTE__CHAT__POOL__X", "1", "route.chat.pool: is a string, not a table"),
        ("REFRAIN_LOG__", "1", "log: unknown key \"\"; known: access_sample, filter, format"),
    ] {
        assert_eq!(load_with(BASE, &[(variable, value)]).unwrap_err(), format!("{variable}: {expected}"));
    }
}

#[test]
fn a_name_that_fits_two_tables_is_refused() {
    let text = format!("{BASE}[pool.gpu_a]\nendpoints = [\"http://b\"]");
    let error = load_with(&text, &[("REFRAIN_POOL__GPU_A__REVISION", "7")]).unwrap_err();
    assert_eq!(error, "REFRAIN_POOL__GPU_A__REVISION: pool: \"GPU_A\" names several keys");
}

#[test]
fn variables_without_two_underscores_are_not_ours() {
    for variable in ["REFRAIN_CONFIG", "REFRAIN_LOG", "REFRAIN_X", "OTHER__A__B"] {
        assert!(load_with(BASE, &[(variable, "x")]).is_ok(), "{variable}");
    }
}

#[test]
fn a_secret_comes_from_a_variable() {
    let text =
        format!("{BASE}[[pool.gpu-a.endpoint]]\nurl = \"http://b\"\nauthorization = {{ env = \"TOKEN\" }}");
    let settings = load_with(&text, &[("TOKEN", "Bearer x\n")]).unwrap();
    let pool = settings.pools.values().next().unwrap();
    assert_eq!(pool.endpoints[1].authorization.as_ref().unwrap().0, "Bearer x");
}
