//! What settings a right file gives.

use std::path::PathBuf;

use refrain_config::{Source, load, redacted};
use refrain_core::Role;
use refrain_core::settings::{Limits, Store};

use crate::{BASE, hash, settings_of, source};

#[test]
fn a_short_file_gets_all_defaults() {
    let settings = settings_of(BASE);
    assert_eq!(settings.limits, Limits::default());
    let listener = &settings.listeners[0];
    assert_eq!((listener.id.as_str(), listener.address.to_string().as_str()), ("main", "127.0.0.1:8080"));
    assert!(listener.allow_anonymous && listener.anonymous_role == Role::Admin);
    assert_eq!(settings.admin.unwrap().address.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.routes[0].cache.namespace, "chat");
}

#[test]
fn with_a_key_loopback_is_not_anonymous_and_an_open_listener_gives_no_rights() {
    let key = format!("[key.a]\ntenant = \"t\"\nkind = \"personal\"\nhash = \"{}\"", hash(1));
    let settings = settings_of(&format!("{BASE}{key}"));
    assert!(!settings.listeners[0].allow_anonymous);
    assert_eq!(settings.keys[0].user.as_ref().unwrap().as_str(), "a");
    let open = "[listener.x]\naddress = \"0.0.0.0:80\"\nallow_anonymous = true";
    assert_eq!(settings_of(&format!("{BASE}{open}")).listeners[0].anonymous_role, Role::Caller);
}

#[test]
fn routes_are_in_the_order_in_which_they_are_tried() {
    let text = r#"
        [pool.p]
        endpoints = ["http://a"]
        [route.a-all]
        pool = "p"
        [route.b-post]
        methods = ["post"]
        pool = "p"
        [route.c-host]
        hosts = ["X.example"]
        pool = "p"
        [route.d-two]
        headers = { X-A = "1", x-b = "2" }
        pool = "p"
        [route.e-long]
        path = "/v1/chat/"
        pool = "p"
        [route.f-short]
        path = "/v1"
        methods = ["GET"]
        pool = "p"
    "#;
    let settings = settings_of(text);
    let order: Vec<_> = settings.routes.iter().map(|route| route.id.as_str()).collect();
    assert_eq!(order, ["e-long", "f-short", "d-two", "b-post", "c-host", "a-all"]);
}

#[test]
fn a_route_overrides_single_time_outs_of_its_pool() {
    let text = "[pool.p]\nendpoints = [\"http://a\"]\ntimeouts = { connect = \"1s\", idle = \"5s\" }\n\
                [route.r]\npool = \"p\"\ntimeouts = { idle = \"9s\" }";
    let timeouts = settings_of(text).routes[0].timeouts;
    assert_eq!((timeouts.connect.as_secs(), timeouts.idle.as_secs(), timeouts.total.as_secs()), (1, 9, 3600));
}

#[test]
fn without_a_store_routes_that_say_nothing_do_not_cache() {
    let settings = settings_of(&format!("{BASE}[store]\nkind = \"off\""));
    assert_eq!(settings.store, Store::Off);
    assert!(!settings.routes[0].cache.enabled);
}

#[test]
fn paths_are_relative_to_the_folder_of_the_file_and_changing_files_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "Bearer x\n").unwrap();
    let text = "[listener.main]\ntls.certificates = [{ chain = \"c.pem\", key = \"/abs/k.pem\" }]\n\
                [store]\ndir = \"data\"\n[pool.p.endpoint]\n[route.r]\npool = \"p\"\n"
        .replace(
            "[pool.p.endpoint]",
            "[[pool.p.endpoint]]\nurl = \"http://a\"\nauthorization = { file = \"token\" }",
        );
    let file = folder.path().join("refrain.toml");
    let loaded = load(&Source::from_text(file.clone(), text, [])).unwrap();
    let Store::Embedded(store) = &loaded.settings.store else { panic!("embedded") };
    assert_eq!(store.dir, Some(folder.path().join("data")));
    let expected =
        [file, folder.path().join("c.pem"), PathBuf::from("/abs/k.pem"), folder.path().join("token")];
    assert_eq!(loaded.files, expected);
}

#[test]
fn what_is_allowed_but_odd_is_a_warning_with_its_line() {
    let text = format!(
        "{BASE}[pool.idle]\nendpoints = [\"http://b\"]\n[admin]\naddress = \"0.0.0.0:9090\"\nallow_anonymous = true"
    );
    let warnings: Vec<_> = load(&source(&text)).unwrap().warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "config/refrain.toml:9:11: admin.address: reachable from other machines, and it asks for no credentials",
            "config/refrain.toml:6:7: pool.idle: no route uses it",
        ]
    );
}

/// The dump has the shape of the config file, so that loading it gives the same settings, but for secrets.
#[test]
fn the_redacted_dump_loads_into_the_same_settings() {
    let text = format!(
        r#"
        admin = false
        [listener.main]
        address = "[::1]:8080"
        tls = {{ certificates = [{{ chain = "/c.pem", key = "/k.pem" }}], client_ca = "/ca.pem", client_auth = "optional" }}
        [store]
        dir = "/d"
        disk = "1001 B"
        [embedder]
        model_dir = "/m"
        runtime_library = "/o"
        [pool.p]
        endpoints = ["https://[::1]:1/x", "http://b"]
        models = {{ a = "b" }}
        [route.r]
        pool = "p"
        headers = {{ X-A = "1" }}
        auth = ["key", "jwt:j", "mtls"]
        plugins = ["q", {{ plugin = "p", config = {{ n = 1, deep = {{ list = [0.5, true] }} }} }}]
        cache = {{ stale_if_error = "1m", stale_max = "1h", ttl_max = "2days", scope = {{ within-user = "project" }}, regenerate = "repeat", directives = ["max-age"], semantic = {{ threshold = 0.9, threshold_floor = 0.85, vetoes = ["unit", "number"] }} }}
        [route.s]
        path = "/s"
        pool = "p"
        cache = false
        [plugin.p]
        file = "/p.wasm"
        sha256 = "{}"
        grants = ["pool", "state"]
        [plugin.q]
        file = "/q.wasm"
        isolation = "request"
        limits = {{ memory = "1 MiB", instances = 2, instance_wait = "1ms", calls = 3, age = "4s", decide = "5ms", store = "6ms", configure = "7ms" }}
        [plugin_host]
        code_dir = "/code"
        instances = 9
        [jwt.j]
        issuer = "i"
        audience = ["a"]
        jwks_url = "https://[::1]:1/x?y=1"
        ca_file = "/ca"
        tenant_claim = "/a/b"
        tenants = ["t"]
        claims = {{ g = "groups" }}
        admins = {{ claim = "g", value = "v" }}
        [jwt.h]
        issuer = "i"
        header = "X-User"
        secret = {{ value = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" }}
        [certificate.c]
        san = "*.example.com"
        tenant = "t"
        kind = "service"
        user_from = "h"
        [certificate.d]
        common_name = "d"
        tenant = "t"
        kind = "personal"
        user = "dee"
        [tenant.t]
        models = ["a"]
        pools = ["p"]
        [key.k]
        tenant = "t"
        kind = "service"
        user_from = "h"
        created = "2026-01-31"
        expires = "2027-01-31T12:00:00Z"
        models = ["a"]
        pools = ["p"]
        hash = "{}"
        "#,
        "a1".repeat(32),
        hash(7)
    );
    let settings = settings_of(&text);
    let dump = toml::to_string(&redacted(&settings)).unwrap();
    let again = settings_of(&dump.replace("<redacted>", &hash(7)));
    assert_eq!(format!("{settings:#?}"), format!("{again:#?}"));
    let configs = |settings: &refrain_core::Settings| {
        settings.routes.iter().map(|route| route.plugins.clone()).collect::<Vec<_>>()
    };
    assert_eq!(configs(&settings), configs(&again));
}

#[test]
fn neither_dump_nor_debug_output_holds_a_secret() {
    let text = format!(
        "{BASE}plugins = [{{ plugin = \"p\", config = {{ list = [{{ token = \"hunter2\" }}] }} }}]\n\
         [plugin.p]\nfile = \"p\"\n[[pool.gpu-a.endpoint]]\nurl = \"http://b\"\nauthorization = {{ value = \"Bearer hunter2\" }}\n\
         [key.k]\ntenant = \"t\"\nkind = \"service\"\nhash = \"{}\"\n\
         [jwt.j]\nissuer = \"i\"\nheader = \"h\"\nsecret = {{ value = \"hunter2 hunter2 hunter2 hunter2 hunter2\" }}\n\
         [admin.token.a]\nrole = \"read\"\nhash = \"{0}\"",
        hash(7)
    );
    let settings = settings_of(&text);
    let printed = format!("{}{settings:?}{:?}", redacted(&settings), source(&text));
    assert!(printed.contains("<redacted>"));
    assert!(!printed.contains("hunter2") && !printed.contains(&"7".repeat(64)), "{printed}");
}
