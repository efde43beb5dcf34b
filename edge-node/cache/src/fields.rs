//! A response's fields: parted into those for visitors and those that are kept from them, as lines in a
//! stored response's header section, and as a 304 updates them. Pure; knows no object.

use crate::freshness::VERGE_CDN_CACHE_CONTROL;
use crate::tags::{CACHE_TAG, SURROGATE_KEY};
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_LENGTH, DATE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::time::Duration;

/// Marks, among the hidden fields, what was compressed here rather than by the source.
pub(crate) const VERGE_CODED: HeaderName = HeaderName::from_static("verge-coded");

/// The fields of a response, parted into those for visitors and those that are kept from them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    /// For visitors; without `Age` and `Cache-Status`, which differ from answer to answer.
    pub(crate) visible: HeaderMap,
    /// As the source sent them, where visitors get others or none: needed when a 304 is merged.
    pub(crate) hidden: HeaderMap,
    /// For the visitor that asked alone: what `private="…"` and `no-cache="…"` name. Never stored.
    pub(crate) personal: HeaderMap,
}

// === impl Fields ===

impl Fields {
    /// Parts a source's fields. `excluded` are not stored at all, `browser_ttl` is told to visitors in
    /// the place of the source's lifetime.
    #[must_use]
    pub(crate) fn part(
        mut headers: HeaderMap,
        excluded: &[HeaderName],
        browser_ttl: Option<Duration>,
    ) -> Fields {
        let mut hidden = HeaderMap::new();
        for name in [CACHE_TAG, SURROGATE_KEY, VERGE_CDN_CACHE_CONTROL, VERGE_CODED] {
            take(&mut headers, &mut hidden, &name);
        }
        headers.remove(AGE);
        let mut personal = HeaderMap::new();
        for name in excluded {
            take(&mut headers, &mut personal, name);
        }
        if let Some(ttl) = browser_ttl {
            take(&mut headers, &mut hidden, &CACHE_CONTROL);
            take(&mut headers, &mut hidden, &http::header::EXPIRES);
            let value = rewritten(&hidden, ttl);
            headers.insert(CACHE_CONTROL, value);
        }
        Fields { visible: headers, hidden, personal }
    }

    /// The fields as the source sent them.
    #[must_use]
    pub(crate) fn original(&self) -> HeaderMap {
        let mut all = self.visible.clone();
        for name in self.hidden.keys() {
            all.remove(name);
        }
        for (name, value) in &self.hidden {
            all.append(name, value.clone());
        }
        all
    }
}

fn take(from: &mut HeaderMap, to: &mut HeaderMap, name: &HeaderName) {
    if let http::header::Entry::Occupied(entry) = from.entry(name) {
        let (name, values) = entry.remove_entry_mult();
        for value in values {
            to.append(name.clone(), value);
        }
    }
}

/// The source's `Cache-Control` with another `max-age`; restrictions other than lifetimes stay.
fn rewritten(hidden: &HeaderMap, ttl: Duration) -> HeaderValue {
    let mut out = format!("max-age={}", ttl.as_secs());
    for line in hidden.get_all(CACHE_CONTROL) {
        let line = String::from_utf8_lossy(line.as_bytes());
        let mut rest: &str = &line;
        while !rest.is_empty() {
            let (member, tail) = rest.split_at(crate::directives::end_of_member(rest));
            rest = tail.strip_prefix(',').unwrap_or(tail);
            let member = member.trim();
            let name = member.split('=').next().unwrap_or_default().to_ascii_lowercase();
            if !member.is_empty() && !matches!(name.as_str(), "max-age" | "s-maxage" | "no-cache") {
                out.push_str(", ");
                out.push_str(member);
            }
        }
    }
    HeaderValue::try_from(out).unwrap_or_else(|_| HeaderValue::from_static("no-store"))
}

/// Nearly the bytes that the fields take as lines.
pub(crate) fn room(fields: &Fields, status: StatusCode) -> usize {
    let lines = |map: &HeaderMap| -> usize {
        map.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
    };
    let status_line = 15 + status.canonical_reason().unwrap_or_default().len();
    status_line + lines(&fields.visible) + lines(&fields.hidden)
}

/// Writes status line and fields; returns the lengths of the visible and the hidden part.
pub(crate) fn write_block(out: &mut Vec<u8>, status: StatusCode, fields: &Fields) -> (u32, u32) {
    let start = out.len();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    write_fields(out, &fields.visible);
    let visible = out.len();
    write_fields(out, &fields.hidden);
    let length = |from: usize, to: usize| u32::try_from(to - from).unwrap_or(u32::MAX);
    (length(start, visible), length(visible, out.len()))
}

fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads back what [`write_fields`] wrote; values share the bytes.
pub(crate) fn read_fields(lines: &Bytes) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(16);
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', lines) {
        let line = lines.slice(start..end.saturating_sub(1).max(start));
        start = end + 1;
        let Some(colon) = memchr::memchr(b':', &line) else { continue };
        let name = HeaderName::from_bytes(line.get(..colon).unwrap_or_default());
        let value = HeaderValue::from_maybe_shared(line.slice((colon + 2).min(line.len())..));
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    fields
}

/// What a 304 may not change in a stored response (RFC 9111 section 3.2): what describes the stored
/// content, and the validator that selected it.
fn kept_by_304(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-encoding"
            | "content-length"
            | "content-range"
            | "content-md5"
            | "content-digest"
            | "repr-digest"
            | "digest"
            | "etag"
            | "transfer-encoding"
            | "trailer"
    )
}

/// The fields of a stored response after a 304: every field that the 304 brings replaces the stored one.
#[must_use]
pub(crate) fn merge(stored: &Fields, update: &HeaderMap) -> HeaderMap {
    let mut merged = stored.original();
    // Age is of the message, not of the stored response.
    merged.remove(AGE);
    for name in update.keys().filter(|name| !kept_by_304(name)) {
        merged.remove(name);
        for value in update.get_all(name) {
            merged.append(name, value.clone());
        }
    }
    merged
}

/// A response without `Date` gets the moment of its receipt (RFC 9110 section 6.6.1).
pub(crate) fn with_date(headers: &mut HeaderMap, wall: u64) {
    if !headers.contains_key(DATE) {
        headers.insert(DATE, crate::date::format(wall));
    }
}

/// Makes the fields of a whole response complete: the length that was received, and that ranges of it
/// can be had.
pub(crate) fn with_length(headers: &mut HeaderMap, status: StatusCode, length: u64) {
    if crate::respond::bodiless(status) {
        headers.remove(CONTENT_LENGTH);
        return;
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::OK {
        headers.entry(ACCEPT_RANGES).or_insert_with(|| HeaderValue::from_static("bytes"));
    }
}
