//! Lists in files, right and wrong.

use std::fs;

use proptest::prelude::*;
use refrain_core::settings::{DiscoverySource, EndpointTls};

use super::super::test_support::{any_json, discovery, place};
use super::*;

fn source(file: PathBuf) -> ListFile {
    ListFile { discovery: discovery(DiscoverySource::File(file.clone())), file }
}

async fn look(name: &str, text: &str) -> Result<Listing, DiscoveryError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), text).unwrap();
    source(folder.path().join(name)).look().await
}

const TOML: &str = r#"
endpoints = [
    "http://gpu-a:8000",
    { url = "https://[fd00::1]/v2/", name = "b", weight = 2 },
    "10.0.0.3:8000",
]
"#;

#[tokio::test]
async fn a_list_is_toml_or_json_and_the_same() {
    let found = look("servers.toml", TOML).await.unwrap();
    let places: Vec<_> = found.endpoints.iter().map(place).collect();
    assert_eq!(
        places,
        [("s:gpu-a:8000", "gpu-a", 8000), ("s:b", "fd00::1", 443), ("s:10.0.0.3:8000", "10.0.0.3", 8000)]
    );
    let second = &found.endpoints[1].endpoint;
    assert_eq!((second.tls.is_some(), second.weight, second.base_path.as_str()), (true, 2, "/v2"));
    assert_eq!((found.endpoints[0].endpoint.weight, found.unusable), (3, 0));
    let json = r#"["http://gpu-a:8000", {"url": "https://[fd00::1]/v2/", "name": "b", "weight": 2, "rack": null}, "10.0.0.3:8000"]"#;
    assert_eq!(look("servers.JSON", json).await.unwrap(), found);
    assert_eq!(look("servers.json", &format!("{{\"endpoints\": {json}}}")).await.unwrap(), found);
}

#[tokio::test]
async fn one_bad_server_loses_no_other() {
    let bad = r#"["http://a", 7, null, {}, {"url": 1}, "", "ftp://a", "http://u:p@a", "http://a?x", "http://a:0",
        "http://a:", "http://", {"url": "http://c", "weight": 0}, {"url": "http://c", "name": ""}, {"url": "http://c", "name": {}},
        "http://a b", "http://[::1", "/a", "http://a:99999"]"#;
    let found = look("a.json", bad).await.unwrap();
    assert_eq!((found.endpoints.len(), found.unusable), (1, 18));
}

#[tokio::test]
async fn what_is_no_list_is_an_error_and_not_an_empty_list() {
    for (name, text) in [
        ("a.json", ""),
        ("a.json", "{"),
        ("a.json", "7"),
        ("a.json", "{}"),
        ("a.json", "{\"endpoints\": null}"),
        ("a.json", "<html>"),
        ("a.toml", "endpoints = 7"),
        ("a.toml", ""),
        ("a.toml", "[]"),
        ("a.txt", "http://a"),
    ] {
        assert!(look(name, text).await.is_err(), "{name}: {text}");
    }
    assert_eq!(look("a.json", "[]").await.unwrap(), Listing::default());
    let missing = source("/nowhere/servers.toml".into()).look().await.unwrap_err();
    assert!(missing.to_string().starts_with("can't read /nowhere/servers.toml: "), "{missing}");
    let long = format!("[{}1]", "1,".repeat(3 << 20));
    assert!(look("a.json", &long).await.unwrap_err().to_string().contains("larger than it may be"));
}

#[tokio::test]
async fn a_list_of_too_many_servers_is_an_error() {
    let list = |count: usize| {
        let servers: Vec<String> = (0..count).map(|index| format!("\"http://a{index}\"")).collect();
        format!("[{}]", servers.join(","))
    };
    assert_eq!(look("a.json", &list(1024)).await.unwrap().endpoints.len(), 1024);
    assert!(look("a.json", &list(1025)).await.is_err());
}

#[test]
fn a_plain_host_is_spoken_to_as_the_template_says() {
    let mut discovery = (*discovery(DiscoverySource::File("a".into()))).clone();
    let tls = EndpointTls { server_name: Some("llm".into()), ..EndpointTls::default() };
    discovery.template.tls = Some(tls.clone());
    discovery.template.base_path = "/x".into();
    let found = of_url("10.0.0.3:8443", &discovery).unwrap().endpoint;
    assert_eq!((found.tls, found.port, found.base_path.as_str()), (Some(tls), 8443, "/x"));
    assert_eq!(of_url("http://a", &discovery).unwrap().endpoint.tls, None);
}

const WORDS: &[&str] = &["endpoints", "url", "http://a:8000", "name", "weight", "a"];

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text: String, value in any_json(WORDS)) {
        let discovery = discovery(DiscoverySource::File("a".into()));
        let _ = of_url(&text, &discovery);
        let _ = json(&text);
        let _ = toml(&text);
        let _ = listed(&value, &discovery);
        let _ = json(&value.to_string());
    }
}
