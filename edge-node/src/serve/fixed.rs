//! Responses that the site file alone decides: static ones and redirects. Pure.

use super::{Answer, Content};
use crate::routing;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use verge_config::site::{PathPattern, StaticResponse};

pub(super) fn response(fixed: &StaticResponse) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    for (name, value) in &fixed.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    Answer {
        status: StatusCode::from_u16(fixed.status).unwrap_or(StatusCode::OK),
        headers,
        content: Content::Whole(Bytes::copy_from_slice(fixed.body.as_bytes())),
        outcome: None,
    }
}

pub(super) fn redirect(
    to: &str,
    status: u16,
    pattern: &PathPattern,
    path: &str,
    query: Option<&str>,
) -> Answer {
    let mut location = routing::location(to, pattern, path);
    // A redirect that says nothing of a query keeps the visitor's.
    if let Some(query) = query
        && !to.contains('?')
    {
        location.push('?');
        location.push_str(query);
    }
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&location) {
        headers.insert(LOCATION, value);
    }
    Answer {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::PERMANENT_REDIRECT),
        headers,
        content: Content::Empty,
        outcome: None,
    }
}
