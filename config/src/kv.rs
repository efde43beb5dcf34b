//! The key-value store that a site's handlers share: its limits, and what edges and the API are told of
//! it. Values only; what is stored is in the control plane, and copies of it are on the edges.

use crate::revision::Revision;
use serde::{Deserialize, Serialize};

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// The most entries of a site.
pub const MAX_ENTRIES: u64 = 10_000;
/// The most bytes of a site's keys and values together.
pub const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;
/// The most keys of one answer to a handler that lists them.
pub const KEYS_PER_PAGE: usize = 500;
/// The field of an answer to an edge: the revision of the site's last change that it knows of.
pub const REVISION_FIELD: &str = "verge-kv-revision";

/// A line of the feed: an entry of a site has changed. It holds no value; an edge drops what it has of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryChanged {
    /// Its revision.
    pub revision: Revision,
    /// The site.
    pub site: String,
    /// The key; any of the site's when absent, as it is told to an edge that was away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The revision of the site's change before this one. An edge that has not been told that one does
    /// not know which key it was about.
    #[serde(default)]
    pub after: Revision,
}

/// An entry without its value, as `GET /v1/sites/{site}/kv` lists it and a write is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryInfo {
    /// The key.
    pub key: String,
    /// The value's length, in bytes.
    pub bytes: u64,
    /// The revision of its last write.
    pub revision: Revision,
    /// When that was: milliseconds since the Unix epoch.
    pub updated_ms: u64,
}

/// The answer to an edge whose handler has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The revision of the write.
    pub revision: Revision,
}

/// Some of a site's keys in their order: the answer to an edge whose handler lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPage {
    /// The keys, at most [`KEYS_PER_PAGE`].
    pub keys: Vec<String>,
    /// How many come before the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Whether a text may be a key.
///
/// # Errors
/// What is wrong with it.
pub fn check_key(key: &str) -> Result<(), String> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) {
        return Ok(());
    }
    Err(format!("a key of {} bytes is out of bounds: 1 to {MAX_KEY_BYTES}", key.len()))
}

/// Whether a value may be stored.
///
/// # Errors
/// What is wrong with it.
pub fn check_value(value: &[u8]) -> Result<(), String> {
    if value.len() <= MAX_VALUE_BYTES {
        return Ok(());
    }
    Err(format!("the value has {} bytes; at most {MAX_VALUE_BYTES}", value.len()))
}

/// What an entry counts for, in bytes.
#[must_use]
pub fn weight(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::FeedLine;

    #[test]
    fn keys_and_values_are_bounded() {
        assert!(check_key("k").is_ok() && check_key(&"k".repeat(MAX_KEY_BYTES)).is_ok());
        assert!(check_key("").is_err() && check_key(&"k".repeat(MAX_KEY_BYTES + 1)).is_err());
        assert!(check_value(b"").is_ok() && check_value(&vec![0; MAX_VALUE_BYTES]).is_ok());
        assert!(check_value(&vec![0; MAX_VALUE_BYTES + 1]).is_err());
        assert_eq!(weight("key", b"value"), 8);
    }

    #[test]
    fn a_change_is_a_line_of_the_feed() {
        let changed = EntryChanged {
            revision: Revision(7),
            site: "shop".into(),
            key: Some("a/b".into()),
            after: Revision(5),
        };
        let text = serde_json::to_string(&FeedLine::Entry(changed.clone())).unwrap();
        assert_eq!(text, r#"{"type":"entry","revision":7,"site":"shop","key":"a/b","after":5}"#);
        let FeedLine::Entry(read) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!(read, changed);
        let whole = r#"{"type": "entry", "revision": 7, "site": "shop"}"#;
        let FeedLine::Entry(whole) = serde_json::from_str(whole).unwrap() else { panic!() };
        assert_eq!((whole.key, whole.after), (None, Revision::ZERO));
    }
}
