//! The bridge to the sandbox: a route's handlers as something that answers requests, and what their guests
//! may reach.

mod apart;
mod fetch;
mod key_value;
mod links;
mod site_cache;

use super::origin_source::OriginSource;
use super::{Admitted, Edge, VERGE_CDN_CACHE_CONTROL, pool};
use crate::body::{self, Body};
use crate::handlers::{Behind, Runner, Ticket, Visit};
use crate::listen::Connection;
use crate::origin::outgoing::{passes, strip_hop_by_hop};
use crate::origin::{Hop, OriginPool};
use crate::respond::EdgeError;
use crate::snapshot::SiteRuntime;
use crate::tail::Run;
use crate::telemetry;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use links::{Links, Turn};
use std::sync::Arc;
use std::time::Duration;
use verge_cache::{Source, SourceError, SourceRequest, SourceResponse};
use verge_config::kv::KeyPage;
use verge_config::process::Secret;
use verge_config::site::{Chain, OnFailure, Origin, Route, Target};
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
    /// It, and the handlers behind it.
    links: Links<Arc<Runner>>,
    /// Behind the last handler.
    origin: Option<Arc<OriginPool>>,
    /// Where it is told what the guest does, when somebody watches.
    run: Option<Arc<Run>>,
    /// It answers the visitor, and not another handler.
    is_first: bool,
    /// It answers in the place of another, which is left alone.
    stands_in: bool,
}

/// What becomes of a request that has come to a handler.
pub(super) enum Admission {
    /// This one runs: the handler itself or one behind it.
    Run(Guest, Ticket),
    /// The origin answers in the place of them all.
    Origin(Arc<OriginPool>),
    /// Nobody answers.
    Refused(Ended),
}

/// What all handlers that run for a visitor's request share.
#[derive(Clone)]
struct Way {
    hop: Hop,
    connection: Arc<Connection>,
    visit: Arc<Visit>,
}

impl Guest {
    pub(super) fn new(
        edge: &Arc<Edge>,
        site: &Arc<SiteRuntime>,
        route: &Arc<Route>,
        chain: &Chain,
        origin: Option<&Origin>,
    ) -> Result<Guest, EdgeError> {
        let missing = || EdgeError::Internal("a route's handler is not loaded");
        let mut links = None;
        for handler in chain.handlers().iter().rev() {
            let runner = site.handler(&handler.name).cloned().ok_or_else(missing)?;
            links = Some(Links::before(runner, links));
        }
        Ok(Guest {
            edge: Arc::clone(edge),
            site: Arc::clone(site),
            route: Arc::clone(route),
            links: links.ok_or_else(missing)?,
            origin: origin.map(|origin| pool(site, &origin.name)).transpose()?,
            run: None,
            is_first: true,
            stands_in: false,
        })
    }

    /// What the guest does is told there.
    pub(super) fn watched_by(self, run: Option<Arc<Run>>) -> Guest {
        Guest { run, ..self }
    }

    fn runner(&self) -> &Arc<Runner> {
        self.links.here()
    }

    /// Who runs for one request: each handler is asked for leave from its own breaker. Where it is open
    /// and the site says so, the next handler takes its place, and the origin that of the last.
    pub(super) fn admit(&self) -> Admission {
        let admit = |runner: &Arc<Runner>| {
            runner.fuse.admit().map_err(|wait| {
                let ended = Ended::Tripped(wait);
                self.refused(runner, &ended);
                ended
            })
        };
        let gives_way = |runner: &Arc<Runner>| runner.spec().on_failure == OnFailure::Bypass;
        match self.links.clone().turn(admit, gives_way) {
            Turn::Runs { links, leave, stands_in } => {
                Admission::Run(Guest { links, stands_in, ..self.clone() }, leave)
            }
            Turn::Past(ended) => match &self.origin {
                Some(pool) => Admission::Origin(Arc::clone(pool)),
                None => Admission::Refused(ended),
            },
            Turn::Refused(ended) => Admission::Refused(ended),
        }
    }

    /// Runs the guest for a visitor's request that was admitted, once the site has a place for it; the
    /// response's content streams out of it.
    pub(super) async fn call(
        self,
        ticket: Ticket,
        request: &Admitted,
        content: Body,
    ) -> Result<http::Response<Body>, Ended> {
        let place = self.site.gate.enter().await.map_err(|busy| {
            let ended = Ended::Busy(busy.most);
            self.refused(self.runner(), &ended);
            ended
        })?;
        let visit = Arc::new(Visit::new(&self.site.gate, place));
        let way = Way {
            hop: request.hop.clone(),
            connection: Arc::clone(&request.connection),
            visit: Arc::clone(&visit),
        };
        let mut response = self.run(ticket, None, way, request, content).await?;
        if visit.is_bypassed() {
            not_its_own(&mut response);
        }
        Ok(response)
    }

    /// Runs the guest for a request, whoever sends it.
    async fn run(
        self,
        ticket: Ticket,
        leave: Option<Behind>,
        way: Way,
        request: &Admitted,
        content: Body,
    ) -> Result<http::Response<Body>, Ended> {
        let mut incoming = http::Request::new(content);
        let uri = absolute(request.hop.scheme, &request.host, request.target.clone());
        *incoming.uri_mut() = uri.ok_or_else(|| Ended::BadRequest("its URL".to_owned()))?;
        *incoming.method_mut() = request.method.clone();
        *incoming.headers_mut() = request.headers.clone();
        if self.stands_in {
            way.visit.bypass();
        }
        let runner = Arc::clone(self.runner());
        let outside: Arc<dyn Host> = Arc::new(Outside { guest: self, way, ticket, _leave: leave });
        let mut response = runner.handler.call(incoming, outside).await?;
        strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }

    /// A request to a handler ended before there was an instance for it.
    fn refused(&self, runner: &Runner, ended: &Ended) {
        if self.site.gate.may_tell() {
            let (stream, context) = (LogStream::Host, String::new());
            self.log(runner, &LogLine { stream, context, message: ended.to_string() });
        }
        let end = End::Failed(ended.clone());
        self.tell_run(&end, Duration::ZERO);
        telemetry::metrics().handlers.ended(&end);
        runner.usage.add(&end, &Usage::default());
    }

    /// Whoever watches is told how the visitor's handler ended, and what all of them took.
    fn tell_run(&self, end: &End, cpu: Duration) {
        match &self.run {
            Some(run) if self.is_first => run.ended(end.name(), cpu),
            Some(run) => run.took(cpu),
            None => {}
        }
    }

    fn log(&self, runner: &Runner, line: &LogLine) {
        let handler = &runner.spec().name;
        if let Some(run) = &self.run {
            let severity = line.stream.level().map(|level| level.name().to_owned());
            let context = (!line.context.is_empty()).then(|| line.context.clone());
            let (stream, text) = (line.stream.name().to_owned(), line.message.clone());
            let handler = self.is_one_of_several().then(|| handler.to_string());
            run.line(Line { stream, severity, context, handler, text });
        }
        tracing::info!(
            target: "handler",
            site = %self.site.name,
            handler = %handler,
            stream = line.stream.name(),
            severity = line.stream.level().map(LogLevel::name),
            context = (!line.context.is_empty()).then_some(line.context.as_str()),
            "{}", line.message
        );
    }

    fn is_one_of_several(&self) -> bool {
        match &self.route.target {
            Target::Handler { chain, .. } => chain.handlers().len() > 1,
            _ => false,
        }
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
            let (guest, ticket) = match guest.admit() {
                Admission::Run(guest, ticket) => (guest, ticket),
                Admission::Origin(pool) => return in_its_place(pool, request).await,
                Admission::Refused(ended) => return Err(ended.into()),
            };
            let response = guest.call(ticket, &request, body::empty()).await?;
            let (parts, body) = response.into_parts();
            let (status, headers) = (parts.status, parts.headers);
            Ok(SourceResponse { status, headers, body, delimited: true })
        })
    }
}

/// The origin's answer in the place of a handler.
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

/// What was answered in the place of a handler, as far as that is known, is not kept as if it were the
/// handler's: the cache before it passes it on.
fn not_its_own(response: &mut http::Response<Body>) {
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(VERGE_CDN_CACHE_CONTROL, no_store);
}

/// What one guest may reach.
struct Outside {
    guest: Guest,
    way: Way,
    ticket: Ticket,
    _leave: Option<Behind>,
}

impl Host for Outside {
    fn fetch(
        &self,
        request: http::Request<Body>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, FetchError>> {
        let (guest, way) = (self.guest.clone(), self.way.clone());
        Box::pin(async move { guest.fetch(request, way).await })
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
        let connection = &self.way.connection;
        let tls = connection.tls.as_ref();
        let address = connection.peer.ip().to_canonical();
        Ok(Visitor {
            address,
            is_https: tls.is_some(),
            tls: tls.map(|facts| Tls { version: facts.version, server_name: facts.sni.clone() }),
            country: self.guest.edge.countries.as_ref().and_then(|known| known.of(address)),
            edge: Arc::clone(&self.guest.edge.id),
        })
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.guest.site.secrets.get(name).cloned()
    }

    fn log(&self, line: LogLine) {
        self.guest.log(self.guest.runner(), &line);
    }

    fn ended(&self, end: &End, usage: &Usage) {
        self.guest.tell_run(end, usage.cpu);
        let metrics = &telemetry::metrics().handlers;
        metrics.ended(end);
        metrics.ran(usage.wall);
        let runner = self.guest.runner();
        runner.usage.add(end, usage);
        // A handler that waits for its visitor is not slow by itself: visitors must not be able to
        // trip its breaker.
        let is_visitors = usage.waits_for_visitor && matches!(end, End::Failed(Ended::TimedOut(_)));
        self.ticket.ended(if is_visitors { Verdict::Neither } else { end.verdict() });
        tracing::debug!(
            target: "handler",
            site = %self.guest.site.name,
            handler = %runner.spec().name,
            end = end.name(),
            cpu_us = u64::try_from(usage.cpu.as_micros()).unwrap_or(u64::MAX),
            "request ended"
        );
    }
}
