//! Requests that say how far they may go (RFC 9110 section 7.6.2). Pure.

use super::{Admitted, Answer, Content};
use http::header::{ALLOW, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

const MAX_FORWARDS: HeaderName = HeaderName::from_static("max-forwards");
/// What is answered where a request may go no further.
const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Counts this hop; where it is the last, gives the answer of the final recipient. The field is for
/// OPTIONS and TRACE only, and one that is not a number says nothing.
pub(super) fn count(request: &mut Admitted) -> Option<Answer> {
    if request.method != Method::OPTIONS && request.method != Method::TRACE {
        return None;
    }
    let value = request.headers.get(MAX_FORWARDS)?.to_str().ok()?.trim();
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let left: u64 = value.parse().unwrap_or(u64::MAX);
    if left > 0 {
        request.headers.insert(MAX_FORWARDS, HeaderValue::from(left - 1));
        return None;
    }
    let trace = request.method == Method::TRACE;
    let status = if trace { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NO_CONTENT };
    let headers = HeaderMap::from_iter([(ALLOW, METHODS)]);
    Some(Answer { status, headers, content: Content::Empty, outcome: None })
}
