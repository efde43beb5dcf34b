//! From a host to a connection that speaks HTTP: resolve, judge the address, TCP, TLS, handshake, all
//! within one time. Connects only to addresses that were judged; no name is resolved twice.

use super::exchange::Upload;
use super::{OriginError, OriginSettings, address};
use crate::body::{Body, BoxError};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The most addresses of one host that are tried for one connection.
const MAX_TRIES: usize = 4;
/// How long the first address has before the next is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// The most bytes of a response's header section, and of content read ahead.
pub(super) const MAX_HEAD_BYTES: usize = 128 * 1024;
/// The most fields of a response.
const MAX_FIELDS: usize = 200;

/// Where a pool's connections go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    /// Whether to speak TLS.
    pub(super) tls: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// The name that the certificate must be for.
    pub(super) sni: String,
}

/// Makes connections; one per TLS policy, so that sessions are resumed within it only.
pub(super) struct Dialer {
    settings: Arc<OriginSettings>,
    tls: TlsConnector,
    /// For what HTTP/2 has no words for.
    tls_http1: TlsConnector,
}

/// A connection that requests can be sent on.
pub(super) enum Sender {
    /// One request at a time.
    H1(http1::SendRequest<Upload>),
    /// Many at once.
    H2(http2::SendRequest<Upload>),
}

// === impl Dialer ===

impl Dialer {
    pub(super) fn new(settings: Arc<OriginSettings>) -> Dialer {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        // The provider has suites for both default versions: this cannot fail, and if it ever did,
        // an empty set of roots would refuse every certificate rather than accept one.
        let builder = match builder.with_safe_default_protocol_versions() {
            Ok(builder) => builder,
            Err(_) => rustls::ClientConfig::builder(),
        };
        let mut config =
            builder.with_root_certificates(Arc::clone(&settings.roots)).with_no_client_auth();
        let mut http1 = config.clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Dialer {
            settings,
            tls: TlsConnector::from(Arc::new(config)),
            tls_http1: TlsConnector::from(Arc::new(http1)),
        }
    }

    pub(super) fn settings(&self) -> &OriginSettings {
        &self.settings
    }

    /// A new connection to `target`, within `patience`, which began at `since`.
    pub(super) async fn dial(
        &self,
        target: &Target,
        since: Instant,
        patience: Duration,
    ) -> Result<Sender, OriginError> {
        let addresses = self.addresses(target, patience).await?;
        // On the heap: a request that finds an open connection does not carry it.
        let connecting = Box::pin(async {
            let stream = connect(target, &addresses).await?;
            if !target.tls {
                return speak_http1(target, stream).await;
            }
            let stream = secure(&self.tls, target, stream).await?;
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                speak_http2(target, stream).await
            } else {
                speak_http1(target, stream).await
            }
        });
        in_time(target, since + patience, patience, connecting).await
    }

    /// A new connection to `target` that can change its protocol, within `patience`, which began at
    /// `since`.
    pub(super) async fn dial_upgrade(
        &self,
        target: &Target,
        since: Instant,
        patience: Duration,
    ) -> Result<http1::SendRequest<Body>, OriginError> {
        let addresses = self.addresses(target, patience).await?;
        let connecting = Box::pin(async {
            let stream = connect(target, &addresses).await?;
            if target.tls {
                let stream = secure(&self.tls_http1, target, stream).await?;
                speak_upgradeable(target, stream).await
            } else {
                speak_upgradeable(target, stream).await
            }
        });
        in_time(target, since + patience, patience, connecting).await
    }

    /// The addresses of `target` that requests may be sent to, at least one.
    pub(super) async fn addresses(
        &self,
        target: &Target,
        patience: Duration,
    ) -> Result<Vec<SocketAddr>, OriginError> {
        let found = self.settings.resolver.resolve(&target.host, patience).await?;
        let mut refused = None;
        let mut allowed = Vec::with_capacity(found.len());
        for ip in found.iter() {
            let address = SocketAddr::new(ip.to_canonical(), target.port);
            match address::forbidden(address, self.settings.allow_private, &self.settings.own) {
                None => allowed.push(address),
                Some(why) => refused = Some((*ip, why)),
            }
        }
        match refused {
            Some((address, why)) if allowed.is_empty() => {
                Err(OriginError::AddressForbidden { host: target.host.clone(), address, why })
            }
            _ => Ok(allowed),
        }
    }
}

/// What comes of `connecting`, unless the time is over first.
async fn in_time<T>(
    target: &Target,
    until: Instant,
    patience: Duration,
    connecting: impl Future<Output = Result<T, OriginError>>,
) -> Result<T, OriginError> {
    let late = || OriginError::ConnectTimeout { host: target.host.clone(), after: patience };
    timeout_at(until, connecting).await.unwrap_or_else(|_| Err(late()))
}

async fn connect(target: &Target, addresses: &[SocketAddr]) -> Result<TcpStream, OriginError> {
    let stream = connect_any(target, addresses).await?;
    // Failing to turn Nagle off costs latency and nothing else.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn secure(
    tls: &TlsConnector,
    target: &Target,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, OriginError> {
    let failed = |error: &dyn std::error::Error| OriginError::TlsFailed {
        host: target.host.clone(),
        cause: error.to_string(),
    };
    let name = ServerName::try_from(target.sni.clone()).map_err(|error| failed(&error))?;
    tls.connect(name, stream).await.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(_)) => OriginError::CertificateRefused {
                host: target.host.clone(),
                cause: error.to_string(),
            },
            _ => failed(&error),
        }
    })
}

/// Connects to the first address that accepts; each next one starts when the one before has failed
/// or had its head start.
async fn connect_any(target: &Target, addresses: &[SocketAddr]) -> Result<TcpStream, OriginError> {
    let mut waiting = interleave(addresses).into_iter().take(MAX_TRIES);
    let mut running = FuturesUnordered::new();
    let mut last = None;
    let start = |address| async move { (address, TcpStream::connect(address).await) };
    running.extend(waiting.next().map(start));
    loop {
        tokio::select! {
            done = running.next() => match done {
                Some((_, Ok(stream))) => return Ok(stream),
                Some((address, Err(error))) => {
                    last = Some((address, error));
                    running.extend(waiting.next().map(start));
                }
                None => break,
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => running.extend(waiting.next().map(start)),
        }
    }
    Err(match last {
        Some((address, error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            OriginError::ConnectionRefused { address }
        }
        Some((_, error)) => {
            OriginError::ConnectFailed { host: target.host.clone(), cause: error.to_string() }
        }
        None => {
            OriginError::DnsFailed { host: target.host.clone(), cause: "no address".to_owned() }
        }
    })
}

/// The addresses, families in turn, the resolver's first choice first (RFC 8305 section 4).
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        addresses.iter().rev().copied().partition(|address| address.is_ipv4() == first_is_v4);
    let mut mixed = Vec::with_capacity(addresses.len());
    while !first.is_empty() || !second.is_empty() {
        mixed.extend(first.pop());
        mixed.extend(second.pop());
    }
    mixed
}

/// HTTP/1.1 within our limits; nothing moves until the connection is polled.
async fn shake_hands<T, B>(
    target: &Target,
    stream: T,
) -> Result<(http1::SendRequest<B>, http1::Connection<TokioIo<T>, B>), OriginError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body<Data = Bytes, Error = BoxError> + 'static,
{
    http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_FIELDS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed_handshake(target, &error))
}

async fn speak_http1<T>(target: &Target, stream: T) -> Result<Sender, OriginError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = shake_hands(target, stream).await?;
    // The task ends when the sender and the last response are gone, or the origin closes.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "origin connection ended");
        }
    });
    Ok(Sender::H1(sender))
}

async fn speak_upgradeable<T>(
    target: &Target,
    stream: T,
) -> Result<http1::SendRequest<Body>, OriginError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = shake_hands(target, stream).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "origin connection ended");
        }
    });
    Ok(sender)
}

async fn speak_http2<T>(target: &Target, stream: T) -> Result<Sender, OriginError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed_handshake(target, &error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "origin connection ended");
        }
    });
    Ok(Sender::H2(sender))
}

fn failed_handshake(target: &Target, error: &hyper::Error) -> OriginError {
    OriginError::ConnectFailed { host: target.host.clone(), cause: error.to_string() }
}

/// The host of a `Host` field without its port and brackets: what a certificate is for.
pub(super) fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => {
            name
        }
        _ => host,
    }
}

/// Whether a host is an address rather than a name.
pub(super) fn is_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let all: Vec<SocketAddr> = ["[2a00::1]:1", "[2a00::2]:1", "1.1.1.1:1", "[2a00::3]:1"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        let mixed: Vec<_> = interleave(&all).iter().map(ToString::to_string).collect();
        assert_eq!(mixed, ["[2a00::1]:1", "1.1.1.1:1", "[2a00::2]:1", "[2a00::3]:1"]);
    }

    #[test]
    fn a_certificate_is_for_the_name_alone() {
        assert_eq!(name_of("web.internal:8443"), "web.internal");
        assert_eq!(name_of("web.internal"), "web.internal");
        assert_eq!(name_of("[::1]:443"), "::1");
        assert_eq!(name_of("::1"), "::1");
    }
}
