//! Upgrades (WebSocket, RFC 6455) passed through untouched: the thin adapter to pingora's proxy, which
//! takes the connection over from the request's first byte on.

use crate::front::Context as Visitor;
use crate::listen::{Io, Rewind};
use crate::origin::outgoing::{strip_hop_by_hop, to_origin};
use crate::origin::{Hop, OriginError, OriginPool, PickedAddress};
use crate::respond::{self, EdgeError};
use crate::serve::{Content, Record};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, StatusCode, Version};
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, Session};
use std::any::Any;
use std::io::{IoSlice, Result};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Silence on a tunnel, in either direction, before it is closed.
const IDLE: Duration = Duration::from_secs(600);

/// The proxy that tunnels run through; one for the process.
pub struct Tunnels {
    proxy: Arc<HttpProxy<Passage>>,
    shutdown: watch::Receiver<bool>,
    // Dropping the sender would look like a shutdown.
    _running: watch::Sender<bool>,
}

impl Tunnels {
    /// A proxy without tunnels yet.
    #[must_use]
    pub fn new() -> Tunnels {
        let mut proxy = HttpProxy::new(Passage::default(), Arc::new(ServerConf::default()));
        proxy.handle_init_modules();
        let (running, shutdown) = watch::channel(false);
        Tunnels { proxy: Arc::new(proxy), shutdown, _running: running }
    }
}

impl Default for Tunnels {
    fn default() -> Self {
        Tunnels::new()
    }
}

/// Passes an upgrade request on to `pool` and then everything both ways, until either side ends.
pub(super) async fn tunnel(
    io: Io,
    head: Bytes,
    rest: &[u8],
    pool: Arc<OriginPool>,
    visitor: Visitor,
) {
    let mut start = BytesMut::with_capacity(head.len() + rest.len());
    start.extend_from_slice(&head);
    start.extend_from_slice(rest);
    let stream = Tunnelled(Rewind::new(start.freeze(), io));
    let mut session = ServerSession::new_http1(Box::new(stream));
    session.set_keepalive(None);
    let tunnels = Arc::clone(&visitor.tunnels);
    session.set_connection_user_context(Some(Box::new(Facts { pool, visitor })));
    let serving = tunnels.proxy.process_new_http(session, &tunnels.shutdown);
    // A request that asked for an upgrade leaves nothing to go on with.
    let _ = serving.await;
}

/// What a tunnel is made from.
struct Facts {
    pool: Arc<OriginPool>,
    visitor: Visitor,
}

/// pingora's hooks.
#[derive(Default)]
struct Passage {
    /// Gives each tunnel a pool of its own in pingora: a connection that was asked to change its
    /// protocol must never serve anyone else.
    count: AtomicU64,
}

#[derive(Default)]
struct Tunnel {
    facts: Option<Facts>,
    picked: Option<PickedAddress>,
    failure: Option<OriginError>,
}

#[async_trait]
impl ProxyHttp for Passage {
    type CTX = Tunnel;

    fn new_ctx(&self) -> Tunnel {
        Tunnel::default()
    }

    fn on_connection_reuse(
        &self,
        _session: &mut Session,
        tunnel: &mut Tunnel,
        context: Box<dyn Any + Send + Sync>,
    ) {
        tunnel.facts = context.downcast::<Facts>().ok().map(|facts| *facts);
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        tunnel: &mut Tunnel,
    ) -> pingora_core::Result<Box<HttpPeer>> {
        let facts = tunnel.facts.as_ref().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        let picked = match facts.pool.pick().await {
            Ok(picked) => picked,
            Err(error) => {
                let status = error.status().as_u16();
                tunnel.failure = Some(error);
                return Error::e_explain(ErrorType::HTTPStatus(status), "no address");
            }
        };
        let timeouts = facts.pool.origin().timeouts;
        let mut peer = HttpPeer::new(picked.addr, picked.tls, picked.sni.clone());
        peer.group_key = self.count.fetch_add(1, Ordering::Relaxed);
        peer.options.connection_timeout = Some(timeouts.connect);
        peer.options.total_connection_timeout = Some(timeouts.connect);
        peer.options.read_timeout = Some(IDLE);
        peer.options.write_timeout = Some(IDLE);
        tunnel.picked = Some(picked);
        Ok(Box::new(peer))
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        tunnel: &mut Tunnel,
        error: Box<Error>,
    ) -> Box<Error> {
        if let (Some(facts), Some(picked)) = (&tunnel.facts, &tunnel.picked) {
            facts.pool.report(picked, false);
        }
        error
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        upstream: &mut RequestHeader,
        tunnel: &mut Tunnel,
    ) -> pingora_core::Result<()> {
        let facts = tunnel.facts.as_ref().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        let origin_host = facts.pool.origin().host.as_deref();
        let mut headers = upstream.headers.clone();
        let protocol = headers.get(UPGRADE).cloned();
        let hop = hop(facts, &headers);
        if let Err(error) = to_origin(&mut headers, &hop, origin_host, &facts.visitor.edge.id) {
            let status = error.status().as_u16();
            tunnel.failure = Some(error);
            return Error::e_explain(ErrorType::HTTPStatus(status), "not to be sent");
        }
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            headers.insert(UPGRADE, protocol);
        }
        let mut outgoing = RequestHeader::build(
            upstream.method.clone(),
            upstream.raw_path(),
            Some(headers.len()),
        )?;
        for (name, value) in &headers {
            outgoing.append_header(name.clone(), value.clone())?;
        }
        outgoing.set_version(Version::HTTP_11);
        *upstream = outgoing;
        Ok(())
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        _tunnel: &mut Tunnel,
    ) -> pingora_core::Result<()> {
        if response.status != StatusCode::SWITCHING_PROTOCOLS {
            let mut headers = response.headers.clone();
            strip_hop_by_hop(&mut headers);
            let gone: Vec<_> = response
                .headers
                .keys()
                .filter(|name| !headers.contains_key(*name))
                .cloned()
                .collect();
            for name in gone {
                // The framing is pingora's to keep.
                if name != http::header::TRANSFER_ENCODING {
                    response.remove_header(&name);
                }
            }
        }
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        tunnel: &mut Tunnel,
    ) -> FailToProxy {
        let gone = *error.esource() == ErrorSource::Downstream;
        let started = session.response_written().is_some();
        let mut code = 0;
        if let (Some(facts), false) = (&tunnel.facts, gone || started) {
            let failure = tunnel.failure.take().unwrap_or_else(|| failure_of(error, facts));
            tracing::debug!(%failure, "upgrade failed");
            let reply =
                respond::error(&EdgeError::Origin(failure), Record::bare(StatusCode::BAD_GATEWAY));
            code = reply.status.as_u16();
            if let Err(error) = write(session, reply).await {
                tracing::debug!(%error, "the visitor is gone");
            }
        }
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }
}

async fn write(session: &mut Session, reply: crate::serve::Reply) -> pingora_core::Result<()> {
    let mut header = ResponseHeader::build(reply.status, Some(reply.headers.len()))?;
    for (name, value) in &reply.headers {
        header.append_header(name.clone(), value.clone())?;
    }
    let body = match reply.content {
        Content::Whole(bytes) => bytes,
        Content::Empty | Content::File(_) | Content::Stream(_) => Bytes::new(),
    };
    session.write_error_response(header, body).await
}

/// What pingora's error means in the origin's words.
fn failure_of(error: &Error, facts: &Facts) -> OriginError {
    let host = facts.pool.origin().name.to_string();
    let after = facts.pool.origin().timeouts.connect;
    let cause = error.to_string();
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => {
            OriginError::ConnectTimeout { host, after }
        }
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => {
            OriginError::FirstByteTimeout { after: IDLE }
        }
        ErrorType::ConnectRefused | ErrorType::ConnectError | ErrorType::ConnectNoRoute => {
            OriginError::ConnectFailed { host, cause }
        }
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert => {
            OriginError::TlsFailed { host, cause }
        }
        ErrorType::InvalidHTTPHeader => OriginError::Protocol { what: cause },
        _ => OriginError::ClosedEarly { cause },
    }
}

fn hop(facts: &Facts, headers: &http::HeaderMap) -> Hop {
    let connection = &facts.visitor.connection;
    let authority = headers.get(http::header::HOST);
    Hop {
        client_ip: connection.peer.ip(),
        scheme: connection.scheme(),
        host: authority.map(|a| crate::admit::host_of(a).into_owned()).unwrap_or_default(),
        version: Version::HTTP_11,
        loops: Hop::loops_of(headers),
    }
}

/// A visitor's stream as pingora wants it.
#[derive(Debug)]
struct Tunnelled(Rewind);

impl AsyncRead for Tunnelled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnelled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Tunnelled {
    async fn shutdown(&mut self) {
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut self.0).await;
    }
}

impl UniqueID for Tunnelled {
    fn id(&self) -> UniqueIDType {
        self.0.socket().as_raw_fd()
    }
}

impl Ssl for Tunnelled {}

impl Peek for Tunnelled {}

impl GetTimingDigest for Tunnelled {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Tunnelled {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Tunnelled {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::new(SocketDigest::from_raw_fd(self.0.socket().as_raw_fd())))
    }
}
