//! Copies of entries that the control plane keeps, bounded in bytes. Which copies are too old is decided by
//! revisions: what the feed tells of changes, and how new the keeper said an entry is. Does no I/O and
//! takes `now`.

use bytes::Bytes;
use moka::sync::Cache;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use verge_config::Revision;
use verge_config::kv::EntryChanged;

/// How long it is known that there is no entry of a key: visitors may choose keys, and these copies take
/// room as others do.
const ABSENCE: Duration = Duration::from_secs(60);
/// What a copy takes besides its key and value, in bytes.
const OVERHEAD: usize = 256;
/// Sites whose changes are followed. Beyond it all copies go.
const MAX_SITES: usize = 200_000;

/// Copies of entries.
pub struct Copies {
    copies: Cache<String, Copy>,
    views: RwLock<Views>,
}

/// What a copy tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The value, or that there is none.
    Copy(Option<Bytes>),
    /// Nothing is known here.
    Unknown,
}

/// When a question was asked: of which history its answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

#[derive(Clone)]
struct Copy {
    value: Option<Bytes>,
    as_of: Revision,
    generation: u64,
    /// When it is forgotten that there is no value.
    until: Option<Instant>,
}

/// What is known of changes.
#[derive(Default)]
struct Views {
    /// Rises when all copies go; those of an earlier one are not there any more.
    generation: u64,
    sites: HashMap<String, View>,
}

/// What is known of a site's changes.
#[derive(Debug, Clone, Copy)]
struct View {
    /// Every change up to here was told, or is in all copies.
    told: Revision,
    /// The newest change that there is known to be.
    newest: Revision,
    /// Copies of before are too old: it is not known which entry has changed.
    floor: Revision,
}

// === impl Copies ===

impl Copies {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Copies {
        let weigh = |name: &String, copy: &Copy| {
            let value = copy.value.as_ref().map_or(0, Bytes::len);
            u32::try_from(name.len() + value + OVERHEAD).unwrap_or(u32::MAX)
        };
        let copies = Cache::builder().max_capacity(bytes).weigher(weigh).build();
        Copies { copies, views: RwLock::default() }
    }

    /// To be taken before the keeper is asked.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.views.read().generation)
    }

    /// The copy of an entry.
    #[must_use]
    pub fn find(&self, site: &str, key: &str, now: Instant) -> Found {
        let views = self.views.read();
        let Some(copy) = self.copies.get(&name(site, key)) else { return Found::Unknown };
        let floor = views.sites.get(site).map_or(Revision::ZERO, |view| view.floor);
        let is_good = copy.generation == views.generation
            && copy.as_of >= floor
            && copy.until.is_none_or(|until| now < until);
        if is_good { Found::Copy(copy.value) } else { Found::Unknown }
    }

    /// Keeps what was fetched, unless there is known to be a change of the site that it may not have.
    pub fn keep(
        &self,
        mark: Mark,
        site: &str,
        key: &str,
        value: Option<Bytes>,
        as_of: Revision,
        now: Instant,
    ) {
        let mut views = self.views.write();
        if views.generation != mark.0 {
            return;
        }
        if as_of >= views.view(site, as_of).newest {
            self.insert(views.generation, name(site, key), value, as_of, now);
        }
    }

    /// Keeps what was written here. Copies of before are not found any more, nor kept when they come late.
    pub fn wrote(
        &self,
        mark: Mark,
        site: &str,
        key: &str,
        value: Option<Bytes>,
        revision: Revision,
        now: Instant,
    ) {
        let mut views = self.views.write();
        let name = name(site, key);
        if views.generation != mark.0 {
            return self.copies.invalidate(&name);
        }
        let view = views.view(site, revision);
        if revision < view.newest {
            // A newer change may be of this key.
            return self.drop_older(&name, revision);
        }
        view.newest = revision;
        self.insert(views.generation, name, value, revision, now);
    }

    /// An entry has changed, as the feed tells it. What was told already changes nothing.
    pub fn changed(&self, change: &EntryChanged) {
        let mut views = self.views.write();
        let view = views.view(&change.site, Revision::ZERO);
        if change.revision <= view.told {
            return;
        }
        let is_next = change.after <= view.told;
        view.told = change.revision;
        view.newest = view.newest.max(change.revision);
        match &change.key {
            Some(key) if is_next => {
                self.drop_older(&name(&change.site, key), change.revision);
            }
            // Another one before it was not told: any of the site's may have changed.
            _ => view.floor = change.revision,
        }
    }

    /// Another history counts from here on: no copy is known to be good.
    pub fn clear(&self) {
        self.views.write().clear();
        self.copies.invalidate_all();
    }

    fn drop_older(&self, name: &String, revision: Revision) {
        if self.copies.get(name).is_some_and(|copy| copy.as_of < revision) {
            self.copies.invalidate(name);
        }
    }

    /// Under the lock of the views, so that no change comes between the look and the copy.
    fn insert(
        &self,
        generation: u64,
        name: String,
        value: Option<Bytes>,
        as_of: Revision,
        now: Instant,
    ) {
        let until = value.is_none().then(|| now + ABSENCE);
        self.copies.insert(name, Copy { value, as_of, generation, until });
    }
}

// === impl Views ===

impl Views {
    /// The view of a site; where there is none yet, nothing of the site is here, and what comes first has
    /// all changes up to `first`.
    fn view(&mut self, site: &str, first: Revision) -> &mut View {
        if self.sites.len() >= MAX_SITES && !self.sites.contains_key(site) {
            self.clear();
        }
        let view = View { told: first, newest: first, floor: Revision::ZERO };
        self.sites.entry(site.to_owned()).or_insert(view)
    }

    fn clear(&mut self) {
        self.generation += 1;
        self.sites.clear();
    }
}

/// What a copy is found by; a site's name has no slash in it.
fn name(site: &str, key: &str) -> String {
    format!("{site}/{key}")
}

#[cfg(test)]
mod tests;
