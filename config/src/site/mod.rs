//! A site as the edge serves it: valid by construction. Made from a [`SiteDocument`] by
//! [`Site::from_document`], which reports every fault at once.

mod alike;
mod chain;
mod compress_rule;
mod document;
mod failure;
mod grant;
mod key_rule;
mod origin_host;
mod pattern;
mod validate;

pub use chain::{Chain, MAX_CHAIN};
pub use compress_rule::{Coding, CompressRule, DEFAULT_COMPRESS_MIN, TypePattern};
pub use document::{
    BreakerDocument, CacheDocument, CompressDocument, CompressTable, HandlerDocument,
    LimitsDocument, MAX_DOCUMENT_BYTES, OriginDocument, RedirectDocument, RouteDocument,
    SiteDocument, StaticDocument, TimeoutsDocument, TtlDocument, UrlDocument,
};
pub use failure::{BreakerLimits, OnFailure};
pub use grant::Grant;
pub use key_rule::{KeyRule, MAX_KEY_NAMES, QueryKey};
pub use origin_host::{ORIGIN_HOSTS, named_origin};
pub use pattern::{Captures, PathPattern};
pub use validate::{
    Context, MAX_CACHE_CALLS, MAX_CPU, MAX_DEBUG_TOKENS, MAX_DOMAINS, MAX_FETCHES,
    MAX_HANDLER_CONCURRENCY, MAX_HANDLERS, MAX_KV_CALLS, MAX_MEMORY, MAX_ORIGINS, MAX_REQUESTS,
    MAX_ROUTES, MAX_WALL, is_digest,
};

use alike::Alike;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A valid site.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Its name: `[a-z0-9-]`, 1 to 63 characters.
    pub name: Arc<str>,
    /// The hosts that it answers.
    pub domains: Vec<Domain>,
    /// Its origins by name.
    pub origins: BTreeMap<String, Arc<Origin>>,
    /// Its handlers by name.
    pub handlers: BTreeMap<String, Arc<Handler>>,
    /// Its routes, in the order of the file; the first match wins.
    pub routes: Vec<Arc<Route>>,
    /// The most of its handlers' requests at once on an edge; the edge's own limit when absent.
    pub handler_concurrency: Option<u32>,
    /// Whether request directives (`Cache-Control: no-cache` and so on) are honoured.
    pub client_cache_control: ClientCacheControl,
    /// SHA-256 of the tokens whose holders get explanations in responses.
    pub debug_tokens: Vec<[u8; 32]>,
}

/// A host that a site answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Domain {
    /// Exactly this normalised name.
    Exact(String),
    /// Any name below this one (`*.shop.example` holds `shop.example`).
    Wildcard(String),
    /// Any host; in standalone mode only.
    Any,
}

/// What to do with a visitor's `Cache-Control`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ClientCacheControl {
    /// As RFC 9111 section 5.2.1 says.
    #[default]
    Honour,
    /// As if the visitor had sent none.
    Ignore,
}

/// Where a site's content comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// Its name in the site.
    pub name: Arc<str>,
    /// Where it listens; at least one.
    pub urls: Vec<OriginUrl>,
    /// The `Host` sent to it; the visitor's when absent.
    pub host: Option<String>,
    /// How long it may take.
    pub timeouts: Timeouts,
}

/// One address of an origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginUrl {
    /// Whether to speak TLS to it.
    pub tls: bool,
    /// A name or an address (IPv6 without brackets).
    pub host: String,
    /// The port; 80 or 443 when the URL has none.
    pub port: u16,
    /// Its share of the requests, 1 to 1000, against the sum of all.
    pub weight: u16,
}

impl OriginUrl {
    /// The socket address, when the host is an address and needs no resolving.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse().ok()?, self.port))
    }
}

/// How long each phase of an origin request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// Resolve, TCP and TLS together. Default 2 s.
    pub connect: Duration,
    /// From the request sent to the response's header section. Default 15 s.
    pub first_byte: Duration,
    /// Between two reads of the response's content. Default 30 s.
    pub between_bytes: Duration,
}

/// A WebAssembly component that answers requests, with what it may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Handler {
    /// Its name in the site.
    pub name: Arc<str>,
    /// Where the component is.
    pub component: ComponentRef,
    /// What a request may use.
    pub limits: HandlerLimits,
    /// Its environment variables.
    pub env: BTreeMap<String, String>,
    /// Its configuration, as it reads it through `wasi:config`.
    pub config: BTreeMap<String, String>,
    /// Hosts outside the site that it may call: exact names or `*.example.com`, with an optional port.
    pub fetch: Vec<String>,
    /// What else it may use.
    pub grants: BTreeSet<Grant>,
    /// What visitors get while it keeps failing.
    pub on_failure: OnFailure,
    /// When it counts as one that keeps failing.
    pub breaker: BreakerLimits,
}

/// Where a component is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ComponentRef {
    /// A file, relative to the site file; in standalone mode and before a deployment.
    Path(String),
    /// The SHA-256 of the component, in lower-case hexadecimal.
    Digest(String),
}

/// What one request to a handler may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandlerLimits {
    /// Time on a CPU. Default 50 ms.
    pub cpu: Duration,
    /// Linear memory, in bytes. Default 128 MiB.
    pub memory: u64,
    /// From the first byte in to the last byte out. Default 30 s.
    pub wall: Duration,
    /// Outgoing requests. Default 32.
    pub fetches: u32,
    /// Calls of the cache. Default 64.
    pub cache_calls: u32,
    /// Calls of the key-value store. Default 64.
    pub kv_calls: u32,
    /// Requests that an instance may serve, one after the other, where the component's contract lets it
    /// (`wasi:http/handler@0.3`). Default 128; with 1, each request has an instance of its own.
    pub requests: u32,
}

impl Default for HandlerLimits {
    fn default() -> Self {
        HandlerLimits {
            cpu: Duration::from_millis(50),
            memory: 128 * 1024 * 1024,
            wall: Duration::from_secs(30),
            fetches: 32,
            cache_calls: 64,
            kv_calls: 64,
            requests: 128,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(15),
            between_bytes: Duration::from_secs(30),
        }
    }
}

/// What happens to the requests that match a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its place in the file, from 0: how it is named in explanations (`routes[2]`).
    pub index: usize,
    /// The paths that it is for.
    pub path: PathPattern,
    /// Who answers.
    pub target: Target,
    /// How answers are cached.
    pub cache: Arc<CachePolicy>,
}

/// Who answers a route's requests.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// An origin.
    Origin(Arc<Origin>),
    /// One handler or several; the last one's own fetches of the site go to the origin, when there is
    /// one, and each other one's to the next handler.
    Handler {
        /// The handlers.
        chain: Chain,
        /// Where the last one's fetch of its own site goes.
        origin: Option<Arc<Origin>>,
    },
    /// A redirect.
    Redirect {
        /// The location; `$1` … `$9` are the pattern's captures, `$0` the path.
        to: String,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// A response written in the site file.
    Static(Arc<StaticResponse>),
}

/// A response written in the site file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticResponse {
    /// 200 to 599.
    pub status: u16,
    /// Its fields, in order.
    pub headers: Vec<(String, String)>,
    /// Its content.
    pub body: String,
}

/// How a route's answers are cached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CachePolicy {
    /// Who says how long.
    pub mode: CacheMode,
    /// The `max-age` that visitors are told instead of the origin's.
    pub browser_ttl: Option<Duration>,
    /// How long a stale response may be served while it is revalidated, whatever the origin says.
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale response may be served when the origin fails, whatever the origin says.
    pub stale_if_error: Option<Duration>,
    /// What of a request takes part in the key; shared with every key that is kept under it.
    pub key: Arc<KeyRule>,
    /// Which answers are compressed; none when absent.
    pub compress: Option<Arc<CompressRule>>,
    /// Tags that every stored answer gets besides the origin's.
    pub tags: Vec<String>,
    /// For a handler's route: where the cache stands.
    pub position: CachePosition,
    /// What a visitor's own `Cache-Control` counts for; the site's, on each of its routes.
    pub client_cache_control: ClientCacheControl,
}

/// Who says how long an answer is fresh.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CacheMode {
    /// The response (RFC 9111).
    Respect,
    /// The site, by status.
    Override(TtlRules),
    /// Nobody: nothing is stored and nothing is served from the store.
    Bypass,
}

/// Freshness lifetimes by status; the first rule that holds the status counts, and a status that no
/// rule holds goes as the response says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TtlRules(pub Vec<TtlRule>);

/// A freshness lifetime for the statuses from `low` to `high`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TtlRule {
    /// First status.
    pub low: u16,
    /// Last status.
    pub high: u16,
    /// Freshness lifetime; zero means: do not store.
    pub ttl: Duration,
}

impl TtlRules {
    /// The lifetime of a status, when a rule holds it.
    #[must_use]
    pub fn of(&self, status: u16) -> Option<Duration> {
        self.0.iter().find(|r| r.low <= status && status <= r.high).map(|r| r.ttl)
    }
}

/// Where the cache stands about a handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum CachePosition {
    /// Before it: its answers are cached, and it runs on misses only.
    Before,
    /// Behind it: it runs on every request; what it fetches of its site is cached.
    #[default]
    Behind,
    /// Both.
    Both,
    /// Neither.
    Off,
}

impl CachePolicy {
    /// The policy, shared by all routes of all sites that have an equal one.
    #[must_use]
    pub fn shared(self) -> Arc<CachePolicy> {
        static POLICIES: Alike<CachePolicy> = Alike::new();
        POLICIES.share(self)
    }
}

impl Default for CachePolicy {
    fn default() -> Self {
        CachePolicy {
            mode: CacheMode::Respect,
            browser_ttl: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            key: KeyRule::default().shared(),
            compress: Some(compress_rule::shared_default()),
            tags: Vec::new(),
            position: CachePosition::Behind,
            client_cache_control: ClientCacheControl::Honour,
        }
    }
}
