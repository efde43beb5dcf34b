//! What the cache cannot answer, and why; statuses are the edge's business, not this crate's.

use crate::api::SourceError;
use crate::cache_status::CacheStatus;
use std::sync::Arc;
use thiserror::Error;

/// Why there is no response.
#[derive(Debug, Clone, Error)]
pub enum CacheError {
    /// The source failed and nothing stored may stand in for it. Shared, since every waiter of one
    /// fill gets it; `cause.downcast_ref::<T>()` reaches the source's own type.
    #[error("the source failed: {cause}")]
    Source {
        /// Why.
        cause: Arc<SourceError>,
        /// How the request came to the source.
        status: CacheStatus,
    },
    /// The visitor asked for a stored response only, and none may be used: 504 (RFC 9111 section
    /// 5.2.1.7).
    #[error("only-if-cached, and nothing usable is stored")]
    OnlyIfCached,
    /// The fill was given up before it had an answer, which happens only at shutdown.
    #[error("the fill was given up")]
    Abandoned,
}

impl CacheError {
    /// What `Cache-Status` says of it: the cache's part in a response that the edge makes itself.
    #[must_use]
    pub fn status(&self) -> CacheStatus {
        match self {
            CacheError::Source { status, .. } => *status,
            // Neither a hit nor forwarded (RFC 9211 section 2).
            CacheError::OnlyIfCached => {
                CacheStatus { detail: Some("only-if-cached"), ..CacheStatus::default() }
            }
            CacheError::Abandoned => CacheStatus::default(),
        }
    }
}

/// What a reader of a body sees when the source's content did not arrive whole.
#[derive(Debug, Clone, Error)]
pub enum BodyError {
    /// The source's stream failed.
    #[error("the source's content broke off: {0}")]
    Source(Arc<SourceError>),
    /// Fewer or more bytes than `Content-Length` said (RFC 9110 section 8.6).
    #[error("the source sent {received} bytes where Content-Length said {declared}")]
    Length {
        /// What the field said.
        declared: u64,
        /// What came, up to the first byte too many.
        received: u64,
    },
    /// What was written to the disk so far could not be read back.
    #[error("the disk failed: {0}")]
    Disk(Arc<std::io::Error>),
    /// This reader was so slow that it held up the others of a body that is not kept.
    #[error("cut off: too slow for a shared stream")]
    TooSlow,
    /// The representation is no longer the one that the visitor got the beginning of.
    #[error("the representation changed between two of its slices")]
    Changed,
    /// The fill ended without an end of its own.
    #[error("the fill was given up")]
    Abandoned,
}
