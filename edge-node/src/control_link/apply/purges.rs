//! Purges, in their turn or before it. May not put off a purge that can be applied.

use super::super::build::Prepared;
use super::Applier;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Instant;
use verge_config::feed::{AppliedPurge, FeedLine};
use verge_config::purge::Purge;

/// Purges that are remembered, so that a repeat is not counted twice.
const PURGES_REMEMBERED: usize = 10_000;

impl Applier {
    /// Applies a purge in its turn.
    pub(in super::super) fn purge(&mut self, purge: &Purge, arrived: Instant) {
        self.effects.status.saw(purge.revision);
        self.purge_once(purge, arrived);
        self.advance(purge.revision);
    }

    /// What need not wait for its turn. A purge is acknowledged by itself; the revision that counts as
    /// applied goes no further than the lines before it.
    pub(in super::super) fn ahead_of_turn(&mut self, line: FeedLine, arrived: Instant) {
        match line {
            FeedLine::Purge(purge) => {
                self.effects.status.saw(purge.revision);
                self.purge_once(&purge, arrived);
                self.effects.outbox.push(std::mem::take(&mut self.purges));
            }
            FeedLine::Entry(change) => {
                self.effects.status.saw(change.revision);
                self.effects.copies.changed(&change);
            }
            FeedLine::Question(question) => self.effects.questions.ask(question),
            _ => {}
        }
    }

    fn purge_once(&mut self, purge: &Purge, arrived: Instant) {
        let revision = purge.revision;
        if !self.purged.insert(revision) {
            return;
        }
        if self.purged.len() > PURGES_REMEMBERED {
            self.purged.pop_first();
        }
        // A fill that begins after the purge must be of the site as it is told before it.
        self.swap();
        let matched = self.effects.cache.purge(purge) + self.purge_previews(purge);
        let took_us = u64::try_from(arrived.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(site = purge.site, %revision, matched, took_us, "purge applied");
        if revision > self.told {
            self.purges.push(AppliedPurge { revision, matched, took_us });
        }
    }

    /// What is to be prepared before a line's turn: the components of a site or of its previews, which may
    /// take as long to compile as a tenant likes.
    pub(in super::super) fn preparation(
        &self,
        line: &FeedLine,
    ) -> Option<BoxFuture<'static, Prepared>> {
        let documents: Vec<_> = match line {
            FeedLine::Site { document, .. } => vec![Arc::clone(document)],
            FeedLine::Previews(previews) => {
                previews.previews.iter().map(|preview| Arc::clone(&preview.document)).collect()
            }
            _ => return None,
        };
        if documents.iter().all(|document| document.handlers.is_empty()) {
            return None;
        }
        let (builder, blobs) = (Arc::clone(&self.effects.builder), Arc::clone(&self.effects.blobs));
        Some(async move { builder.prepare(&documents, &*blobs).await }.boxed())
    }
}
