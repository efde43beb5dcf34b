//! Previews of sites, brought into force like sites: an older revision is refused, a repeat is no change,
//! and what cannot be built is refused by itself while the others stay. A slot's stored responses are
//! dropped before it is another preview's.

use super::apply::{Applier, ApplyError, REASON_MAX, REFUSALS_MAX, digests_of};
use super::blobs::Blobs;
use super::build::{BuildError, Components, Ready, Wanted, components_of};
use super::last_good::{PreviewsRecord, is_site_name};
use crate::snapshot::{Previewed, SiteRuntime};
use std::sync::Arc;
use verge_config::feed::Refusal;
use verge_config::preview::{MAX_PREVIEWS, Preview, Previews, namespace};
use verge_config::purge::Purge;
use verge_config::secrets::{Secrets, secrets_of};
use verge_config::{Mode, Revision, Selector};

/// The most sites with previews on one edge.
const SITES_MAX: usize = 10_000;

/// The previews of one site as they are known here.
#[derive(Default)]
pub(super) struct Known {
    /// The newest revision that was told of them.
    pub(super) revision: Revision,
    /// As they were told.
    pub(super) told: Vec<Preview>,
    /// Those that could be built.
    served: Vec<Previewed>,
}

// === impl Known ===

impl Known {
    /// The digests of the components that they need.
    pub(super) fn components(&self) -> impl Iterator<Item = &str> {
        self.told.iter().flat_map(|preview| components_of(&preview.document))
    }

    /// Those that are served go on with these secrets.
    pub(super) fn give_secrets(&mut self, secrets: &Arc<Secrets>) {
        for preview in &mut self.served {
            preview.runtime = Arc::new(preview.runtime.with_secrets(Arc::clone(secrets)));
        }
    }
}

// === impl Applier ===

impl Applier {
    /// Brings a site's previews into force.
    pub(super) async fn previews(&mut self, line: Previews) -> Result<(), ApplyError> {
        let Previews { revision, site, mut previews } = line;
        self.effects.status.saw(revision);
        self.see_previews(&site);
        let known = self.previews.get(&site);
        let room = known.is_some() || self.previews.len() < SITES_MAX;
        let newer = known.is_none_or(|known| known.revision < revision);
        if is_site_name(&site) && newer && room {
            previews.truncate(MAX_PREVIEWS);
            let secrets = secrets_of(&site);
            self.refusals
                .retain(|name, _| *name == secrets || !name.starts_with(&namespace_of(&site)));
            self.empty_slots(&site, &previews, revision);
            let blobs = Arc::clone(&self.effects.blobs);
            let prepared = std::mem::take(&mut self.prepared);
            let components = Ready { prepared: &prepared, others: &*blobs };
            let served = self.build_previews(&site, revision, &previews, &components).await?;
            let history = self.position.history.clone();
            let (told, name) = (previews.clone(), site.clone());
            let record = PreviewsRecord { history, revision, site: name, previews };
            self.unsaved_previews.insert(site.clone(), record);
            tracing::info!(site, %revision, previews = told.len(), "previews applied");
            self.previews.insert(site, Known { revision, told, served });
            self.changed = true;
        }
        self.advance(revision);
        Ok(())
    }

    /// Previews that this version cannot read: none are served any more, since one that has ended may be
    /// among those that are.
    pub(super) fn unreadable_previews(
        &mut self,
        revision: Revision,
        site: &str,
        error: &serde_json::Error,
    ) {
        self.effects.status.saw(revision);
        self.see_previews(site);
        if self.previews.get(site).is_some_and(|known| known.revision < revision) {
            self.drop_previews(site, revision);
        }
        let reason = format!("the site's previews cannot be read: {error}");
        self.refuse_part(revision, namespace(site, 0), reason);
        self.advance(revision);
    }

    /// A part of a site that is not as it was told; it is named as no site is.
    pub(super) fn refuse_part(&mut self, revision: Revision, name: String, reason: String) {
        let reason: String = reason.chars().take(REASON_MAX).collect();
        let refused = self.refusals.get(&name);
        // What is tried again and again is logged once.
        if refused.is_none_or(|before| before.revision != revision || before.reason != reason) {
            tracing::error!(name, %revision, reason, "refused; what is good of the site stays");
        }
        if self.refusals.len() < REFUSALS_MAX || self.refusals.contains_key(&name) {
            let refusal = Refusal { revision, site: name.clone(), reason };
            self.refusals.insert(name, refusal);
        }
    }

    fn drop_previews(&mut self, site: &str, revision: Revision) {
        let (history, previews) = (self.position.history.clone(), Vec::new());
        let record = PreviewsRecord { history, revision, site: site.to_owned(), previews };
        self.unsaved_previews.insert(site.to_owned(), record);
        self.previews.insert(site.to_owned(), Known { revision, ..Known::default() });
        self.changed = true;
    }

    /// Purges the slots that are another preview's from now on: what is stored there is the old one's.
    fn empty_slots(&self, site: &str, previews: &[Preview], revision: Revision) {
        let old = self.previews.get(site).map(|known| known.told.as_slice()).unwrap_or_default();
        let same =
            |new: &&Preview| !old.iter().any(|old| (&old.id, old.slot) == (&new.id, new.slot));
        for preview in previews.iter().filter(same) {
            self.effects.cache.purge(&Purge {
                revision,
                site: namespace(site, preview.slot),
                selectors: vec![Selector::Everything(true)],
                mode: Mode::Hard,
            });
        }
    }

    async fn build_previews(
        &mut self,
        site: &str,
        revision: Revision,
        previews: &[Preview],
        components: &dyn Components,
    ) -> Result<Vec<Previewed>, ApplyError> {
        let mut served = Vec::new();
        for preview in previews {
            let name = namespace(site, preview.slot);
            let wanted = Wanted {
                revision,
                site: site.to_owned(),
                version: preview.version,
                document: Arc::clone(&preview.document),
            };
            let active = self.known.get(site).and_then(|known| known.runtime.clone());
            let built = self.effects.builder.build(&wanted, components, active.as_ref()).await;
            match built {
                Ok(runtime) => {
                    let runtime = self.with_secrets(site, runtime);
                    match entry(preview, &name, site, runtime) {
                        Ok(entry) => served.push(entry),
                        Err(reason) => self.refuse_part(revision, name, reason.to_owned()),
                    }
                }
                Err(BuildError::Away(error)) => return Err(error.into()),
                Err(BuildError::Refused(faults) | BuildError::Later(faults)) => {
                    self.refuse_part(revision, name, faults.to_string());
                }
            }
        }
        Ok(served)
    }

    /// A purge of a site reaches its previews; how many objects it matched there.
    pub(super) fn purge_previews(&self, purge: &Purge) -> u64 {
        let slots = self.previews.get(&purge.site).map(|known| known.told.as_slice());
        let slots = slots.unwrap_or_default().iter().map(|preview| preview.slot);
        let matched = slots.map(|slot| {
            let site = namespace(&purge.site, slot);
            self.effects.cache.purge(&Purge { site, ..purge.clone() })
        });
        matched.sum()
    }

    /// After a start from zero: the previews that were not named are gone.
    pub(super) fn drop_unseen_previews(&mut self, seen: impl Fn(&str) -> bool) {
        let gone: Vec<String> =
            self.previews.keys().filter(|site| !seen(&namespace_of(site))).cloned().collect();
        for site in gone {
            self.drop_previews(&site, self.position.applied);
            self.previews.remove(&site);
        }
    }

    /// Nothing that was told counts any more; what is in force stays until it is replaced.
    pub(super) fn forget_previews_revisions(&mut self) {
        for known in self.previews.values_mut() {
            known.revision = Revision::ZERO;
        }
    }

    fn see_previews(&mut self, site: &str) {
        if let Some(seen) = &mut self.seen {
            seen.insert(namespace_of(site));
        }
    }

    /// The components of previews that are in force and not on disk yet.
    pub(super) fn unsaved_preview_components(&self) -> Vec<String> {
        let sites = self.unsaved_previews.keys().filter_map(|site| self.previews.get(site));
        let served = sites.flat_map(|known| &known.served);
        served.flat_map(|preview| digests_of(&preview.runtime)).collect()
    }

    /// What snapshots hold.
    pub(super) fn served_previews(&self) -> Vec<(Arc<str>, Vec<Previewed>)> {
        let all = self.previews.iter();
        all.map(|(site, known)| (Arc::from(site.as_str()), known.served.clone())).collect()
    }

    /// Puts the previews in force that are on disk; says whether all of them could be read.
    pub(super) async fn restore_previews(&mut self, local: &Blobs) -> bool {
        let (records, mut whole) = self.effects.kept.previews();
        for PreviewsRecord { history, revision, site, previews } in records {
            let built = self.build_previews(&site, revision, &previews, local).await;
            let served = built.unwrap_or_default();
            // What could not be built is built once it is told again.
            let is_good = served.len() == previews.len() && history == self.position.history;
            whole &= is_good;
            let revision = if is_good { revision } else { Revision::ZERO };
            self.previews.insert(site, Known { revision, told: previews, served });
        }
        whole
    }
}

/// How the previews of a site are named among what a start from zero has seen.
fn namespace_of(site: &str) -> String {
    format!("{site}@")
}

/// A built version, under its preview's namespace.
fn entry(
    preview: &Preview,
    name: &str,
    site: &str,
    mut runtime: Arc<SiteRuntime>,
) -> Result<Previewed, &'static str> {
    let mut token = [0; 32];
    hex::decode_to_slice(&preview.token_sha256, &mut token).map_err(|_| "not a SHA-256")?;
    if preview.document.site != site {
        return Err("the document is of another site");
    }
    // Without a namespace of its own it would answer from the active version's stored responses.
    let own = Arc::get_mut(&mut runtime).ok_or("the version is shared")?;
    own.name = name.into();
    Ok(Previewed { token, expires_ms: preview.expires_ms, runtime })
}
