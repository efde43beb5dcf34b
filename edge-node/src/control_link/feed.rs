//! Keeps the feed open: connects, reads its lines, notices silence, and comes back with jittered
//! back-off when the stream ends. What the lines mean is the applier's.

use super::ahead::Ahead;
use super::apply::{Applier, ApplyError};
use super::backoff::Backoff;
use super::client::ClientError;
use super::session::{Session, SessionError};
use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::form_urlencoded;
use verge_config::feed::{HEARTBEAT_SECONDS, MAX_LINE_BYTES};

/// A feed that says nothing for so long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(3 * HEARTBEAT_SECONDS);
/// Lines that are applied before they are persisted and acknowledged together.
const BATCH_LINES: usize = 256;
/// How long a batch may go on while lines keep coming.
const BATCH_TIME: Duration = Duration::from_millis(100);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    /// It could not be opened.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Its lines cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// It broke off.
    #[error("the feed broke off: {0}")]
    Broken(String),
    /// It ended.
    #[error("the control plane ended the feed")]
    Ended,
    /// It says nothing any more.
    #[error("nothing was heard for {} s", SILENCE_MAX.as_secs())]
    Silent,
    /// A line that is too long to be one.
    #[error("a line of more than {MAX_LINE_BYTES} bytes")]
    LongLine,
}

/// Lines out of a body.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// Bytes of the buffer that hold no line feed.
    searched: usize,
}

// === impl Lines ===

impl Lines {
    fn new(body: Incoming) -> Lines {
        Lines { body, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line without its line feed. Nothing is lost when it is dropped before it is ready.
    async fn next(&mut self) -> Result<Bytes, FeedError> {
        loop {
            if let Some(line) = self.buffered()? {
                return Ok(line);
            }
            match self.body.frame().await {
                None => return Err(FeedError::Ended),
                Some(Err(error)) => return Err(FeedError::Broken(error.to_string())),
                Some(Ok(frame)) => {
                    self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                }
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<Bytes>, FeedError> {
        let unsearched = self.buffer.iter().skip(self.searched);
        let Some(at) = unsearched.copied().position(|byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            return if self.searched > MAX_LINE_BYTES {
                Err(FeedError::LongLine)
            } else {
                Ok(None)
            };
        };
        let length = self.searched + at;
        self.searched = 0;
        if length > MAX_LINE_BYTES {
            return Err(FeedError::LongLine);
        }
        let line = self.buffer.split_to(length).freeze();
        self.buffer.advance(1);
        Ok(Some(line))
    }
}

/// Follows the feed for ever.
pub(super) async fn run(mut applier: Applier, session: Arc<Session>, longest_wait: Duration) {
    let mut backoff = Backoff::new(longest_wait);
    loop {
        let mut healthy = false;
        let error = match stream(&mut applier, &session, &mut healthy).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        applier.effects.status.set_connected(false);
        session.disconnect().await;
        // What was applied before the stream broke is acknowledged all the same.
        applier.settle().await;
        if healthy {
            backoff.reset();
        }
        let wait = backoff.next(&mut rand::rng());
        let at = applier.position.applied;
        tracing::warn!(%error, wait_ms = wait.as_millis(), applied = %at, "feed lost; what is in force stays");
        tokio::time::sleep(wait).await;
    }
}

/// The feed's path and query. A function of its own: the serializer must not live across an await.
fn target(since: &str, history: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("since", since);
    if !history.is_empty() {
        query.append_pair("history", history);
    }
    format!("/v1/feed?{}", query.finish())
}

async fn stream(
    applier: &mut Applier,
    session: &Session,
    healthy: &mut bool,
) -> Result<std::convert::Infallible, FeedError> {
    session.ensure().await?;
    let status = Arc::clone(&applier.effects.status);
    let since = applier.since().0.to_string();
    let target = target(&since, &applier.position.history);
    let response = session.send(Method::GET, &target, None).await?;
    let mut lines = Lines::new(response.into_body());
    let line = listen(&mut lines).await?;
    if !line.starts_with(b"{") {
        let fault = ClientError::Malformed("not a feed".to_owned());
        return Err(SessionError::from(fault).into());
    }
    status.set_connected(true);
    tracing::info!(since, "feed open");
    let mut ahead = Ahead::default();
    take(&mut ahead, line, applier);
    loop {
        let (began, mut count) = (Instant::now(), 0);
        while let Some(due) = ahead.next(|line| applier.preparation(line)) {
            applier.prepared = due.prepared.unwrap_or_default();
            applier.line(&due.line, due.read, due.arrived).await?;
            count += 1;
            if count >= BATCH_LINES || began.elapsed() >= BATCH_TIME {
                break;
            }
            if ahead.is_empty()
                && let Some(next) = lines.next().now_or_never()
            {
                take(&mut ahead, next?, applier);
            }
        }
        applier.settle().await;
        *healthy |= !applier.is_starting_over();
        let waits = ahead.is_empty() || ahead.is_preparing();
        if !waits {
            continue;
        }
        let (is_preparing, has_room) = (ahead.is_preparing(), ahead.has_room());
        let next = tokio::select! {
            biased;
            () = ahead.prepared(), if is_preparing => continue,
            next = listen(&mut lines), if has_room => next?,
        };
        take(&mut ahead, next, applier);
    }
}

/// Takes a line that has come; what of it need not wait for the lines before it is in force afterwards.
fn take(ahead: &mut Ahead, line: Bytes, applier: &mut Applier) {
    let arrived = Instant::now();
    applier.effects.status.heard();
    if let Some(passes) = ahead.push(line, arrived) {
        applier.ahead_of_turn(passes, arrived);
    }
}

async fn listen(lines: &mut Lines) -> Result<Bytes, FeedError> {
    tokio::time::timeout(SILENCE_MAX, lines.next()).await.map_err(|_| FeedError::Silent)?
}
