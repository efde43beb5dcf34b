//! Certificates made for a test, and clients that trust them.

use crate::http1::{Http1, Stream};
use crate::http2::Http2;
use crate::wait::within;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A self-signed certificate in two files.
pub struct Certificate {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Makes one for the names given.
    ///
    /// # Panics
    /// When the folder cannot be written.
    #[must_use]
    pub fn make(folder: &Path, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let file = names[0].replace('*', "any");
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let cert = folder.join(format!("{file}.cert.pem"));
        let key = folder.join(format!("{file}.key.pem"));
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Certificate { cert, key, der: made.cert.der().clone() }
    }

    /// What a server needs to show it, offering these protocols.
    ///
    /// # Panics
    /// When its files cannot be read.
    #[must_use]
    pub fn server(&self, protocols: &[&str]) -> ServerConfig {
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// Whether a connection was shown this certificate.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        self.der.as_ref() == shown
    }
}

/// A TLS connection, and what it agreed on.
pub struct Tls {
    /// The stream.
    pub stream: Box<dyn Stream>,
    /// The protocol agreed by ALPN.
    pub protocol: Option<Vec<u8>>,
    /// The certificate that the server showed.
    pub shown: Vec<u8>,
}

/// Connects with an SNI and the protocols offered, trusting the certificates given.
///
/// # Panics
/// When the handshake fails.
pub async fn connect(
    address: SocketAddr,
    sni: &str,
    protocols: &[&str],
    trusted: &[&Certificate],
) -> Tls {
    try_connect(address, sni, protocols, trusted).await.unwrap()
}

/// Connects with an SNI and the protocols offered, trusting the certificates given.
///
/// # Errors
/// When the handshake fails.
///
/// # Panics
/// When nobody listens there.
pub async fn try_connect(
    address: SocketAddr,
    sni: &str,
    protocols: &[&str],
    trusted: &[&Certificate],
) -> std::io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    let stream = within("to connect", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = within("a TLS handshake", connector.connect(name, stream)).await?;
    let (_, session) = stream.get_ref();
    let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
    let shown = session.peer_certificates().unwrap()[0].as_ref().to_vec();
    Ok(Tls { stream: Box::new(stream), protocol, shown })
}

impl Tls {
    /// An HTTP/1.1 client over it.
    #[must_use]
    pub fn http1(self) -> Http1 {
        Http1::over(self.stream)
    }

    /// An HTTP/2 client over it.
    pub async fn http2(self) -> Http2 {
        Http2::over(self.stream, "https").await
    }
}
