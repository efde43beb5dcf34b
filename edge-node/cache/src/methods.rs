//! What answers to methods other than GET mean for what is stored under their URL (RFC 9110 section 9.3.3,
//! RFC 9111 section 4.3.5); pure.

use crate::api::Request;
use crate::date;
use crate::freshness::{Judgement, TtlSource};
use crate::reference;
use http::header::{CONTENT_LENGTH, CONTENT_LOCATION, ETAG, LAST_MODIFIED};
use http::{HeaderMap, Method, StatusCode};

/// What an answer to HEAD means for a stored response to GET that it could have been of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadUpdate {
    /// It is of the same content: its fields replace the stored ones, as those of a 304 do.
    Freshen,
    /// It is of other content: the stored response is stale from now on.
    Invalidate,
    /// It says nothing of it.
    Nothing,
}

/// Weighs an answer to HEAD against a stored response (RFC 9111 section 4.3.5): every validator that it
/// brings, and its length, must be the stored one's. `stored` are the fields as the source sent them: of
/// a response that was compressed here, with the source's entity-tag and without a length.
#[must_use]
pub fn head_update(stored: &HeaderMap, status: StatusCode, head: &HeaderMap) -> HeadUpdate {
    if status != StatusCode::OK {
        return HeadUpdate::Nothing;
    }
    let same_tag = head.get(ETAG).is_none_or(|tag| stored.get(ETAG) == Some(tag));
    let same_date = match head.get(LAST_MODIFIED) {
        None => true,
        Some(value) => {
            stored.get(LAST_MODIFIED) == Some(value)
                || date::parse(value)
                    .is_some_and(|date| date::field(stored, &LAST_MODIFIED) == Some(date))
        }
    };
    let length = |headers: &HeaderMap| -> Option<u64> {
        headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
    };
    let same_length = match (length(head), length(stored)) {
        (Some(new), Some(old)) => new == old,
        _ => true,
    };
    if same_tag && same_date && same_length { HeadUpdate::Freshen } else { HeadUpdate::Invalidate }
}

/// Whether an answer to POST may be stored and given to later GETs (RFC 9110 section 9.3.3): the source
/// itself says how long it is fresh, and that it is what a GET of this URL would give.
#[must_use]
pub fn answers_get(
    request: &Request<'_>,
    status: StatusCode,
    response: &HeaderMap,
    judgement: &Judgement,
) -> bool {
    let explicit = matches!(
        judgement.freshness.source,
        TtlSource::VergeCdnCacheControl
            | TtlSource::CdnCacheControl
            | TtlSource::SMaxage
            | TtlSource::MaxAge
            | TtlSource::Expires
    );
    if *request.method != Method::POST
        || status != StatusCode::OK
        || judgement.refused.is_some()
        || !explicit
        || judgement.freshness.lifetime == 0
        || response.get_all(CONTENT_LOCATION).iter().count() != 1
    {
        return false;
    }
    let Some(location) = response.get(CONTENT_LOCATION).and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    reference::resolve(location, request).is_some_and(|target| {
        target.scheme.is_none_or(|scheme| scheme == request.scheme)
            && target.path == request.path
            && target.query.as_deref() == request.query
    })
}
