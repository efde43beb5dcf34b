//! A stored response: what visitors get of it, how fresh it is and what purges select it by. Immutable;
//! a revalidation makes a new one that shares the content.

use crate::content::Content;
use crate::disk::Filed;
use crate::freshness::{Freshness, VERGE_CDN_CACHE_CONTROL};
use crate::key::Key;
use crate::purge_index::Verdict;
use crate::site::SiteState;
use crate::tags::{CACHE_TAG, SURROGATE_KEY, Tags};
use crate::vary::Selection;
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_LENGTH, DATE, ETAG, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use verge_config::Revision;

/// What an object takes in memory besides its header section and content, in bytes: its own struct and
/// the reference counts of its parts.
const OVERHEAD: usize = size_of::<StoredObject>() + 64;

/// Marks, among the hidden fields, what was compressed here rather than by the source.
pub(crate) const VERGE_CODED: HeaderName = HeaderName::from_static("verge-coded");

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

/// A stored response. Its header section lies in memory as HTTP/1.1 writes it: what most answers need,
/// and a quarter of what a map of fields takes.
#[derive(Debug)]
pub struct StoredObject {
    /// What it is stored under.
    pub(crate) key: Key,
    /// The site, whose purges it may be selected by.
    pub(crate) site: Arc<SiteState>,
    pub(crate) status: StatusCode,
    head_len: u32,
    hidden_len: u32,
    /// Status line and fields for visitors, then the hidden fields; content behind them where
    /// [`Content::Inline`] says so.
    block: Bytes,
    pub(crate) content: Content,
    pub(crate) freshness: Freshness,
    pub(crate) selection: Option<Box<Selection>>,
    pub(crate) tags: Box<[Box<str>]>,
    /// Which bytes of the representation the content is; `None` when it is all of them.
    pub(crate) span: Option<Box<Span>>,
    pub(crate) epoch: Epoch,
    /// The site's count of applied purges up to which this object is known to be untouched.
    checked: AtomicU64,
    /// How many entries of the store have it; its site's catalogue counts.
    pub(crate) holders: AtomicU32,
}

/// What an object is made of.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) key: Key,
    pub(crate) site: Arc<SiteState>,
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) freshness: Freshness,
    pub(crate) selection: Option<Box<Selection>>,
    pub(crate) tags: Tags,
    pub(crate) span: Option<Box<Span>>,
    pub(crate) epoch: Epoch,
}

/// Where the content of a part lies in the whole representation (RFC 9110 section 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// Its first byte.
    pub(crate) start: u64,
    /// The length of the whole, where the source said it.
    pub(crate) total: Option<u64>,
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

// === impl StoredObject ===

impl StoredObject {
    /// An object with its content in memory, in one piece with its header section.
    pub(crate) fn inline(parts: Parts, content: &[&[u8]]) -> StoredObject {
        let length: usize = content.iter().map(|piece| piece.len()).sum();
        let mut block = Vec::with_capacity(room(&parts.fields, parts.status) + length);
        let (head_len, hidden_len) = write_block(&mut block, parts.status, &parts.fields);
        content.iter().for_each(|piece| block.extend_from_slice(piece));
        StoredObject::new(parts, block, (head_len, hidden_len), Content::Inline)
    }

    /// An object whose content is elsewhere.
    pub(crate) fn with_content(parts: Parts, content: Content) -> StoredObject {
        let mut block = Vec::with_capacity(room(&parts.fields, parts.status));
        let lengths = write_block(&mut block, parts.status, &parts.fields);
        StoredObject::new(parts, block, lengths, content)
    }

    /// An object as a record of it has it.
    pub(crate) fn from_block(
        parts: Parts,
        (head, hidden): (&[u8], &[u8]),
        content: Content,
    ) -> StoredObject {
        let block = [head, hidden].concat();
        let length = |piece: &[u8]| u32::try_from(piece.len()).unwrap_or(u32::MAX);
        StoredObject::new(parts, block, (length(head), length(hidden)), content)
    }

    fn new(
        parts: Parts,
        block: Vec<u8>,
        (head_len, hidden_len): (u32, u32),
        content: Content,
    ) -> StoredObject {
        let Parts { key, site, status, freshness, selection, tags, span, epoch, fields: _ } = parts;
        let block = Bytes::from(block);
        let checked = AtomicU64::new(u64::MAX);
        StoredObject {
            key,
            site,
            status,
            head_len,
            hidden_len,
            block,
            content,
            freshness,
            selection,
            tags: tags.kept,
            span,
            epoch,
            checked,
            holders: AtomicU32::new(0),
        }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields for visitors, without `Age` and `Cache-Status`.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let lines = self.block.slice(..self.head_end());
        match memchr::memchr(b'\n', &lines) {
            Some(end) => read_fields(&lines.slice(end + 1..)),
            None => HeaderMap::new(),
        }
    }

    /// Visible and hidden fields.
    pub(crate) fn fields(&self) -> Fields {
        let hidden = self.block.slice(self.head_end()..self.hidden_end());
        Fields { visible: self.headers(), hidden: read_fields(&hidden), personal: HeaderMap::new() }
    }

    /// Header section and hidden fields as bytes.
    pub(crate) fn sections(&self) -> (&[u8], &[u8]) {
        let (head, rest) = self.block.split_at(self.head_end());
        (head, rest.get(..self.hidden_end() - self.head_end()).unwrap_or_default())
    }

    fn head_end(&self) -> usize {
        (self.head_len as usize).min(self.block.len())
    }

    fn hidden_end(&self) -> usize {
        (self.head_end() + self.hidden_len as usize).min(self.block.len())
    }

    /// The content, where it is in memory as one piece.
    #[must_use]
    pub fn body(&self) -> Option<Bytes> {
        match &self.content {
            Content::Inline => Some(self.block.slice(self.hidden_end()..)),
            Content::Shared(bytes) => Some(Bytes::clone(bytes)),
            Content::Filed(_) | Content::MemoryFile(..) => None,
        }
    }

    /// The content, to be shared with an object that confirms this one.
    pub(crate) fn shared_content(&self) -> Content {
        match &self.content {
            Content::Inline => Content::Shared(Arc::new(self.block.slice(self.hidden_end()..))),
            elsewhere => elsewhere.clone(),
        }
    }

    /// The content's length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.content {
            Content::Inline => (self.block.len() - self.hidden_end()) as u64,
            Content::Shared(bytes) => bytes.len() as u64,
            Content::MemoryFile(part) => part.len,
            Content::Filed(filed) => filed.len,
        }
    }

    /// Whether there is no content.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `HTTP/1.1 200 OK` and the fields for visitors, each line with its CRLF, without the empty line
    /// at the end: `Age`, `Cache-Status` and whatever else differs between answers goes behind it.
    #[must_use]
    pub fn head1(&self) -> &[u8] {
        self.sections().0
    }

    /// The content, where it lies behind the header section.
    pub(crate) fn inline_content(&self) -> &[u8] {
        match &self.content {
            Content::Inline => self.block.get(self.hidden_end()..).unwrap_or_default(),
            _ => &[],
        }
    }

    /// How fresh it is.
    #[must_use]
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Bytes that it takes in memory, nearly.
    #[must_use]
    pub fn weight(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| tag.len() + 16).sum();
        let shared = match &self.content {
            Content::Shared(bytes) => bytes.len(),
            Content::MemoryFile(part) => usize::try_from(part.len).unwrap_or(usize::MAX),
            Content::Filed(filed) => filed.weight(),
            Content::Inline => 0,
        };
        OVERHEAD
            + self.key.weight()
            + self.block.len()
            + shared
            + tags
            + self.selection.as_ref().map_or(0, |selection| selection.weight())
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

    /// Whether it is of no use beside `newer`, which the same requests select: a whole representation
    /// takes the place of everything, a part that of the parts that it holds.
    pub(crate) fn gives_way_to(&self, newer: &StoredObject) -> bool {
        match (&self.span, &newer.span) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(other)) => {
                let holds = other.start <= own.start
                    && own.start.saturating_add(self.len())
                        <= other.start.saturating_add(newer.len());
                holds || self.field(&ETAG) != newer.field(&ETAG)
            }
        }
    }

    /// A field for visitors, its first line.
    pub(crate) fn field(&self, name: &HeaderName) -> Option<Bytes> {
        let lines = self.block.slice(..self.head_end());
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &lines) {
            let line = lines.get(start..end.saturating_sub(1).max(start)).unwrap_or_default();
            let from = start;
            start = end + 1;
            let Some((own, [b':', b' ', value @ ..])) = line.split_at_checked(name.as_str().len())
            else {
                continue;
            };
            if own.eq_ignore_ascii_case(name.as_str().as_bytes()) {
                let value_start = from + name.as_str().len() + 2;
                return Some(lines.slice(value_start..value_start + value.len()));
            }
        }
        None
    }

    /// What the purges of its site mean for it.
    pub(crate) fn verdict(&self) -> Verdict {
        self.site.weigh(&self.key, self)
    }

    /// Its file, where its content is in one.
    pub(crate) fn file(&self) -> Option<&Arc<Filed>> {
        match &self.content {
            Content::Filed(filed) => Some(filed),
            Content::Inline | Content::Shared(_) | Content::MemoryFile(..) => None,
        }
    }

    pub(crate) fn is_checked(&self, applied: u64) -> bool {
        self.checked.load(Ordering::Relaxed) == applied
    }

    pub(crate) fn set_checked(&self, applied: u64) {
        self.checked.store(applied, Ordering::Relaxed);
    }
}

/// Nearly the bytes that the fields take as lines.
fn room(fields: &Fields, status: StatusCode) -> usize {
    let lines = |map: &HeaderMap| -> usize {
        map.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
    };
    let status_line = 15 + status.canonical_reason().unwrap_or_default().len();
    status_line + lines(&fields.visible) + lines(&fields.hidden)
}

/// Writes status line and fields; returns the lengths of the visible and the hidden part.
fn write_block(out: &mut Vec<u8>, status: StatusCode, fields: &Fields) -> (u32, u32) {
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
fn read_fields(lines: &Bytes) -> HeaderMap {
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
