//! A store in Redis: which servers, who connects, and the rules between the keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use refrain_core::settings::{
    RedisClientCertificate, RedisCredentials, RedisNode, RedisStore, RedisTls, Secret, VectorSearch,
};

use super::super::{Context, process::bytes, secrets};
use super::check_entry;
use crate::raw;
use crate::text::{RedisServer, RedisUrl, TimeSpan};

/// Variable with the URL, if the file has none.
const VARIABLE: &str = "REDIS_URL";

/// The secret's file in `store.dir`.
const SECRET_FILE: &str = "cache.secret";

/// Longest time-out.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

pub(super) fn settle(context: &mut Context<'_>, raw: raw::Store) -> RedisStore {
    let memory_bytes_max = bytes(raw.memory, RedisStore::MEMORY_BYTES_MAX);
    let entry_bytes_max = bytes(raw.entry_max, RedisStore::ENTRY_BYTES_MAX);
    check_entry(context, entry_bytes_max, memory_bytes_max);
    if raw.disk.is_some() {
        context.refuse(&["store", "disk"], "answers are in Redis, not on disk; leave it out", None);
    }
    if raw.when_locked.is_some() {
        context.refuse(&["store", "when_locked"], "answers are in Redis; nothing is locked", None);
    }
    let secret_file =
        secret_file(context, raw.secret_file.as_ref().map(|file| &*file.0), raw.dir.map(|dir| dir.0));
    let raw = raw.redis.unwrap_or_default();
    let servers = Servers::of(context, raw.url, raw.urls);
    let cluster = raw.cluster.unwrap_or_default();
    servers.check(context, cluster);
    let write_queue_bytes_max = bytes(raw.write_queue, RedisStore::WRITE_QUEUE_BYTES_MAX);
    if write_queue_bytes_max < entry_bytes_max {
        let message = "smaller than store.entry_max: such an entry would never be written";
        context.refuse(&["store", "redis", "write_queue"], message, None);
    }
    RedisStore {
        memory_bytes_max,
        entry_bytes_max,
        secret_file,
        cluster,
        database: servers.found.first().map_or(0, |server| server.database),
        credentials: credentials(context, &servers, raw.username.map(|name| name.0), raw.password),
        tls: tls(context, &servers, raw.tls),
        nodes: servers.found.into_iter().map(|server| server.node).collect(),
        prefix: raw.prefix.map_or_else(|| RedisStore::PREFIX.to_owned(), |prefix| prefix.0),
        vectors: vectors(context, raw.vectors, cluster),
        connect_timeout: span(
            context,
            "connect_timeout",
            raw.connect_timeout,
            RedisStore::CONNECT_TIMEOUT,
            TIMEOUT_MAX,
        ),
        command_timeout: span(context, "timeout", raw.timeout, RedisStore::COMMAND_TIMEOUT, TIMEOUT_MAX),
        lease: span(context, "lease", raw.lease, RedisStore::LEASE_MAX, RedisStore::LEASE_MAX),
        write_queue_bytes_max,
        required: raw.require_store.unwrap_or_default(),
    }
}

/// Not watched: with another secret all that is stored is lost, which no reload should do.
fn secret_file(context: &mut Context<'_>, file: Option<&Path>, dir: Option<PathBuf>) -> PathBuf {
    if let Some(file) = file.map(Path::to_owned).or_else(|| dir.map(|dir| dir.join(SECRET_FILE))) {
        return context.source.resolve(&file);
    }
    if !context.is_wrong(&["store", "dir"]) {
        let message = "missing: name a file with the secret of cache keys, the same on every proxy (made if it isn't \
                       there), or give store.dir";
        context.refuse(&["store", "secret_file"], message, None);
    }
    PathBuf::new()
}

/// The servers that were named, and where.
struct Servers {
    found: Vec<RedisServer>,
    written: Written,
}

#[derive(Clone, Copy)]
enum Written {
    Url,
    Urls,
    Variable,
}

impl Servers {
    fn of(context: &mut Context<'_>, url: Option<RedisUrl>, urls: Option<Vec<RedisUrl>>) -> Self {
        if url.is_some() && urls.is_some() {
            context.refuse(&["store", "redis", "urls"], "beside store.redis.url: keep one of the two", None);
        }
        match (url, urls) {
            (_, Some(urls)) => {
                if urls.is_empty() {
                    context.refuse(&["store", "redis", "urls"], "names no server", None);
                }
                Self { found: urls.into_iter().map(|url| url.0).collect(), written: Written::Urls }
            }
            (Some(url), None) => Self { found: vec![url.0], written: Written::Url },
            (None, None) => Self::of_variable(context),
        }
    }

    fn of_variable(context: &mut Context<'_>) -> Self {
        let none = Self { found: Vec::new(), written: Written::Variable };
        if context.is_wrong(&["store", "redis", "url"]) || context.is_wrong(&["store", "redis", "urls"]) {
            return none;
        }
        let url = context.source.environment.get(VARIABLE).filter(|url| !url.trim().is_empty());
        let Some(url) = url else {
            let message = "no server: give store.redis.url, or set REDIS_URL";
            context.refuse(&["store", "redis", "url"], message, None);
            return none;
        };
        match RedisUrl::parse(url) {
            Ok(url) => Self { found: vec![url.0], ..none },
            Err(message) => {
                none.refuse(context, 0, message);
                none
            }
        }
    }

    fn refuse(&self, context: &mut Context<'_>, index: usize, message: impl Into<String>) {
        match self.written {
            Written::Url => context.refuse(&["store", "redis", "url"], message, None),
            Written::Urls => context.refuse(&["store", "redis", "urls", &index.to_string()], message, None),
            Written::Variable => context.refuse_variable(VARIABLE, "store.redis.url", message),
        }
    }

    fn check(&self, context: &mut Context<'_>, cluster: bool) {
        let Some((first, others)) = self.found.split_first() else { return };
        for (index, other) in (1..).zip(others) {
            if let Some(message) = differs(first, other) {
                self.refuse(context, index, message);
            }
        }
        if !cluster && !others.is_empty() {
            self.refuse(context, 1, "several servers are a cluster's: say cluster = true, or keep one");
        }
        if !cluster {
            return;
        }
        for (index, server) in self.found.iter().enumerate() {
            if matches!(server.node, RedisNode::Unix(_)) {
                self.refuse(context, index, "a cluster's servers can't be reached by a socket; use redis://");
            }
            if server.database != 0 {
                self.refuse(context, index, "a cluster has database 0 only");
            }
        }
    }
}

/// What two servers of a cluster must have in common.
fn differs(first: &RedisServer, other: &RedisServer) -> Option<&'static str> {
    let scheme = |server: &RedisServer| (server.tls, matches!(server.node, RedisNode::Unix(_)));
    if scheme(first) != scheme(other) {
        return Some("another scheme than the first URL's: all servers are spoken to alike");
    }
    if first.credentials != other.credentials {
        return Some(
            "other credentials than the first URL's: give them once, as store.redis.username and password",
        );
    }
    (first.database != other.database).then_some("another database than the first URL's")
}

/// The keys go before the URL.
fn credentials(
    context: &mut Context<'_>,
    servers: &Servers,
    username: Option<String>,
    password: Option<raw::SecretSource>,
) -> RedisCredentials {
    let path = ["store", "redis", "password"];
    let named_by_key = username.is_some();
    let url = servers.found.first().map(|server| server.credentials.clone()).unwrap_or_default();
    let has_key = password.is_some() || context.is_wrong(&path);
    let own = password.and_then(|raw| {
        secrets::read(context, raw).map_err(|message| context.refuse(&path, message, None)).ok()
    });
    let credentials =
        RedisCredentials { username: username.or(url.username), password: own.map(Secret).or(url.password) };
    if credentials.username.is_some() && credentials.password.is_none() && !has_key {
        let message = "a user without a password: give store.redis.password (any, if the user needs none)";
        if named_by_key {
            context.refuse(&["store", "redis", "username"], message, None);
        } else {
            servers.refuse(context, 0, message);
        }
    }
    credentials
}

fn tls(context: &mut Context<'_>, servers: &Servers, raw: Option<raw::RedisTls>) -> Option<RedisTls> {
    let first = servers.found.first()?;
    if !first.tls && raw.is_some() {
        let message = "has no effect: only a URL that begins with rediss:// means TLS";
        context.refuse(&["store", "redis", "tls"], message, None);
    }
    let raw = raw.unwrap_or_default();
    let tls = RedisTls {
        ca_file: raw.ca_file.map(|file| context.watched(&file.0)),
        // None if a part is missing, which is known already.
        client: raw.client_certificate.and_then(|raw| {
            let (chain, key) = (raw.chain?, raw.key?);
            Some(RedisClientCertificate { chain: context.watched(&chain.0), key: context.watched(&key.0) })
        }),
        server_name: raw.server_name.map(|name| name.0),
    };
    first.tls.then_some(tls)
}

fn vectors(context: &mut Context<'_>, raw: Option<raw::VectorSearch>, cluster: bool) -> VectorSearch {
    match raw {
        Some(raw::VectorSearch::Auto) => VectorSearch::Auto,
        Some(raw::VectorSearch::QueryEngine) => {
            if cluster {
                let message = "in a cluster the query engine finds what is on one of its servers only; say \"auto\", \
                               \"vector-sets\" or \"local\"";
                context.refuse(&["store", "redis", "vectors"], message, None);
            }
            VectorSearch::QueryEngine
        }
        Some(raw::VectorSearch::VectorSets) => VectorSearch::VectorSets,
        Some(raw::VectorSearch::Local) => VectorSearch::Local,
        None => VectorSearch::default(),
    }
}

fn span(
    context: &mut Context<'_>,
    key: &str,
    raw: Option<TimeSpan>,
    default: Duration,
    max: Duration,
) -> Duration {
    let span = raw.map_or(default, |span| span.0);
    if !(Duration::from_millis(1)..=max).contains(&span) {
        let message = format!("must be from \"1ms\" to {:?}", crate::text::format_span(max));
        context.refuse(&["store", "redis", key], message, None);
    }
    span
}
