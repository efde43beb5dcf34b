//! The way of a handler's requests to hosts that are not of its site: only those on its allow-list,
//! only addresses that are judged, never with the visitor's address.

use super::connect::{Dialer, Target};
use super::pool::{Endpoint, Patience, Want};
use super::{Hop, OriginError, OriginSettings, Replay, outgoing};
use crate::body::Body;
use crate::telemetry;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Semaphore;
use verge_config::site::Timeouts;

/// The most outside hosts of one site whose connections are kept.
const MAX_HOSTS: usize = 64;
/// The most requests of one site under way to outside hosts at once.
const MAX_REQUESTS: usize = 1024;

/// The connections of one site's handlers to outside hosts; never shared with another site.
pub struct Outside {
    dialer: Arc<Dialer>,
    /// Least lately used first.
    endpoints: Mutex<Vec<Arc<Endpoint>>>,
    permits: Arc<Semaphore>,
}

// === impl Outside ===

impl Outside {
    /// A client without connections yet.
    #[must_use]
    pub fn new(settings: Arc<OriginSettings>) -> Outside {
        Outside {
            dialer: Arc::new(Dialer::new(settings)),
            endpoints: Mutex::default(),
            permits: Arc::new(Semaphore::new(MAX_REQUESTS)),
        }
    }

    /// Sends a request whose URI is absolute, if its host is on `allow`: exact names or
    /// `*.example.com`, with a port when it is not the scheme's own.
    ///
    /// # Errors
    /// `HostNotAllowed`, `AddressForbidden`, `InvalidRequest`, and all that an origin may fail with.
    pub async fn send(
        &self,
        request: Request<Body>,
        allow: &[String],
        hop: &Hop,
    ) -> Result<Response<Body>, OriginError> {
        let result = self.try_send(request, allow, hop).await;
        telemetry::metrics().outside.request(result.as_ref().map(Response::status));
        result
    }

    async fn try_send(
        &self,
        mut request: Request<Body>,
        allow: &[String],
        hop: &Hop,
    ) -> Result<Response<Body>, OriginError> {
        let target = target_of(request.uri())?;
        if !is_allowed(&target, allow) {
            let host = format!("{}:{}", target.host, target.port);
            return Err(OriginError::HostNotAllowed { host });
        }
        let host = host_field(&target);
        outgoing::to_outside(request.headers_mut(), hop, &host, &self.dialer.settings().edge_id)?;
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        let busy = |_| OriginError::Busy { limit: MAX_REQUESTS };
        let permit = Arc::new(Arc::clone(&self.permits).try_acquire_owned().map_err(busy)?);
        let endpoint = self.endpoint(target);
        let patience = Patience::from(Timeouts::default());
        let mut replay = Replay::of(&request);
        let failure =
            match endpoint.attempt(request, Want::Any, patience, Arc::clone(&permit)).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
        // Only a connection that was used before may have been closed meanwhile.
        if failure.connecting || !failure.reused {
            return Err(failure.error);
        }
        let again = matches!(failure.error, OriginError::ClosedEarly { .. });
        let left = failure.unsent;
        let left = left.or_else(|| replay.take().filter(|_| again).map(Replay::into_request));
        let Some(request) = left else { return Err(failure.error) };
        endpoint
            .attempt(request, Want::New, patience, permit)
            .await
            .map_err(|failure| failure.error)
    }

    fn endpoint(&self, target: Target) -> Arc<Endpoint> {
        let mut endpoints = self.endpoints.lock();
        let found = endpoints.iter().position(|endpoint| endpoint.target == target);
        let endpoint = match found {
            Some(index) => endpoints.remove(index),
            None => {
                if endpoints.len() >= MAX_HOSTS {
                    endpoints.remove(0);
                }
                Endpoint::new(target, Arc::clone(&self.dialer))
            }
        };
        endpoints.push(Arc::clone(&endpoint));
        endpoint
    }
}

/// Where an absolute URI leads.
fn target_of(uri: &Uri) -> Result<Target, OriginError> {
    let invalid = |what| OriginError::InvalidRequest { what };
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(invalid("its scheme is neither http nor https")),
    };
    let authority = uri.authority().ok_or_else(|| invalid("its URI has no host"))?;
    if authority.as_str().contains('@') {
        return Err(invalid("its URI carries credentials"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host.is_empty() {
        return Err(invalid("its URI has no host"));
    }
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        // `http` lets a port through that is no number: it is not the default then.
        None if authority.as_str().ends_with(':') || has_port(authority.as_str()) => {
            return Err(invalid("its port is not one"));
        }
        None if tls => 443,
        None => 80,
    };
    Ok(Target { tls, sni: host.clone(), host, port })
}

fn has_port(authority: &str) -> bool {
    let after = authority.rsplit(']').next().unwrap_or(authority);
    after.contains(':')
}

/// Whether the target is on the list. An entry without a port stands for the scheme's own.
fn is_allowed(target: &Target, allow: &[String]) -> bool {
    let own_port = if target.tls { 443 } else { 80 };
    allow.iter().any(|entry| {
        let entry = entry.to_ascii_lowercase();
        let (name, port) = split_port(&entry);
        let name = name.trim_end_matches('.');
        let host_matches = match name.strip_prefix("*.") {
            Some(parent) => {
                let below =
                    target.host.strip_suffix(parent).and_then(|rest| rest.strip_suffix('.'));
                below.is_some_and(|rest| !rest.is_empty())
            }
            None => name == target.host,
        };
        host_matches && port.map_or(target.port == own_port, |port| port == target.port)
    })
}

/// An entry's name, without brackets, and its port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some(rest) = entry.strip_prefix('[') {
        let (name, after) = rest.split_once(']').unwrap_or((rest, ""));
        return (name, after.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match entry.split_once(':') {
        // More than one colon: an IPv6 address, without a port.
        Some((_, rest)) if rest.contains(':') => (entry, None),
        // A port that is no number matches none.
        Some((name, port)) => (name, Some(port.parse().unwrap_or(0))),
        None => (entry, None),
    }
}

/// The `Host` field of a target: no port when it is the scheme's own.
fn host_field(target: &Target) -> String {
    let host =
        if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
    match (target.tls, target.port) {
        (true, 443) | (false, 80) => host,
        (_, port) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(uri: &str, allow: &[&str]) -> bool {
        let allow: Vec<String> = allow.iter().map(|entry| (*entry).to_owned()).collect();
        target_of(&uri.parse().unwrap()).is_ok_and(|target| is_allowed(&target, &allow))
    }

    #[test]
    fn only_listed_hosts_are_allowed() {
        let list = ["api.example.com", "*.cdn.example", "local.test:8080", "[::1]:81", "::2"];
        for uri in [
            "https://api.example.com/",
            "http://API.example.com./x",
            "https://api.example.com:443/",
            "https://a.b.cdn.example/",
            "http://local.test:8080/",
            "http://[::1]:81/",
            "https://[::2]/",
        ] {
            assert!(allowed(uri, &list), "{uri} is on the list");
        }
        for uri in [
            "https://example.com/",
            "https://api.example.com.evil.test/",
            "https://evilapi.example.com/",
            "https://cdn.example/",
            "https://.cdn.example/",
            "https://evilcdn.example/",
            "https://api.example.com:8443/",
            "http://local.test/",
            "http://[::1]/",
            "http://user@api.example.com/",
            "ftp://api.example.com/",
            "http://127.0.0.1/",
        ] {
            assert!(!allowed(uri, &list), "{uri} is not on the list");
        }
        assert!(!allowed("https://api.example.com/", &[]), "an empty list allows nothing");
    }
}
