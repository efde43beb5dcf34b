//! A response as a test looks at it, whatever protocol it came by.

use bytes::Bytes;
use http::HeaderMap;
use std::fmt;

/// A response, read to its end.
#[derive(Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The content, without its transfer coding.
    pub body: Bytes,
    /// Whether the content was whole: its length or its last chunk was there.
    pub whole: bool,
}

impl Reply {
    /// A field's first value; empty when it is absent.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The content as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The content as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Whether the cache answered from what it had (`Cache-Status`, RFC 9211).
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.cache_status().split(';').any(|part| part.trim() == "hit")
    }

    /// Our own member of `Cache-Status`: the last one.
    #[must_use]
    pub fn cache_status(&self) -> &str {
        let value = self.headers.get_all("cache-status").iter().next_back();
        let value = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.rsplit(',').next().unwrap_or_default()
    }

    /// Itself, when its status is the one expected.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(400)]);
        write!(f, "{} {:?} whole={} {body:?}", self.status, self.headers, self.whole)
    }
}
