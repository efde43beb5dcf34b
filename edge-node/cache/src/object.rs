//! A stored response: what visitors get of it, how fresh it is and what purges select it by. Immutable;
//! a revalidation makes a new one that shares the content.

use crate::freshness::{Freshness, VERGE_CDN_CACHE_CONTROL};
use crate::tags::{CACHE_TAG, SURROGATE_KEY, Tags};
use crate::vary::Selection;
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_LENGTH, DATE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use verge_config::Revision;

/// What an object takes besides its fields and content, in bytes: an estimate of its structs.
const OVERHEAD: usize = 600;
/// What a field takes besides its name and value.
const FIELD_OVERHEAD: usize = 48;

/// A moment in the order in which one site's purges are applied on this edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// How many purges and flushes the site has seen here.
    pub applied: u64,
    /// The revision of the newest.
    pub revision: Revision,
}

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

/// A stored response.
#[derive(Debug)]
pub struct StoredObject {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) body: Bytes,
    pub(crate) freshness: Freshness,
    pub(crate) selection: Option<Selection>,
    pub(crate) tags: Tags,
    pub(crate) epoch: Epoch,
    /// The site's count of applied purges up to which this object is known to be untouched.
    pub(crate) checked: AtomicU64,
    pub(crate) head1: OnceLock<Bytes>,
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
        for name in [CACHE_TAG, SURROGATE_KEY, VERGE_CDN_CACHE_CONTROL] {
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

    fn weight(&self) -> usize {
        self.visible
            .iter()
            .chain(&self.hidden)
            .map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD)
            .sum()
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

// === impl StoredObject ===

impl StoredObject {
    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields for visitors, without `Age` and `Cache-Status`.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.fields.visible
    }

    /// The content, where it is in memory as one piece.
    #[must_use]
    pub fn body(&self) -> Option<Bytes> {
        Some(self.body.clone())
    }

    /// The content's length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.body.len() as u64
    }

    /// Whether there is no content.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// `HTTP/1.1 200 OK` and the fields for visitors, each line with its CRLF, without the empty line
    /// at the end: `Age`, `Cache-Status` and whatever else differs between answers goes behind it.
    /// Made once.
    pub fn head1(&self) -> &Bytes {
        self.head1.get_or_init(|| head1(self.status, &self.fields.visible))
    }

    /// How fresh it is.
    #[must_use]
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Bytes that it takes in memory, nearly.
    #[must_use]
    pub fn weight(&self) -> usize {
        let tags: usize = self.tags.kept.iter().map(|tag| tag.len() + 16).sum();
        let head = self.fields.weight();
        // The fields count twice: a busy object keeps them serialised as well.
        OVERHEAD
            + 2 * head
            + self.body.len()
            + tags
            + self.selection.as_ref().map_or(0, Selection::weight)
    }

    /// Whether `request` selects it.
    pub(crate) fn selected_by(&self, request: &HeaderMap) -> bool {
        self.selection.as_ref().is_none_or(|selection| selection.matches(request))
    }

    /// Whether `other` would be selected by the same requests.
    pub(crate) fn same_selection(&self, other: &StoredObject) -> bool {
        match (&self.selection, &other.selection) {
            (None, None) => true,
            (Some(a), Some(b)) => a.same(b),
            _ => false,
        }
    }

    /// Whether it has something that a source can confirm.
    pub(crate) fn has_validator(&self) -> bool {
        self.fields.visible.contains_key(http::header::ETAG)
            || self.fields.visible.contains_key(http::header::LAST_MODIFIED)
    }

    pub(crate) fn is_checked(&self, applied: u64) -> bool {
        self.checked.load(Ordering::Relaxed) == applied
    }

    pub(crate) fn set_checked(&self, applied: u64) {
        self.checked.store(applied, Ordering::Relaxed);
    }
}

fn head1(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let mut out = Vec::with_capacity(64 + headers.len() * 48);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.into()
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
