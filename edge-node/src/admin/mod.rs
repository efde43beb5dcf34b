//! The loopback listener for the machine's own people and tools: health, readiness, metrics,
//! explanations and, on a standalone edge, purges. Knows the edge only through [`AdminHooks`].

mod guard;
mod problem;
mod purge_body;
mod purges;
mod routes;
#[cfg(test)]
mod tests;

use futures::future::BoxFuture;
use serde_json::Value;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use verge_config::{PurgeRequest, Revision};

/// What the admin listener asks of the edge.
pub trait AdminHooks: Send + Sync + 'static {
    /// The edge's name, as it stands in receipts.
    fn edge_name(&self) -> String;

    /// Whether visitors may be sent here.
    fn readiness(&self) -> Readiness;

    /// What the edge would do with a GET of `url` with these fields, and why.
    ///
    /// # Errors
    /// In words, why that is not a request that can be explained.
    fn explain(&self, url: &str, fields: &[(String, String)]) -> Result<Value, String>;

    /// Applies a valid purge and returns when it is in force; of a dry run, counts what it would be
    /// for and purges nothing.
    ///
    /// # Errors
    /// Why it is not for this edge to apply.
    fn purge(&self, request: PurgeRequest) -> BoxFuture<'_, Result<PurgeDone, PurgeRefused>>;
}

/// Whether visitors may be sent to this edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// A configuration is in force.
    Ready {
        /// Its revision.
        revision: Revision,
    },
    /// Not now, and why: no configuration yet, draining, …
    NotReady(&'static str),
}

/// A purge in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeDone {
    /// The site, which the request may have left out.
    pub site: String,
    /// Its place in this edge's history.
    pub revision: Revision,
    /// How many stored objects it selected.
    pub matched: u64,
    /// Of a dry run: URLs of some of them.
    pub samples: Vec<String>,
}

/// Why a purge was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PurgeRefused {
    /// The edge belongs to a fleet: a purge here alone would be no purge.
    #[error("this edge follows a control plane: send purges to {control_plane}/v1/purges")]
    Fleet {
        /// The control plane's base URL.
        control_plane: String,
    },
    /// No such site here.
    #[error("this edge serves no site named \"{0}\"")]
    UnknownSite(String),
    /// No configuration is in force yet.
    #[error("no site is in force yet")]
    NotReady,
}

/// Serves the admin listener until `shutdown` completes and the requests under way are answered.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    hooks: Arc<dyn AdminHooks>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, routes::router(hooks)).with_graceful_shutdown(shutdown).await
}
