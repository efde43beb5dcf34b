//! Bounds an instance's memories and tables, and remembers that it was refused some: a guest that
//! fails afterwards failed for want of memory, whatever its trap says.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wasmtime::ResourceLimiter;

use super::Call;
use crate::settings::limits;

/// The limits of one instance. Memories are counted together, and so are tables.
pub(super) struct Limiter {
    call: Arc<Call>,
    memory: u64,
    table_elements: usize,
}

impl Limiter {
    pub(super) fn new(call: Arc<Call>) -> Limiter {
        Limiter { call, memory: 0, table_elements: 0 }
    }

    /// Another request begins; what the instance has got, it keeps.
    pub(super) fn begin(&mut self, call: Arc<Call>) {
        call.peak_memory.store(self.memory, Ordering::Relaxed);
        self.call = call;
    }

    /// All memories, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.memory
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The component's own maximum is its own affair, the pool's is the operator's: the
            // handler's limit was lowered to it, and is what the developer is told.
            self.call.memory_refused.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        let total = self.memory.saturating_add(desired.saturating_sub(current) as u64);
        if total > self.call.limits.memory {
            self.call.memory_refused.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        self.memory = total;
        self.call.peak_memory.store(total, Ordering::Relaxed);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // As above: the pool's maximum is the limit of all tables.
            self.call.memory_refused.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        if total.saturating_mul(size_of::<usize>()) > limits::TABLE_BYTES {
            self.call.memory_refused.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        limits::CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        limits::TABLES as usize
    }

    fn memories(&self) -> usize {
        limits::MEMORIES as usize
    }
}
