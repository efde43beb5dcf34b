//! The sockets of an edge: bound before anything else starts, so that a taken port is found at once.

use super::hooks::Hooks;
use super::{Addresses, RunError};
use crate::admin;
use crate::listen::{Certificates, Listeners};
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use verge_config::process::edge::EdgeConfig;

/// Sockets that are bound and not yet served.
pub(super) struct Sockets {
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
    admin: Option<TcpListener>,
}

impl Sockets {
    pub(super) async fn bind(config: &EdgeConfig) -> Result<Sockets, RunError> {
        let mut sockets = Sockets { http: Vec::new(), https: Vec::new(), admin: None };
        for address in &config.listen.http {
            sockets.http.push(bind(*address).await?);
        }
        for address in &config.listen.https {
            sockets.https.push(bind(*address).await?);
        }
        if let Some(address) = config.admin {
            sockets.admin = Some(bind(address).await?);
        }
        Ok(sockets)
    }

    pub(super) fn addresses(&self) -> Addresses {
        let of = |listeners: &[TcpListener]| {
            listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
        };
        Addresses {
            http: of(&self.http),
            https: of(&self.https),
            admin: self.admin.as_ref().and_then(|admin| admin.local_addr().ok()),
        }
    }

    pub(super) fn serve(
        self,
        listeners: &Listeners,
        certificates: Option<Arc<Certificates>>,
        hooks: Arc<Hooks>,
        shutdown: &CancellationToken,
    ) -> Option<JoinHandle<io::Result<()>>> {
        for socket in self.http {
            listeners.serve_plain(socket);
        }
        if let Some(certificates) = certificates {
            for socket in self.https {
                listeners.serve_tls(socket, Arc::clone(&certificates));
            }
        }
        let end = shutdown.clone().cancelled_owned();
        self.admin.map(|socket| tokio::spawn(admin::serve(socket, hooks, end)))
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Bind { address, source })
}

/// Writes the addresses in one step, so that a reader finds all of them or none.
pub(super) fn write_addresses(path: &Path, addresses: &Addresses) -> Result<(), RunError> {
    let mut lines = String::new();
    let all = [("http", &addresses.http), ("https", &addresses.https)];
    for (name, listeners) in all {
        for address in listeners {
            let _ = writeln!(lines, "{name}={address}");
        }
    }
    if let Some(admin) = addresses.admin {
        let _ = writeln!(lines, "admin={admin}");
    }
    let fresh = path.with_extension("tmp");
    std::fs::write(&fresh, lines)
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(|source| RunError::File { path: path.to_owned(), source })
}

pub(super) fn tell(addresses: &Addresses) {
    for address in &addresses.http {
        tracing::info!("listening on http://{address}");
    }
    for address in &addresses.https {
        tracing::info!("listening on https://{address}");
    }
    if let Some(address) = addresses.admin {
        tracing::info!("admin on http://{address}");
    }
}
