//! Proxies that change the version of HTTP and nothing else: what speaks HTTP/1.1 alone gets to meet
//! the edge by HTTP/2, as a client or as an origin. They may not add, drop or join fields.

use crate::tls::Certificate;
use http::header::{CONNECTION, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::server::conn::{http1 as server1, http2 as server2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Fields that belong to one connection of HTTP/1.1 and have no place in HTTP/2
/// (RFC 9113 section 8.2.2).
const OF_THE_CONNECTION: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A proxy on a loopback port of its own; gone when it is dropped.
pub struct Bridge {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Bridge {
    /// Takes HTTP/1.1 and sends it on by HTTP/2 with prior knowledge.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to_http2(target: SocketAddr) -> Bridge {
        Bridge::start(move |stream| async move {
            let _ = upgrade(stream, target).await;
        })
        .await
    }

    /// Takes HTTP/2 over TLS, with this certificate, and sends it on by HTTP/1.1.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn from_http2(target: SocketAddr, certificate: &Certificate) -> Bridge {
        let acceptor = TlsAcceptor::from(Arc::new(certificate.server(&["h2"])));
        Bridge::start(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let _ = downgrade(acceptor, stream, target).await;
            }
        })
        .await
    }

    async fn start<F, A>(serve: F) -> Bridge
    where
        F: Fn(TcpStream) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                open.spawn(serve(stream));
                while open.try_join_next().is_some() {}
            }
        });
        Bridge { address, task }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection of HTTP/1.1, carried by one of HTTP/2. An error of a stream ends it without a word,
/// as the end of a connection does in HTTP/1.1.
async fn upgrade(stream: TcpStream, target: SocketAddr) -> io::Result<()> {
    let onward = TcpStream::connect(target).await?;
    onward.set_nodelay(true)?;
    let (sender, connection) = client2::handshake(TokioExecutor::new(), TokioIo::new(onward))
        .await
        .map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut sender = sender.clone();
        async move {
            let request = absolute(request)?;
            sender.ready().await.map_err(io::Error::other)?;
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(as_version(response, Version::HTTP_11))
        }
    });
    let served = server1::Builder::new()
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    connection.abort();
    served.map_err(io::Error::other)
}

/// One connection of HTTP/2 over TLS; each of its streams has a connection of HTTP/1.1.
async fn downgrade(acceptor: TlsAcceptor, stream: TcpStream, target: SocketAddr) -> io::Result<()> {
    let stream = acceptor.accept(stream).await?;
    let service = service_fn(move |request: Request<Incoming>| async move {
        let onward = TcpStream::connect(target).await?;
        onward.set_nodelay(true)?;
        let (mut sender, connection) =
            client1::handshake(TokioIo::new(onward)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let request = relative(request)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok::<_, io::Error>(as_version(response, Version::HTTP_2))
    });
    server2::Builder::new(TokioExecutor::new())
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

fn as_version(mut response: Response<Incoming>, version: Version) -> Response<Incoming> {
    *response.version_mut() = version;
    remove_connection_fields(response.headers_mut());
    response
}

fn remove_connection_fields(fields: &mut HeaderMap) {
    // Those that `Connection` names are of the connection too (RFC 9110 section 7.6.1).
    let named: Vec<String> = fields
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named {
        fields.remove(name);
    }
    for name in OF_THE_CONNECTION {
        fields.remove(name);
    }
}

/// `Host` becomes `:authority`.
fn absolute(mut request: Request<Incoming>) -> io::Result<Request<Incoming>> {
    let host = request.headers_mut().remove(HOST).ok_or_else(|| wrong("no Host"))?;
    let uri = Uri::builder()
        .scheme("http")
        .authority(host.as_bytes())
        .path_and_query(path(&request))
        .build()
        .map_err(|error| wrong(&error.to_string()))?;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    remove_connection_fields(request.headers_mut());
    Ok(request)
}

/// `:authority` becomes `Host`.
fn relative(mut request: Request<Incoming>) -> io::Result<Request<Incoming>> {
    let host = request.uri().authority().ok_or_else(|| wrong("no :authority"))?.to_string();
    let host = host.parse().map_err(|_| wrong(&host))?;
    *request.uri_mut() = Uri::from(path(&request));
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

fn path(request: &Request<Incoming>) -> PathAndQuery {
    request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
