//! Responses for visitors out of stored objects and arriving ones: conditions, ranges, HEAD, `Age` and
//! `Cache-Status`. Decides nothing about the store.

use crate::api::{Body, Outcome, Request, Response};
use crate::cache_status::{CACHE_STATUS, CacheStatus};
use crate::conditional::{self, Condition};
use crate::fill::{Head, Reader, Reading};
use crate::object::StoredObject;
use crate::range::{ByteRange, Resolved};
use bytes::Bytes;
use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    HeaderName, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;

/// What a visitor gets of a representation.
enum Part {
    /// All of it.
    Whole,
    /// 304.
    NotModified,
    /// 206: first and last byte.
    Range(u64, u64),
    /// 416.
    Unsatisfiable,
}

/// The answer out of a stored object.
pub(crate) fn from_object(
    request: &Request<'_>,
    object: &StoredObject,
    age: u64,
    status: &CacheStatus,
    outcome: Outcome,
) -> Response {
    let mut headers = with_status(object.headers(), status);
    headers.insert(AGE, HeaderValue::from(age));
    let part = part_of(request, object.status, object.headers(), Some(object.len()));
    let code = apply(&part, object.status, Some(object.len()), &mut headers);
    let body = match part {
        _ if request.method == Method::HEAD || object.is_empty() => Body::Empty,
        Part::Whole => Body::Whole(object.body.clone()),
        Part::NotModified | Part::Unsatisfiable => Body::Empty,
        Part::Range(start, end) => Body::Whole(slice(&object.body, start, end)),
    };
    Response { status: code, headers, body, outcome }
}

fn slice(content: &Bytes, start: u64, end: u64) -> Bytes {
    let start = usize::try_from(start).unwrap_or(usize::MAX).min(content.len());
    let end = usize::try_from(end).unwrap_or(usize::MAX).saturating_add(1).min(content.len());
    content.slice(start..end.max(start))
}

/// The answer out of a fill whose content is on its way.
pub(crate) fn from_head(
    request: &Request<'_>,
    head: &Head,
    reader: Reader,
    age: u64,
    status: &CacheStatus,
    outcome: Outcome,
) -> Response {
    let mut headers = with_status(&head.fields.visible, status);
    if !status.collapsed {
        headers.extend(head.fields.personal.clone());
    }
    if head.stored || age > 0 {
        headers.insert(AGE, HeaderValue::from(age));
    }
    let complete = reader.complete();
    let length = head.length.or_else(|| Some(complete.as_ref()?.len() as u64));
    let part = part_of(request, head.status, &head.fields.visible, length);
    let code = apply(&part, head.status, length, &mut headers);
    let body = match (part, complete) {
        (Part::NotModified | Part::Unsatisfiable, _) => Body::Empty,
        _ if request.method == Method::HEAD || bodiless(head.status) => Body::Empty,
        (Part::Whole, Some(content)) => Body::Whole(content),
        (Part::Range(start, end), Some(content)) => Body::Whole(slice(&content, start, end)),
        (Part::Whole, None) => stream(reader, None),
        (Part::Range(start, end), None) => stream(reader, Some((start, end))),
    };
    Response { status: code, headers, body, outcome }
}

fn stream(reader: Reader, part: Option<(u64, u64)>) -> Body {
    Body::Stream(Reading::new(reader, part).boxed_unsync())
}

/// Whether a status never has content.
pub(crate) fn bodiless(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// Fields with our member appended to `Cache-Status` (RFC 9211 section 2).
pub(crate) fn with_status(headers: &HeaderMap, status: &CacheStatus) -> HeaderMap {
    let mut headers = headers.clone();
    headers.append(CACHE_STATUS, status.value());
    headers
}

/// The order of RFC 9110 section 13.2.2: conditions first, then the range.
fn part_of(
    request: &Request<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Part {
    if status != StatusCode::OK {
        return Part::Whole;
    }
    if conditional::evaluate(request.headers, headers) == Condition::NotModified {
        return Part::NotModified;
    }
    let range = request.headers.get(RANGE).filter(|_| request.method == Method::GET);
    let (Some(range), Some(length)) = (range, length) else { return Part::Whole };
    if request.headers.get_all(RANGE).iter().count() > 1
        || !conditional::if_range_holds(request.headers, headers)
    {
        return Part::Whole;
    }
    match ByteRange::parse(range.as_bytes()).map(|range| range.resolve(length)) {
        None => Part::Whole,
        Some(Resolved::Unsatisfiable) => Part::Unsatisfiable,
        Some(Resolved::Part { start, end }) => Part::Range(start, end),
    }
}

/// Makes status and fields those of the part.
fn apply(
    part: &Part,
    status: StatusCode,
    length: Option<u64>,
    headers: &mut HeaderMap,
) -> StatusCode {
    match part {
        Part::Whole => {
            if bodiless(status) {
                headers.remove(CONTENT_LENGTH);
            } else if let Some(length) = length {
                crate::object::with_length(headers, status, length);
            }
            status
        }
        Part::NotModified => {
            // Metadata of the content, which the visitor has (RFC 9110 section 15.4.5).
            const METADATA: [HeaderName; 5] =
                [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE];
            for name in METADATA {
                headers.remove(name);
            }
            StatusCode::NOT_MODIFIED
        }
        Part::Range(start, end) => {
            let length = length.unwrap_or_default();
            insert(headers, CONTENT_RANGE, format!("bytes {start}-{end}/{length}"));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start + 1));
            StatusCode::PARTIAL_CONTENT
        }
        Part::Unsatisfiable => {
            insert(headers, CONTENT_RANGE, format!("bytes */{}", length.unwrap_or_default()));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
            StatusCode::RANGE_NOT_SATISFIABLE
        }
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
