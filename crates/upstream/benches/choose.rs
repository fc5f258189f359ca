//! Choosing an endpoint for a prompt, taking the seat and giving it back: what a request pays for balance.

#![allow(clippy::expect_used, reason = "a benchmark")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use refrain_core::settings::{Balance, Endpoint, Pool};
use refrain_upstream::{Affinity, Demand, Millis, PoolState, Prefix, Seat, Upstreams};

const NOW: Millis = Millis(1_000_000);
/// Different conversations.
const PROMPTS: u64 = 1024;
/// Turns of a conversation so far.
const TURNS: u64 = 16;
/// Requests that each endpoint answers meanwhile: more than it computes side by side, so that bounds count.
const BUSY: usize = 10;

fn main() {
    divan::main();
}

/// Prompts that nobody has seen.
#[divan::bench(args = [8, 128], sample_size = 1000)]
fn new_conversation(bencher: Bencher<'_, '_>, endpoints: usize) {
    let fleet = Fleet::new(Balance::Prefix, endpoints);
    fleet.measure(bencher, Duration::from_secs(2));
}

/// Prompts whose former turns went somewhere.
#[divan::bench(args = [8, 128], sample_size = 1000)]
fn next_turn(bencher: Bencher<'_, '_>, endpoints: usize) {
    let fleet = Fleet::new(Balance::Prefix, endpoints);
    for prompt in prompts(1) {
        drop(fleet.pool.try_seat(&prompt, NOW));
    }
    fleet.measure(bencher, Duration::ZERO);
}

/// In turn, to compare with.
#[divan::bench(args = [8, 128], sample_size = 1000)]
fn round_robin(bencher: Bencher<'_, '_>, endpoints: usize) {
    Fleet::new(Balance::RoundRobin, endpoints).measure(bencher, Duration::ZERO);
}

struct Fleet {
    pool: Arc<PoolState>,
    _load: Vec<Seat>,
}

impl Fleet {
    fn new(balance: Balance, endpoints: usize) -> Self {
        let endpoint = |nth| Endpoint::plain(format!("gpu-{nth}").as_str(), "127.0.0.1", 1);
        let endpoints: Vec<_> = (0..endpoints).map(endpoint).collect();
        let count = endpoints.len();
        let config = Arc::new(Pool { balance, ..Pool::new("fleet".into(), endpoints) });
        let upstreams =
            Upstreams::new(&BTreeMap::from([(config.id.clone(), config.clone())])).expect("plain endpoints");
        let pool = upstreams.pool(&config.id).expect("it is there").clone();
        let anything = Demand { tokens: 1_000, ..Demand::default() };
        let load = (0..BUSY * count).filter_map(|_| pool.try_seat(&anything, NOW)).collect();
        Self { pool, _load: load }
    }

    /// One prompt after another, so far apart: what was not asked for in a while is forgotten.
    fn measure(&self, bencher: Bencher<'_, '_>, apart: Duration) {
        let prompts = prompts(0);
        let (mut next, mut now) = (prompts.iter().cycle(), NOW);
        bencher.bench_local(|| {
            now = now.after(apart);
            drop(self.pool.try_seat(black_box(next.next().expect("endless")), now));
        });
    }
}

/// Prompts as they were so many turns ago.
fn prompts(turns_ago: u64) -> Vec<Demand> {
    let hash = |prompt: u64, turn: u64| {
        let hash = *blake3::hash(&[prompt.to_le_bytes(), turn.to_le_bytes()].concat()).as_bytes();
        u64::from_le_bytes(*hash.first_chunk().expect("32 bytes"))
    };
    let prompt = |prompt: u64| {
        let longer = (1..=TURNS - turns_ago).map(|turn| hash(prompt, turn)).collect();
        let affinity = Affinity::Prefix(Prefix { home: hash(prompt, 0), longer });
        Demand { affinity, model: Some("gemma".into()), tokens: 1_000, ..Demand::default() }
    };
    (0..PROMPTS).map(prompt).collect()
}
