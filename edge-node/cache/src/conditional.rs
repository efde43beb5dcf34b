//! Conditional requests answered from a stored or arriving response (RFC 9110 section 13, RFC 9111
//! section 4.3.2); pure.

use crate::date;
use http::header::{DATE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};

/// Whether the visitor's copy is still right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// No condition, or one that asks for the content.
    Send,
    /// 304.
    NotModified,
}

/// Weighs the visitor's `If-None-Match`, or else its `If-Modified-Since`, against a 200 response.
#[must_use]
pub fn evaluate(request: &HeaderMap, response: &HeaderMap) -> Condition {
    let not_modified = if request.contains_key(IF_NONE_MATCH) {
        none_match_fails(request, response)
    } else {
        // Several lines are no date (RFC 9110 section 13.1.3).
        let single = request.get_all(IF_MODIFIED_SINCE).iter().count() == 1;
        match date::field(request, &IF_MODIFIED_SINCE).filter(|_| single) {
            Some(since) => {
                let modified =
                    date::field(response, &LAST_MODIFIED).or_else(|| date::field(response, &DATE));
                modified.is_some_and(|modified| modified <= since)
            }
            None => false,
        }
    };
    if not_modified { Condition::NotModified } else { Condition::Send }
}

/// Weak comparison (RFC 9110 section 8.8.3.2) with each member of the list.
fn none_match_fails(request: &HeaderMap, response: &HeaderMap) -> bool {
    let tag = response.get(ETAG).map(|tag| opaque(tag.as_bytes()));
    request.get_all(IF_NONE_MATCH).iter().any(|line| {
        let line = line.as_bytes().trim_ascii();
        line == b"*" || tag.is_some_and(|tag| entity_tags(line).any(|other| other == tag))
    })
}

/// The part of an entity-tag that weak comparison looks at. A tag without quotes, which origins do
/// send, is its own opaque part.
fn opaque(tag: &[u8]) -> &[u8] {
    let tag = tag.trim_ascii();
    tag.strip_prefix(b"W/").or_else(|| tag.strip_prefix(b"w/")).unwrap_or(tag)
}

/// The opaque parts of a list.
fn entity_tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list_members(list).map(opaque)
}

/// The members of a list of entity-tags; a comma inside quotes does not end one.
pub(crate) fn list_members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    list.split(move |byte| {
        if *byte == b'"' {
            quoted = !quoted;
        }
        *byte == b',' && !quoted
    })
}

/// Whether an entity-tag is a strong one (RFC 9110 section 8.8.1).
#[must_use]
pub fn is_strong(tag: &HeaderValue) -> bool {
    tag.as_bytes().trim_ascii().starts_with(b"\"")
}

/// Weak comparison of two entity-tags (RFC 9110 section 8.8.3.2).
#[must_use]
pub fn same_opaque(one: &HeaderValue, other: &HeaderValue) -> bool {
    opaque(one.as_bytes()) == opaque(other.as_bytes())
}

/// What tells that two parts are of the same representation: a strong entity-tag, or a date that is as
/// good as one (RFC 9110 section 8.8.2.2, RFC 9111 section 3.4).
#[must_use]
pub fn strong_validator(response: &HeaderMap) -> Option<HeaderValue> {
    if let Some(tag) = response.get(ETAG) {
        return is_strong(tag).then(|| tag.clone());
    }
    let modified = date::field(response, &LAST_MODIFIED)?;
    let strong = date::field(response, &DATE).is_some_and(|date| date > modified);
    response.get(LAST_MODIFIED).filter(|_| strong).cloned()
}

/// Whether a `Range` may be honoured in view of `If-Range` (RFC 9110 section 13.1.5): strong
/// comparison of tags, or exactly the date, and that strong too.
#[must_use]
pub fn if_range_holds(request: &HeaderMap, response: &HeaderMap) -> bool {
    let Some(condition) = request.get(IF_RANGE) else { return true };
    let condition = condition.as_bytes().trim_ascii();
    if condition.first() == Some(&b'"') {
        return response.get(ETAG).is_some_and(|tag| tag.as_bytes().trim_ascii() == condition);
    }
    if condition.starts_with(b"W/") {
        return false;
    }
    let (Some(since), Some(modified)) =
        (date::field(request, &IF_RANGE), date::field(response, &LAST_MODIFIED))
    else {
        return false;
    };
    // A date is strong only if it lies a second or more before the response's own (section 8.8.2.2).
    let strong = date::field(response, &DATE).is_some_and(|date| date > modified);
    since == modified && strong
}
