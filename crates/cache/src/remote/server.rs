//! How to reach Redis: settings -> an open connection, logged in.

use std::net::SocketAddr;
use std::path::Path;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::AsyncDNSResolver;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError, RedisFuture, RedisResult,
    TlsCertificates, TlsMode, Value,
};
use refrain_core::settings::{RedisNode, RedisStore, RedisTls};
use tokio::time::timeout;

use super::trouble::{StoreTrouble, Trouble};

/// What the client calls itself in `CLIENT LIST`.
const CLIENT_NAME: &str = "refrain";
/// Attempts of a cluster command that is redirected (MOVED, ASK) or meets a fail-over. All within the command's deadline.
const CLUSTER_RETRIES: u32 = 4;
/// Pause between them, in ms.
const CLUSTER_RETRY_PAUSE_MS: u64 = 20;

/// Opens connections.
#[derive(Debug)]
pub(super) struct Server {
    settings: RedisStore,
}

/// One multiplexed connection, or one a server of a cluster. Cloning shares it.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Server {
    pub(super) fn new(settings: RedisStore) -> Self {
        Self { settings }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.settings.cluster
    }

    /// Connects and logs in, within the configured time. RESP3, or RESP2 where the server knows no better.
    ///
    /// # Cancel safety
    /// Safe: what was opened is closed.
    pub(super) async fn connect(&self) -> Result<Connection, StoreTrouble> {
        // Both tries share one deadline.
        match timeout(self.settings.connect_timeout, self.connect_in_either()).await {
            Ok(connected) => connected,
            Err(_) => Err(StoreTrouble::new(
                Trouble::Unreachable,
                "no connection within store.redis.connect_timeout",
            )),
        }
    }

    async fn connect_in_either(&self) -> Result<Connection, StoreTrouble> {
        let certificates = self.certificates()?;
        match self.connect_with(ProtocolVersion::RESP3, certificates.as_ref()).await {
            Err(error) if is_about_protocol(&error) => {
                Ok(self.connect_with(ProtocolVersion::RESP2, certificates.as_ref()).await?)
            }
            connected => Ok(connected?),
        }
    }

    async fn connect_with(
        &self,
        protocol: ProtocolVersion,
        certificates: Option<&TlsCertificates>,
    ) -> RedisResult<Connection> {
        if self.is_cluster() {
            return self.connect_cluster(protocol, certificates).await.map(Connection::Cluster);
        }
        let info = self.info(self.node()?, protocol)?;
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
            None => Client::open(info)?,
        };
        // Deadlines are ours: a late answer is dropped, and the connection goes on.
        let mut config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        if let (Some(RedisTls { server_name: Some(_), .. }), RedisNode::Tcp { host, .. }) =
            (&self.settings.tls, self.node()?)
        {
            config = config.set_dns_resolver(Resolved { host: host.clone() });
        }
        client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::Single)
    }

    async fn connect_cluster(
        &self,
        protocol: ProtocolVersion,
        certificates: Option<&TlsCertificates>,
    ) -> RedisResult<ClusterConnection> {
        let infos: RedisResult<Vec<_>> =
            self.settings.nodes.iter().map(|node| self.info(node, protocol)).collect();
        let mut builder = ClusterClientBuilder::new(infos?)
            .use_protocol(protocol)
            .connection_timeout(self.settings.connect_timeout)
            .response_timeout(self.settings.command_timeout)
            .overall_response_timeout(None)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_RETRY_PAUSE_MS)
            .max_retry_wait(CLUSTER_RETRY_PAUSE_MS * 2);
        if let Some(certificates) = certificates {
            builder = builder.tls(TlsMode::Secure).certs(certificates.clone());
        }
        builder.build()?.get_async_connection().await
    }

    fn node(&self) -> RedisResult<&RedisNode> {
        self.settings
            .nodes
            .first()
            .ok_or_else(|| RedisError::from((ErrorKind::InvalidClientConfig, "no server is named")))
    }

    fn info(&self, node: &RedisNode, protocol: ProtocolVersion) -> RedisResult<ConnectionInfo> {
        let credentials = &self.settings.credentials;
        let mut login = RedisConnectionInfo::default()
            .set_db(i64::from(self.settings.database))
            .set_protocol(protocol)
            .set_lib_name(CLIENT_NAME, env!("CARGO_PKG_VERSION"));
        if let Some(username) = &credentials.username {
            login = login.set_username(username);
        }
        if let Some(password) = &credentials.password {
            login = login.set_password(&password.0);
        }
        let address = match (node, &self.settings.tls) {
            (RedisNode::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
            (RedisNode::Tcp { host, port }, None) => ConnectionAddr::Tcp(host.clone(), *port),
            (RedisNode::Tcp { host, port }, Some(tls)) => ConnectionAddr::TcpTls {
                host: tls.server_name.clone().unwrap_or_else(|| host.clone()),
                port: *port,
                insecure: false,
                tls_params: None,
            },
        };
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        Ok(("localhost", 0)
            .into_connection_info()?
            .set_addr(address)
            .set_redis_settings(login)
            .set_tcp_settings(tcp))
    }

    /// Read anew for every connection: files may be replaced while we run.
    fn certificates(&self) -> Result<Option<TlsCertificates>, StoreTrouble> {
        let Some(tls) = &self.settings.tls else { return Ok(None) };
        let client_tls = match &tls.client {
            None => None,
            Some(client) => {
                Some(ClientTlsConfig { client_cert: read(&client.chain)?, client_key: read(&client.key)? })
            }
        };
        let root_cert = tls.ca_file.as_deref().map(read).transpose()?;
        Ok(Some(TlsCertificates { client_tls, root_cert }))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreTrouble> {
    std::fs::read(path)
        .map_err(|error| StoreTrouble::new(Trouble::Tls, format!("{}: {error}", path.display())))
}

/// Whether the server doesn't know HELLO, or not this version of the protocol.
fn is_about_protocol(error: &RedisError) -> bool {
    let text = error.to_string();
    error.kind() == ErrorKind::RESP3NotSupported
        || text.contains("NOPROTO")
        || text.contains("unknown command")
}

/// Resolves to the host that is connected to, whatever name its certificate has.
struct Resolved {
    host: String,
}

impl AsyncDNSResolver for Resolved {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _name: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((self.host.as_str(), port)).await?;
            let addresses: Vec<SocketAddr> = addresses.collect();
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
