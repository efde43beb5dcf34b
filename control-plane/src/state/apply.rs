//! Makes committed changes true in the state. Total: what the store has written cannot be refused.

use super::{Change, Entries, PreviewSet, SecretSet, SiteRecord, State, TenantRecord};
use std::collections::BTreeMap;
use verge_config::Revision;

impl State {
    /// Makes one committed change true.
    pub(crate) fn apply(&mut self, change: &Change) {
        if let Some(revision) = change.revision() {
            self.revision = self.revision.max(revision);
        }
        match change {
            Change::VersionAdded { site, tenant, version, record, .. } => {
                let site = self.sites.entry(site.clone()).or_insert_with(|| SiteRecord {
                    tenant: tenant.clone(),
                    versions: BTreeMap::new(),
                    latest: 0,
                    active: None,
                    previous: None,
                    revision: Revision::ZERO,
                    removed: false,
                    previews: PreviewSet::default(),
                    secrets: SecretSet::default(),
                    entries: Entries::default(),
                });
                site.removed = false;
                site.latest = site.latest.max(*version);
                site.versions.insert(*version, record.clone());
            }
            Change::VersionDropped { site, version } => {
                if let Some(site) = self.sites.get_mut(site) {
                    site.versions.remove(version);
                }
            }
            Change::SiteActivated { site, version, previous, revision } => {
                self.activate(site, *version, *previous, *revision);
            }
            Change::SiteRemoved { site, revision } => {
                self.domains.retain(|_, owner| owner != site);
                if let Some(site) = self.sites.get_mut(site) {
                    site.removed = true;
                    site.versions.clear();
                    (site.active, site.previous) = (None, None);
                    site.revision = *revision;
                }
            }
            Change::PreviewsSet { site, revision, previews } => {
                if let Some(site) = self.sites.get_mut(site) {
                    site.previews = PreviewSet { revision: *revision, all: previews.clone() };
                }
            }
            Change::SecretPut { site, .. }
            | Change::SecretRemoved { site, .. }
            | Change::SecretsDropped { site, .. } => {
                if let Some(site) = self.sites.get_mut(site) {
                    site.secrets.apply(change);
                }
            }
            Change::EntryWritten { site, now, .. } | Change::EntriesDropped { site, now } => {
                if let Some(site) = self.sites.get_mut(site) {
                    site.entries = *now;
                }
            }
            Change::BlobAdded { tenant, digest, bytes, .. } => {
                self.blobs.entry(tenant.clone()).or_default().insert(digest.clone(), *bytes);
            }
            Change::Purged { .. } => {}
            Change::PurgesTrimmed { upto } => self.trim(*upto),
            _ => self.apply_access(change),
        }
    }

    /// The changes of who may come in: tenants, tokens and edges.
    fn apply_access(&mut self, change: &Change) {
        match change {
            Change::TenantCreated { name, at_ms } => {
                self.tenants.insert(name.clone(), TenantRecord { created_ms: *at_ms });
            }
            Change::TokenCreated { secret, record } => {
                self.tokens.insert(*secret, record.clone());
            }
            Change::TokenRevoked { id } => self.tokens.retain(|_, token| token.id != *id),
            Change::EdgeEnrolled(record) => {
                if let Some(old) = self.edges.get(&record.id) {
                    self.edge_secrets.remove(&old.secret);
                }
                self.edge_secrets.insert(record.secret, record.id.clone());
                self.edges.insert(record.id.clone(), record.clone());
            }
            Change::EdgeRemoved { id, revision } => {
                if let Some(edge) = self.edges.get_mut(id) {
                    self.edge_secrets.remove(&edge.secret);
                    edge.removed = Some(*revision);
                }
            }
            Change::EdgeReported { edge, crossed, at_ms, report } => {
                let head = self.revision;
                if let Some(edge) = self.edges.get_mut(edge) {
                    edge.applied = report.applied;
                    edge.crossed = edge.crossed.max(*crossed);
                    let purged = report.purges.iter().map(|purge| purge.revision);
                    edge.ahead.extend(purged.filter(|revision| *revision <= head));
                    edge.bound_ahead();
                    edge.seen_ms = Some(*at_ms);
                    edge.refusals.clone_from(&report.refusals);
                    if !report.version.is_empty() {
                        edge.version.clone_from(&report.version);
                    }
                }
            }
            _ => {}
        }
    }

    fn activate(&mut self, name: &str, version: u64, previous: Option<u64>, revision: Revision) {
        self.domains.retain(|_, owner| owner != name);
        let Some(site) = self.sites.get_mut(name) else { return };
        site.active = Some(version);
        site.previous = previous;
        site.revision = revision;
        for domain in site.domains() {
            self.domains.insert(domain.clone(), name.to_owned());
        }
    }

    /// A removed edge is of use only to the receipts of purges that are still kept.
    fn trim(&mut self, upto: Revision) {
        self.trimmed = self.trimmed.max(upto);
        self.edges.retain(|_, edge| edge.removed.is_none_or(|removed| removed > upto));
    }
}
