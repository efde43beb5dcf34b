//! The store: entries by primary key, each with all its variants, weighed by bytes (S3-FIFO); what
//! leaves it leaves its site's catalogue, and its file goes too. Knows nothing of freshness; a purge
//! never relies on an entry being gone from here.

use crate::content::Content;
use crate::disk::{self, Disk};
use crate::key::{Key, KeyRef};
use crate::object::StoredObject;
use crate::purge_index::Verdict;
use crate::site::SiteState;
use http::HeaderMap;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What an entry takes in memory besides its key and variants, in bytes: its own struct, the places in
/// the store's and the catalogue's tables.
const ENTRY_OVERHEAD: usize = size_of::<Entry>() + 160;
/// How many entries can be changed at a time.
const LOCKS: usize = 256;
/// An entry's likely bytes: what the store's tables are laid out for.
const LIKELY_BYTES: u64 = 8 * 1024;
/// The store has parts with a lock each. A part is not smaller than this, and holds two of the largest
/// objects: it takes none that is larger than itself.
const MIN_SHARD_BYTES: u64 = 4 * 1024 * 1024;
const MAX_SHARDS: usize = 64;
/// The most parts of one representation that an entry keeps.
const MAX_PARTS: usize = 16;

/// Every variant under one primary key, newest first. Immutable: a change makes a new entry. What a hit
/// looks at lies in it, rather than behind a reference: with a million objects every reference that is
/// followed is a wait for memory.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The key, to be compared with what is looked for.
    pub(crate) key: Key,
    /// The site.
    pub(crate) site: Arc<SiteState>,
    /// The variants.
    pub(crate) variants: Variants,
    gone: AtomicBool,
}

type Variants = SmallVec<[Arc<StoredObject>; 1]>;

/// An entry's bytes.
#[derive(Clone)]
struct Weigher {
    factor: u64,
}

/// Tells who inserts what left the store for it.
#[derive(Clone)]
struct Evicted;

/// The store.
pub(crate) struct Store {
    entries: Cache<u64, Arc<Entry>, Weigher, ahash::RandomState, Evicted>,
    locks: Box<[Mutex<()>]>,
    max_variants: usize,
    evicted: AtomicU64,
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
    fn new(key: Key, site: Arc<SiteState>, mut variants: Variants) -> Entry {
        variants.shrink_to_fit();
        Entry { key, site, variants, gone: AtomicBool::new(false) }
    }

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
    fn weight(&self, memory_factor: u64) -> u64 {
        let files: u64 = self.variants.iter().map(|object| file_bytes(object)).sum();
        files.max(self.memory().saturating_mul(memory_factor))
    }

    /// It came into the store.
    fn added(self: &Arc<Self>) {
        for filed in self.files() {
            filed.held();
        }
        self.site.catalogue.add(self);
    }

    /// It has left the store. Its place may have been taken while it was evicted: once is enough.
    fn removed(self: &Arc<Self>, disk: Option<&Disk>) {
        if self.gone.swap(true, Ordering::AcqRel) {
            return;
        }
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

// === impl Weigher and Evicted ===

impl Weighter<u64, Arc<Entry>> for Weigher {
    fn weight(&self, _: &u64, entry: &Arc<Entry>) -> u64 {
        entry.weight(self.factor)
    }
}

impl Lifecycle<u64, Arc<Entry>> for Evicted {
    type RequestState = Vec<Arc<Entry>>;

    fn on_evict(&self, gone: &mut Self::RequestState, _: u64, entry: Arc<Entry>) {
        gone.push(entry);
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
        max_object: u64,
        hasher: ahash::RandomState,
    ) -> Store {
        let (bytes, factor) = match &disk {
            // What is known of files stays within as much memory as their content may take.
            Some((_, bytes)) => (*bytes, bytes.checked_div(ram_bytes).unwrap_or(1).clamp(1, 1_000)),
            None => (ram_bytes, 1),
        };
        let least = max_object.saturating_mul(2).max(MIN_SHARD_BYTES);
        let shards = usize::try_from(bytes / least).unwrap_or(MAX_SHARDS);
        let options = OptionsBuilder::new()
            .shards(1 << shards.clamp(1, MAX_SHARDS).ilog2())
            .estimated_items_capacity(usize::try_from(bytes / LIKELY_BYTES).unwrap_or(1))
            .weight_capacity(bytes)
            .build()
            .unwrap_or_else(|_| unreachable!("both capacities are set"));
        let entries = Cache::with_options(options, Weigher { factor }, hasher, Evicted);
        Store {
            entries,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            max_variants: max_variants.max(1),
            evicted: AtomicU64::new(0),
            disk: disk.map(|(disk, _)| disk),
        }
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
        key: &Key,
        site: &Arc<SiteState>,
        object: &Arc<StoredObject>,
    ) -> Inserted {
        let _alone = self.lock(hash).lock();
        if site.verdict(key, object) == Verdict::Dead {
            return Inserted::Purged;
        }
        let present = self.entries.peek(&hash);
        let mut variants = Variants::from_buf([Arc::clone(object)]);
        if let Some(entry) = &present {
            if entry.key != *key {
                return Inserted::Collision;
            }
            for other in &entry.variants {
                if !other.same_selection(object) || !other.gives_way_to(object) {
                    variants.push(Arc::clone(other));
                } else if age_order(other) > age_order(object) {
                    return Inserted::Outdated;
                }
            }
        }
        self.limit(&mut variants);
        self.put(hash, Entry::new(key.clone(), Arc::clone(site), variants), present);
        Inserted::Stored
    }

    /// The lock under which entries of some keys are changed.
    fn lock(&self, hash: u64) -> &Mutex<()> {
        let at = usize::try_from(hash % self.locks.len() as u64).unwrap_or_default();
        self.locks.get(at).unwrap_or_else(|| unreachable!("a remainder is less"))
    }

    /// Puts an entry in the place of what was present, with the key's lock held.
    fn put(&self, hash: u64, entry: Entry, present: Option<Arc<Entry>>) {
        let entry = Arc::new(entry);
        entry.added();
        let mut evicted = Vec::new();
        self.entries.insert_with_lifecycle(hash, entry, &mut evicted);
        self.evicted.fetch_add(evicted.len() as u64, Ordering::Relaxed);
        for gone in evicted.iter().chain(&present) {
            gone.removed(self.disk.as_deref());
        }
    }

    fn limit(&self, variants: &mut Variants) {
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
        let _alone = self.lock(hash).lock();
        let Some(entry) = self.entries.peek(&hash) else { return 0 };
        let variants: Variants =
            entry.variants.iter().filter(|object| wanted(&entry, object)).cloned().collect();
        let gone = entry.variants.len() - variants.len();
        if gone > 0 && variants.is_empty() {
            self.entries.remove(&hash);
            entry.removed(self.disk.as_deref());
        } else if gone > 0 {
            let (key, site) = (entry.key.clone(), Arc::clone(&entry.site));
            self.put(hash, Entry::new(key, site, variants), Some(entry));
        }
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
        let all: Vec<_> = self.entries.drain().collect();
        all.iter().for_each(|(_, entry)| entry.removed(self.disk.as_deref()));
    }

    /// Entries, the bytes that count against the store's size, and how many were evicted so far.
    #[must_use]
    pub(crate) fn figures(&self) -> (u64, u64, u64) {
        let evicted = self.evicted.load(Ordering::Relaxed);
        (self.entries.len() as u64, self.entries.weight(), evicted)
    }
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
