//! Byte ranges (RFC 9110 section 14): which bytes of a whole representation a `Range` asks for, and which
//! a `Content-Range` says it has; pure.

use http::HeaderValue;

/// The most ranges of one request; a longer list is ignored, and the answer is whole (RFC 9110 section
/// 17.15).
pub const MAX_RANGES: usize = 16;
/// The longest `Range` that is looked at, in bytes.
const MAX_RANGE_BYTES: usize = 1_024;
/// Parts with a smaller gap than this are sent as one: a part's head is about as long (RFC 9110 section
/// 15.3.7.2).
const PART_OVERHEAD: u64 = 128;

/// A `Range` field with one byte range, before the length is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=a-b`.
    Between(u64, u64),
    /// `bytes=a-`.
    From(u64),
    /// `bytes=-n`.
    Last(u64),
}

/// What a range means for a representation of a known length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// These bytes, `start` to `end`, both included: 206.
    Part {
        /// The first byte.
        start: u64,
        /// The last byte.
        end: u64,
    },
    /// None of them exist: 416.
    Unsatisfiable,
}

/// A `Range` field with one or several byte ranges; at least one and at most [`MAX_RANGES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet(Vec<ByteRange>);

/// Bytes of a representation, `start` to `end`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The first byte.
    pub start: u64,
    /// The last byte.
    pub end: u64,
}

/// What a set of ranges means for a representation of a known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// These bytes: 206.
    Part(Part),
    /// Two or more parts that do not overlap, in the order in which they were asked for: 206 with
    /// `multipart/byteranges`.
    Parts(Vec<Part>),
    /// None of them exist: 416.
    Unsatisfiable,
}

/// A response's `Content-Range` (RFC 9110 section 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentRange {
    /// `bytes a-b/c`, or `bytes a-b/*` where the whole length is not known.
    Part {
        /// The bytes that are there.
        part: Part,
        /// The length of the whole.
        whole: Option<u64>,
    },
    /// `bytes */c`: what a 416 says.
    Unsatisfied {
        /// The length of the whole.
        whole: u64,
    },
}

// === impl ByteRange ===

impl ByteRange {
    /// Reads a `Range` value. `None` when it is to be ignored: another unit, not valid, or several
    /// ranges, which a server may answer whole (RFC 9110 section 14.2).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<ByteRange> {
        let value = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        let (unit, spec) = value.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        ByteRange::spec(spec)
    }

    /// One `range-spec`.
    fn spec(spec: &str) -> Option<ByteRange> {
        let (first, last) = spec.trim_matches([' ', '\t']).split_once('-')?;
        match (first, last) {
            ("", last) => Some(ByteRange::Last(number(last)?)),
            (first, "") => Some(ByteRange::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(ByteRange::Between(first, last))
            }
        }
    }

    /// The bytes that it asks for of `length`.
    #[must_use]
    pub fn resolve(self, length: u64) -> Resolved {
        let Some(most) = length.checked_sub(1) else { return Resolved::Unsatisfiable };
        match self {
            ByteRange::Between(start, end) if start <= most => {
                Resolved::Part { start, end: end.min(most) }
            }
            ByteRange::From(start) if start <= most => Resolved::Part { start, end: most },
            ByteRange::Last(count) if count > 0 => {
                Resolved::Part { start: length.saturating_sub(count), end: most }
            }
            _ => Resolved::Unsatisfiable,
        }
    }
}

// === impl Part ===

impl Part {
    /// How many bytes; never zero. A part that ends at the last number there is counts one less.
    #[must_use]
    pub fn length(self) -> u64 {
        self.end.saturating_sub(self.start).saturating_add(1)
    }

    /// Whether so little lies between them that one part for both is shorter.
    fn is_near(self, other: Part) -> bool {
        let (first, second) = if self.start <= other.start { (self, other) } else { (other, self) };
        second.start <= first.end.saturating_add(PART_OVERHEAD)
    }

    fn joined(self, other: Part) -> Part {
        Part { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

// === impl RangeSet ===

impl RangeSet {
    /// Reads a `Range` value. `None` when it is to be ignored: another unit, not valid, or too many
    /// ranges (RFC 9110 section 14.2).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<RangeSet> {
        if value.len() > MAX_RANGE_BYTES {
            return None;
        }
        let value = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        let (unit, set) = value.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let mut ranges = Vec::new();
        for spec in set.split(',') {
            // A list may have empty members (RFC 9110 section 5.6.1.2).
            if spec.trim_matches([' ', '\t']).is_empty() {
                continue;
            }
            if ranges.len() == MAX_RANGES {
                return None;
            }
            ranges.push(ByteRange::spec(spec)?);
        }
        (!ranges.is_empty()).then_some(RangeSet(ranges))
    }

    /// The range, when there is only one.
    #[must_use]
    pub fn single(&self) -> Option<ByteRange> {
        match self.0.as_slice() {
            [range] => Some(*range),
            _ => None,
        }
    }

    /// The bytes that it asks for of `length`. Ranges that overlap or nearly meet become one, so that
    /// the parts together are never longer than the whole.
    #[must_use]
    pub fn resolve(&self, length: u64) -> Selected {
        let mut parts: Vec<Part> = Vec::new();
        for range in &self.0 {
            let Resolved::Part { start, end } = range.resolve(length) else { continue };
            let mut part = Part { start, end };
            // What it meets is taken in, and then may meet others.
            let mut at = parts.len();
            while let Some(other) = parts.iter().position(|other| other.is_near(part)) {
                part = part.joined(parts.remove(other));
                at = at.min(other);
            }
            parts.insert(at.min(parts.len()), part);
        }
        match parts.as_slice() {
            [] => Selected::Unsatisfiable,
            [part] => Selected::Part(*part),
            _ => Selected::Parts(parts),
        }
    }
}

// === impl ContentRange ===

impl ContentRange {
    /// Reads a `Content-Range` value; `None` when it is not one in bytes, or contradicts itself (RFC 9110
    /// section 14.4: a recipient must not recombine it then).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<ContentRange> {
        let value = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        let (unit, range) = value.split_once(' ')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (range, whole) = range.trim_start_matches(' ').split_once('/')?;
        let whole = if whole == "*" { None } else { Some(exact(whole)?) };
        if range == "*" {
            return whole.map(|whole| ContentRange::Unsatisfied { whole });
        }
        let (start, end) = range.split_once('-')?;
        let part = Part { start: exact(start)?, end: exact(end)? };
        let fits = part.start <= part.end && whole.is_none_or(|whole| part.end < whole);
        fits.then_some(ContentRange::Part { part, whole })
    }

    /// The field's value.
    #[must_use]
    pub fn value(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl std::fmt::Display for ContentRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ContentRange::Part { part: Part { start, end }, whole: Some(whole) } => {
                write!(f, "bytes {start}-{end}/{whole}")
            }
            ContentRange::Part { part: Part { start, end }, whole: None } => {
                write!(f, "bytes {start}-{end}/*")
            }
            ContentRange::Unsatisfied { whole } => write!(f, "bytes */{whole}"),
        }
    }
}

/// Digits alone, of a number that fits.
fn exact(digits: &str) -> Option<u64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Digits alone; more of them than fit mean the largest number.
pub(crate) fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}
