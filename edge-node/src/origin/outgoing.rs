//! The fields of a message as it passes through: what a proxy must take out and what it must add, on
//! the way to an origin and back. Pure; every way to an origin uses these and no other.

use super::OriginError;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

/// The name under which the edge appears in `Via` and `CDN-Loop`.
pub const PSEUDONYM: &str = "verge";
/// The longest `CDN-Loop` and `Via` that are passed on, in bytes; beyond it the request is in a loop.
const MAX_LOOP_BYTES: usize = 4096;
/// The most edges of this CDN that one request may pass (visitor's edge, shield, another tenant's
/// site, …).
const MAX_PASSES: usize = 8;

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

const PROXY: HeaderName = HeaderName::from_static("proxy");
const DEBUG_TOKEN: HeaderName = HeaderName::from_static("verge-debug");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Fields that are for one connection only (RFC 9110 section 7.6.1), with the ones that are so in
/// practice.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Fields by which a visitor could make an origin believe another address, host, scheme, path or
/// method than the cache's key has: they would poison what all others get.
fn is_not_from_visitors(name: &str) -> bool {
    name.starts_with("x-forwarded")
        || matches!(
            name,
            "forwarded"
                | "forwarded-for"
                | "x-real-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "true-client-ip"
                | "cf-connecting-ip"
                | "fastly-client-ip"
                | "x-original-forwarded-for"
                | "x-original-url"
                | "x-original-uri"
                | "x-original-host"
                | "x-original-method"
                | "x-rewrite-url"
                | "x-http-host-override"
                | "x-host"
                | "x-url-scheme"
                | "x-scheme"
                | "front-end-https"
                | "x-http-method-override"
                | "x-http-method"
                | "x-method-override"
                | "x-proxyuser-ip"
                | "x-envoy-original-path"
                // `HTTP_PROXY` in a CGI's environment.
                | "proxy"
                | "expect"
                // Holds a token that is for the edge alone.
                | "verge-debug"
        )
}

/// Takes out the fields that are not wanted. A message has few fields, and most have none of these: each
/// is looked at once, which takes less than looking for every name there is.
fn take_out(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let found: Vec<HeaderName> =
        headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// What is known of the request that a message to an origin is made for.
#[derive(Debug, Clone)]
pub struct Hop {
    /// The visitor's address.
    pub client_ip: IpAddr,
    /// `http` or `https`, as the visitor sees it.
    pub scheme: &'static str,
    /// The host that the visitor asked for, with its port when that is not the scheme's own.
    pub host: String,
    /// The version in which the visitor's request came.
    pub version: http::Version,
    /// The `CDN-Loop` fields of the visitor's request. A handler's own requests carry them on, so
    /// that no tenant can hide a loop.
    pub loops: Vec<HeaderValue>,
}

impl Hop {
    /// The `CDN-Loop` fields of a request, to be kept in `loops`.
    #[must_use]
    pub fn loops_of(headers: &HeaderMap) -> Vec<HeaderValue> {
        headers.get_all(CDN_LOOP).iter().cloned().collect()
    }
}

/// Takes out what is for one connection only: the fields of RFC 9110 section 7.6.1 and those that
/// `Connection` names. For requests and responses.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            // A visitor must not make the edge drop what keeps messages whole, whose they are, or
            // what guards against loops.
            .filter(|name| {
                !matches!(
                    name.as_str(),
                    "host" | "content-length" | "cdn-loop" | "via" | "cache-control" | "set-cookie"
                )
            })
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    take_out(headers, is_hop_by_hop);
}

/// Makes the fields of a request fit for an origin: takes out what is hop-by-hop or not for visitors
/// to say, appends `Via` and `CDN-Loop`, sets `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`.
/// `Host` becomes `origin_host`, or the visitor's.
///
/// # Errors
/// `LoopDetected` when the request has been through this edge before, or through too many.
pub fn to_origin(
    headers: &mut HeaderMap,
    hop: &Hop,
    origin_host: Option<&str>,
    edge_id: &str,
) -> Result<(), OriginError> {
    strip_hop_by_hop(headers);
    take_out(headers, is_not_from_visitors);
    mark_passage(headers, hop, edge_id)?;
    let client = hop.client_ip.to_canonical();
    set(headers, header::HOST, origin_host.unwrap_or(&hop.host));
    set(headers, X_FORWARDED_FOR, &client.to_string());
    set(headers, X_FORWARDED_PROTO, hop.scheme);
    set(headers, X_FORWARDED_HOST, &hop.host);
    set(headers, header::FORWARDED, &forwarded(client, hop));
    Ok(())
}

/// The same for a request to a host that is not of the site: nothing there tells who the visitor is.
///
/// # Errors
/// As [`to_origin`].
pub fn to_outside(
    headers: &mut HeaderMap,
    hop: &Hop,
    host: &str,
    edge_id: &str,
) -> Result<(), OriginError> {
    strip_hop_by_hop(headers);
    headers.remove(header::EXPECT);
    headers.remove(PROXY);
    headers.remove(DEBUG_TOKEN);
    mark_passage(headers, hop, edge_id)?;
    set(headers, header::HOST, host);
    Ok(())
}

/// Whether a request has been through this edge already, or through too many of this CDN's
/// (RFC 8586). Malformed members count by what can be read of them.
#[must_use]
pub fn is_loop(loops: &[HeaderValue], edge_id: &str) -> bool {
    if loops.is_empty() {
        return false;
    }
    let ours = format!("id={}", token(edge_id));
    let is_ours = |part: &str| part.trim().replace('"', "").eq_ignore_ascii_case(&ours);
    let bytes: usize = loops.iter().map(|value| value.len() + 1).sum();
    bytes > MAX_LOOP_BYTES
        || passes(loops) >= MAX_PASSES
        || edges(loops).any(|member| member.split(';').skip(1).any(is_ours))
}

/// How many edges of this CDN a request has passed.
#[must_use]
pub fn passes(loops: &[HeaderValue]) -> usize {
    edges(loops).count()
}

/// The members of `CDN-Loop` that stand for an edge of this CDN.
fn edges(loops: &[HeaderValue]) -> impl Iterator<Item = Cow<'_, str>> {
    loops
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(String::from_utf8_lossy)
        .filter(|member| {
            let name = member.split(';').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case(PSEUDONYM)
        })
}

/// Appends this edge to `Via` (RFC 9110 section 7.6.3) and `CDN-Loop` (RFC 8586).
fn mark_passage(headers: &mut HeaderMap, hop: &Hop, edge_id: &str) -> Result<(), OriginError> {
    if is_loop(&hop.loops, edge_id) {
        return Err(OriginError::LoopDetected);
    }
    // What a handler made of the field does not count: the visitor's are carried on as they came.
    headers.remove(CDN_LOOP);
    for value in &hop.loops {
        headers.append(CDN_LOOP, value.clone());
    }
    append(headers, CDN_LOOP, &format!("{PSEUDONYM};id={}", token(edge_id)));
    let via: usize = headers.get_all(header::VIA).iter().map(HeaderValue::len).sum();
    if via > MAX_LOOP_BYTES {
        return Err(OriginError::LoopDetected);
    }
    append(headers, header::VIA, &format!("{} {PSEUDONYM}", version(hop.version)));
    Ok(())
}

/// The received protocol as `Via` names it.
fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 | http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// `Forwarded` (RFC 7239): the visitor's address, scheme and host.
fn forwarded(client: IpAddr, hop: &Hop) -> String {
    let mut text = String::with_capacity(64 + hop.host.len());
    // Writing to a String cannot fail.
    let _ = match client {
        IpAddr::V4(v4) => write!(text, "for={v4}"),
        IpAddr::V6(v6) => write!(text, "for=\"[{}]\"", Ipv6Addr::from(v6.octets())),
    };
    let _ = write!(text, ";proto={};host=\"", hop.scheme);
    text.extend(hop.host.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()));
    text.push('"');
    text
}

/// `id` as a token (RFC 9110 section 5.6.2), which needs no quotes.
fn token(id: &str) -> String {
    id.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' })
        .collect()
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Appends a member to a list field, on the last line that there is of it.
fn append(headers: &mut HeaderMap, name: HeaderName, member: &str) {
    let Ok(value) = HeaderValue::from_str(member) else { return };
    match headers.entry(name) {
        Entry::Vacant(vacant) => {
            vacant.insert(value);
        }
        Entry::Occupied(mut occupied) => occupied.append(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hop() -> Hop {
        Hop {
            client_ip: "2001:db8::7".parse().unwrap(),
            scheme: "https",
            host: "shop.example".into(),
            version: http::Version::HTTP_2,
            loops: Vec::new(),
        }
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    fn values(map: &HeaderMap, name: &str) -> Vec<String> {
        map.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn hop_by_hop_fields_go_and_end_to_end_fields_stay() {
        let mut headers = map(&[
            ("connection", "close, X-One"),
            ("connection", "x-two ,content-length"),
            ("keep-alive", "timeout=5"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAAA"),
            ("proxy-authorization", "secret"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        left.sort();
        assert_eq!(left, ["accept", "content-length"]);
    }

    #[test]
    fn a_visitor_cannot_name_an_address_a_host_a_path_or_a_method() {
        let mut headers = map(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-prefix", "/evil"),
            ("x-forwarded-anything", "1"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("proxy", "http://evil.example"),
            ("forwarded", "for=6.6.6.6"),
            ("host", "evil.example"),
            ("expect", "100-continue"),
            ("cookie", "a=b"),
        ]);
        to_origin(&mut headers, &hop(), None, "edge-1").unwrap();
        assert_eq!(values(&headers, "x-forwarded-for"), ["2001:db8::7"]);
        assert_eq!(values(&headers, "x-forwarded-host"), ["shop.example"]);
        assert_eq!(values(&headers, "x-forwarded-proto"), ["https"]);
        assert_eq!(
            values(&headers, "forwarded"),
            ["for=\"[2001:db8::7]\";proto=https;host=\"shop.example\""]
        );
        assert_eq!(values(&headers, "host"), ["shop.example"]);
        assert_eq!(values(&headers, "cookie"), ["a=b"]);
        for gone in [
            "x-forwarded-prefix",
            "x-forwarded-anything",
            "x-original-url",
            "x-rewrite-url",
            "x-http-method-override",
            "proxy",
            "expect",
        ] {
            assert!(!headers.contains_key(gone), "{gone} must not reach an origin");
        }
    }

    #[test]
    fn passage_is_marked_after_what_was_there() {
        let mut headers = map(&[("via", "1.1 before"), ("cdn-loop", "forged; id=none")]);
        let hop = Hop { loops: vec![HeaderValue::from_static("other-cdn; x=1")], ..hop() };
        to_origin(&mut headers, &hop, Some("web.internal"), "edge 1").unwrap();
        assert_eq!(values(&headers, "via"), ["1.1 before", "2 verge"]);
        assert_eq!(values(&headers, "cdn-loop"), ["other-cdn; x=1", "verge;id=edge_1"]);
        assert_eq!(values(&headers, "host"), ["web.internal"]);
    }

    #[test]
    fn a_loop_is_seen_and_another_edge_is_not_one() {
        let seen = |text: &'static str| is_loop(&[HeaderValue::from_static(text)], "edge-1");
        assert!(seen("verge;id=edge-1"));
        assert!(seen("a, Verge ; x=y; id=\"edge-1\" , b"));
        assert!(!seen("verge;id=edge-2"));
        assert!(!seen("other;id=edge-1"));
        let passes = HeaderValue::from_static("verge;id=other");
        assert!(is_loop(&vec![passes.clone(); MAX_PASSES], "edge-1"));
        assert!(!is_loop(&vec![passes; MAX_PASSES - 1], "edge-1"));
        let mixed = ["a, verge;id=x,Verge", "vergeless;id=y", " VERGE ;id=z", "verges"];
        assert_eq!(super::passes(&mixed.map(HeaderValue::from_static)), 3);
        let mut headers = HeaderMap::new();
        let hop = Hop { loops: vec![HeaderValue::from_static("verge;id=edge-1")], ..hop() };
        assert_eq!(to_origin(&mut headers, &hop, None, "edge-1"), Err(OriginError::LoopDetected));
        assert_eq!(
            to_outside(&mut headers, &hop, "api.example", "edge-1"),
            Err(OriginError::LoopDetected)
        );
    }

    #[test]
    fn an_outside_host_is_not_told_who_the_visitor_is() {
        let mut headers = map(&[("cookie", "mine=1")]);
        to_outside(&mut headers, &hop(), "api.example", "edge-1").unwrap();
        let all = format!("{headers:?}");
        assert!(!all.contains("2001:db8::7") && !all.contains("shop.example"), "{all}");
        assert_eq!(values(&headers, "cdn-loop"), ["verge;id=edge-1"]);
    }

    proptest! {
        #[test]
        fn whatever_comes_in_leaves_marked_and_clean(
            fields in proptest::collection::vec(("[a-z-]{1,20}", "[ -~]{0,40}"), 0..20),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                if let (Ok(n), Ok(v)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                    headers.append(n, v);
                }
            }
            to_origin(&mut headers, &hop(), None, "edge-1").unwrap();
            for name in headers.keys().map(HeaderName::as_str) {
                prop_assert!(!is_hop_by_hop(name), "{name}");
            }
            prop_assert!(headers.get_all(CDN_LOOP).iter().any(|v| v == "verge;id=edge-1"));
            prop_assert_eq!(headers.get_all(header::HOST).iter().count(), 1);
        }
    }
}
