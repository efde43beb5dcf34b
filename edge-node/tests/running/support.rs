//! A control plane that says what a test tells it to, and a cache that remembers what it was told.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use verge_config::Revision;
use verge_config::feed::Report;
use verge_config::process::Secret;
use verge_config::process::edge::Join;
use verge_config::purge::Purge;
use verge_config::site::Context;
use verge_edge::control_link::{Builder, Fleet, FleetSettings, LinkStatus, PurgeSink};
use verge_edge::origin::{OriginSettings, Resolver, native_roots};
use verge_edge::snapshot::{Snapshot, SnapshotCell};
use verge_handlers::{CompilerCommand, Sandbox, SandboxSettings};

/// The longest that any condition may take to hold.
const PATIENCE: Duration = Duration::from_secs(20);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// One open feed.
pub struct Feed {
    pub since: u64,
    pub history: Option<String>,
    lines: mpsc::Sender<Result<Bytes, std::io::Error>>,
}

impl Feed {
    pub async fn say(&self, line: Value) {
        self.raw(format!("{line}\n")).await;
    }

    pub async fn raw(&self, text: impl Into<Bytes>) {
        let _ = self.lines.send(Ok(text.into())).await;
    }

    pub async fn hello(&self, head: u64, flush: bool, history: &str) {
        self.say(json!({"type": "hello", "head": head, "flush": flush, "history": history})).await;
    }

    pub async fn head(&self, head: u64) {
        self.say(json!({"type": "head", "head": head})).await;
    }

    pub async fn site(&self, revision: u64, document: Value) {
        let site = document["site"].clone();
        self.say(json!({"type": "site", "revision": revision, "site": site, "version": revision, "document": document})).await;
    }

    pub async fn secrets(&self, revision: u64, site: &str) {
        self.say(json!({"type": "secrets", "revision": revision, "site": site})).await;
    }

    pub async fn purge(&self, revision: u64, tag: &str) {
        self.say(json!({"type": "purge", "revision": revision, "site": "shop", "selectors": [{"tag": tag}], "mode": "hard"})).await;
    }
}

pub fn site(name: &str, domain: &str) -> Value {
    json!({"site": name, "domains": [domain], "routes": [{"path": "/*", "static": {"body": domain}}]})
}

struct Shared {
    feeds: mpsc::UnboundedSender<Feed>,
    reports: watch::Sender<Vec<Report>>,
    blobs: Mutex<HashMap<String, Bytes>>,
    /// The answers to edges that ask for a site's secrets; how often they asked.
    secrets: Mutex<HashMap<String, (StatusCode, Value)>>,
    asked: AtomicUsize,
    credentials: Mutex<Vec<String>>,
    enrolments: AtomicUsize,
    /// Reports are answered with an error.
    deaf: std::sync::atomic::AtomicBool,
}

pub struct Control {
    pub url: String,
    shared: Arc<Shared>,
    feeds: mpsc::UnboundedReceiver<Feed>,
    task: tokio::task::JoinHandle<()>,
}

impl Control {
    pub async fn start() -> Control {
        Control::start_at(std::net::Ipv4Addr::LOCALHOST.into()).await
    }

    /// As [`Control::start`], at another address of this machine.
    pub async fn start_at(address: std::net::IpAddr) -> Control {
        let (sender, feeds) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            feeds: sender,
            reports: watch::Sender::new(Vec::new()),
            blobs: Mutex::default(),
            secrets: Mutex::default(),
            asked: AtomicUsize::new(0),
            credentials: Mutex::default(),
            enrolments: AtomicUsize::new(0),
            deaf: false.into(),
        });
        let app = Router::new()
            .route("/v1/edges", post(enrol))
            .route("/v1/edges/self/reports", post(report))
            .route("/v1/feed", get(feed))
            .route("/v1/blobs/{digest}", get(blob))
            .route("/v1/edges/self/secrets/{site}", get(secrets))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Control { url, shared, feeds, task }
    }

    pub async fn feed(&mut self) -> Feed {
        within("the edge opens its feed", self.feeds.recv()).await.unwrap()
    }

    pub async fn report(&self, what: &str, test: impl Fn(&Report) -> bool) -> Report {
        let mut reports = self.shared.reports.subscribe();
        let seen = within(what, reports.wait_for(|all| all.iter().any(&test))).await.unwrap();
        seen.iter().rfind(|report| test(report)).unwrap().clone()
    }

    pub fn reports(&self) -> Vec<Report> {
        self.shared.reports.borrow().clone()
    }

    pub fn blob(&self, digest: &str, content: impl Into<Bytes>) {
        self.shared.blobs.lock().insert(digest.to_owned(), content.into());
    }

    /// What it answers from now on about a site's secrets.
    pub fn secrets(&self, site: &str, status: u16, answer: Value) {
        let status = StatusCode::from_u16(status).unwrap();
        self.shared.secrets.lock().insert(site.to_owned(), (status, answer));
    }

    /// How often it was asked for secrets.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    pub fn revoke_all(&self) {
        self.shared.credentials.lock().clear();
    }

    pub fn enrolments(&self) -> usize {
        self.shared.enrolments.load(Ordering::SeqCst)
    }

    pub fn deaf(&self, deaf: bool) {
        self.shared.deaf.store(deaf, Ordering::SeqCst);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn is_known(shared: &Shared, headers: &HeaderMap) -> Result<(), StatusCode> {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let known = shared.credentials.lock().iter().any(|known| known == token);
    if known { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
}

async fn enrol(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(_): Json<verge_config::api::Enrol>,
) -> Result<(StatusCode, Json<Value>), StatusCode> {
    if headers.get("authorization").is_none_or(|value| value != "Bearer join-me") {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let number = shared.enrolments.fetch_add(1, Ordering::SeqCst);
    let token = format!("credential-{number}");
    shared.credentials.lock().push(token.clone());
    Ok((StatusCode::CREATED, Json(json!({"id": "e1", "token": token}))))
}

async fn report(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(report): Json<Report>,
) -> Result<StatusCode, StatusCode> {
    is_known(&shared, &headers)?;
    if shared.deaf.load(Ordering::SeqCst) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    shared.reports.send_modify(|all| all.push(report));
    Ok(StatusCode::NO_CONTENT)
}

async fn feed(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Body, StatusCode> {
    is_known(&shared, &headers)?;
    let (lines, receiver) = mpsc::channel(16);
    let since = query["since"].parse().unwrap();
    let history = query.get("history").cloned();
    shared.feeds.send(Feed { since, history, lines }).unwrap();
    Ok(Body::from_stream(ReceiverStream::new(receiver)))
}

async fn blob(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Path(digest): Path<String>,
) -> Result<Bytes, StatusCode> {
    is_known(&shared, &headers)?;
    shared.blobs.lock().get(&digest).cloned().ok_or(StatusCode::NOT_FOUND)
}

async fn secrets(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Path(site): Path<String>,
) -> Result<(StatusCode, Json<Value>), StatusCode> {
    is_known(&shared, &headers)?;
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let answer = shared.secrets.lock().get(&site).cloned();
    answer.map(|(status, answer)| (status, Json(answer))).ok_or(StatusCode::NOT_FOUND)
}

/// What reached the cache, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A purge's revision, and the revision of the snapshot that was in force then.
    Purge(u64, u64),
    Flush(u64),
}

pub struct Sink {
    pub told: Mutex<Vec<Told>>,
    cell: Arc<SnapshotCell>,
}

impl PurgeSink for Sink {
    fn purge(&self, purge: &Purge) -> u64 {
        let told = Told::Purge(purge.revision.0, self.cell.load().revision.0);
        self.told.lock().push(told);
        7
    }

    fn flush(&self, revision: Revision) {
        self.told.lock().push(Told::Flush(revision.0));
    }
}

/// An edge's control link alone.
pub struct Edge {
    pub status: Arc<LinkStatus>,
    pub cell: Arc<SnapshotCell>,
    pub sink: Arc<Sink>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

pub fn builder(folder: &std::path::Path, context: Context, allow_private: bool) -> Builder {
    let compiler = CompilerCommand { program: PathBuf::from("/bin/false"), args: Vec::new() };
    let mut settings = SandboxSettings::new(folder.join("artefacts"), compiler);
    settings.max_instances = 2;
    let origins = OriginSettings {
        allow_private,
        edge_id: Arc::from("e1"),
        resolver: Arc::new(Resolver::new()),
        roots: native_roots(),
        own: Arc::from([]),
    };
    Builder::new(Sandbox::new(settings).unwrap(), Arc::new(origins), context)
}

pub fn sink() -> (Arc<SnapshotCell>, Arc<Sink>) {
    let cell = Arc::new(SnapshotCell::from_pointee(Snapshot::default()));
    let sink = Sink { told: Mutex::default(), cell: Arc::clone(&cell) };
    (cell, Arc::new(sink))
}

impl Edge {
    /// Starts, or starts again, the edge whose state is in `folder`.
    pub async fn start(folder: &std::path::Path, control: &str) -> Edge {
        // What the link logs is shown when a test fails.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let (cell, sink) = sink();
        let settings = FleetSettings {
            control: control.to_owned(),
            name: Arc::from("e1"),
            join: Join::Token(Secret::new("join-me")),
            state_dir: folder.join("state"),
            roots: native_roots(),
            kv: 1 << 20,
            longest_wait: Duration::from_millis(200),
        };
        let builder = builder(folder, Context::Fleet, false);
        let fleet = Fleet::open(settings, builder, Arc::clone(&cell), sink.clone()).await.unwrap();
        let (status, stop) = (fleet.status(), CancellationToken::new());
        let task = tokio::spawn(fleet.run(stop.clone()));
        Edge { status, cell, sink, stop, task }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        within("the link stops", self.task).await.unwrap();
    }

    pub async fn until(&self, what: &str, test: impl Fn(&LinkStatus) -> bool) {
        let mut changes = self.status.changes();
        within(what, async {
            while !test(&self.status) {
                // Not all that tests look at is in the status: they look again after a while too.
                let _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
            }
        })
        .await;
    }

    pub async fn applied(&self, revision: u64) {
        let what = format!("revision {revision} is applied");
        self.until(&what, |status| status.applied() == Revision(revision)).await;
    }

    /// The version of the site that answers a host.
    pub fn serves(&self, host: &str) -> Option<u64> {
        self.cell.load().site_for(host).map(|site| site.version)
    }

    /// What the handlers of the site that answers a host are told of a secret.
    pub fn secret(&self, host: &str, name: &str) -> Option<String> {
        let snapshot = self.cell.load();
        let secret = snapshot.site_for(host)?.secrets.get(name).cloned();
        secret.map(|secret| secret.reveal().to_owned())
    }

    pub fn told(&self) -> Vec<Told> {
        self.sink.told.lock().clone()
    }
}
