//! What the tests of the sandbox share: a sandbox with the compiler child of this build, the guests
//! that `make guests` built, and a host that records everything.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};
use verge_config::kv::KeyPage;
use verge_config::process::Secret;
use verge_config::site::{ComponentRef, Grant, Handler as Spec, HandlerLimits};
use verge_handlers::{
    Body, CacheEntry, CompilerCommand, Component, End, Ended, FetchError, Handler, Host, LogLine,
    LogStream, Sandbox, SandboxSettings, Unavailable, Usage, Visitor,
};

/// The settings of a sandbox whose artefacts are in this folder.
pub fn settings(folder: impl Into<PathBuf>) -> SandboxSettings {
    let program = env!("CARGO_BIN_EXE_verge-compile").into();
    SandboxSettings::new(folder, CompilerCommand { program, args: Vec::new() })
}

/// The sandbox that the tests of one binary share. Its artefacts stay from run to run.
pub fn sandbox() -> &'static Sandbox {
    static SANDBOX: std::sync::OnceLock<Sandbox> = std::sync::OnceLock::new();
    SANDBOX.get_or_init(|| Sandbox::new(lasting()).unwrap())
}

/// The settings of a sandbox whose artefacts stay from run to run.
pub fn lasting() -> SandboxSettings {
    let mut settings = settings(Path::new(env!("CARGO_TARGET_TMPDIR")).join("artefacts"));
    // Compiling gives way to other work, and tests run beside much of it.
    settings.compile.wall = Duration::from_secs(300);
    settings
}

/// The bytes of a guest.
pub fn guest(name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("guests/build/{name}.wasm"));
    let bytes = std::fs::read(&path);
    bytes.unwrap_or_else(|_| panic!("{} is not built: run `make guests`", path.display())).into()
}

/// A guest, ready in the shared sandbox.
pub async fn component(name: &str) -> Arc<Component> {
    static READY: OnceCell<Mutex<BTreeMap<String, Arc<Component>>>> = OnceCell::const_new();
    let ready = READY.get_or_init(async || Mutex::default()).await;
    if let Some(component) = ready.lock().get(name) {
        return Arc::clone(component);
    }
    let component = sandbox().load(guest(name)).await.unwrap();
    ready.lock().insert(name.to_owned(), Arc::clone(&component));
    component
}

/// What a site says of a handler.
pub fn spec(limits: HandlerLimits, env: &[(&str, &str)]) -> Arc<Spec> {
    Arc::new(Spec {
        name: "handler".into(),
        component: ComponentRef::Digest(String::new()),
        limits,
        env: env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        config: BTreeMap::new(),
        fetch: Vec::new(),
        grants: BTreeSet::new(),
        on_failure: Default::default(),
        breaker: Default::default(),
    })
}

/// A handler from a guest, with this configuration and these grants.
pub async fn granted(
    name: &str,
    limits: HandlerLimits,
    config: &[(&str, &str)],
    grants: &[Grant],
) -> Handler {
    let mut spec = Arc::unwrap_or_clone(spec(limits, &[]));
    spec.config = config.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    spec.grants = grants.iter().copied().collect();
    Handler::new(component(name).await, "site".into(), Arc::new(spec))
}

/// A handler from a guest, with these limits.
pub async fn handler(name: &str, limits: HandlerLimits) -> Handler {
    Handler::new(component(name).await, "site".into(), spec(limits, &[]))
}

/// Limits in which a test of something else has room.
pub fn roomy() -> HandlerLimits {
    HandlerLimits { cpu: Duration::from_secs(5), ..HandlerLimits::default() }
}

/// A GET without content.
pub fn get(path: &str) -> Request<Body> {
    let uri = format!("http://site.test{path}");
    Request::get(uri).body(empty()).unwrap()
}

/// No content.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// This content.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The whole content as text.
pub async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a guest of the capabilities says of a path.
pub async fn told(handler: &Handler, host: &Arc<Recorder>, path: &str) -> String {
    // A host hears of one end: each request has its own, with the same store behind it.
    let one = Recorder::new();
    std::mem::swap(&mut *one.cached.lock(), &mut *host.cached.lock());
    std::mem::swap(&mut *one.entries.lock(), &mut *host.entries.lock());
    one.secrets.lock().clone_from(&host.secrets.lock());
    one.visitor.lock().clone_from(&host.visitor.lock());
    let answer = handler.call(get(path), one.clone()).await.unwrap();
    let said = text(answer).await;
    assert_eq!(one.end().await.0, End::Responded, "{path}");
    std::mem::swap(&mut *one.cached.lock(), &mut *host.cached.lock());
    std::mem::swap(&mut *one.entries.lock(), &mut *host.entries.lock());
    said.trim_end().to_owned()
}

type Origin =
    dyn Fn(Request<Body>) -> BoxFuture<'static, Result<Response<Body>, FetchError>> + Send + Sync;

/// A host that records, and fetches from a scripted origin.
pub struct Recorder {
    origin: Box<Origin>,
    lines: Mutex<Vec<LogLine>>,
    end: watch::Sender<Option<(End, Usage)>>,
    /// What its guests put into the cache.
    pub cached: Mutex<BTreeMap<String, CacheEntry>>,
    /// The site's key-value store.
    pub entries: Mutex<BTreeMap<String, Bytes>>,
    /// Who asks; nobody knows when there is none.
    pub visitor: Mutex<Option<Visitor>>,
    /// The site's secrets.
    pub secrets: Mutex<BTreeMap<String, Secret>>,
}

impl Recorder {
    /// One whose origin answers 200 with the path.
    pub fn new() -> Arc<Recorder> {
        Recorder::with(|request| {
            let path = request.uri().path().to_owned();
            Box::pin(async move { Ok(Response::new(full(format!("origin's {path}")))) })
        })
    }

    /// One with this origin.
    pub fn with(
        origin: impl Fn(Request<Body>) -> BoxFuture<'static, Result<Response<Body>, FetchError>>
        + Send
        + Sync
        + 'static,
    ) -> Arc<Recorder> {
        let (end, _) = watch::channel(None);
        Arc::new(Recorder {
            origin: Box::new(origin),
            lines: Mutex::default(),
            end,
            cached: Mutex::default(),
            entries: Mutex::default(),
            visitor: Mutex::default(),
            secrets: Mutex::default(),
        })
    }

    /// All lines, whole.
    pub fn all_lines(&self) -> Vec<LogLine> {
        self.lines.lock().clone()
    }

    /// The messages of a stream.
    pub fn lines(&self, stream: LogStream) -> Vec<String> {
        let lines = self.lines.lock();
        lines.iter().filter(|l| l.stream == stream).map(|l| l.message.clone()).collect()
    }

    /// How the request ended, once it has.
    pub async fn end(&self) -> (End, Usage) {
        let mut end = self.end.subscribe();
        let end = tokio::time::timeout(Duration::from_secs(60), end.wait_for(Option::is_some));
        end.await.expect("the request has not ended").unwrap().clone().unwrap()
    }
}

impl Host for Recorder {
    fn fetch(
        &self,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, FetchError>> {
        (self.origin)(request)
    }

    fn log(&self, line: LogLine) {
        self.lines.lock().push(line);
    }

    fn cache_get(&self, key: String) -> BoxFuture<'static, Result<Option<Bytes>, Unavailable>> {
        let found = self.cached.lock().get(&key).map(|entry| entry.value.clone());
        // Later, as from a disk: the guest waits.
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(found)
        })
    }

    fn cache_put(&self, entry: CacheEntry) -> BoxFuture<'static, Result<(), Unavailable>> {
        let full = entry.key == "full";
        if !full {
            self.cached.lock().insert(entry.key.clone(), entry);
        }
        let result = if full { Err(Unavailable("the cache is full".into())) } else { Ok(()) };
        Box::pin(std::future::ready(result))
    }

    fn cache_purge(&self, tags: Vec<String>) -> BoxFuture<'static, Result<u64, Unavailable>> {
        let mut cached = self.cached.lock();
        let before = cached.len();
        cached.retain(|_, entry| !entry.tags.iter().any(|tag| tags.contains(tag)));
        let purged = (before - cached.len()) as u64;
        Box::pin(std::future::ready(Ok(purged)))
    }

    fn kv_get(&self, key: String) -> BoxFuture<'static, Result<Option<Bytes>, Unavailable>> {
        let found = self.entries.lock().get(&key).cloned();
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(found)
        })
    }

    fn kv_set(
        &self,
        key: String,
        value: Option<Bytes>,
    ) -> BoxFuture<'static, Result<(), Unavailable>> {
        let away = key == "away";
        let mut entries = self.entries.lock();
        match value {
            _ if away => {}
            Some(value) => drop(entries.insert(key, value)),
            None => drop(entries.remove(&key)),
        }
        let result = if away { Err(Unavailable("nobody keeps it".into())) } else { Ok(()) };
        Box::pin(std::future::ready(result))
    }

    /// Two keys at a time.
    fn kv_keys(&self, skip: u64) -> BoxFuture<'static, Result<KeyPage, Unavailable>> {
        let entries = self.entries.lock();
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX);
        let keys: Vec<_> = entries.keys().skip(skipped).take(2).cloned().collect();
        let next = (entries.len() > skipped.saturating_add(2)).then(|| skip + 2);
        Box::pin(std::future::ready(Ok(KeyPage { keys, next })))
    }

    fn visitor(&self) -> Result<Visitor, Unavailable> {
        self.visitor.lock().clone().ok_or_else(|| Unavailable("nobody is known".into()))
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.secrets.lock().get(name).cloned()
    }

    fn ended(&self, end: &End, usage: &Usage) {
        let before = self.end.send_replace(Some((end.clone(), *usage)));
        assert!(before.is_none(), "a request ends once, but {before:?} came before {end:?}");
    }
}

/// Calls a path and gives how it failed, which must be the same for the caller and for the host.
pub async fn failure(handler: &Handler, path: &str) -> (Ended, Arc<Recorder>) {
    let host = Recorder::new();
    let ended = handler.call(get(path), host.clone()).await.expect_err("it must fail");
    assert_eq!(host.end().await.0, End::Failed(ended.clone()));
    (ended, host)
}
