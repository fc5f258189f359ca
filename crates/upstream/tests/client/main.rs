//! The client against real sockets and servers that follow no rules.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test's failure is a panic")]

mod answers;
mod authority;
mod discovery;
mod frames;
mod gpu;
mod http2;
mod hyper_server;
mod identity;
mod limits;
mod requests;
mod retries;
mod reuse;
mod server;
mod timeouts;
mod tls;
