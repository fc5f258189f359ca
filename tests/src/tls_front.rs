//! A terminator of TLS before a fake upstream, as a fleet has one: it speaks HTTP/2 or HTTP/1.1, as ALPN says, and notes
//! how it was spoken to.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::rt::Executor as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Ends with the test.
pub struct TlsFront {
    address: SocketAddr,
    greetings: Arc<Mutex<Vec<Greeting>>>,
    _tasks: JoinSet<()>,
}

/// What a client said as its TLS began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The name that it asked for (SNI).
    pub server_name: Option<String>,
    /// What was chosen by ALPN.
    pub protocol: String,
    /// Whether it proved who it is.
    pub has_certificate: bool,
}

impl TlsFront {
    /// Starts one on a free port, before a server at `behind`.
    pub async fn start(behind: SocketAddr, tls: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let greetings = Arc::<Mutex<Vec<Greeting>>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, TlsAcceptor::from(tls), behind, greetings.clone()));
        Self { address, greetings, _tasks: tasks }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// What clients said whose TLS was set up, in their order.
    pub fn greetings(&self) -> Vec<Greeting> {
        self.greetings.lock().clone()
    }
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    behind: SocketAddr,
    greetings: Arc<Mutex<Vec<Greeting>>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        tcp.set_nodelay(true).unwrap();
        let (tls, greetings) = (tls.clone(), greetings.clone());
        connections.spawn(async move {
            // A client that is refused, or refuses, is no matter of the front.
            let Ok(stream) = tls.accept(tcp).await else { return };
            let session = stream.get_ref().1;
            greetings.lock().push(Greeting {
                server_name: session.server_name().map(str::to_owned),
                protocol: String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned(),
                has_certificate: session.peer_certificates().is_some(),
            });
            let service = service_fn(|request| relay(behind, request));
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Asks the server behind, on a connection of its own.
async fn relay(behind: SocketAddr, request: Request<Incoming>) -> hyper::Result<Response<Incoming>> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let host = head.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()).unwrap());
    head.headers.extend(host.map(|host| (http::header::HOST, host)));
    head.uri = Uri::try_from(path).unwrap();
    head.version = http::Version::HTTP_11;
    let tcp = TcpStream::connect(behind).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
    let answer = sender.send_request(Request::from_parts(head, body));
    // It ends with the answer's body, or with this process.
    TokioExecutor::new().execute(async move { drop(connection.await) });
    answer.await
}
