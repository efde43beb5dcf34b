//! The store: entries by primary key, each with all its variants, weighed by bytes; what leaves it leaves
//! its site's catalogue, and its file goes too. Knows nothing of freshness; a purge never relies on an
//! entry being gone from here.

use crate::disk::{self, Disk};
use crate::fifo::{Fifo, Used};
use crate::key::KeyRef;
use crate::object::StoredObject;
use crate::purge_index::Verdict;
use http::HeaderMap;
use parking_lot::Mutex;
use std::iter::once;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What an object takes in memory besides what it weighs itself, in bytes: its places in the store's and
/// the catalogue's tables.
const PLACES: usize = 160;
/// How many entries can be changed at a time.
const LOCKS: usize = 256;
/// A part of the store is not smaller than this, and holds two of the largest objects: it takes none that
/// is larger than itself.
const MIN_PART_BYTES: u64 = 4 * 1024 * 1024;
const MAX_PARTS_LOG2: u32 = 6;
/// The most parts of one representation that an entry keeps.
const MAX_SPANS: usize = 16;

/// Every variant under one primary key, newest first. Immutable: a change makes a new entry. The key is
/// the variants' own: with a million objects, every reference that a hit follows is a wait for memory.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    first: StoredObject,
    rest: Rest,
}

/// The variants of an entry after the first, where it has several.
type Rest = Option<Arc<[StoredObject]>>;

/// The store.
pub(crate) struct Store {
    entries: Fifo<StoredObject, Rest>,
    locks: Box<[Mutex<()>]>,
    max_variants: usize,
    evicted: AtomicU64,
    /// How much more than itself a byte of memory weighs.
    factor: u64,
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
    fn of(variants: Vec<StoredObject>) -> Option<Entry> {
        let mut variants = variants.into_iter();
        let first = variants.next()?;
        let rest = (variants.len() > 0).then(|| variants.collect());
        Some(Entry { first, rest })
    }

    /// The variants.
    pub(crate) fn variants(&self) -> impl Iterator<Item = &StoredObject> {
        once(&self.first).chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    /// The bytes that count: of files where there are files, of memory where there are none; and never
    /// less than what the share of memory comes to that is for knowing what the files are.
    fn weight(&self, memory_factor: u64) -> u64 {
        let files: u64 = self.variants().map(file_bytes).sum();
        let memory: usize = self.variants().map(|object| object.weight() + PLACES).sum();
        files.max((memory as u64).saturating_mul(memory_factor))
    }
}

fn file_bytes(object: &StoredObject) -> u64 {
    object.file().map_or(0, |filed| disk::file_bytes(object, filed))
}

// === impl Used ===

impl Used for StoredObject {
    fn uses(&self) -> &AtomicU8 {
        &self.uses
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
    ) -> Store {
        let (bytes, factor) = match &disk {
            // What is known of files stays within as much memory as their content may take.
            Some((_, bytes)) => (*bytes, bytes.checked_div(ram_bytes).unwrap_or(1).clamp(1, 1_000)),
            None => (ram_bytes, 1),
        };
        let least = max_object.saturating_mul(2).max(MIN_PART_BYTES);
        let parts = (bytes / least).max(1).ilog2().min(MAX_PARTS_LOG2);
        Store {
            entries: Fifo::new(bytes, parts),
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            max_variants: max_variants.max(1),
            evicted: AtomicU64::new(0),
            factor,
            disk: disk.map(|(disk, _)| disk),
        }
    }

    /// The disk tier, where there is one.
    pub(crate) fn disk(&self) -> Option<&Arc<Disk>> {
        self.disk.as_ref()
    }

    /// The entry under a key.
    #[must_use]
    pub(crate) fn get(&self, hash: u64, key: &KeyRef<'_>) -> Option<Entry> {
        let both = |first: &StoredObject, rest: &Rest| {
            let rest = rest.clone();
            first.key.is(key).then(|| Entry { first: first.clone(), rest })
        };
        self.entries.get(hash, |_| None, both)
    }

    /// The newest whole variant under a key that a request selects.
    #[must_use]
    pub(crate) fn select(
        &self,
        hash: u64,
        key: &KeyRef<'_>,
        request: &HeaderMap,
    ) -> Option<StoredObject> {
        let wanted = |object: &StoredObject| {
            let selected = object.span.is_none() && object.selected_by(request);
            (selected && object.key.is(key)).then(|| object.clone())
        };
        self.entries
            .get(hash, wanted, |_, rest| rest.iter().flat_map(|rest| rest.iter()).find_map(wanted))
    }

    /// Stores an object: the purges are asked again under the entry's lock, and what would be selected
    /// by the same requests goes, unless it is newer.
    pub(crate) fn insert(&self, hash: u64, object: &StoredObject) -> Inserted {
        let _alone = self.lock(hash).lock();
        if object.verdict() == Verdict::Dead {
            return Inserted::Purged;
        }
        let mut variants = vec![object.clone()];
        if let Some(entry) = self.present(hash) {
            if entry.first.key != object.key {
                return Inserted::Collision;
            }
            for other in entry.variants() {
                if !other.same_selection(object) || !other.gives_way_to(object) {
                    variants.push(other.clone());
                } else if age_order(other) > age_order(object) {
                    return Inserted::Outdated;
                }
            }
        }
        self.limit(&mut variants);
        self.put(hash, variants);
        Inserted::Stored
    }

    fn present(&self, hash: u64) -> Option<Entry> {
        let both =
            |first: &StoredObject, rest: &Rest| Entry { first: first.clone(), rest: rest.clone() };
        self.entries.peek(hash, both)
    }

    /// The lock under which entries of some keys are changed.
    fn lock(&self, hash: u64) -> &Mutex<()> {
        let at = usize::try_from(hash % self.locks.len() as u64).unwrap_or_default();
        self.locks.get(at).unwrap_or_else(|| unreachable!("a remainder is less"))
    }

    /// Puts variants in the place of what is under the key, with the key's lock held.
    fn put(&self, hash: u64, variants: Vec<StoredObject>) {
        let Some(entry) = Entry::of(variants) else {
            self.entries.remove(hash).into_iter().for_each(|gone| self.removed(gone));
            return;
        };
        for object in entry.variants() {
            if let Some(filed) = object.file() {
                filed.held();
            }
            object.site.catalogue.add(object);
        }
        let weight = entry.weight(self.factor);
        let left = self.entries.insert(hash, (entry.first, entry.rest), weight);
        self.evicted.fetch_add(left.evicted.len() as u64, Ordering::Relaxed);
        left.evicted.into_iter().chain(left.replaced).for_each(|gone| self.removed(gone));
    }

    /// An entry has left the store: so do those of its variants that no other entry has taken over.
    fn removed(&self, (first, rest): (StoredObject, Rest)) {
        for object in (Entry { first, rest }).variants() {
            object.site.catalogue.remove(object);
            if let (Some(filed), Some(disk)) = (object.file(), &self.disk)
                && filed.let_go()
            {
                disk.remove(filed.id);
            }
        }
    }

    fn limit(&self, variants: &mut Vec<StoredObject>) {
        let (mut whole, mut parts) = (0, 0);
        variants.retain(|object| {
            let (count, most) = match object.span {
                None => (&mut whole, self.max_variants),
                Some(_) => (&mut parts, MAX_SPANS),
            };
            *count += 1;
            *count <= most
        });
    }

    /// Keeps only the variants that are wanted; returns how many went.
    pub(crate) fn retain(&self, hash: u64, wanted: impl Fn(&StoredObject) -> bool) -> usize {
        let _alone = self.lock(hash).lock();
        let Some(entry) = self.present(hash) else { return 0 };
        let variants: Vec<_> = entry.variants().filter(|object| wanted(object)).cloned().collect();
        let gone = entry.variants().count() - variants.len();
        if gone > 0 {
            self.put(hash, variants);
        }
        gone
    }

    /// An object that did not come into the store: its file goes.
    pub(crate) fn discard(&self, object: &StoredObject) {
        if let (Some(filed), Some(disk)) = (object.file(), &self.disk) {
            disk.remove(filed.id);
        }
    }

    /// The file of an object that is no longer in the store is gone when this returns.
    pub(crate) fn remove_file(&self, object: &StoredObject) {
        if let (Some(filed), Some(disk)) = (object.file(), &self.disk)
            && !filed.is_held()
        {
            disk.remove_now(filed.id);
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.entries.drain().into_iter().for_each(|gone| self.removed(gone));
    }

    /// Entries, the bytes that count against the store's size, and how many were evicted so far.
    #[must_use]
    pub(crate) fn figures(&self) -> (u64, u64, u64) {
        let (count, bytes) = self.entries.figures();
        (count, bytes, self.evicted.load(Ordering::Relaxed))
    }
}

/// Later epochs and, within one, later answers are the newer ones; of those that another process has
/// left, the file with the larger number.
fn age_order(object: &StoredObject) -> (u64, u64, u64) {
    let file = object.file().map_or(0, |filed| filed.id);
    (object.epoch.applied, object.freshness.received, file)
}
