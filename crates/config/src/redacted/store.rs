//! Stores. Of a Redis user the password is left out, and URLs are written without either.

use refrain_core::settings::{
    EmbeddedStore, RedisClientCertificate, RedisCredentials, RedisStore, RedisTls, Store, VectorSearch,
    WhenLocked,
};
use serde_json::{Value, json};

use super::{REDACTED, size};
use crate::text::{format_bytes, format_redis_url, format_span};

pub(super) fn store(store: &Store) -> Value {
    match store {
        Store::Off => json!({ "kind": "off" }),
        Store::Embedded(store) => embedded(store),
        Store::Redis(store) => redis(store),
    }
}

fn embedded(store: &EmbeddedStore) -> Value {
    let EmbeddedStore { memory_bytes_max, dir, disk_bytes_max, entry_bytes_max, when_locked } = store;
    let mut table = json!({
        "kind": "embedded",
        "memory": size(*memory_bytes_max),
        "entry_max": size(*entry_bytes_max),
    });
    if let Some(dir) = dir {
        table["dir"] = json!(dir);
        table["disk"] = json!(format_bytes(*disk_bytes_max));
        table["when_locked"] = json!(match when_locked {
            WhenLocked::Refuse => "refuse",
            WhenLocked::Wait => "wait",
        });
    }
    table
}

fn redis(store: &RedisStore) -> Value {
    let RedisStore {
        memory_bytes_max,
        entry_bytes_max,
        secret_file,
        nodes,
        cluster,
        database,
        credentials,
        tls,
        prefix,
        vectors,
        connect_timeout,
        command_timeout,
        lease,
        write_queue_bytes_max,
        required,
    } = store;
    let url = |node| format_redis_url(node, tls.is_some(), *database);
    let mut redis = json!({
        "urls": nodes.iter().map(url).collect::<Vec<_>>(),
        "cluster": cluster,
        "prefix": prefix,
        "vectors": self::vectors(*vectors),
        "connect_timeout": format_span(*connect_timeout),
        "timeout": format_span(*command_timeout),
        "lease": format_span(*lease),
        "write_queue": size(*write_queue_bytes_max),
        "require_store": required,
    });
    let RedisCredentials { username, password } = credentials;
    if let Some(username) = username {
        redis["username"] = json!(username);
    }
    if password.is_some() {
        redis["password"] = json!({ "value": REDACTED });
    }
    if let Some(tls) = tls {
        redis["tls"] = self::tls(tls);
    }
    json!({
        "kind": "redis",
        "memory": size(*memory_bytes_max),
        "entry_max": size(*entry_bytes_max),
        "secret_file": secret_file,
        "redis": redis,
    })
}

fn tls(tls: &RedisTls) -> Value {
    let RedisTls { ca_file, client, server_name } = tls;
    let mut table = json!({});
    if let Some(ca_file) = ca_file {
        table["ca_file"] = json!(ca_file);
    }
    if let Some(RedisClientCertificate { chain, key }) = client {
        table["client_certificate"] = json!({ "chain": chain, "key": key });
    }
    if let Some(server_name) = server_name {
        table["server_name"] = json!(server_name);
    }
    table
}

fn vectors(vectors: VectorSearch) -> &'static str {
    match vectors {
        VectorSearch::Auto => "auto",
        VectorSearch::QueryEngine => "query-engine",
        VectorSearch::VectorSets => "vector-sets",
        VectorSearch::Local => "local",
    }
}
