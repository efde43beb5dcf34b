//! After lines were applied: swap, persist, acknowledge; and at the start the way back. What is not
//! on disk is not acknowledged, and the position on disk never runs ahead of the sites on disk.

use super::apply::{Applier, Known, Unsaved};
use super::blobs::Blobs;
use super::build::{Wanted, components_of};
use super::last_good::{Kept, Position, SiteRecord, StateError};
use std::collections::BTreeMap;
use std::sync::Arc;
use verge_config::Revision;

/// A refusal is tried again after a restart when the control plane need not tell more than this
/// many revisions again for it.
const RESEND_MAX: u64 = 10_000;

impl Applier {
    /// Puts what was applied in force, writes it down and acknowledges it. What cannot be written is
    /// tried again at the next call; it is in force, and not acknowledged.
    pub(super) async fn settle(&mut self) {
        self.swap();
        self.effects.status.set_refusals(&self.refusals);
        let sites_changed = !self.unsaved.is_empty() || !self.unsaved_previews.is_empty();
        if let Err(error) = self.persist().await {
            tracing::error!(
                error,
                "what is in force cannot be kept on disk; it is not acknowledged"
            );
            return;
        }
        if sites_changed {
            let wanted = self.components();
            let blobs = Arc::clone(&self.effects.blobs);
            let _ = tokio::task::spawn_blocking(move || blobs.retain(&wanted)).await;
        }
        self.effects.status.set_applied(self.position.applied);
        // A feed that was lost before its first line has put nothing in force.
        if !self.is_starting_over() && !self.position.history.is_empty() {
            self.effects.status.set_ready();
        }
        if std::mem::take(&mut self.is_urgent) {
            self.effects.outbox.push(std::mem::take(&mut self.purges));
        } else {
            self.effects.outbox.report_later();
        }
    }

    async fn persist(&mut self) -> Result<(), String> {
        for unsaved in self.unsaved.values() {
            let Unsaved::Save(record) = unsaved else { continue };
            for digest in components_of(&record.document) {
                let there = self.effects.blobs.ensure(digest).await;
                there.map_err(|error| format!("component {digest}: {error}"))?;
            }
        }
        for digest in self.unsaved_preview_components() {
            let there = self.effects.blobs.ensure(&digest).await;
            there.map_err(|error| format!("component {digest}: {error}"))?;
        }
        let position = self.position_to_save();
        let nothing = self.unsaved.is_empty()
            && self.unsaved_previews.is_empty()
            && self.secrets.unsaved.is_empty();
        if nothing && position == self.saved {
            return Ok(());
        }
        let (kept, sites) = (Arc::clone(&self.effects.kept), std::mem::take(&mut self.unsaved));
        let previews = std::mem::take(&mut self.unsaved_previews);
        let (source, secrets) =
            (Arc::clone(&self.effects.secrets), std::mem::take(&mut self.secrets.unsaved));
        let written = tokio::task::spawn_blocking(move || {
            let (secrets, secrets_error) =
                write_all(secrets, |_, record| source.vault.save(record));
            let (sites, site_error) = write_all(sites, |site, unsaved| match unsaved {
                Unsaved::Save(record) => kept.save_site(record),
                Unsaved::Remove => kept.remove_site(site),
            });
            let (previews, error) = write_all(previews, |_, record| kept.save_previews(record));
            let result = match secrets_error.or(site_error).or(error) {
                Some(error) => Err(error.to_string()),
                None => kept.save_position(&position).map_err(|error| error.to_string()),
            };
            (sites, previews, secrets, position, result)
        });
        let (sites, previews, secrets, position, result) =
            written.await.map_err(|error| error.to_string())?;
        (self.unsaved, self.unsaved_previews, self.secrets.unsaved) = (sites, previews, secrets);
        result?;
        self.saved = position;
        Ok(())
    }

    fn position_to_save(&self) -> Position {
        Position {
            refusals: self.refusals.values().cloned().collect(),
            sites: self.known.values().filter(|known| known.runtime.is_some()).count() as u64,
            secrets: Some(self.secrets.sites()),
            ..self.position.clone()
        }
    }

    /// Puts in force what is on disk; needs nobody. Where that has a hole, the control plane is asked
    /// from further back.
    pub(super) async fn restore(&mut self) -> Result<(), StateError> {
        let kept = self.effects.kept.sites()?;
        if self.position.sites != kept.len() as u64 {
            self.resend_from = Some(Revision::ZERO);
        }
        if !self.restore_secrets() {
            self.resend_from = Some(Revision::ZERO);
        }
        let local = Blobs::local(self.effects.kept.blobs());
        for Kept { site, candidates, damaged } in kept {
            let whole = self.restore_site(&local, site, candidates).await;
            if damaged || !whole {
                self.resend_from = Some(Revision::ZERO);
            }
        }
        if !self.restore_previews(&local).await {
            self.resend_from = Some(Revision::ZERO);
        }
        let refused = self.refusals.values().map(|refusal| refusal.revision).min();
        if let (Some(refused), None) = (refused, self.resend_from)
            && refused.lag(self.position.applied) <= RESEND_MAX
        {
            self.resend_from = Some(Revision(refused.0.saturating_sub(1)));
        }
        self.changed = true;
        self.swap();
        let status = &self.effects.status;
        status.set_applied(self.position.applied);
        status.set_head(self.position.applied);
        status.set_refusals(&self.refusals);
        if !self.position.history.is_empty() && !self.position.resync
            || self.known.values().any(|known| known.runtime.is_some())
        {
            status.set_ready();
        }
        Ok(())
    }

    /// Says whether the newest document kept is the one in force.
    async fn restore_site(
        &mut self,
        local: &Blobs,
        site: String,
        candidates: Vec<SiteRecord>,
    ) -> bool {
        let previous_components = candidates
            .iter()
            .flat_map(|record| components_of(&record.document))
            .map(str::to_owned)
            .collect();
        let mut newest = true;
        for record in candidates {
            let wanted = Wanted {
                revision: record.revision,
                site: record.site,
                version: record.version,
                document: record.document,
            };
            match self.effects.builder.build(&wanted, local, None).await {
                Ok(runtime) => {
                    tracing::info!(site, revision = %wanted.revision, newest, "last good version in force");
                    let of_this_history = record.history == self.position.history;
                    let revision = if of_this_history { wanted.revision } else { Revision::ZERO };
                    let runtime = Some(self.with_secrets(&site, runtime));
                    self.known.insert(site, Known { revision, runtime, previous_components });
                    return newest && of_this_history;
                }
                Err(error) => {
                    tracing::error!(site, revision = %wanted.revision, %error, "a kept version cannot be served; it is passed over");
                    newest = false;
                }
            }
        }
        false
    }
}

/// Does each; gives back what was not done, and why.
fn write_all<T>(
    mut unsaved: BTreeMap<String, T>,
    mut write: impl FnMut(&str, &T) -> Result<(), StateError>,
) -> (BTreeMap<String, T>, Option<StateError>) {
    let mut first = None;
    unsaved.retain(|site, what| match write(site, what) {
        Ok(()) => false,
        Err(error) => {
            first.get_or_insert(error);
            true
        }
    });
    (unsaved, first)
}
