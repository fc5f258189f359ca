//! Several model servers behind one pool, and pools behind each other.

mod affinity;
mod assemble;
mod discovery;
mod fallback;
pub(crate) mod operators;
mod overload;
mod proxies;
mod tenancy;

use std::fmt::Write;

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Config, Refrain};

/// So many fakes.
async fn fakes(count: usize) -> Vec<FakeUpstream> {
    let mut fakes = Vec::new();
    for _ in 0..count {
        fakes.push(FakeUpstream::start().await);
    }
    fakes
}

/// A pool of these servers, asked by a route of everything that is not cached, with more lines for the pool.
fn pool_of(fakes: &[FakeUpstream], lines: &str) -> Config {
    let urls: Vec<String> = fakes.iter().map(FakeUpstream::url).collect();
    let mut tables = format!("[pool.fleet]\nendpoints = {urls:?}\n{lines}\n");
    writeln!(tables, "[route.fleet]\npool = \"fleet\"\npath = \"/v1\"\ncache = false").unwrap();
    writeln!(tables, "[route.native]\npool = \"fleet\"\npath = \"/api\"\ncache = false").unwrap();
    Config::new("http://127.0.0.1:1").tables(&tables)
}

async fn fleet(fakes: &[FakeUpstream], lines: &str) -> Refrain {
    Refrain::start(&pool_of(fakes, lines)).await
}

/// `POST`s that each was sent.
fn posts(fakes: &[FakeUpstream]) -> Vec<usize> {
    fakes.iter().map(FakeUpstream::posts).collect()
}
