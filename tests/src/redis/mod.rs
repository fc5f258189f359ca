//! Real Redis servers, each a process of its own in a temporary folder: Redis 8, Redis 8 with the query engine, Debian's
//! Redis 7, clusters of them, and a relay that spoils the way to them.
//!
//! `cargo xtask setup --only redis` prepares the programs. A server is small (10 MB) and starts in 0.1 s: each test starts
//! its own. It ends when dropped. Tests with clusters have `redis_cluster` in their names: they run one at a time.

mod cluster;
mod connection;
mod options;
mod relay;
mod server;
mod value;

pub use cluster::{RedisCluster, SLOTS, SlotMove};
pub use connection::RedisConnection;
pub use options::{ClientCertificates, Flavour, RedisOptions};
pub use relay::{Passage, Relay};
pub use server::RedisServer;
pub use value::Value;
