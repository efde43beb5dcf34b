//! A scripted origin over raw TCP, and pools that lead to it.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use verge_config::site::{Origin, OriginUrl, Timeouts};
use verge_edge::body::{self, Body};
use verge_edge::origin::{Hop, OriginError, OriginPool, OriginSettings, Resolver, UpgradeAnswer};

/// What the scripted origin does with a request.
pub enum Act {
    /// Writes this and waits for the next request.
    Say(Vec<u8>),
    /// Writes this and closes.
    SayAndClose(Vec<u8>),
    /// Writes this, waits until the origin is told to go on, and writes the rest.
    SayThenWait(Vec<u8>, Vec<u8>),
    /// Writes this and then nothing, keeping the connection open.
    SayAndHang(Vec<u8>),
}

/// Where a request stands: which connection, and which request on it, both from 0.
#[derive(Clone, Copy)]
pub struct Turn {
    pub connection: usize,
    pub request: usize,
}

/// An origin that does as its script says.
pub struct Scripted {
    pub address: SocketAddr,
    pub go_on: Arc<Notify>,
    connections: Arc<AtomicUsize>,
    seen: Arc<parking_lot::Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Scripted {
    pub async fn start(script: impl Fn(Turn, &str) -> Act + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen: Arc<parking_lot::Mutex<Vec<String>>> = Arc::default();
        let go_on = Arc::new(Notify::new());
        let script = Arc::new(script);
        let (counted, kept, wait) = (connections.clone(), seen.clone(), go_on.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = counted.fetch_add(1, Ordering::SeqCst);
                let (script, seen, wait) = (script.clone(), kept.clone(), wait.clone());
                tokio::spawn(async move {
                    let act = |turn: Turn, head: &str| script(turn, head);
                    serve(stream, connection, act, &seen, &wait).await;
                });
            }
        });
        Scripted { address, go_on, connections, seen, task }
    }

    /// One that answers every request with `response`.
    pub async fn always(response: &str) -> Scripted {
        let response = response.as_bytes().to_vec();
        Scripted::start(move |_, _| Act::Say(response.clone())).await
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The header sections of the requests so far, with what content came.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    script: impl Fn(Turn, &str) -> Act,
    seen: &parking_lot::Mutex<Vec<String>>,
    go_on: &Notify,
) {
    let mut buffer = Vec::new();
    for request in 0.. {
        let Some(text) = read_request(&mut stream, &mut buffer).await else { return };
        seen.lock().push(text.clone());
        match script(Turn { connection, request }, &text) {
            Act::Say(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Act::SayAndClose(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Act::SayThenWait(first, rest) => {
                let _ = stream.write_all(&first).await;
                go_on.notified().await;
                let _ = stream.write_all(&rest).await;
            }
            Act::SayAndHang(bytes) => {
                let _ = stream.write_all(&bytes).await;
                // Until the other side closes.
                let _ = stream.read(&mut [0; 1]).await;
                return;
            }
        }
    }
}

/// One request with its content, chunked or counted; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let whole = if head.contains("transfer-encoding: chunked") {
                find(&buffer[end + 4..], b"0\r\n\r\n").map(|at| end + 4 + at + 5)
            } else {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length:"))
                    .map_or(0, |value| value.trim().parse().unwrap());
                Some(end + 4 + length)
            };
            if let Some(whole) = whole.filter(|whole| buffer.len() >= *whole) {
                let request: Vec<u8> = buffer.drain(..whole).collect();
                return Some(String::from_utf8_lossy(&request).into_owned());
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

pub fn quick() -> Timeouts {
    Timeouts {
        connect: Duration::from_millis(300),
        first_byte: Duration::from_millis(300),
        between_bytes: Duration::from_millis(300),
    }
}

pub fn patient() -> Timeouts {
    let all = Duration::from_secs(20);
    Timeouts { connect: all, first_byte: all, between_bytes: all }
}

pub fn settings() -> OriginSettings {
    OriginSettings {
        allow_private: true,
        edge_id: Arc::from("edge-test"),
        resolver: Arc::new(Resolver::new()),
        roots: Arc::new(rustls::RootCertStore::empty()),
        own: Arc::from([]),
    }
}

pub fn url(host: &str, port: u16) -> OriginUrl {
    OriginUrl { tls: false, host: host.to_owned(), port, weight: 1 }
}

pub fn origin(urls: Vec<OriginUrl>, timeouts: Timeouts) -> Origin {
    Origin { name: Arc::from("web"), urls, host: None, timeouts }
}

pub fn pool_of(origin: Origin, settings: OriginSettings) -> Arc<OriginPool> {
    Arc::new(OriginPool::new(Arc::new(origin), Arc::new(settings)))
}

/// A pool that leads to one address.
pub fn pool_to(address: SocketAddr, timeouts: Timeouts) -> Arc<OriginPool> {
    pool_of(origin(vec![url(&address.ip().to_string(), address.port())], timeouts), settings())
}

pub fn hop() -> Hop {
    Hop {
        client_ip: IpAddr::from([192, 0, 2, 33]),
        scheme: "https",
        host: "shop.example".to_owned(),
        version: http::Version::HTTP_11,
        loops: Vec::new(),
    }
}

pub fn get(path: &str) -> Request<Body> {
    request(Method::GET, path, body::empty())
}

pub fn request(method: Method, path: &str, content: Body) -> Request<Body> {
    Request::builder().method(method).uri(path).body(content).unwrap()
}

/// The whole content, or the error in it.
pub async fn read(response: Response<Body>) -> Result<Bytes, OriginError> {
    match response.into_body().collect().await {
        Ok(content) => Ok(content.to_bytes()),
        Err(error) => Err(OriginError::find(error.as_ref()).expect("an origin's error").clone()),
    }
}

/// Sends a GET and reads it all.
pub async fn fetch(pool: &OriginPool) -> Result<(u16, Bytes), OriginError> {
    let response = pool.send(get("/"), &hop()).await?;
    let status = response.status().as_u16();
    Ok((status, read(response).await?))
}

/// Asks for a WebSocket; the status and what came behind it.
pub async fn ask_upgrade(pool: &OriginPool) -> Result<(u16, String), OriginError> {
    let request = Request::get("/chat")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(body::empty())
        .unwrap();
    match pool.upgrade(request, &hop()).await? {
        UpgradeAnswer::Declined(response) => {
            let status = response.status().as_u16();
            Ok((status, String::from_utf8(read(response).await?.to_vec()).unwrap()))
        }
        UpgradeAnswer::Switched(_, mut stream) => {
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            Ok((101, text))
        }
    }
}
