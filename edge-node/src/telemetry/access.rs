//! The access log: one event a request, under a target of its own. Holds no query, no cookie and no
//! field of the request: none of what may be secret.

use std::net::IpAddr;
use std::time::Duration;
use verge_cache::Outcome;

/// The target of the access log's events.
pub(super) const ACCESS_TARGET: &str = "access";

/// What is logged of a request.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// The visitor's address.
    pub client: IpAddr,
    /// The site, when one was found.
    pub site: Option<&'a str>,
    /// The host asked for.
    pub host: &'a str,
    /// The method.
    pub method: &'a str,
    /// The path, without its query.
    pub path: &'a str,
    /// `HTTP/1.1` and so on.
    pub version: http::Version,
    /// The response's status.
    pub status: u16,
    /// The response's content, in bytes as sent.
    pub bytes: u64,
    /// From the first byte in to the last byte out.
    pub duration: Duration,
    /// The way through the cache, for what went through it.
    pub cache: Option<Outcome>,
    /// The route's place in the site file.
    pub route: Option<usize>,
    /// Whether it came over TLS.
    pub tls: bool,
}

/// Whether anyone reads the access log: ask before gathering what it takes.
#[inline]
#[must_use]
pub fn access_enabled() -> bool {
    tracing::enabled!(target: ACCESS_TARGET, tracing::Level::INFO)
}

/// Writes a request's line.
pub fn log_access(access: &Access<'_>) {
    let path = access.path.split('?').next().unwrap_or_default();
    tracing::info!(
        target: ACCESS_TARGET,
        client = %access.client,
        site = access.site,
        host = access.host,
        method = access.method,
        path,
        version = ?access.version,
        status = access.status,
        bytes = access.bytes,
        duration_us = u64::try_from(access.duration.as_micros()).unwrap_or(u64::MAX),
        cache = access.cache.map(outcome_name),
        route = access.route,
        tls = access.tls,
    );
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Hit => "hit",
        Outcome::Stale => "stale",
        Outcome::Revalidated => "revalidated",
        Outcome::Miss => "miss",
        Outcome::Collapsed => "collapsed",
        Outcome::Bypass => "bypass",
    }
}
