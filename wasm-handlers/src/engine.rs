//! How guests are compiled and run: one set of tunables for the compiler child and for the edge, so
//! that the artefacts of the one fit the other. No tenant's data comes here.

use std::num::NonZeroUsize;

use verge_config::component::Contract;
use wasmtime::component::Component;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
};

use crate::idle;
use crate::settings::{SandboxSettings, limits};

/// What the host may keep resident of an instance's memory once the instance is gone, in bytes:
/// these pages are reset by copying, which is cheaper than faulting them in again.
const MEMORY_KEEP_RESIDENT: usize = 4 * 1024 * 1024;
/// The same where the kernel cannot say which pages were written and all of them are copied.
const MEMORY_KEEP_RESIDENT_BLIND: usize = 128 * 1024;
const TABLE_KEEP_RESIDENT: usize = 64 * 1024;

/// The tables that there are in the pool for each instance; most components have two or three.
const TABLES_EACH: u32 = 4;

/// What compiled code depends on. Everything here is part of the compatibility hash. Each contract has
/// an engine of its own: what `wasi:http/handler` needs to run several tasks in one instance would be set
/// up for every instance of the other, too.
fn tunables(contract: Contract) -> Config {
    let is_concurrent = contract == Contract::Handler;
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_multi_memory(true)
        .wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(false)
        .concurrency_support(is_concurrent)
        .wasm_component_model_async(is_concurrent)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        // Frames are walked by frame pointers; unwind tables would only be registered and never used.
        .native_unwind_info(false)
        .max_wasm_stack(limits::STACK_BYTES)
        .memory_init_cow(true);
    config
}

/// The compiler's engine: it never runs anything, so it reserves no memory for instances.
pub(crate) fn compiler(contract: Contract) -> wasmtime::Result<Engine> {
    Engine::new(&tunables(contract))
}

/// The edge's engine: the same code, instances from a pool.
pub(crate) fn runner(contract: Contract, settings: &SandboxSettings) -> wasmtime::Result<Engine> {
    let mut config = tunables(contract);
    config
        .wasm_backtrace_max_frames(NonZeroUsize::new(16))
        // A stack holds frames and spilled values, which no guest can read before it has written them.
        .async_stack_zeroing(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(contract, settings)));
    Engine::new(&config)
}

/// How many instances one of this component counts as, so that the pool has memories and tables for all
/// that are let in, and none of a few components can take what is there for many.
pub(crate) fn weight(component: &Component) -> u32 {
    let Some(needs) = component.resources_required() else { return 1 };
    needs.num_memories.max(needs.num_tables.div_ceil(TABLES_EACH)).max(1)
}

fn pool(contract: Contract, settings: &SandboxSettings) -> PoolingAllocationConfig {
    // Instances that wait for their next request are no instances that a request cannot have.
    let waiting = if contract == Contract::Handler { idle::MAX_INSTANCES } else { 0 };
    let count = settings.max_instances.saturating_add(waiting);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(count)
        .total_core_instances(count.saturating_mul(limits::CORE_INSTANCES))
        .total_memories(count)
        .total_tables(count.saturating_mul(TABLES_EACH))
        .total_stacks(count)
        .max_core_instances_per_component(limits::CORE_INSTANCES)
        .max_memories_per_component(limits::MEMORIES)
        .max_tables_per_component(limits::TABLES)
        .max_memories_per_module(limits::MEMORIES)
        .max_tables_per_module(limits::TABLES)
        .table_elements(limits::TABLE_BYTES / size_of::<usize>())
        .max_memory_size(usize::try_from(settings.max_memory).unwrap_or(usize::MAX))
        .table_keep_resident(TABLE_KEEP_RESIDENT);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(MEMORY_KEEP_RESIDENT);
    } else {
        pool.linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_BLIND);
    }
    pool
}
