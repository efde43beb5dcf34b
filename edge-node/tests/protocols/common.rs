//! An edge in this process, on real sockets, in front of a scripted origin; for the tests of the fronts.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use verge_cache::{Cache, Settings};
use verge_config::Revision;
use verge_config::site::{Context, Site, SiteDocument};
use verge_edge::listen::{Limits, Listeners};
use verge_edge::origin::{OriginPool, OriginSettings, Resolver, native_roots};
use verge_edge::serve::Edge;
use verge_edge::snapshot::{Parts, SiteRuntime, Snapshot, SnapshotCell};
use verge_edge::tail::Tails;

/// An edge that stops when it is dropped.
pub struct Served {
    pub addr: SocketAddr,
    pub edge: Arc<Edge>,
    shutdown: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Serves a site file (TOML) on a port of its own.
pub async fn serve(site: &str) -> Served {
    serve_with(site, Limits::default()).await
}

pub async fn serve_with(site: &str, limits: Limits) -> Served {
    let document = SiteDocument::from_toml(site).expect("the test's site file parses");
    let site = Arc::new(Site::from_document(&document, Context::Standalone).expect("is valid"));
    let settings = Arc::new(OriginSettings {
        allow_private: true,
        edge_id: Arc::from("test-edge"),
        resolver: Arc::new(Resolver::new()),
        roots: native_roots(),
        own: Arc::from([]),
    });
    let origins = site
        .origins
        .iter()
        .map(|(name, origin)| {
            let pool = OriginPool::new(Arc::clone(origin), Arc::clone(&settings));
            (name.clone(), Arc::new(pool))
        })
        .collect();
    let runtime = SiteRuntime::new(Parts {
        site,
        version: 0,
        revision: Revision(1),
        digest: Arc::from("test"),
        origins,
        handlers: Default::default(),
        secrets: Default::default(),
        gate: Arc::new(verge_edge::handlers::Gate::new(1, 1)),
    });
    let snapshot = Snapshot::new(Revision(1), [Arc::new(runtime)]);
    let edge = Arc::new(Edge {
        kv: Arc::new(verge_edge::kv::Kv::Alone(verge_edge::kv::Alone::new(1 << 20))),
        id: Arc::from("test-edge"),
        snapshot: Arc::new(SnapshotCell::from_pointee(snapshot)),
        cache: Cache::new(Settings::default()),
        origins: settings,
        tails: Arc::new(Tails::new(Arc::from("test-edge"), None)),
        countries: None,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    Listeners::new(Arc::clone(&edge), limits, shutdown.clone()).serve_plain(listener);
    Served { addr, edge, shutdown }
}

/// An origin that answers each request with what a function of its head says, counts requests, and
/// keeps what it read.
pub struct Origin {
    pub addr: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    pub seen: Arc<parking_lot::Mutex<Vec<String>>>,
}

impl Origin {
    pub async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (count, log, answer) = (Arc::clone(&requests), Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, log, answer) = (count.clone(), log.clone(), answer.clone());
                tokio::spawn(async move { connection(stream, &count, &log, &*answer).await });
            }
        });
        Origin { addr, requests, seen }
    }

    pub fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn connection(
    mut stream: TcpStream,
    count: &AtomicUsize,
    log: &parking_lot::Mutex<Vec<String>>,
    answer: &(dyn Fn(&str) -> String + Send + Sync),
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let lower = head.to_ascii_lowercase();
        let mut content = Vec::new();
        if let Some(rest) = lower.split("content-length: ").nth(1) {
            let length: usize = rest.split("\r\n").next().unwrap().trim().parse().unwrap();
            while buffer.len() < length {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            content = buffer.drain(..length).collect();
        } else if lower.contains("transfer-encoding: chunked") {
            while !buffer.windows(5).any(|w| w == b"0\r\n\r\n") {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            content = std::mem::take(&mut buffer);
        }
        let request = format!("{head}{}", String::from_utf8_lossy(&content));
        log.lock().push(request.clone());
        count.fetch_add(1, Ordering::SeqCst);
        stream.write_all(answer(&request).as_bytes()).await?;
    }
}

/// Sends bytes and reads until the edge closes or `quiet` passes without any.
pub async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut out = Vec::new();
    let reading = stream.read_to_end(&mut out);
    let _ = tokio::time::timeout(Duration::from_secs(5), reading).await;
    String::from_utf8_lossy(&out).into_owned()
}
