//! The bridge to the sandbox: a route's handler as something that answers requests, and what its guest
//! may reach. A guest's fetch of its own site goes to the cache and the origin behind it, and never to
//! a handler again.

mod key_value;
mod site_cache;

use super::origin_source::OriginSource;
use super::{Admitted, Answer, Content, Edge, VERGE_CDN_CACHE_CONTROL, origin_source, pool};
use crate::body::{self, Body};
use crate::handlers::{Place, Runner, Ticket};
use crate::listen::Connection;
use crate::origin::outgoing::{passes, strip_hop_by_hop};
use crate::origin::{Hop, OriginError, OriginPool};
use crate::respond::EdgeError;
use crate::snapshot::SiteRuntime;
use crate::tail::Run;
use crate::telemetry;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri};
use std::sync::Arc;
use std::time::Duration;
use verge_cache::{Source, SourceError, SourceRequest, SourceResponse};
use verge_config::kv::KeyPage;
use verge_config::process::Secret;
use verge_config::purge::normalise_host;
use verge_config::site::{CachePosition, Domain, Handler, OnFailure, Origin, Route, Target};
use verge_config::tail::Line;
use verge_handlers::{
    CacheEntry, End, Ended, FetchError, Host, LogLevel, LogLine, LogStream, Tls, Unavailable,
    Usage, Verdict, Visitor,
};

/// The most edges of this CDN that a request may have passed before it comes to a handler. A handler's
/// fetch may come to another site's handler, which fetches in turn: each step may multiply the requests,
/// so there are fewer of these than of other passes.
const MAX_DEPTH: usize = 3;

/// A handler on a route, for one request.
#[derive(Clone)]
pub(super) struct Guest {
    edge: Arc<Edge>,
    site: Arc<SiteRuntime>,
    route: Arc<Route>,
    runner: Arc<Runner>,
    spec: Arc<Handler>,
    origin: Option<Arc<OriginPool>>,
    /// Where it is told what the guest does, when somebody watches.
    run: Option<Arc<Run>>,
}

impl Guest {
    pub(super) fn new(
        edge: &Arc<Edge>,
        site: &Arc<SiteRuntime>,
        route: &Arc<Route>,
        spec: &Arc<Handler>,
        origin: Option<&Origin>,
    ) -> Result<Guest, EdgeError> {
        let runner = site.handler(&spec.name).cloned();
        Ok(Guest {
            edge: Arc::clone(edge),
            site: Arc::clone(site),
            route: Arc::clone(route),
            runner: runner.ok_or(EdgeError::Internal("a route's handler is not loaded"))?,
            spec: Arc::clone(spec),
            origin: origin.map(|origin| pool(site, &origin.name)).transpose()?,
            run: None,
        })
    }

    /// What the guest does is told there.
    pub(super) fn watched_by(self, run: Option<Arc<Run>>) -> Guest {
        Guest { run, ..self }
    }

    /// Leave for one request to run, from the handler's breaker.
    pub(super) fn admit(&self) -> Result<Ticket, Ended> {
        self.runner.fuse.admit().map_err(|wait| {
            let ended = Ended::Tripped(wait);
            self.refused(&ended);
            ended
        })
    }

    /// Runs the guest for a request that was admitted, once the site has a place for it; the response's
    /// content streams out of it.
    pub(super) async fn call(
        self,
        ticket: Ticket,
        request: &Admitted,
        content: Body,
    ) -> Result<http::Response<Body>, Ended> {
        let mut incoming = http::Request::new(content);
        let uri = absolute(request.hop.scheme, &request.host, request.target.clone());
        *incoming.uri_mut() = uri.ok_or_else(|| Ended::BadRequest("its URL".to_owned()))?;
        *incoming.method_mut() = request.method.clone();
        *incoming.headers_mut() = request.headers.clone();
        let place = self.site.gate.enter().await.map_err(|busy| {
            let ended = Ended::Busy(busy.most);
            self.refused(&ended);
            ended
        })?;
        let runner = Arc::clone(&self.runner);
        let outside: Arc<dyn Host> = Arc::new(Outside {
            guest: self,
            hop: request.hop.clone(),
            connection: Arc::clone(&request.connection),
            ticket,
            _place: place,
        });
        let mut response = runner.handler.call(incoming, outside).await?;
        strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }

    /// A request ended before there was an instance for it.
    fn refused(&self, ended: &Ended) {
        if self.site.gate.may_tell() {
            let (stream, context) = (LogStream::Host, String::new());
            self.log(&LogLine { stream, context, message: ended.to_string() });
        }
        let end = End::Failed(ended.clone());
        if let Some(run) = &self.run {
            run.ended(end.name(), Duration::ZERO);
        }
        telemetry::metrics().handlers.ended(&end);
        self.runner.usage.add(&end, &Usage::default());
    }

    fn log(&self, line: &LogLine) {
        if let Some(run) = &self.run {
            let severity = line.stream.level().map(|level| level.name().to_owned());
            let context = (!line.context.is_empty()).then(|| line.context.clone());
            let (stream, text) = (line.stream.name().to_owned(), line.message.clone());
            run.line(Line { stream, severity, context, text });
        }
        tracing::info!(
            target: "handler",
            site = %self.site.name,
            handler = %self.spec.name,
            stream = line.stream.name(),
            severity = line.stream.level().map(LogLevel::name),
            context = (!line.context.is_empty()).then_some(line.context.as_str()),
            "{}", line.message
        );
    }

    /// Who answers in the place of a handler that its breaker leaves alone, where its site says so.
    pub(super) fn stand_in(&self) -> Option<Arc<OriginPool>> {
        let pool = self.origin.as_ref();
        pool.filter(|_| self.spec.on_failure == OnFailure::Bypass).cloned()
    }

    /// The handler as the source of one URL.
    pub(super) fn into_source(self, request: Admitted) -> GuestSource {
        GuestSource { guest: self, request }
    }
}

/// Whether a request may go to a handler as far as it has come.
pub(super) fn check_depth(hop: &Hop) -> Result<(), EdgeError> {
    if passes(&hop.loops) < MAX_DEPTH { Ok(()) } else { Err(EdgeError::Loop) }
}

fn absolute(scheme: &str, host: &str, target: PathAndQuery) -> Option<Uri> {
    Uri::builder().scheme(scheme).authority(host).path_and_query(target).build().ok()
}

/// A handler behind the cache.
pub(super) struct GuestSource {
    guest: Guest,
    request: Admitted,
}

impl Source for GuestSource {
    fn fetch(
        &self,
        asked: SourceRequest,
    ) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
        let guest = self.guest.clone();
        let mut request = self.request.clone();
        request.method = asked.method;
        request.headers = asked.headers;
        Box::pin(async move {
            let ticket = match guest.admit() {
                Ok(ticket) => ticket,
                Err(ended) => match guest.stand_in() {
                    Some(pool) => return in_its_place(pool, request).await,
                    None => return Err(ended.into()),
                },
            };
            let response = guest.call(ticket, &request, body::empty()).await?;
            let (parts, body) = response.into_parts();
            let (status, headers) = (parts.status, parts.headers);
            Ok(SourceResponse { status, headers, body, delimited: true })
        })
    }
}

/// The origin's answer in the place of a handler. It is not the handler's, and is not kept as if it
/// were: the cache before the handler passes it on.
async fn in_its_place(
    pool: Arc<OriginPool>,
    request: Admitted,
) -> Result<SourceResponse, SourceError> {
    let source = OriginSource::new(pool, &request);
    let asked = SourceRequest { method: request.method, headers: request.headers };
    let mut response = source.fetch(asked).await?;
    response.headers.insert(VERGE_CDN_CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What one guest may reach; while it is there, the site has one place less.
struct Outside {
    guest: Guest,
    hop: Hop,
    connection: Arc<Connection>,
    ticket: Ticket,
    _place: Place,
}

impl Host for Outside {
    fn fetch(
        &self,
        request: http::Request<Body>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, FetchError>> {
        let (guest, hop) = (self.guest.clone(), self.hop.clone());
        let connection = Arc::clone(&self.connection);
        Box::pin(async move { guest.fetch(request, hop, connection).await })
    }

    fn cache_get(&self, key: String) -> BoxFuture<'static, Result<Option<Bytes>, Unavailable>> {
        Box::pin(self.guest.clone().cache_get(key))
    }

    fn cache_put(&self, entry: CacheEntry) -> BoxFuture<'static, Result<(), Unavailable>> {
        Box::pin(self.guest.clone().cache_put(entry))
    }

    fn cache_purge(&self, tags: Vec<String>) -> BoxFuture<'static, Result<u64, Unavailable>> {
        Box::pin(self.guest.clone().cache_purge(tags))
    }

    fn kv_get(&self, key: String) -> BoxFuture<'static, Result<Option<Bytes>, Unavailable>> {
        Box::pin(self.guest.clone().kv_get(key))
    }

    fn kv_set(
        &self,
        key: String,
        value: Option<Bytes>,
    ) -> BoxFuture<'static, Result<(), Unavailable>> {
        Box::pin(self.guest.clone().kv_set(key, value))
    }

    fn kv_keys(&self, skip: u64) -> BoxFuture<'static, Result<KeyPage, Unavailable>> {
        Box::pin(self.guest.clone().kv_keys(skip))
    }

    fn visitor(&self) -> Result<Visitor, Unavailable> {
        let tls = self.connection.tls.as_ref();
        Ok(Visitor {
            address: self.connection.peer.ip().to_canonical(),
            is_https: tls.is_some(),
            tls: tls.map(|facts| Tls { version: facts.version, server_name: facts.sni.clone() }),
            country: None,
            edge: Arc::clone(&self.guest.edge.id),
        })
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.guest.site.secrets.get(name).cloned()
    }

    fn log(&self, line: LogLine) {
        self.guest.log(&line);
    }

    fn ended(&self, end: &End, usage: &Usage) {
        if let Some(run) = &self.guest.run {
            run.ended(end.name(), usage.cpu);
        }
        let metrics = &telemetry::metrics().handlers;
        metrics.ended(end);
        metrics.ran(usage.wall);
        self.guest.runner.usage.add(end, usage);
        // A handler that waits for its visitor is not slow by itself: visitors must not be able to
        // trip its breaker.
        let is_visitors = usage.waits_for_visitor && matches!(end, End::Failed(Ended::TimedOut(_)));
        self.ticket.ended(if is_visitors { Verdict::Neither } else { end.verdict() });
        tracing::debug!(
            target: "handler",
            site = %self.guest.site.name,
            handler = %self.guest.spec.name,
            end = end.name(),
            cpu_us = u64::try_from(usage.cpu.as_micros()).unwrap_or(u64::MAX),
            "request ended"
        );
    }
}

impl Guest {
    async fn fetch(
        self,
        request: http::Request<Body>,
        hop: Hop,
        connection: Arc<Connection>,
    ) -> Result<http::Response<Body>, FetchError> {
        let authority = request.uri().authority().map(|a| normalise_host(a.as_str()));
        let host =
            authority.ok_or_else(|| FetchError::BadRequest("a URL without a host".into()))?;
        if self.is_own(&host, &hop) {
            return self.fetch_own(request, host, hop, connection).await;
        }
        let allow = &self.spec.fetch;
        let outside = self.site.outside(&self.edge.origins);
        outside.send(request, allow, &hop).await.map_err(from_origin)
    }

    /// Whether a host is the site's own. Where the site answers any host, only the one that this
    /// request came to is.
    fn is_own(&self, host: &str, hop: &Hop) -> bool {
        host == hop.host
            || self.site.site.domains.iter().any(|domain| match domain {
                Domain::Exact(name) => host == name,
                Domain::Wildcard(parent) => {
                    host.strip_suffix(parent.as_str()).is_some_and(|sub| sub.ends_with('.'))
                }
                Domain::Any => false,
            })
    }

    async fn fetch_own(
        self,
        request: http::Request<Body>,
        host: String,
        mut hop: Hop,
        connection: Arc<Connection>,
    ) -> Result<http::Response<Body>, FetchError> {
        let (parts, content) = request.into_parts();
        let target = parts.uri.path_and_query().cloned();
        let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut headers = parts.headers;
        strip_hop_by_hop(&mut headers);
        hop.host.clone_from(&host);
        let has_content = has_content(&parts.method, &headers, &content);
        let content = if has_content { content } else { body::empty() };
        let (pool, policy) = self.behind(target.path())?;
        let method = parts.method;
        let request =
            Admitted { host, method, target, headers, has_content, hop, connection, interim: None };
        let position = self.route.cache.position;
        if matches!(position, CachePosition::Behind | CachePosition::Both) {
            let answer =
                self.edge.through_cache(&self.site, &policy, pool, request, content, None).await;
            return answer.map(Answer::into_response).map_err(from_edge);
        }
        origin_source::send(&pool, &request, content).await.map_err(from_edge)
    }

    /// Who answers the site's own URL behind the handler: the origin and the policy that visitors of
    /// that path would get, so that a stored object is the same for both; where the path leads to a
    /// handler, the origin of the route that is being served.
    fn behind(
        &self,
        path: &str,
    ) -> Result<(Arc<OriginPool>, Arc<verge_config::site::CachePolicy>), FetchError> {
        if let Some(stop) = self.site.routes.find(path)
            && let Target::Origin(origin) = &stop.route.target
        {
            let pool = pool(&self.site, &origin.name).map_err(from_edge)?;
            return Ok((pool, Arc::clone(&stop.route.cache)));
        }
        let pool = self.origin.clone().ok_or_else(|| {
            let index = self.route.index;
            FetchError::Refused(format!(
                "routes[{index}] names no origin for its handler's fetches of the site"
            ))
        })?;
        Ok((pool, Arc::clone(&self.route.cache)))
    }
}

/// Whether a guest's request has content. Guests give every request a body to write to; for a method
/// whose content has no meaning, only one that is announced counts.
fn has_content(method: &Method, headers: &HeaderMap, content: &Body) -> bool {
    use http_body::Body as _;
    let announced = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    let meaningful = !(*method == Method::GET || *method == Method::HEAD);
    (announced || meaningful) && !content.is_end_stream()
}

impl Answer {
    fn into_response(self) -> http::Response<Body> {
        let content = match self.content {
            Content::Empty => body::empty(),
            Content::Whole(bytes) => body::full(bytes),
            Content::File(part) => body::file::stream(part),
            Content::Stream(body) => body,
        };
        let mut response = http::Response::new(content);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

fn from_edge(error: EdgeError) -> FetchError {
    match error {
        EdgeError::Origin(error) => from_origin(error),
        EdgeError::Cache(error, _) => from_edge(*error),
        EdgeError::Loop => FetchError::Loop,
        other => FetchError::Internal(other.to_string()),
    }
}

/// What a guest is told of an origin's failure.
fn from_origin(error: OriginError) -> FetchError {
    let text = error.to_string();
    match error {
        OriginError::DnsFailed { .. } | OriginError::DnsTimeout { .. } => FetchError::Dns(text),
        OriginError::AddressForbidden { .. } | OriginError::HostNotAllowed { .. } => {
            FetchError::Refused(text)
        }
        OriginError::ConnectionRefused { .. }
        | OriginError::ConnectFailed { .. }
        | OriginError::CertificateRefused { .. }
        | OriginError::TlsFailed { .. }
        | OriginError::Busy { .. } => FetchError::Connect(text),
        OriginError::ConnectTimeout { .. }
        | OriginError::FirstByteTimeout { .. }
        | OriginError::BetweenBytesTimeout { .. } => FetchError::Timeout,
        OriginError::ClosedEarly { .. }
        | OriginError::Incomplete { .. }
        | OriginError::HeadTooLarge
        | OriginError::Protocol { .. } => FetchError::Protocol(text),
        OriginError::RequestBody { .. } | OriginError::InvalidRequest { .. } => {
            FetchError::BadRequest(text)
        }
        OriginError::LoopDetected => FetchError::Loop,
    }
}
