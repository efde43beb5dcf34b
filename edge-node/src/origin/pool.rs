//! The connections to one host and port that are open: handed out, given back, and let go when they
//! have been idle too long. Knows no site and chooses between no hosts.

use super::connect::{Dialer, Sender, Target};
use super::error::{Stage, from_hyper};
use super::exchange::{self, Upload};
use super::{Interim, OriginError};
use crate::body::Body;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a connection may be idle.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// The most idle HTTP/1.1 connections to one host and port.
const MAX_IDLE: usize = 256;
/// The most requests at once on one HTTP/2 connection before another is opened.
const MAX_STREAMS: usize = 100;
/// The most HTTP/2 connections to one host and port; more requests wait their turn on these.
const MAX_H2_CONNECTIONS: usize = 16;
/// How often idle connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// How long a connection whose response is read may take to become ready for the next request.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);

const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

/// All connections to one host and port under one TLS policy.
pub(super) struct Endpoint {
    pub(super) target: Target,
    dialer: Arc<Dialer>,
    open: Mutex<Open>,
    /// What the origin spoke last, so that one HTTP/2 connection is dialled, not one per request.
    protocol: AtomicU8,
    dialling: tokio::sync::Mutex<()>,
    sweeping: AtomicBool,
}

#[derive(Default)]
struct Open {
    /// Least lately used first.
    idle: Vec<(http1::SendRequest<Upload>, Instant)>,
    h2: Vec<H2>,
}

struct H2 {
    sender: http2::SendRequest<Upload>,
    streams: Arc<AtomicUsize>,
    used: Instant,
}

/// A connection in use by one request.
pub(super) struct Lease {
    sender: Option<Sender>,
    endpoint: Arc<Endpoint>,
    streams: Option<Arc<AtomicUsize>>,
    /// Requests went over it before.
    reused: bool,
}

/// Whether a connection that was used before will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Any,
    New,
}

/// Why an attempt failed, and what of the request is left.
pub(super) struct Failure {
    pub(super) error: OriginError,
    /// The request, when none of it was sent.
    pub(super) unsent: Option<Request<Body>>,
    /// No connection could be had at all.
    pub(super) connecting: bool,
    /// The connection was one that had been used before.
    pub(super) reused: bool,
}

/// What an attempt may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) connect: Duration,
    pub(super) first_byte: Duration,
    pub(super) between_bytes: Duration,
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn new(target: Target, dialer: Arc<Dialer>) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            target,
            dialer,
            open: Mutex::default(),
            protocol: AtomicU8::new(UNKNOWN),
            dialling: tokio::sync::Mutex::new(()),
            sweeping: AtomicBool::new(false),
        })
    }

    /// Sends one request, with `Host` set and its URI in origin-form, and waits for the response's
    /// header section.
    pub(super) async fn attempt(
        self: &Arc<Endpoint>,
        request: Request<Body>,
        want: Want,
        patience: Patience,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> Result<Response<Body>, Failure> {
        let mut lease = match self.connection(want, patience.connect).await {
            Ok(lease) => lease,
            Err(error) => {
                return Err(Failure {
                    error,
                    unsent: Some(request),
                    connecting: true,
                    reused: false,
                });
            }
        };
        let reused = lease.reused;
        let failed = |error, unsent| Failure { error, unsent, connecting: false, reused };
        let sent = lease.send(request, self.target.tls, patience.first_byte).await;
        let response = sent.map_err(|(error, unsent)| failed(error, unsent))?;
        exchange::accept(response, Some(lease), permit, patience.between_bytes)
            .map_err(|error| failed(error, None))
    }

    async fn connection(
        self: &Arc<Endpoint>,
        want: Want,
        patience: Duration,
    ) -> Result<Lease, OriginError> {
        if want == Want::Any
            && let Some(lease) = self.checkout()
        {
            return Ok(lease);
        }
        let since = Instant::now();
        let alone = if self.target.tls && self.protocol.load(Ordering::Relaxed) != HTTP1 {
            let late =
                || OriginError::ConnectTimeout { host: self.target.host.clone(), after: patience };
            let guard =
                timeout_at(since + patience, self.dialling.lock()).await.map_err(|_| late())?;
            // Whoever dialled before may have opened what serves this request too.
            if let Some(lease) = self.checkout().filter(|_| want == Want::Any) {
                return Ok(lease);
            }
            // One who found that it speaks HTTP/1.1 lets all others dial at once.
            (self.protocol.load(Ordering::Relaxed) != HTTP1).then_some(guard)
        } else {
            None
        };
        let sender = self.dialer.dial(&self.target, since, patience).await?;
        let lease = self.register(sender);
        drop(alone);
        Ok(lease)
    }

    /// An open connection that can take a request now.
    fn checkout(self: &Arc<Endpoint>) -> Option<Lease> {
        let now = Instant::now();
        let mut open = self.open.lock();
        open.h2.retain(|h2| !h2.sender.is_closed());
        let full = open.h2.len() >= MAX_H2_CONNECTIONS;
        let least = open.h2.iter_mut().min_by_key(|h2| h2.streams.load(Ordering::Relaxed));
        if let Some(h2) = least
            && (full || h2.streams.load(Ordering::Relaxed) < MAX_STREAMS)
        {
            h2.used = now;
            h2.streams.fetch_add(1, Ordering::Relaxed);
            let sender = Sender::H2(h2.sender.clone());
            return Some(self.lease(sender, Some(Arc::clone(&h2.streams)), true));
        }
        while let Some((sender, since)) = open.idle.pop() {
            if now.duration_since(since) >= IDLE_FOR {
                open.idle.clear();
                return None;
            }
            if sender.is_ready() {
                return Some(self.lease(Sender::H1(sender), None, true));
            }
        }
        None
    }

    fn register(self: &Arc<Endpoint>, sender: Sender) -> Lease {
        match sender {
            Sender::H1(sender) => {
                self.protocol.store(HTTP1, Ordering::Relaxed);
                self.lease(Sender::H1(sender), None, false)
            }
            Sender::H2(sender) => {
                self.protocol.store(HTTP2, Ordering::Relaxed);
                let streams = Arc::new(AtomicUsize::new(1));
                let used = Instant::now();
                let h2 = H2 { sender: sender.clone(), streams: Arc::clone(&streams), used };
                self.open.lock().h2.push(h2);
                self.start_sweeping();
                self.lease(Sender::H2(sender), Some(streams), false)
            }
        }
    }

    fn lease(
        self: &Arc<Endpoint>,
        sender: Sender,
        streams: Option<Arc<AtomicUsize>>,
        reused: bool,
    ) -> Lease {
        Lease { sender: Some(sender), endpoint: Arc::clone(self), streams, reused }
    }

    fn keep(self: &Arc<Endpoint>, sender: http1::SendRequest<Upload>) {
        let mut open = self.open.lock();
        if open.idle.len() < MAX_IDLE {
            open.idle.push((sender, Instant::now()));
            drop(open);
            self.start_sweeping();
        }
    }

    /// Lets go of what has been idle too long, as long as there is anything; a task that does not
    /// keep the endpoint alive.
    fn start_sweeping(self: &Arc<Endpoint>) {
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let endpoint = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(endpoint) = endpoint.upgrade() else { return };
                if endpoint.sweep(Instant::now()) == 0 {
                    endpoint.sweeping.store(false, Ordering::Release);
                    // What was given back between the count and the flag starts a sweep anew.
                    if endpoint.sweep(Instant::now()) > 0 {
                        endpoint.start_sweeping();
                    }
                    return;
                }
            }
        });
    }

    /// How many connections are left open.
    fn sweep(&self, now: Instant) -> usize {
        let mut open = self.open.lock();
        open.idle
            .retain(|(sender, since)| !sender.is_closed() && now.duration_since(*since) < IDLE_FOR);
        open.h2.retain(|h2| {
            let in_use = h2.streams.load(Ordering::Relaxed) > 0;
            !h2.sender.is_closed() && (in_use || now.duration_since(h2.used) < IDLE_FOR)
        });
        open.idle.len() + open.h2.len()
    }
}

// === impl Lease ===

impl Lease {
    async fn send(
        &mut self,
        request: Request<Body>,
        tls: bool,
        first_byte: Duration,
    ) -> Result<Response<hyper::body::Incoming>, (OriginError, Option<Request<Body>>)> {
        let http2 = matches!(self.sender, Some(Sender::H2(_)));
        let (parts, content) =
            adapt(request, http2, tls).map_err(|error| (error, None))?.into_parts();
        let (upload, progress) = Upload::new(content);
        let mut request = Request::from_parts(parts, upload);
        if let Some(interim) = request.extensions_mut().remove::<Interim>() {
            interim.watch(&mut request);
        }
        let watched = progress.as_deref();
        let sent = match &mut self.sender {
            Some(Sender::H1(sender)) => {
                exchange::await_head(sender.try_send_request(request), watched, first_byte).await
            }
            Some(Sender::H2(sender)) => {
                exchange::await_head(sender.try_send_request(request), watched, first_byte).await
            }
            None => Err(OriginError::ClosedEarly { cause: "no connection".to_owned() }),
        };
        let mut failure = match sent {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(failure)) => failure,
            Err(error) => return Err((error, None)),
        };
        let unsent = failure.take_message().map(|request| request.map(Upload::into_content));
        let error = match progress.map(|shared| shared.lock().clone()) {
            Some(exchange::Progress::Failed(cause)) => OriginError::RequestBody { cause },
            _ => from_hyper(failure.error(), Stage::Head),
        };
        Err((error, unsent))
    }

    /// Puts the connection back where the next request finds it, once it is ready for one.
    pub(super) fn give_back(mut self) {
        let Some(Sender::H1(mut sender)) = self.sender.take() else { return };
        let endpoint = Arc::clone(&self.endpoint);
        if sender.is_ready() {
            endpoint.keep(sender);
        } else if !sender.is_closed() {
            tokio::spawn(async move {
                if let Ok(Ok(())) = timeout(SETTLE_WITHIN, sender.ready()).await {
                    endpoint.keep(sender);
                }
            });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(streams) = &self.streams {
            streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The request as the protocol has it: origin-form and `Host` in HTTP/1.1 (RFC 9112 section 3.2),
/// `:authority` in HTTP/2 (RFC 9113 section 8.3.1). A request that was not sent comes through here
/// again, for the other protocol perhaps.
pub(super) fn adapt(
    mut request: Request<Body>,
    http2: bool,
    tls: bool,
) -> Result<Request<Body>, OriginError> {
    let invalid = |what| OriginError::InvalidRequest { what };
    let path = request.uri().path_and_query().cloned();
    let path = path.filter(|path| path.as_str().starts_with('/'));
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    if !http2 {
        if let Some(authority) = request.uri().authority() {
            let host = http::HeaderValue::from_str(authority.as_str())
                .map_err(|_| invalid("its host is not one"))?;
            request.headers_mut().entry(HOST).or_insert(host);
        }
        *request.uri_mut() = Uri::from(path);
        *request.version_mut() = Version::HTTP_11;
        return Ok(request);
    }
    let authority = match request.headers_mut().remove(HOST) {
        Some(host) => {
            Authority::try_from(host.as_bytes()).map_err(|_| invalid("its host is not one"))?
        }
        None => request.uri().authority().cloned().ok_or_else(|| invalid("it has no host"))?,
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query = Some(path);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| invalid("its host is not one"))?;
    *request.version_mut() = Version::HTTP_2;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;
    use crate::origin::{OriginSettings, Resolver};
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn a_connection_that_is_idle_too_long_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let closed = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            stream.read(&mut [0; 1]).await.unwrap_or(0) == 0
        });
        let settings = OriginSettings {
            allow_private: true,
            edge_id: Arc::from("edge"),
            resolver: Arc::new(Resolver::new()),
            roots: Arc::new(rustls::RootCertStore::empty()),
            own: Arc::from([]),
        };
        let host = "127.0.0.1".to_owned();
        let target = Target { tls: false, sni: host.clone(), host, port };
        let endpoint = Endpoint::new(target, Arc::new(Dialer::new(Arc::new(settings))));
        let request = Request::builder().uri("/").header(HOST, "a").body(body::empty()).unwrap();
        let long = Duration::from_secs(20);
        let patience = Patience { connect: long, first_byte: long, between_bytes: long };
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let attempt = endpoint.attempt(request, Want::Any, patience, Arc::new(permit)).await;
        let Ok(response) = attempt else { panic!("no response") };
        response.into_body().collect().await.unwrap();
        while endpoint.open.lock().idle.is_empty() {
            tokio::task::yield_now().await;
        }
        let now = Instant::now();
        assert_eq!(endpoint.sweep(now + IDLE_FOR / 2), 1);
        assert_eq!(endpoint.sweep(now + IDLE_FOR * 2), 0);
        assert!(timeout(long, closed).await.unwrap().unwrap(), "the origin sees it closed");
    }
}
