//! Takes over what an earlier process left on the disk, and what it knew of purges. Runs beside the
//! work; finds, and fetches nothing.

use crate::cache::Inner;
use crate::content::Content;
use crate::disk::{Found, Logged, scan};
use crate::fields::Fields;
use crate::key::Key;
use crate::key_codec::Shared;
use crate::object::{Parts, StoredObject};
use crate::site::SiteState;
use crate::store::Inserted;
use http::StatusCode;
use std::sync::Arc;

impl Inner {
    /// Finds what is there, on a thread of its own.
    pub(crate) fn warm(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        let warming = move || {
            let Some(disk) = inner.store.disk().cloned() else { return };
            let mut shared = Shared::default();
            let (mut found, mut gone) = (0u64, 0u64);
            scan(&disk, |object| {
                let taken = inner.take_over(object, &mut shared).is_some();
                *(if taken { &mut found } else { &mut gone }) += 1;
                taken
            });
            disk.scanned();
            tracing::info!(found, gone, "the cache's disk is read");
            if let Err(error) = inner.compact() {
                disk.fault("write", &error);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("cache-scan".to_owned()).spawn(warming)
        {
            tracing::warn!(%error, "the cache's disk is not read");
        }
    }

    fn take_over(&self, found: &Found<'_>, shared: &mut Shared) -> Option<()> {
        let (key, rest) = Key::decode(&found.record.key, shared)?;
        if !rest.is_empty() {
            return None;
        }
        let record = &found.record;
        let site = self.site(key.site());
        // Purges are counted from the log: what claims to be younger than all of them was not written
        // beside it.
        if record.epoch().applied > site.epoch().applied {
            return None;
        }
        let now = self.settings.clock.now();
        let hash = key.hash(&self.hasher);
        let parts = Parts {
            key,
            site,
            status: StatusCode::from_u16(record.status).ok()?,
            fields: Fields::default(),
            freshness: record.freshness.resume(now.mono, now.wall),
            selection: match &record.selection {
                Some(selection) => Some(Box::new(selection.selection()?)),
                None => None,
            },
            tags: record.tags(),
            span: record.span.map(Box::new),
            epoch: record.epoch(),
        };
        let content = Content::Filed(Arc::clone(&found.filed));
        let object = StoredObject::from_block(parts, (&record.head, &record.hidden), content);
        let inserted = self.store.insert(hash, &object);
        (inserted == Inserted::Stored).then_some(())
    }

    /// Writes the log of purges anew, without those that nothing is old enough for.
    pub(crate) fn compact(&self) -> std::io::Result<()> {
        let Some(log) = self.log() else { return Ok(()) };
        let mut log = log.lock();
        let mut lines = Vec::new();
        for (name, site) in self.all_sites() {
            site.forget();
            lines.extend(site.lines(&name));
        }
        log.replace(&lines)
    }

    /// Does what changes a site's purges, with a line of it in the disk's log first. Where the log fails,
    /// nothing on the disk will be believed by the next process.
    pub(crate) fn logged<T>(
        &self,
        site: &SiteState,
        line: impl FnOnce(u64) -> Logged,
        work: impl FnOnce() -> T,
    ) -> T {
        let (Some(log), Some(disk)) = (self.log(), self.store.disk()) else { return work() };
        let mut log = log.lock();
        if let Err(error) = log.append(&line(site.epoch().applied + 1)) {
            disk.fault("log", &error);
            disk.disown();
        }
        let done = work();
        let long = log.is_long();
        drop(log);
        if long
            && !disk.is_scanning()
            && let Err(error) = self.compact()
        {
            disk.fault("log", &error);
        }
        done
    }
}

impl Logged {
    /// The site that the line is of.
    pub(crate) fn site(&self) -> &str {
        match self {
            Logged::Purged { site, .. }
            | Logged::Flushed { site, .. }
            | Logged::Known { site, .. } => site,
        }
    }
}
