//! What the cache counts of itself.

use crate::disk::Disk;
use crate::freshness::NotStored;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) revalidated: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) collapsed: AtomicU64,
    pub(crate) bypassed: AtomicU64,
    pub(crate) fetches: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) refused_by_purge: AtomicU64,
    pub(crate) too_large: AtomicU64,
    pub(crate) incomplete: AtomicU64,
    pub(crate) not_storable: AtomicU64,
    pub(crate) ignored_tags: AtomicU64,
}

/// Figures of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Primary keys with something stored.
    pub entries: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Entries evicted for want of room, since the start.
    pub evicted: u64,
    /// Fills in flight.
    pub fills: u64,
    /// Bytes of the fills in flight.
    pub fill_bytes: u64,
    /// Purge selectors kept, of all sites.
    pub selectors: u64,
    /// Requests answered fresh from the store.
    pub hits: u64,
    /// Requests answered stale.
    pub stale: u64,
    /// Requests answered after a 304.
    pub revalidated: u64,
    /// Requests that began a fill.
    pub misses: u64,
    /// Requests that joined a fill.
    pub collapsed: u64,
    /// Requests that were not for the cache.
    pub bypassed: u64,
    /// Requests sent to sources by fills.
    pub fetches: u64,
    /// Of them, those that failed without an answer.
    pub failures: u64,
    /// Responses stored.
    pub stored: u64,
    /// Responses not stored since a purge or an invalidation came first.
    pub refused_by_purge: u64,
    /// Responses not stored for their length.
    pub too_large: u64,
    /// Responses that did not arrive whole.
    pub incomplete: u64,
    /// Responses that may not be stored.
    pub not_storable: u64,
    /// Tags over a limit.
    pub ignored_tags: u64,
    /// Bytes of content that the disk tier also has in memory.
    pub ram_bytes: u64,
    /// Operations of the disk that failed, and files of it that were damaged.
    pub disk_faults: u64,
}

// === impl Counters ===

impl Counters {
    pub(crate) fn note(&self, reason: NotStored) {
        let counter = match reason {
            NotStored::TooLarge => &self.too_large,
            NotStored::Incomplete => &self.incomplete,
            NotStored::Purged => return,
            _ => &self.not_storable,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(
        &self,
        entries: u64,
        bytes: u64,
        evicted: u64,
        fills: u64,
        fill_bytes: u64,
        selectors: u64,
    ) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            entries,
            bytes,
            evicted,
            fills,
            fill_bytes,
            selectors,
            hits: get(&self.hits),
            stale: get(&self.stale),
            revalidated: get(&self.revalidated),
            misses: get(&self.misses),
            collapsed: get(&self.collapsed),
            bypassed: get(&self.bypassed),
            fetches: get(&self.fetches),
            failures: get(&self.failures),
            stored: get(&self.stored),
            refused_by_purge: get(&self.refused_by_purge),
            too_large: get(&self.too_large),
            incomplete: get(&self.incomplete),
            not_storable: get(&self.not_storable),
            ignored_tags: get(&self.ignored_tags),
            ..Stats::default()
        }
    }
}

impl Stats {
    /// With the disk tier's own figures.
    pub(crate) fn with_disk(self, disk: Option<&Disk>) -> Stats {
        let Some(disk) = disk else { return self };
        Stats { ram_bytes: disk.ram_bytes(), disk_faults: disk.faults(), ..self }
    }
}
