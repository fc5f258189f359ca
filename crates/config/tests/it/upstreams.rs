//! How the servers of a pool are spoken to.

use std::time::Duration;

use refrain_config::{Source, load, redacted};
use refrain_core::Settings;
use refrain_core::settings::{
    Certificate, Endpoint, EndpointTls, GpuExporter, GpuUnit, HttpVersion, Pool, Secret,
};

use serde_json::json;

use crate::{settings_of, source};

const ROUTE: &str = "\n[route.r]\npool = \"p\"\n";

fn endpoints(settings: &Settings) -> &[Endpoint] {
    &settings.pools.values().next().unwrap().endpoints
}

fn check(pool: &str, expected: &[&str]) {
    let errors = load(&source(&format!("{pool}{ROUTE}"))).unwrap_err();
    let found: Vec<_> = errors.problems().iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_endpoint_takes_what_its_pool_says_and_overrides_it_key_by_key() {
    let settings = settings_of(&format!(
        r#"
        [pool.p]
        endpoints = ["https://a", "http://b"]
        http_version = "http2"
        authorization = {{ value = "Bearer pool" }}
        connections = 7
        [pool.p.tls]
        ca_file = "/ca.pem"
        client_certificate = {{ chain = "/c.pem", key = "/k.pem" }}
        server_name = "llm.test"
        [pool.p.headers]
        X-Api-Key = {{ value = "pool" }}
        x-project = {{ value = "pool" }}
        [[pool.p.endpoint]]
        name = "c"
        url = "https://c"
        http_version = "http1"
        authorization = {{ value = "Bearer c" }}
        tls.server_name = "c.test"
        headers.x-api-key = {{ value = "c" }}
        {ROUTE}"#
    ));
    let pool = EndpointTls {
        ca_file: Some("/ca.pem".into()),
        client: Some(Certificate { chain: "/c.pem".into(), key: "/k.pem".into() }),
        server_name: Some("llm.test".into()),
        verify: true,
    };
    let own = EndpointTls { server_name: Some("c.test".into()), ..pool.clone() };
    let [a, b, c] = endpoints(&settings) else { panic!("three") };
    assert_eq!([&a.tls, &b.tls, &c.tls], [&Some(pool), &None, &Some(own)]);
    assert_eq!([a.http, b.http, c.http], [HttpVersion::Http2, HttpVersion::Http2, HttpVersion::Http1]);
    let headers = |value: &str| {
        let of = |value: &str| Secret(value.to_owned());
        [("x-api-key".to_owned(), of(value)), ("x-project".to_owned(), of("pool"))].into()
    };
    assert_eq!([&a.headers, &b.headers, &c.headers], [&headers("pool"), &headers("pool"), &headers("c")]);
    let authorization = |endpoint: &Endpoint| endpoint.authorization.clone().unwrap().0;
    assert_eq!([authorization(b), authorization(c)], ["Bearer pool", "Bearer c"]);
    assert_eq!(settings.pools.values().next().unwrap().connections_max, 7);

    let dump = redacted(&settings);
    let again = settings_of(&toml::to_string(&dump).unwrap());
    assert_eq!(redacted(&again), dump);
    assert_eq!(endpoints(&again)[2].tls, endpoints(&settings)[2].tls);
}

#[test]
fn certificate_files_are_watched_once_each() {
    let text = format!(
        "[pool.p]\nendpoints = [\"https://a\", \"https://b\"]\n\
         tls = {{ ca_file = \"/ca.pem\", client_certificate = {{ chain = \"/c.pem\", key = \"/k.pem\" }} }}{ROUTE}"
    );
    let files = load(&Source::from_text("/etc/refrain.toml", text, [])).unwrap().files;
    let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
    assert_eq!(files, ["/etc/refrain.toml", "/ca.pem", "/c.pem", "/k.pem"]);
}

#[test]
fn an_unproven_server_is_warned_of() {
    let text = format!("[pool.p]\nendpoints = [\"https://a\"]\ntls.verify = false{ROUTE}");
    let loaded = load(&source(&text)).unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "config/refrain.toml:3:14: pool.p.tls.verify: anybody between here and the server can read requests \
          and answer them"
        ]
    );
    assert!(!endpoints(&loaded.settings)[0].tls.as_ref().unwrap().verify);
}

#[test]
fn what_has_no_effect_or_contradicts_itself_is_refused() {
    check(
        "[pool.p]\nendpoints = [\"http://a\"]\ntls.server_name = \"a.test\"",
        &["config/refrain.toml:3:1: pool.p.tls: has no effect: no endpoint's URL begins with https://"],
    );
    check(
        "[[pool.p.endpoint]]\nurl = \"http://a\"\ntls = {}\n[[pool.p.endpoint]]\nurl = \"https://b\"\n\
         tls = { ca_file = \"a\", verify = false }",
        &[
            "config/refrain.toml:3:1: pool.p.endpoint[0].tls: has no effect: only a URL that begins with https:// \
             means TLS",
            "config/refrain.toml:6:33: pool.p.endpoint[1].tls.verify: beside ca_file: nobody is asked who vouches; \
             keep one of the two",
        ],
    );
}

#[test]
fn all_mistakes_about_connections_are_told_at_once() {
    check(
        "[pool.p]\nendpoints = [\"https://a\"]\nhttp_version = \"http3\"\nconnections = 0\n\
         [pool.p.tls]\nserver_name = \"a b\"\nclient_certificate = { chain = \"c.pem\" }\n\
         [pool.p.headers]\nauthorization = { value = \"hunter2\" }\nHost = { value = \"a\" }\n\
         \"a b\" = { value = \"a\" }\nx-one = { value = \"a\" }\nX-One = { value = \"a\" }\n\
         x-two = { env = \"TWO\" }",
        &[
            "config/refrain.toml:3:16: pool.p.http_version: unknown value \"http3\"; did you mean \"http2\"?",
            "config/refrain.toml:4:15: pool.p.connections: must be from 1 to 65536",
            "config/refrain.toml:6:15: pool.p.tls.server_name: expected a host name or an IP address, like \
             redis.example.com",
            "config/refrain.toml:7:22: pool.p.tls.client_certificate.key: missing, and has no default",
            "config/refrain.toml:9:1: pool.p.headers.authorization: this header has a key of its own: authorization",
            "config/refrain.toml:10:1: pool.p.headers.Host: host is set for each connection anew; leave it out",
            "config/refrain.toml:11:1: pool.p.headers.\"a b\": not a header name",
            "config/refrain.toml:12:1: pool.p.headers.x-one: named twice",
            "config/refrain.toml:14:1: pool.p.headers.x-two: environment variable \"TWO\" is not set",
        ],
    );
}

#[test]
fn no_header_value_is_ever_printed() {
    let text = format!(
        "[pool.p]\nendpoints = [\"http://a\"]\nauthorization = {{ value = \"hunter2\" }}\n\
         [pool.p.headers]\nx-api-key = {{ value = \"hunter2\" }}{ROUTE}"
    );
    let settings = settings_of(&text);
    let printed = format!("{}{settings:?}", redacted(&settings));
    assert!(printed.contains("x-api-key") && !printed.contains("hunter2"), "{printed}");
}

#[test]
fn a_gpu_table_needs_a_port_alone_and_is_shown_whole() {
    let gpu = |lines: &str| {
        let settings =
            settings_of(&format!("[pool.p]\nendpoints = [\"http://a\"]\n[pool.p.gpu]\n{lines}\n{ROUTE}"));
        let pool: &Pool = settings.pools.values().next().unwrap();
        (pool.gpu.clone().unwrap(), redacted(&settings)["pool"]["p"]["gpu"].clone())
    };
    let default = GpuExporter {
        port: 9400,
        path: "/metrics".into(),
        metric: "DCGM_FI_DEV_GPU_UTIL".into(),
        unit: GpuUnit::Percent,
        interval: Duration::from_secs(15),
    };
    assert_eq!(gpu("port = 9400").0, default);
    let (own, shown) = gpu("port = 1\npath = \"/gpu/\"\nmetric = \"ns:use\"\ninterval = \"1s\"");
    let expected = GpuExporter {
        port: 1,
        path: "/gpu/".into(),
        metric: "ns:use".into(),
        unit: GpuUnit::Percent,
        interval: Duration::from_secs(1),
    };
    assert_eq!(own, expected);
    assert_eq!(
        shown,
        json!({ "port": 1, "path": "/gpu/", "metric": "ns:use", "unit": "percent", "interval": "1s" })
    );
    for (lines, unit) in [
        ("metric = \"DCGM_FI_PROF_GR_ENGINE_ACTIVE\"", GpuUnit::Ratio),
        ("metric = \"engine_ratio\"\nunit = \"percent\"", GpuUnit::Percent),
        ("metric = \"use\"\nunit = \"ratio\"", GpuUnit::Ratio),
    ] {
        assert_eq!(gpu(&format!("port = 1\n{lines}")).0.unit, unit, "{lines}");
    }
    let plain = settings_of(&format!("[pool.p]\nendpoints = [\"http://a\"]\n{ROUTE}"));
    assert!(plain.pools.values().all(|pool| pool.gpu.is_none()));
}
