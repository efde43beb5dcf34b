//! Connections: accepts them up to a cap, speaks HTTP/1.1 and h2c on each with deadlines, and drains
//! them at the end. Knows nothing of the API but that it is a service.

use crate::api::Peer;
use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// For each header section of HTTP/1.1, and until the first request of a connection is there.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A quiet HTTP/2 connection is asked whether it lives, and cut when it does not answer.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_STREAMS: u32 = 128;
const MAX_HEADER_BYTES: u32 = 32 * 1024;
/// After an error of accept (out of descriptors, for one): a moment for others to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, then lets running requests end within `drain`.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    connections: usize,
    drain: Duration,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    let tracker = TaskTracker::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, router.clone(), shutdown.clone());
                tracker.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(drain, tracker.wait()).await.is_err() {
        tracing::warn!(open = tracker.len(), "connections cut after the drain time");
    }
}

/// Ends when nothing was asked for too long; never, once something was.
async fn silence(spoke: &CancellationToken) {
    if tokio::time::timeout(HEADER_TIMEOUT, spoke.cancelled()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let spoke = CancellationToken::new();
    let first = spoke.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        first.cancel();
        request.extensions_mut().insert(Peer(peer));
        let mut router = router.clone();
        async move { router.call(request.map(Body::new)).await }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // Until then even the protocol may be unknown, and nothing else bounds that.
        () = silence(&spoke) => return,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "connection ended");
    }
}
