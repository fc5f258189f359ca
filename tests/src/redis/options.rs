//! Which Redis, and how it is set up: written as its config file.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::RedisServer;
use crate::{Authority, Manifest};

/// Where a node counts as failed; longer than what a busy machine makes it wait.
const CLUSTER_NODE_TIMEOUT_MS: u32 = 2_000;

/// The harness' own user, on servers that ask for passwords.
pub(super) const HARNESS: [&str; 2] = ["harness", "harness-secret"];

/// What a server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Redis 8: vector sets (`VADD`, `VSIM`). No TLS.
    VectorSets,
    /// Redis 8 with the query engine (`FT.SEARCH`) beside vector sets. No TLS.
    QueryEngine,
    /// Debian's Redis 7: no vectors; TLS.
    Plain,
}

/// What a server with TLS asks of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None.
    Ignored,
    /// One of the same authority.
    Required,
}

/// How a server is set up; by default it listens on a free port, keeps nothing on disk and lets everybody in.
#[must_use]
pub struct RedisOptions<'a> {
    pub(super) flavour: Flavour,
    pub(super) address: Option<SocketAddr>,
    pub(super) tls: Option<(&'a Authority, ClientCertificates)>,
    is_cluster: bool,
    has_password: bool,
    lines: String,
}

impl<'a> RedisOptions<'a> {
    /// The default for a flavour.
    pub fn new(flavour: Flavour) -> Self {
        Self {
            flavour,
            address: None,
            tls: None,
            is_cluster: false,
            has_password: false,
            lines: String::new(),
        }
    }

    /// Listens there.
    pub fn at(self, address: SocketAddr) -> Self {
        Self { address: Some(address), ..self }
    }

    /// Speaks TLS by TCP (its Unix socket stays plain), with a certificate for `localhost` and its address. Only
    /// [`Flavour::Plain`] can.
    pub fn tls(self, authority: &'a Authority, clients: ClientCertificates) -> Self {
        assert_eq!(self.flavour, Flavour::Plain, "the packaged Redis 8 is built without TLS");
        Self { tls: Some((authority, clients)), ..self }
    }

    /// Asks the default user for a password.
    pub fn password(mut self, password: &str) -> Self {
        self.has_password = true;
        self.line(&format!("requirepass {password:?}"))
    }

    /// Has this user, in Redis' own words: `app on >secret ~refrain:* +@all -@dangerous`. `default off` locks the nameless out.
    pub fn user(mut self, acl: &str) -> Self {
        self.has_password = true;
        self.line(&format!("user {acl}"))
    }

    /// Refuses writes (`OOM`) past that many bytes, and evicts nothing. An empty server holds 1 to 3 MB.
    pub fn memory_max(self, bytes: u64) -> Self {
        self.line(&format!("maxmemory {bytes}\nmaxmemory-policy noeviction"))
    }

    /// Follows another server, read-only. Both ask for passwords, or neither; both speak TLS, or neither.
    pub fn replica_of(self, primary: &RedisServer) -> Self {
        let address = primary.address();
        self.line(&format!("replicaof {} {}", address.ip(), address.port()))
    }

    /// Keeps what it answered for over [`RedisServer::kill9`].
    pub fn append_only(self) -> Self {
        self.line("appendonly yes\nappendfsync everysec")
    }

    /// A node of a cluster.
    pub(super) fn cluster(self) -> Self {
        Self { is_cluster: true, ..self }
    }

    /// Any line of Redis' config.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push_str(line);
        self.lines.push('\n');
        self
    }

    /// Whether the harness must say who it is.
    pub(super) fn asks_who(&self) -> bool {
        self.has_password
    }

    /// Writes `redis.conf` and what it names into the folder; returns its path.
    pub(super) fn write(&self, dir: &Path, address: SocketAddr, bus_port: u16) -> PathBuf {
        let data = dir.join(super::server::DATA);
        std::fs::create_dir_all(&data).unwrap();
        let mut text = format!(
            "bind {}\nprotected-mode no\ndir {data:?}\nunixsocket {:?}\nsave \"\"\ndaemonize no\n\
             enable-debug-command yes\nrepl-diskless-sync-delay 0\n",
            address.ip(),
            dir.join(super::server::SOCKET),
        );
        text.push_str(&self.listening(dir, address));
        if self.is_cluster {
            // Others would take the address that a node connects from for its own, which is 127.0.0.1.
            let cluster = format!(
                "cluster-enabled yes\ncluster-announce-ip {}\ncluster-port {bus_port}\n\
                 cluster-node-timeout {CLUSTER_NODE_TIMEOUT_MS}\n",
                address.ip(),
            );
            text.push_str(&cluster);
        }
        if self.has_password {
            let [name, password] = HARNESS;
            writeln!(text, "user {name} on >{password} ~* &* +@all").unwrap();
            writeln!(text, "masteruser {name}\nmasterauth {password}").unwrap();
        }
        if self.flavour == Flavour::QueryEngine {
            writeln!(text, "loadmodule {:?}", Manifest::load().redisearch()).unwrap();
        }
        text.push_str(&self.lines);
        let path = dir.join("redis.conf");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn listening(&self, dir: &Path, address: SocketAddr) -> String {
        let port = address.port();
        let Some((authority, clients)) = self.tls else { return format!("port {port}\n") };
        authority.issue(dir, "server", &["localhost", &address.ip().to_string()]);
        authority.write_root(&dir.join(super::server::ROOT));
        let clients = if clients == ClientCertificates::Required { "yes" } else { "no" };
        let file = |name: &str| dir.join(name);
        format!(
            "port 0\ntls-cluster yes\ntls-replication yes\ntls-port {port}\ntls-cert-file {:?}\ntls-key-file {:?}\ntls-ca-cert-file {:?}\n\
             tls-auth-clients {clients}\n",
            file("server.pem"),
            file("server.key"),
            file(super::server::ROOT)
        )
    }
}

impl Flavour {
    /// The program that has it.
    pub(super) fn program(self) -> PathBuf {
        let manifest = Manifest::load();
        match self {
            Self::VectorSets | Self::QueryEngine => manifest.redis_server().to_owned(),
            Self::Plain => manifest.redis7_server().to_owned(),
        }
    }
}
