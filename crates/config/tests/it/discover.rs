//! `[[pool.NAME.discover]]`: what each kind takes, what it is without the rest, and that no secret is shown.

use std::path::PathBuf;
use std::time::Duration;

use refrain_config::{Source, load, redacted};
use refrain_core::Settings;
use refrain_core::settings::{Discovery, DiscoverySource, RunPodVia, ServicePort, Token};

const ROUTE: &str = "[route.chat]\npool = \"p\"\n";

const ENVIRONMENT: [(&str, &str); 4] = [
    ("KUBERNETES_SERVICE_HOST", "fd00::1"),
    ("KUBERNETES_SERVICE_PORT", "6443"),
    ("VAST_API_KEY", "vast-secret\n"),
    ("RUNPOD_API_KEY", "runpod-secret"),
];

fn settings(discover: &str) -> Settings {
    let text = format!("{ROUTE}[[pool.p.discover]]\n{discover}");
    let environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let source = Source::from_text("config/refrain.toml", text, environment);
    load(&source).unwrap_or_else(|errors| panic!("{errors}")).settings
}

fn source(discover: &str) -> Discovery {
    (*settings(discover).pools.values().next().unwrap().discover[0]).clone()
}

fn errors(text: &str) -> String {
    let source = Source::from_text("config/refrain.toml", format!("{ROUTE}{text}"), []);
    load(&source).expect_err("the text is wrong").to_string()
}

#[test]
fn a_source_of_dns_names_looks_as_often_as_the_ttl_says() {
    let found = source(
        r#"kind = "dns"
        host = "llm.internal"
        port = 8000"#,
    );
    assert_eq!((found.name.as_str(), found.interval, found.template.weight), ("dns", None, 1));
    assert_eq!((found.shrinking.permille_max, found.shrinking.allow_empty), (500, false));
    let DiscoverySource::Dns(dns) = found.source else { panic!("{:?}", found.source) };
    assert_eq!((dns.host.as_str(), dns.port, dns.name_server), ("llm.internal", 8000, None));
}

#[test]
fn a_template_says_what_found_servers_are_like() {
    let found = source(
        r#"kind = "srv"
        host = "_http._tcp.llm.internal"
        name = "sites"
        name_server = "127.0.0.1:5353"
        interval = "30s"
        max_shrink = 0.25
        allow_empty = true
        scheme = "https"
        base_path = "/llm/"
        authorization = { value = "Bearer x" }"#,
    );
    assert_eq!((found.name.as_str(), found.interval), ("sites", Some(Duration::from_secs(30))));
    assert_eq!((found.shrinking.permille_max, found.shrinking.allow_empty), (250, true));
    assert!(found.template.tls.is_some() && found.template.authorization.is_some());
    assert_eq!(found.template.base_path, "/llm");
}

#[test]
fn a_list_in_a_file_is_beside_the_config_and_looked_at_each_second() {
    let found = source("kind = \"file\"\nfile = \"servers.json\"");
    assert_eq!(found.source, DiscoverySource::File(PathBuf::from("config/servers.json")));
    assert_eq!(found.interval, Some(Duration::from_secs(1)));
}

#[test]
fn a_pod_knows_its_cluster_and_its_own_token() {
    let found = source("kind = \"kubernetes\"\nservice = \"vllm\"\nport = \"http\"");
    let DiscoverySource::Kubernetes(found) = found.source else { panic!("{:?}", found.source) };
    assert_eq!((found.api.host.as_str(), found.api.port), ("fd00::1", 6443));
    let ca_file = found.api.tls.unwrap().ca_file.unwrap();
    assert!(ca_file.ends_with("serviceaccount/ca.crt"), "{ca_file:?}");
    assert_eq!(found.port, Some(ServicePort::Name("http".into())));
    assert_eq!(found.token, Token::File("/var/run/secrets/kubernetes.io/serviceaccount/token".into()));
}

#[test]
fn a_cluster_can_be_asked_from_outside() {
    let text = "kind = \"kubernetes\"\nservice = \"vllm\"\nnamespace = \"llm\"\nport = 8000\n\
                api_url = \"https://cluster:6443\"\nca_file = \"ca.pem\"\ntoken = { file = \"token\" }";
    let DiscoverySource::Kubernetes(found) = source(text).source else { panic!("kubernetes") };
    assert_eq!((found.namespace.as_str(), found.api.host.as_str()), ("llm", "cluster"));
    assert_eq!(found.api.tls.unwrap().ca_file, Some(PathBuf::from("config/ca.pem")));
    assert_eq!(found.port, Some(ServicePort::Number(8000)));
    assert_eq!(found.token, Token::File("config/token".into()));
}

#[test]
fn providers_are_asked_with_the_key_of_the_account() {
    let found = source("kind = \"vast\"\nport = 8000\nlabel = \"llm\"\napi_key = { env = \"VAST_API_KEY\" }");
    let DiscoverySource::Vast(vast) = found.source else { panic!("vast") };
    assert_eq!(vast.api.authorization.unwrap().0, "Bearer vast-secret");
    assert_eq!((vast.api.host.as_str(), vast.label.as_deref()), ("console.vast.ai", Some("llm")));

    let found = source("kind = \"runpod\"\nport = 8000\napi_key = { env = \"RUNPOD_API_KEY\" }");
    assert!(found.template.tls.is_some(), "its proxy speaks https alone");
    let DiscoverySource::RunPod(runpod) = found.source else { panic!("runpod") };
    assert_eq!((runpod.via, runpod.api.host.as_str()), (RunPodVia::Proxy, "api.runpod.io"));
    let tcp = source("kind = \"runpod\"\nport = 8000\nvia = \"tcp\"\napi_key = { env = \"RUNPOD_API_KEY\" }");
    assert!(tcp.template.tls.is_none());
}

#[test]
fn no_key_is_in_the_dump_of_the_settings_and_the_dump_is_a_config() {
    for text in [
        "kind = \"vast\"\nport = 8000\napi_key = { env = \"VAST_API_KEY\" }\nauthorization = { value = \"top-secret\" }",
        "kind = \"runpod\"\nport = 8000\nvia = \"tcp\"\nname_prefix = \"llm-\"\napi_key = { value = \"my-secret\" }",
        "kind = \"kubernetes\"\nservice = \"a\"\nport = 8000\ntoken = { value = \"my-secret\" }",
        "kind = \"dns\"\nhost = \"a\"\nport = 8000\nname_server = \"127.0.0.1:53\"",
        "kind = \"srv\"\nhost = \"a\"",
        "kind = \"file\"\nfile = \"/a.toml\"\nweight = 2",
    ] {
        let settings = settings(text);
        let dump = redacted(&settings).to_string();
        assert!(!dump.contains("secret") || dump.contains("secrets/kubernetes"), "{dump}");
        assert!(!format!("{settings:?}").contains("-secret"), "{text}");
        let again =
            load(&Source::from_text("/again.toml", toml::to_string(&redacted(&settings)).unwrap(), []));
        let again = again.unwrap_or_else(|errors| panic!("{errors}")).settings;
        assert_eq!(redacted(&again), redacted(&settings));
    }
}

#[test]
fn all_mistakes_are_told_with_their_places() {
    let text = r#"[[pool.p.discover]]
kind = "dns"
service = "a"
port = "http"
[[pool.p.discover]]
kind = "vast"
weight = 0
max_shrink = 2
[[pool.p.discover]]
kind = "kubernetes"
name = "a b"
[[pool.p.discover]]
kind = "runpod"
port = 1
api_key = { value = "x" }
scheme = "http"
"#;
    let expected = [
        "config/refrain.toml:6:8: pool.p.discover[0].port: only services of Kubernetes have ports with names; give its number",
        "config/refrain.toml:5:11: pool.p.discover[0].service: kind \"dns\" does not take it; \"kubernetes\" does",
    ];
    let found = errors(&text.replace("weight = 0\nmax_shrink = 2\n", ""));
    for line in expected {
        assert!(found.contains(line), "{found}");
    }
    for line in [
        "pool.p.discover[0].host: missing, and has no default with this kind",
        "pool.p.discover[1].api_key: missing, and has no default with this kind",
        "pool.p.discover[1].port: missing, and has no default with this kind",
        "pool.p.discover[2].service: missing, and has no default with this kind",
        "pool.p.discover[2].api_url: KUBERNETES_SERVICE_HOST is not set: outside of a cluster, give the API's URL",
        "pool.p.discover[2].name: a name has 1 to 64 letters",
        "pool.p.discover[3].scheme: RunPod's proxy speaks https alone",
    ] {
        assert!(found.contains(line), "{line}\nin\n{found}");
    }
    assert_eq!(found.lines().count(), 9, "{found}");
    let found = errors(text);
    assert!(found.contains("discover[1].weight: must be from 1 to 1000"), "{found}");
    assert!(found.contains("discover[1].max_shrink: must be from 0 to 1"), "{found}");
}

#[test]
fn two_sources_of_a_pool_have_two_names() {
    let table = "[[pool.p.discover]]\nkind = \"file\"\nfile = \"a\"\n";
    let found = errors(&format!("{table}{table}"));
    assert!(found.contains("a second source named \"file\"; give it a name of its own"), "{found}");
}
