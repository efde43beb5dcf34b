//! What the tests of the fronts share: a context without sites, files to send, and both ends of a
//! connection, in the clear or encrypted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::Context;
use crate::body::file::FilePart;
use crate::kv::{Alone, Kv};
use crate::listen::{CertificateFiles, Certificates, Connection, Io, Limits};
use crate::origin::{OriginSettings, Resolver};
use crate::serve::{Content, Edge, Record, Reply};
use crate::snapshot::{Snapshot, SnapshotCell};
use crate::tail::Tails;
use http::{HeaderMap, StatusCode};
use rustls::RootCertStore;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use verge_cache::{Cache, Settings};
use verge_config::Revision;

pub(super) fn context(limits: Limits) -> Context {
    let settings = Arc::new(OriginSettings {
        allow_private: true,
        edge_id: Arc::from("test-edge"),
        resolver: Arc::new(Resolver::new()),
        roots: Arc::new(RootCertStore::empty()),
        own: Arc::from([]),
    });
    let edge = Edge {
        id: Arc::from("test-edge"),
        snapshot: Arc::new(SnapshotCell::from_pointee(Snapshot::new(Revision(1), []))),
        cache: Cache::new(Settings::default()),
        origins: settings,
        tails: Arc::new(Tails::new(Arc::from("test-edge"), None)),
        kv: Arc::new(Kv::Alone(Alone::new(1 << 20))),
        countries: None,
    };
    Context {
        edge: Arc::new(edge),
        connection: Arc::new(Connection { peer: ([127, 0, 0, 1], 1).into(), tls: None }),
        limits,
        shutdown: CancellationToken::new(),
    }
}

/// A file, and what is to be sent of it.
pub(super) struct Stored {
    pub(super) part: FilePart,
    pub(super) bytes: Vec<u8>,
    pub(super) file: tempfile::NamedTempFile,
}

impl Stored {
    /// A file of something else, `length` bytes of content, and something else again.
    pub(super) fn new(length: usize) -> Stored {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..length).map(|at| (at / 251 + at % 251) as u8).collect();
        let offset = 4099;
        file.write_all(&vec![0xAA; offset]).unwrap();
        file.write_all(&bytes).unwrap();
        file.write_all(&[0xBB; 777]).unwrap();
        let open = Arc::new(verge_cache::OpenFile::new(File::open(file.path()).unwrap()));
        let part = FilePart { file: open, offset: offset as u64, len: length as u64 };
        Stored { part, bytes, file }
    }

    /// Makes the file end after so many bytes of content.
    pub(super) fn cut(&self, length: u64) {
        self.file.as_file().set_len(self.part.offset + length).unwrap();
    }

    pub(super) fn reply(&self) -> Reply {
        Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            content: Content::File(self.part.clone()),
            record: Record::bare(StatusCode::OK),
        }
    }
}

/// Both ends of a TCP connection: the edge's and the visitor's.
pub(super) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let visitor = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (edge, _) = listener.accept().await.unwrap();
    (edge, visitor)
}

/// Both ends of a TLS connection.
pub(super) async fn tls_pair() -> (Io, tokio_rustls::client::TlsStream<TcpStream>) {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let chain = folder.path().join("chain.pem");
    let key = folder.path().join("key.pem");
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let certificates = Certificates::load(&[CertificateFiles { chain, key }]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (edge, visitor) = pair().await;
    let name = rustls_pki_types::ServerName::try_from("a.example").unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let (edge, visitor) = tokio::join!(certificates.accept(edge), connector.connect(name, visitor));
    (Io::tls(edge.unwrap()), visitor.unwrap())
}
