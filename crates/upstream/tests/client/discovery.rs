//! Sources of endpoints, asked over real sockets: a local fake stands for each API and says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use refrain_core::settings::{
    Discovery, DiscoverySource, Endpoint, Health, KubernetesSource, Pool, Secret, ServicePort, Shrinking,
    Token, VastSource,
};
use refrain_core::{Drain, Tasks};
use refrain_upstream::{Client, ClientTls, SourceStatus, Upstreams, keep_members};
use rustls::RootCertStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::server::within;

const INTERVAL: Duration = Duration::from_millis(10);

/// A local fake of an HTTP API: answers by path and query, and notes what it was asked.
struct FakeApi {
    port: u16,
    answers: Arc<Mutex<Answers>>,
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

type Answers = Box<dyn Fn(&str) -> Vec<u8> + Send>;

impl FakeApi {
    async fn start(answers: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers: Arc<Mutex<Answers>> = Arc::new(Mutex::new(Box::new(answers)));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let (shared, noted) = (answers.clone(), requests.clone());
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                answer(stream, &shared, &noted).await;
            }
        });
        Self { port, answers, requests, _tasks: tasks }
    }

    fn now_answers(&self, answers: impl Fn(&str) -> Vec<u8> + Send + 'static) {
        *self.answers.lock() = Box::new(answers);
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            authorization: Some(Secret("Bearer top-secret".into())),
            ..Endpoint::plain("api", "127.0.0.1", self.port)
        }
    }

    fn count(&self) -> usize {
        self.requests.lock().len()
    }
}

async fn answer(mut stream: TcpStream, answers: &Mutex<Answers>, requests: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let answer = answers.lock()(head.split(' ').nth(1).unwrap());
    requests.lock().push(head);
    // The client may hang up on an answer that is too long.
    let _ = stream.write_all(&answer).await;
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn ok(body: &str) -> Vec<u8> {
    http("200 OK", "content-type: application/json\r\n", body)
}

fn instance(id: u32) -> String {
    format!(
        r#"{{"id": {id}, "actual_status": "running", "public_ipaddr": "203.0.113.{id}", "dph_total": 0.5,
            "ports": {{"8000/tcp": [{{"HostPort": "33526"}}]}}}}"#
    )
}

fn instances(ids: &[u32]) -> String {
    let list: Vec<String> = ids.iter().map(|id| instance(*id)).collect();
    format!(r#"{{"instances": [{}], "next_token": null}}"#, list.join(","))
}

fn discovery(source: DiscoverySource) -> Discovery {
    Discovery {
        name: "s".into(),
        source,
        template: Endpoint::plain("", "", 0),
        interval: Some(INTERVAL),
        shrinking: Shrinking::default(),
    }
}

fn vast(api: &FakeApi) -> Discovery {
    discovery(DiscoverySource::Vast(VastSource { label: None, port: 8000, api: api.endpoint() }))
}

fn pools(sources: &[Discovery]) -> BTreeMap<refrain_core::PoolId, Arc<Pool>> {
    let pool = Pool {
        discover: sources.iter().cloned().map(Arc::new).collect(),
        // Nothing listens there.
        health: Health { interval: None, ..Health::default() },
        ..Pool::new("gpu".into(), Vec::new())
    };
    BTreeMap::from([(pool.id.clone(), Arc::new(pool))])
}

/// Sources that are followed until this is dropped.
struct Followed {
    live: Arc<Mutex<Arc<Upstreams>>>,
    _tasks: JoinSet<()>,
}

impl Followed {
    fn start(sources: &[Discovery]) -> Self {
        let live = Arc::new(Mutex::new(Arc::new(Upstreams::new(&pools(sources)).unwrap())));
        let client = Client::new(ClientTls::with_roots(RootCertStore::empty()), Tasks::new());
        let current = live.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_members(move || current.lock().clone(), client, Drain::default()));
        Self { live, _tasks: tasks }
    }

    fn reload(&self, sources: &[Discovery]) {
        let mut live = self.live.lock();
        *live = Arc::new(live.reload(&pools(sources)).unwrap());
    }

    fn status(&self) -> Option<SourceStatus> {
        self.live.lock().discoveries().statuses().pop()
    }

    /// Ids of the members.
    fn members(&self) -> Vec<String> {
        let upstreams = self.live.lock().clone();
        let pool = upstreams.pool(&"gpu".into()).unwrap();
        pool.endpoints().iter().map(|endpoint| endpoint.id().to_string()).collect()
    }

    /// Waits until the source does as is said.
    async fn until(&self, what: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        within(async {
            loop {
                if let Some(status) = self.status().filter(&what) {
                    return status;
                }
                tokio::time::sleep(INTERVAL).await;
            }
        })
        .await
    }

    async fn until_members(&self, ids: &[&str]) {
        within(async {
            while self.members() != ids {
                tokio::time::sleep(INTERVAL).await;
            }
        })
        .await;
    }

    /// The label of the failure that comes next; members stay meanwhile.
    async fn fails(&self) -> &'static str {
        let before = self.status().map_or(0, |status| status.failures);
        let failed = self.until(|status| status.failures > before).await;
        let error = failed.last_error.unwrap();
        assert!(!format!("{error} {error:?}").contains("top-secret"), "{error:?}");
        error.as_str()
    }
}

#[tokio::test]
async fn every_page_of_instances_is_read_with_the_key() {
    let api = FakeApi::start(|path| match path.split_once("after_token=") {
        None => ok(&format!(r#"{{"instances": [{}], "next_token": "a b"}}"#, instance(1))),
        Some((_, "a%20b")) => ok(&format!(r#"{{"instances": [{}], "next_token": "c"}}"#, instance(2))),
        Some(_) => ok(&format!(r#"{{"instances": [null, {}], "next_token": ""}}"#, instance(3))),
    })
    .await;
    let followed = Followed::start(&[vast(&api)]);
    let upstreams = followed.live.lock().clone();
    within(upstreams.discoveries().settled()).await;
    assert_eq!(followed.members(), ["s:1", "s:2", "s:3"]);
    let status = followed.status().unwrap();
    assert_eq!((status.kind, status.members, status.unusable), ("vast", 3, 1));
    let found = upstreams.discoveries().found(&"gpu".into());
    assert_eq!((found[0].price_per_hour, found[0].endpoint.host.as_str()), (Some(0.5), "203.0.113.1"));
    let first = api.requests.lock()[0].to_ascii_lowercase();
    assert!(first.starts_with("get /api/v1/instances/?limit=25 http/1.1\r\n"), "{first}");
    assert!(first.contains("authorization: bearer top-secret\r\n"), "{first}");
}

#[tokio::test]
async fn whatever_an_api_says_wrongly_its_last_good_list_stays() {
    let api = FakeApi::start(|_| ok(&instances(&[1, 2]))).await;
    let followed = Followed::start(&[vast(&api)]);
    followed.until_members(&["s:1", "s:2"]).await;
    type Wrong = (&'static str, fn() -> Vec<u8>);
    let wrong: [Wrong; 9] = [
        ("refused", || http("401 Unauthorized", "", r#"{"error": "top-secret"}"#)),
        ("refused", || http("403 Forbidden", "", "")),
        ("status", || http("500 Internal Server Error", "", "")),
        ("status", || http("302 Found", "location: /\r\n", "")),
        ("malformed", || http("200 OK", "content-type: text/html\r\n", "<html>Just a moment...</html>")),
        ("malformed", || ok(r#"{"instances": {}}"#)),
        ("malformed", || ok(r#"[{"id": 1}]"#)),
        ("unreachable", || ok(&" ".repeat(5 << 20))),
        ("unreachable", || b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec()),
    ];
    for (label, answer) in wrong {
        api.now_answers(move |_| answer());
        followed
            .until(|status| status.last_error.as_ref().is_some_and(|error| error.as_str() == label))
            .await;
        assert_eq!(followed.fails().await, label);
        assert_eq!(followed.members(), ["s:1", "s:2"], "{label}");
    }
    api.now_answers(|_| ok(&instances(&[2, 3])));
    followed.until_members(&["s:2", "s:3"]).await;
    assert!(followed.until(|status| status.last_error.is_none()).await.last_success.is_some());
}

#[tokio::test]
async fn an_empty_list_changes_nothing_and_a_mass_loss_takes_half() {
    let api = FakeApi::start(|_| ok(&instances(&[1, 2, 3, 4]))).await;
    let followed = Followed::start(&[vast(&api)]);
    followed.until(|status| status.members == 4).await;
    api.now_answers(|_| ok(&instances(&[])));
    let looks = followed.status().unwrap().successes;
    followed.until(|status| status.successes > looks + 2).await;
    assert_eq!(followed.status().unwrap().members, 4);
    api.now_answers(|_| ok(&instances(&[4])));
    let shrunk = followed.until(|status| status.members < 4).await;
    assert_eq!((shrunk.members, shrunk.held_back), (2, 1));
    followed.until_members(&["s:3", "s:4"]).await;
}

#[tokio::test]
async fn an_api_that_says_when_is_not_asked_before() {
    let api = FakeApi::start(|_| http("429 Too Many Requests", "retry-after: 3600\r\n", "")).await;
    let followed = Followed::start(&[vast(&api)]);
    let failed = followed.until(|status| status.failures > 0).await;
    assert_eq!(failed.last_error.unwrap().as_str(), "too_often");
    tokio::time::sleep(INTERVAL * 20).await;
    assert_eq!(api.count(), 1);
}

#[tokio::test]
async fn pages_without_an_end_are_an_error() {
    let api = FakeApi::start(|_| ok(r#"{"instances": [], "next_token": "again"}"#)).await;
    let followed = Followed::start(&[vast(&api)]);
    assert_eq!(followed.fails().await, "malformed");
    assert!(api.count() >= 64);
}

#[tokio::test]
async fn a_reload_keeps_a_source_with_its_list_and_replaces_a_changed_one_when_it_has_another() {
    let (old, new) =
        (FakeApi::start(|_| ok(&instances(&[1]))).await, FakeApi::start(|_| http("401 No", "", "")).await);
    let mut source = vast(&old);
    let followed = Followed::start(&[source.clone()]);
    followed.until_members(&["s:1"]).await;
    let looks = followed.status().unwrap().successes;
    followed.reload(&[source.clone(), Discovery { name: "t".into(), ..vast(&new) }]);
    within(async {
        while followed.live.lock().discoveries().statuses().len() < 2 {
            tokio::time::sleep(INTERVAL).await;
        }
    })
    .await;
    assert!(followed.live.lock().discoveries().statuses()[0].successes >= looks, "it was started anew");
    assert_eq!(followed.members(), ["s:1"]);

    source.source = vast(&new).source;
    followed.reload(&[source.clone()]);
    let refused = followed.until(|status| status.failures > 0 && status.source == "s").await;
    assert_eq!((refused.members, refused.successes), (1, 0));
    assert_eq!(followed.members(), ["s:1"], "a key that is refused has emptied the pool");
    new.now_answers(|_| ok(&instances(&[7])));
    followed.until_members(&["s:7"]).await;

    followed.reload(&[Discovery { name: "t".into(), ..source }]);
    followed.until_members(&["t:7"]).await;
}

#[tokio::test]
async fn one_endpoint_that_cannot_be_used_keeps_no_other_out() {
    let api = FakeApi::start(|_| ok(&instances(&[1, 2]))).await;
    let mut source = vast(&api);
    source.template.tls = Some(refrain_core::settings::EndpointTls::default());
    let followed = Followed::start(&[source]);
    followed.until_members(&["s:1", "s:2"]).await;
    // No certificate can have such a name.
    let odd = instance(1).replace("203.0.113.1", "-odd-");
    let list = format!(r#"{{"instances": [{odd}, {}, {}]}}"#, instance(2), instance(3));
    api.now_answers(move |_| ok(&list));
    followed.until_members(&["s:1", "s:2", "s:3"]).await;
    let upstreams = followed.live.lock().clone();
    let endpoint = upstreams.pool(&"gpu".into()).unwrap().endpoint(&"s:1".into()).unwrap();
    assert_eq!(endpoint.config.host, "203.0.113.1", "it stays as it was");
}

#[tokio::test]
async fn a_source_that_is_taken_out_takes_its_members_along() {
    let api = FakeApi::start(|_| ok(&instances(&[1]))).await;
    let followed = Followed::start(&[vast(&api)]);
    followed.until_members(&["s:1"]).await;
    followed.reload(&[]);
    followed.until_members(&[]).await;
}

#[tokio::test]
async fn tokens_of_kubernetes_are_read_anew_for_each_look() {
    let slices = r#"{"kind": "EndpointSliceList", "metadata": {}, "items": [{"ports": [{"name": "http", "port": 8000}],
        "endpoints": [{"addresses": ["10.1.0.5"], "targetRef": {"name": "vllm-0"}}]}]}"#;
    let api = FakeApi::start(move |_| ok(slices)).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let source = KubernetesSource {
        namespace: "llm".into(),
        service: "vllm".into(),
        port: Some(ServicePort::Name("http".into())),
        api: Endpoint::plain("api", "127.0.0.1", api.port),
        token: Token::File(token.clone()),
    };
    let followed = Followed::start(&[discovery(DiscoverySource::Kubernetes(source))]);
    followed.until_members(&["s:vllm-0"]).await;
    assert!(api.requests.lock()[0].contains("authorization: Bearer first\r\n"));
    std::fs::write(&token, "second").unwrap();
    within(async {
        while !api.requests.lock().last().unwrap().contains("authorization: Bearer second\r\n") {
            tokio::time::sleep(INTERVAL).await;
        }
    })
    .await;
    std::fs::remove_file(&token).unwrap();
    assert_eq!(followed.fails().await, "file");
    assert_eq!(followed.members(), ["s:vllm-0"]);
}
