//! A scripted source, a clock that the test turns, and requests in one line; no sockets.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody as FrameStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use verge_cache::{
    Body, BoxError, Cache, CacheError, Clock, DiskSettings, ManualClock, Outcome, Request,
    Response, Settings, SiteName, Source, SourceError, SourceRequest, SourceResponse, StreamBody,
};
use verge_config::Revision;
use verge_config::purge::{Mode, Purge, Selector};
use verge_config::site::CachePolicy;

/// Sun, 06 Nov 2033 08:49:37 GMT or so.
pub const NOW: u64 = 2_015_000_000;

pub type Reply = Result<SourceResponse, SourceError>;
type Script = dyn Fn(usize, SourceRequest) -> BoxFuture<'static, Reply> + Send + Sync;

/// A source that does what a closure says; it counts.
pub struct Scripted {
    script: Box<Script>,
    pub fetches: AtomicUsize,
    pub seen: parking_lot::Mutex<Vec<(Method, HeaderMap)>>,
}

impl Scripted {
    /// Answers at once.
    pub fn new(
        script: impl Fn(usize, SourceRequest) -> Reply + Send + Sync + 'static,
    ) -> Arc<Self> {
        Scripted::later(move |n, request| {
            let reply = script(n, request);
            Box::pin(async move { reply })
        })
    }

    /// Answers when its future does.
    pub fn later(
        script: impl Fn(usize, SourceRequest) -> BoxFuture<'static, Reply> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Scripted {
            script: Box::new(script),
            fetches: AtomicUsize::new(0),
            seen: parking_lot::Mutex::new(Vec::new()),
        })
    }

    pub fn count(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    pub fn last(&self) -> HeaderMap {
        self.seen.lock().last().unwrap().1.clone()
    }
}

impl Source for Scripted {
    fn fetch(&self, request: SourceRequest) -> BoxFuture<'static, Reply> {
        let n = self.fetches.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().push((request.method.clone(), request.headers.clone()));
        (self.script)(n, request)
    }
}

pub fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    map
}

/// A whole response; `Content-Length` is set.
pub fn reply(status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let body = body.into();
    let mut map = headers(fields);
    if !map.contains_key("content-length") && status != 304 && status != 204 {
        map.insert("content-length", body.len().into());
    }
    Ok(SourceResponse {
        delimited: true,
        status: StatusCode::from_u16(status).unwrap(),
        headers: map,
        body: Full::new(body).map_err(|never| match never {}).boxed_unsync(),
    })
}

/// The sending end of a body that the test lets out bit by bit; dropping it ends the body.
pub type Tap = mpsc::UnboundedSender<Result<Bytes, BoxError>>;

struct Poured(mpsc::UnboundedReceiver<Result<Bytes, BoxError>>);

impl futures::Stream for Poured {
    type Item = Result<Frame<Bytes>, BoxError>;
    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|next| next.map(|item| item.map(Frame::data)))
    }
}

pub fn tapped() -> (Tap, StreamBody) {
    let (tap, stream) = mpsc::unbounded_channel();
    (tap, FrameStream::new(Poured(stream)).boxed_unsync())
}

/// A cache with everything that requests need.
pub struct Bench {
    pub cache: Cache,
    pub clock: Arc<ManualClock>,
    pub site: SiteName,
    pub policy: Arc<CachePolicy>,
    pub folder: Option<Arc<tempfile::TempDir>>,
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub outcome: Outcome,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(|_| {}, CachePolicy::default())
    }

    pub fn policy(policy: CachePolicy) -> Bench {
        Bench::with(|_| {}, policy)
    }

    pub fn with(change: impl FnOnce(&mut Settings), policy: CachePolicy) -> Bench {
        // Everything about caching holds on either tier.
        let tier = std::env::var("VERGE_CACHE_TIER").is_ok_and(|tier| tier == "disk");
        let folder = tier.then(|| Arc::new(tempfile::tempdir().unwrap()));
        let bench = Bench::open(ManualClock::new(NOW), folder, change, policy).unwrap();
        while !bench.cache.is_warm() {
            std::thread::yield_now();
        }
        bench
    }

    /// On the disk alone, in a folder that may have been used before: an earlier user of it may still be
    /// letting go.
    pub async fn on_disk(folder: &Arc<tempfile::TempDir>, clock: &Arc<ManualClock>) -> Bench {
        loop {
            let (clock, folder) = (Arc::clone(clock), Some(Arc::clone(folder)));
            match Bench::open(clock, folder, |_| {}, CachePolicy::default()) {
                Err(verge_cache::DiskError::Taken(_)) => tokio::task::yield_now().await,
                bench => {
                    let bench = bench.unwrap();
                    while !bench.cache.is_warm() {
                        tokio::task::yield_now().await;
                    }
                    return bench;
                }
            }
        }
    }

    pub fn open(
        clock: Arc<ManualClock>,
        folder: Option<Arc<tempfile::TempDir>>,
        change: impl FnOnce(&mut Settings),
        policy: CachePolicy,
    ) -> Result<Bench, verge_cache::DiskError> {
        let mut settings =
            Settings { clock: Clock::Manual(Arc::clone(&clock)), ..Settings::default() };
        if let Some(folder) = &folder {
            settings.ram_bytes = 0;
            let folder = folder.path().to_owned();
            settings.disk =
                Some(DiskSettings { folder, bytes: 1 << 30, ram_object_bytes: 1 << 20 });
        }
        change(&mut settings);
        let cache = Cache::open(settings)?;
        Ok(Bench { cache, clock, site: "shop".into(), policy: Arc::new(policy), folder })
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub fn request<'a>(
        &'a self,
        method: &'a Method,
        target: &'a str,
        headers: &'a HeaderMap,
    ) -> Request<'a> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Request {
            site: &self.site,
            scheme: "https",
            host: "shop.example",
            path,
            query,
            method,
            headers,
            policy: &self.policy,
        }
    }

    pub async fn serve(
        &self,
        method: Method,
        target: &str,
        fields: &[(&str, &str)],
        source: &Arc<Scripted>,
    ) -> Result<Response, CacheError> {
        let map = headers(fields);
        let source: Arc<dyn Source> = Arc::<Scripted>::clone(source);
        let request = self.request(&method, target, &map);
        // As the edge does: the fast path first.
        if let Some(hit) = self.cache.hit(&request) {
            return Ok(hit.into_response(&method));
        }
        self.cache.serve(request, source).await
    }

    pub async fn get(
        &self,
        target: &str,
        fields: &[(&str, &str)],
        source: &Arc<Scripted>,
    ) -> Result<Got, String> {
        let response =
            self.serve(Method::GET, target, fields, source).await.map_err(|e| e.to_string())?;
        read(response).await
    }

    pub async fn ok(&self, target: &str, fields: &[(&str, &str)], source: &Arc<Scripted>) -> Got {
        self.get(target, fields, source).await.unwrap()
    }

    pub fn hits(&self, target: &str) -> bool {
        self.cache.hit(&self.request(&Method::GET, target, &HeaderMap::new())).is_some()
    }

    pub fn purge(&self, revision: u64, mode: Mode, selectors: &[Selector]) -> u64 {
        let site = self.site.to_string();
        let revision = Revision(revision);
        self.cache.purge(&Purge { revision, site, selectors: selectors.to_vec(), mode })
    }

    pub fn hard(&self, revision: u64, selector: Selector) -> u64 {
        self.purge(revision, Mode::Hard, &[selector])
    }
}

pub async fn read(response: Response) -> Result<Got, String> {
    let Response { status, headers, body, outcome } = response;
    let body = match body {
        Body::Empty => Bytes::new(),
        Body::Whole(bytes) => bytes,
        Body::File(part) => {
            use std::os::unix::fs::FileExt;
            let mut content = vec![0; usize::try_from(part.len).unwrap()];
            part.file.file().read_exact_at(&mut content, part.offset).map_err(|e| e.to_string())?;
            content.into()
        }
        Body::Stream(stream) => {
            stream.collect().await.map_err(|error| error.to_string())?.to_bytes()
        }
    };
    Ok(Got { status: status.as_u16(), headers, body, outcome })
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "never came true: {what}");
        tokio::task::yield_now().await;
    }
}
