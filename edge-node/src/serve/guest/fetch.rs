//! Where a guest's fetch goes: to an origin of the site by its name, to the next handler, to the cache and
//! the origin behind the last one, or to a host outside.

use super::links::{Asked, asked};
use super::{Admission, Guest, Way, apart};
use crate::body::{self, Body};
use crate::handlers::NoRun;
use crate::origin::outgoing::strip_hop_by_hop;
use crate::origin::{Hop, OriginError, OriginPool};
use crate::respond::{self, EdgeError};
use crate::serve::{Admitted, Answer, Content, origin_source, pool};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use std::sync::Arc;
use verge_config::purge::normalise_host;
use verge_config::site::{CachePolicy, CachePosition, Domain, Target};
use verge_config::units::{nearest, quote};
use verge_handlers::{Ended, FetchError};

type Fetched = Result<http::Response<Body>, FetchError>;

impl Guest {
    /// The response to what the guest asks for.
    pub(super) async fn fetch(self, request: http::Request<Body>, way: Way) -> Fetched {
        let mut response = self.ask(request, way).await?;
        // Where no content may follow, a guest that passes the length on would break what it promised.
        if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        Ok(response)
    }

    async fn ask(self, request: http::Request<Body>, way: Way) -> Fetched {
        let authority = request.uri().authority().map(|a| normalise_host(a.as_str()));
        let host =
            authority.ok_or_else(|| FetchError::BadRequest("a URL without a host".into()))?;
        match asked(&host, self.is_own(&host, &way.hop)) {
            Asked::Origin(name) => self.fetch_origin(name, request, &host, way).await,
            Asked::Own => {
                let mut way = way;
                way.hop.host.clone_from(&host);
                let (request, content) = received(request, host, &way);
                match self.links.behind() {
                    Some(links) => {
                        let next = Guest { links, is_first: false, stands_in: false, ..self };
                        next.answer(request, content, way).await
                    }
                    None => self.fetch_behind(request, content).await,
                }
            }
            Asked::Outside => {
                let allow = &self.runner().spec().fetch;
                let outside = self.site.outside(&self.edge.origins);
                outside.send(request, allow, &way.hop).await.map_err(from_origin)
            }
        }
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

    /// From an origin of the site by its name, past the cache and past the other handlers. It is sent
    /// what a visitor's request would bring it: nothing of the host that stands for its name.
    async fn fetch_origin(
        self,
        name: &str,
        request: http::Request<Body>,
        host: &str,
        way: Way,
    ) -> Fetched {
        let origins = &self.site.site.origins;
        let Some(pool) = self.site.origin(name) else {
            let hint = match nearest(name, origins.keys().map(String::as_str)) {
                Some(meant) => format!("; did you mean {}?", quote(meant)),
                None => String::new(),
            };
            let name = quote(name);
            return Err(FetchError::Refused(format!("the site has no origin named {name}{hint}")));
        };
        if host.contains(':') {
            let message = "an origin that is called by its name has no port: its urls say it";
            return Err(FetchError::BadRequest(message.to_owned()));
        }
        let (request, content) = received(request, way.hop.host.clone(), &way);
        origin_source::send(pool, &request, content).await.map_err(from_edge)
    }

    /// Answers the handler before this one, as a visitor would be answered: one that failed, or is left
    /// alone, is an error's response, for whoever asks to pass on or to make something of.
    async fn answer(self, request: Admitted, content: Body, way: Way) -> Fetched {
        let (guest, ticket) = match self.admit() {
            Admission::Run(guest, ticket) => (guest, ticket),
            Admission::Origin(_) => {
                way.visit.bypass();
                return self.fetch_behind(request, content).await;
            }
            Admission::Refused(ended) => return Ok(failed(ended)),
        };
        let leave = match way.visit.run_behind() {
            Ok(leave) => leave,
            Err(NoRun::TooMany(most)) => return Err(FetchError::TooManyRuns(most)),
            Err(NoRun::Full(most)) => {
                let ended = Ended::InstanceLimit(most);
                guest.refused(guest.runner(), &ended);
                return Ok(failed(ended));
            }
        };
        let run = async move { guest.run(ticket, Some(leave), way, &request, content).await };
        Ok(apart::run(Box::pin(run)).await.unwrap_or_else(failed))
    }

    /// From what is behind the last handler.
    async fn fetch_behind(self, request: Admitted, content: Body) -> Fetched {
        let (pool, policy) = self.behind(request.target.path())?;
        let position = self.route.cache.position;
        if matches!(position, CachePosition::Behind | CachePosition::Both) {
            let answer =
                self.edge.through_cache(&self.site, &policy, pool, request, content, None).await;
            return answer.map(Answer::into_response).map_err(from_edge);
        }
        origin_source::send(&pool, &request, content).await.map_err(from_edge)
    }

    /// Who answers the site's own URL behind the handlers: the origin and the policy that visitors of
    /// that path would get, so that a stored object is the same for both; where the path leads to a
    /// handler, the origin of the route that is being served.
    fn behind(&self, path: &str) -> Result<(Arc<OriginPool>, Arc<CachePolicy>), FetchError> {
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

/// A guest's request as the edge takes it, and its content.
fn received(request: http::Request<Body>, host: String, way: &Way) -> (Admitted, Body) {
    let (parts, content) = request.into_parts();
    let target = parts.uri.path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut headers = parts.headers;
    strip_hop_by_hop(&mut headers);
    let has_content = has_content(&parts.method, &headers, &content);
    let content = if has_content { content } else { body::empty() };
    let request = Admitted {
        host,
        method: parts.method,
        target,
        headers,
        has_content,
        hop: way.hop.clone(),
        connection: Arc::clone(&way.connection),
        interim: None,
    };
    (request, content)
}

/// What a handler is answered in the place of one that gave no response.
fn failed(ended: Ended) -> http::Response<Body> {
    respond::response(&EdgeError::Handler(ended)).map(body::full)
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
    pub(super) fn into_response(self) -> http::Response<Body> {
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
