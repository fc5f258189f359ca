//! Cache policies in config: what they are told, what they may do, and what is refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use refrain_config::{Source, load};
use refrain_core::Settings;
use refrain_core::settings::{Grant, OnError, PluginLimits};

use crate::{BASE, settings_of, source};

/// [`BASE`] is six lines; a route's keys can follow it, and then tables.
fn with(added: &str) -> String {
    format!("{BASE}{added}")
}

#[track_caller]
fn check(added: &str, expected: &str) {
    let found = load(&source(&with(added))).expect_err("the text is wrong").to_string();
    assert_eq!(found, expected, "in\n{added}");
}

fn warnings(added: &str) -> Vec<String> {
    let loaded = load(&source(&with(added))).unwrap_or_else(|errors| panic!("{errors}"));
    loaded.warnings.iter().map(ToString::to_string).collect()
}

fn configs(settings: &Settings) -> Vec<(&str, &str)> {
    let plugins = &settings.routes[0].plugins;
    plugins.iter().map(|on_route| (on_route.plugin.id.as_str(), on_route.config.as_str())).collect()
}

#[test]
fn a_policy_gets_the_routes_config_or_else_its_own_as_json_with_sorted_keys() {
    let settings = settings_of(&with(
        r#"
        plugins = ["a", { plugin = "b", config = { z = 1, a = 2026-01-02T03:04:05Z, m = [{ x = 0.5 }] } }, { plugin = "c" }, "d"]
        [plugin.a]
        file = "a.wasm"
        config = { text = "ä\"", on = true }
        [plugin.b]
        file = "b.wasm"
        config.gone = true
        [plugin.c]
        file = "c.wasm"
        config = { deep = { b = 1, a = 2 } }
        [plugin.d]
        file = "d.wasm"
        "#,
    ));
    let expected = [
        ("a", r#"{"on":true,"text":"ä\""}"#),
        ("b", r#"{"a":"2026-01-02T03:04:05Z","m":[{"x":0.5}],"z":1}"#),
        ("c", r#"{"deep":{"a":2,"b":1}}"#),
        ("d", "{}"),
    ];
    assert_eq!(configs(&settings), expected);
}

#[test]
fn a_policy_that_guards_somebody_rejects_by_default_and_others_bypass() {
    let on_error = |grants: &str| {
        let added = format!("plugins = [\"p\"]\n[plugin.p]\nfile = \"p\"\n{grants}");
        let settings = settings_of(&with(&added));
        settings.routes[0].plugins[0].plugin.on_error
    };
    assert_eq!(on_error(""), OnError::Bypass);
    assert_eq!(on_error("grants = [\"state\", \"embed\"]"), OnError::Bypass);
    for grant in ["shared-scope", "refuse", "key-edit", "rewrite", "pool"] {
        assert_eq!(on_error(&format!("grants = [\"state\", {grant:?}]")), OnError::Reject, "{grant}");
    }
    assert_eq!(on_error("grants = [\"refuse\"]\non_error = \"static\""), OnError::Static);
}

#[test]
fn a_short_plugin_has_no_grants_the_default_limits_and_a_watched_file() {
    let loaded = load(&source(&with("plugins = [\"p\"]\n[plugin.p]\nfile = \"p.wasm\""))).unwrap();
    let plugin = &loaded.settings.routes[0].plugins[0].plugin;
    assert_eq!((&plugin.grants, plugin.sha256), (&BTreeSet::new(), None));
    assert_eq!(plugin.limits, PluginLimits::default());
    assert_eq!(plugin.file, Path::new("config/p.wasm"));
    assert!(loaded.files.contains(&plugin.file));
}

#[test]
fn every_grant_can_be_written() {
    let words: Vec<&str> = Grant::ALL.into_iter().map(Grant::as_str).collect();
    let added = format!("plugins = [\"p\"]\n[plugin.p]\nfile = \"p\"\ngrants = {words:?}");
    let settings = settings_of(&with(&added));
    assert_eq!(settings.routes[0].plugins[0].plugin.grants, BTreeSet::from(Grant::ALL));
}

#[test]
fn compiled_code_is_kept_beside_the_answers_or_in_the_users_cache() {
    let code_dir = |added: &str, environment: &[(&str, &str)]| {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = load(&Source::from_text("/etc/refrain.toml", with(added), environment)).unwrap();
        loaded.settings.plugin_host.code_dir
    };
    let home = [("HOME", "/home/ann")];
    let stored = "[store]\ndir = \"data\"";
    assert_eq!(code_dir("", &[]), None);
    assert_eq!(code_dir("", &home), Some("/home/ann/.cache/refrain/code".into()));
    assert_eq!(code_dir("", &[("XDG_CACHE_HOME", "/c"), home[0]]), Some("/c/refrain/code".into()));
    assert_eq!(code_dir("", &[("XDG_CACHE_HOME", "relative")]), None);
    assert_eq!(code_dir(stored, &home), Some("/etc/data/code".into()));
    let own = format!("{stored}\n[plugin_host]\ncode_dir = \"own\"");
    assert_eq!(code_dir(&own, &home), Some(PathBuf::from("/etc/own")));
}

#[test]
fn caps_are_the_routes_own_values_unless_they_are_widened() {
    let cache = |added: &str| settings_of(&with(added)).routes[0].cache.clone();
    let own = cache("cache = { ttl = \"2h\", stale_while_revalidate = \"1m\", stale_if_error = \"5m\" }");
    assert_eq!(own.freshness_max, own.freshness);
    let wide =
        cache("cache = { ttl = \"2h\", ttl_max = \"3h\", stale_if_error = \"5m\", stale_max = \"6m\" }");
    assert_eq!(wide.freshness.stale_while_revalidate, Duration::ZERO);
    assert_eq!(wide.freshness_max.ttl, Duration::from_secs(3 * 3600));
    assert_eq!(wide.freshness_max.stale_while_revalidate, Duration::from_secs(360));
    assert_eq!(wide.freshness_max.stale_if_error, Duration::from_secs(360));
    let embedder = "[embedder]\nmodel_dir = \"m\"\nruntime_library = \"o\"";
    let floor = |semantic: &str| {
        let cache = cache(&format!("cache.semantic = {{ {semantic} }}\n{embedder}"));
        cache.semantic.map(|semantic| (semantic.threshold, semantic.threshold_floor))
    };
    assert_eq!(floor("threshold = 0.95"), Some((0.95, 0.95)));
    assert_eq!(floor("threshold = 0.95, threshold_floor = 0.9"), Some((0.95, 0.9)));
}

#[test]
fn a_cap_that_the_route_itself_breaks_is_refused() {
    check(
        "cache = { ttl = \"2h\", ttl_max = \"1h\" }",
        "config/refrain.toml:6:33: route.chat.cache.ttl_max: can't be below ttl, \"2h\"; raise it, or leave it out",
    );
    check(
        "cache = { ttl_max = \"10m\" }",
        "config/refrain.toml:6:21: route.chat.cache.ttl_max: can't be below ttl, \"1h\"; raise it, or leave it out",
    );
    check(
        "cache = { stale_if_error = \"1d\", stale_max = \"1h\" }",
        "config/refrain.toml:6:46: route.chat.cache.stale_max: can't be below stale_if_error, \"1day\"; \
         raise it, or leave it out",
    );
    check(
        "cache.semantic = { threshold_floor = 0.95 }\n[embedder]\nmodel_dir = \"m\"\nruntime_library = \"o\"",
        "config/refrain.toml:6:38: route.chat.cache.semantic.threshold_floor: must be above 0 and at most \
         threshold, 0.9",
    );
}

#[test]
fn what_is_wrong_with_a_plugin_is_told_at_its_place() {
    let plugin = |rest: &str| format!("plugins = [\"p\"]\n[plugin.p]\nfile = \"p\"\n{rest}");
    for (added, expected) in [
        (
            "plugins = [\"tenant-scop\"]\n[plugin.tenant-scope]\nfile = \"p\"".to_owned(),
            "6:12: route.chat.plugins[0]: unknown plugin \"tenant-scop\"; known: tenant-scope",
        ),
        ("plugins = [\"p\"]".to_owned(), "6:12: route.chat.plugins[0]: unknown plugin \"p\"; none is known"),
        (
            "plugins = [\"p\", { plugin = \"p\" }]\n[plugin.p]\nfile = \"p\"".to_owned(),
            "6:17: route.chat.plugins[1]: \"p\" is on this route already",
        ),
        (
            "plugins = [{ config = {} }]\n[plugin.p]\nfile = \"p\"".to_owned(),
            "6:12: route.chat.plugins[0].plugin: missing, and has no default",
        ),
        (
            "plugins = [3]".to_owned(),
            "6:12: route.chat.plugins[0]: expected a string or a table, found an integer",
        ),
        ("plugins = [\"p\"]\n[plugin.p]".to_owned(), "7:1: plugin.p.file: missing, and has no default"),
        (
            plugin("grants = [\"pol\"]"),
            "9:11: plugin.p.grants[0]: unknown value \"pol\"; did you mean \"pool\"?",
        ),
        (
            plugin("on_error = \"ignore\""),
            "9:12: plugin.p.on_error: unknown value \"ignore\"; known: bypass, reject, static",
        ),
        (plugin("sha256 = \"abc\""), "9:10: plugin.p.sha256: the SHA-256 must be 64 hex digits"),
        (
            plugin("config = { a = { b = [1.0, nan] } }"),
            "9:28: plugin.p.config.a.b[1]: must be a finite number",
        ),
        (plugin("config = { a = -inf }"), "9:16: plugin.p.config.a: must be a finite number"),
        (plugin("config = \"x\""), "9:10: plugin.p.config: expected a table, found a string"),
        (
            plugin("limits = { memory = \"1 KiB\" }"),
            "9:21: plugin.p.limits.memory: must be from \"64 KiB\" to \"4 GiB\"",
        ),
        (
            plugin("limits = { instances = 9 }\n[plugin_host]\ninstances = 8"),
            "9:24: plugin.p.limits.instances: can't be more than plugin_host.instances, 8",
        ),
        (
            "[plugin.\"a b\"]\nfile = \"p\"".to_owned(),
            "6:9: plugin.\"a b\": a name has 1 to 64 letters, digits, \"-\", \"_\" or \".\"",
        ),
        (
            format!(
                "[key.k]\ntenant = \"t\"\nkind = \"service\"\nhash = \"{}\"\npools = [\"gpu-b\"]",
                crate::hash(1)
            ),
            "10:10: key.k.pools[0]: unknown pool \"gpu-b\"; known: gpu-a",
        ),
    ] {
        check(&added, &format!("config/refrain.toml:{expected}"));
    }
}

#[test]
fn a_plugin_that_no_route_uses_is_a_warning() {
    let idle = ["config/refrain.toml:6:9: plugin.p: no route uses it"];
    assert_eq!(warnings("[plugin.p]\nfile = \"p\""), idle);
    assert_eq!(warnings("plugins = [\"p\"]\n[plugin.p]\nfile = \"p\""), [""; 0]);
}

#[test]
fn a_pool_that_a_policy_may_choose_is_not_idle() {
    let pools = |grants: &str| {
        warnings(&format!(
            "plugins = [\"p\"]\n[plugin.p]\nfile = \"p\"\ngrants = {grants}\n[pool.b]\nendpoints = [\"http://b\"]"
        ))
    };
    assert_eq!(pools("[]"), ["config/refrain.toml:10:7: pool.b: no route uses it"]);
    assert_eq!(pools("[\"pool\"]"), [""; 0]);
}

#[test]
fn a_variable_changes_a_key_of_a_plugins_config() {
    let text = with("plugins = [\"p\"]\n[plugin.p]\nfile = \"p\"\nconfig = { floor = 0.9, name = \"a\" }");
    let environment = [("REFRAIN_PLUGIN__P__CONFIG__FLOOR".to_owned(), "0.95".to_owned())];
    let loaded = load(&Source::from_text("refrain.toml", text, environment)).unwrap();
    assert_eq!(configs(&loaded.settings), [("p", r#"{"floor":0.95,"name":"a"}"#)]);
}
