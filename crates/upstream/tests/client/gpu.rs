//! How busy GPUs are, read from exporters over real sockets: a local fake stands for each and says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use refrain_core::settings::{Endpoint, EndpointTls, GpuExporter, GpuUnit, Health, Pool, Secret};
use refrain_core::{PoolId, Tasks};
use refrain_upstream::{Client, ClientTls, EndpointStats, Upstreams, keep_gpu_use};
use rustls::RootCertStore;
use tokio::task::JoinSet;

use crate::server::{Server, jump, within};

/// So long that nothing is read twice, unless the clock is moved on.
const INTERVAL: Duration = Duration::from_secs(600);

fn exporter(server: &Server) -> GpuExporter {
    GpuExporter {
        port: server.port(),
        path: "/metrics".into(),
        metric: GpuExporter::METRIC.into(),
        unit: GpuUnit::Percent,
        interval: INTERVAL,
    }
}

/// Nothing listens where these are: only their exporters do.
fn endpoint(id: &str) -> Endpoint {
    Endpoint {
        tls: Some(EndpointTls::default()),
        authorization: Some(Secret("Bearer top-secret".into())),
        headers: BTreeMap::from([("x-api-key".into(), Secret("top-secret".into()))]),
        base_path: "/prefix".into(),
        ..Endpoint::plain(id, "127.0.0.1", 1)
    }
}

fn pool(id: &str, endpoints: &[&str], gpu: Option<GpuExporter>) -> Pool {
    let endpoints = endpoints.iter().map(|id| endpoint(id)).collect();
    Pool { gpu, health: Health { interval: None, ..Health::default() }, ..Pool::new(id.into(), endpoints) }
}

fn page(percents: &[&str]) -> String {
    let line = |percent: &&str| format!("DCGM_FI_DEV_GPU_UTIL{{gpu=\"0\"}} {percent}\n");
    let body: String = percents.iter().map(line).collect();
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Exporters that are read until this is dropped.
struct Followed {
    upstreams: Arc<Upstreams>,
    _tasks: JoinSet<()>,
}

impl Followed {
    fn start(pools: Vec<Pool>) -> Self {
        let pools = pools.into_iter().map(|pool| (pool.id.clone(), Arc::new(pool))).collect();
        let upstreams = Arc::new(Upstreams::new(&pools).unwrap());
        let tasks = Tasks::new();
        let client = Client::new(ClientTls::with_roots(RootCertStore::empty()), tasks.clone());
        let current = upstreams.clone();
        let mut running = JoinSet::new();
        running.spawn(keep_gpu_use(move || current.clone(), client, tasks.draining()));
        Self { upstreams, _tasks: running }
    }

    fn stats(&self, pool: &str) -> Vec<EndpointStats> {
        self.upstreams.pool(&PoolId::new(pool)).unwrap().stats()
    }

    fn ratios(&self, pool: &str) -> Vec<Option<f64>> {
        self.stats(pool).iter().map(|stats| stats.gpu_utilization).collect()
    }

    async fn until(&self, pool: &str, ratios: &[Option<f64>]) {
        within(async {
            while self.ratios(pool) != ratios {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn gpu_use_is_read_without_anything_that_the_endpoint_is_sent() {
    let server = Server::bind().await;
    let followed = Followed::start(vec![pool("gpu", &["a"], Some(exporter(&server)))]);
    let mut peer = server.accept().await;
    let head = peer.request().await;
    assert!(head.starts_with("GET /metrics HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("secret") && !head.to_lowercase().contains("authorization"), "{head}");
    assert!(!head.to_lowercase().contains("x-api-key"), "{head}");
    peer.say(page(&["90", "NaN", "60", "9223372036854775794"])).await;
    followed.until("gpu", &[Some(0.75)]).await;
    let stats = &followed.stats("gpu")[0];
    assert_eq!((stats.requests, stats.failures, stats.connections_opened), (0, 0, 0));
}

#[tokio::test]
async fn gpu_use_in_ratios_is_no_hundredth_of_what_it_is() {
    let server = Server::bind().await;
    let exporter = GpuExporter { unit: GpuUnit::Ratio, ..exporter(&server) };
    let followed = Followed::start(vec![pool("gpu", &["a"], Some(exporter))]);
    let _peer = server.answers(page(&["0.500000", "1.000000"])).await;
    followed.until("gpu", &[Some(0.75)]).await;
}

#[tokio::test]
async fn gpu_exporter_of_several_endpoints_and_pools_is_asked_once() {
    let server = Server::bind().await;
    let shared = Some(exporter(&server));
    let pools = vec![
        pool("gpu", &["a", "b"], shared.clone()),
        pool("other", &["c"], shared),
        pool("none", &["d"], None),
    ];
    let followed = Followed::start(pools);
    let _peer = server.answers(page(&["30"])).await;
    followed.until("gpu", &[Some(0.3), Some(0.3)]).await;
    followed.until("other", &[Some(0.3)]).await;
    assert!(server.is_left_alone().await);
    assert_eq!(followed.ratios("none"), [None]);
}

#[tokio::test]
async fn gpu_use_of_a_discovered_endpoint_is_read_too() {
    let server = Server::bind().await;
    let followed = Followed::start(vec![pool("gpu", &[], Some(exporter(&server)))]);
    let gpus = followed.upstreams.pool(&"gpu".into()).unwrap();
    assert!(gpus.replace_discovered(&[endpoint("s:1")]).is_empty());
    let _peer = server.answers(page(&["100"])).await;
    followed.until("gpu", &[Some(1.0)]).await;
}

#[tokio::test]
async fn gpu_use_is_unknown_three_intervals_after_the_exporter_went_silent() {
    let server = Server::bind().await;
    let followed = Followed::start(vec![pool("gpu", &["a"], Some(exporter(&server)))]);
    let peer = server.answers(page(&["50"])).await;
    followed.until("gpu", &[Some(0.5)]).await;
    drop(peer);
    jump(3 * INTERVAL - Duration::from_secs(60)).await;
    assert_eq!(followed.ratios("gpu"), [Some(0.5)]);
    jump(Duration::from_secs(60)).await;
    assert_eq!(followed.ratios("gpu"), [None]);
}

#[tokio::test]
async fn an_exporter_that_talks_nonsense_changes_nothing_of_its_endpoint() {
    let server = Server::bind().await;
    let followed = Followed::start(vec![pool("gpu", &["a"], Some(exporter(&server)))]);
    let before = followed.stats("gpu");
    let other = |head: &str| format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    for said in [
        other("500 Oops"),
        other("302 Found\r\nlocation: http://127.0.0.1:1/"),
        page(&[]),
        page(&["NaN"]),
        page(&["101", "-1"]),
    ] {
        server.answers(said).await.closed().await;
        jump(INTERVAL).await;
    }
    assert_eq!(followed.stats("gpu"), before);
    let _peer = server.answers(page(&["20"])).await;
    followed.until("gpu", &[Some(0.2)]).await;
}
