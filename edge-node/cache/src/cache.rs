//! The cache's doors for everything but fetching: settings, the fast path of hits, purges,
//! invalidation, figures. What needs the source goes through `serve`.

use crate::api::{Outcome, Request, Response};
use crate::cache_status::CacheStatus;
use crate::clock::Clock;
use crate::flights::Flights;
use crate::freshness::NotStored;
use crate::key::KeyRef;
use crate::object::StoredObject;
use crate::purge_index::{PurgeIndex, Verdict};
use crate::site::SiteState;
use crate::stats::{Counters, Stats};
use crate::store::Store;
use ahash::{AHashMap, RandomState};
use http::{HeaderMap, Method, header};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use verge_config::Revision;
use verge_config::purge::Purge;
use verge_config::site::CacheMode;

/// The most hit-for-miss marks kept.
const MAX_MARKS: u64 = 65_536;

/// The longest that a slow source prolongs a mark to.
const MAX_MARK_MS: u64 = 120_000;

/// How large the cache may grow and what it tells the time by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of memory for stored responses. Default 512 MiB.
    pub ram_bytes: u64,
    /// The longest content that is stored, in bytes; longer content streams through. Default 64 MiB.
    pub max_object_bytes: u64,
    /// Bytes of memory for responses on their way into the store; what comes beyond streams through.
    /// Default 256 MiB.
    pub fill_bytes: u64,
    /// Variants per primary key; the oldest goes. Default 64.
    pub max_variants: usize,
    /// How long an uncacheable answer lets requests for its URL go on without waiting for each other.
    /// Default 2 s.
    pub hit_for_miss: Duration,
    /// The time.
    pub clock: Clock,
}

/// The cache. Clones share everything.
#[derive(Clone)]
pub struct Cache {
    pub(crate) inner: Arc<Inner>,
}

/// A fresh stored response to a plain request.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The response.
    pub object: Arc<StoredObject>,
    /// Its age in seconds.
    pub age: u64,
    /// Seconds of freshness left.
    pub ttl: i64,
}

/// Why requests for a key do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passing {
    /// The last answer was for one visitor only.
    Unshared,
    /// The last answer was too large to store: a range of it is asked of the source.
    TooLarge,
}

/// What is remembered of an answer that was not stored.
#[derive(Debug, Clone, Copy)]
struct Mark {
    until: u64,
    why: Option<Passing>,
    reason: Option<NotStored>,
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) hasher: RandomState,
    pub(crate) store: Store,
    pub(crate) flights: Flights,
    pub(crate) counters: Counters,
    /// Bytes of all fills that are to be stored.
    pub(crate) filling: AtomicU64,
    sites: RwLock<AHashMap<Arc<str>, Arc<SiteState>>>,
    marks: moka::sync::Cache<u64, Mark, RandomState>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ram_bytes: 512 * 1024 * 1024,
            max_object_bytes: 64 * 1024 * 1024,
            fill_bytes: 256 * 1024 * 1024,
            max_variants: 64,
            hit_for_miss: Duration::from_secs(2),
            clock: Clock::System,
        }
    }
}

// === impl Hit ===

impl Hit {
    /// The whole response, for a GET or a HEAD.
    #[must_use]
    pub fn into_response(self, method: &Method) -> Response {
        let mut headers = self.object.headers().clone();
        headers.insert(header::AGE, http::HeaderValue::from(self.age));
        headers.append(crate::cache_status::CACHE_STATUS, CacheStatus::hit(self.ttl).value());
        let empty = *method == Method::HEAD || self.object.is_empty();
        let body = match self.object.body() {
            Some(body) if !empty => crate::api::Body::Whole(body),
            _ => crate::api::Body::Empty,
        };
        Response { status: self.object.status(), headers, body, outcome: Outcome::Hit }
    }
}

// === impl Cache ===

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(settings: Settings) -> Cache {
        // The first look at the clock is its anchor.
        let _ = settings.clock.now();
        let hasher = RandomState::new();
        let store = Store::new(settings.ram_bytes, settings.max_variants, hasher.clone());
        let marks =
            moka::sync::Cache::builder().max_capacity(MAX_MARKS).build_with_hasher(hasher.clone());
        Cache {
            inner: Arc::new(Inner {
                settings,
                hasher,
                store,
                flights: Flights::new(),
                counters: Counters::default(),
                filling: AtomicU64::new(0),
                sites: RwLock::default(),
                marks,
            }),
        }
    }

    /// The fast path: a fresh, whole stored response to a GET or HEAD without conditions, range,
    /// directives or credentials. `None` means: call [`Cache::serve`].
    #[must_use]
    pub fn hit(&self, request: &Request<'_>) -> Option<Hit> {
        if !is_plain(request) {
            return None;
        }
        let key = KeyRef::of(request);
        let entry = self.inner.store.get(key.hash(&self.inner.hasher), &key)?;
        let object = entry.select(request.headers)?;
        let mono = self.inner.settings.clock.mono();
        if !object.freshness.is_fresh(mono)
            || entry.site.verdict(&entry.key, object) != Verdict::Alive
        {
            return None;
        }
        self.inner.counters.hits.fetch_add(1, Ordering::Relaxed);
        let freshness = &object.freshness;
        let (age, ttl) = (freshness.age(mono), freshness.ttl(mono));
        Some(Hit { object: Arc::clone(object), age, ttl })
    }

    /// Puts a purge in force, then counts the live objects that it selects; hard ones are removed. When
    /// this returns, no lookup finds anything that the purge is for. Safe to repeat.
    pub fn purge(&self, purge: &Purge) -> u64 {
        let site = self.inner.site_named(&purge.site);
        let mono = self.inner.settings.clock.mono();
        let before = site.epoch().applied.min(site.oldest_in_flight().unwrap_or(u64::MAX));
        let epoch = site.purge(&purge.selectors, purge.mode, purge.revision, mono);
        // An index with this purge alone tells which objects it is that selects them.
        let mut only = PurgeIndex::default();
        only.insert(&purge.selectors, purge.mode, epoch.applied, mono);
        self.sweep(&site, &only, before)
    }

    /// History is lost: everything of every site is dead, and revisions start again at `revision`.
    pub fn flush(&self, revision: Revision) {
        for site in self.inner.sites.write().values() {
            site.flush(revision);
        }
        self.inner.store.clear();
    }

    /// Counts what `only` selects, removes what is dead, and forgets selectors that nothing is old
    /// enough for; `before` bounds the epochs of fills that were in flight when it began.
    fn sweep(&self, site: &Arc<SiteState>, only: &PurgeIndex, before: u64) -> u64 {
        let mut matched = 0;
        let mut oldest = before;
        for (hash, entry) in self.inner.store.iter() {
            if !Arc::ptr_eq(&entry.site, site) {
                continue;
            }
            let mut dead = false;
            for object in &entry.variants {
                let selected = only.verdict(&entry.key, object) != Verdict::Alive;
                matched += u64::from(selected);
                if site.verdict(&entry.key, object) == Verdict::Dead {
                    dead = true;
                } else {
                    oldest = oldest.min(object.epoch.applied);
                }
            }
            if dead {
                self.inner.store.retain(hash, |entry, object| {
                    site.verdict(&entry.key, object) != Verdict::Dead
                });
            }
        }
        site.forget_until(oldest);
        matched
    }

    /// After a non-error response to an unsafe method: what is stored for the target URI, and for
    /// `Location` and `Content-Location` of the same origin, is gone (RFC 9111 section 4.4), and fills
    /// that are under way for them will not be stored.
    pub fn invalidate(&self, request: &Request<'_>, response_headers: &HeaderMap) {
        self.inner.invalidate(request);
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let Some(value) = response_headers.get(&name).and_then(|v| v.to_str().ok()) else {
                continue;
            };
            if let Some((path, query)) = same_origin(value, request) {
                let (path, query) = (path.as_str(), query.as_deref());
                self.inner.invalidate(&Request { path, query, ..*request });
            }
        }
    }

    /// Figures of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (entries, bytes, evicted) = self.inner.store.figures();
        self.inner.counters.stats(
            entries,
            bytes,
            evicted,
            self.inner.flights.len() as u64,
            self.inner.filling.load(Ordering::Relaxed),
            self.inner.sites.read().values().map(|site| site.selectors() as u64).sum(),
        )
    }
}

/// No field of the request bears on whether or how a stored response is used, save by `Vary`.
fn is_plain(request: &Request<'_>) -> bool {
    let method = request.method;
    if (*method != Method::GET && *method != Method::HEAD)
        || matches!(request.policy.mode, CacheMode::Bypass)
    {
        return false;
    }
    !request.headers.keys().any(|name| {
        let name = name.as_str().as_bytes();
        // The length decides for nearly every field.
        match name.len() {
            5 => name == b"range",
            6 => name == b"pragma",
            8 => name == b"if-match" || name == b"if-range",
            13 => matches!(name, b"if-none-match" | b"cache-control" | b"authorization"),
            17 => name == b"if-modified-since",
            19 => name == b"if-unmodified-since",
            _ => false,
        }
    })
}

/// Path and query of a reference, if it is of the request's own origin.
fn same_origin(reference: &str, request: &Request<'_>) -> Option<(String, Option<String>)> {
    let reference = reference.split('#').next().unwrap_or_default();
    let network_path = reference.strip_prefix("//");
    let path = if network_path.is_some() || reference.contains("://") {
        let parts = verge_config::purge::UrlParts::parse(network_path.unwrap_or(reference))?;
        if parts.host.as_deref() != Some(request.host) {
            return None;
        }
        return Some((parts.path, parts.query));
    } else if reference.starts_with('/') {
        reference.to_owned()
    } else if reference.is_empty() || reference.starts_with('?') {
        format!("{}{reference}", request.path)
    } else {
        let folder = request.path.rfind('/').and_then(|at| request.path.get(..=at))?;
        format!("{folder}{}", reference.strip_prefix("./").unwrap_or(reference))
    };
    Some(match path.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (path, None),
    })
}

// === impl Inner ===

impl Inner {
    /// The state of a site, made when it is first asked for.
    pub(crate) fn site(&self, name: &Arc<str>) -> Arc<SiteState> {
        let known = self.sites.read().get(name).cloned();
        known.unwrap_or_else(|| self.add_site(Arc::clone(name)))
    }

    fn site_named(&self, name: &str) -> Arc<SiteState> {
        let known = self.sites.read().get(name).cloned();
        known.unwrap_or_else(|| self.add_site(name.into()))
    }

    fn add_site(&self, name: Arc<str>) -> Arc<SiteState> {
        let mut sites = self.sites.write();
        Arc::clone(sites.entry(name).or_insert_with(|| SiteState::new(Revision::ZERO)))
    }

    fn invalidate(&self, request: &Request<'_>) {
        for scheme in ["http", "https"] {
            let request = Request { scheme, ..*request };
            let key = KeyRef::of(&request);
            let hash = key.hash(&self.hasher);
            self.flights.with(hash, |flights| {
                for fill in flights.fills().iter().filter(|fill| fill.key.is(&key)) {
                    fill.doom();
                }
                self.store.retain(hash, |entry, _| !entry.key.is(&key));
            });
        }
    }

    /// Leaves a hit-for-miss mark, and why the answer was not stored. A source that took long to answer
    /// leaves a longer one, so that those who poll it slowly do not wait for each other either.
    pub(crate) fn mark(
        &self,
        hash: u64,
        why: Option<Passing>,
        reason: Option<NotStored>,
        delay_ms: u64,
    ) {
        let lifetime = u64::try_from(self.settings.hit_for_miss.as_millis()).unwrap_or(u64::MAX);
        let lifetime = lifetime.max(delay_ms.saturating_mul(2).min(MAX_MARK_MS));
        let until = self.settings.clock.mono().saturating_add(lifetime);
        self.marks.insert(hash, Mark { until, why, reason });
    }

    /// The mark on a key, while it lasts.
    pub(crate) fn marked(&self, hash: u64) -> Option<Passing> {
        let mark = self.marks.get(&hash)?;
        mark.why.filter(|_| mark.until > self.settings.clock.mono())
    }

    /// Why the last answer was not stored, where that is remembered.
    pub(crate) fn why_not_stored(&self, hash: u64) -> Option<NotStored> {
        self.marks.get(&hash)?.reason
    }

    /// Counts a response that was not stored.
    pub(crate) fn note(&self, reason: NotStored) {
        self.counters.note(reason);
    }
}
