//! The engine's settings: what guests may use, what the pool of instances reserves.

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result};

use crate::guest::Guest;
use crate::{inert, v0_1};

/// Linear memories of an instance. QuickJS has two, others one.
pub(crate) const MEMORIES_MAX: u32 = 4;
/// Tables of an instance.
pub(crate) const TABLES_MAX: u32 = 16;
/// Core modules of an instance. Python's have about thirty.
pub(crate) const CORE_INSTANCES_MAX: u32 = 64;
/// Elements of a table: address space only, until they are used.
const TABLE_ELEMENTS_MAX: usize = 128 * 1024;
/// A guest's own stack, in bytes.
const STACK_BYTES_MAX: usize = 512 * 1024;
/// The stack of a call: the guest's own, and what the host's functions need on top.
const CALL_STACK_BYTES: usize = 1024 * 1024;
/// Bytes that a guest may hand over in one go, an answer included.
pub(crate) const HANDED_BYTES_MAX: usize = 1024 * 1024;

/// An engine that reserves room for so many instances.
///
/// Only epochs interrupt: fuel costs more on every instruction, and says nothing about time.
pub(crate) fn engine(instances_max: usize) -> Result<Engine> {
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances_max)))
        .epoch_interruption(true)
        .concurrency_support(false)
        .max_wasm_stack(STACK_BYTES_MAX)
        .async_stack_size(CALL_STACK_BYTES)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .cranelift_nan_canonicalization(true);
    Engine::new(&config)
}

/// What each kind of component is linked against.
pub(crate) struct Linkers {
    bare: Linker<Guest>,
    with_wasi: Linker<Guest>,
}

impl Linkers {
    pub(crate) fn new(engine: &Engine) -> Result<Self> {
        let mut bare = Linker::new(engine);
        v0_1::add_to_linker(&mut bare)?;
        let mut with_wasi = bare.clone();
        inert::add_to_linker(&mut with_wasi)?;
        Ok(Self { bare, with_wasi })
    }

    /// The smallest linker that has all of these imports.
    pub(crate) fn find(&self, imports: &[String]) -> &Linker<Guest> {
        if imports.iter().any(|import| import.starts_with("wasi:")) { &self.with_wasi } else { &self.bare }
    }
}

fn pool(instances_max: usize) -> PoolingAllocationConfig {
    let instances = u32::try_from(instances_max).unwrap_or(u32::MAX / CORE_INSTANCES_MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_MAX))
        .total_memories(instances.saturating_mul(MEMORIES_MAX))
        .total_tables(instances.saturating_mul(TABLES_MAX))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_component_instance_size(4 * 1024 * 1024)
        .table_elements(TABLE_ELEMENTS_MAX);
    pool
}
