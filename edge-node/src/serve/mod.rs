//! From an admitted request to its response: picks the way of a match, and puts the cache before and
//! behind a handler. Knows no sockets and no protocol.

mod debug;
mod explain;
mod fast;
mod fixed;
mod guest;
mod hops;
mod origin_source;
mod preview;
mod record;
mod upgrade;

pub use debug::VERGE_DEBUG;
pub use explain::{ExplainError, Explained, Wondered};
pub use fast::FastHit;
pub use record::Record;
pub use upgrade::{Passage, Switched};

use crate::admit;
use crate::body::Body;
use crate::body::file::FilePart;
use crate::countries::Countries;
use crate::kv::Kv;
use crate::listen::Connection;
use crate::origin::{EndsUnannounced, Hop, Interim, OriginPool, OriginSettings};
use crate::respond::{self, EdgeError};
use crate::routing;
use crate::snapshot::{SiteRuntime, Snapshot, SnapshotCell};
use crate::tail::Tails;
use bytes::Bytes;
use debug::Debugging;
use guest::Admission;
use http::header::CONTENT_LOCATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use origin_source::OriginSource;
use std::sync::Arc;
use verge_cache::{Cache, Source};
use verge_config::site::{CacheMode, CachePolicy, CachePosition, Route, Target};

/// What edges alone are told of how long a response is fresh.
const VERGE_CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("verge-cdn-cache-control");

/// Fields of a response that are for edges alone.
const FOR_EDGES: [HeaderName; 3] = [
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("surrogate-key"),
    VERGE_CDN_CACHE_CONTROL,
];

/// What requests are served with.
pub struct Edge {
    /// This edge's id, as `CDN-Loop` and `Via` carry it.
    pub id: Arc<str>,
    /// The sites in force.
    pub snapshot: Arc<SnapshotCell>,
    /// The cache.
    pub cache: Cache,
    /// The operator's rules for requests to elsewhere.
    pub origins: Arc<OriginSettings>,
    /// Who watches the requests.
    pub tails: Arc<Tails>,
    /// The key-value stores of the sites.
    pub kv: Arc<Kv>,
    /// In which country visitors are; nobody knows without a database.
    pub countries: Option<Arc<Countries>>,
}

/// One request, as a front read it.
pub struct Exchange {
    /// The connection's facts.
    pub connection: Arc<Connection>,
    /// The method.
    pub method: Method,
    /// Path and query, raw.
    pub target: PathAndQuery,
    /// Host and port as the visitor wrote them.
    pub authority: HeaderValue,
    /// All fields as they came.
    pub headers: HeaderMap,
    /// The protocol.
    pub version: Version,
    /// Whether content follows.
    pub has_content: bool,
    /// The content.
    pub content: Body,
    /// Where an origin's interim responses go, when the visitor can be sent any.
    pub interim: Option<Interim>,
}

/// One response, for a front to write.
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// All fields but the ones of the connection.
    pub headers: HeaderMap,
    /// The content; HEAD is the front's affair.
    pub content: Content,
    /// What is told of the request once it is done.
    pub record: Record,
}

/// A response's content.
pub enum Content {
    /// None.
    Empty,
    /// All of it.
    Whole(Bytes),
    /// All of it, in a file.
    File(FilePart),
    /// As it arrives.
    Stream(Body),
}

/// A request that was admitted, on its way through the rooms; its content goes beside it.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The normalised host.
    pub host: String,
    /// The method.
    pub method: Method,
    /// Path and query, raw.
    pub target: PathAndQuery,
    /// The fields that go on from here.
    pub headers: HeaderMap,
    /// Whether content follows.
    pub has_content: bool,
    /// What origins are told of the visitor.
    pub hop: Hop,
    /// The facts of the visitor's connection.
    pub connection: Arc<Connection>,
    /// Where an origin's interim responses go.
    pub interim: Option<Interim>,
}

/// A response before its record.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
    outcome: Option<verge_cache::Outcome>,
}

impl Content {
    /// Its length in bytes, where all of it is there and there is any.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Content::Whole(bytes) => Some(bytes.len() as u64),
            Content::File(part) => Some(part.len),
            Content::Empty | Content::Stream(_) => None,
        }
    }
}

impl Edge {
    /// Serves one request. Never fails: an error is a response of ours.
    pub async fn serve(self: Arc<Self>, exchange: Exchange) -> Reply {
        let mut record = Record::start(&self.tails, &exchange);
        let snapshot = self.snapshot.load_full();
        let mut debugging = None;
        match self.answer(&snapshot, exchange, &mut record, &mut debugging).await {
            Ok(mut answer) => {
                if let Some(debugging) = &debugging {
                    debugging.tell(&self, answer.outcome, &mut answer.headers);
                }
                record.answered(answer.status, answer.outcome);
                let Answer { status, headers, content, .. } = answer;
                Reply { status, headers, content, record }
            }
            Err(error) => {
                tracing::debug!(%error, "request failed");
                record.failed(&error);
                let mut reply = respond::error(&error, record);
                if let Some(debugging) = &debugging {
                    debugging.tell_failure(&self, &error, &mut reply.headers);
                }
                reply
            }
        }
    }

    async fn answer(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        mut exchange: Exchange,
        record: &mut Record,
        debugging: &mut Option<Box<Debugging>>,
    ) -> Result<Answer, EdgeError> {
        let token = debug::take_token(&mut exchange.headers);
        let (mut request, content) = admit::admit(&self.id, exchange)?;
        if let Some(answer) = preview::welcome(snapshot, &request) {
            return Ok(answer);
        }
        let preview = preview::enter(snapshot, &mut request);
        let path = request.target.path();
        let found = match &preview {
            Some(version) => routing::within(version, path),
            None => routing::find(snapshot, &request.host, path),
        };
        let found = found.map_err(|why| admit::no_route(why, snapshot, &request.host))?;
        record.matched(found.site, found.route);
        let (site, route) = (Arc::clone(found.site), Arc::clone(found.route));
        *debugging = Debugging::begin(self, token.as_ref(), &site, &route, &request);
        let debugging = debugging.as_deref();
        let answer = self.routed(&site, &route, request, content, record, debugging).await?;
        Ok(if preview.is_some() { preview::marked(answer, site.version) } else { answer })
    }

    /// The way of a request whose route is known.
    async fn routed(
        self: &Arc<Self>,
        site: &Arc<SiteRuntime>,
        route: &Arc<Route>,
        request: Admitted,
        content: Body,
        record: &mut Record,
        debugging: Option<&Debugging>,
    ) -> Result<Answer, EdgeError> {
        match &route.target {
            Target::Static(response) => Ok(fixed::response(response)),
            Target::Redirect { to, status } => {
                let (path, query) = (request.target.path(), request.target.query());
                Ok(fixed::redirect(to, *status, &route.path, path, query))
            }
            Target::Origin(origin) => {
                let pool = pool(site, &origin.name)?;
                self.through_cache(site, &route.cache, pool, request, content, debugging).await
            }
            Target::Handler { chain, origin } => {
                guest::check_depth(&request.hop)?;
                let guest = guest::Guest::new(self, site, route, chain, origin.as_deref())?;
                let guest = guest.watched_by(record.run());
                self.handled(site, route, guest, request, content, debugging).await
            }
        }
    }

    /// To an origin, through the cache where the request allows it.
    async fn through_cache(
        &self,
        site: &Arc<SiteRuntime>,
        policy: &Arc<CachePolicy>,
        pool: Arc<OriginPool>,
        mut request: Admitted,
        content: Body,
        debugging: Option<&Debugging>,
    ) -> Result<Answer, EdgeError> {
        if let Some(answer) = hops::count(&mut request) {
            return Ok(answer);
        }
        if cacheable(&request, policy) {
            let source = OriginSource::new(pool, &request);
            let source = watched(Arc::new(source), debugging);
            return self.cached(site, policy, source, &request).await;
        }
        let posted = request.method == Method::POST && !matches!(policy.mode, CacheMode::Bypass);
        // Noted before the origin is asked, as every fill does.
        let begun = posted.then(|| self.cache.begin(&site.name));
        let response = origin_source::send(&pool, &request, content).await?;
        let key = request.key(site, policy);
        match begun.filter(|_| response.headers().contains_key(CONTENT_LOCATION)) {
            Some(begun) => self.posted(&key, begun, response).await,
            None => Ok(self.passed(&key, response, bypass_reason(&request))),
        }
    }

    /// The answer to a POST that may be what a GET would give (RFC 9110 section 9.3.3).
    async fn posted(
        &self,
        key: &verge_cache::Request<'_>,
        begun: verge_cache::Begun,
        response: http::Response<Body>,
    ) -> Result<Answer, EdgeError> {
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            self.cache.invalidate(key, &parts.headers);
        }
        let answer = verge_cache::SourceResponse {
            status: parts.status,
            headers: parts.headers.clone(),
            body,
            delimited: parts.extensions.get::<EndsUnannounced>().is_none(),
        };
        match self.cache.adopt(*key, begun, answer).await {
            Ok(response) => Ok(Answer::cached(response?)),
            Err(answer) => {
                let response = http::Response::from_parts(parts, answer.body);
                Ok(self.passed(key, response, "method"))
            }
        }
    }

    /// The answer of a route's handlers, with the cache before the first where the route says so.
    async fn handled(
        &self,
        site: &Arc<SiteRuntime>,
        route: &Arc<Route>,
        guest: guest::Guest,
        request: Admitted,
        content: Body,
        debugging: Option<&Debugging>,
    ) -> Result<Answer, EdgeError> {
        let before = matches!(route.cache.position, CachePosition::Before | CachePosition::Both);
        if before && cacheable(&request, &route.cache) {
            let source = guest.into_source(request.clone());
            let source = watched(Arc::new(source), debugging);
            return self.cached(site, &route.cache, source, &request).await;
        }
        let response = match guest.admit() {
            Admission::Run(guest, ticket) => {
                guest.call(ticket, &request, content).await.map_err(EdgeError::Handler)?
            }
            Admission::Refused(ended) => return Err(EdgeError::Handler(ended)),
            Admission::Origin(pool) => {
                if matches!(route.cache.position, CachePosition::Behind | CachePosition::Both) {
                    let policy = &route.cache;
                    return self
                        .through_cache(site, policy, pool, request, content, debugging)
                        .await;
                }
                origin_source::send(&pool, &request, content).await?
            }
        };
        if before {
            let key = request.key(site, &route.cache);
            return Ok(self.passed(&key, response, bypass_reason(&request)));
        }
        Ok(Answer::passed(response))
    }

    async fn cached(
        &self,
        site: &Arc<SiteRuntime>,
        policy: &Arc<CachePolicy>,
        source: Arc<dyn Source>,
        request: &Admitted,
    ) -> Result<Answer, EdgeError> {
        Ok(Answer::cached(self.cache.serve(request.key(site, policy), source).await?))
    }

    /// A response that went past the cache: what it invalidates (RFC 9111 section 4.4), and why.
    fn passed(
        &self,
        key: &verge_cache::Request<'_>,
        response: http::Response<Body>,
        why: &str,
    ) -> Answer {
        let status = response.status();
        if !key.method.is_safe() && (status.is_success() || status.is_redirection()) {
            self.cache.invalidate(key, response.headers());
        }
        let mut answer = Answer::passed(response);
        let text = format!("Verge; fwd={why}; fwd-status={}", status.as_u16());
        if let Ok(value) = HeaderValue::from_str(&text) {
            answer.headers.append("cache-status", value);
        }
        answer.outcome = Some(verge_cache::Outcome::Bypass);
        answer
    }
}

impl Admitted {
    /// The request as the cache sees it.
    fn key<'a>(
        &'a self,
        site: &'a SiteRuntime,
        policy: &'a Arc<CachePolicy>,
    ) -> verge_cache::Request<'a> {
        verge_cache::Request {
            site: &site.name,
            scheme: self.hop.scheme,
            host: &self.host,
            path: self.target.path(),
            query: self.target.query(),
            method: &self.method,
            headers: &self.headers,
            policy,
        }
    }
}

impl Answer {
    /// What the cache answered.
    fn cached(response: verge_cache::Response) -> Answer {
        Answer {
            status: response.status,
            headers: response.headers,
            content: match response.body {
                verge_cache::Body::Empty => Content::Empty,
                verge_cache::Body::Whole(bytes) => Content::Whole(bytes),
                verge_cache::Body::File(part) => Content::File(part),
                verge_cache::Body::Stream(stream) => Content::Stream(stream),
            },
            outcome: Some(response.outcome),
        }
    }

    fn passed(response: http::Response<Body>) -> Answer {
        let (mut parts, body) = response.into_parts();
        for name in FOR_EDGES {
            parts.headers.remove(name);
        }
        Answer {
            status: parts.status,
            headers: parts.headers,
            content: Content::Stream(body),
            outcome: None,
        }
    }
}

/// Whether a request may be answered by the cache; a GET with content may not, since the content is
/// no part of the key.
fn cacheable(request: &Admitted, policy: &CachePolicy) -> bool {
    let readable = request.method == Method::GET || request.method == Method::HEAD;
    readable && !request.has_content && policy.mode != CacheMode::Bypass
}

fn watched(source: Arc<dyn Source>, debugging: Option<&Debugging>) -> Arc<dyn Source> {
    match debugging {
        Some(debugging) => debugging.watch(source),
        None => source,
    }
}

fn bypass_reason(request: &Admitted) -> &'static str {
    let readable = request.method == Method::GET || request.method == Method::HEAD;
    if readable { "bypass" } else { "method" }
}

fn pool(site: &SiteRuntime, name: &str) -> Result<Arc<OriginPool>, EdgeError> {
    site.origin(name).cloned().ok_or(EdgeError::Internal("a route's origin has no pool"))
}
