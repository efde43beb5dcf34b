//! The `Cache-Status` field (RFC 9211): what the cache did with a request, in the RFC's words; pure.

use http::{HeaderName, HeaderValue, StatusCode};

/// `Cache-Status`.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request went on to the source (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The route or the method is not for the cache.
    Bypass,
    /// The method is not GET or HEAD.
    Method,
    /// Nothing stored under the key.
    UriMiss,
    /// Something stored, but for other selecting fields.
    VaryMiss,
    /// The request's directives.
    Request,
    /// What is stored is stale.
    Stale,
    /// What is stored is a part, or a part too large to store was asked for.
    Partial,
}

/// What the field says.
#[derive(Debug, Clone, Copy, Default)]
pub struct CacheStatus {
    /// Answered from the store.
    pub hit: bool,
    /// Went on to the source.
    pub forward: Option<Forward>,
    /// What the source answered.
    pub forward_status: Option<StatusCode>,
    /// Whether the answer was stored.
    pub stored: bool,
    /// Whether the request joined another's.
    pub collapsed: bool,
    /// Seconds of freshness left.
    pub ttl: Option<i64>,
    /// A word of ours.
    pub detail: Option<&'static str>,
}

impl Forward {
    fn word(self) -> &'static str {
        match self {
            Forward::Bypass => "bypass",
            Forward::Method => "method",
            Forward::UriMiss => "uri-miss",
            Forward::VaryMiss => "vary-miss",
            Forward::Request => "request",
            Forward::Stale => "stale",
            Forward::Partial => "partial",
        }
    }
}

impl CacheStatus {
    /// A plain hit.
    #[must_use]
    pub fn hit(ttl: i64) -> CacheStatus {
        CacheStatus { hit: true, ttl: Some(ttl), ..CacheStatus::default() }
    }

    /// The field's value: a list of one member, to be appended to those of caches before us.
    #[must_use]
    pub fn value(&self) -> HeaderValue {
        let mut out = String::with_capacity(64);
        out.push_str("Verge");
        if self.hit {
            out.push_str("; hit");
        }
        if let Some(forward) = self.forward {
            out.push_str("; fwd=");
            out.push_str(forward.word());
        }
        if let Some(status) = self.forward_status {
            out.push_str("; fwd-status=");
            out.push_str(status.as_str());
        }
        if self.stored {
            out.push_str("; stored");
        }
        if self.collapsed {
            out.push_str("; collapsed");
        }
        if let Some(ttl) = self.ttl {
            out.push_str("; ttl=");
            out.push_str(&ttl.to_string());
        }
        if let Some(detail) = self.detail {
            out.push_str("; detail=");
            out.push_str(detail);
        }
        HeaderValue::try_from(out).unwrap_or_else(|_| HeaderValue::from_static("Verge"))
    }
}
