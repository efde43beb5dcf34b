//! The tags that a response carries for purges: `Cache-Tag` (commas), `Surrogate-Key` (spaces) and the
//! route's own; pure. Tags compare without regard to ASCII case, so that a purge never misses by it.

use http::{HeaderMap, HeaderName};

/// The most tags that an object keeps; further ones are ignored and counted.
pub const MAX_TAGS: usize = 1_000;
/// The longest tag, in bytes; a longer one is ignored and counted.
pub const MAX_TAG_BYTES: usize = 1_024;
/// `Cache-Tag`.
pub const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
/// `Surrogate-Key`.
pub const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// An object's tags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// In the one form that compares: ASCII lower case, each once.
    pub kept: Box<[Box<str>]>,
    /// How many were over a limit.
    pub ignored: usize,
}

/// The form in which tags compare.
#[must_use]
pub fn normal(tag: &str) -> String {
    tag.to_ascii_lowercase()
}

impl Tags {
    /// The tags of a response under a policy; the policy's come first.
    #[must_use]
    pub fn of(headers: &HeaderMap, policy: &[String]) -> Tags {
        let mut kept: Vec<Box<str>> = Vec::new();
        let mut ignored = 0;
        let mut add = |tag: &str| {
            let tag = tag.trim();
            if tag.is_empty() {
                return;
            }
            if kept.len() >= MAX_TAGS || tag.len() > MAX_TAG_BYTES {
                ignored += 1;
                return;
            }
            kept.push(normal(tag).into_boxed_str());
        };
        policy.iter().for_each(|tag| add(tag));
        for line in headers.get_all(CACHE_TAG) {
            String::from_utf8_lossy(line.as_bytes()).split(',').for_each(&mut add);
        }
        for line in headers.get_all(SURROGATE_KEY) {
            String::from_utf8_lossy(line.as_bytes()).split_ascii_whitespace().for_each(&mut add);
        }
        kept.sort_unstable();
        kept.dedup();
        Tags { kept: kept.into_boxed_slice(), ignored }
    }
}
