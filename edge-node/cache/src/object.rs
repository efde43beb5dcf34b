//! A stored response: what visitors get of it, how fresh it is and what purges select it by. Immutable;
//! a revalidation makes a new one that shares the content.

use crate::content::Content;
use crate::disk::Filed;
use crate::fields::{Fields, read_fields, room, write_block};
use crate::freshness::Freshness;
use crate::key::Key;
use crate::purge_index::Verdict;
use crate::site::SiteState;
use crate::tags::Tags;
use crate::vary::Selection;
use bytes::Bytes;
use http::header::{ETAG, HeaderName};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use triomphe::ThinArc;
use verge_config::Revision;

/// What an object takes in memory besides its header section and content, in bytes: its own struct and
/// the reference counts of its parts.
const OVERHEAD: usize = size_of::<Facts>() + 64;

/// A moment in the order in which one site's purges are applied on this edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// How many purges and flushes the site has seen here.
    pub applied: u64,
    /// The revision of the newest.
    pub revision: Revision,
}

/// A stored response, counted by its users. It lies in memory in one piece: what is known of it, its
/// header section as HTTP/1.1 writes it, which is what most answers need and a quarter of what a map of
/// fields takes, and short content. A hit that finds it in no cache of the processor waits once.
#[derive(Debug, Clone)]
pub struct StoredObject(ThinArc<Facts, u8>);

/// What is known of a stored response.
#[derive(Debug)]
pub struct Facts {
    /// What it is stored under.
    pub(crate) key: Key,
    /// The site, whose purges it may be selected by.
    pub(crate) site: Arc<SiteState>,
    pub(crate) status: StatusCode,
    head_len: u32,
    hidden_len: u32,
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
    /// How often it was used, as the store counts.
    pub(crate) uses: AtomicU8,
}

/// The content of an object, which is kept for as long as the content is.
struct Inlined(StoredObject);

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

// === impl Inlined ===

impl AsRef<[u8]> for Inlined {
    fn as_ref(&self) -> &[u8] {
        self.0.inline_content()
    }
}

// === impl StoredObject ===

impl Deref for StoredObject {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0.header.header
    }
}

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
        let facts = Facts {
            key,
            site,
            status,
            head_len,
            hidden_len,
            content,
            freshness,
            selection,
            tags: tags.kept,
            span,
            epoch,
            checked: AtomicU64::new(u64::MAX),
            holders: AtomicU32::new(0),
            uses: AtomicU8::new(0),
        };
        StoredObject(ThinArc::from_header_and_slice(facts, &block))
    }

    /// Status line and fields for visitors, then the hidden fields; content behind them where
    /// [`Content::Inline`] says so.
    fn block(&self) -> &[u8] {
        &self.0.slice
    }

    /// Whether it is this very object.
    pub(crate) fn is(&self, other: &StoredObject) -> bool {
        self.address() == other.address()
    }

    /// Where it lies: tells objects apart.
    pub(crate) fn address(&self) -> usize {
        self.0.heap_ptr().addr()
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields for visitors, without `Age` and `Cache-Status`.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let lines = self.head1();
        match memchr::memchr(b'\n', lines).and_then(|end| lines.get(end + 1..)) {
            Some(fields) => read_fields(&Bytes::copy_from_slice(fields)),
            None => HeaderMap::new(),
        }
    }

    /// Visible and hidden fields.
    pub(crate) fn fields(&self) -> Fields {
        let hidden = Bytes::copy_from_slice(self.sections().1);
        Fields { visible: self.headers(), hidden: read_fields(&hidden), personal: HeaderMap::new() }
    }

    /// Header section and hidden fields as bytes.
    pub(crate) fn sections(&self) -> (&[u8], &[u8]) {
        let (head, rest) = self.block().split_at(self.head_end());
        (head, rest.get(..self.hidden_end() - self.head_end()).unwrap_or_default())
    }

    fn head_end(&self) -> usize {
        (self.head_len as usize).min(self.block().len())
    }

    fn hidden_end(&self) -> usize {
        (self.head_end() + self.hidden_len as usize).min(self.block().len())
    }

    /// The content, where it is in memory as one piece.
    #[must_use]
    pub fn body(&self) -> Option<Bytes> {
        match &self.content {
            Content::Inline => Some(Bytes::from_owner(Inlined(self.clone()))),
            Content::Shared(bytes) => Some(Bytes::clone(bytes)),
            Content::Filed(_) | Content::MemoryFile(..) => None,
        }
    }

    /// The content, to be shared with an object that confirms this one.
    pub(crate) fn shared_content(&self) -> Content {
        match &self.content {
            Content::Inline => Content::Shared(Arc::new(Bytes::from_owner(Inlined(self.clone())))),
            elsewhere => elsewhere.clone(),
        }
    }

    /// The content's length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.content {
            Content::Inline => (self.block().len() - self.hidden_end()) as u64,
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
            Content::Inline => self.block().get(self.hidden_end()..).unwrap_or_default(),
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
            + self.block().len()
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
    pub(crate) fn field(&self, name: &HeaderName) -> Option<&[u8]> {
        for line in self.head1().split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some((own, [b':', b' ', value @ ..])) = line.split_at_checked(name.as_str().len())
            else {
                continue;
            };
            if own.eq_ignore_ascii_case(name.as_str().as_bytes()) {
                return Some(value);
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
