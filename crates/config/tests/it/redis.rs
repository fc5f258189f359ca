//! A store in Redis: its settings, the rules between its keys, and that no password is ever shown.

use std::path::PathBuf;
use std::time::Duration;

use refrain_config::{Errors, Loaded, Source, load, redacted};
use refrain_core::settings::{
    RedisClientCertificate, RedisNode, RedisStore, RedisTls, Secret, Store, VectorSearch,
};

use crate::{BASE, settings_of};

/// The store's table; with [`BASE`] before it, `[store.redis]` is line 9 and what is added begins at line 10.
const STORE: &str = "[store]\nkind = \"redis\"\nsecret_file = \"s\"\n[store.redis]\n";

fn load_with(added: &str, environment: &[(&str, &str)]) -> Result<Loaded, Errors> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&Source::from_text("/etc/refrain.toml", format!("{BASE}{added}"), environment))
}

#[track_caller]
fn store_with(added: &str, environment: &[(&str, &str)]) -> RedisStore {
    let loaded = load_with(added, environment).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.warnings, []);
    let Store::Redis(store) = loaded.settings.store else { panic!("redis") };
    store
}

#[track_caller]
fn store_of(redis: &str) -> RedisStore {
    store_with(&format!("{STORE}{redis}"), &[])
}

/// Checks all problems: a line each, without the file's name.
#[track_caller]
fn check(added: &str, expected: &[&str]) {
    let errors = load_with(added, &[]).expect_err("the text is wrong").to_string();
    let found: Vec<_> = errors.lines().map(|line| line.trim_start_matches("/etc/refrain.toml:")).collect();
    assert_eq!(found, expected, "in\n{added}");
}

#[track_caller]
fn check_redis(redis: &str, expected: &[&str]) {
    check(&format!("{STORE}{redis}"), expected);
}

fn tcp(host: &str, port: u16) -> RedisNode {
    RedisNode::Tcp { host: host.to_owned(), port }
}

#[test]
fn a_url_alone_gets_all_defaults() {
    let store = store_of("url = \"redis://h\"");
    let expected = RedisStore {
        memory_bytes_max: RedisStore::MEMORY_BYTES_MAX,
        entry_bytes_max: RedisStore::ENTRY_BYTES_MAX,
        secret_file: "/etc/s".into(),
        nodes: vec![tcp("h", 6379)],
        cluster: false,
        database: 0,
        credentials: Default::default(),
        tls: None,
        prefix: "refrain".to_owned(),
        vectors: VectorSearch::Auto,
        connect_timeout: Duration::from_millis(500),
        command_timeout: Duration::from_millis(100),
        lease: Duration::from_secs(30),
        write_queue_bytes_max: RedisStore::WRITE_QUEUE_BYTES_MAX,
        required: false,
    };
    assert_eq!(store, expected);
}

#[test]
fn every_key_has_its_effect() {
    let store = store_with(
        r#"
        [store]
        kind = "redis"
        memory = "8 MiB"
        entry_max = "1 MiB"
        dir = "data"
        [store.redis]
        urls = ["rediss://u:p%2Fq@a:1", "rediss://u:p%2Fq@[::1]"]
        cluster = true
        prefix = "team:a"
        vectors = "vector-sets"
        connect_timeout = "1s"
        timeout = "20ms"
        lease = "5s"
        write_queue = "1 MiB"
        require_store = true
        [store.redis.tls]
        ca_file = "ca.pem"
        client_certificate = { chain = "c.pem", key = "k.pem" }
        server_name = "redis.example.com"
        "#,
        &[],
    );
    assert_eq!((store.memory_bytes_max, store.entry_bytes_max), (8 << 20, 1 << 20));
    assert_eq!(store.secret_file, PathBuf::from("/etc/data/cache.secret"));
    assert_eq!(store.nodes, [tcp("a", 1), tcp("::1", 6379)]);
    assert_eq!(store.credentials.username.as_deref(), Some("u"));
    assert_eq!(store.credentials.password, Some(Secret("p/q".to_owned())));
    let client = RedisClientCertificate { chain: "/etc/c.pem".into(), key: "/etc/k.pem".into() };
    let tls = RedisTls {
        ca_file: Some("/etc/ca.pem".into()),
        client: Some(client),
        server_name: Some("redis.example.com".to_owned()),
    };
    assert_eq!(store.tls, Some(tls));
    assert_eq!((store.prefix.as_str(), store.vectors), ("team:a", VectorSearch::VectorSets));
    let spans = [store.connect_timeout, store.command_timeout, store.lease];
    assert_eq!(spans.map(|span| span.as_millis()), [1000, 20, 5000]);
    assert!(store.cluster && store.required && store.write_queue_bytes_max == 1 << 20);
}

#[test]
fn rediss_alone_is_tls_with_the_systems_authorities() {
    assert_eq!(store_of("url = \"rediss://h\"").tls, Some(RedisTls::default()));
    assert_eq!(store_of("url = \"redis+unix:///r.sock?db=2\"").nodes, [RedisNode::Unix("/r.sock".into())]);
}

#[test]
fn without_a_url_the_environment_names_the_server() {
    let variable = [("REDIS_URL", "redis://u:p@env:1/2")];
    let store = store_with("[store]\nkind = \"redis\"\nsecret_file = \"s\"", &variable);
    assert_eq!((store.nodes, store.database), (vec![tcp("env", 1)], 2));
    let store = store_with(&format!("{STORE}url = \"redis://file\""), &variable);
    assert_eq!((store.nodes, store.credentials.username), (vec![tcp("file", 6379)], None));
    let other = [("REFRAIN_STORE__KIND", "redis"), ("REFRAIN_STORE__SECRET_FILE", "/s"), variable[0]];
    assert_eq!(store_with("", &other).secret_file, PathBuf::from("/s"));
    assert!(matches!(load_with("", &variable).unwrap().settings.store, Store::Embedded(_)));
}

#[test]
fn variables_override_the_file() {
    let environment = [
        ("REFRAIN_STORE__REDIS__URL", "rediss://env:1"),
        ("REFRAIN_STORE__REDIS__USERNAME", "u"),
        ("REFRAIN_STORE__REDIS__PASSWORD__VALUE", "123"),
        ("REFRAIN_STORE__REDIS__TLS__SERVER_NAME", "n"),
        ("REFRAIN_STORE__REDIS__REQUIRE_STORE", "true"),
    ];
    let store = store_with(&format!("{STORE}url = \"redis://file\""), &environment);
    assert_eq!(store.nodes, [tcp("env", 1)]);
    assert_eq!(store.credentials.password, Some(Secret("123".to_owned())));
    assert!(store.required && store.tls.unwrap().server_name.as_deref() == Some("n"));
}

#[test]
fn user_and_password_win_over_the_urls_and_are_taken_as_they_are() {
    let store = store_of("url = \"redis://a:b@h\"\nusername = \"c%20\"\npassword = { value = \" d%40 \" }")
        .credentials;
    assert_eq!(
        (store.username.as_deref(), store.password),
        (Some("c%20"), Some(Secret(" d%40 ".to_owned())))
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "e f\n").unwrap();
    let text = format!("{STORE}url = \"redis://a@h\"\npassword = {{ file = {file:?} }}");
    let loaded = load_with(&text, &[]).unwrap();
    assert!(loaded.files.contains(&file), "a change of the file asks for a reload");
    assert_eq!(store_with(&text, &[]).credentials.password, Some(Secret("e f".to_owned())));
    let text = format!("{STORE}url = \"redis://h\"\npassword = {{ env = \"P\" }}");
    assert_eq!(store_with(&text, &[("P", "g")]).credentials.password, Some(Secret("g".to_owned())));
}

#[test]
fn certificates_are_watched_and_the_secret_of_keys_is_not() {
    let tls = "tls = { ca_file = \"ca\", client_certificate = { chain = \"c\", key = \"k\" } }";
    let loaded = load_with(&format!("{STORE}url = \"rediss://h\"\n{tls}"), &[]).unwrap();
    assert_eq!(loaded.files, ["/etc/refrain.toml", "/etc/ca", "/etc/c", "/etc/k"].map(PathBuf::from));
}

#[test]
fn compiled_policies_are_in_the_stores_folder() {
    let text = "[store]\nkind = \"redis\"\ndir = \"data\"\nredis.url = \"redis://h\"";
    let settings = load_with(text, &[]).unwrap().settings;
    assert_eq!(settings.plugin_host.code_dir, Some("/etc/data/code".into()));
}

#[test]
fn servers_that_cannot_be_one_store_are_refused() {
    let several = "cluster = true\nurls = [\"redis://a\", ";
    for (redis, expected) in [
        (
            format!("{several}\"rediss://b\"]"),
            "11:22: store.redis.urls[1]: another scheme than the first URL's: all servers are spoken to alike",
        ),
        (
            format!("{several}\"redis://:p@b\"]"),
            "11:22: store.redis.urls[1]: other credentials than the first URL's: give them once, as \
             store.redis.username and password",
        ),
        (
            "cluster = true\nurls = [\"redis://a\", \"redis://b/0\"]\nvectors = \"query-engine\"".to_owned(),
            "12:11: store.redis.vectors: in a cluster the query engine finds what is on one of its servers only; say \
             \"auto\", \"vector-sets\" or \"local\"",
        ),
        (
            "urls = [\"redis://a\", \"redis://b\"]".to_owned(),
            "10:22: store.redis.urls[1]: several servers are a cluster's: say cluster = true, or keep one",
        ),
        (
            "cluster = true\nurl = \"unix:///r.sock\"".to_owned(),
            "11:7: store.redis.url: a cluster's servers can't be reached by a socket; use redis://",
        ),
        (
            "cluster = true\nurl = \"redis://a/1\"".to_owned(),
            "11:7: store.redis.url: a cluster has database 0 only",
        ),
        ("urls = []".to_owned(), "10:8: store.redis.urls: names no server"),
        (
            "url = \"redis://a\"\nurls = [\"redis://b\"]".to_owned(),
            "11:8: store.redis.urls: beside store.redis.url: keep one of the two",
        ),
        (String::new(), "9:8: store.redis.url: no server: give store.redis.url, or set REDIS_URL"),
    ] {
        check_redis(&redis, &[expected]);
    }
    check_redis(
        "urls = [\"redis://a\", \"redis://b/1\"]",
        &[
            "10:22: store.redis.urls[1]: another database than the first URL's",
            "10:22: store.redis.urls[1]: several servers are a cluster's: say cluster = true, or keep one",
        ],
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (redis, expected) in [
        (
            "url = \"redis://h\"\ntls = { server_name = \"n\" }",
            "11:1: store.redis.tls: has no effect: only a URL that begins with rediss:// means TLS",
        ),
        (
            "url = \"rediss://h#insecure\"",
            "10:7: store.redis.url: \"#insecure\" would trust whoever answers; leave it out, and name whom to trust \
             in store.redis.tls.ca_file",
        ),
        (
            "url = \"redis://u@h\"",
            "10:7: store.redis.url: a user without a password: give store.redis.password (any, if the user needs none)",
        ),
        (
            "username = \"u\"\nurl = \"redis://h\"",
            "10:12: store.redis.username: a user without a password: give store.redis.password (any, if the user \
             needs none)",
        ),
        (
            "url = \"redis://h\"\npassword = { env = \"P\" }",
            "11:1: store.redis.password: environment variable \"P\" is not set",
        ),
        (
            "url = \"redis://u@h\"\npassword = \"hunter2\"",
            "11:12: store.redis.password: expected { env = .. } or { file = .. } or { value = .. }, found a string",
        ),
        ("url = \"redis://h\"\nlease = \"31s\"", "11:9: store.redis.lease: must be from \"1ms\" to \"30s\""),
        (
            "url = \"redis://h\"\ntimeout = \"1us\"",
            "11:11: store.redis.timeout: must be from \"1ms\" to \"30s\"",
        ),
        (
            "url = \"redis://h\"\nwrite_queue = \"1 MiB\"",
            "11:15: store.redis.write_queue: smaller than store.entry_max: such an entry would never be written",
        ),
        (
            "url = \"redis://h\"\nprefix = \"{a}\"",
            "11:10: store.redis.prefix: a prefix has 1 to 64 letters, digits, \"-\", \"_\", \".\" or \":\"",
        ),
        (
            "url = \"redis://h\"\nvectors = \"vector-set\"",
            "11:11: store.redis.vectors: unknown value \"vector-set\"; did you mean \"vector-sets\"?",
        ),
        (
            "url = \"rediss://h\"\ntls.client_certificate = { chain = \"c\" }",
            "11:26: store.redis.tls.client_certificate.key: missing, and has no default",
        ),
    ] {
        check_redis(redis, &[expected]);
    }
}

#[test]
fn what_belongs_to_another_kind_of_store_is_refused() {
    let redis = "[store]\nkind = \"redis\"\nredis.url = \"redis://h\"\n";
    check(
        &format!("{redis}dir = \"d\"\ndisk = \"1 GiB\"\nmemory = \"1 MiB\""),
        &[
            "6:2: store.entry_max: an entry can't be larger than store.memory",
            "10:8: store.disk: answers are in Redis, not on disk; leave it out",
        ],
    );
    check(
        redis,
        &[
            "6:2: store.secret_file: missing: name a file with the secret of cache keys, the same on every proxy (made \
           if it isn't there), or give store.dir",
        ],
    );
    for kind in ["kind = \"embedded\"\n", "kind = \"off\"\n", ""] {
        let line = if kind.is_empty() { 7 } else { 8 };
        check(
            &format!("[store]\n{kind}secret_file = \"s\"\n[store.redis]\nurl = \"redis://h\""),
            &[
                &format!(
                    "{line}:15: store.secret_file: only with store.kind = \"redis\": the embedded store has its \
                     secret in store.dir"
                ),
                &format!(
                    "{}:8: store.redis: has no effect: say store.kind = \"redis\", or leave this out",
                    line + 1
                ),
            ],
        );
    }
    check(
        "[store]\nkind = \"reddis\"\nredis.url = \"redis://h\"",
        &["7:8: store.kind: unknown value \"reddis\"; did you mean \"redis\"?"],
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    check(
        "[store]\nkind = \"redis\"\n[store.redis]\nurl = \"redis://h/x\"\nuser = \"u\"\nlease = \"1m\"",
        &[
            "6:2: store.secret_file: missing: name a file with the secret of cache keys, the same on every proxy (made \
             if it isn't there), or give store.dir",
            "9:7: store.redis.url: the database is a number, as in redis://host:6379/0",
            "10:1: store.redis.user: unknown key; did you mean \"username\"?",
            "11:9: store.redis.lease: must be from \"1ms\" to \"30s\"",
        ],
    );
}

#[test]
fn a_wrong_variable_is_told_by_its_name() {
    for (name, value, expected) in [
        (
            "REDIS_URL",
            "http://u:hunter2@h",
            "REDIS_URL: store.redis.url: expected a URL that begins with redis://, rediss:// or redis+unix://",
        ),
        (
            "REDIS_URL",
            "redis://u@h",
            "REDIS_URL: store.redis.url: a user without a password: give store.redis.password (any, if the user \
             needs none)",
        ),
        (
            "REFRAIN_STORE__REDIS__URL",
            "redis://u:hunter2@h/x",
            "REFRAIN_STORE__REDIS__URL: store.redis.url: the database is a number, as in redis://host:6379/0",
        ),
        (
            "REFRAIN_STORE__REDIS__PASSWORD",
            "hunter2",
            "REFRAIN_STORE__REDIS__PASSWORD: store.redis.password: expected { env = .. } or { file = .. } or \
             { value = .. }, found a string",
        ),
    ] {
        let environment = [("REDIS_URL", "redis://h"), (name, value)];
        let errors = load_with(STORE, &environment).unwrap_err().to_string();
        assert_eq!(errors, expected);
    }
}

#[test]
fn the_redacted_dump_loads_into_the_same_settings() {
    for redis in [
        "urls = [\"rediss://u:p@a:1\", \"rediss://u:p@[::1]\"]\ncluster = true\nprefix = \"a\"\nlease = \"1s\"\n\
         tls = { ca_file = \"/a\", client_certificate = { chain = \"/c\", key = \"/k\" }, server_name = \"n\" }",
        "url = \"redis+unix:///run/a%20b.sock?db=3\"\nvectors = \"query-engine\"\nrequire_store = true",
        "url = \"redis://:p@h/4\"\nvectors = \"local\"",
    ] {
        let store = store_of(redis);
        let settings =
            settings_of(&format!("{BASE}{}", format!("{STORE}{redis}").replace("\"s\"", "\"/s\"")));
        let dump = toml::to_string(&redacted(&settings)).unwrap();
        assert_eq!(format!("{settings:?}"), format!("{:?}", settings_of(&dump)));
        assert_eq!(dump.contains("<redacted>"), store.credentials.password.is_some());
    }
}

/// Right files and wrong ones: whatever can be printed of them is looked through.
#[test]
fn no_password_is_in_a_dump_an_error_a_warning_or_debug_output() {
    let mut counts = (0, 0);
    let urls = [
        "redis://u:hunter2@h",
        "redis://hunter2:hunter2@h",
        "rediss://:hunter2@h/0",
        "unix:///s?pass=hunter2",
        "redis://u:hunter2@h:port",
        "redis://u:hunter2@h/x",
        "redis://u:hunter2@h#insecure",
        "redis://u:hunter2",
        "u:hunter2@h",
    ];
    for url in urls {
        for redis in [
            format!("url = \"{url}\""),
            format!("url = [\"{url}\"]"),
            format!("url = {url}"),
            format!("urls = [\"{url}\", \"redis://b\"]"),
            format!("urls = [\"redis://b\", \"{url}\"]\ncluster = true"),
            format!("url = \"{url}\"\ntls = {{}}"),
            format!("ulr = \"{url}\""),
            format!("vectors = \"{url}\""),
            format!("prefix = \"{url}\""),
            format!("url = \"redis://u@h\"\npassword = {{ value = \"hunter2\" }}\nlease = \"{url}\""),
            "url = \"redis://h\"\npassword = \"hunter2\"".to_owned(),
            "url = \"redis://h\"\npassword = { value = \"hunter2\" }".to_owned(),
            "url = \"redis://h\"\npassword = { value = \"hunter2\", env = \"X\" }".to_owned(),
            "url = \"redis://h\"\npassword = { value = hunter2 }".to_owned(),
            "url = \"redis://h\"\nusername = { value = \"hunter2\" }".to_owned(),
        ] {
            for environment in [&[][..], &[("REDIS_URL", url)], &[("REFRAIN_STORE__REDIS__URL", url)]] {
                let printed = match load_with(&format!("{STORE}{redis}"), environment) {
                    Ok(loaded) => {
                        counts.0 += 1;
                        format!("{loaded:?}{}", redacted(&loaded.settings))
                    }
                    Err(errors) => {
                        counts.1 += 1;
                        format!("{errors}{errors:?}")
                    }
                };
                // A user's name may be shown; this one is also a password.
                let printed =
                    printed.replace("\"username\":\"hunter2\"", "").replace("Some(\"hunter2\")", "");
                assert!(!printed.contains("hunter2"), "{redis} {environment:?}\n{printed}");
            }
        }
    }
    assert!(counts.0 > 20 && counts.1 > 100, "{counts:?}");
}
