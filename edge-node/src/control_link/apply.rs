//! Brings the feed's lines into force, in their order: verify, parse, build, swap. Older and equal
//! revisions of a resource are no-ops, so that repeats and reordering converge; what cannot be built
//! is refused and the last good version stays. Persisting is the next room's.

mod purges;

use super::PurgeSink;
use super::ahead::ReadLine;
use super::blobs::Blobs;
use super::build::{BuildError, Builder, Prepared, Ready, Wanted, components_of};
use super::client::ClientError;
use super::last_good::{LastGood, Position, PreviewsRecord, SiteRecord, is_site_name};
use super::previews;
use super::questions::Questions;
use super::report::Outbox;
use super::secrets;
use super::status::LinkStatus;
use crate::kv::Copies;
use crate::snapshot::{SiteRuntime, Snapshot, SnapshotCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use verge_config::Revision;
use verge_config::feed::{AppliedPurge, FeedLine, Refusal};
use verge_config::kv::EntryChanged;

/// Sites on one edge.
const SITES_MAX: usize = 100_000;
/// Removed sites whose revision is remembered, so that an older line cannot revive them.
const REMOVED_MAX: usize = 10_000;
/// Refusals at once.
pub(super) const REFUSALS_MAX: usize = 10_000;
/// The longest reason of a refusal, in characters.
pub(super) const REASON_MAX: usize = 4_000;
/// How often a site is tried again whose component could not be had.
pub(super) const RETRY_EVERY: Duration = Duration::from_secs(30);

/// Why a stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    /// A line that is not one of a feed.
    #[error("the feed is broken: {0}")]
    Broken(String),
    /// The history is another one than was asked for; the next attempt asks from its beginning.
    #[error("the control plane's history is another one; starting over")]
    OtherHistory,
    /// The control plane went away in the middle of a line.
    #[error(transparent)]
    Away(#[from] ClientError),
}

/// What the applier works on.
pub(super) struct Effects {
    pub(super) builder: Arc<Builder>,
    pub(super) blobs: Arc<Blobs>,
    pub(super) cell: Arc<SnapshotCell>,
    pub(super) cache: Arc<dyn PurgeSink>,
    pub(super) copies: Arc<Copies>,
    pub(super) kept: Arc<LastGood>,
    pub(super) status: Arc<LinkStatus>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) questions: Arc<Questions>,
    pub(super) secrets: Arc<secrets::Source>,
}

/// The state of everything that the feed told.
pub(super) struct Applier {
    pub(super) effects: Effects,
    pub(super) position: Position,
    /// As `position` is on disk.
    pub(super) saved: Position,
    pub(super) known: HashMap<String, Known>,
    pub(super) refusals: BTreeMap<String, Refusal>,
    /// Sites that are in force and not on disk yet.
    pub(super) unsaved: BTreeMap<String, Unsaved>,
    pub(super) previews: HashMap<String, previews::Known>,
    pub(super) unsaved_previews: BTreeMap<String, PreviewsRecord>,
    pub(super) secrets: secrets::Held,
    /// Purges that are in force and not acknowledged yet.
    pub(super) purges: Vec<AppliedPurge>,
    /// What was prepared for the line whose turn it is.
    pub(super) prepared: Prepared,
    /// Refused for want of a component that may come.
    later: BTreeMap<String, Wanted>,
    retried: Instant,
    /// During a start from zero: the sites that were named so far.
    pub(super) seen: Option<HashSet<String>>,
    purged: BTreeSet<Revision>,
    /// Purges up to here were acknowledged by an earlier run; a repeat of them is not told again.
    pub(super) told: Revision,
    /// Where to ask from, when that is before the position: what is on disk has a hole.
    pub(super) resend_from: Option<Revision>,
    /// The snapshot in force is behind `known`.
    pub(super) changed: bool,
    /// More than changes of entries was told since the last report was asked for.
    pub(super) is_urgent: bool,
}

/// One site as it is known here.
pub(super) struct Known {
    /// The newest revision that was told of it: in force, refused, or its removal.
    pub(super) revision: Revision,
    /// What serves it; none when it is removed or was never good.
    pub(super) runtime: Option<Arc<SiteRuntime>>,
    /// The components of the version before, which stays on disk as well.
    pub(super) previous_components: Vec<String>,
}

/// What is to be done on disk.
#[derive(Debug, Clone)]
pub(super) enum Unsaved {
    Save(SiteRecord),
    Remove,
}

// === impl Applier ===

impl Applier {
    pub(super) fn new(effects: Effects, position: Position) -> Applier {
        let refusals = position.refusals.iter().map(|r| (r.site.clone(), r.clone())).collect();
        Applier {
            told: position.applied,
            saved: position.clone(),
            // An unfinished start from zero begins again.
            seen: position.resync.then(HashSet::new),
            position,
            effects,
            refusals,
            known: HashMap::new(),
            unsaved: BTreeMap::new(),
            previews: HashMap::new(),
            unsaved_previews: BTreeMap::new(),
            secrets: secrets::Held::new(),
            purges: Vec::new(),
            prepared: Prepared::default(),
            later: BTreeMap::new(),
            retried: Instant::now(),
            purged: BTreeSet::new(),
            resend_from: None,
            changed: false,
            is_urgent: false,
        }
    }

    /// What to ask the feed from.
    pub(super) fn since(&self) -> Revision {
        match self.seen {
            Some(_) => Revision::ZERO,
            None => self.resend_from.unwrap_or(self.position.applied),
        }
    }

    /// Brings one line into force. `arrived` is when it came.
    pub(super) async fn line(
        &mut self,
        line: &[u8],
        read: ReadLine,
        arrived: Instant,
    ) -> Result<(), ApplyError> {
        self.is_urgent |= !matches!(read, Ok(FeedLine::Entry(_)));
        match read {
            Ok(FeedLine::Hello { head, flush, history }) => self.hello(head, flush, history)?,
            Ok(FeedLine::Site { revision, site, version, document }) => {
                self.site(Wanted { revision, site, version, document }).await?;
            }
            Ok(FeedLine::SiteRemoved { revision, site }) => self.site_removed(revision, &site),
            Ok(FeedLine::Previews(previews)) => self.previews(previews).await?,
            Ok(FeedLine::Secrets { revision, site }) => self.secrets(revision, &site).await?,
            Ok(FeedLine::Purge(purge)) => self.purge(&purge, arrived),
            Ok(FeedLine::Entry(change)) => self.entry_changed(&change),
            Ok(FeedLine::Head { head }) => self.head(head).await?,
            Ok(FeedLine::Question(question)) => {
                // The answer is of what was told before the question.
                self.swap();
                self.effects.questions.ask(question);
            }
            Ok(FeedLine::Unknown) => {}
            Err(error) => self.unreadable(line, &error, arrived)?,
        }
        Ok(())
    }

    fn hello(&mut self, head: Revision, flush: bool, history: String) -> Result<(), ApplyError> {
        let first = self.position.history.is_empty();
        let other = !first && history != self.position.history;
        let before = !other && head < self.position.applied;
        let asked = self.since();
        self.effects.status.set_head(head);
        if first || other || before || flush {
            if !first || flush {
                tracing::warn!(%head, history, "history lost: the cache is flushed, everything is applied anew");
                self.effects.cache.flush(head);
            }
            self.start_over(history);
            // A stream that goes on from where another history was would leave out its beginning.
            return if flush || asked == Revision::ZERO {
                Ok(())
            } else {
                Err(ApplyError::OtherHistory)
            };
        }
        if asked == Revision::ZERO {
            self.seen = Some(HashSet::new());
        }
        Ok(())
    }

    /// Nothing that was told counts any more; what is in force stays until it is replaced.
    fn start_over(&mut self, history: String) {
        self.known.retain(|_, known| known.runtime.is_some());
        for known in self.known.values_mut() {
            known.revision = Revision::ZERO;
        }
        self.forget_previews_revisions();
        self.forget_secrets_revisions();
        self.effects.copies.clear();
        self.purged.clear();
        self.purges.clear();
        self.later.clear();
        self.refusals.clear();
        self.effects.outbox.clear();
        self.told = Revision::ZERO;
        self.resend_from = None;
        self.seen = Some(HashSet::new());
        self.position =
            Position { history, applied: Revision::ZERO, resync: true, ..Position::default() };
    }

    async fn site(&mut self, wanted: Wanted) -> Result<(), ApplyError> {
        let revision = wanted.revision;
        self.effects.status.saw(revision);
        if let Some(seen) = &mut self.seen {
            seen.insert(wanted.site.clone());
        }
        if self.known.get(&wanted.site).is_none_or(|known| known.revision < revision) {
            self.build(wanted).await?;
        }
        self.advance(revision);
        Ok(())
    }

    async fn build(&mut self, wanted: Wanted) -> Result<(), ApplyError> {
        if let Some(reason) = self.unfit(&wanted) {
            self.refuse(wanted.revision, &wanted.site, &reason);
            return Ok(());
        }
        let previous = self.known.get(&wanted.site).and_then(|known| known.runtime.clone());
        let effects = &self.effects;
        let components = Ready { prepared: &self.prepared, others: &*effects.blobs };
        let built = effects.builder.build(&wanted, &components, previous.as_ref()).await;
        match built {
            Ok(runtime) => {
                let runtime = self.with_secrets(&wanted.site, runtime);
                self.accept(wanted, runtime);
            }
            Err(BuildError::Away(error)) => return Err(error.into()),
            Err(BuildError::Refused(faults)) => {
                self.refuse(wanted.revision, &wanted.site, &faults.to_string());
            }
            Err(BuildError::Later(faults)) => {
                let reason = format!("{faults}\n(it is tried again)");
                self.refuse(wanted.revision, &wanted.site, &reason);
                self.later.insert(wanted.site.clone(), wanted);
            }
        }
        Ok(())
    }

    /// Why a site may not even be looked at.
    fn unfit(&self, wanted: &Wanted) -> Option<String> {
        if !is_site_name(&wanted.site) {
            return Some("not a site's name".to_owned());
        }
        if wanted.document.site != wanted.site {
            return Some(format!("the document is of another site, {:?}", wanted.document.site));
        }
        let is_new = !self.known.contains_key(&wanted.site);
        (is_new && self.known.len() >= SITES_MAX + REMOVED_MAX)
            .then(|| format!("more than {SITES_MAX} sites on this edge"))
    }

    fn accept(&mut self, wanted: Wanted, runtime: Arc<SiteRuntime>) {
        tracing::info!(site = wanted.site, revision = %wanted.revision, version = wanted.version, "site applied");
        self.refusals.remove(&wanted.site);
        self.later.remove(&wanted.site);
        let before = self.known.remove(&wanted.site).and_then(|known| known.runtime);
        let previous_components = before.map(|before| digests_of(&before)).unwrap_or_default();
        let record = SiteRecord {
            history: self.position.history.clone(),
            revision: wanted.revision,
            site: wanted.site.clone(),
            version: wanted.version,
            document: wanted.document,
        };
        let known =
            Known { revision: wanted.revision, runtime: Some(runtime), previous_components };
        self.known.insert(wanted.site.clone(), known);
        self.unsaved.insert(wanted.site, Unsaved::Save(record));
        self.changed = true;
    }

    pub(super) fn refuse(&mut self, revision: Revision, site: &str, reason: &str) {
        let reason: String = reason.chars().take(REASON_MAX).collect();
        tracing::error!(site, %revision, reason, "site refused; the last good version stays");
        self.later.remove(site);
        if is_site_name(site) && (self.known.len() < SITES_MAX || self.known.contains_key(site)) {
            let known = self.known.entry(site.to_owned());
            known.or_insert_with(Known::nothing).revision = revision;
        }
        if self.refusals.len() < REFUSALS_MAX || self.refusals.contains_key(site) {
            let site: String = site.chars().take(63).collect();
            self.refusals.insert(site.clone(), Refusal { revision, site, reason });
        }
    }

    fn site_removed(&mut self, revision: Revision, site: &str) {
        self.effects.status.saw(revision);
        if is_site_name(site) {
            let known = self.known.entry(site.to_owned()).or_insert_with(Known::nothing);
            if known.revision < revision {
                known.revision = revision;
                self.drop_site(site);
            }
            self.forget_removed();
        }
        self.advance(revision);
    }

    fn drop_site(&mut self, site: &str) {
        let runtime = self.known.get_mut(site).and_then(|known| known.runtime.take());
        self.refusals.remove(site);
        self.later.remove(site);
        self.drop_secrets(site);
        if runtime.is_some() {
            tracing::info!(site, "site removed");
            self.unsaved.insert(site.to_owned(), Unsaved::Remove);
            self.changed = true;
        }
    }

    fn forget_removed(&mut self) {
        let removed = self.known.values().filter(|known| known.runtime.is_none()).count();
        if self.known.len() <= REMOVED_MAX || removed <= REMOVED_MAX {
            return;
        }
        let mut revisions: Vec<_> = self
            .known
            .values()
            .filter(|known| known.runtime.is_none())
            .map(|k| k.revision)
            .collect();
        revisions.sort_unstable();
        if let Some(&middle) = revisions.get(revisions.len() / 2) {
            self.known.retain(|_, known| known.runtime.is_some() || known.revision > middle);
        }
    }

    pub(super) fn entry_changed(&mut self, change: &EntryChanged) {
        self.effects.status.saw(change.revision);
        self.effects.copies.changed(change);
        self.advance(change.revision);
    }

    async fn head(&mut self, head: Revision) -> Result<(), ApplyError> {
        self.effects.status.set_head(head);
        if let Some(seen) = self.seen.take() {
            let gone = self
                .known
                .iter()
                .filter(|(site, known)| known.runtime.is_some() && !seen.contains(*site));
            let gone: Vec<_> = gone.map(|(site, _)| site.clone()).collect();
            for site in gone {
                self.drop_site(&site);
            }
            self.drop_unseen_previews(|name| seen.contains(name));
            self.drop_unseen_secrets(|name| seen.contains(name));
            self.position.resync = false;
        }
        self.resend_from = None;
        self.advance(head);
        self.retry_secrets().await?;
        if !self.later.is_empty() && self.retried.elapsed() >= RETRY_EVERY {
            self.retried = Instant::now();
            // One that succeeds or is refused for good takes itself out.
            for wanted in self.later.values().cloned().collect::<Vec<_>>() {
                self.build(wanted).await?;
            }
        }
        Ok(())
    }

    pub(super) fn advance(&mut self, revision: Revision) {
        self.position.applied = self.position.applied.max(revision);
    }

    /// Puts what is known in force.
    pub(super) fn swap(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let runtimes = self.known.values().filter_map(|known| known.runtime.clone());
        let snapshot = Snapshot::new(self.position.applied, runtimes);
        let snapshot = snapshot.with_previews(self.served_previews());
        self.effects.cell.store(Arc::new(snapshot));
    }

    /// Every component that is in force or kept as the version before.
    pub(super) fn components(&self) -> HashSet<String> {
        let mut wanted: HashSet<String> = HashSet::new();
        for known in self.known.values() {
            wanted.extend(known.runtime.iter().flat_map(|runtime| digests_of(runtime)));
            wanted.extend(known.previous_components.iter().cloned());
        }
        wanted.extend(self.previews.values().flat_map(|p| p.components().map(str::to_owned)));
        wanted.extend(
            self.later
                .values()
                .flat_map(|wanted| components_of(&wanted.document))
                .map(str::to_owned),
        );
        wanted
    }

    /// A start from zero is under way.
    pub(super) fn is_starting_over(&self) -> bool {
        self.seen.is_some()
    }
}

// === impl Known ===

impl Known {
    fn nothing() -> Known {
        Known { revision: Revision::ZERO, runtime: None, previous_components: Vec::new() }
    }
}

pub(super) fn digests_of(runtime: &SiteRuntime) -> Vec<String> {
    let handlers = runtime.site.handlers.values();
    handlers
        .filter_map(|handler| match &handler.component {
            verge_config::site::ComponentRef::Digest(digest) => Some(digest.clone()),
            verge_config::site::ComponentRef::Path(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
