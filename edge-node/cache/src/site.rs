//! What the cache knows of one site: its purges and its count of them. Reached from every stored entry
//! without a map; may not touch the store.

use crate::catalogue::Catalogue;
use crate::disk::Logged;
use crate::key::Key;
use crate::object::{Epoch, StoredObject};
use crate::purge_index::{PurgeIndex, Verdict};
use crate::sync::{AtomicU64, Mutex, Ordering, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use verge_config::Revision;
use verge_config::purge::{Mode, Selector};

/// One site.
#[derive(Debug)]
pub(crate) struct SiteState {
    /// How many purges and flushes are in force; raised after the index has them.
    applied: AtomicU64,
    purged: RwLock<Purged>,
    /// Epochs of the fills in flight and of the objects that they revalidate, each with its count.
    in_flight: Mutex<BTreeMap<u64, usize>>,
    /// What of it is stored.
    pub(crate) catalogue: Catalogue,
}

#[derive(Debug)]
struct Purged {
    index: PurgeIndex,
    epoch: Epoch,
}

/// Keeps the purges that a fill may still need; dropped with the fill.
#[derive(Debug)]
pub(crate) struct EpochGuard {
    site: Arc<SiteState>,
    applied: u64,
}

/// What purges look at of a stored response.
pub(crate) trait Purgeable {
    /// Its tags.
    fn tags(&self) -> &[Box<str>];
    /// How many purges the site had seen when the source was asked for it.
    fn applied(&self) -> u64;
    /// Whether it is known to be untouched by the first so many purges.
    fn is_checked(&self, applied: u64) -> bool;
    /// Notes that it is.
    fn set_checked(&self, applied: u64);
}

// === impl Purgeable ===

impl Purgeable for StoredObject {
    fn tags(&self) -> &[Box<str>] {
        &self.tags
    }

    fn applied(&self) -> u64 {
        self.epoch.applied
    }

    fn is_checked(&self, applied: u64) -> bool {
        StoredObject::is_checked(self, applied)
    }

    fn set_checked(&self, applied: u64) {
        StoredObject::set_checked(self, applied);
    }
}

// === impl SiteState ===

impl SiteState {
    /// A site without purges, after `epoch`.
    #[must_use]
    pub(crate) fn new(revision: Revision) -> Arc<SiteState> {
        let epoch = Epoch { applied: 0, revision };
        Arc::new(SiteState {
            applied: AtomicU64::new(0),
            purged: RwLock::new(Purged { index: PurgeIndex::default(), epoch }),
            in_flight: Mutex::new(BTreeMap::new()),
            catalogue: Catalogue::default(),
        })
    }

    /// The epoch of what is asked of the source from now on.
    #[must_use]
    pub(crate) fn epoch(&self) -> Epoch {
        self.purged.read().epoch
    }

    /// The epoch, held against forgetting: `oldest` too, the epoch of an object that is revalidated.
    #[must_use]
    pub(crate) fn hold(self: &Arc<Self>, oldest: Option<u64>) -> (Epoch, EpochGuard) {
        // The count is made under the index's lock, so that no sweep falls between reading and holding.
        let purged = self.purged.read();
        let epoch = purged.epoch;
        let applied = oldest.map_or(epoch.applied, |oldest| oldest.min(epoch.applied));
        *self.in_flight.lock().entry(applied).or_insert(0) += 1;
        (epoch, EpochGuard { site: Arc::clone(self), applied })
    }

    /// What the site's purges mean for an object under a key. Cheap when nothing was purged since it was
    /// last asked.
    pub(crate) fn weigh(&self, key: &Key, object: &impl Purgeable) -> Verdict {
        let applied = self.applied.load(Ordering::Acquire);
        if object.is_checked(applied) {
            return Verdict::Alive;
        }
        // Everything up to `applied` is in the index by now, maybe more.
        let verdict = self.purged.read().index.judge(key, object.tags(), object.applied());
        if verdict == Verdict::Alive {
            object.set_checked(applied);
        }
        verdict
    }

    /// Puts a purge in force: index first, then the count that makes lookups ask it again. Returns the
    /// epoch that it begins.
    pub(crate) fn purge(
        &self,
        selectors: &[Selector],
        mode: Mode,
        revision: Revision,
        mono: u64,
    ) -> Epoch {
        let mut purged = self.purged.write();
        let applied = purged.epoch.applied + 1;
        purged.index.insert(selectors, mode, applied, mono);
        self.raise(&mut purged, revision)
    }

    /// Everything up to now is dead.
    pub(crate) fn flush(&self, revision: Revision) {
        let mut purged = self.purged.write();
        let applied = purged.epoch.applied + 1;
        purged.index.clear_before(applied);
        // History is another one now: its revisions need not be larger.
        purged.epoch.revision = Revision::ZERO;
        self.raise(&mut purged, revision);
    }

    fn raise(&self, purged: &mut Purged, revision: Revision) -> Epoch {
        purged.epoch.applied += 1;
        purged.epoch.revision = purged.epoch.revision.max(revision);
        self.applied.store(purged.epoch.applied, Ordering::Release);
        purged.epoch
    }

    /// A line of the log of another process: what it knew of the site's purges.
    pub(crate) fn restore(&self, line: &Logged, mono: u64) {
        let mut purged = self.purged.write();
        let (applied, revision) = match line {
            Logged::Purged { applied, revision, mode, selectors, .. } => {
                purged.index.insert(selectors, *mode, *applied, mono);
                // A handler's purge is of no revision and takes none back.
                (*applied, purged.epoch.revision.max(*revision))
            }
            Logged::Flushed { applied, revision, .. } => {
                purged.index.clear_before(*applied);
                (*applied, *revision)
            }
            Logged::Known { applied, revision, forgotten, .. } => {
                purged.index.forget_until(*forgotten);
                (*applied, *revision)
            }
        };
        purged.epoch.applied = purged.epoch.applied.max(applied);
        purged.epoch.revision = revision;
        self.applied.store(purged.epoch.applied, Ordering::Release);
    }

    /// What another process has to know of the site's purges.
    pub(crate) fn lines(&self, site: &str) -> Vec<Logged> {
        let purged = self.purged.read();
        let Epoch { applied, revision } = purged.epoch;
        let forgotten = purged.index.forgotten();
        let site = site.to_owned();
        let mut lines = vec![Logged::Known { site: site.clone(), applied, revision, forgotten }];
        for (selector, mode, applied) in purged.index.dump() {
            let (site, selectors) = (site.clone(), vec![selector]);
            lines.push(Logged::Purged { site, applied, revision, mode, selectors });
        }
        lines
    }

    /// Forgets the purges that nothing stored and no fill is old enough for, when there are so many more
    /// than the last time that it is worth looking at all of them.
    pub(crate) fn forget(&self) {
        let mut purged = self.purged.write();
        if !purged.index.has_grown() {
            return;
        }
        let oldest = [self.catalogue.oldest(), self.in_flight.lock().keys().next().copied()];
        let oldest = oldest.into_iter().flatten().min().unwrap_or(purged.epoch.applied);
        purged.index.forget_until(oldest);
    }

    /// How many selectors are kept.
    #[must_use]
    pub(crate) fn selectors(&self) -> usize {
        self.purged.read().index.len()
    }
}

impl Drop for EpochGuard {
    fn drop(&mut self) {
        let mut in_flight = self.site.in_flight.lock();
        if let Some(count) = in_flight.get_mut(&self.applied) {
            *count -= 1;
            if *count == 0 {
                in_flight.remove(&self.applied);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_of_no_revision_takes_none_back() {
        let site = SiteState::new(Revision::ZERO);
        let purged = |applied, revision| Logged::Purged {
            site: "shop".to_owned(),
            applied,
            revision: Revision(revision),
            mode: Mode::Hard,
            selectors: vec![Selector::Tag("t".to_owned())],
        };
        for line in [purged(1, 7), purged(2, 0)] {
            site.restore(&line, 0);
        }
        assert_eq!(site.epoch(), Epoch { applied: 2, revision: Revision(7) });
        let revision = Revision(1);
        site.restore(&Logged::Flushed { site: "shop".to_owned(), applied: 3, revision }, 0);
        assert_eq!(site.epoch(), Epoch { applied: 3, revision });
    }
}
