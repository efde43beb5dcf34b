//! Purges as commands: put in force and into the disk's log, counted, and followed by making room. What
//! they mean for a lookup is the site's index's to say.

use crate::cache::{Cache, Inner};
use crate::disk::Logged;
use crate::object::StoredObject;
use crate::purge_index::{PurgeIndex, Verdict};
use crate::site::SiteState;
use std::sync::Arc;
use verge_config::Revision;
use verge_config::purge::{Mode, Purge, Selector};

/// How many objects a purge takes out of the store before it returns; the rest goes beside the work.
const REMOVED_AT_ONCE: usize = 256;

impl Cache {
    /// Puts a purge in force, then counts the stored objects that it selects. When this returns, no
    /// lookup finds anything that the purge is for, whatever happens to the process. Safe to repeat.
    /// Costs what it selects, not what is stored.
    pub fn purge(&self, purge: &Purge) -> u64 {
        let inner = &self.inner;
        let site = inner.site_named(&purge.site);
        let mono = inner.settings.clock.mono();
        let epoch = inner.logged(
            &site,
            |applied| Logged::Purged {
                site: purge.site.clone(),
                applied,
                revision: purge.revision,
                mode: purge.mode,
                selectors: purge.selectors.clone(),
            },
            || site.purge(&purge.selectors, purge.mode, purge.revision, mono),
        );
        // An index with this purge alone tells which objects it is that selects them.
        let mut only = PurgeIndex::default();
        only.insert(&purge.selectors, purge.mode, epoch.applied, mono);
        let selected = only.selected(site.catalogue.candidates(&purge.selectors));
        let matched = selected.len() as u64;
        if purge.mode == Mode::Hard {
            inner.make_room(site, selected);
        } else {
            inner.forget_purges(&site);
        }
        matched
    }

    /// History is lost: everything of every site is dead, and revisions start again at `revision`.
    pub fn flush(&self, revision: Revision) {
        let inner = &self.inner;
        for (name, site) in inner.all_sites() {
            inner.logged(
                &site,
                |applied| Logged::Flushed { site: name.to_string(), applied, revision },
                || site.flush(revision),
            );
        }
        inner.store.clear();
    }
}

impl Inner {
    /// What a purge would select, now.
    pub(crate) fn selected(&self, site: &SiteState, selectors: &[Selector]) -> Vec<StoredObject> {
        let mut only = PurgeIndex::default();
        only.insert(selectors, Mode::Hard, u64::MAX, 0);
        only.selected(site.catalogue.candidates(selectors))
    }

    /// Takes dead objects out of the store.
    fn make_room(self: &Arc<Self>, site: Arc<SiteState>, mut dead: Vec<StoredObject>) {
        let later = dead.split_off(dead.len().min(REMOVED_AT_ONCE));
        self.remove(&dead);
        if later.is_empty() {
            self.forget_purges(&site);
            return;
        }
        let inner = Arc::clone(self);
        std::thread::spawn(move || {
            inner.remove(&later);
            inner.forget_purges(&site);
        });
    }

    fn remove(&self, objects: &[StoredObject]) {
        for object in objects {
            let hash = object.key.hash(&self.hasher);
            self.store.retain(hash, |object| object.verdict() != Verdict::Dead);
        }
    }

    fn forget_purges(&self, site: &SiteState) {
        // Until everything is found that an earlier process left, nobody knows how old it is.
        if self.store.disk().is_none_or(|disk| !disk.is_scanning()) {
            site.forget();
        }
    }
}
