//! What every request passes before its handler: who sends it, whether they may, how long it may
//! take; and its line in the log and the metrics. Reads no body.

use super::{App, Failure};
use crate::auth::{self, Access, Caller, Denied, Endpoint, EndpointSpec};
use crate::clock::now_ms;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an upload of the largest component may take.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);
/// The longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 256;

/// The other end of the connection; the server puts it on every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

pub(super) async fn guard(
    State((app, spec)): State<(Arc<App>, &'static EndpointSpec)>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let (caller, response) = match admit(&app, spec, &request) {
        Ok(caller) => (caller.id().to_owned(), run(&app, spec, request, next, caller).await),
        Err(failure) => ("-".to_owned(), failure.into_response()),
    };
    let took = started.elapsed();
    let status = response.status().as_u16();
    app.metrics.request(spec, status, took);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    // The path as in the table: what callers write into it or its query is theirs.
    let (method, path) = (spec.method, spec.path);
    let is_frequent = match spec.endpoint {
        // Several times a second of each edge, as long as somebody watches.
        Endpoint::Events => true,
        // As often as handlers ask.
        Endpoint::EdgeGetEntry | Endpoint::EdgePutEntry => true,
        Endpoint::EdgeRemoveEntry | Endpoint::EdgeListKeys => true,
        _ => false,
    };
    if is_frequent && response.status().is_success() {
        tracing::debug!(method, path, status, caller, took_us, "request");
    } else {
        tracing::info!(method, path, status, caller, took_us, "request");
    }
    response
}

fn admit(app: &App, spec: &EndpointSpec, request: &Request) -> Result<Caller, Failure> {
    let caller = match (spec.access, bearer(request.headers())) {
        (Access::Public, _) | (_, None) => Caller::Anyone,
        (_, Some(secret)) => app
            .store
            .read(|state| auth::identify(state, secret, now_ms()))
            .unwrap_or(Caller::Anyone),
    };
    match auth::permit(&caller, spec.access) {
        Ok(()) => Ok(caller),
        Err(Denied::Unauthenticated) => {
            // A valid token is never turned away for what others at its address do.
            let peer = request.extensions().get::<Peer>();
            let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
            app.metrics.denied();
            match app.failures.take(address, Instant::now()) {
                Ok(()) => Err(Denied::Unauthenticated.into()),
                Err(wait) => Err(Failure::too_many("too many failed authentications", wait)),
            }
        }
        Err(denied) => Err(denied.into()),
    }
}

async fn run(
    app: &App,
    spec: &EndpointSpec,
    mut request: Request,
    next: Next,
    caller: Caller,
) -> Response {
    request.extensions_mut().insert(caller);
    let limit = match spec.endpoint {
        Endpoint::PutBlob => UPLOAD_TIMEOUT,
        // The handler bounds the waiting itself; this is beside it.
        Endpoint::Purge | Endpoint::GetPurge => app.config.limits.request + super::purges::MAX_WAIT,
        _ => app.config.limits.request,
    };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Failure::unavailable("the request took too long").into_response(),
    }
}

fn bearer(fields: &HeaderMap) -> Option<&str> {
    let value = fields.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    let secret = secret.trim();
    (scheme.eq_ignore_ascii_case("bearer") && secret.len() <= MAX_TOKEN_BYTES).then_some(secret)
}
