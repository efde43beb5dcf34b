//! The revisions of an edge that serves a site file alone: one number orders its reloads and its
//! purges, as the control plane's does in a fleet.

use super::PurgeSink;
use super::status::LinkStatus;
use crate::snapshot::SnapshotCell;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use verge_config::purge::{Purge, PurgeRequest};
use verge_config::{Faults, Revision};

/// Takes purges on a standalone edge.
pub struct LocalPurges {
    revision: Mutex<Revision>,
    cache: Arc<dyn PurgeSink>,
    cell: Arc<SnapshotCell>,
    status: Arc<LinkStatus>,
}

/// A purge that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPurge {
    /// What was purged, and under which revision.
    pub purge: Purge,
    /// How many live objects it matched.
    pub matched: u64,
    /// How long it took.
    pub took: Duration,
}

// === impl LocalPurges ===

impl LocalPurges {
    pub(super) fn new(
        cache: Arc<dyn PurgeSink>,
        cell: Arc<SnapshotCell>,
        status: Arc<LinkStatus>,
    ) -> LocalPurges {
        LocalPurges { revision: Mutex::new(Revision::ZERO), cache, cell, status }
    }

    /// Takes the next revision and brings the purge into force under it. May take a while where the
    /// cache is large.
    ///
    /// # Errors
    /// Every fault of the request; one for another site than the one that is served is a fault.
    pub fn purge(&self, request: &PurgeRequest) -> Result<LocalPurge, Faults> {
        let planned = self.planned(request)?;
        let began = Instant::now();
        self.next(|revision| {
            let purge = Purge { revision, ..planned };
            let matched = self.cache.purge(&purge);
            Ok(LocalPurge { purge, matched, took: began.elapsed() })
        })
    }

    /// The purge that a request asks for, under the newest revision; nothing is done.
    ///
    /// # Errors
    /// As [`LocalPurges::purge`].
    pub fn planned(&self, request: &PurgeRequest) -> Result<Purge, Faults> {
        request.validate()?;
        let snapshot = self.cell.load();
        let served = snapshot.sites.keys().next();
        let served = served.ok_or_else(|| Faults::one("site", "no site is served yet"))?;
        if let Some(asked) = request.site.as_deref().filter(|asked| *asked != &**served) {
            let message = format!("no site named {asked:?}; this edge serves {served:?}");
            return Err(Faults::one("site", message));
        }
        Ok(Purge {
            revision: self.status.applied(),
            site: served.to_string(),
            selectors: request.selectors.clone(),
            mode: request.mode,
        })
    }

    /// Takes the next revision, and counts it as applied when `apply` has done so. One at a time, so
    /// that revisions come into force in order.
    pub(super) fn next<T>(&self, apply: impl FnOnce(Revision) -> T) -> T {
        let mut revision = self.revision.lock();
        *revision = revision.next();
        let result = apply(*revision);
        self.status.set_head(*revision);
        self.status.set_applied(*revision);
        result
    }
}
