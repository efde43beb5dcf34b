//! What the control plane knows, as one value, and how commands change it. Pure: may not touch the
//! clock, the store or a socket; `now` and new ids come in with the command.

mod apply;
mod command;
mod decide;
mod domains;
mod entries;
mod previews;
mod secrets;

pub(crate) use command::{
    Actor, Change, Command, Decision, EntryWrite, Outcome, Rejection, Upload,
};
pub(crate) use decide::decide;

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use verge_config::Revision;
use verge_config::api::Scope;
use verge_config::feed::Refusal;
use verge_config::kv::{MAX_ENTRIES, MAX_TOTAL_BYTES};

/// The tenant that `init` makes; its admins run the installation.
pub(crate) const OPERATOR: &str = "operator";

/// SHA-256 of a secret.
pub(crate) type SecretHash = [u8; 32];

/// Everything that commands are decided by. Documents, purges, entries of key-value stores and the audit
/// log stay in the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) history: String,
    pub(crate) revision: Revision,
    /// Purges up to here are no longer kept.
    pub(crate) trimmed: Revision,
    pub(crate) quotas: Quotas,
    pub(crate) tenants: BTreeMap<String, TenantRecord>,
    pub(crate) tokens: HashMap<SecretHash, TokenRecord>,
    pub(crate) sites: BTreeMap<String, SiteRecord>,
    /// The domains of every active version, each with its site.
    pub(crate) domains: BTreeMap<String, String>,
    /// Per tenant: digest and size.
    pub(crate) blobs: BTreeMap<String, BTreeMap<String, u64>>,
    /// By id; removed ones stay while a purge that they were told of is kept.
    pub(crate) edges: BTreeMap<String, EdgeRecord>,
    pub(crate) edge_secrets: HashMap<SecretHash, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantRecord {
    pub(crate) created_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) tenant: String,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) created_ms: u64,
    pub(crate) expires_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SiteRecord {
    /// Keeps the name even after the site's removal: edges name cached objects by site, so a name
    /// must never pass to another tenant.
    pub(crate) tenant: String,
    pub(crate) versions: BTreeMap<u64, VersionRecord>,
    pub(crate) latest: u64,
    pub(crate) active: Option<u64>,
    pub(crate) previous: Option<u64>,
    /// Of the last activation or removal.
    pub(crate) revision: Revision,
    pub(crate) removed: bool,
    pub(crate) previews: PreviewSet,
    pub(crate) secrets: SecretSet,
    pub(crate) entries: Entries,
}

/// What is known of a site's secrets; never a value, sealed or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SecretSet {
    /// Of the last change to it; zero before the first.
    pub(crate) revision: Revision,
    pub(crate) all: BTreeMap<String, SecretRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretRecord {
    pub(crate) revision: Revision,
    pub(crate) set_ms: u64,
    pub(crate) set_by: String,
}

/// How much there is in a site's key-value store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    /// Of the last change to any of it; zero before the first.
    pub(crate) revision: Revision,
    pub(crate) count: u64,
    /// Of keys and values together.
    pub(crate) bytes: u64,
}

/// The previews of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PreviewSet {
    /// Of the last change to it; zero before the first.
    pub(crate) revision: Revision,
    pub(crate) all: Vec<PreviewRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PreviewRecord {
    pub(crate) id: String,
    pub(crate) slot: u8,
    pub(crate) version: u64,
    pub(crate) secret: SecretHash,
    pub(crate) created_ms: u64,
    pub(crate) created_by: String,
    pub(crate) expires_ms: u64,
}

/// A secret on its way to the store, sealed by whoever took it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// The id of the key.
    pub(crate) key: String,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionRecord {
    pub(crate) digest: String,
    pub(crate) domains: Vec<String>,
    pub(crate) created_ms: u64,
    pub(crate) created_by: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EdgeRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) secret: SecretHash,
    /// It is told of every purge after this revision.
    pub(crate) enrolled: Revision,
    /// The newest revision when it was removed.
    pub(crate) removed: Option<Revision>,
    /// As last reported; falls when an edge starts again from zero.
    pub(crate) applied: Revision,
    /// The highest `applied` ever: up to here its receipts are written.
    pub(crate) crossed: Revision,
    /// Purges beyond `crossed` that it has applied before their turn; at most [`MAX_AHEAD`].
    pub(crate) ahead: BTreeSet<Revision>,
    pub(crate) seen_ms: Option<u64>,
    pub(crate) refusals: Vec<Refusal>,
}

/// Of more purges that an edge has applied before their turn, the newest are remembered; the receipts of
/// the others are told all the same.
pub(crate) const MAX_AHEAD: usize = 10_000;

// === impl EdgeRecord ===

impl EdgeRecord {
    /// Whether it has applied the purge of this revision.
    pub(crate) fn has_purged(&self, revision: Revision) -> bool {
        self.crossed >= revision || self.ahead.contains(&revision)
    }

    /// Forgets what is no longer ahead of its turn, and what is too much.
    pub(crate) fn bound_ahead(&mut self) {
        let crossed = self.crossed;
        self.ahead.retain(|revision| *revision > crossed);
        while self.ahead.len() > MAX_AHEAD {
            self.ahead.pop_first();
        }
    }
}

/// Ceilings on what tenants can grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quotas {
    pub(crate) blobs_per_tenant: usize,
    pub(crate) blob_bytes_per_tenant: u64,
    pub(crate) sites_per_tenant: usize,
    /// Names that it holds, removed sites' too.
    pub(crate) names_per_tenant: usize,
    /// The oldest that is not in use makes room for a new one.
    pub(crate) versions_per_site: usize,
    pub(crate) tokens_per_tenant: usize,
    pub(crate) entries_per_site: u64,
    pub(crate) entry_bytes_per_site: u64,
    pub(crate) tenants: usize,
    pub(crate) edges: usize,
}

// === impl Quotas ===

impl Default for Quotas {
    fn default() -> Self {
        Quotas {
            blobs_per_tenant: 10_000,
            blob_bytes_per_tenant: 10 * 1024 * 1024 * 1024,
            sites_per_tenant: 1_000,
            names_per_tenant: 10_000,
            versions_per_site: 1_000,
            tokens_per_tenant: 1_000,
            entries_per_site: MAX_ENTRIES,
            entry_bytes_per_site: MAX_TOTAL_BYTES,
            tenants: 10_000,
            edges: 10_000,
        }
    }
}

// === impl State ===

impl State {
    /// A site that `tenant` owns and that is not removed; a foreign one is the same as none.
    pub(crate) fn site(&self, tenant: &str, name: &str) -> Option<&SiteRecord> {
        self.sites.get(name).filter(|site| site.tenant == tenant && !site.removed)
    }

    /// The tenant of a site that edges serve.
    pub(crate) fn tenant_of_served(&self, name: &str) -> Option<&str> {
        let site = self.sites.get(name).filter(|site| site.active.is_some())?;
        Some(&site.tenant)
    }

    /// The site whose active version answers a normalised host without its port.
    pub(crate) fn site_for(&self, host: &str) -> Option<&str> {
        domains::owner(&self.domains, host)
    }

    pub(crate) fn owns_blob(&self, tenant: &str, digest: &str) -> Option<u64> {
        self.blobs.get(tenant)?.get(digest).copied()
    }

    /// A blob that any tenant owns: what an edge may fetch.
    pub(crate) fn any_blob(&self, digest: &str) -> Option<u64> {
        self.blobs.values().find_map(|blobs| blobs.get(digest).copied())
    }

    pub(crate) fn edge_named(&self, name: &str) -> Option<&EdgeRecord> {
        self.edges.values().find(|edge| edge.name == name && edge.removed.is_none())
    }

    pub(crate) fn token_by_id(&self, id: &str) -> Option<(&SecretHash, &TokenRecord)> {
        self.tokens.iter().find(|(_, token)| token.id == id)
    }

    /// The edges that were enrolled when `revision` was committed.
    pub(crate) fn told_of(&self, revision: Revision) -> impl Iterator<Item = &EdgeRecord> {
        self.edges.values().filter(move |edge| edge.was_told(revision))
    }
}

// === impl SiteRecord ===

impl SiteRecord {
    pub(crate) fn domains(&self) -> &[String] {
        self.active
            .and_then(|version| self.versions.get(&version))
            .map_or(&[], |version| version.domains.as_slice())
    }
}

// === impl EdgeRecord ===

impl EdgeRecord {
    /// Whether it was enrolled when `revision` was committed.
    pub(crate) fn was_told(&self, revision: Revision) -> bool {
        self.enrolled < revision && self.removed.is_none_or(|removed| removed >= revision)
    }
}
