//! Origins over TLS: whom the edge believes, and HTTP/2 where the origin speaks it.

use super::support::*;
use bytes::Bytes;
use http::Response;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use verge_config::site::OriginUrl;
use verge_edge::origin::{OriginError, OriginPool, OriginSettings, Resolver};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Authority { issuer: Issuer::new(params, key), roots: Arc::new(roots) }
    }

    fn acceptor(&self, name: &str, alpn: &[&[u8]]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// An origin over TLS that answers each request with the `Host` or `:authority` it was asked by.
struct Secure {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    resumed: Arc<AtomicUsize>,
}

async fn secure(acceptor: TlsAcceptor) -> Secure {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let secure = Secure {
        address: listener.local_addr().unwrap(),
        connections: Arc::default(),
        at_once: Arc::default(),
        resumed: Arc::default(),
    };
    let (connections, at_once, resumed) =
        (secure.connections.clone(), secure.at_once.clone(), secure.resumed.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, at_once) = (acceptor.clone(), at_once.clone());
            let (connections, resumed) = (connections.clone(), resumed.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                connections.fetch_add(1, Ordering::SeqCst);
                let session = &stream.get_ref().1;
                if session.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                    resumed.fetch_add(1, Ordering::SeqCst);
                }
                if session.alpn_protocol() == Some(b"h2") {
                    serve_http2(stream, at_once).await;
                } else {
                    serve_http1(stream).await;
                }
            });
        }
    });
    secure
}

async fn serve_http1(mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut head).await, Ok(read) if read > 0) {
            return;
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let length = host.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{host}");
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn serve_http2<T>(stream: T, at_once: Arc<AtomicUsize>)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let under_way = Arc::new(AtomicUsize::new(0));
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let now = under_way.fetch_add(1, Ordering::SeqCst) + 1;
        at_once.fetch_max(now, Ordering::SeqCst);
        let under_way = under_way.clone();
        tokio::spawn(async move {
            assert!(request.headers().get("host").is_none(), "the authority is said once");
            let authority = request.uri().authority().unwrap().to_string();
            let scheme = request.uri().scheme_str().unwrap().to_owned();
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut sending = respond.send_response(Response::new(()), false).unwrap();
            let answer = Bytes::from(format!("{scheme}://{authority}"));
            sending.send_data(answer, true).unwrap();
            under_way.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn pool(
    secure: &Secure,
    roots: &Arc<RootCertStore>,
    name: &str,
    host: Option<&str>,
) -> Arc<OriginPool> {
    let resolver = Resolver::with_lookup(Arc::new(|_| Ok(vec![IpAddr::from([127, 0, 0, 1])])));
    let settings =
        OriginSettings { resolver: Arc::new(resolver), roots: Arc::clone(roots), ..settings() };
    let to = OriginUrl { tls: true, host: name.to_owned(), port: secure.address.port(), weight: 1 };
    let mut described = origin(vec![to], patient());
    described.host = host.map(str::to_owned);
    pool_of(described, settings)
}

#[tokio::test]
async fn a_certificate_must_be_for_the_name_and_by_a_trusted_authority() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let web = secure(ours.acceptor("web.test", &[b"http/1.1"])).await;
    // The control.
    let good = pool(&web, &ours.roots, "web.test", None);
    assert_eq!(fetch(&good).await.unwrap().1, "shop.example");
    // The certificate is checked against the origin's own host when it has one.
    let by_host = pool(&web, &ours.roots, "lb.test", Some("web.test:8443"));
    assert_eq!(fetch(&by_host).await.unwrap().1, "web.test:8443");
    for bad in [
        pool(&web, &theirs.roots, "web.test", None),
        pool(&web, &Arc::new(RootCertStore::empty()), "web.test", None),
        pool(&web, &ours.roots, "other.test", None),
        pool(&web, &ours.roots, "web.test", Some("other.test")),
        pool(&web, &ours.roots, "127.0.0.1", None),
    ] {
        let error = fetch(&bad).await.unwrap_err();
        assert!(matches!(error, OriginError::CertificateRefused { .. }), "{error:?}");
        assert_eq!(
            (error.status().as_u16(), error.proxy_status_error()),
            (502, "tls_certificate_error")
        );
    }
    assert_eq!(ask_upgrade(&by_host).await.unwrap(), (200, "web.test:8443".to_owned()));
    let error = ask_upgrade(&pool(&web, &theirs.roots, "web.test", None)).await.unwrap_err();
    assert!(matches!(error, OriginError::CertificateRefused { .. }), "{error:?}");
    // HTTP/2 has no Upgrade (RFC 9113 section 8.2.2), so it is not what is spoken.
    let both = secure(ours.acceptor("web.test", &[b"h2", b"http/1.1"])).await;
    let both = pool(&both, &ours.roots, "web.test", None);
    assert_eq!(ask_upgrade(&both).await.unwrap(), (200, "shop.example".to_owned()));
}

#[tokio::test]
async fn what_is_not_tls_is_told_as_such() {
    let plain = Scripted::start(|_, _| Act::SayAndClose(Vec::new())).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    let talks = Secure {
        address,
        connections: Arc::default(),
        at_once: Arc::default(),
        resumed: Arc::default(),
    };
    let pool = pool(&talks, &Authority::new().roots, "web.test", None);
    let error = fetch(&pool).await.unwrap_err();
    assert!(matches!(error, OriginError::TlsFailed { .. }), "{error:?}");
    assert_eq!((error.status().as_u16(), error.proxy_status_error()), (502, "tls_protocol_error"));
    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn many_requests_share_one_http2_connection() {
    let authority = Authority::new();
    let web = secure(authority.acceptor("web.test", &[b"h2", b"http/1.1"])).await;
    let pool = pool(&web, &authority.roots, "web.test", Some("web.internal"));
    // The origin's own host has the say in the certificate.
    assert!(matches!(fetch(&pool).await, Err(OriginError::CertificateRefused { .. })));
    let pool = self::pool(&web, &authority.roots, "web.test", None);
    let all = (0..60).map(|_| fetch(&pool));
    for answer in futures::future::join_all(all).await {
        assert_eq!(answer.unwrap().1, "https://shop.example");
    }
    assert_eq!(web.connections.load(Ordering::SeqCst), 1);
    assert!(web.at_once.load(Ordering::SeqCst) > 10);
    // More than one connection is to carry opens another.
    let all = (0..150).map(|_| fetch(&pool));
    for answer in futures::future::join_all(all).await {
        assert_eq!(answer.unwrap().1, "https://shop.example");
    }
    let connections = web.connections.load(Ordering::SeqCst);
    assert!((2..=3).contains(&connections), "{connections} connections");
}

#[tokio::test]
async fn sessions_are_resumed() {
    let authority = Authority::new();
    let web = secure(authority.acceptor("web.test", &[b"http/1.1"])).await;
    let pool = pool(&web, &authority.roots, "web.test", None);
    for _ in 0..6 {
        fetch(&pool).await.unwrap();
    }
    assert_eq!(web.connections.load(Ordering::SeqCst), 6, "each answer closes its connection");
    assert!(web.resumed.load(Ordering::SeqCst) >= 3);
}

/// What an HTTP/2 origin does with its first request; later ones are answered.
#[derive(Clone, Copy, Debug)]
enum First {
    Refuses,
    Resets,
    ResetsMidway,
    SaysTooLittle,
    SaysTooMuch,
}

async fn misbehaving(acceptor: TlsAcceptor, first: First) -> Secure {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, requests) = (acceptor.clone(), counted.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, respond))) = connection.accept().await {
                    misbehave(respond, first, requests.fetch_add(1, Ordering::SeqCst));
                }
            });
        }
    });
    Secure { address, connections: requests, at_once: Arc::default(), resumed: Arc::default() }
}

fn misbehave(mut respond: h2::server::SendResponse<Bytes>, first: First, request: usize) {
    let ok = |length: &str| Response::builder().header("content-length", length).body(()).unwrap();
    if request > 0 {
        let mut sending = respond.send_response(ok("5"), false).unwrap();
        sending.send_data(Bytes::from("hello"), true).unwrap();
        return;
    }
    match first {
        First::Refuses => respond.send_reset(h2::Reason::REFUSED_STREAM),
        First::Resets => respond.send_reset(h2::Reason::INTERNAL_ERROR),
        First::ResetsMidway => {
            let mut sending = respond.send_response(ok("5"), false).unwrap();
            sending.send_data(Bytes::from("he"), false).unwrap();
            sending.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        First::SaysTooLittle => {
            let mut sending = respond.send_response(ok("6"), false).unwrap();
            sending.send_data(Bytes::from("hello"), true).unwrap();
        }
        First::SaysTooMuch => {
            let mut sending = respond.send_response(ok("4"), false).unwrap();
            sending.send_data(Bytes::from("hello"), true).unwrap();
        }
    }
}

#[tokio::test]
async fn faults_of_http2_have_their_names_too() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("web.test", &[b"h2"]);
    // A refused stream was not worked on: it is asked again.
    let web = misbehaving(acceptor.clone(), First::Refuses).await;
    let refused = pool(&web, &authority.roots, "web.test", None);
    assert_eq!(fetch(&refused).await.unwrap().1, "hello");
    assert_eq!(web.connections.load(Ordering::SeqCst), 2);
    for first in [First::Resets, First::ResetsMidway, First::SaysTooLittle, First::SaysTooMuch] {
        let web = misbehaving(acceptor.clone(), first).await;
        let pool = pool(&web, &authority.roots, "web.test", None);
        let error = fetch(&pool).await.unwrap_err();
        let named = matches!(error, OriginError::Protocol { .. } | OriginError::Incomplete { .. });
        assert!(named, "{first:?}: {error:?}");
        assert_eq!(web.connections.load(Ordering::SeqCst), 1, "{first:?} is not asked for twice");
        // The control: the next request is answered.
        assert_eq!(fetch(&pool).await.unwrap().1, "hello", "{first:?}");
    }
}
