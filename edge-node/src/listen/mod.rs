//! From a socket to a connection: accept, cap, TLS by SNI, deadlines. Knows nothing of HTTP beyond the
//! protocol that ALPN or the preface chose.

mod clients;
mod io;
mod tls;

pub use io::{Io, Rewind};
pub use tls::{CertificateError, CertificateFiles, Certificates};

use crate::front;
use crate::serve::Edge;
use crate::telemetry;
use clients::Clients;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a listener holds its visitors to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections on all listeners together.
    pub connections: usize,
    /// Open connections of one client: an IPv4 address, or a network of 64 bits of IPv6.
    pub connections_per_client: usize,
    /// A whole TLS handshake.
    pub handshake: Duration,
    /// A whole request header section, from its first byte.
    pub header: Duration,
    /// Silence on a connection between two requests.
    pub idle: Duration,
    /// Silence within a request's content, or of a visitor that does not take the response.
    pub stall: Duration,
    /// Bytes of a request's header section.
    pub header_bytes: usize,
    /// Fields of a request.
    pub header_fields: usize,
    /// Streams at once on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 50_000,
            connections_per_client: 1_024,
            handshake: Duration::from_secs(8),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            header_bytes: 64 * 1024,
            header_fields: 100,
            streams: 128,
        }
    }
}

/// The facts of a connection that requests are judged by.
#[derive(Debug)]
pub struct Connection {
    /// The visitor's address.
    pub peer: SocketAddr,
    /// Present when the connection is encrypted.
    pub tls: Option<TlsFacts>,
}

/// What the TLS handshake told.
#[derive(Debug)]
pub struct TlsFacts {
    /// The name that the visitor asked a certificate for.
    pub sni: Option<String>,
    /// The protocol's version, as in `TLSv1.3`.
    pub version: &'static str,
}

impl Connection {
    /// The name that the visitor asked a certificate for, on an encrypted connection.
    #[must_use]
    pub fn sni(&self) -> Option<&str> {
        self.tls.as_ref()?.sni.as_deref()
    }

    /// `https` on an encrypted connection, `http` otherwise.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// Everything that the listeners of one edge share.
#[derive(Clone)]
pub struct Listeners {
    edge: Arc<Edge>,
    limits: Limits,
    slots: Arc<Semaphore>,
    clients: Arc<Clients>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Listeners {
    /// Listeners that end when `shutdown` is cancelled.
    #[must_use]
    pub fn new(edge: Arc<Edge>, limits: Limits, shutdown: CancellationToken) -> Self {
        let slots = Arc::new(Semaphore::new(limits.connections));
        let clients = Clients::new(limits.connections_per_client);
        Listeners { edge, limits, slots, clients, tasks: TaskTracker::new(), shutdown }
    }

    /// Takes connections in the clear: HTTP/1.1, and HTTP/2 with prior knowledge.
    pub fn serve_plain(&self, listener: TcpListener) {
        self.serve(listener, None);
    }

    /// Takes TLS connections.
    pub fn serve_tls(&self, listener: TcpListener, certificates: Arc<Certificates>) {
        self.serve(listener, Some(certificates));
    }

    /// Waits until every connection is done, or for `patience`.
    pub async fn drained(&self, patience: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }

    fn serve(&self, listener: TcpListener, certificates: Option<Arc<Certificates>>) {
        let this = self.clone();
        self.tasks.spawn(async move { this.accept_loop(listener, certificates).await });
    }

    async fn accept_loop(&self, listener: TcpListener, certificates: Option<Arc<Certificates>>) {
        loop {
            // A slot first: when all are taken, new connections wait in the kernel's queue.
            let slot = tokio::select! {
                slot = Arc::clone(&self.slots).acquire_owned() => slot,
                () = self.shutdown.cancelled() => return,
            };
            let Ok(slot) = slot else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer, certificates.clone(), slot),
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// Goes on with a connection beside the loop, unless its client has as many as it may: then it is
    /// closed at once, so that the slot is there for somebody else.
    fn take(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        certificates: Option<Arc<Certificates>>,
        slot: OwnedSemaphorePermit,
    ) {
        let metrics = telemetry::metrics();
        let Some(seat) = self.clients.seat(peer) else {
            metrics.connections_refused.inc();
            tracing::debug!(%peer, "connection refused: its client has as many as it may");
            return;
        };
        metrics.connections.inc();
        let this = self.clone();
        let open = metrics.connection_open();
        self.tasks.spawn(async move {
            this.connection(stream, peer, certificates).await;
            drop((seat, slot, open));
        });
    }

    async fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        certificates: Option<Arc<Certificates>>,
    ) {
        let _ = stream.set_nodelay(true);
        match self.establish(stream, peer, certificates).await {
            Ok((io, connection, http2)) => {
                let context = front::Context {
                    edge: Arc::clone(&self.edge),
                    connection: Arc::new(connection),
                    limits: self.limits,
                    shutdown: self.shutdown.clone(),
                };
                front::run(io, context, http2).await;
            }
            Err(error) => tracing::debug!(%peer, %error, "connection not established"),
        }
    }

    async fn establish(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        certificates: Option<Arc<Certificates>>,
    ) -> Result<(Io, Connection, Option<bool>)> {
        let Some(certificates) = certificates else {
            return Ok((Io::plain(stream), Connection { peer, tls: None }, None));
        };
        let handshake = certificates.accept(stream);
        let stream = tokio::time::timeout(self.limits.handshake, handshake)
            .await
            .unwrap_or_else(|_| Err(Error::new(std::io::ErrorKind::TimedOut, "TLS handshake")))
            .inspect_err(|_| telemetry::metrics().tls_failures.inc())?;
        let (_, session) = stream.get_ref();
        let sni = session.server_name().map(str::to_ascii_lowercase);
        let version = tls::version(session.protocol_version());
        let http2 = session.alpn_protocol() == Some(b"h2");
        let connection = Connection { peer, tls: Some(TlsFacts { sni, version }) };
        Ok((Io::tls(stream), connection, Some(http2)))
    }
}

/// Out of file descriptors or memory: the queue will not get shorter by asking again at once.
async fn pause_after(error: &Error) {
    tracing::warn!(%error, at = ?SystemTime::now(), "accept failed");
    tokio::time::sleep(Duration::from_millis(20)).await;
}
