//! Values that the site's handlers keep in the edge's cache by keys of their own. Needs
//! `grants = ["cache"]`.
//!
//! All handlers of a site share the keys, and nobody else sees them. Values are of one edge alone and go
//! when others need the room: keep what can be made again. Purges of the site's tags, and of everything,
//! reach them. Every call counts towards `limits.cache_calls` (64 a request by default).

use crate::Error;
use crate::bindings::verge::edge::cache::{self, PutOptions};
use std::time::Duration;

/// The value under a key, while it is fresh.
///
/// # Errors
/// When it is not granted, the key is not of 1 to 512 bytes, or the request has used up its calls.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    cache::get(key)
}

/// Keeps a value of up to 1 MiB under a key, for 1 s to a year, in whole seconds. It can be purged by up to
/// 64 tags of up to 256 bytes, without spaces, commas and control characters. A [`get`] after it finds the
/// value, unless it was purged or had to make room meanwhile.
///
/// # Errors
/// As for [`get`]; when the value, the lifetime or a tag is out of bounds; and when the cache cannot take
/// it now.
pub fn put(key: &str, value: &[u8], lifetime: Duration, tags: &[&str]) -> Result<(), Error> {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let ttl = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    cache::put(key, value, &PutOptions { ttl, tags })
}

/// Purges whatever of the site is stored here under one of up to 64 tags, responses as well, and tells how
/// much there was. It is in force on this edge alone: for all edges, purge through the API.
///
/// # Errors
/// As for [`get`], and when a tag is out of bounds.
pub fn purge(tags: &[&str]) -> Result<u64, Error> {
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    cache::purge(&tags)
}
