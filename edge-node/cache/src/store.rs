//! The store: entries by primary key, each with all its variants, weighed by bytes (moka, TinyLFU); what
//! leaves it leaves its site's catalogue, and its file goes too. Knows nothing of freshness; a purge
//! never relies on an entry being gone from here.

use crate::content::Content;
use crate::disk::{self, Disk};
use crate::key::{Key, KeyRef};
use crate::object::StoredObject;
use crate::purge_index::Verdict;
use crate::site::SiteState;
use http::HeaderMap;
use moka::ops::compute::Op;
use moka::sync::Cache as Moka;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an entry takes in memory besides its key and variants, in bytes: its own struct, the places in
/// the store's and the catalogue's tables.
const ENTRY_OVERHEAD: usize = size_of::<Entry>() + 320;
/// Weights are counted in units of so many bytes, so that a large file's fits.
const UNIT_BYTES: u64 = 64;
/// The most parts of one representation that an entry keeps.
const MAX_PARTS: usize = 16;

/// Every variant under one primary key, newest first. Immutable: a change makes a new entry.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The key, to be compared with what is looked for.
    pub(crate) key: Arc<Key>,
    /// The site.
    pub(crate) site: Arc<SiteState>,
    /// The variants.
    pub(crate) variants: Box<[Arc<StoredObject>]>,
}

/// The store.
pub(crate) struct Store {
    entries: Moka<u64, Arc<Entry>, ahash::RandomState>,
    max_variants: usize,
    evicted: Arc<AtomicU64>,
    disk: Option<Arc<Disk>>,
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
    /// The newest whole variant that a request selects.
    #[must_use]
    pub(crate) fn select(&self, request: &HeaderMap) -> Option<&Arc<StoredObject>> {
        self.variants.iter().find(|object| object.span.is_none() && object.selected_by(request))
    }

    fn memory(&self) -> u64 {
        let variants: usize = self.variants.iter().map(|object| object.weight()).sum();
        (ENTRY_OVERHEAD + self.key.weight() + variants) as u64
    }

    /// The bytes that count: of files where there are files, of memory where there are none; and never
    /// less than what the share of memory comes to that is for knowing what the files are.
    fn weight(&self, memory_factor: u64) -> u32 {
        let files: u64 = self.variants.iter().map(|object| file_bytes(object)).sum();
        let bytes = files.max(self.memory().saturating_mul(memory_factor));
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
    }

    /// It came into the store.
    fn added(self: &Arc<Self>) {
        for filed in self.files() {
            filed.held();
        }
        self.site.catalogue.add(self);
    }

    /// It has left the store.
    fn removed(self: &Arc<Self>, disk: Option<&Disk>) {
        self.site.catalogue.remove(self);
        for filed in self.files() {
            if filed.let_go()
                && let Some(disk) = disk
            {
                disk.remove(filed.id);
            }
        }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &Arc<disk::Filed>> {
        self.variants.iter().filter_map(|object| match &object.content {
            Content::Filed(filed) => Some(filed),
            Content::Inline | Content::Shared(_) | Content::MemoryFile(..) => None,
        })
    }
}

fn file_bytes(object: &StoredObject) -> u64 {
    match &object.content {
        Content::Filed(filed) => disk::file_bytes(object, filed),
        Content::Inline | Content::Shared(_) | Content::MemoryFile(..) => 0,
    }
}

// === impl Store ===

impl Store {
    /// An empty store of so many bytes of memory, or of `disk`, which then has `disk_bytes` of files.
    #[must_use]
    pub(crate) fn new(
        ram_bytes: u64,
        disk: Option<(Arc<Disk>, u64)>,
        max_variants: usize,
        hasher: ahash::RandomState,
    ) -> Store {
        let evicted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&evicted);
        let (bytes, factor) = match &disk {
            // What is known of files stays within as much memory as their content may take.
            Some((_, bytes)) => (*bytes, bytes.checked_div(ram_bytes).unwrap_or(1).clamp(1, 1_000)),
            None => (ram_bytes, 1),
        };
        let disk = disk.map(|(disk, _)| disk);
        let files = disk.clone();
        let entries = Moka::builder()
            .max_capacity(bytes / UNIT_BYTES)
            .weigher(move |_, entry: &Arc<Entry>| entry.weight(factor))
            .eviction_listener(move |_, entry: Arc<Entry>, cause| {
                entry.removed(files.as_deref());
                if cause.was_evicted() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_with_hasher(hasher);
        Store { entries, max_variants: max_variants.max(1), evicted, disk }
    }

    /// The disk tier, where there is one.
    pub(crate) fn disk(&self) -> Option<&Arc<Disk>> {
        self.disk.as_ref()
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
        key: &Arc<Key>,
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
                if *entry.key != **key {
                    outcome = Inserted::Collision;
                    return Op::Nop;
                }
                for other in &entry.variants {
                    if !other.same_selection(object) || !other.gives_way_to(object) {
                        variants.push(Arc::clone(other));
                    } else if age_order(other) > age_order(object) {
                        outcome = Inserted::Outdated;
                        return Op::Nop;
                    }
                }
            }
            self.limit(&mut variants);
            let key = Arc::clone(key);
            let (site, variants) = (Arc::clone(site), variants.into_boxed_slice());
            Op::Put(put(Entry { key, site, variants }))
        });
        outcome
    }

    fn limit(&self, variants: &mut Vec<Arc<StoredObject>>) {
        let (mut whole, mut parts) = (0, 0);
        variants.retain(|object| {
            let (count, most) = match object.span {
                None => (&mut whole, self.max_variants),
                Some(_) => (&mut parts, MAX_PARTS),
            };
            *count += 1;
            *count <= most
        });
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
                let (key, site) = (Arc::clone(&entry.key), Arc::clone(&entry.site));
                Op::Put(put(Entry { key, site, variants: variants.into() }))
            }
        });
        gone
    }

    /// An object that did not come into the store: its file goes.
    pub(crate) fn discard(&self, object: &StoredObject) {
        if let (Content::Filed(filed), Some(disk)) = (&object.content, &self.disk) {
            disk.remove(filed.id);
        }
    }

    /// The files of an entry that is no longer in the store are gone when this returns.
    pub(crate) fn remove_files(&self, entry: &Entry) {
        let Some(disk) = &self.disk else { return };
        entry.files().filter(|filed| !filed.is_held()).for_each(|filed| disk.remove_now(filed.id));
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.entries.invalidate_all();
        self.entries.run_pending_tasks();
    }

    /// Entries, the bytes that count against the store's size, and how many were evicted so far.
    #[must_use]
    pub(crate) fn figures(&self) -> (u64, u64, u64) {
        self.entries.run_pending_tasks();
        let evicted = self.evicted.load(Ordering::Relaxed);
        (self.entries.entry_count(), self.entries.weighted_size() * UNIT_BYTES, evicted)
    }
}

/// Makes an entry one of the store's, which it becomes when it is put.
fn put(entry: Entry) -> Arc<Entry> {
    let entry = Arc::new(entry);
    entry.added();
    entry
}

/// Later epochs and, within one, later answers are the newer ones; of those that another process has
/// left, the file with the larger number.
fn age_order(object: &StoredObject) -> (u64, u64, u64) {
    let file = match &object.content {
        Content::Filed(filed) => filed.id,
        Content::Inline | Content::Shared(_) | Content::MemoryFile(..) => 0,
    };
    (object.epoch.applied, object.freshness.received, file)
}
