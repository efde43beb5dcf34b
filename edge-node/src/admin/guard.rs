//! Keeps web pages out: a browser on this machine must not be made to talk to this listener by a
//! page from elsewhere, whose name leads to a loopback address (DNS rebinding). Pure.

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::Authority;
use std::net::IpAddr;

/// Whether the host that was asked for can be this machine's: an address or `localhost`. A name that
/// a page could own is refused. `authority` is the request target's, as HTTP/2 has it.
pub(super) fn is_own_host(authority: Option<&Authority>, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let named: Option<Authority> = match (authority, hosts.next()) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) => Authority::try_from(host.as_bytes()).ok(),
        (None, None) => None,
    };
    if hosts.next().is_some() {
        return false;
    }
    named.is_some_and(|named| {
        let host = named.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        !named.as_str().contains('@')
            && (address.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost"))
    })
}

/// Whether the content is said to be JSON; a page cannot say so across sites without asking first.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn own(host: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        is_own_host(None, &headers)
    }

    #[test]
    fn only_addresses_and_localhost_are_this_machine() {
        for host in ["127.0.0.1:9090", "127.0.0.1", "[::1]:9090", "localhost:1", "LocalHost"] {
            assert!(own(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:9090", "127.0.0.1.nip.io", "", "a@127.0.0.1"]
        {
            assert!(!own(host), "{host}");
        }
        assert!(!is_own_host(None, &HeaderMap::new()));
    }

    #[test]
    fn only_json_is_json() {
        let mut headers = HeaderMap::new();
        assert!(!is_json(&headers));
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/jsonp", false),
        ] {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_json(&headers), expected, "{value}");
        }
    }
}
