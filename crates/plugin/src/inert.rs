//! WASI for guests whose toolchain insists on it: there, and telling nothing. No file, no network, no variable, closed
//! standard streams, clocks that stand still, and "random" bytes that are always the same.

use std::time::Duration;

use wasmtime::Result;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use crate::guest::Guest;

/// WASI resources that an instance may hold.
const RESOURCES_MAX: usize = 1024;
/// Bytes of one `get-random-bytes`.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;

/// What "random" bytes are: long enough that no sampling loops for ever.
const BYTES: &[u8; 64] = b"refrain: these bytes are not random, nor must a policy need such";

/// WASI of one instance, made when it is first asked for.
#[derive(Default)]
pub(crate) struct Inert(Option<Box<Wasi>>);

struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
}

/// Offers WASI 0.2.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Wasi { context, table } = &mut **self.inert.0.get_or_insert_with(|| Box::new(Wasi::new()));
        WasiCtxView { ctx: context, table }
    }
}

impl Wasi {
    fn new() -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let context = WasiCtx::builder()
            .secure_random(Deterministic::new(BYTES.to_vec()))
            .insecure_random(Deterministic::new(BYTES.to_vec()))
            .insecure_random_seed(0)
            .max_random_size(RANDOM_BYTES_MAX)
            .wall_clock(Stopped)
            .monotonic_clock(Stopped)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        Self { context, table }
    }
}

/// A clock that stands still.
struct Stopped;

impl HostWallClock for Stopped {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Stopped {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}
