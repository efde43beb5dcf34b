//! What of one site has been purged, and when: the index that every lookup asks (design: "Purge, correct
//! against every race"). Pure data behind the site's lock; knows no store and no clock.

use crate::key::Key;
use crate::key_parts;
use crate::object::StoredObject;
use crate::tags;
use ahash::AHashMap;
use verge_config::purge::{Mode, Selector, UrlParts};

/// The most selectors kept for one site; beyond it everything of the site counts as purged.
pub const MAX_SELECTORS: usize = 100_000;
/// The most selectors under one path or one folder; beyond it the path or folder counts as purged.
const MAX_PER_PATH: usize = 256;

/// What the index says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No purge selects it.
    Alive,
    /// Purged softly: stale since then (milliseconds on the monotonic clock).
    Soft {
        /// When the oldest soft purge came that it is stale by.
        since: u64,
    },
    /// Purged.
    Dead,
}

/// When something was last purged, in each mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mark {
    hard: u64,
    soft: u64,
    soft_since: u64,
}

/// Marks by host, then by path or folder, then by what is left of the URL.
type ByHost<Rest> = AHashMap<Box<str>, AHashMap<Box<str>, AHashMap<Rest, Mark>>>;

/// The purges of one site.
#[derive(Debug, Default)]
pub struct PurgeIndex {
    everything: Mark,
    hosts: AHashMap<Box<str>, Mark>,
    tags: AHashMap<Box<str>, Mark>,
    /// Host (empty: every host) → path → query.
    urls: ByHost<Query>,
    /// Host (empty: every host) → folder (up to its last slash) → what must follow.
    prefixes: ByHost<Box<str>>,
    entries: usize,
    /// Selectors up to here are forgotten: nothing older may be served, whatever they said.
    forgotten: u64,
    /// How many were left when it last forgot.
    left: usize,
}

/// The query of a URL selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Query {
    /// Any: what a path's selectors come to when there are too many.
    Any,
    /// None.
    Absent,
    /// This one.
    Exactly(Box<str>),
}

// === impl Mark ===

impl Mark {
    fn raise(&mut self, at: u64, mode: Mode, now: u64) {
        match mode {
            Mode::Hard => self.hard = self.hard.max(at),
            Mode::Soft => {
                self.soft = self.soft.max(at);
                self.soft_since = now;
            }
        }
    }

    /// What this mark means for an object of `epoch`.
    fn touch(&self, epoch: u64, verdict: &mut Verdict) {
        if self.hard > epoch {
            *verdict = Verdict::Dead;
        } else if self.soft > epoch {
            *verdict = match *verdict {
                Verdict::Alive => Verdict::Soft { since: self.soft_since },
                Verdict::Soft { since } => Verdict::Soft { since: since.min(self.soft_since) },
                Verdict::Dead => Verdict::Dead,
            };
        }
    }

    fn newest(&self) -> u64 {
        self.hard.max(self.soft)
    }
}

// === impl PurgeIndex ===

impl PurgeIndex {
    /// Notes a purge: what it selects is dead or stale if its epoch lies before `at`.
    pub fn insert(&mut self, selectors: &[Selector], mode: Mode, at: u64, now: u64) {
        for selector in selectors {
            self.insert_one(selector, mode, at, now);
        }
        if self.entries > MAX_SELECTORS {
            self.clear_before(at);
        }
    }

    /// Everything of an epoch before `at` is dead; the selectors are no longer needed.
    pub fn clear_before(&mut self, at: u64) {
        let forgotten = self.forgotten;
        *self = PurgeIndex { forgotten, ..PurgeIndex::default() };
        self.everything.hard = at;
    }

    /// How many selectors it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether it holds no selector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Selectors up to here are forgotten, and nothing older may be served.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Whether it holds twice what it held after it last forgot.
    #[must_use]
    pub fn has_grown(&self) -> bool {
        self.entries >= 64.max(2 * self.left)
    }

    /// Selectors that come to the same, each with its mode and when it was purged.
    #[must_use]
    pub fn dump(&self) -> Vec<(Selector, Mode, u64)> {
        let mut out = Vec::new();
        let mut add = |selector: Selector, mark: &Mark| {
            for (at, mode) in [(mark.hard, Mode::Hard), (mark.soft, Mode::Soft)] {
                if at > 0 {
                    out.push((selector.clone(), mode, at));
                }
            }
        };
        add(Selector::Everything(true), &self.everything);
        for (host, mark) in &self.hosts {
            add(Selector::Host(host.to_string()), mark);
        }
        for (tag, mark) in &self.tags {
            add(Selector::Tag(tag.to_string()), mark);
        }
        for (host, path, query, mark) in flat(&self.urls) {
            let url = place(host, path);
            match query {
                Query::Absent => add(Selector::Url(url), mark),
                Query::Exactly(query) => add(Selector::Url(format!("{url}?{query}")), mark),
                // More than the path alone, which errs in the right direction.
                Query::Any => add(Selector::Prefix(url), mark),
            }
        }
        for (host, folder, rest, mark) in flat(&self.prefixes) {
            add(Selector::Prefix(format!("{}{rest}", place(host, folder))), mark);
        }
        out
    }

    /// Drops the selectors that no object or fill is old enough for.
    pub fn forget_until(&mut self, oldest: u64) {
        self.forgotten = self.forgotten.max(oldest);
        let old = |mark: &Mark| mark.newest() <= oldest;
        self.hosts.retain(|_, mark| !old(mark));
        self.tags.retain(|_, mark| !old(mark));
        for paths in self.urls.values_mut() {
            paths.retain(|_, queries| {
                queries.retain(|_, mark| !old(mark));
                !queries.is_empty()
            });
        }
        self.urls.retain(|_, paths| !paths.is_empty());
        for folders in self.prefixes.values_mut() {
            folders.retain(|_, rests| {
                rests.retain(|_, mark| !old(mark));
                !rests.is_empty()
            });
        }
        self.prefixes.retain(|_, folders| !folders.is_empty());
        self.entries = self.hosts.len()
            + self.tags.len()
            + self.urls.values().flat_map(|p| p.values()).map(|marks| marks.len()).sum::<usize>()
            + self
                .prefixes
                .values()
                .flat_map(|p| p.values())
                .map(|marks| marks.len())
                .sum::<usize>();
        self.left = self.entries;
    }

    /// What the purges mean for an object; costs its tags and its path's segments.
    #[must_use]
    pub(crate) fn verdict(&self, object: &StoredObject) -> Verdict {
        self.judge(&object.key, &object.tags, object.epoch.applied)
    }

    /// Those of the objects that the purges select.
    #[must_use]
    pub(crate) fn selected(&self, mut objects: Vec<StoredObject>) -> Vec<StoredObject> {
        objects.retain(|object| self.verdict(object) != Verdict::Alive);
        objects
    }

    /// What the purges mean for something under `key`, with these tags, of this epoch.
    #[must_use]
    pub fn judge(&self, key: &Key, object_tags: &[Box<str>], epoch: u64) -> Verdict {
        if epoch < self.forgotten {
            return Verdict::Dead;
        }
        let mut verdict = Verdict::Alive;
        self.everything.touch(epoch, &mut verdict);
        if let Some(mark) = self.hosts.get(key.host()) {
            mark.touch(epoch, &mut verdict);
        }
        if !self.tags.is_empty() {
            for tag in object_tags {
                if let Some(mark) = self.tags.get(tag) {
                    mark.touch(epoch, &mut verdict);
                }
            }
        }
        for host in [key.host(), ""] {
            if let Some(queries) = self.urls.get(host).and_then(|paths| paths.get(key.path())) {
                touch_url(queries, key, epoch, &mut verdict);
            }
            if let Some(folders) = self.prefixes.get(host) {
                touch_prefixes(folders, key, epoch, &mut verdict);
            }
        }
        verdict
    }

    fn insert_one(&mut self, selector: &Selector, mode: Mode, at: u64, now: u64) {
        match selector {
            Selector::Everything(_) => self.everything.raise(at, mode, now),
            Selector::Host(host) => {
                let host = verge_config::purge::normalise_host(host);
                raise(&mut self.hosts, host.into(), &mut self.entries, at, mode, now);
            }
            Selector::Tag(tag) => {
                let tag = tags::normal(tag).into();
                raise(&mut self.tags, tag, &mut self.entries, at, mode, now);
            }
            Selector::Url(url) => {
                if let Some(parts) = UrlParts::parse(url) {
                    self.insert_url(parts, mode, at, now);
                }
            }
            Selector::Prefix(prefix) => {
                if let Some(parts) = UrlParts::parse_prefix(prefix) {
                    self.insert_prefix(parts, mode, at, now);
                }
            }
        }
    }

    fn insert_url(&mut self, parts: UrlParts, mode: Mode, at: u64, now: u64) {
        let host = parts.host.unwrap_or_default().into_boxed_str();
        let queries = self.urls.entry(host).or_default().entry(parts.path.into()).or_default();
        let query = match parts.query {
            _ if queries.len() >= MAX_PER_PATH => Query::Any,
            Some(query) => Query::Exactly(query.into()),
            None => Query::Absent,
        };
        raise(queries, query, &mut self.entries, at, mode, now);
    }

    fn insert_prefix(&mut self, parts: UrlParts, mode: Mode, at: u64, now: u64) {
        let host = parts.host.unwrap_or_default().into_boxed_str();
        let path_end = parts.path.find('?').unwrap_or(parts.path.len());
        let folder_end = parts.path.get(..path_end).and_then(|p| p.rfind('/')).map_or(0, |i| i + 1);
        let (folder, rest) = parts.path.split_at(folder_end);
        let rests = self.prefixes.entry(host).or_default().entry(folder.into()).or_default();
        let rest = if rests.len() >= MAX_PER_PATH { "" } else { rest };
        raise(rests, rest.into(), &mut self.entries, at, mode, now);
    }
}

/// All marks of a nested map, each with its place.
fn flat<Rest>(hosts: &ByHost<Rest>) -> impl Iterator<Item = (&str, &str, &Rest, &Mark)> {
    hosts.iter().flat_map(|(host, paths)| {
        paths.iter().flat_map(move |(path, rests)| {
            rests.iter().map(move |(rest, mark)| (&**host, &**path, rest, mark))
        })
    })
}

/// Host and path as a selector has them.
fn place(host: &str, path: &str) -> String {
    if host.is_empty() { path.to_owned() } else { format!("http://{host}{path}") }
}

fn raise<K: Eq + std::hash::Hash>(
    marks: &mut AHashMap<K, Mark>,
    key: K,
    entries: &mut usize,
    at: u64,
    mode: Mode,
    now: u64,
) {
    let before = marks.len();
    marks.entry(key).or_default().raise(at, mode, now);
    *entries += marks.len() - before;
}

/// A selector's query is taken under the object's own policy, so that it reaches every copy that the
/// policy keys apart or together.
fn touch_url(queries: &AHashMap<Query, Mark>, key: &Key, epoch: u64, verdict: &mut Verdict) {
    for (query, mark) in queries {
        let raw = match query {
            Query::Any => {
                mark.touch(epoch, verdict);
                continue;
            }
            Query::Absent => None,
            Query::Exactly(query) => Some(&**query),
        };
        if key_parts::query(key.rule().query(), raw).as_deref() == key.query() {
            mark.touch(epoch, verdict);
        }
    }
}

fn touch_prefixes(
    folders: &AHashMap<Box<str>, AHashMap<Box<str>, Mark>>,
    key: &Key,
    epoch: u64,
    verdict: &mut Verdict,
) {
    for (at, _) in key.path().match_indices('/') {
        let (folder, rest) = key.path().split_at(at + 1);
        let Some(rests) = folders.get(folder) else { continue };
        for (wanted, mark) in rests {
            if begins(key, rest, wanted) {
                mark.touch(epoch, verdict);
            }
        }
    }
}

/// Whether the URL goes on as wanted behind the folder. Where the policy has changed the query, a prefix
/// that reaches into the query matches by its path alone: too much rather than too little.
fn begins(key: &Key, rest: &str, wanted: &str) -> bool {
    let Some((path, query)) = wanted.split_once('?') else { return rest.starts_with(wanted) };
    if rest != path {
        return false;
    }
    let raw = matches!(key.rule().query(), verge_config::site::QueryKey::All);
    !raw || key.query().is_some_and(|own| own.starts_with(query))
}
