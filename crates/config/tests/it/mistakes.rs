//! Every class of mistake is told with its line, its path and what was probably meant.

use refrain_config::{Place, Suggestion, load};

use crate::{BASE, hash, source};

/// All problems of a text, a line each.
fn errors_of(text: &str) -> String {
    load(&source(text)).expect_err("the text is wrong").to_string()
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let found = errors_of(text);
    assert_eq!(found, expected, "in\n{text}");
}

/// A text added to [`BASE`], which has six lines.
#[track_caller]
fn check_added(text: &str, expected: &str) {
    check(&format!("{BASE}{text}"), expected);
}

#[test]
fn an_unknown_pool_is_told_with_the_known_ones() {
    let text = "[pool.gpu-a]\nendpoints = [\"http://a\"]\n[route.chat]\n  pool = \"b\"\n";
    check(text, r#"config/refrain.toml:4:10: route.chat.pool: unknown pool "b"; known: gpu-a"#);
    let errors = load(&source(text)).unwrap_err();
    let problem = &errors.problems()[0];
    let place = Place::File { file: "config/refrain.toml".into(), line: 4, column: 10 };
    assert_eq!((&problem.place, problem.path.as_str()), (&place, "route.chat.pool"));
    assert_eq!(problem.suggestion, Some(Suggestion::Known(vec!["gpu-a".into()])));
}

#[test]
fn an_unknown_name_is_told_with_the_known_ones() {
    check_added(
        "[route.code]\npath = \"/code\"\npool = \"gpu_a\"",
        r#"config/refrain.toml:8:8: route.code.pool: unknown pool "gpu_a"; known: gpu-a"#,
    );
    check_added(
        "listeners = [\"mian\"]",
        r#"config/refrain.toml:6:14: route.chat.listeners[0]: unknown listener "mian"; known: main"#,
    );
}

#[test]
fn an_unknown_key_is_told_with_the_closest_or_all() {
    check_added(
        "[route.chat.cache]\nttll = \"1h\"",
        r#"config/refrain.toml:7:1: route.chat.cache.ttll: unknown key; did you mean "ttl"?"#,
    );
    check_added(
        "[log]\nzzz = 1",
        "config/refrain.toml:7:1: log.zzz: unknown key; known: access_sample, filter, format",
    );
    check_added("[routes.x]\n", r#"config/refrain.toml:6:2: routes: unknown key; did you mean "route"?"#);
}

#[test]
fn a_wrong_type_is_told_with_the_right_one() {
    for (added, expected) in [
        ("hosts = 3", "6:9: route.chat.hosts: expected an array, found an integer"),
        (
            "hosts = [3]",
            "6:10: route.chat.hosts[0]: expected a string like \"*.example.com\", found an integer",
        ),
        ("cache = \"off\"", "6:9: route.chat.cache: expected true or false or a table, found a string"),
        (
            "cache = { ttl = 60 }",
            "6:17: route.chat.cache.ttl: expected a string like \"1h30m\", found an integer",
        ),
        (
            "forward_credentials = 1",
            "6:23: route.chat.forward_credentials: expected true or false, found an integer",
        ),
        ("[limits]\nheaders = 1.5", "7:11: limits.headers: expected an integer, found a float"),
        ("[runtime]\nworkers = 2026-01-01", "7:11: runtime.workers: expected an integer, found a date"),
    ] {
        check_added(added, &format!("config/refrain.toml:{expected}"));
    }
}

#[test]
fn a_wrong_word_is_told_with_the_closest() {
    for (added, expected) in [
        (
            "cache = { sampled = \"stor\" }",
            r#"6:21: route.chat.cache.sampled: unknown value "stor"; did you mean "store"?"#,
        ),
        (
            "cache = { scope = \"tennant\" }",
            r#"6:19: route.chat.cache.scope: unknown value "tennant"; did you mean "tenant"?"#,
        ),
        (
            "cache = { scope = { clam = \"x\" } }",
            r#"6:21: route.chat.cache.scope.clam: unknown key; did you mean "claim"?"#,
        ),
        (
            "cache = { scope = { claim = \"x\", shared = \"y\" } }",
            "6:19: route.chat.cache.scope: expected one of the keys claim, within-user, shared",
        ),
        (
            "cache = { directives = [\"no-cach\"] }",
            r#"6:25: route.chat.cache.directives[0]: unknown value "no-cach"; did you mean "no-cache"?"#,
        ),
        (
            "[store]\nkind = \"memcached\"",
            r#"7:8: store.kind: unknown value "memcached"; known: embedded, redis, off"#,
        ),
    ] {
        check_added(added, &format!("config/refrain.toml:{expected}"));
    }
}

#[test]
fn a_wrong_form_is_told_with_a_right_one() {
    for (added, expected) in [
        (
            "cache = { ttl = \"60\" }",
            "6:17: route.chat.cache.ttl: expected a duration with a unit, like \"250ms\", \"30s\" or \"1h30m\"",
        ),
        ("cache = { ttl = \"0s\" }", "6:17: route.chat.cache.ttl: must be longer than zero"),
        ("path = \"v1\"", "6:8: route.chat.path: a path begins with a slash"),
        (
            "cache = { replay_headers = [\"Set-Cookie\"] }",
            "6:29: route.chat.cache.replay_headers[0]: set-cookie belongs to one answer or one client and is never replayed",
        ),
        ("cache = { scope = { shared = \"\" } }", "6:30: route.chat.cache.scope.shared: must not be empty"),
        ("headers = { \"a b\" = \"x\" }", "6:21: route.chat.headers.\"a b\": not a header name"),
        (
            "[listener.main]\naddress = \"localhost:8080\"",
            "7:11: listener.main.address: expected an IP address and a port, like 127.0.0.1:8080 or [::]:8080",
        ),
        (
            "[limits]\nbody = \"16 Mibs\"",
            "7:8: limits.body: expected a size with a unit, like \"64 KiB\", \"8 MiB\" or \"4 GiB\"",
        ),
        ("[limits]\nhead = \"0 B\"", "7:8: limits.head: must be more than zero"),
        (
            "[pool.gpu-a.gpu]\nport = 9400\nmetric = \"UTIL{gpu=\\\"0\\\"}\"",
            "8:10: pool.gpu-a.gpu.metric: expected a metric's name without labels, like \"DCGM_FI_DEV_GPU_UTIL\"",
        ),
        (
            "[pool.gpu-a.gpu]\nport = 9400\npath = \"metrics\"",
            "8:8: pool.gpu-a.gpu.path: a path begins with a slash",
        ),
        (
            "[pool.b]\nendpoints = [\"a:80\"]",
            "7:14: pool.b.endpoints[0]: expected a URL that begins with http:// or https://",
        ),
    ] {
        check_added(added, &format!("config/refrain.toml:{expected}"));
    }
}

#[test]
fn a_number_out_of_range_is_told_with_the_range() {
    for (added, expected) in [
        ("[limits]\nwaiters = 0", "7:11: limits.waiters: must be from 1 to 1000000"),
        ("[limits]\nheaders = -1", "7:11: limits.headers: must be from 1 to 4096"),
        ("[log]\naccess_sample = 99999999999999999999", "7:17: number out of range"),
        (
            "cache = { semantic = { candidates = 65 } }\n[embedder]\nmodel_dir = \"m\"\nruntime_library = \"o\"",
            "6:37: route.chat.cache.semantic.candidates: must be from 1 to 64",
        ),
        (
            "cache = { semantic = { threshold = nan } }\n[embedder]\nmodel_dir = \"m\"\nruntime_library = \"o\"",
            "6:36: route.chat.cache.semantic.threshold: must be from 0 to 1",
        ),
        (
            "cache = { semantic = { threshold = 0 } }\n[embedder]\nmodel_dir = \"m\"\nruntime_library = \"o\"",
            "6:36: route.chat.cache.semantic.threshold: must be above 0: else everything is similar",
        ),
        ("[pool.gpu-a.gpu]\nport = 0", "7:8: pool.gpu-a.gpu.port: must be from 1 to 65535"),
        (
            "[pool.gpu-a.gpu]\nport = 9400\ninterval = \"999ms\"",
            "8:12: pool.gpu-a.gpu.interval: must be from \"1s\" to \"1h\"",
        ),
        (
            "[pool.gpu-a.gpu]\nport = 9400\ninterval = \"2h\"",
            "8:12: pool.gpu-a.gpu.interval: must be from \"1s\" to \"1h\"",
        ),
        (
            "[[pool.gpu-a.endpoint]]\nurl = \"http://b\"\nweight = 0",
            "8:10: pool.gpu-a.endpoint[0].weight: must be from 1 to 1000",
        ),
    ] {
        check_added(added, &format!("config/refrain.toml:{expected}"));
    }
}

#[test]
fn a_missing_key_is_told_at_its_table() {
    for (added, expected) in [
        ("[route.code]\npath = \"/code\"", "6:1: route.code.pool: missing, and has no default"),
        ("[pool.gpu-a.gpu]", "6:1: pool.gpu-a.gpu.port: missing, and has no default"),
        ("[embedder]\nmodel_dir = \"m\"", "6:1: embedder.runtime_library: missing, and has no default"),
        ("[embedder]\nruntime_library = \"o\"", "6:1: embedder.model_dir: missing, and has no default"),
        ("[[pool.gpu-a.endpoint]]", "6:1: pool.gpu-a.endpoint[0].url: missing, and has no default"),
        ("[listener.main]\ntls = {}", "7:7: listener.main.tls.certificates: missing, and has no default"),
        (
            "[listener.main]\ntls.certificates = [{ chain = \"c\" }, { chain = \"c\", key = \"k\" }]",
            "7:21: listener.main.tls.certificates[0].key: missing, and has no default",
        ),
        (
            "[listener.main]\ntls.certificates = [{ key = \"k\" }]",
            "7:21: listener.main.tls.certificates[0].chain: missing, and has no default",
        ),
        (
            "[pool.b]",
            "6:7: pool.b: no endpoint: add endpoints = [\"http://host:port\"], or [[pool.NAME.discover]]",
        ),
    ] {
        check_added(added, &format!("config/refrain.toml:{expected}"));
    }
    check(
        "",
        "config/refrain.toml:1:1: pool: no pool: add [pool.NAME] with endpoints = [\"http://host:port\"]\n\
         config/refrain.toml:1:1: route: no route: add [route.NAME] with pool = \"NAME\"",
    );
}

#[test]
fn wrong_syntax_is_told_with_its_line() {
    for (text, place) in [
        ("[pool.a\n", "config/refrain.toml:1:"),
        ("a = 1\nb = \"x\nc = 2\n", "config/refrain.toml:2:"),
        ("a = 1\na = 2\n", "config/refrain.toml:2:1: "),
        ("[log]\nfilter = info\n", "config/refrain.toml:2:10: "),
    ] {
        let found = errors_of(text);
        assert!(found.starts_with(place), "{found}");
    }
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let text = "[log]\nfilter = \"ä€\"\n\"ä\" = 1\n";
    let found = errors_of(&format!("{BASE}{text}"));
    assert!(found.starts_with("config/refrain.toml:8:1: log.\"ä\": unknown key"), "{found}");
    let found = errors_of(&format!("{BASE}log = {{ filter = \"ä€\", x = 1 }}"));
    assert!(found.starts_with("config/refrain.toml:6:"), "{found}");
    let found = errors_of("log = { filter = \"ä€\", zzz = 1 }");
    assert!(found.contains("refrain.toml:1:24: log.zzz: unknown key"), "{found}");
}

#[test]
fn a_listener_that_others_reach_needs_keys_or_a_word() {
    let open = "[listener.main]\naddress = \"0.0.0.0:8080\"\n";
    check_added(
        open,
        "config/refrain.toml:7:11: listener.main.address: 0.0.0.0:8080 can be reached from other machines: \
         add a [key.NAME] or [jwt.NAME], or allow_anonymous = true",
    );
    assert!(load(&source(&format!("{BASE}{open}allow_anonymous = true"))).is_ok());
    let key = format!("[key.a]\ntenant = \"t\"\nkind = \"service\"\nhash = \"{}\"", hash(1));
    assert!(load(&source(&format!("{BASE}{open}{key}"))).is_ok());
}

#[test]
fn two_listeners_on_a_port_are_refused() {
    check_added(
        "[listener.a]\naddress = \"127.0.0.1:9000\"\n[listener.b]\naddress = \"127.0.0.1:9000\"",
        "config/refrain.toml:9:11: listener.b.address: 127.0.0.1:9000 is taken by listener \"a\"",
    );
    check_added(
        "[listener.a]\naddress = \"0.0.0.0:9090\"\nallow_anonymous = true",
        "config/refrain.toml:7:11: listener.a.address: 0.0.0.0:9090 is taken by the admin listener",
    );
}

#[test]
fn two_routes_for_the_same_requests_are_refused() {
    check_added(
        "methods = [\"get\", \"POST\"]\n[route.other]\npath = \"/\"\nmethods = [\"POST\", \"GET\"]\npool = \"gpu-a\"",
        "config/refrain.toml:7:8: route.other: takes the same requests as route \"chat\"",
    );
}

#[test]
fn keys_have_one_owner_and_service_keys_no_user() {
    let key = |name: &str, rest: &str| format!("[key.{name}]\nhash = \"{}\"\n{rest}\n", hash(1));
    check_added(
        &key("bot", "tenant = \"t\"\nkind = \"service\"\nuser = \"u\""),
        "config/refrain.toml:10:8: key.bot.user: a service key speaks for many and has no user; leave it out, \
         or say kind = \"personal\"",
    );
    check_added(
        &(key("a", "tenant = \"t\"\nkind = \"personal\"") + &key("b", "tenant = \"t\"\nkind = \"personal\"")),
        "config/refrain.toml:11:8: key.b.hash: the same key as \"a\": a key has one owner",
    );
    check_added(
        &key("a", "tenant = \"anonymous\"\nkind = \"personal\""),
        "config/refrain.toml:8:10: key.a.tenant: this name is for callers without credentials; take another",
    );
    check_added(
        "[key.a]",
        "config/refrain.toml:6:1: key.a.tenant: missing, and has no default\n\
         config/refrain.toml:6:1: key.a.kind: missing, and has no default\n\
         config/refrain.toml:6:1: key.a.hash: missing, and has no default",
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (added, expected) in [
        (
            "cache = { semantic = {} }",
            "6:11: route.chat.cache.semantic: needs the table [embedder] with model_dir and runtime_library",
        ),
        (
            "cache = true\n[store]\nkind = \"off\"",
            "6:9: route.chat.cache: store.kind is \"off\", so that nothing can be cached",
        ),
        (
            "cache = { regenerate_window = \"1m\" }",
            "6:31: route.chat.cache.regenerate_window: has no effect without regenerate = \"repeat\"",
        ),
        (
            "cors_origins = [\"*\", \"https://a\"]",
            "6:16: route.chat.cors_origins: \"*\" stands alone: it holds every origin",
        ),
        ("[limits]\nhead = \"4 KiB\"", "7:8: limits.head: must be at least \"8 KiB\""),
        ("[store]\ndisk = \"1 GiB\"", "7:8: store.disk: without store.dir nothing is on disk"),
        (
            "[store]\nentry_max = \"1 GiB\"",
            "7:13: store.entry_max: an entry can't be larger than store.memory",
        ),
        (
            "[[pool.gpu-a.endpoint]]\nurl = \"http://127.0.0.1:8000/b\"",
            "6:1: pool.gpu-a.endpoint[0]: a second endpoint named \"127.0.0.1:8000\"; give it a name of its own",
        ),
        (
            "[pool.\"a b\"]\nendpoints = [\"http://a\"]",
            "6:7: pool.\"a b\": a name has 1 to 64 letters, digits, \"-\", \"_\" or \".\"",
        ),
    ] {
        check_added(added, &format!("config/refrain.toml:{expected}"));
    }
}

#[test]
fn a_secret_that_is_not_there_is_told_and_one_that_is_wrong_is_not_printed() {
    let endpoint = "[[pool.gpu-a.endpoint]]\nurl = \"http://b\"\nauthorization = ";
    check_added(
        &format!("{endpoint}{{ env = \"GPU_B\" }}"),
        "config/refrain.toml:8:1: pool.gpu-a.endpoint[0].authorization: environment variable \"GPU_B\" is not set",
    );
    let found = errors_of(&format!("{BASE}{endpoint}{{ value = \"hunter2\\nx\" }}"));
    assert!(found.ends_with("authorization: holds characters that a header can't"), "{found}");
    assert!(!found.contains("hunter2"), "{found}");
}

#[test]
fn many_mistakes_are_all_told_at_once_in_the_order_of_the_file() {
    let text = r#"[listener.main]
address = "0.0.0.0:8080"
tsl = {}

[limits]
body = "0 B"
waiters = 0

[pool.gpu-a]
endpoints = ["http://a", "ftp://b"]
kind = "olama"

[route.chat]
pool = "gpu-b"
cache = { ttl = "soon", scope = "everyone", semantic = { candidates = 99 } }

[route.code]
path = "code"

[key.bot]
tenant = "acme"
kind = "service"
user = "bot"
hash = "blake3:12:34"
"#;
    check(text, include_str!("many_mistakes.txt").trim_end());
}
