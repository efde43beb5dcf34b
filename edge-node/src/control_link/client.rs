//! The edge's HTTP/2 client to its control plane: one connection, shared by the feed, reports and
//! components, opened again when it is gone. Knows nothing of what is said over it.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use verge_config::process::Secret;

/// Resolve, TCP, TLS and the HTTP/2 preface together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From a request sent to its response's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that answers no PING for so long is dead.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The feed may be read slowly while a site is built: its window is a part of the connection's, so
/// that reports and components still pass.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// The longest error body that is read.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// Why the control plane did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The control plane's URL cannot be used.
    #[error("control plane URL {url:?}: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No connection.
    #[error("cannot reach the control plane: {0}")]
    Connect(String),
    /// The connection or the stream broke.
    #[error("the connection to the control plane broke: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("the control plane did not answer in time")]
    Timeout,
    /// An answer that is not a success.
    #[error("the control plane answered {status}: {detail}")]
    Status {
        /// Its status.
        status: StatusCode,
        /// Its problem's detail.
        detail: String,
    },
    /// What is asked for may not be read by anybody between.
    #[error(
        "the way to the control plane is plain HTTP over a network; secrets come over https:// only, or \
         from this machine itself"
    )]
    InTheClear,
    /// An answer that cannot be understood.
    #[error("the control plane's answer cannot be understood: {0}")]
    Malformed(String),
}

/// What a request sends.
pub(super) struct Content {
    kind: &'static str,
    bytes: Bytes,
}

/// The client.
pub(super) struct ControlClient {
    scheme: &'static str,
    authority: String,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connection: Mutex<Option<Connection>>,
}

/// The connection, and who may read what goes over it.
#[derive(Clone)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Nobody between can: it is TLS, or it ends on this machine.
    is_private: bool,
}

// === impl Content ===

impl Content {
    /// Bytes as they are.
    pub(super) fn raw(bytes: Bytes) -> Content {
        Content { kind: "application/octet-stream", bytes }
    }
}

impl From<Vec<u8>> for Content {
    /// JSON, written.
    fn from(json: Vec<u8>) -> Content {
        Content { kind: "application/json", bytes: json.into() }
    }
}

// === impl ClientError ===

impl ClientError {
    /// The credential is not, or no longer, good.
    pub(super) fn is_unauthorised(&self) -> bool {
        matches!(self, ClientError::Status { status, .. } if *status == StatusCode::UNAUTHORIZED)
    }

    /// The control plane is away, rather than unwilling.
    pub(super) fn is_away(&self) -> bool {
        matches!(self, ClientError::Connect(_) | ClientError::Broken(_) | ClientError::Timeout)
    }
}

// === impl ControlClient ===

impl ControlClient {
    /// A client for `http://host:port` (HTTP/2 by prior knowledge) or `https://host` (by ALPN, the
    /// certificate checked against `roots`).
    pub(super) fn new(url: &str, roots: Arc<RootCertStore>) -> Result<ControlClient, ClientError> {
        let wrong = |reason| ClientError::Url { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|_| wrong("not a URL"))?;
        let authority = uri.authority().ok_or_else(|| wrong("no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("must not carry user information"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("must have no path and no query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (scheme, port, tls) = match uri.scheme_str() {
            Some("http") => ("http", 80, None),
            Some("https") => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| wrong("its host cannot be in a certificate"))?;
                ("https", 443, Some((connector(roots)?, name)))
            }
            _ => return Err(wrong("must begin with http:// or https://")),
        };
        Ok(ControlClient {
            scheme,
            authority: authority.to_string(),
            port: authority.port_u16().unwrap_or(port),
            host,
            tls,
            connection: Mutex::new(None),
        })
    }

    /// Sends one request and gives the response when it is a success.
    pub(super) async fn send(
        &self,
        method: Method,
        target: &str,
        bearer: &Secret,
        content: Option<Content>,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = self.request(method, target, bearer, content)?;
        exchange(self.connection().await?, request).await
    }

    /// As [`ControlClient::send`], but only over a connection that nobody between can read: nothing is
    /// asked over any other.
    pub(super) async fn get_in_private(
        &self,
        target: &str,
        bearer: &Secret,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = self.request(Method::GET, target, bearer, None)?;
        let connection = self.connection().await?;
        if !connection.is_private {
            return Err(ClientError::InTheClear);
        }
        exchange(connection, request).await
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        bearer: &Secret,
        content: Option<Content>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let uri = format!("{}://{}{target}", self.scheme, self.authority);
        let mut token =
            HeaderValue::from_str(&format!("Bearer {}", bearer.reveal())).map_err(|_| {
                ClientError::Malformed("a credential that is no field value".to_owned())
            })?;
        token.set_sensitive(true);
        let mut request =
            Request::builder().method(method).uri(uri).header(header::AUTHORIZATION, token);
        if let Some(content) = &content {
            request = request.header(header::CONTENT_TYPE, content.kind);
        }
        request
            .body(Full::new(content.map(|content| content.bytes).unwrap_or_default()))
            .map_err(|error| ClientError::Malformed(error.to_string()))
    }

    /// Drops the connection, so that the next request opens a new one.
    pub(super) async fn disconnect(&self) {
        *self.connection.lock().await = None;
    }

    async fn connection(&self) -> Result<Connection, ClientError> {
        let mut current = self.connection.lock().await;
        if let Some(open) = current.as_ref().filter(|open| !open.sender.is_closed()) {
            return Ok(open.clone());
        }
        let new = tokio::time::timeout(CONNECT_TIMEOUT, self.connect())
            .await
            .map_err(|_| ClientError::Timeout)??;
        *current = Some(new.clone());
        Ok(new)
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let lost = |error: std::io::Error| ClientError::Connect(error.to_string());
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(lost)?;
        tcp.set_nodelay(true).map_err(lost)?;
        let Some((connector, name)) = &self.tls else {
            // Who the name led to, not what it says.
            let is_private = tcp.peer_addr().map_err(lost)?.ip().to_canonical().is_loopback();
            return Ok(Connection { sender: handshake(tcp).await?, is_private });
        };
        let tls = connector.connect(name.clone(), tcp).await.map_err(lost)?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ClientError::Connect("it does not speak HTTP/2".to_owned()));
        }
        Ok(Connection { sender: handshake(tls).await?, is_private: true })
    }
}

async fn exchange(
    mut connection: Connection,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ClientError> {
    let response = tokio::time::timeout(HEAD_TIMEOUT, connection.sender.send_request(request))
        .await
        .map_err(|_| ClientError::Timeout)?
        .map_err(|error| ClientError::Broken(chain(&error)))?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    Err(ClientError::Status { status, detail: detail(response).await })
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ClientError::Connect(chain(&error)))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %chain(&error), "control connection ended");
        }
    });
    Ok(sender)
}

fn connector(roots: Arc<RootCertStore>) -> Result<TlsConnector, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Connect(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What an error response says, short and on one line.
async fn detail(response: Response<Incoming>) -> String {
    let read = Limited::new(response.into_body(), ERROR_BODY_MAX).collect();
    let Ok(Ok(body)) = tokio::time::timeout(HEAD_TIMEOUT, read).await else {
        return "no readable reason".to_owned();
    };
    let body = body.to_bytes();
    match serde_json::from_slice::<verge_config::api::Problem>(&body) {
        Ok(problem) => problem.detail,
        Err(_) => String::from_utf8_lossy(&body).chars().take(200).collect(),
    }
}

/// An error with its causes: hyper's own text leaves them out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn in_private_is_over_a_connection_that_nobody_between_can_read() {
        let client = ControlClient::new("http://127.0.0.1:9", Arc::new(RootCertStore::empty()));
        let client = client.unwrap();
        let (near, _far) = tokio::io::duplex(64 * 1024);
        let sender = handshake(near).await.unwrap();
        *client.connection.lock().await = Some(Connection { sender, is_private: false });
        let asked = client.get_in_private("/v1/x", &Secret::new("t")).await;
        assert!(matches!(asked, Err(ClientError::InTheClear)));
        assert!(!ClientError::InTheClear.is_away(), "the feed goes on");
    }
}
