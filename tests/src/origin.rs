//! Origins that do what a test says: answers by a function, byte streams by hand, gates to hold them.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Content as an origin sends it; an error in it breaks the connection.
pub type Content = UnsyncBoxBody<Bytes, io::Error>;
/// An origin's answer.
pub type Answer = Response<Content>;

/// A request as an origin saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The fields.
    pub headers: HeaderMap,
    /// The content.
    pub body: Bytes,
}

/// An origin on a loopback port of its own; gone when it is dropped.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// An answer with all its content.
///
/// # Panics
/// When a field is not one.
#[must_use]
pub fn answer(status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    with_content(status, fields, Full::new(body.into()).map_err(|n| match n {}).boxed_unsync())
}

/// An answer whose content a test sends piece by piece; dropping the sender ends it.
///
/// # Panics
/// When a field is not one.
#[must_use]
pub fn streamed(
    status: u16,
    fields: &[(&str, &str)],
) -> (Answer, mpsc::UnboundedSender<io::Result<Bytes>>) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<io::Result<Bytes>>();
    let stream = futures::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|next| next.map(|piece| piece.map(Frame::data)))
    });
    (with_content(status, fields, StreamBody::new(stream).boxed_unsync()), sender)
}

fn with_content(status: u16, fields: &[(&str, &str)], content: Content) -> Answer {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(content).unwrap()
}

impl Origin {
    /// Starts one that answers each request by a function.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start<F, A>(function: F) -> Origin
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let function = Arc::new(function);
        let mut origin = Origin::raw(move |stream| {
            let (noted, function) = (Arc::clone(&noted), Arc::clone(&function));
            async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let (noted, function) = (Arc::clone(&noted), Arc::clone(&function));
                    async move {
                        let seen = see(request).await;
                        noted.lock().unwrap().push(seen.clone());
                        Ok::<_, Infallible>(function(seen).await)
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            }
        })
        .await;
        origin.seen = seen;
        origin
    }

    /// Starts one that handles each connection as a stream of bytes.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn raw<F, A>(function: F) -> Origin
    where
        F: Fn(TcpStream) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_nodelay(true);
                open.spawn(function(stream));
                while open.try_join_next().is_some() {}
            }
        });
        Origin { address, seen: Arc::default(), connections, task }
    }

    /// One that always answers the same way.
    pub async fn always(status: u16, fields: &[(&str, &str)], body: &str) -> Origin {
        let fields: Vec<_> =
            fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let body = Bytes::from(body.to_owned());
        Origin::start(move |_| {
            let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let answer = answer(status, &fields, body.clone());
            async move { answer }
        })
        .await
    }

    /// Its URL, as a site file names it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    ///
    /// # Panics
    /// Never, unless a test has panicked while it noted one.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests so far were for this path and query.
    ///
    /// # Panics
    /// Never, unless a test has panicked while it noted one.
    #[must_use]
    pub fn count(&self, path: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path == path).count()
    }

    /// How many connections it has taken.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn see(request: Request<Incoming>) -> Seen {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = parts.uri.path_and_query().map_or("*", |path| path.as_str()).to_owned();
    Seen { method: parts.method, path, headers: parts.headers, body }
}

/// A place where an origin stops until the test lets it go on.
#[derive(Clone)]
pub struct Gate {
    reached: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { reached: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }
}

impl Gate {
    /// The origin's side: says that it is here, and waits.
    pub fn pass(&self) -> BoxFuture<'static, ()> {
        let gate = self.clone();
        Box::pin(async move {
            gate.reached.add_permits(1);
            if let Ok(permit) = gate.open.acquire().await {
                permit.forget();
            }
        })
    }

    /// The test's side: waits until one has come here.
    ///
    /// # Panics
    /// After the deadline.
    pub async fn reached(&self) {
        let permit = crate::wait::within("an origin at its gate", self.reached.acquire()).await;
        permit.unwrap().forget();
    }

    /// The test's side: lets one go on.
    pub fn open(&self) {
        self.open.add_permits(1);
    }

    /// The test's side: lets everyone go on from now on.
    pub fn open_for_good(&self) {
        self.open.close();
    }
}
