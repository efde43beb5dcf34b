//! What holds for all requests to elsewhere, from the operator's side; plain values.

use super::Resolver;
use std::net::SocketAddr;
use std::sync::Arc;

/// The operator's rules for origins and for handlers' fetches.
#[derive(Clone)]
pub struct OriginSettings {
    /// Whether loopback and private networks may be reached: in standalone mode, or by the
    /// operator's switch. Link-local and unassigned addresses never are.
    pub allow_private: bool,
    /// This edge's name in `CDN-Loop`.
    pub edge_id: Arc<str>,
    /// Resolves all names.
    pub resolver: Arc<Resolver>,
    /// The authorities that origins' certificates are checked against.
    pub roots: Arc<rustls::RootCertStore>,
    /// The edge's own listening addresses, the admin listener's too, and the control plane's: never
    /// origins.
    pub own: Arc<[SocketAddr]>,
}

/// The authorities that the machine trusts. What cannot be read is left out and logged; with none at
/// all, every TLS origin is refused.
#[must_use]
pub fn native_roots() -> Arc<rustls::RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "an authority's certificate cannot be read");
    }
    let mut roots = rustls::RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "authorities of the machine loaded");
    Arc::new(roots)
}
