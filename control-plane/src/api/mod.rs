//! HTTP to commands and back: the only room that names statuses. Every request passes the guard,
//! which knows the endpoint's row of the table, before a handler sees it.

mod blobs;
mod edges;
mod feed;
mod guard;
mod kv;
mod meta;
mod openapi;
mod previews;
mod problem;
mod purges;
mod questions;
mod request;
mod secrets;
mod sites;
mod tails;
mod tokens;
mod usage;

pub(crate) use guard::Peer;
pub(crate) use problem::Failure;

use crate::auth::{Buckets, ENDPOINTS, Endpoint};
use crate::blobs::Blobs;
use crate::fleet::Fleet;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::questions::Questions;
use crate::store::Store;
use crate::tails::Tails;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use verge_config::process::control::ControlConfig;

/// Streams that read from the store at a time; the rest wait their turn.
const CATCHING_UP: usize = 4;
/// Failed authentications of one address: this many at once, one more a second.
const FAILURES: f64 = 60.0;

/// What the handlers share.
pub(crate) struct App {
    pub(crate) config: ControlConfig,
    pub(crate) store: Arc<Store>,
    pub(crate) blobs: Blobs,
    /// What seals and opens sites' secrets.
    pub(crate) keys: Keys,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) tails: Arc<Tails>,
    pub(crate) metrics: Metrics,
    /// Ends feeds and waits, so that the server can drain.
    pub(crate) shutdown: CancellationToken,
    failures: Buckets<IpAddr>,
    purge_rate: Buckets<String>,
    kv_rate: Buckets<String>,
    catching_up: Semaphore,
    openapi: bytes::Bytes,
}

// === impl App ===

impl App {
    pub(crate) fn new(
        config: ControlConfig,
        store: Store,
        blobs: Blobs,
        keys: Keys,
        shutdown: CancellationToken,
    ) -> App {
        let (rate, kv) = (config.purge_rate, config.kv_rate);
        App {
            purge_rate: Buckets::new(f64::from(rate.per_second), f64::from(rate.burst)),
            kv_rate: Buckets::new(f64::from(kv.per_second), f64::from(kv.burst)),
            failures: Buckets::new(1.0, FAILURES),
            catching_up: Semaphore::new(CATCHING_UP),
            openapi: openapi::document(),
            config,
            store: Arc::new(store),
            blobs,
            keys,
            fleet: Arc::new(Fleet::default()),
            questions: Arc::default(),
            tails: Arc::default(),
            metrics: Metrics::new(),
            shutdown,
        }
    }
}

/// The API.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let mut router = Router::new();
    for spec in ENDPOINTS {
        let guarded =
            handler(spec.endpoint).layer(from_fn_with_state((app.clone(), spec), guard::guard));
        router = router.route(spec.path, guarded);
    }
    router
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(problem::panicked))
        .with_state(app.clone())
}

fn handler(endpoint: Endpoint) -> MethodRouter<Arc<App>> {
    use MethodFilter as M;
    match endpoint {
        Endpoint::Health => on(M::GET, meta::health),
        Endpoint::Ready => on(M::GET, meta::ready),
        Endpoint::Metrics => on(M::GET, meta::metrics),
        Endpoint::OpenApi => on(M::GET, meta::openapi),
        Endpoint::UploadVersion => on(M::POST, sites::upload),
        Endpoint::ListVersions => on(M::GET, sites::versions),
        Endpoint::GetVersion => on(M::GET, sites::version),
        Endpoint::ListSites => on(M::GET, sites::list),
        Endpoint::GetSite => on(M::GET, sites::get),
        Endpoint::RemoveSite => on(M::DELETE, sites::remove),
        Endpoint::Activate => on(M::PUT, sites::activate),
        Endpoint::Rollback => on(M::POST, sites::rollback),
        Endpoint::CreatePreview => on(M::POST, previews::create),
        Endpoint::ListPreviews => on(M::GET, previews::list),
        Endpoint::RemovePreview => on(M::DELETE, previews::remove),
        Endpoint::PutSecret => on(M::PUT, secrets::put),
        Endpoint::ListSecrets => on(M::GET, secrets::list),
        Endpoint::RemoveSecret => on(M::DELETE, secrets::remove),
        Endpoint::EdgeSecrets => on(M::GET, secrets::for_edge),
        Endpoint::PutEntry => on(M::PUT, kv::put),
        Endpoint::GetEntry => on(M::GET, kv::get),
        Endpoint::RemoveEntry => on(M::DELETE, kv::remove),
        Endpoint::ListEntries => on(M::GET, kv::list),
        Endpoint::EdgePutEntry => on(M::PUT, kv::edge_put),
        Endpoint::EdgeGetEntry => on(M::GET, kv::edge_get),
        Endpoint::EdgeRemoveEntry => on(M::DELETE, kv::edge_remove),
        Endpoint::EdgeListKeys => on(M::GET, kv::edge_list),
        Endpoint::PutBlob => on(M::PUT, blobs::put),
        Endpoint::HeadBlob => on(M::HEAD, blobs::head),
        Endpoint::GetBlob => on(M::GET, blobs::get),
        Endpoint::Purge => on(M::POST, purges::create),
        Endpoint::ListPurges => on(M::GET, purges::list),
        Endpoint::GetPurge => on(M::GET, purges::get),
        Endpoint::Explain => on(M::GET, questions::explain),
        Endpoint::Tail => on(M::GET, tails::stream),
        Endpoint::Enrol => on(M::POST, edges::enrol),
        Endpoint::ListEdges => on(M::GET, edges::list),
        Endpoint::RemoveEdge => on(M::DELETE, edges::remove),
        Endpoint::Report => on(M::POST, edges::report),
        Endpoint::Events => on(M::POST, tails::events),
        Endpoint::ReportUsage => on(M::POST, usage::report),
        Endpoint::Usage => on(M::GET, usage::read),
        Endpoint::Feed => on(M::GET, feed::stream),
        Endpoint::CreateToken => on(M::POST, tokens::create),
        Endpoint::ListTokens => on(M::GET, tokens::list),
        Endpoint::RevokeToken => on(M::DELETE, tokens::revoke),
        Endpoint::CreateTenant => on(M::POST, tokens::create_tenant),
        Endpoint::ListTenants => on(M::GET, tokens::tenants),
        Endpoint::Audit => on(M::GET, meta::audit),
    }
}
