//! The keys that verify tokens: JSON web key sets (RFC 7517) of servers and files, and shared secrets.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use refrain_core::JwtId;
use refrain_core::settings::{Endpoint, KeySetUrl, SigningKeys};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

/// Keys of one set; further ones are left out.
const KEYS_MAX: usize = 64;

/// Largest file with a key set, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How soon tokens of unknown keys have a set read once more. They can be made up by anybody.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);

/// Pause after a read that failed.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// Longest wait of a request for a set to be read.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Requests that wait for one set; further ones are refused at once.
const WAITERS_MAX: usize = 256;

/// A file of signing keys can't be used.
#[derive(Debug, thiserror::Error)]
#[error("jwt {issuer:?}: {file}: {reason}; expected a JSON web key set, {{\"keys\": [..]}}")]
pub struct SigningKeysError {
    issuer: JwtId,
    file: PathBuf,
    reason: String,
}

/// How a key set does that a server gives out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetStatus {
    /// Whose it is.
    pub issuer: JwtId,
    /// Keys that can verify tokens.
    pub keys: usize,
    /// Reads that went well.
    pub reads: u64,
    /// Reads that failed.
    pub failures: u64,
    /// How long ago the last one went well; none: none did.
    pub age: Option<Duration>,
    /// Why the last one failed; none: it did not.
    pub last_error: Option<String>,
}

/// One set of keys.
#[derive(Default)]
pub(super) struct KeySet(Vec<SigningKey>);

struct SigningKey {
    id: Option<String>,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<String>,
    key: DecodingKey,
    /// To see whether a set that is read again is another one.
    written: Value,
}

impl KeySet {
    /// The keys of a document; those that sign nothing, or are of a kind that nobody here knows, are left out.
    pub(super) fn parse(document: Value) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document = Document::deserialize(document).map_err(|_| "it is no JSON web key set")?;
        let keys: Vec<SigningKey> =
            document.keys.into_iter().take(KEYS_MAX).filter_map(SigningKey::of).collect();
        if keys.is_empty() { Err("no key in it verifies signatures") } else { Ok(Self(keys)) }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn of_secret(secret: &str) -> Self {
        let key = DecodingKey::from_secret(secret.as_bytes());
        Self(vec![SigningKey { id: None, algorithm: None, key, written: Value::Null }])
    }

    /// The key that a token names. One that names none is verified if one key alone comes into question.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm, name: &str) -> Option<&DecodingKey> {
        let suits = |key: &&SigningKey| {
            key.key.family() == algorithm.family() && key.algorithm.as_deref().is_none_or(|only| only == name)
        };
        let mut keys = self.0.iter().filter(suits).filter(|key| match (id, &key.id) {
            (Some(id), Some(of)) => id == of,
            // A shared secret has no name, whatever the token calls it.
            (Some(_), None) => key.written.is_null(),
            (None, _) => true,
        });
        let first = keys.next()?;
        (id.is_some() || keys.next().is_none()).then_some(&first.key)
    }

    fn is(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a.written == b.written)
    }
}

impl SigningKey {
    fn of(written: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(written.clone()).ok()?;
        let signs = jwk.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
        // A secret in a document that anybody can read is none.
        let is_public = !matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
        if !signs || !is_public {
            return None;
        }
        let algorithm = written.get("alg").and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            id: jwk.common.key_id.clone(),
            algorithm,
            key: DecodingKey::from_jwk(&jwk).ok()?,
            written,
        })
    }
}

/// The keys of one issuer.
#[derive(Clone)]
pub(super) enum Keys {
    /// As they were read with the configuration.
    Fixed(Arc<KeySet>),
    /// As a server gives them out, read with this pause.
    Remote(Arc<RemoteKeys>, Duration),
}

impl Keys {
    /// `former`: what was read for this issuer so far, kept if it comes from the same place. Blocks on files.
    pub(super) fn new(
        issuer: &JwtId,
        keys: &SigningKeys,
        former: Option<&Arc<RemoteKeys>>,
        wanted: &Arc<Notify>,
    ) -> Result<Self, SigningKeysError> {
        let failed = |file: &Path, reason: String| SigningKeysError {
            issuer: issuer.clone(),
            file: file.to_owned(),
            reason,
        };
        Ok(match keys {
            SigningKeys::Secret(secret) => Self::Fixed(Arc::new(KeySet::of_secret(&secret.0))),
            SigningKeys::File(file) => {
                Self::Fixed(Arc::new(read(file).map_err(|reason| failed(file, reason))?))
            }
            SigningKeys::Url(url) => {
                let kept = former.filter(|former| former.is_from(url)).cloned();
                let new = || Arc::new(RemoteKeys::new(issuer.clone(), url, wanted.clone()));
                Self::Remote(kept.unwrap_or_else(new), url.refresh)
            }
        })
    }

    /// Those known now; none: a server has not given them out yet.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        match self {
            Self::Fixed(keys) => Some(keys.clone()),
            Self::Remote(remote, _) => remote.current.load_full(),
        }
    }

    /// Differs after each change of the keys.
    pub(super) fn generation(&self) -> u64 {
        match self {
            Self::Fixed(_) => 0,
            Self::Remote(remote, _) => remote.generation.load(Ordering::Acquire),
        }
    }
}

/// The set in a file. Blocks.
pub(super) fn read(file: &Path) -> Result<KeySet, String> {
    let mut text = String::new();
    let open = File::open(file).and_then(|open| open.take(FILE_BYTES_MAX).read_to_string(&mut text));
    open.map_err(|error| error.to_string())?;
    let document = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    KeySet::parse(document).map_err(str::to_owned)
}

/// The keys that a server gives out. What was read last stays while the server is away, and over reloads that change nothing of
/// where it comes from.
pub(super) struct RemoteKeys {
    pub(super) issuer: JwtId,
    /// The server.
    pub(super) endpoint: Endpoint,
    /// Path and query.
    pub(super) path: String,
    current: ArcSwapOption<KeySet>,
    generation: AtomicU64,
    reads: Mutex<Reads>,
    /// Reads that have ended.
    ended: watch::Sender<u64>,
    waiters: Semaphore,
    /// Wakes who reads.
    wanted: Arc<Notify>,
}

/// How reads went.
#[derive(Default)]
struct Reads {
    /// A token names a key that is not known.
    wanted: bool,
    /// The last one, while it is under way.
    under_way: bool,
    ended: Option<Instant>,
    succeeded: Option<Instant>,
    successes: u64,
    failures: u64,
    last_error: Option<String>,
}

impl RemoteKeys {
    fn new(issuer: JwtId, url: &KeySetUrl, wanted: Arc<Notify>) -> Self {
        Self {
            issuer,
            endpoint: url.endpoint.clone(),
            path: url.path.clone(),
            current: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            reads: Mutex::default(),
            ended: watch::Sender::new(0),
            waiters: Semaphore::new(WAITERS_MAX),
            wanted,
        }
    }

    /// Whether what is read of this URL is the same. How often it is read is no part of that.
    fn is_from(&self, KeySetUrl { endpoint, path, refresh: _ }: &KeySetUrl) -> bool {
        self.endpoint == *endpoint && self.path == *path
    }

    /// Has the set read anew, and waits for the end of that. False at once if it was read a moment ago, or if too many
    /// wait; false after 2 s.
    ///
    /// # Cancel safety
    /// Safe: the read goes on.
    pub(super) async fn refreshed(&self) -> bool {
        let mut ended = self.ended.subscribe();
        let Ok(_waiting) = self.waiters.try_acquire() else { return false };
        if !self.want() {
            return false;
        }
        self.wanted.notify_one();
        matches!(timeout(WAIT_MAX, ended.changed()).await, Ok(Ok(())))
    }

    /// Whether a read is under way, or may be. One that is under way will do: whoever wanted another each time could have the
    /// server asked without a pause.
    fn want(&self) -> bool {
        let mut reads = self.reads.lock();
        if reads.under_way {
            return true;
        }
        let may = reads.ended.is_none_or(|ended| ended.elapsed() >= UNKNOWN_KEY_PAUSE);
        reads.wanted |= may;
        may
    }

    /// Whether it is time for a read, if one is made each `refresh`; begins it.
    pub(super) fn begin(&self, now: Instant, refresh: Duration) -> bool {
        let mut reads = self.reads.lock();
        let pause = if reads.last_error.is_some() { FAILED_PAUSE.min(refresh) } else { refresh };
        let is_due = reads.wanted || reads.ended.is_none_or(|ended| now >= ended + pause);
        let begins = is_due && !reads.under_way;
        if begins {
            (reads.under_way, reads.wanted) = (true, false);
        }
        begins
    }

    /// A read has ended.
    pub(super) fn end(&self, read: Result<KeySet, String>) {
        let failure = match read {
            Ok(keys) => {
                self.replace(keys);
                None
            }
            Err(reason) => Some(reason),
        };
        let mut reads = self.reads.lock();
        (reads.under_way, reads.ended) = (false, Some(Instant::now()));
        match &failure {
            None => {
                if reads.last_error.is_some() {
                    tracing::info!(jwt = %self.issuer, "signing keys are read again");
                }
                reads.successes += 1;
                reads.succeeded = reads.ended;
            }
            Some(reason) => {
                if reads.last_error.is_none() {
                    tracing::warn!(jwt = %self.issuer, %reason, "signing keys not read; those known stay in force");
                }
                reads.failures += 1;
            }
        }
        reads.last_error = failure;
        drop(reads);
        self.ended.send_modify(|count| *count += 1);
    }

    fn replace(&self, keys: KeySet) {
        if self.current.load().as_ref().is_some_and(|known| known.is(&keys)) {
            return;
        }
        tracing::info!(jwt = %self.issuer, keys = keys.len(), "signing keys changed");
        self.current.store(Some(Arc::new(keys)));
        // After the keys, so that what the old ones verified is never taken for what the new ones did.
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(super) fn status(&self) -> KeySetStatus {
        let reads = self.reads.lock();
        KeySetStatus {
            issuer: self.issuer.clone(),
            keys: self.current.load().as_ref().map_or(0, |keys| keys.len()),
            reads: reads.successes,
            failures: reads.failures,
            age: reads.succeeded.map(|at| at.elapsed()),
            last_error: reads.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use refrain_core::settings::EndpointTls;

    use super::*;

    const REFRESH: Duration = Duration::from_secs(300);

    fn url() -> KeySetUrl {
        let endpoint = Endpoint::plain("sso", "127.0.0.1", 1);
        KeySetUrl { endpoint, path: "/keys".to_owned(), refresh: REFRESH }
    }

    /// What a reload makes of keys whose URL becomes this one.
    fn reloaded(former: &Arc<RemoteKeys>, url: KeySetUrl) -> Keys {
        Keys::new(&"corp".into(), &SigningKeys::Url(Box::new(url)), Some(former), &former.wanted).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_a_key_while_the_set_is_read_has_it_read_no_sooner_again() {
        let keys = RemoteKeys::new("corp".into(), &url(), Arc::default());
        assert!(keys.begin(Instant::now(), REFRESH));
        let ends = async { keys.end(Err("away".to_owned())) };
        let (waited, ()) = tokio::join!(biased; keys.refreshed(), ends);
        assert!(waited, "it waited for the read that was under way");
        assert!(!keys.begin(Instant::now(), REFRESH), "anybody can make up a key");
        assert!(
            !keys.refreshed().await && !keys.begin(Instant::now(), REFRESH),
            "nor is it read again at once"
        );
        tokio::time::advance(FAILED_PAUSE).await;
        assert!(keys.begin(Instant::now(), REFRESH));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_were_read_stay_when_a_reload_changes_only_how_often_they_are() {
        let keys = Arc::new(RemoteKeys::new("corp".into(), &url(), Arc::default()));
        keys.end(Ok(KeySet::of_secret("secret")));
        let sooner = Duration::from_secs(10);
        let Keys::Remote(kept, refresh) = reloaded(&keys, KeySetUrl { refresh: sooner, ..url() }) else {
            panic!("keys of a server")
        };
        assert_eq!((kept.status().keys, refresh), (1, sooner));
        tokio::time::advance(sooner).await;
        assert!(!keys.begin(Instant::now(), REFRESH) && kept.begin(Instant::now(), refresh));
    }

    #[tokio::test]
    async fn keys_of_another_place_or_of_a_server_that_others_vouch_for_are_read_anew() {
        let keys = Arc::new(RemoteKeys::new("corp".into(), &url(), Arc::default()));
        keys.end(Ok(KeySet::of_secret("secret")));
        let ca = EndpointTls { ca_file: Some("ca.pem".into()), ..EndpointTls::default() };
        let vouched = Endpoint { tls: Some(ca), ..url().endpoint };
        for url in
            [KeySetUrl { path: "/others".to_owned(), ..url() }, KeySetUrl { endpoint: vouched, ..url() }]
        {
            assert!(reloaded(&keys, url).current().is_none());
        }
    }
}
