//! The messages between the control plane and its edges: the feed's lines one way, reports the other.
//!
//! Rule for mixed versions: a reader ignores fields that it does not know, and treats a line of an
//! unknown type as applied, so that an older edge keeps its place in the feed of a newer control plane.

use crate::purge::Purge;
use crate::revision::Revision;
use crate::site::SiteDocument;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The longest line of the feed, in bytes; a longer one is a broken stream.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// One line of `GET /v1/feed?since=<revision>`: JSON, ended by a line feed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FeedLine {
    /// The first line of every stream.
    Hello {
        /// The newest revision at the time of writing.
        head: Revision,
        /// The purge log no longer reaches back to `since` (or `since` is not of this history): the
        /// edge must drop its cache before it applies what follows.
        flush: bool,
        /// Names the history; an edge that was fed by another one starts again from zero.
        history: String,
    },
    /// A site as it is from this revision on; whole, so that a replay is harmless.
    Site {
        /// Its revision.
        revision: Revision,
        /// The site's name.
        site: String,
        /// The active version.
        version: u64,
        /// The validated document, with components by digest.
        document: Arc<SiteDocument>,
    },
    /// A site that is no longer served from this revision on.
    SiteRemoved {
        /// Its revision.
        revision: Revision,
        /// The site's name.
        site: String,
    },
    /// A purge.
    Purge(Purge),
    /// Everything up to `head` has been sent; also the sign of life on a quiet feed.
    Head {
        /// The newest revision.
        head: Revision,
    },
    /// A line of a newer control plane.
    #[serde(other)]
    Unknown,
}

/// The longest silence on a feed, in seconds: the control plane sends [`FeedLine::Head`] more often,
/// and an edge that hears nothing for three times as long reconnects.
pub const HEARTBEAT_SECONDS: u64 = 5;

/// What an edge tells of itself: the body of `POST /v1/edges/self/reports`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Everything up to this revision is applied or refused.
    pub applied: Revision,
    /// Purges applied since the last report that was answered.
    #[serde(default)]
    pub purges: Vec<AppliedPurge>,
    /// What it refuses at present, whole: the last good version stays in force.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
    /// The edge's software version.
    #[serde(default)]
    pub version: String,
}

/// One purge as one edge applied it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedPurge {
    /// The purge's revision.
    pub revision: Revision,
    /// How many stored objects it selected here.
    pub matched: u64,
    /// How long it took here from its line on the feed, in microseconds.
    pub took_us: u64,
}

/// A resource that an edge cannot take, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The revision refused.
    pub revision: Revision,
    /// The site that it is of.
    pub site: String,
    /// The reason, for the developer.
    pub reason: String,
}
