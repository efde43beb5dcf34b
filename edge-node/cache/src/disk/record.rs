//! How a stored response lies in its file: the content from the first byte on, behind it a record of
//! everything else, and at the end a trailer that says where the record begins. Every byte is under a
//! checksum. Pure; bytes that are not what this room wrote decode to `None`, never to something else.

use super::BLOCK_BYTES;
use crate::freshness::{Freshness, TtlSource};
use crate::object::{Epoch, Span, StoredObject};
use crate::tags::Tags;
use crate::vary::SelectionRecord;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use verge_config::Revision;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// The trailer's length in bytes.
pub(crate) const TRAILER_BYTES: usize = 40;
/// The longest record, in bytes: header sections are limited far below, checksums of content are not.
pub(crate) const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;
/// Changes with the format; files of another one are not read.
const MAGIC: u64 = u64::from_le_bytes(*b"verge\0o2");

/// What a file says of its object besides the content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record<'a> {
    /// The primary key ([`crate::key::Key::encode`]).
    #[serde(borrow)]
    pub(crate) key: Cow<'a, [u8]>,
    pub(crate) status: u16,
    /// Status line and fields for visitors, as HTTP/1.1 has them.
    #[serde(borrow)]
    pub(crate) head: Cow<'a, [u8]>,
    /// The fields kept from visitors.
    #[serde(borrow)]
    pub(crate) hidden: Cow<'a, [u8]>,
    pub(crate) freshness: FreshnessRecord,
    pub(crate) selection: Option<SelectionRecord>,
    pub(crate) tags: Vec<String>,
    pub(crate) span: Option<Span>,
    /// The site's count of purges when the source was asked, and the revision then.
    pub(crate) applied: u64,
    pub(crate) revision: u64,
    /// The checksum of every block of the content.
    pub(crate) sums: Vec<u64>,
}

/// Freshness without a monotonic clock: those of two processes have nothing in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FreshnessRecord {
    lifetime: u64,
    source: TtlSource,
    /// The age when the record was written, in milliseconds.
    age_ms: u64,
    /// Wall time when the record was written, in seconds since the Unix epoch.
    written: u64,
    stale_while_revalidate: u64,
    stale_if_error: u64,
    always_revalidate: bool,
    stale_forbidden: bool,
}

/// The end of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Bytes of content, which begin the file.
    pub(crate) content: u64,
    /// Bytes of the record, which follow it.
    pub(crate) record: u32,
    sum: u64,
}

/// The checksum of a block of content. Its place takes part, so that blocks cannot change places.
#[must_use]
pub(crate) fn block_sum(index: u64, block: &[u8]) -> u64 {
    xxh3_64_with_seed(block, index.wrapping_add(MAGIC))
}

/// The same for a block that comes in pieces.
#[must_use]
pub(crate) fn block_summer(index: u64) -> Xxh3 {
    Xxh3::with_seed(index.wrapping_add(MAGIC))
}

/// How many blocks content of this length has.
#[must_use]
pub(crate) fn blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK_BYTES)
}

/// Record and trailer, to be written behind `content` bytes of content.
#[must_use]
pub(crate) fn seal(record: &Record<'_>, content: u64) -> Option<Vec<u8>> {
    let mut out = postcard::to_allocvec(record).ok()?;
    if out.len() > MAX_RECORD_BYTES {
        return None;
    }
    let length = u32::try_from(out.len()).ok()?;
    let sum = xxh3_64(&out);
    let mut trailer = Vec::with_capacity(TRAILER_BYTES);
    trailer.extend_from_slice(&MAGIC.to_le_bytes());
    trailer.extend_from_slice(&content.to_le_bytes());
    trailer.extend_from_slice(&u64::from(length).to_le_bytes());
    trailer.extend_from_slice(&sum.to_le_bytes());
    trailer.extend_from_slice(&xxh3_64(&trailer).to_le_bytes());
    out.extend_from_slice(&trailer);
    Some(out)
}

/// Whether bytes are the end of a file of `size` bytes that this room wrote; what fuzzing feeds.
#[must_use]
pub fn is_end(end: &[u8], size: u64) -> bool {
    let opened = Trailer::parse(end, size).and_then(|trailer| {
        let start = end.len().checked_sub(TRAILER_BYTES + trailer.record as usize)?;
        trailer.open(end.get(start..end.len() - TRAILER_BYTES)?).map(|_| ())
    });
    opened.is_some()
}

/// Reads bytes as a record without its checksum, makes of it all that a restart does, and writes it as the
/// end of a file, whose size is the second value; what fuzzing feeds, which never finds a checksum.
#[must_use]
pub fn written_again(bytes: &[u8]) -> Option<(Vec<u8>, u64)> {
    let record: Record<'_> = postcard::from_bytes(bytes).ok()?;
    let _ = (record.freshness.resume(1, 1), record.epoch(), record.tags());
    let content = (record.sums.len() as u64).checked_mul(BLOCK_BYTES)?;
    let end = seal(&record, content)?;
    let size = content.checked_add(end.len() as u64)?;
    Some((end, size))
}

// === impl Trailer ===

impl Trailer {
    /// Reads the last bytes of a file of `size` bytes; `None` when they are not a trailer that fits it.
    #[must_use]
    pub(crate) fn parse(end: &[u8], size: u64) -> Option<Trailer> {
        let trailer = end.get(end.len().checked_sub(TRAILER_BYTES)?..)?;
        let number = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(trailer.get(at..at + 8)?.try_into().ok()?))
        };
        if number(0)? != MAGIC || number(32)? != xxh3_64(trailer.get(..32)?) {
            return None;
        }
        let (content, record, sum) = (number(8)?, number(16)?, number(24)?);
        let whole = content.checked_add(record)?.checked_add(TRAILER_BYTES as u64)?;
        let record = u32::try_from(record).ok().filter(|r| *r as usize <= MAX_RECORD_BYTES)?;
        (whole == size).then_some(Trailer { content, record, sum })
    }

    /// Reads the record that the trailer is of.
    #[must_use]
    pub(crate) fn open<'a>(&self, record: &'a [u8]) -> Option<Record<'a>> {
        if record.len() != self.record as usize || xxh3_64(record) != self.sum {
            return None;
        }
        let record: Record<'_> = postcard::from_bytes(record).ok()?;
        (record.sums.len() as u64 == blocks(self.content)).then_some(record)
    }
}

// === impl FreshnessRecord ===

impl FreshnessRecord {
    /// As it is at a moment.
    #[must_use]
    pub(crate) fn of(freshness: &Freshness, mono: u64, wall: u64) -> FreshnessRecord {
        FreshnessRecord {
            lifetime: freshness.lifetime,
            source: freshness.source,
            age_ms: freshness.age_ms(mono),
            written: wall,
            stale_while_revalidate: freshness.stale_while_revalidate,
            stale_if_error: freshness.stale_if_error,
            always_revalidate: freshness.always_revalidate,
            stale_forbidden: freshness.stale_forbidden,
        }
    }

    /// In another process, at another moment. A clock that shows less than when the record was written
    /// cannot tell how long ago that was: the response is stale.
    #[must_use]
    pub(crate) fn resume(&self, mono: u64, wall: u64) -> Freshness {
        let resident_ms = match wall.checked_sub(self.written) {
            Some(seconds) => seconds.saturating_mul(1000),
            None => self.lifetime.saturating_mul(1000),
        };
        Freshness {
            lifetime: self.lifetime,
            source: self.source,
            initial_age_ms: self.age_ms.saturating_add(resident_ms),
            received: mono,
            stale_while_revalidate: self.stale_while_revalidate,
            stale_if_error: self.stale_if_error,
            always_revalidate: self.always_revalidate,
            stale_forbidden: self.stale_forbidden,
        }
    }
}

// === impl Record ===

impl<'a> Record<'a> {
    /// The record of an object.
    #[must_use]
    pub(crate) fn of(
        key: &'a [u8],
        object: &'a StoredObject,
        sums: &[u64],
        (mono, wall): (u64, u64),
    ) -> Record<'a> {
        let (head, hidden) = object.sections();
        Record {
            key: Cow::Borrowed(key),
            status: object.status().as_u16(),
            head: Cow::Borrowed(head),
            hidden: Cow::Borrowed(hidden),
            freshness: FreshnessRecord::of(&object.freshness, mono, wall),
            selection: object.selection.as_ref().map(|selection| selection.record()),
            tags: object.tags.iter().map(|tag| tag.to_string()).collect(),
            span: object.span.as_deref().copied(),
            applied: object.epoch.applied,
            revision: object.epoch.revision.0,
            sums: sums.to_vec(),
        }
    }

    /// The purges' view of it.
    #[must_use]
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch { applied: self.applied, revision: Revision(self.revision) }
    }

    /// The tags, as objects have them.
    #[must_use]
    pub(crate) fn tags(&self) -> Tags {
        let kept = self.tags.iter().map(|tag| tag.as_str().into()).collect();
        Tags { kept, ignored: 0 }
    }
}
