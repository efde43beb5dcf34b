//! Hygiene before a request is routed: host, certificate, loops, methods, and fields that end here.
//! Pure; framing was checked where the bytes were read.

use crate::body::Body;
use crate::origin::Hop;
use crate::origin::outgoing::{is_loop, strip_hop_by_hop};
use crate::respond::EdgeError;
use crate::routing::NoRoute;
use crate::serve::{Admitted, Exchange};
use crate::snapshot::Snapshot;
use http::{HeaderValue, Method};
use std::borrow::Cow;
use verge_config::purge::normalise_host;

/// Admits a request, or says why not.
///
/// # Errors
/// A host that is not the connection's, a method that is not passed on, a loop.
pub fn admit(edge_id: &str, exchange: Exchange) -> Result<(Admitted, Body), EdgeError> {
    let host = host_of(&exchange.authority).into_owned();
    if let Some(sni) = exchange.connection.sni()
        && !is_for(sni, &host)
    {
        return Err(EdgeError::Misdirected { sni: sni.to_owned(), host });
    }
    if exchange.method == Method::CONNECT || exchange.method == Method::TRACE {
        return Err(EdgeError::Method(exchange.method));
    }
    let mut headers = exchange.headers;
    let loops = Hop::loops_of(&headers);
    if is_loop(&loops, edge_id) {
        return Err(EdgeError::Loop);
    }
    strip_hop_by_hop(&mut headers);
    headers.remove(http::header::EXPECT);
    let hop = Hop {
        client_ip: exchange.connection.peer.ip(),
        scheme: exchange.connection.scheme(),
        host: host.clone(),
        version: exchange.version,
        loops,
    };
    let admitted = Admitted {
        host,
        method: exchange.method,
        target: exchange.target,
        headers,
        has_content: exchange.has_content,
        hop,
        connection: exchange.connection,
        interim: exchange.interim,
    };
    Ok((admitted, exchange.content))
}

/// The normalised host of an authority; borrowed when it is normal already, as it is nearly always.
#[must_use]
pub fn host_of(authority: &HeaderValue) -> Cow<'_, str> {
    let text = authority.to_str().unwrap_or_default();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if text.bytes().all(plain) && !text.ends_with('.') {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(normalise_host(text))
    }
}

/// Whether a connection whose certificate was asked for as `sni` is for `host`.
#[must_use]
pub fn is_for(sni: &str, host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name == sni.strip_suffix('.').unwrap_or(sni)
}

/// Why a request has no route, in the edge's words.
#[must_use]
pub fn no_route(why: NoRoute, snapshot: &Snapshot, host: &str) -> EdgeError {
    match (why, snapshot.site_for(host)) {
        (NoRoute::Path, Some(site)) => EdgeError::NoRoute(site.name.to_string()),
        _ => EdgeError::NoSite(host.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (written, normal) in [
            ("shop.example", "shop.example"),
            ("Shop.Example", "shop.example"),
            ("shop.example.", "shop.example"),
            ("shop.example:80", "shop.example"),
            ("shop.example:8080", "shop.example:8080"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            let value = HeaderValue::from_str(written).unwrap();
            assert_eq!(host_of(&value), normal, "{written}");
        }
    }

    #[test]
    fn a_certificate_is_for_one_name() {
        assert!(is_for("a.example", "a.example"));
        assert!(is_for("a.example", "a.example:8443"));
        assert!(!is_for("a.example", "b.example"));
        assert!(!is_for("a.example", "a.example.evil"));
    }
}
