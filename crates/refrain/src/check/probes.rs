//! What is asked of the world around a configuration.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use refrain_core::settings::{Embedder, Endpoint, Listener, SigningKeys, Store};
use refrain_core::{PoolId, Settings, Tasks};
use refrain_proxy::{Policies, Snapshot};
use refrain_upstream::{Client, ClientTls, Ping, Upstreams};

use super::{Failed, Finding, Well};

/// A first embedding warms the model up, and this is no test of speed.
const EMBED_BUDGET: Duration = Duration::from_secs(30);

/// A file name that nobody else uses.
const PROBE_FILE: &str = ".refrain-check";

pub(super) type Result = std::result::Result<Well, Failed>;

/// Asks everything, in the order of config. `running`: a Refrain runs with these settings.
pub(super) async fn all(settings: &Settings, running: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !running {
        findings.extend(addresses(settings));
    }
    findings.extend(certificates(settings));
    findings.extend(store(settings));
    findings.extend(super::redis::all(settings).await);
    if let Some(embedder) = &settings.embedder {
        findings.push(self::embedder(embedder).await);
    }
    findings.extend(super::policies::all(settings).await);
    findings.extend(signing_keys(settings).await);
    findings.extend(endpoints(settings).await);
    findings
}

fn addresses(settings: &Settings) -> Vec<Finding> {
    let admin = settings.admin.as_ref().map(|admin| ("admin".to_owned(), admin.address));
    let data = settings.listeners.iter().map(|listener| (name(listener), listener.address));
    let all = data.chain(admin);
    all.map(|(name, address)| Finding { name, what: format!("listen on {address}"), result: bind(address) })
        .collect()
}

fn bind(address: SocketAddr) -> Result {
    match TcpListener::bind(address) {
        Ok(_) => Ok(Well::default()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(failed("in use; stop what listens there, or add --running if that is this Refrain"))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(failed(format!("{error}; take a port above 1023, or grant CAP_NET_BIND_SERVICE")))
        }
        Err(error) => Err(failed(format!("{error}; is this an address of this machine?"))),
    }
}

fn certificates(settings: &Settings) -> Vec<Finding> {
    let with_tls = settings.listeners.iter().filter(|listener| listener.tls.is_some());
    let finding = |listener| Finding {
        name: name(listener),
        what: "TLS certificates".to_owned(),
        result: read_certificates(settings, listener),
    };
    with_tls.map(finding).collect()
}

/// Builds what would serve, of this listener alone.
fn read_certificates(settings: &Settings, listener: &Listener) -> Result {
    let alone = Settings {
        listeners: vec![listener.clone()],
        routes: Vec::new(),
        pools: BTreeMap::new(),
        ..settings.clone()
    };
    let upstreams = Upstreams::new(&alone.pools).map_err(failed)?;
    Snapshot::build(alone, Arc::new(upstreams), None, &Policies::new(), None)
        .map(|_| Well::default())
        .map_err(failed)
}

fn store(settings: &Settings) -> Option<Finding> {
    let Store::Embedded(store) = &settings.store else { return None };
    let dir = store.dir.as_ref()?;
    Some(Finding {
        name: "store".to_owned(),
        what: format!("write in {}", dir.display()),
        result: write_in(dir),
    })
}

/// Writes where the directory is, or where it would be made.
fn write_in(dir: &Path) -> Result {
    let existing =
        dir.ancestors().find(|ancestor| ancestor.is_dir()).map_or_else(|| PathBuf::from("."), Path::to_owned);
    let probe = existing.join(PROBE_FILE);
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(|error| {
        failed(format!("{}: {error}; give store.dir to the user that runs Refrain", existing.display()))
    })?;
    let note = if existing == *dir { String::new() } else { "will be made at start".to_owned() };
    Ok(Well { latency: None, note })
}

async fn embedder(settings: &Embedder) -> Finding {
    let settings = Embedder { budget: EMBED_BUDGET, threads: 1, ..settings.clone() };
    let what = format!("embed with {}", settings.model_dir.display());
    Finding { name: "embedder".to_owned(), what, result: embed(settings).await }
}

async fn embed(settings: Embedder) -> Result {
    let opened = tokio::task::spawn_blocking(move || refrain_cache::Embedder::open(&settings)).await;
    let embedder = opened.map_err(failed)?.map_err(failed)?;
    let warm_up = embedder.embed("hello".to_owned()).await;
    let started = Instant::now();
    match warm_up.and(embedder.embed("hello".to_owned()).await) {
        Ok(_) => Ok(Well { latency: Some(started.elapsed()), note: String::new() }),
        Err(reason) => Err(failed(format!("{}; the model does not embed a word", reason.as_str()))),
    }
}

/// Reads the keys of each issuer that has any to read.
async fn signing_keys(settings: &Settings) -> Vec<Finding> {
    let client = Client::new(ClientTls::native(), Tasks::new());
    let mut findings = Vec::new();
    for issuer in &settings.tokens {
        let what = match &issuer.keys {
            SigningKeys::Url(place) => format!("read keys from {}", place.endpoint.id),
            SigningKeys::File(file) => format!("read keys from {}", file.display()),
            SigningKeys::Secret(_) => continue,
        };
        let started = Instant::now();
        let read = refrain_proxy::read_signing_keys(&issuer.keys, client.clone()).await;
        let result = match read {
            Ok(1) => Ok(Well { latency: Some(started.elapsed()), note: "1 key".to_owned() }),
            Ok(count) => Ok(Well { latency: Some(started.elapsed()), note: format!("{count} keys") }),
            Err(error) => Err(failed(format!("{error}; nobody can say whether its tokens are right"))),
        };
        findings.push(Finding { name: format!("jwt.{}", issuer.id), what, result });
    }
    findings
}

async fn endpoints(settings: &Settings) -> Vec<Finding> {
    let upstreams = match Upstreams::new(&settings.pools) {
        Ok(upstreams) => upstreams,
        Err(error) => {
            let result = Err(failed(error));
            return vec![Finding { name: "pool".to_owned(), what: "settings".to_owned(), result }];
        }
    };
    let tasks = Tasks::new();
    let client = Client::new(ClientTls::native(), tasks.clone());
    let mut findings = Vec::new();
    for pool in upstreams.pools() {
        for endpoint in pool.endpoints().iter() {
            let pinged = client.ping(pool, endpoint).await;
            findings.push(Finding {
                name: format!("pool.{}", pool.id()),
                what: format!("ask {}", endpoint.id()),
                result: match pinged {
                    Ok(ping) => judge(&ping, &endpoint.config, forwards_credentials(settings, pool.id())),
                    Err(error) => Err(failed(format!("{error}; is it running, and is the URL right?"))),
                },
            });
        }
    }
    findings
}

/// What an endpoint's answer means. That it answers at all is nearly everything.
fn judge(ping: &Ping, endpoint: &Endpoint, credentials: Credentials) -> Result {
    let status = ping.status;
    let note = format!("{status} to {}", ping.path);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => match (credentials, &endpoint.authorization) {
            (Credentials::OfClients, _) => Ok(Well {
                latency: Some(ping.latency),
                note: format!("{note}; clients bring their own credentials"),
            }),
            (Credentials::OfConfig, None) => {
                Err(failed(format!("{note}; it wants a credential: set authorization")))
            }
            (Credentials::OfConfig, Some(_)) => {
                Err(failed(format!("{note}; it refuses the configured authorization")))
            }
        },
        _ if status.is_server_error() => Err(failed(format!("{note}; look at the server's own log"))),
        _ => Ok(Well { latency: Some(ping.latency), note }),
    }
}

/// Whose credentials an upstream gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credentials {
    OfClients,
    OfConfig,
}

fn forwards_credentials(settings: &Settings, pool: &PoolId) -> Credentials {
    let forwards = settings.routes.iter().any(|route| route.pool == *pool && route.forward_credentials);
    if forwards { Credentials::OfClients } else { Credentials::OfConfig }
}

fn name(listener: &Listener) -> String {
    format!("listener.{}", listener.id)
}

pub(super) fn failed(hint: impl ToString) -> Failed {
    Failed { hint: hint.to_string() }
}

#[cfg(test)]
mod tests {
    use refrain_core::settings::EmbeddedStore;

    use super::*;

    async fn results(settings: &Settings) -> Vec<(String, bool)> {
        let findings = all(settings, false).await;
        findings.into_iter().map(|finding| (finding.name, finding.result.is_ok())).collect()
    }

    #[tokio::test]
    async fn what_is_missing_fails_and_what_is_there_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        // Bound and closed again: nothing answers there.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut settings =
            refrain_config::for_upstream(&format!("http://{silent}"), Some("127.0.0.1:0".parse().unwrap()))
                .unwrap();
        settings.admin.as_mut().unwrap().address = taken.local_addr().unwrap();
        let new_dir = dir.path().join("not/made/yet");
        settings.store =
            Store::Embedded(EmbeddedStore { dir: Some(new_dir.clone()), ..EmbeddedStore::default() });

        let expected = [("listener.main", true), ("admin", false), ("store", true), ("pool.upstream", false)];
        assert_eq!(results(&settings).await, expected.map(|(name, ok)| (name.to_owned(), ok)));
        assert!(!new_dir.exists(), "a check makes nothing");
    }

    #[tokio::test]
    async fn keys_that_tokens_need_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("here.json");
        let key =
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        std::fs::write(&file, key).unwrap();
        let jwt = |name: &str, keys: &str| {
            format!("[jwt.{name}]\nissuer = \"i\"\naudience = [\"a\"]\ntenant = \"t\"\n{keys}\n")
        };
        let text = ["[pool.p]\nendpoints = [\"http://127.0.0.1:1\"]\n[route.r]\npool = \"p\"\n".to_owned()]
            .into_iter()
            .chain(
                [("here", "jwks_file = \"here.json\""), ("gone", "jwks_file = \"gone.json\"")]
                    .map(|(n, k)| jwt(n, k)),
            )
            .chain([jwt("away", "jwks_url = \"http://127.0.0.1:1/keys\"")]);
        let source =
            refrain_config::Source::from_text(dir.path().join("refrain.toml"), text.collect::<String>(), []);
        let settings = refrain_config::load(&source).unwrap().settings;
        let findings = signing_keys(&settings).await;
        let found: Vec<_> =
            findings.iter().map(|finding| (finding.name.as_str(), finding.result.is_ok())).collect();
        assert_eq!(found, [("jwt.away", false), ("jwt.gone", false), ("jwt.here", true)], "{findings:?}");
    }

    fn judged(status: StatusCode, credentials: Credentials) -> bool {
        let ping = Ping { path: "/v1/models", status, latency: Duration::ZERO };
        let pool = refrain_config::for_upstream("http://127.0.0.1:1", None).unwrap().pools;
        let endpoint = pool.values().next().unwrap().endpoints[0].clone();
        judge(&ping, &endpoint, credentials).is_ok()
    }

    #[test]
    fn any_answer_shows_a_server_but_for_refusals_and_failures() {
        assert!(judged(StatusCode::OK, Credentials::OfConfig));
        assert!(judged(StatusCode::NOT_FOUND, Credentials::OfConfig));
        assert!(!judged(StatusCode::UNAUTHORIZED, Credentials::OfConfig));
        assert!(judged(StatusCode::UNAUTHORIZED, Credentials::OfClients));
        assert!(!judged(StatusCode::BAD_GATEWAY, Credentials::OfClients));
    }
}
