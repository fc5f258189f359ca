//! The admin pages over a real socket, with a reloader behind them.

use std::path::Path;
use std::time::Duration;

use arc_swap::ArcSwap;
use refrain_core::RouteId;
use refrain_core::settings::Admin;
use refrain_proxy::{Live, Policies, Snapshot, TraceSink};
use refrain_upstream::Upstreams;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::*;
use crate::health;
use crate::origin::Origin;
use crate::policies::PolicyRunner;
use crate::reload::{REQUESTS_MAX, Reloader, Triggers};
use crate::signals::ReloadSignal;
use crate::telemetry::{self, LinesDropped, LogFilter};

const DEADLINE: Duration = Duration::from_secs(30);

/// A config file, a process's control side, and an admin listener on a free port.
struct Bench {
    folder: tempfile::TempDir,
    control: Arc<Control>,
    address: SocketAddr,
    tasks: Tasks,
}

impl Bench {
    /// Starting: nothing runs yet.
    async fn starting() -> Self {
        let control =
            Arc::new(Control::new(telemetry::detached(), LinesDropped::detached(), TraceSink::new().0));
        let listener =
            AdminListener::bind(&Admin { address: "127.0.0.1:0".parse().unwrap(), ..Admin::default() })
                .await
                .unwrap();
        let (address, tasks) = (listener.address(), Tasks::new());
        tasks.spawn(listener.run(control.clone(), tasks.clone(), tasks.draining()));
        Self { folder: tempfile::tempdir().unwrap(), control, address, tasks }
    }

    /// Serving the config file with one route.
    async fn ready() -> Self {
        let bench = Self::starting().await;
        bench.write(&config("first", "127.0.0.1:0"));
        let origin = Origin::file(bench.file().to_path_buf());
        let settings = origin.load().unwrap().settings;
        let (cache, health) = health::open(&settings).await.unwrap();
        let upstreams = Arc::new(Upstreams::new(&settings.pools).unwrap());
        let live: Live = Arc::new(ArcSwap::from_pointee(
            Snapshot::build(settings, upstreams, cache, &Policies::new(), None).unwrap(),
        ));
        let (asks, requests) = mpsc::channel(REQUESTS_MAX);
        bench.control.ready(live, health, asks);
        let reloader = Reloader {
            traces: TraceSink::new().0,
            tasks: Tasks::new(),
            origin,
            policies: PolicyRunner::default(),
            filter: LogFilter::detached(),
            triggers: Triggers { watcher: None, signal: ReloadSignal::never(), requests },
            service: crate::service::ServiceManager::default(),
        };
        let control = bench.control.clone();
        bench.tasks.spawn(async move {
            reloader.run(control.running().unwrap(), control.drain.clone()).await;
        });
        bench
    }

    fn file(&self) -> Box<Path> {
        self.folder.path().join("refrain.toml").into()
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    fn routes(&self) -> Vec<RouteId> {
        let snapshot = self.control.running().unwrap().live.load_full();
        snapshot.settings.routes.iter().map(|route| route.id.clone()).collect()
    }

    /// Status and body of a request.
    async fn ask(&self, request: &str) -> (u16, String) {
        self.ask_with(request, "localhost", "").await
    }

    async fn ask_with(&self, request: &str, host: &str, headers: &str) -> (u16, String) {
        self.ask_with_body(request, host, headers, "").await
    }

    async fn ask_with_body(&self, request: &str, host: &str, headers: &str, body: &str) -> (u16, String) {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let text =
                format!("{request} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n{body}");
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = timeout(DEADLINE, exchange).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// Status and answer of a request to purge.
    async fn purge(&self, body: &str) -> (u16, String) {
        let headers = format!("content-length: {}\r\n", body.len());
        self.ask_with_body("POST /purge", "localhost", &headers, body).await
    }

    async fn json(&self, request: &str) -> (u16, serde_json::Value) {
        let (status, body) = self.ask(request).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

fn config(route: &str, listen: &str) -> String {
    format!(
        "[listener.main]\naddress = \"{listen}\"\n\
         [pool.p]\n[[pool.p.endpoint]]\nurl = \"http://127.0.0.1:1\"\n\
         authorization = {{ value = \"Bearer hush\" }}\n\
         [route.{route}]\npool = \"p\"\n"
    )
}

#[tokio::test]
async fn a_starting_process_is_alive_and_not_ready() {
    let bench = Bench::starting().await;
    assert_eq!(bench.ask("GET /livez").await, (200, "ok\n".to_owned()));
    let (status, report) = bench.json("GET /readyz").await;
    assert_eq!((status, &report["phase"]), (503, &"starting".into()));
    assert_eq!(bench.ask("POST /reload").await.0, 503);
    assert_eq!(bench.ask("GET /config").await.0, 503);
}

#[tokio::test]
async fn who_holds_all_connections_and_asks_nothing_keeps_nobody_out() {
    let bench = Bench::starting().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        held.push(TcpStream::connect(bench.address).await.unwrap());
    }
    // Sooner than silence is the end of them.
    let asked = timeout(HEAD_TIMEOUT / 2, bench.ask("GET /livez")).await;
    assert_eq!(asked.unwrap().0, 200);
    let thrown_out = timeout(HEAD_TIMEOUT / 2, held[0].read(&mut [0])).await.unwrap();
    assert!(matches!(thrown_out, Ok(0) | Err(_)), "{thrown_out:?}");
}

#[tokio::test]
async fn a_ready_process_reports_its_parts_and_turns_unready_when_it_drains() {
    let bench = Bench::ready().await;
    let (status, report) = bench.json("GET /readyz").await;
    assert_eq!((status, &report["ready"], &report["degraded"]), (200, &true.into(), &serde_json::json!([])));
    assert_eq!(report["store"]["state"], "ok");
    assert_eq!(report["store"]["self_test"]["exact_read"], true);
    assert_eq!(report["embedder"]["state"], "off");
    assert_eq!(report["upstreams"][0]["pool"], "p");
    assert_eq!(report["config"]["generation"], 1);

    bench.control.drain.begin();
    let (status, report) = bench.json("GET /readyz").await;
    assert_eq!((status, &report["phase"]), (503, &"draining".into()));
    assert_eq!(bench.ask("GET /livez").await.0, 200);
}

#[tokio::test]
async fn metrics_hold_what_is_pulled_and_config_no_secret() {
    let bench = Bench::ready().await;
    let (status, metrics) = bench.ask("GET /metrics").await;
    assert_eq!(status, 200);
    for line in [
        "refrain_process_ready 1",
        "refrain_store_entries 0",
        "refrain_store_up 1",
        "refrain_upstream_healthy{pool=\"p\",endpoint=\"127.0.0.1:1\"} 1",
        "refrain_pool_endpoints{pool=\"p\",state=\"healthy\"} 1",
        "refrain_pool_desired_replicas{pool=\"p\"} 1",
        "refrain_fleet_proxies 1",
        "refrain_config_last_reload_successful 1",
        "refrain_config_reloads_total{result=\"refused\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let (status, config) = bench.ask("GET /config").await;
    assert_eq!(status, 200);
    assert!(config.contains("127.0.0.1:1") && !config.contains("hush"), "{config}");
}

#[tokio::test]
async fn unknown_pages_wrong_methods_and_web_pages_are_refused() {
    let bench = Bench::ready().await;
    assert_eq!(bench.ask("GET /nothing").await.0, 404);
    assert_eq!(bench.ask("GET /reload").await.0, 405);
    assert_eq!(bench.ask("POST /livez").await.0, 405);
    assert_eq!(bench.ask_with("POST /reload", "localhost", "origin: https://evil.example\r\n").await.0, 403);
    assert_eq!(bench.ask_with("GET /config", "evil.example", "").await.0, 403);
}

#[tokio::test]
async fn a_purge_says_what_it_came_to_or_what_is_wrong_with_it() {
    let bench = Bench::ready().await;
    let (status, answer) = bench.purge(r#"{"everything": true, "dry_run": true}"#).await;
    let expected =
        serde_json::json!({"matched": 0, "bytes": 0, "by_route": {}, "dry_run": true, "how": "hard"});
    assert_eq!((status, serde_json::from_str(&answer).ok()), (200, Some(expected)), "{answer}");
    for (body, hint) in [
        ("", "such as {\"tag\""),
        ("{}", "name a tag"),
        (r#"{"tags": "a"}"#, "unknown field `tags`"),
        (r#"{"older_than": "soon"}"#, "\"2h\""),
        (&format!(r#"{{"tag": "{}"}}"#, "x".repeat(1025)), "longer than 1024 bytes"),
        (&format!(r#"{{"tag": "{}"}}"#, "x".repeat(20_000)), "longer than 16384 bytes"),
    ] {
        let (status, answer) = bench.purge(body).await;
        assert!(status == 400 && answer.contains(hint), "{body:.40}: {status} {answer}");
    }
    assert_eq!(bench.ask("GET /purge").await.0, 405);
    let page = bench.ask_with("POST /purge", "localhost", "origin: https://evil.example\r\n").await;
    assert_eq!(page.0, 403);
    assert_eq!(Bench::starting().await.purge(r#"{"everything": true}"#).await.0, 503);
}

#[tokio::test]
async fn a_reload_swaps_everything_or_nothing() {
    let bench = Bench::ready().await;
    bench.write(&config("second", "127.0.0.1:0"));
    let (status, result) = bench.json("POST /reload").await;
    assert_eq!(
        (status, &result["applied"], &result["restart_needed"]),
        (200, &true.into(), &serde_json::json!([]))
    );
    assert_eq!(bench.routes(), ["second".into()]);

    // Two mistakes: both are told, and nothing changes.
    bench.write(&format!("{}nonsense = 1\n[log]\nformat = \"loud\"\n", config("third", "127.0.0.1:0")));
    let (status, result) = bench.json("POST /reload").await;
    assert_eq!((status, &result["applied"]), (422, &false.into()));
    assert_eq!(result["problems"].as_array().unwrap().len(), 2, "{result}");
    assert_eq!(bench.routes(), ["second".into()]);
    let (status, report) = bench.json("GET /readyz").await;
    assert_eq!((status, &report["degraded"]), (200, &serde_json::json!(["config"])));
    let (_, metrics) = bench.ask("GET /metrics").await;
    assert!(metrics.contains("\nrefrain_config_last_reload_successful 0\n"));
    assert!(metrics.contains("\nrefrain_config_reloads_total{result=\"applied\"} 1\n"));
}

#[tokio::test]
async fn certificates_that_can_not_be_read_keep_the_old_configuration() {
    let bench = Bench::ready().await;
    let tls = "tls.certificates = [{ chain = \"none.pem\", key = \"none.key\" }]\n[pool.p]";
    bench.write(&config("second", "127.0.0.1:0").replacen("[pool.p]", tls, 1));
    let (status, result) = bench.json("POST /reload").await;
    assert_eq!(status, 422, "{result}");
    assert_eq!(bench.routes(), ["first".into()]);
}

#[tokio::test]
async fn a_moved_listener_is_named_and_the_rest_is_applied() {
    let bench = Bench::ready().await;
    bench.write(&config("second", "127.0.0.1:1"));
    let (status, result) = bench.json("POST /reload").await;
    assert_eq!((status, &result["restart_needed"]), (200, &serde_json::json!(["listener.main.address"])));
    assert_eq!(bench.routes(), ["second".into()]);
    assert_eq!(bench.control.running().unwrap().live.load().settings.listeners[0].address.port(), 0);
}

#[tokio::test]
async fn fleet_upstreams_are_shown_and_drained_by_name() {
    let bench = Bench::ready().await;
    let (status, report) = bench.json("GET /upstreams").await;
    let pool = &report["pools"][0];
    assert_eq!((status, &report["proxies"], &pool["pool"]), (200, &1.into(), &"p".into()));
    assert_eq!(pool["endpoints"][0]["state"], "healthy");
    assert_eq!(pool["endpoints"][0]["url"], "http://127.0.0.1:1");
    assert!(!report.to_string().contains("hush"), "{report}");
    let (_, scaling) = bench.json("GET /scaling").await;
    assert_eq!(scaling["pools"]["p"]["desired_replicas"], 1);
    assert_eq!(scaling["pools"]["p"]["in_service"], 1);

    let drain = async |act: &str, body: &str| {
        let headers = format!("content-length: {}\r\n", body.len());
        bench.ask_with_body(&format!("POST /upstreams/{act}"), "localhost", &headers, body).await
    };
    let which = r#"{"pool": "p", "endpoint": "127.0.0.1:1"}"#;
    let (status, drained) = drain("drain", which).await;
    assert!(status == 200 && drained.contains("draining"), "{drained}");
    assert_eq!(bench.json("GET /scaling").await.1["pools"]["p"]["in_service"], 0);
    let (status, back) = drain("undrain", which).await;
    assert!(status == 200 && back.contains("healthy"), "{back}");

    for (wrong, status, hint) in [
        (r#"{"pool": "q", "endpoint": "a"}"#, 404, "known: p"),
        (r#"{"pool": "p", "endpoint": "a"}"#, 404, "it has: 127.0.0.1:1"),
        (r#"{"pool": "p"}"#, 400, "missing field `endpoint`"),
        ("", 400, "such as"),
    ] {
        let (refused, said) = drain("drain", wrong).await;
        assert!(refused == status && said.contains(hint), "{refused} {said}");
    }
}

#[tokio::test]
async fn fleet_proxies_are_those_of_config_after_a_reload_too() {
    let bench = Bench::ready().await;
    bench.write(&(config("first", "127.0.0.1:0") + "[fleet]\nproxies = 3\n"));
    assert_eq!(bench.ask("POST /reload").await.0, 200);
    assert_eq!(bench.json("GET /upstreams").await.1["proxies"], 3);
    let (_, metrics) = bench.ask("GET /metrics").await;
    assert!(metrics.lines().any(|line| line == "refrain_fleet_proxies 3"), "{metrics}");
}
