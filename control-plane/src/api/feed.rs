//! The feed: one open request of an edge, answered with a JSON line for each change. Every stream
//! reads on from its own place, so what is slow to read costs no more than its own small buffer.

use super::request::answer_lines;
use super::{App, Failure};
use crate::auth::Caller;
use crate::fleet::Connected;
use crate::publish::Entry;
use crate::store::encode;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use verge_config::Revision;
use verge_config::feed::{FeedLine, HEARTBEAT_SECONDS};

/// Chunks on their way to one edge.
const BUFFER: usize = 8;
/// Feeds of one edge at a time: one, and those that it has lost and that are not yet known to be.
const MAX_FEEDS: u32 = 8;
/// An edge that takes nothing for so long is cut off; it comes back for the rest.
const STALLED: Duration = Duration::from_secs(60);
/// A little more often than the edge may expect.
const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_SECONDS * 800);

/// Why a stream ends.
enum End {
    /// The edge went away, stalled, was removed, or the control plane stops.
    Closed,
    /// The store fails; the edge comes back.
    Store,
}

/// One open stream.
struct Stream {
    app: Arc<App>,
    edge: String,
    lines: mpsc::Sender<Bytes>,
    /// Everything up to here is sent.
    position: Revision,
    /// Questions up to this number are asked.
    asked: u64,
    _connected: Connected,
}

pub(super) async fn stream(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Failure> {
    let since = Revision(super::request::number(&uri, "since")?.unwrap_or(0));
    let history = super::request::parameter(&uri, "history");
    let edge = caller.id().to_owned();
    if app.fleet.feeds(&edge) >= MAX_FEEDS {
        let detail = "this edge has as many feeds open as it may; close one";
        return Err(Failure::too_many(detail, Duration::from_secs(1)));
    }
    let (hello, position) = app.store.read(|state| {
        let same = history.as_deref().is_none_or(|history| history == state.history);
        let flush = !same || since > state.revision || since < state.trimmed;
        let hello = FeedLine::Hello { head: state.revision, flush, history: state.history.clone() };
        (hello, if flush { Revision::ZERO } else { since })
    });
    let hello = encode(&hello)?;
    let (lines, receiver) = mpsc::channel(BUFFER);
    let connected = app.fleet.connect(&edge);
    app.fleet.seen(&edge, crate::clock::now_ms());
    tracing::info!(edge, since = since.0, "feed opened");
    let stream = Stream { app, edge, lines, position, asked: 0, _connected: connected };
    tokio::spawn(stream.run(hello));
    Ok(answer_lines(receiver))
}

// === impl Stream ===

impl Stream {
    async fn run(mut self, hello: Bytes) {
        let shutdown = self.app.shutdown.clone();
        let ended = tokio::select! {
            ended = self.feed(hello) => ended,
            () = shutdown.cancelled() => Err(End::Closed),
        };
        match ended {
            Err(End::Store) => tracing::error!(edge = self.edge, "the feed cannot read the store"),
            Ok(()) | Err(End::Closed) => {}
        }
        tracing::info!(edge = self.edge, position = self.position.0, "feed closed");
    }

    async fn feed(&mut self, hello: Bytes) -> Result<(), End> {
        let mut watch = self.app.store.publisher.watch();
        self.send(hello).await?;
        let mut questions = self.app.questions.watch();
        // What was committed before a question was asked goes before it: its number is read first.
        let newest = *questions.borrow_and_update();
        let head = *watch.borrow_and_update();
        self.catch_up(head).await?;
        self.heartbeat().await?;
        self.ask(newest).await?;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.reset();
        loop {
            tokio::select! {
                changed = watch.changed() => changed.map_err(|_| End::Closed)?,
                changed = questions.changed() => changed.map_err(|_| End::Closed)?,
                _ = heartbeat.tick() => self.heartbeat().await?,
                () = self.lines.closed() => return Ok(()),
            }
            if !self.is_enrolled() {
                return Ok(());
            }
            let newest = *questions.borrow_and_update();
            let head = *watch.borrow_and_update();
            self.catch_up(head).await?;
            self.ask(newest).await?;
        }
    }

    /// Asks what is open up to `newest` and not yet asked here.
    async fn ask(&mut self, newest: u64) -> Result<(), End> {
        if newest <= self.asked {
            return Ok(());
        }
        for (number, line) in self.app.questions.after(self.asked) {
            if number <= newest {
                self.send(line).await?;
            }
        }
        self.asked = newest;
        Ok(())
    }

    /// Sends everything up to `head`.
    async fn catch_up(&mut self, head: Revision) -> Result<(), End> {
        while self.position < head {
            let batch = match self.app.store.publisher.after(self.position) {
                Some(batch) => batch,
                None => self.stored_lines(head).await?,
            };
            if batch.is_empty() {
                self.position = head;
            }
            for entry in batch {
                self.send(entry.line).await?;
                self.position = entry.revision;
            }
        }
        Ok(())
    }

    async fn stored_lines(&self, head: Revision) -> Result<Vec<Entry>, End> {
        let _turn = self.app.catching_up.acquire().await.map_err(|_| End::Closed)?;
        self.app.store.feed(self.position, head).await.map_err(|error| {
            tracing::error!(%error, "reading the feed");
            End::Store
        })
    }

    async fn heartbeat(&mut self) -> Result<(), End> {
        let line = encode(&FeedLine::Head { head: self.position }).map_err(|_| End::Store)?;
        self.send(line).await
    }

    async fn send(&self, line: Bytes) -> Result<(), End> {
        self.app.metrics.feed_line(line.len());
        match tokio::time::timeout(STALLED, self.lines.send(line)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Closed),
        }
    }

    /// A removed edge is told nothing more.
    fn is_enrolled(&self) -> bool {
        self.app
            .store
            .read(|state| state.edges.get(&self.edge).is_some_and(|edge| edge.removed.is_none()))
    }
}
