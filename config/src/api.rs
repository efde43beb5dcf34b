//! The bodies of the control plane's API, as the server writes them and the command line reads them.

use crate::fault::Fault;
use crate::feed::Refusal;
use crate::purge::{Mode, Selector};
use crate::revision::Revision;
use serde::{Deserialize, Serialize};

/// An error's body: RFC 9457 (`application/problem+json`), with every fault named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable name of the kind of problem, as a relative reference (`/problems/invalid-site`).
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The status again.
    pub status: u16,
    /// What is wrong this time, and what to do.
    pub detail: String,
    /// Every fault of the body sent, where that is what is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, newest first where they have an order in time.
    pub items: Vec<T>,
    /// Pass it as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A site, as `GET /v1/sites` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteInfo {
    /// Its name.
    pub site: String,
    /// The tenant that owns it.
    pub tenant: String,
    /// The active version, if one is.
    pub active: Option<u64>,
    /// The newest version uploaded.
    pub latest: u64,
    /// The domains of the active version.
    pub domains: Vec<String>,
    /// The revision of the last activation.
    pub revision: Revision,
}

/// A version of a site: immutable once uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The site.
    pub site: String,
    /// 1, 2, 3, … per site.
    pub version: u64,
    /// Whether it is the one that edges serve.
    pub active: bool,
    /// When it was uploaded: milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Who uploaded it: the token's name.
    pub created_by: String,
    /// SHA-256 of the document, in hexadecimal.
    pub digest: String,
}

/// The body of `PUT /v1/sites/{site}/active`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activate {
    /// The version to serve.
    pub version: u64,
}

/// The answer to an activation, a rollback or a removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activated {
    /// The site.
    pub site: String,
    /// The version now active.
    pub version: u64,
    /// The one that was active before.
    pub previous: Option<u64>,
    /// The revision under which it happened.
    pub revision: Revision,
}

/// The body of `POST /v1/sites/{site}/versions/{version}/previews`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPreview {
    /// How long it lasts, in seconds; a day when absent, a week at most.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
}

/// A preview of a version, as `GET /v1/sites/{site}/previews` lists it; without its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewInfo {
    /// Its id.
    pub id: String,
    /// The site.
    pub site: String,
    /// The version that it shows.
    pub version: u64,
    /// When it was made: milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Who made it: the token's name.
    pub created_by: String,
    /// When it ends: milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// The answer to the making of a preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewCreated {
    /// The token, told once; only its hash is kept.
    pub token: String,
    /// The field of a request that carries it.
    pub field: String,
    /// Where a browser gets it as a cookie, on the hosts of the site that have a name.
    pub urls: Vec<String>,
    /// The revision from which on edges know of it.
    pub revision: Revision,
    /// All else.
    #[serde(flatten)]
    pub info: PreviewInfo,
}

/// A secret of a site, as `GET /v1/sites/{site}/secrets` lists it; its value is told to nobody but edges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretInfo {
    /// The site.
    pub site: String,
    /// Its name.
    pub name: String,
    /// When it was set: milliseconds since the Unix epoch.
    pub set_ms: u64,
    /// Who set it: the token's name.
    pub set_by: String,
    /// The revision from which on edges have it.
    pub revision: Revision,
}

/// A purge and what is known of it on every edge: the answer of `POST /v1/purges` and of
/// `GET /v1/purges/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The purge's id.
    pub id: String,
    /// The site.
    pub site: String,
    /// Its place in history.
    pub revision: Revision,
    /// Hard or soft.
    pub mode: Mode,
    /// What it selects.
    pub selectors: Vec<Selector>,
    /// When it was committed: milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Who asked for it: the token's name.
    pub created_by: String,
    /// Every edge that was enrolled when it was committed has applied it.
    pub complete: bool,
    /// How many edges have applied it.
    pub applied: u64,
    /// How many are connected and have not applied it yet.
    pub pending: u64,
    /// How many are away; they apply it before they serve from what they have missed.
    pub offline: u64,
    /// Objects matched, on all edges that have applied it.
    pub matched: u64,
    /// The median and the 99th percentile of the latencies of the edges that have applied it, in
    /// milliseconds; absent before the first.
    pub p50_ms: Option<u64>,
    /// See `p50_ms`.
    pub p99_ms: Option<u64>,
    /// In words, what an admin should know: that nothing matched, that an edge is away.
    pub notes: Vec<String>,
    /// Nothing was purged and nothing is kept: `revision` is the newest one of then, `applied` counts
    /// the edges that have answered, `matched` what the purge would be for there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Each edge.
    pub edges: Vec<EdgeReceipt>,
}

/// What one edge did with a purge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeReceipt {
    /// The edge's name.
    pub edge: String,
    /// How far it is.
    pub state: EdgePurgeState,
    /// From the commit to the edge's report of it, in milliseconds.
    pub latency_ms: Option<u64>,
    /// How many stored objects it selected there.
    pub matched: Option<u64>,
    /// Of a dry run: URLs of some of them, at most [`crate::feed::MAX_SAMPLES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<String>,
}

/// How far an edge is with a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgePurgeState {
    /// In force there.
    Applied,
    /// Of a dry run: counted there, and nothing purged.
    Counted,
    /// Connected, and not yet reported.
    Pending,
    /// Not connected.
    Offline,
}

/// What every edge would do with a URL, and why: the answer of `GET /v1/explanations?url=…`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanations {
    /// The URL.
    pub url: String,
    /// The site that answers its host.
    pub site: String,
    /// The newest revision when the edges were asked.
    pub revision: Revision,
    /// Every enrolled edge has answered.
    pub complete: bool,
    /// Each edge, by name.
    pub edges: Vec<EdgeExplanation>,
}

/// What one edge says of a URL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeExplanation {
    /// The edge's name.
    pub edge: String,
    /// Whether it has answered.
    pub state: AnswerState,
    /// Its explanation; its fields are the edge's own affair and grow with its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<serde_json::Value>,
    /// Why it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How far an edge is with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerState {
    /// It has explained.
    Answered,
    /// It has answered that it cannot.
    Refused,
    /// Connected, and no answer yet.
    Pending,
    /// Not connected.
    Offline,
}

/// The body of `POST /v1/edges`: enrolment with a join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// The name that the edge goes by; enrolling again under the same name replaces its credential.
    pub name: String,
    /// The edge's software version.
    #[serde(default)]
    pub version: String,
}

/// The answer to an enrolment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The edge's id.
    pub id: String,
    /// Its credential, told once.
    pub token: String,
}

/// An edge, as `GET /v1/edges` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeInfo {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its software version.
    pub version: String,
    /// Whether its feed is open now.
    pub connected: bool,
    /// The last revision that it reported as applied.
    pub applied: Revision,
    /// How many revisions it is behind.
    pub lag: u64,
    /// When it was last heard of: milliseconds since the Unix epoch.
    pub last_seen_ms: Option<u64>,
    /// What it refuses, with reasons.
    pub refusals: Vec<Refusal>,
}

/// What a token may do. `admin` may do everything within its tenant, and, in the tenant that `init`
/// makes, everything with tenants, edges and tokens of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything in the tenant.
    Admin,
    /// Upload blobs and versions, activate, roll back; and read.
    Deploy,
    /// Purge, and read receipts.
    Purge,
    /// Read.
    Read,
    /// Enrol edges.
    Join,
}

/// The body of `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for, in the creator's words.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The tenant; the creator's own when absent. Only the operator's admin may name another.
    #[serde(default)]
    pub tenant: Option<String>,
    /// When it ends: seconds from now. Never, when absent.
    #[serde(default)]
    pub expires_in_seconds: Option<u64>,
}

/// A token, as `GET /v1/tokens` lists it; without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made: milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it ends.
    pub expires_ms: Option<u64>,
}

/// The answer to `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The secret, told once; only its hash is kept.
    pub token: String,
    /// All else.
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// The answer to `PUT /v1/blobs/{digest}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobInfo {
    /// SHA-256 in hexadecimal.
    pub digest: String,
    /// Its size in bytes.
    pub bytes: u64,
}
