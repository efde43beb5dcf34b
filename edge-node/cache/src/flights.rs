//! The fills in flight, by primary key: where requests find one to join. Locks are short and sharded;
//! nothing here waits.

use crate::fill::Fill;
use ahash::AHashMap;
use parking_lot::Mutex;
use std::sync::Arc;

const SHARDS: u64 = 32;

type Shard = AHashMap<u64, Vec<Arc<Fill>>>;

/// All fills in flight.
pub(crate) struct Flights {
    shards: Vec<Mutex<Shard>>,
}

/// The fills of one key, under its lock.
pub(crate) struct Locked<'a> {
    shard: &'a mut Shard,
    hash: u64,
}

// === impl Flights ===

impl Flights {
    pub(crate) fn new() -> Flights {
        Flights { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Does something while nobody else can join, start or end a fill of this key, or store under it.
    pub(crate) fn with<T>(&self, hash: u64, work: impl FnOnce(&mut Locked<'_>) -> T) -> T {
        let index = usize::try_from((hash >> 32) % SHARDS).unwrap_or(0);
        match self.shards.get(index) {
            Some(shard) => work(&mut Locked { shard: &mut shard.lock(), hash }),
            // There are as many shards as the index has values.
            None => work(&mut Locked { shard: &mut Shard::default(), hash }),
        }
    }

    /// A fill is over, or no longer to be joined.
    pub(crate) fn leave(&self, hash: u64, fill: &Arc<Fill>) {
        self.with(hash, |flights| flights.remove(fill));
    }

    /// Looks at all of them, shard by shard.
    pub(crate) fn each(&self, mut look: impl FnMut(&Arc<Fill>)) {
        for shard in &self.shards {
            shard.lock().values().flatten().for_each(&mut look);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().values().map(Vec::len).sum::<usize>()).sum()
    }
}

// === impl Locked ===

impl Locked<'_> {
    pub(crate) fn fills(&self) -> &[Arc<Fill>] {
        self.shard.get(&self.hash).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn add(&mut self, fill: Arc<Fill>) {
        self.shard.entry(self.hash).or_default().push(fill);
    }

    fn remove(&mut self, fill: &Arc<Fill>) {
        if let Some(fills) = self.shard.get_mut(&self.hash) {
            fills.retain(|other| !Arc::ptr_eq(other, fill));
            if fills.is_empty() {
                self.shard.remove(&self.hash);
            }
        }
    }
}
