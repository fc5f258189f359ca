//! An HTTP/1.1 connection: one request at a time. Dropping it closes the socket, whatever is under way.
//!
//! No task drives it: whoever has a request on it polls it along, which spares two switches of tasks each way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use refrain_core::DeadlineTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::bell::Bell;
use crate::connect::HEAD_BYTES_MAX;
use crate::connections::Permit;
use crate::request::SentBody;

/// Largest read buffer of a connection, in bytes.
const READ_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// One HTTP/1.1 connection.
pub(crate) struct Http1 {
    pub(crate) sender: SendRequest<SentBody>,
    /// None once the connection has ended.
    driver: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    pub(crate) bell: Bell,
    /// Kept from request to request: most never get near a deadline.
    timer: DeadlineTimer,
    /// Requests sent on it.
    pub(crate) served: u32,
    /// Requests it takes in all, if the upstream said so.
    pub(crate) served_max: Option<u32>,
    /// Its share of the connections that may be open; none until it is counted.
    pub(crate) permit: Option<Permit>,
}

impl Http1 {
    /// Begins to speak HTTP/1.1 on a connection that nothing was sent on.
    pub(crate) async fn begin<T>(io: T) -> hyper::Result<Self>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(READ_BUFFER_BYTES_MAX)
            .handshake::<_, SentBody>(TokioIo::new(io))
            .await?;
        // Errors of the connection reach whoever waits for an answer on it; an idle one has nobody to tell.
        let driver = Box::pin(async move { drop(connection.await) });
        let mut line = Self {
            sender,
            driver: Some(driver),
            bell: Bell::new(),
            timer: DeadlineTimer::default(),
            served: 0,
            served_max: None,
            permit: None,
        };
        line.look();
        Ok(line)
    }

    /// Reads and writes what it can. From then on its bell rings for this task.
    pub(crate) fn drive(&mut self, cx: &Context<'_>) {
        self.bell.attach(cx);
        self.turn();
    }

    /// Reads and writes what it can, for nobody who waits: an idle connection learns only so that the server closed it.
    pub(crate) fn look(&mut self) {
        self.bell.detach();
        self.turn();
    }

    fn turn(&mut self) {
        let Some(driver) = &mut self.driver else { return };
        if driver.as_mut().poll(&mut self.bell.context()).is_ready() {
            self.driver = None;
        }
    }

    /// Ready once `deadline` has passed. The bell rings for it.
    pub(crate) fn poll_deadline(&mut self, deadline: Instant) -> Poll<()> {
        self.timer.poll(&mut self.bell.context(), deadline)
    }

    /// Whether it takes another request now.
    pub(crate) fn is_ready(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { served, served_max, .. } = self;
        f.debug_struct("Http1").field("served", served).field("served_max", served_max).finish()
    }
}
