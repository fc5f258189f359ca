//! The client against real sockets and servers that follow no rules.

mod answers;
mod identity;
mod requests;
mod retries;
mod reuse;
mod server;
mod timeouts;
mod tls;
