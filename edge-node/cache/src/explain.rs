//! Says of a URL what the cache would do with it and why; reads, changes nothing.

use crate::api::Request;
use crate::cache::{Cache, Passing};
use crate::directives::RequestDirectives;
use crate::freshness::{NotStored, TtlSource};
use crate::key::KeyRef;
use crate::lookup::{Ask, Lookup, lookup};
use crate::object::StoredObject;
use serde::Serialize;
use verge_config::Revision;

/// What is stored for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Stored and fresh.
    Fresh,
    /// Stored and stale, or purged softly.
    Stale,
    /// Not stored.
    Absent,
    /// Not stored, and requests do not wait for each other, since the last answer was for one visitor.
    HitForMiss,
    /// Not stored, since the last answer was too large.
    TooLarge,
}

/// Where a stored response lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Its content is in RAM.
    Ram,
    /// Its content is on disk.
    Disk,
    /// Nothing is stored.
    None,
}

/// An answer to "what does the cache do with this URL, and why?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The primary key in words.
    pub key: String,
    /// What is stored.
    pub state: State,
    /// Where it lies.
    pub tier: Tier,
    /// The request's normalised selecting fields, when the stored response varies.
    pub variant: Option<String>,
    /// Why the last answer was not stored, where that is remembered and nothing is stored now.
    pub not_stored: Option<NotStored>,
    /// Variants under the key.
    pub variants: usize,
    /// The stored status.
    pub status: Option<u16>,
    /// Its age in seconds.
    pub age: Option<u64>,
    /// Seconds of freshness left; negative once stale.
    pub ttl: Option<i64>,
    /// Who said how long.
    pub ttl_source: Option<TtlSource>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The last purge of the site before it was fetched.
    pub epoch: Option<Revision>,
    /// The newest purge of the site.
    pub purged: Revision,
    /// Bytes of content.
    pub size: Option<u64>,
}

impl Cache {
    /// Explains a request.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        let key = KeyRef::of(request);
        let hash = key.hash(&self.inner.hasher);
        let directives = RequestDirectives::default();
        let words = key.keep().to_string();
        let variants = self.inner.store.get(hash, &key).map_or(0, |entry| entry.variants().count());
        let ask = Ask { request: *request, key, hash, directives };
        let mono = self.inner.settings.clock.mono();
        let (state, object) = match lookup(&self.inner.store, &ask, mono) {
            Lookup::Fresh(object) | Lookup::Partial(object) => (State::Fresh, Some(object)),
            Lookup::Stale { object, .. } | Lookup::Revalidate { object, .. } => {
                (State::Stale, Some(object))
            }
            Lookup::Miss { .. } => match self.inner.marked(hash) {
                Some(Passing::Unshared) => (State::HitForMiss, None),
                Some(Passing::TooLarge) => (State::TooLarge, None),
                None => (State::Absent, None),
            },
        };
        let object = object.as_ref();
        let not_stored = match object {
            Some(_) => None,
            None => self.inner.why_not_stored(hash),
        };
        let of = |f: fn(&StoredObject, u64) -> u64| object.map(|object| f(object, mono));
        Explanation {
            key: words,
            state,
            tier: object.map_or(Tier::None, |object| self.inner.store.tier(object)),
            variant: object.and_then(|o| o.selection.as_ref()).map(|s| s.describe()),
            not_stored,
            variants,
            status: object.map(|object| object.status.as_u16()),
            age: of(|object, mono| object.freshness.age(mono)),
            ttl: object.map(|object| object.freshness.ttl(mono)),
            ttl_source: object.map(|object| object.freshness.source),
            tags: object.map_or(Vec::new(), |o| o.tags.iter().map(|t| t.to_string()).collect()),
            epoch: object.map(|object| object.epoch.revision),
            purged: self.inner.site(request.site).epoch().revision,
            size: of(|object, _| object.len()),
        }
    }
}
