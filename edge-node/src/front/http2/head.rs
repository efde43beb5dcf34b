//! An HTTP/2 request's header section as the rooms behind want it. Pure.

use http::header::{CONNECTION, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// A request's header section.
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    pub(super) authority: HeaderValue,
    pub(super) headers: HeaderMap,
}

/// A request's header section as the rooms behind want it: `Host` from `:authority`, one `Cookie`
/// (RFC 9113 sections 8.2.3 and 8.3.1), nothing of another protocol's framing.
pub(super) fn head(parts: http::request::Parts, max_fields: usize) -> Result<Head, StatusCode> {
    let bad = StatusCode::BAD_REQUEST;
    let mut headers = parts.headers;
    if headers.len() > max_fields {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let forbidden = [CONNECTION, TRANSFER_ENCODING, UPGRADE];
    if forbidden.iter().any(|name| headers.contains_key(name)) {
        return Err(bad);
    }
    if headers.get_all(HOST).iter().count() > 1 {
        return Err(bad);
    }
    let named = parts.uri.authority().map(|a| HeaderValue::from_str(a.as_str())).transpose();
    let authority = match (named.map_err(|_| bad)?, headers.get(HOST)) {
        (Some(named), Some(host)) if !eq_host(&named, host) => return Err(bad),
        (Some(named), _) => named,
        (None, Some(host)) => host.clone(),
        (None, None) => return Err(bad),
    };
    let plain =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if authority.is_empty() || authority.len() > 300 || !authority.as_bytes().iter().all(plain) {
        return Err(bad);
    }
    headers.insert(HOST, authority.clone());
    let target = parts.uri.path_and_query().cloned().ok_or(bad)?;
    let path = target.as_str();
    let star = path == "*" && parts.method == Method::OPTIONS;
    if !(path.starts_with('/') || star) || !path.bytes().all(|b| matches!(b, 0x21..=0x7e)) {
        return Err(bad);
    }
    join_cookies(&mut headers);
    Ok(Head { method: parts.method, target, authority, headers })
}

fn eq_host(a: &HeaderValue, b: &HeaderValue) -> bool {
    a.as_bytes().eq_ignore_ascii_case(b.as_bytes())
}

fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().count() > 1 {
        let crumbs: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}
