//! The shortest way: a fresh stored response to a plain request, found and written without a task, a
//! copy or a wait. What it cannot answer goes the whole way in [`super::Edge::serve`].

use super::{Edge, Record, VERGE_DEBUG};
use crate::admit;
use crate::listen::Connection;
use crate::previews;
use crate::routing;
use bytes::{BufMut, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use std::sync::Arc;
use verge_cache::{Hit, Outcome};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// The most bytes of a hit's `Cache-Status`.
const STATUS_BYTES: usize = 40;

/// A fresh hit.
pub struct FastHit {
    hit: Hit,
    record: Record,
}

impl Edge {
    /// A fresh hit for a GET or HEAD without content, when there is one that needs no thought.
    #[must_use]
    pub fn fast(
        &self,
        connection: &Arc<Connection>,
        method: &Method,
        authority: &HeaderValue,
        target: &PathAndQuery,
        headers: &HeaderMap,
        version: Version,
    ) -> Option<FastHit> {
        let host = admit::host_of(authority);
        if connection.sni().is_some_and(|sni| !admit::is_for(sni, &host)) {
            return None;
        }
        // A token of a holder's or not: who asks to be told more goes the whole way.
        if headers.contains_key(CDN_LOOP) || headers.contains_key(VERGE_DEBUG) {
            return None;
        }
        let snapshot = self.snapshot.load();
        let found = routing::find(&snapshot, &host, target.path()).ok()?;
        let policy = found.cached_first?;
        if !snapshot.previews(found.site).is_empty() && previews::concerns(target.path(), headers) {
            return None;
        }
        let request = verge_cache::Request {
            site: &found.site.name,
            scheme: connection.scheme(),
            host: &host,
            path: target.path(),
            query: target.query(),
            method,
            headers,
            policy,
        };
        let hit = self.cache.hit(&request)?;
        let mut record = Record::begin(&self.tails, connection, method, target, version);
        record.set_host(&host);
        record.matched(found.site, found.route);
        record.answered(hit.object.status(), Some(Outcome::Hit));
        Some(FastHit { hit, record })
    }
}

impl FastHit {
    /// The status line and the stored fields, as HTTP/1.1 has them, without the empty line.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.hit.object.head1()
    }

    /// The stored response, its content and its age.
    #[must_use]
    pub fn hit(&self) -> &Hit {
        &self.hit
    }

    /// Writes the fields that change from hit to hit: `Age` and `Cache-Status`.
    pub fn write_fields(&self, out: &mut impl BufMut) {
        out.put_slice(b"age: ");
        put_number(out, self.hit.age);
        out.put_slice(b"\r\ncache-status: ");
        self.put_status(out);
        out.put_slice(b"\r\n");
    }

    /// The value of `Cache-Status`, for protocols other than HTTP/1.1.
    #[must_use]
    pub fn cache_status(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(STATUS_BYTES);
        self.put_status(&mut out);
        out
    }

    fn put_status(&self, out: &mut impl BufMut) {
        out.put_slice(b"Verge; hit; ttl=");
        if self.hit.ttl < 0 {
            out.put_u8(b'-');
        }
        put_number(out, self.hit.ttl.unsigned_abs());
    }

    /// It was written, with so many bytes of content; whole or not.
    pub fn done(self, bytes: u64, whole: bool) {
        self.record.done(bytes, whole);
    }
}

fn put_number(out: &mut impl BufMut, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        if let Some(digit) = digits.get_mut(start) {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        }
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(digits.get(start..).unwrap_or_default());
}
