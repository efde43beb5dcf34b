//! The commands, what they change, what they lead to, and why they may be refused. Plain values.

use super::{
    EdgeRecord, Entries, PreviewRecord, Sealed, SecretHash, SecretRecord, TokenRecord,
    VersionRecord,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use verge_config::api::{Activated, Enrol, Scope};
use verge_config::feed::Report;
use verge_config::purge::{Mode, PurgeRequest, Selector};
use verge_config::{Faults, Revision};

/// Who gives a command: a token, or an edge by its credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    /// The token's or edge's id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    pub(crate) tenant: String,
}

/// A validated document on its way to become a version.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) site: String,
    /// SHA-256 of `document`.
    pub(crate) digest: String,
    pub(crate) domains: Vec<String>,
    /// Place in the document and digest of every component.
    pub(crate) components: Vec<(String, String)>,
    /// Canonical JSON.
    pub(crate) document: Arc<str>,
}

/// A write of an entry of a site's key-value store.
#[derive(Debug, Clone)]
pub(crate) struct EntryWrite {
    pub(crate) site: String,
    pub(crate) key: String,
    /// None: it is removed.
    pub(crate) value: Option<Bytes>,
    /// The site's own handler writes it, through an edge.
    pub(crate) by_handler: bool,
    /// What the entry that is there counts for, in bytes. The store fills it in: entries are in no memory.
    pub(crate) held: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) enum Command {
    Upload(Upload),
    /// `expected`: the site's revision that the caller has seen, from If-Match.
    Activate {
        site: String,
        version: u64,
        expected: Option<Revision>,
    },
    Rollback {
        site: String,
        expected: Option<Revision>,
    },
    RemoveSite {
        site: String,
        purge_id: String,
        expected: Option<Revision>,
    },
    CreatePreview {
        id: String,
        secret: SecretHash,
        site: String,
        version: u64,
        expires_ms: u64,
    },
    RemovePreview {
        site: String,
        id: String,
    },
    /// Forget the previews that have ended.
    EndPreviews,
    PutSecret {
        site: String,
        name: String,
        sealed: Sealed,
    },
    RemoveSecret {
        site: String,
        name: String,
    },
    WriteEntry(EntryWrite),
    AddBlob {
        digest: String,
        bytes: u64,
    },
    Purge {
        id: String,
        site: String,
        request: PurgeRequest,
    },
    CreateTenant {
        name: String,
    },
    CreateToken {
        id: String,
        secret: SecretHash,
        name: String,
        tenant: String,
        scopes: Vec<Scope>,
        expires_ms: Option<u64>,
    },
    RevokeToken {
        id: String,
    },
    Enrol {
        id: String,
        secret: SecretHash,
        enrol: Enrol,
    },
    RemoveEdge {
        name: String,
    },
    Report {
        edge: String,
        report: Report,
    },
    /// Forget the purges up to this revision.
    Trim {
        upto: Revision,
    },
}

/// One change of the state, as the store writes it.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    VersionAdded {
        site: String,
        tenant: String,
        version: u64,
        record: VersionRecord,
        document: Arc<str>,
    },
    VersionDropped {
        site: String,
        version: u64,
    },
    SiteActivated {
        site: String,
        version: u64,
        previous: Option<u64>,
        revision: Revision,
    },
    SiteRemoved {
        site: String,
        revision: Revision,
    },
    PreviewsSet {
        site: String,
        revision: Revision,
        /// All of the site's.
        previews: Vec<PreviewRecord>,
    },
    SecretPut {
        site: String,
        name: String,
        record: SecretRecord,
        sealed: Sealed,
    },
    SecretRemoved {
        site: String,
        name: String,
        revision: Revision,
    },
    /// All of a site's.
    SecretsDropped {
        site: String,
        revision: Revision,
    },
    EntryWritten {
        site: String,
        key: String,
        value: Option<Bytes>,
        at_ms: u64,
        /// Of the site's change before this one.
        after: Revision,
        /// All of the site's from here on, with the revision of this change.
        now: Entries,
    },
    EntriesDropped {
        site: String,
        now: Entries,
    },
    BlobAdded {
        tenant: String,
        digest: String,
        bytes: u64,
        at_ms: u64,
    },
    Purged {
        id: String,
        tenant: String,
        site: String,
        revision: Revision,
        mode: Mode,
        selectors: Vec<Selector>,
        at_ms: u64,
        by: String,
    },
    TenantCreated {
        name: String,
        at_ms: u64,
    },
    TokenCreated {
        secret: SecretHash,
        record: TokenRecord,
    },
    TokenRevoked {
        id: String,
    },
    EdgeEnrolled(EdgeRecord),
    EdgeRemoved {
        id: String,
        revision: Revision,
    },
    EdgeReported {
        edge: String,
        crossed: Revision,
        at_ms: u64,
        report: Report,
    },
    PurgesTrimmed {
        upto: Revision,
    },
}

/// What a command led to; kept with an idempotency key, so it never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Outcome {
    Version {
        site: String,
        version: u64,
        created: bool,
    },
    Activated(Activated),
    Blob {
        created: bool,
    },
    Purge {
        id: String,
    },
    Tenant {
        name: String,
    },
    Token {
        id: String,
    },
    Preview {
        id: String,
        revision: Revision,
    },
    Secret {
        created: bool,
        revision: Revision,
    },
    Edge {
        id: String,
    },
    /// `existed`: there was an entry by this key before.
    Entry {
        revision: Revision,
        existed: bool,
    },
    Done,
}

/// A command's effect, decided and not yet made.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub(crate) changes: Vec<Change>,
    pub(crate) outcome: Outcome,
    /// Action and target for the audit log; reports of edges have none.
    pub(crate) audit: Option<(&'static str, String)>,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejection {
    /// There is none, or it is another tenant's: nobody can tell which.
    #[error("there is no {what} {name:?} here")]
    NotFound { what: &'static str, name: String },
    #[error("the body has faults")]
    Invalid(Faults),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("the site is at revision {actual}, not at the one in If-Match")]
    Precondition { actual: Revision },
    #[error("{what}: the limit of {limit} is reached")]
    Limit { what: &'static str, limit: u64 },
    #[error("the report is of revision {applied}, ahead of this history's {head}")]
    AheadOfHistory { applied: Revision, head: Revision },
}

// === impl Change ===

impl Change {
    /// The revision that the change takes, when edges are told of it.
    pub(crate) fn revision(&self) -> Option<Revision> {
        match self {
            Change::SiteActivated { revision, .. }
            | Change::SiteRemoved { revision, .. }
            | Change::PreviewsSet { revision, .. }
            | Change::SecretPut { record: SecretRecord { revision, .. }, .. }
            | Change::SecretRemoved { revision, .. }
            | Change::SecretsDropped { revision, .. }
            | Change::Purged { revision, .. } => Some(*revision),
            Change::EntryWritten { now, .. } | Change::EntriesDropped { now, .. } => {
                Some(now.revision)
            }
            _ => None,
        }
    }
}
