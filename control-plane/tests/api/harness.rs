//! A real control plane on port 0 over a real store in a temporary folder, and a client for it.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use verge_control::{Control, ControlConfig};

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) operator: Client,
    pub(crate) config: ControlConfig,
    _folder: TempDir,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
}

/// An edge that speaks the feed by hand.
pub(crate) struct Edge {
    pub(crate) client: Client,
    pub(crate) id: String,
}

/// An open feed.
pub(crate) struct Feed {
    body: Incoming,
    rest: Vec<u8>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut ControlConfig)) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let data: PathBuf = folder.path().join("data");
        let token = verge_control::init(&data).await.unwrap().admin_token;
        let mut config = ControlConfig::new(data, "127.0.0.1:0".parse().unwrap());
        adjust(&mut config);
        Server::open(folder, config, token).await
    }

    pub(crate) async fn open(folder: TempDir, config: ControlConfig, token: String) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Control::open(config.clone()).await.unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(control.serve(listener, shutdown.clone()));
        let operator = Client::new(address, &token);
        Server { address, operator, config, _folder: folder, shutdown, task }
    }

    /// Stops it and starts another over the same store.
    pub(crate) async fn restart(self) -> Server {
        let (folder, config, token) = self.stop().await;
        Server::open(folder, config, token).await
    }

    /// Stops it; its store, its settings and the operator's token stay.
    pub(crate) async fn stop(self) -> (TempDir, ControlConfig, String) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(15), self.task).await.unwrap().unwrap();
        (self._folder, self.config, self.operator.token)
    }

    pub(crate) fn client(&self, token: &str) -> Client {
        Client::new(self.address, token)
    }

    /// A client with a new token of a tenant, which is made if it is not there.
    pub(crate) async fn role(&self, tenant: &str, scopes: &[&str]) -> Client {
        let made = self.operator.post("/v1/tenants", json!({"name": tenant})).await.status;
        assert!(made == 201 || made == 409, "{made}");
        let body =
            json!({"name": format!("{tenant} {scopes:?}"), "scopes": scopes, "tenant": tenant});
        let reply = self.operator.post("/v1/tokens", body).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        self.client(reply.json()["token"].as_str().unwrap())
    }

    pub(crate) async fn edge(&self, name: &str) -> Edge {
        let reply = self.operator.post("/v1/edges", json!({"name": name})).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        let enrolled = reply.json();
        Edge {
            client: self.client(enrolled["token"].as_str().unwrap()),
            id: enrolled["id"].as_str().unwrap().to_owned(),
        }
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr, token: &str) -> Client {
        let pool = Pool::builder(TokioExecutor::new()).build_http();
        Client { address, token: token.to_owned(), pool }
    }

    /// The same, over HTTP/2 with prior knowledge.
    pub(crate) fn over_http2(&self) -> Client {
        let pool = Pool::builder(TokioExecutor::new()).http2_only(true).build_http();
        Client { pool, ..self.clone() }
    }

    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<hyper::Response<Incoming>, String> {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("http://{}{path}", self.address));
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        self.pool.request(request).await.map_err(|error| format!("{error:?}"))
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let response = self.try_send(method, path, fields, body).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, fields: parts.headers, body }
    }

    /// A stream of JSON lines.
    pub(crate) async fn stream(&self, path: &str) -> Feed {
        let response = self.try_send("GET", path, &[], "").await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Feed { body: response.into_body(), rest: Vec::new() }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send("POST", path, &[], body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.send("PUT", path, &[], body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], "").await
    }

    /// Uploads and activates a version of a site with one domain.
    pub(crate) async fn deploy(&self, site: &str, marker: &str) -> Value {
        let uploaded =
            self.post(&format!("/v1/sites/{site}/versions"), document(site, marker)).await;
        assert!(uploaded.status.is_success(), "{uploaded:?}");
        let version = uploaded.json()["version"].clone();
        let activated =
            self.put(&format!("/v1/sites/{site}/active"), json!({"version": version})).await;
        assert_eq!(activated.status, 200, "{activated:?}");
        activated.json()
    }

    pub(crate) async fn purge(&self, site: &str, query: &str) -> Reply {
        let body = json!({"site": site, "selectors": [{"tag": "t"}]});
        self.post(&format!("/v1/purges{query}"), body).await
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The faults of a problem document as `path: message`.
    pub(crate) fn faults(&self) -> Vec<String> {
        assert_eq!(self.fields["content-type"], "application/problem+json");
        let problem = self.json();
        let faults = problem["faults"].as_array().cloned().unwrap_or_default();
        let text = |fault: &Value| {
            format!("{}: {}", fault["path"].as_str().unwrap(), fault["message"].as_str().unwrap())
        };
        faults.iter().map(text).collect()
    }
}

impl Edge {
    pub(crate) async fn feed(&self, query: &str) -> Feed {
        self.client.stream(&format!("/v1/feed{query}")).await
    }

    pub(crate) async fn report(&self, body: Value) -> Reply {
        self.client.post("/v1/edges/self/reports", body).await
    }
}

impl Feed {
    /// The next line; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame());
            match frame.await.expect("a line in time") {
                Some(Ok(frame)) => self.rest.extend_from_slice(&frame.into_data().unwrap()),
                _ => return None,
            }
        }
    }

    /// Every line up to the next `head`, without it.
    pub(crate) async fn until_head(&mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        loop {
            let line = self.next().await.expect("an open feed");
            if line["type"] == "head" {
                return lines;
            }
            lines.push(line);
        }
    }

    /// The next line that is no heartbeat.
    pub(crate) async fn change(&mut self) -> Value {
        loop {
            let line = self.next().await.expect("an open feed");
            if line["type"] != "head" {
                return line;
            }
        }
    }
}

/// A valid document.
pub(crate) fn document(site: &str, marker: &str) -> Value {
    json!({
        "site": site,
        "domains": [format!("{site}.example")],
        "routes": [{"path": "/*", "static": {"status": 200, "body": marker}}],
    })
}

/// The least that looks like a handler: an empty instance, exported under the interface's name, and a
/// custom section that makes its digest its own.
pub(crate) fn component(marker: &str) -> Vec<u8> {
    let name = b"wasi:http/incoming-handler@0.2.3";
    let mut export = vec![1, 0, name.len() as u8];
    export.extend_from_slice(name);
    export.extend_from_slice(&[5, 0, 0]);
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    bytes.extend_from_slice(&[5, 3, 1, 1, 0, 11, export.len() as u8]);
    bytes.extend(export);
    let mut custom = vec![1, b'm'];
    custom.extend_from_slice(marker.as_bytes());
    assert!(custom.len() < 128);
    bytes.extend_from_slice(&[0, custom.len() as u8]);
    bytes.extend(custom);
    bytes
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(<sha2::Sha256 as sha2::Digest>::digest(bytes))
}

/// Looks until it holds, rather than sleeping for luck.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
