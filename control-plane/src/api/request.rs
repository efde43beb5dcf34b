//! What handlers read from requests: bodies within limits, pages, preconditions, idempotency keys.

use super::Failure;
use crate::auth;
use crate::store::Idempotency;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use verge_config::api::Page;
use verge_config::{Faults, Revision};

/// The largest JSON or TOML body, in bytes: a thousand selectors of 8 KiB do not fit; nobody writes
/// them.
pub(super) const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 500;
const MAX_KEY_BYTES: usize = 255;

/// Reads a whole body.
pub(super) async fn body(body: Body) -> Result<Bytes, Failure> {
    body_of(body, MAX_BODY_BYTES).await
}

/// Reads a whole body of at most so many bytes.
pub(super) async fn body_of(body: Body, limit: usize) -> Result<Bytes, Failure> {
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            if error.is::<http_body_util::LengthLimitError>() {
                return Failure::too_large(limit as u64);
            }
            cause = error.source();
        }
        Failure::bad_request("the body ended early")
    })
}

/// Reads JSON; a body that is not what it should be is a fault with its place.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        let faults = Faults::one(place, message);
        if error.is_data() {
            Failure::faults("invalid-content", faults)
        } else {
            Failure::bad_request(format!("the body is not JSON: {faults}"))
        }
    })
}

/// A parameter of the query, decoded.
pub(super) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let pairs: axum::extract::Query<Vec<(String, String)>> =
        axum::extract::Query::try_from_uri(uri).ok()?;
    pairs.0.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Every value of a parameter of the query, decoded.
pub(super) fn parameters(uri: &Uri, name: &str) -> Vec<String> {
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
    let pairs = pairs.map(|pairs| pairs.0).unwrap_or_default();
    pairs.into_iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
}

/// A number in the query.
pub(super) fn number(uri: &Uri, name: &str) -> Result<Option<u64>, Failure> {
    let Some(text) = parameter(uri, name) else { return Ok(None) };
    let wrong = |_| Failure::bad_request(format!("the parameter {name} must be a number"));
    text.parse().map(Some).map_err(wrong)
}

/// The number of items asked for, within bounds.
pub(super) fn page_size(uri: &Uri) -> Result<usize, Failure> {
    let asked = number(uri, "limit")?.and_then(|limit| usize::try_from(limit).ok());
    Ok(asked.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE))
}

/// Cuts a page out of items in order of their cursors: those after `cursor`, at most `limit`.
pub(super) fn page<T>(
    items: impl Iterator<Item = T>,
    limit: usize,
    cursor_of: impl Fn(&T) -> String,
) -> Page<T> {
    let mut items: Vec<T> = items.take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(cursor_of) } else { None };
    Page { items, next }
}

/// If-Match as the revision that the caller has seen; `*` and none are no condition.
pub(super) fn if_match(fields: &HeaderMap) -> Result<Option<Revision>, Failure> {
    let Some(value) = fields.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    // An entity tag that is not ours cannot match (RFC 9110 section 13.1.1).
    let unknown = Revision(u64::MAX);
    let tag = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    Ok(Some(tag.and_then(|tag| tag.parse().ok()).map_or(unknown, Revision)))
}

/// The entity tag of a revision.
pub(super) fn etag(revision: Revision) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The request's Idempotency-Key, bound to what it asks for.
pub(super) fn idempotency(
    fields: &HeaderMap,
    method: &Method,
    uri: &Uri,
    body: &[u8],
) -> Result<Option<Idempotency>, Failure> {
    let Some(value) = fields.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        let detail = format!("Idempotency-Key must be 1 to {MAX_KEY_BYTES} ASCII characters");
        return Err(Failure::bad_request(detail));
    }
    let mut text = format!("{method} {}\n", uri.path());
    text.push_str(&hex::encode(<sha2::Sha256 as sha2::Digest>::digest(body)));
    Ok(Some(Idempotency { key: key.to_owned(), fingerprint: auth::hash(&text) }))
}

/// A JSON answer.
pub(super) fn answer<T: Serialize>(status: StatusCode, value: &T) -> Response {
    (status, axum::Json(value)).into_response()
}

/// An answer that goes on: lines of JSON, as they come.
pub(super) fn answer_lines(lines: mpsc::Receiver<Bytes>) -> Response {
    let body = Body::from_stream(ReceiverStream::new(lines).map(Ok::<_, Infallible>));
    let mut response = Response::new(body);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Adds a field to an answer.
pub(super) fn with(
    mut response: Response,
    name: header::HeaderName,
    value: impl AsRef<str>,
) -> Response {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_is_a_revision_and_nothing_else_matches() {
        let read = |text: &'static str| {
            let mut fields = HeaderMap::new();
            fields.insert(header::IF_MATCH, HeaderValue::from_static(text));
            if_match(&fields).unwrap()
        };
        assert_eq!(read("\"7\""), Some(Revision(7)));
        assert_eq!(read("*"), None);
        assert_eq!(read("7"), Some(Revision(u64::MAX)));
        assert_eq!(read("\"x\""), Some(Revision(u64::MAX)));
        assert_eq!(if_match(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_page_says_whether_there_is_more() {
        let whole = page(1..=3, 3, ToString::to_string);
        assert_eq!((whole.items, whole.next), (vec![1, 2, 3], None));
        let part = page(1..=4, 3, ToString::to_string);
        assert_eq!((part.items, part.next), (vec![1, 2, 3], Some("3".to_owned())));
    }

    #[test]
    fn query_parameters_are_decoded() {
        let uri: Uri = "/x?a=1&site=my%20shop".parse().unwrap();
        assert_eq!(parameter(&uri, "site").as_deref(), Some("my shop"));
        assert_eq!(parameter(&uri, "b"), None);
        assert_eq!(number(&uri, "a").unwrap(), Some(1));
        assert!(number(&uri, "site").is_err());
    }
}
