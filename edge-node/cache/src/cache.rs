//! The cache's doors for everything but fetching: settings, the fast path of hits, purges,
//! invalidation, figures. What needs the source goes through `serve`.

use crate::api::{Body, HitContent, Outcome, Request, Response};
use crate::cache_status::CacheStatus;
use crate::clock::Clock;
use crate::content::Content;
use crate::disk::{Disk, DiskError, DiskSettings, PurgeLog};
use crate::flights::Flights;
use crate::freshness::NotStored;
use crate::key::KeyRef;
use crate::object::StoredObject;
use crate::purge_index::Verdict;
use crate::site::SiteState;
use crate::stats::{Counters, Stats};
use crate::store::Store;
use crate::tier::Held;
use ahash::{AHashMap, RandomState};
use bytes::Bytes;
use http::{Method, header};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use verge_config::Revision;
use verge_config::site::CacheMode;

/// The most hit-for-miss marks kept.
const MAX_MARKS: u64 = 65_536;

/// The longest that a slow source prolongs a mark to.
const MAX_MARK_MS: u64 = 120_000;
/// The longest content that is stored in memory alone, unless a setting says otherwise, in bytes: content
/// of unknown length is held as far as it may turn out to be storable.
const MAX_IN_MEMORY: u64 = 32 * 1024 * 1024;

/// How large the cache may grow and what it tells the time by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of memory for stored responses. Default 512 MiB.
    pub ram_bytes: u64,
    /// The disk tier, where there is one.
    pub disk: Option<DiskSettings>,
    /// The longest content that is stored, in bytes; longer content streams through. By default an
    /// eighth of the memory but at most 32 MiB, and where there is a disk tier a quarter of that.
    pub max_object_bytes: Option<u64>,
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
    pub object: StoredObject,
    /// Its content.
    pub content: HitContent,
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
    /// The longest content that is stored.
    pub(crate) max_object: u64,
    /// What was purged of what lies on the disk.
    log: Option<Mutex<PurgeLog>>,
    pub(crate) flights: Flights,
    pub(crate) counters: Counters,
    /// Bytes of all fills that are to be stored.
    pub(crate) filling: AtomicU64,
    sites: RwLock<AHashMap<Arc<str>, Arc<SiteState>>>,
    marks: moka::sync::Cache<u64, Mark, RandomState>,
    mark_count: AtomicU64,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ram_bytes: 512 * 1024 * 1024,
            disk: None,
            max_object_bytes: None,
            fill_bytes: 256 * 1024 * 1024,
            max_variants: 64,
            hit_for_miss: Duration::from_secs(2),
            clock: Clock::System,
        }
    }
}

// === impl Hit ===

impl Hit {
    /// The content's length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.content {
            HitContent::File(part) => part.len,
            _ => self.in_memory().len() as u64,
        }
    }

    /// Whether there is no content to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The content, where it is in memory.
    #[must_use]
    pub fn in_memory(&self) -> &[u8] {
        match &self.content {
            HitContent::Empty | HitContent::File(_) => &[],
            HitContent::Inline => self.object.inline_content(),
            HitContent::Whole(bytes) => bytes,
        }
    }

    /// The same, to be kept beyond the hit; `None` where it is not in memory.
    #[must_use]
    pub fn bytes(&self) -> Option<Bytes> {
        match &self.content {
            HitContent::Empty => Some(Bytes::new()),
            HitContent::Inline => self.object.body(),
            HitContent::Whole(bytes) => Some(bytes.clone()),
            HitContent::File(_) => None,
        }
    }

    /// The whole response, for a GET or a HEAD.
    #[must_use]
    pub fn into_response(self, method: &Method) -> Response {
        let mut headers = self.object.headers();
        headers.insert(header::AGE, http::HeaderValue::from(self.age));
        headers.append(crate::cache_status::CACHE_STATUS, CacheStatus::hit(self.ttl).value());
        let body = match self.content {
            _ if *method == Method::HEAD => Body::Empty,
            HitContent::Empty => Body::Empty,
            HitContent::Inline => self.object.body().map_or(Body::Empty, Body::Whole),
            HitContent::Whole(bytes) => Body::Whole(bytes),
            HitContent::File(file) => Body::File(file),
        };
        Response { status: self.object.status(), headers, body, outcome: Outcome::Hit }
    }
}

// === impl Cache ===

impl Cache {
    /// An empty cache in memory.
    #[must_use]
    pub fn new(settings: Settings) -> Cache {
        Cache::with(settings, None, None)
    }

    /// A cache with the disk tier that the settings name: what an earlier process left there is found
    /// beside the work, while the cache is in use.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(settings: Settings) -> Result<Cache, DiskError> {
        let Some(wanted) = &settings.disk else { return Ok(Cache::new(settings)) };
        let (disk, log, lines) = Disk::open(wanted, settings.ram_bytes)?;
        let mono = settings.clock.now().mono;
        let cache = Cache::with(settings, Some(disk), Some(Mutex::new(log)));
        for line in &lines {
            cache.inner.site_named(line.site()).restore(line, mono);
        }
        cache.inner.warm();
        Ok(cache)
    }

    fn with(settings: Settings, disk: Option<Arc<Disk>>, log: Option<Mutex<PurgeLog>>) -> Cache {
        // The first look at the clock is its anchor.
        let _ = settings.clock.now();
        let hasher = RandomState::new();
        let disk_bytes = settings.disk.as_ref().map_or(0, |disk| disk.bytes);
        let tier = disk.map(|disk| (disk, disk_bytes));
        let share = match &tier {
            Some(_) => disk_bytes / 4,
            None => MAX_IN_MEMORY.min(settings.ram_bytes / 8),
        };
        let max_object = settings.max_object_bytes.unwrap_or(share);
        let store = Store::new(settings.ram_bytes, tier, settings.max_variants, max_object);
        let marks =
            moka::sync::Cache::builder().max_capacity(MAX_MARKS).build_with_hasher(hasher.clone());
        Cache {
            inner: Arc::new(Inner {
                settings,
                hasher,
                store,
                max_object,
                log,
                flights: Flights::new(),
                counters: Counters::default(),
                filling: AtomicU64::new(0),
                sites: RwLock::default(),
                marks,
                mark_count: AtomicU64::new(0),
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
        let hash = key.hash(&self.inner.hasher);
        let object = self.inner.store.select(hash, &key, request.headers)?;
        let mono = self.inner.settings.clock.mono();
        if !object.freshness.is_fresh(mono) || object.verdict() != Verdict::Alive {
            return None;
        }
        let content = match &object.content {
            _ if *request.method == Method::HEAD || object.is_empty() => HitContent::Empty,
            Content::Inline => HitContent::Inline,
            _ => match self.inner.store.ready(&object)? {
                Held::Bytes(bytes) => HitContent::Whole(bytes),
                Held::File(file) => HitContent::File(file),
                Held::Blocks { .. } => return None,
            },
        };
        self.inner.counters.hits.fetch_add(1, Ordering::Relaxed);
        let freshness = &object.freshness;
        let (age, ttl) = (freshness.age(mono), freshness.ttl(mono));
        Some(Hit { object, content, age, ttl })
    }

    /// Figures of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (entries, bytes, evicted) = self.inner.store.figures();
        self.inner
            .counters
            .stats(
                entries,
                bytes,
                evicted,
                self.inner.flights.len() as u64,
                self.inner.filling.load(Ordering::Relaxed),
                self.inner.sites.read().values().map(|site| site.selectors() as u64).sum(),
            )
            .with_disk(self.inner.store.disk().map(|disk| &**disk))
    }

    /// Whether everything is found that an earlier process left on the disk.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.inner.store.disk().is_none_or(|disk| !disk.is_scanning())
    }

    /// The process ends in peace: what lies on the disk outlives the machine's own end as well. Blocks.
    pub fn close(&self) {
        if let Some(disk) = self.inner.store.disk() {
            disk.close();
        }
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

// === impl Inner ===

impl Drop for Inner {
    fn drop(&mut self) {
        // Objects know their site, and their site knows them.
        for (_, site) in self.all_sites() {
            site.catalogue.clear();
        }
    }
}

impl Inner {
    /// The state of a site, made when it is first asked for.
    pub(crate) fn site(&self, name: &Arc<str>) -> Arc<SiteState> {
        let known = self.sites.read().get(name).cloned();
        known.unwrap_or_else(|| self.add_site(Arc::clone(name)))
    }

    /// Every site that was asked for or purged so far.
    pub(crate) fn all_sites(&self) -> Vec<(Arc<str>, Arc<SiteState>)> {
        let sites = self.sites.read();
        sites.iter().map(|(name, site)| (Arc::clone(name), Arc::clone(site))).collect()
    }

    /// The log of what was purged of the disk's objects.
    pub(crate) fn log(&self) -> Option<&Mutex<PurgeLog>> {
        self.log.as_ref()
    }

    pub(crate) fn site_named(&self, name: &str) -> Arc<SiteState> {
        let known = self.sites.read().get(name).cloned();
        known.unwrap_or_else(|| self.add_site(name.into()))
    }

    fn add_site(&self, name: Arc<str>) -> Arc<SiteState> {
        let mut sites = self.sites.write();
        Arc::clone(sites.entry(name).or_insert_with(|| SiteState::new(Revision::ZERO)))
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
        self.mark_count.fetch_add(1, Ordering::Release);
    }

    /// The mark on a key, while it lasts.
    pub(crate) fn marked(&self, hash: u64) -> Option<Passing> {
        let mark = self.marks.get(&hash)?;
        mark.why.filter(|_| mark.until > self.settings.clock.mono())
    }

    /// Whether the last answer was for one visitor only, so that requests do not wait for each other.
    pub(crate) fn is_unshared(&self, hash: u64) -> bool {
        self.marked(hash) == Some(Passing::Unshared)
    }

    /// How many marks were left so far.
    pub(crate) fn mark_count(&self) -> u64 {
        self.mark_count.load(Ordering::Acquire)
    }

    /// Whether one was left since there were `before`, and is on this key.
    pub(crate) fn marked_since(&self, hash: u64, before: u64) -> bool {
        self.mark_count() != before && self.is_unshared(hash)
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
