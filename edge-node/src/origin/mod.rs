//! Origins: resolved, judged, pooled, watched, and asked. Everything that the edge fetches from
//! elsewhere goes through here; no site, cache or handler is known here.

mod address;
mod connect;
mod error;
mod exchange;
mod health;
mod interim;
pub mod outgoing;
mod outside;
mod pool;
mod resolve;
mod settings;
mod upgrade;

pub use address::{AddressClass, classify};
pub use error::OriginError;
pub use exchange::EndsUnannounced;
pub use interim::{Interim, InterimResponse};
pub use outgoing::Hop;
pub use outside::Outside;
pub use resolve::{Lookup, Resolver};
pub use settings::{OriginSettings, native_roots};
pub use upgrade::{OriginStream, UpgradeAnswer};

use crate::body::{self, Body};
use crate::telemetry;
use connect::{Dialer, Target};
use health::{Candidate, Health};
use http::{Extensions, HeaderMap, Method, Request, Response, Uri};
use http_body::Body as _;
use parking_lot::Mutex;
use pool::{Endpoint, Failure, Patience, Want};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use verge_config::site::{Origin, Timeouts};

/// The most requests under way to one origin at once.
const MAX_REQUESTS: usize = 8192;
/// The most tunnels to one origin at once; counted apart, since they last.
const MAX_TUNNELS: usize = 16 * 1024;
/// The most attempts for one request, over all of an origin's addresses.
const MAX_ATTEMPTS: usize = 4;

/// The connections to one origin of one site: made when the site is applied, kept while the origin
/// is unchanged, never shared with another.
pub struct OriginPool {
    origin: Arc<Origin>,
    dialer: Arc<Dialer>,
    endpoints: Vec<Arc<Endpoint>>,
    health: Mutex<Vec<Health>>,
    permits: Arc<Semaphore>,
    tunnels: Arc<Semaphore>,
}

/// What is left of a request that may be sent again: it has no content.
struct Replay {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
}

// === impl OriginPool ===

impl OriginPool {
    /// A pool without connections yet.
    #[must_use]
    pub fn new(origin: Arc<Origin>, settings: Arc<OriginSettings>) -> OriginPool {
        let dialer = Arc::new(Dialer::new(settings));
        let endpoints: Vec<_> = origin
            .urls
            .iter()
            .map(|url| {
                let name = origin.host.as_deref().map(connect::name_of);
                let sni = name.filter(|name| !connect::is_address(name)).unwrap_or(&url.host);
                let target = Target {
                    tls: url.tls,
                    host: url.host.clone(),
                    port: url.port,
                    sni: sni.to_owned(),
                };
                Endpoint::new(target, Arc::clone(&dialer))
            })
            .collect();
        let health = Mutex::new(vec![Health::default(); endpoints.len()]);
        let permits = Arc::new(Semaphore::new(MAX_REQUESTS));
        let tunnels = Arc::new(Semaphore::new(MAX_TUNNELS));
        OriginPool { origin, dialer, endpoints, health, permits, tunnels }
    }

    /// The origin that it was made for.
    #[must_use]
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Sends a request and waits for the response's header section. The request's URI is path and
    /// query; its fields are the visitor's, out of which [`outgoing::to_origin`] makes the origin's.
    /// The response's hop-by-hop fields are removed. An [`Interim`] among the request's extensions is
    /// given the interim responses, over HTTP/1.1: hyper drops those of HTTP/2.
    ///
    /// A request that was not sent goes to the next address; one that was, and came to nothing before
    /// any of the response, goes once more if it is idempotent (RFC 9110 section 9.2.2) and without
    /// content.
    ///
    /// # Errors
    /// Every way in which there is no response. An error in the content is an [`OriginError`] too.
    pub async fn send(
        &self,
        mut request: Request<Body>,
        hop: &Hop,
    ) -> Result<Response<Body>, OriginError> {
        let edge_id = &self.dialer.settings().edge_id;
        let host = self.origin.host.as_deref();
        let prepared = outgoing::to_origin(request.headers_mut(), hop, host, edge_id);
        let result = match prepared {
            Ok(()) => self.try_all(request).await,
            Err(error) => Err(error),
        };
        telemetry::metrics().origin.request(result.as_ref().map(Response::status));
        result
    }

    async fn try_all(&self, request: Request<Body>) -> Result<Response<Body>, OriginError> {
        let busy = |_| OriginError::Busy { limit: MAX_REQUESTS };
        let permit = Arc::new(Arc::clone(&self.permits).try_acquire_owned().map_err(busy)?);
        let mut replay = Replay::of(&request);
        let mut request = Some(request);
        let mut tried = vec![false; self.endpoints.len()];
        let mut want = Want::Any;
        let mut last = None;
        for _ in 0..MAX_ATTEMPTS {
            let Some((index, endpoint)) = self.choose(&tried) else { break };
            let Some(next) = request.take() else { break };
            let failure = match self.attempt(endpoint, next, want, &permit).await {
                Ok(response) => {
                    self.note(index, true);
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            if failure.connecting {
                self.note(index, false);
                mark(&mut tried, index);
            } else if !failure.reused && self.endpoints.len() > 1 {
                mark(&mut tried, index);
            }
            // A connection that the origin had closed meanwhile says nothing about the next one, and
            // the other idle ones are as old.
            want = if failure.connecting { Want::Any } else { Want::New };
            request = failure.unsent.or_else(|| {
                let again = matches!(failure.error, OriginError::ClosedEarly { .. });
                replay.take().filter(|_| again).map(Replay::into_request)
            });
            last = Some(failure.error);
        }
        Err(last.unwrap_or_else(|| self.nowhere()))
    }

    async fn attempt(
        &self,
        endpoint: &Arc<Endpoint>,
        request: Request<Body>,
        want: Want,
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> Result<Response<Body>, Failure> {
        let patience = Patience::from(self.origin.timeouts);
        endpoint.attempt(request, want, patience, Arc::clone(permit)).await
    }

    fn choose(&self, tried: &[bool]) -> Option<(usize, &Arc<Endpoint>)> {
        let index = if let [only] = tried {
            (!only).then_some(0)?
        } else {
            let health = self.health.lock();
            let candidates: Vec<_> = self
                .origin
                .urls
                .iter()
                .zip(health.iter())
                .zip(tried)
                .map(|((url, health), tried)| Candidate {
                    weight: url.weight,
                    health: *health,
                    tried: *tried,
                })
                .collect();
            health::choose(&candidates, Instant::now(), rand::random())?
        };
        Some((index, self.endpoints.get(index)?))
    }

    fn note(&self, index: usize, succeeded: bool) {
        if self.endpoints.len() < 2 {
            return;
        }
        if let Some(health) = self.health.lock().get_mut(index) {
            if succeeded {
                health.succeeded();
            } else {
                health.failed(Instant::now());
            }
        }
    }

    fn nowhere(&self) -> OriginError {
        let host = self.origin.name.to_string();
        OriginError::DnsFailed { host, cause: "the origin has no address".to_owned() }
    }
}

impl From<Timeouts> for Patience {
    fn from(timeouts: Timeouts) -> Patience {
        let Timeouts { connect, first_byte, between_bytes } = timeouts;
        Patience { connect, first_byte, between_bytes }
    }
}

// === impl Replay ===

impl Replay {
    fn of(request: &Request<Body>) -> Option<Replay> {
        let again = request.method().is_idempotent() && request.body().is_end_stream();
        again.then(|| Replay {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            extensions: request.extensions().clone(),
        })
    }

    fn into_request(self) -> Request<Body> {
        let mut request = Request::new(body::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        *request.extensions_mut() = self.extensions;
        request
    }
}

fn mark(tried: &mut [bool], index: usize) {
    if let Some(tried) = tried.get_mut(index) {
        *tried = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verge_config::site::OriginUrl;

    #[tokio::test]
    async fn no_more_requests_are_under_way_than_may_be() {
        let settings = OriginSettings {
            allow_private: false,
            edge_id: Arc::from("edge"),
            resolver: Arc::new(Resolver::new()),
            roots: Arc::new(rustls::RootCertStore::empty()),
            own: Arc::from([]),
        };
        let url = OriginUrl { tls: false, host: "127.0.0.1".into(), port: 9, weight: 1 };
        let origin = Origin {
            name: "web".into(),
            urls: vec![url],
            host: None,
            timeouts: Timeouts::default(),
        };
        let pool = OriginPool::new(Arc::new(origin), Arc::new(settings));
        let hop = Hop {
            client_ip: [192, 0, 2, 1].into(),
            scheme: "http",
            host: "a.test".into(),
            version: http::Version::HTTP_11,
            loops: Vec::new(),
        };
        let ask = || pool.send(Request::new(body::empty()), &hop);
        let all = Arc::clone(&pool.permits).acquire_many_owned(MAX_REQUESTS as u32).await.unwrap();
        let error = ask().await.unwrap_err();
        assert_eq!(
            (error.status().as_u16(), error.proxy_status_error()),
            (503, "connection_limit_reached")
        );
        drop(all);
        let error = ask().await.unwrap_err();
        assert!(matches!(error, OriginError::AddressForbidden { .. }), "{error}");
    }
}
