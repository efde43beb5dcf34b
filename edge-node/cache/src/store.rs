//! The RAM tier: entries by primary key, each with all its variants, weighed by bytes (moka, TinyLFU).
//! Knows nothing of freshness; a purge never relies on an entry being gone from here.

use crate::key::{Key, KeyRef};
use crate::object::StoredObject;
use crate::purge_index::Verdict;
use crate::site::SiteState;
use http::HeaderMap;
use moka::ops::compute::Op;
use moka::sync::Cache as Moka;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an entry takes besides its key and variants, in bytes.
const ENTRY_OVERHEAD: usize = 320;

/// Every variant under one primary key, newest first. Immutable: a change makes a new entry.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The key, to be compared with what is looked for.
    pub(crate) key: Key,
    /// The site.
    pub(crate) site: Arc<SiteState>,
    /// The variants.
    pub(crate) variants: Vec<Arc<StoredObject>>,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    entries: Moka<u64, Arc<Entry>, ahash::RandomState>,
    max_variants: usize,
    evicted: Arc<AtomicU64>,
}

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It is in.
    Stored,
    /// A purge came before it.
    Purged,
    /// Another key has the same 64 bits: it stays.
    Collision,
    /// What is in is newer.
    Outdated,
}

// === impl Entry ===

impl Entry {
    /// The newest variant that a request selects.
    #[must_use]
    pub(crate) fn select(&self, request: &HeaderMap) -> Option<&Arc<StoredObject>> {
        self.variants.iter().find(|object| object.selected_by(request))
    }

    fn weight(&self) -> u32 {
        let variants: usize = self.variants.iter().map(|object| object.weight()).sum();
        u32::try_from(ENTRY_OVERHEAD + self.key.weight() + variants).unwrap_or(u32::MAX)
    }
}

// === impl Store ===

impl Store {
    /// An empty store of `bytes`.
    #[must_use]
    pub(crate) fn new(bytes: u64, max_variants: usize, hasher: ahash::RandomState) -> Store {
        let evicted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&evicted);
        let entries = Moka::builder()
            .max_capacity(bytes)
            .weigher(|_, entry: &Arc<Entry>| entry.weight())
            .eviction_listener(move |_, _, cause| {
                if cause.was_evicted() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_with_hasher(hasher);
        Store { entries, max_variants: max_variants.max(1), evicted }
    }

    /// The entry under a key.
    #[must_use]
    pub(crate) fn get(&self, hash: u64, key: &KeyRef<'_>) -> Option<Arc<Entry>> {
        self.entries.get(&hash).filter(|entry| entry.key.is(key))
    }

    /// Stores an object: the purges are asked again under the entry's lock, and what would be selected
    /// by the same requests goes, unless it is newer.
    pub(crate) fn insert(
        &self,
        hash: u64,
        key: &Key,
        site: &Arc<SiteState>,
        object: &Arc<StoredObject>,
    ) -> Inserted {
        let mut outcome = Inserted::Stored;
        self.entries.entry(hash).and_compute_with(|present| {
            if site.verdict(key, object) == Verdict::Dead {
                outcome = Inserted::Purged;
                return Op::Nop;
            }
            let mut variants = vec![Arc::clone(object)];
            if let Some(entry) = present.map(moka::Entry::into_value) {
                if !same_key(&entry.key, key) {
                    outcome = Inserted::Collision;
                    return Op::Nop;
                }
                for other in &entry.variants {
                    if !other.same_selection(object) {
                        variants.push(Arc::clone(other));
                    } else if age_order(other) > age_order(object) {
                        outcome = Inserted::Outdated;
                        return Op::Nop;
                    }
                }
            }
            variants.truncate(self.max_variants);
            Op::Put(Arc::new(Entry { key: key.clone(), site: Arc::clone(site), variants }))
        });
        outcome
    }

    /// Keeps only the variants that are wanted; returns how many went.
    pub(crate) fn retain(
        &self,
        hash: u64,
        wanted: impl Fn(&Entry, &StoredObject) -> bool,
    ) -> usize {
        let mut gone = 0;
        self.entries.entry(hash).and_compute_with(|present| {
            let Some(entry) = present.map(moka::Entry::into_value) else { return Op::Nop };
            let variants: Vec<_> =
                entry.variants.iter().filter(|object| wanted(&entry, object)).cloned().collect();
            gone = entry.variants.len() - variants.len();
            if gone == 0 {
                Op::Nop
            } else if variants.is_empty() {
                Op::Remove
            } else {
                let (key, site) = (entry.key.clone(), Arc::clone(&entry.site));
                Op::Put(Arc::new(Entry { key, site, variants }))
            }
        });
        gone
    }

    /// Every entry, in no order, while others come and go.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Arc<Entry>)> + '_ {
        self.entries.iter().map(|(hash, entry)| (*hash, entry))
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.entries.invalidate_all();
    }

    /// Entries, their bytes, and how many were evicted so far.
    #[must_use]
    pub(crate) fn figures(&self) -> (u64, u64, u64) {
        self.entries.run_pending_tasks();
        let evicted = self.evicted.load(Ordering::Relaxed);
        (self.entries.entry_count(), self.entries.weighted_size(), evicted)
    }
}

/// Later epochs and, within one, later answers are the newer ones.
fn age_order(object: &StoredObject) -> (u64, u64) {
    (object.epoch.applied, object.freshness.received)
}

fn same_key(a: &Key, b: &Key) -> bool {
    a.is(&KeyRef {
        site: &b.site,
        scheme: &b.scheme,
        host: &b.host,
        path: &b.path,
        query: b.query.as_deref().map(std::borrow::Cow::Borrowed),
        kind: b.kind,
    })
}
