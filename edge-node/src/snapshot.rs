//! What the edge serves at one revision: every site with what it needs at run time, found by host.
//! Immutable once made; may not do I/O, and is swapped whole so that a change never splits a request.

use crate::handlers::{Gate, Runner};
use crate::origin::{OriginPool, OriginSettings, Outside};
use crate::routing::Router;
use ahash::RandomState;
use compact_str::CompactString;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};
use verge_cache::SiteName;
use verge_config::Revision;
use verge_config::secrets::Secrets;
use verge_config::site::{Domain, Site, named_origin};

/// Where the snapshot in force is found, lock-free; an exchange loads it once and keeps it.
pub type SnapshotCell = arc_swap::ArcSwap<Snapshot>;

/// Most names of hosts are short, and lie in the table itself.
type ByName = HashMap<CompactString, Arc<SiteRuntime>, RandomState>;

/// All sites at one revision.
#[derive(Default)]
pub struct Snapshot {
    /// Everything up to here is in it.
    pub revision: Revision,
    /// Every site by its name.
    pub sites: BTreeMap<Arc<str>, Arc<SiteRuntime>>,
    exact: ByName,
    below: ByName,
    any: Option<Arc<SiteRuntime>>,
    /// Versions that are not active, by their sites' names.
    previews: HashMap<Arc<str>, Vec<Previewed>, RandomState>,
}

/// A site with what it needs at run time. What a hit reads of it comes first, within one cache line.
#[repr(C, align(64))]
pub struct SiteRuntime {
    /// The cache's namespace: its name, or that of a preview.
    pub name: SiteName,
    /// Its routes, compiled.
    pub routes: Router,
    /// The site as it was validated.
    pub site: Arc<Site>,
    /// The version active; 0 in standalone mode.
    pub version: u64,
    /// The revision that it came with.
    pub revision: Revision,
    /// SHA-256 of the document, in hexadecimal.
    pub digest: Arc<str>,
    /// A pool for each origin, by name.
    pub origins: HashMap<String, Arc<OriginPool>, RandomState>,
    /// Each handler, ready to be called, by name.
    pub handlers: HashMap<String, Arc<Runner>, RandomState>,
    /// What its handlers may be told of secrets.
    pub secrets: Arc<Secrets>,
    /// How many requests of its handlers run at once.
    pub gate: Arc<Gate>,
    outside: OnceLock<Arc<Outside>>,
}

/// What a site's runtime is made of.
pub struct Parts {
    /// The site as it was validated.
    pub site: Arc<Site>,
    /// The version active.
    pub version: u64,
    /// The revision that it came with.
    pub revision: Revision,
    /// SHA-256 of the document, in hexadecimal.
    pub digest: Arc<str>,
    /// A pool for each origin, by name.
    pub origins: HashMap<String, Arc<OriginPool>, RandomState>,
    /// Each handler, by name.
    pub handlers: HashMap<String, Arc<Runner>, RandomState>,
    /// Its secrets.
    pub secrets: Arc<Secrets>,
    /// How many requests of its handlers run at once.
    pub gate: Arc<Gate>,
}

/// A version that is not active, reached by a token.
#[derive(Debug, Clone)]
pub struct Previewed {
    /// SHA-256 of the token.
    pub token: [u8; 32],
    /// When it ends: milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// The version, under a namespace of its own.
    pub runtime: Arc<SiteRuntime>,
}

// === impl Previewed ===

impl Previewed {
    /// How long it still lasts, in seconds; none once it has ended.
    #[must_use]
    pub fn seconds_left(&self) -> Option<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.expires_ms.checked_sub(now).filter(|left| *left > 0).map(|ms| ms.div_ceil(1_000))
    }
}

// === impl SiteRuntime ===

impl SiteRuntime {
    /// A runtime from its parts.
    #[must_use]
    pub fn new(parts: Parts) -> SiteRuntime {
        SiteRuntime {
            name: Arc::clone(&parts.site.name).into(),
            routes: Router::new(parts.site.routes.clone()),
            site: parts.site,
            version: parts.version,
            revision: parts.revision,
            digest: parts.digest,
            origins: parts.origins,
            handlers: parts.handlers,
            secrets: parts.secrets,
            gate: parts.gate,
            outside: OnceLock::new(),
        }
    }

    /// Goes on with the connections to outside hosts that an earlier runtime of the site has.
    #[must_use]
    pub fn after(self, previous: Option<&SiteRuntime>) -> SiteRuntime {
        match previous.and_then(|previous| previous.outside.get()) {
            Some(outside) => SiteRuntime { outside: Arc::clone(outside).into(), ..self },
            None => self,
        }
    }

    /// The same site with other secrets: with the same connections, handlers and breakers. Requests that are
    /// under way go on with those that they began with.
    #[must_use]
    pub fn with_secrets(&self, secrets: Arc<Secrets>) -> SiteRuntime {
        SiteRuntime {
            name: self.name.clone(),
            routes: Router::new(self.site.routes.clone()),
            site: Arc::clone(&self.site),
            version: self.version,
            revision: self.revision,
            digest: Arc::clone(&self.digest),
            origins: self.origins.clone(),
            handlers: self.handlers.clone(),
            secrets,
            gate: Arc::clone(&self.gate),
            outside: self.outside.clone(),
        }
    }

    /// The way of its handlers to hosts outside the site; no other site's requests go by it. Made when
    /// the first one asks: most sites have no handlers.
    pub fn outside(&self, settings: &Arc<OriginSettings>) -> &Arc<Outside> {
        self.outside.get_or_init(|| Arc::new(Outside::new(Arc::clone(settings))))
    }

    /// The pool of an origin of this site.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<&Arc<OriginPool>> {
        self.origins.get(name)
    }

    /// A handler of this site.
    #[must_use]
    pub fn handler(&self, name: &str) -> Option<&Arc<Runner>> {
        self.handlers.get(name)
    }
}

impl fmt::Debug for SiteRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteRuntime")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// A snapshot of these sites. Where two claim one domain, the one with the higher revision has
    /// it: the control plane gave it away after it was the other's.
    #[must_use]
    pub fn new(
        revision: Revision,
        runtimes: impl IntoIterator<Item = Arc<SiteRuntime>>,
    ) -> Snapshot {
        let mut runtimes: Vec<_> = runtimes.into_iter().collect();
        runtimes.sort_by(|a, b| (a.revision, &**a.name).cmp(&(b.revision, &**b.name)));
        let mut snapshot = Snapshot { revision, ..Snapshot::default() };
        for runtime in runtimes {
            for domain in &runtime.site.domains {
                let runtime = Arc::clone(&runtime);
                match domain {
                    Domain::Exact(name) => {
                        snapshot.exact.insert(name.as_str().into(), runtime);
                    }
                    Domain::Wildcard(name) => {
                        snapshot.below.insert(name.as_str().into(), runtime);
                    }
                    Domain::Any => snapshot.any = Some(runtime),
                }
            }
            snapshot.sites.insert(Arc::clone(&runtime.name), runtime);
        }
        snapshot
    }

    /// The site that answers a normalised host, with or without a port: an exact domain before a
    /// wildcard, a longer wildcard before a shorter one, any host last. Allocates nothing.
    #[must_use]
    pub fn site_for(&self, normalised_host: &str) -> Option<&Arc<SiteRuntime>> {
        let name = without_port(normalised_host);
        if let Some(found) = self.exact.get(name) {
            return Some(found);
        }
        if !self.below.is_empty() {
            let mut rest = name;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(found) = self.below.get(parent) {
                    return Some(found);
                }
                rest = parent;
            }
        }
        // Whoever could ask for such a host would choose which origin a handler calls. Domains are none.
        self.any.as_ref().filter(|_| named_origin(name).is_none())
    }

    /// The snapshot with these previews.
    #[must_use]
    pub fn with_previews(
        mut self,
        previews: impl IntoIterator<Item = (Arc<str>, Vec<Previewed>)>,
    ) -> Snapshot {
        self.previews.extend(previews.into_iter().filter(|(_, all)| !all.is_empty()));
        self
    }

    /// The previews of a site; nothing is looked up while there are none at all.
    #[inline]
    #[must_use]
    pub fn previews(&self, site: &SiteRuntime) -> &[Previewed] {
        if self.previews.is_empty() {
            return &[];
        }
        self.previews.get(&site.site.name).map_or(&[], Vec::as_slice)
    }

    /// A site by its name.
    #[must_use]
    pub fn site(&self, name: &str) -> Option<&Arc<SiteRuntime>> {
        self.sites.get(name)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("sites", &self.sites.keys())
            .finish_non_exhaustive()
    }
}

/// The name of a host without its port; an IPv6 literal keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests;
