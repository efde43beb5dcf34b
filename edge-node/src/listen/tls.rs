//! Certificates by server name, and the TLS side of a connection's beginning.

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// Where a certificate chain and its key are, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What is wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read as PEM.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Chain and key do not belong together, or the key's kind is not supported.
    #[error("{path}: {reason}")]
    Unusable {
        /// The chain's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// TLS was asked for without any certificate.
    #[error("no certificate is configured; give --cert and --key, or [[certificates]]")]
    None,
}

/// The certificates of an edge, found by SNI; the first one answers those that send none.
#[derive(Debug)]
pub struct Certificates {
    store: Arc<Store>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Store {
    by_name: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
    first: ArcSwap<CertifiedKey>,
}

impl Certificates {
    /// Loads them.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub fn load(files: &[CertificateFiles]) -> Result<Certificates, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (by_name, first) = load_all(files, &provider)?;
        let store =
            Arc::new(Store { by_name: ArcSwap::from_pointee(by_name), first: ArcSwap::new(first) });
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&store) as _;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| CertificateError::Unusable {
                path: PathBuf::new(),
                reason: error.to_string(),
            })?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(4096);
        if let Ok(ticketer) = rustls::crypto::ring::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(Certificates { store, config: Arc::new(config) })
    }

    /// Loads the files again; on a fault the certificates in force stay.
    ///
    /// # Errors
    /// As [`Certificates::load`].
    pub fn reload(&self, files: &[CertificateFiles]) -> Result<(), CertificateError> {
        let (by_name, first) = load_all(files, self.config.crypto_provider())?;
        self.store.by_name.store(Arc::new(by_name));
        self.store.first.store(first);
        Ok(())
    }

    /// The server's side of a handshake.
    ///
    /// # Errors
    /// What ended it.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        start.into_stream(Arc::clone(&self.config)).await
    }
}

/// The name of a protocol's version; a handshake that is over has one.
pub(super) fn version(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "unknown",
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = hello.server_name() else {
            return Some(self.first.load_full());
        };
        let name = name.to_ascii_lowercase();
        let by_name = self.by_name.load();
        if let Some(found) = by_name.get(&name) {
            return Some(Arc::clone(found));
        }
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        wildcard
            .and_then(|wildcard| by_name.get(&wildcard).cloned())
            .or_else(|| Some(self.first.load_full()))
    }
}

type Loaded = (HashMap<String, Arc<CertifiedKey>>, Arc<CertifiedKey>);

fn load_all(
    files: &[CertificateFiles],
    provider: &CryptoProvider,
) -> Result<Loaded, CertificateError> {
    let mut by_name = HashMap::new();
    let mut first = None;
    for pair in files {
        let certified = Arc::new(load_one(pair, provider)?);
        let names = certified.end_entity_cert().ok().map(names_of).unwrap_or_default();
        for name in names {
            by_name.entry(name).or_insert_with(|| Arc::clone(&certified));
        }
        first.get_or_insert(certified);
    }
    Ok((by_name, first.ok_or(CertificateError::None)?))
}

fn load_one(
    pair: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CertificateError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&pair.chain)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(&pair.chain, &error))?;
    if chain.is_empty() {
        return Err(CertificateError::Unreadable {
            path: pair.chain.clone(),
            reason: "no certificate in it".to_owned(),
        });
    }
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|e| unreadable(&pair.key, &e))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| CertificateError::Unusable {
        path: pair.chain.clone(),
        reason: error.to_string(),
    })
}

fn unreadable(path: &Path, error: &rustls_pki_types::pem::Error) -> CertificateError {
    CertificateError::Unreadable { path: path.to_owned(), reason: error.to_string() }
}

/// The DNS names of a certificate (subjectAltName, RFC 5280 section 4.2.1.6), wildcards included.
fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    parsed.valid_dns_names().map(str::to_ascii_lowercase).collect()
}
