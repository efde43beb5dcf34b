//! Byte ranges (RFC 9110 section 14): which bytes of a whole representation a `Range` asks for; pure.

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

impl ByteRange {
    /// Reads a `Range` value. `None` when it is to be ignored: another unit, not valid, or several
    /// ranges, which a server may answer whole (RFC 9110 section 14.2).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<ByteRange> {
        let value = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        let (unit, spec) = value.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") || spec.contains(',') {
            return None;
        }
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

/// Digits alone; more of them than fit mean the largest number.
pub(crate) fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}
