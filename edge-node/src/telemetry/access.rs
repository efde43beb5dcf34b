//! The access log: one event a request, under a target of its own. Holds no query, no cookie and no
//! field of the request: none of what may be secret.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use verge_cache::Outcome;

/// The target of the access log's events.
pub(super) const ACCESS_TARGET: &str = "access";

/// Whether there is an access log. Not `tracing::enabled!`: where each layer has a filter of its own, a
/// question that is answered with no is remembered by the thread, and the next line that it logs, an
/// error perhaps, is lost (tracing-subscriber 0.3, `FilterState::did_enable`).
static ENABLED: AtomicBool = AtomicBool::new(false);

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
    /// The handler of the route, or all of them: `auth>rewrite`.
    pub handler: Option<&'a str>,
    /// Whether it came over TLS.
    pub tls: bool,
}

/// Whether anyone reads the access log: ask before gathering what it takes.
#[inline]
#[must_use]
pub fn access_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// From now on requests are logged: said by whoever sets up logs that show them.
pub(super) fn enable_access() {
    ENABLED.store(true, Ordering::Relaxed);
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
        handler = access.handler,
        tls = access.tls,
    );
}

/// What the cache did, in one word.
pub(crate) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Hit => "hit",
        Outcome::Stale => "stale",
        Outcome::Revalidated => "revalidated",
        Outcome::Miss => "miss",
        Outcome::Collapsed => "collapsed",
        Outcome::Bypass => "bypass",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::lines;
    use parking_lot::Mutex;
    use std::io::{self, Write};
    use std::sync::Arc;
    use tracing_subscriber::fmt;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_request_is_one_line_of_json_without_its_query() {
        let out = Shared::default();
        let (lines, guard) = lines::start(Box::new(out.clone()), "access-test").unwrap();
        let subscriber = fmt().json().flatten_event(true).with_writer(lines).finish();
        let access = Access {
            client: IpAddr::from([192, 0, 2, 1]),
            site: Some("shop"),
            host: "shop.example",
            method: "GET",
            path: "/a\"b\n?token=secret",
            version: http::Version::HTTP_2,
            status: 200,
            bytes: 12,
            duration: Duration::from_micros(345),
            cache: Some(Outcome::Hit),
            route: Some(2),
            handler: Some("auth>greet"),
            tls: true,
        };
        tracing::subscriber::with_default(subscriber, || log_access(&access));
        drop(guard);
        let text = String::from_utf8(out.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains("secret"), "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (name, value) in [
            ("site", serde_json::json!("shop")),
            ("path", serde_json::json!("/a\"b\n")),
            ("status", serde_json::json!(200)),
            ("duration_us", serde_json::json!(345)),
            ("cache", serde_json::json!("hit")),
            ("route", serde_json::json!(2)),
            ("handler", serde_json::json!("auth>greet")),
            ("tls", serde_json::json!(true)),
        ] {
            assert_eq!(line[name], value, "{name} in {text}");
        }
    }
}
