//! `multipart/byteranges` (RFC 9110 section 14.6): what stands between the parts of an answer with several
//! ranges, and how long it all is; pure, touches no content.

use crate::range::{ContentRange, Part};
use bytes::Bytes;
use http::HeaderValue;

/// The frame of an answer with several parts: before each part its head, after the last the end.
#[derive(Debug, Clone)]
pub struct Multipart {
    boundary: String,
    kind: Option<HeaderValue>,
    whole: u64,
    parts: Vec<Part>,
}

impl Multipart {
    /// The frame for `parts` of a representation of `whole` bytes and of this `Content-Type`. `random`
    /// must be unpredictable: content that could know the boundary could end its own part.
    #[must_use]
    pub fn new(
        parts: Vec<Part>,
        whole: u64,
        kind: Option<&HeaderValue>,
        random: u128,
    ) -> Multipart {
        Multipart { boundary: format!("{random:032x}"), kind: kind.cloned(), whole, parts }
    }

    /// The parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The answer's `Content-Type`.
    #[must_use]
    pub fn content_type(&self) -> HeaderValue {
        let text = format!("multipart/byteranges; boundary={}", self.boundary);
        HeaderValue::try_from(text)
            .unwrap_or_else(|_| HeaderValue::from_static("multipart/byteranges"))
    }

    /// What goes before the content of the part at `index`; empty when there is none.
    #[must_use]
    pub fn head(&self, index: usize) -> Bytes {
        let Some(part) = self.parts.get(index) else { return Bytes::new() };
        let mut out = Vec::with_capacity(160);
        if index > 0 {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"--");
        out.extend_from_slice(self.boundary.as_bytes());
        if let Some(kind) = &self.kind {
            out.extend_from_slice(b"\r\nContent-Type: ");
            out.extend_from_slice(kind.as_bytes());
        }
        let range = ContentRange::Part { part: *part, whole: Some(self.whole) };
        out.extend_from_slice(format!("\r\nContent-Range: {range}\r\n\r\n").as_bytes());
        out.into()
    }

    /// What goes behind the content of the last part.
    #[must_use]
    pub fn end(&self) -> Bytes {
        format!("\r\n--{}--\r\n", self.boundary).into()
    }

    /// The length of it all: the answer's `Content-Length`.
    #[must_use]
    pub fn length(&self) -> u64 {
        let end = self.end().len() as u64;
        self.parts.iter().enumerate().fold(end, |length, (index, part)| {
            length.saturating_add(self.head(index).len() as u64).saturating_add(part.length())
        })
    }
}
