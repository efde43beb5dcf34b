//! The response of a guest: its head checked, its content streamed from the running guest, which makes
//! progress only as its reader reads. Never ends cleanly what the guest did not finish.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::outcome::Ended;
use crate::running::Running;
use crate::settings::limits;
use crate::{Body, BoxError};

/// The response with this head, from a guest that may still run.
pub(crate) fn respond(
    head: Response<HyperOutgoingBody>,
    is_head_request: bool,
    mut running: Running,
) -> Result<Response<Body>, Ended> {
    if let Some(reason) = oversize(head.headers()) {
        return Err(running.fail(Ended::HeadTooLarge(reason)));
    }
    let (mut parts, content) = head.into_parts();
    if is_head_request {
        // Nobody reads it; a guest that promised a length and writes nothing is right to.
        running.complete();
        return Ok(Response::from_parts(parts, empty()));
    }
    if running.is_done() {
        return match drain(content, &mut running) {
            Some(frames) => {
                let whole = Whole::new(frames);
                running.call.flow.sent(whole.left);
                running.complete();
                declare_length(&mut parts, &whole);
                Ok(Response::from_parts(parts, whole.boxed_unsync()))
            }
            None => Err(running.fail(Ended::Incomplete)),
        };
    }
    let body = Streaming::new(content, running, declared_length(&parts.headers));
    Ok(Response::from_parts(parts, body.boxed_unsync()))
}

fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn oversize(headers: &HeaderMap) -> Option<String> {
    let count = headers.len();
    if count > limits::RESPONSE_HEADER_COUNT {
        return Some(format!("{count} fields (limit {})", limits::RESPONSE_HEADER_COUNT));
    }
    let bytes: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
    (bytes > limits::RESPONSE_HEADER_BYTES)
        .then(|| format!("{bytes} bytes (limit {})", limits::RESPONSE_HEADER_BYTES))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Says how long the content is where all of it is there, so that it goes out in one piece with its
/// head. Not where a length may not be said (RFC 9110 section 8.6), nor before trailers.
fn declare_length(head: &mut http::response::Parts, whole: &Whole) {
    let status = head.status;
    let may_not = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    if !may_not && whole.frames.iter().all(Frame::is_data) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| whole.left.into());
    }
}

/// The next frame of what the guest wrote. Outside Tokio's budget: that it says "later" must mean that
/// nothing is there.
fn poll_content(
    content: &mut HyperOutgoingBody,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, wasmtime_wasi_http::Error>>> {
    let next = std::future::poll_fn(|context| Pin::new(&mut *content).poll_frame(context));
    pin!(tokio::task::unconstrained(next)).poll(context)
}

/// What a guest that has ended wrote and nobody has read yet: two chunks and trailers at most. None
/// when it is not the whole.
fn drain(mut content: HyperOutgoingBody, running: &mut Running) -> Option<VecDeque<Frame<Bytes>>> {
    if running.was_stopped() {
        return None;
    }
    let mut frames = VecDeque::new();
    let mut context = Context::from_waker(Waker::noop());
    let mut is_dropped = false;
    loop {
        match poll_content(&mut content, &mut context) {
            Poll::Ready(Some(Ok(frame))) => frames.push_back(frame),
            Poll::Ready(Some(Err(_))) => return None,
            Poll::Ready(None) => return Some(frames),
            Poll::Pending if is_dropped || running.failure().is_some() => return None,
            // It returned and left its body open: with the store goes the other end, which counts
            // as its end, as on other hosts.
            Poll::Pending => {
                running.drop_store();
                is_dropped = true;
            }
        }
    }
}

/// Content that is all there.
struct Whole {
    frames: VecDeque<Frame<Bytes>>,
    left: u64,
}

impl Whole {
    fn new(frames: VecDeque<Frame<Bytes>>) -> Whole {
        let left = frames.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        Whole { frames, left }
    }
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.frames.pop_front();
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
            self.left = self.left.saturating_sub(data.len() as u64);
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Content that a running guest writes.
struct Streaming {
    content: HyperOutgoingBody,
    turn: Arc<Mutex<Turn>>,
    /// What is left of the length that the guest declared.
    left: Option<u64>,
    watchdog: Option<AbortHandle>,
}

/// What the reader of a running guest's content and its watchdog share.
enum Turn {
    /// The guest runs as it is read.
    Runs { running: Box<Running>, is_awaited: bool },
    /// The watchdog has stopped it; its reader is still to hear of it.
    Stopped(Ended),
    /// The content has ended, cleanly or not.
    Over,
}

impl Streaming {
    fn new(content: HyperOutgoingBody, running: Running, left: Option<u64>) -> Streaming {
        let deadline = tokio::time::Instant::from_std(running.call.deadline());
        let turn =
            Arc::new(Mutex::new(Turn::Runs { running: Box::new(running), is_awaited: true }));
        let guarded = Arc::downgrade(&turn);
        let watchdog = tokio::runtime::Handle::try_current().ok();
        let watchdog = watchdog.map(|runtime| runtime.spawn(watch(guarded, deadline)));
        let watchdog = watchdog.map(|task| task.abort_handle());
        Streaming { content, turn, left, watchdog }
    }
}

/// Stops a guest whose wall clock has run out while its reader does not come for more: whoever reads
/// slowly holds an instance no longer than anyone.
async fn watch(turn: Weak<Mutex<Turn>>, deadline: tokio::time::Instant) {
    /// How long to leave a reader that is at it.
    const AGAIN: Duration = Duration::from_millis(10);
    tokio::time::sleep_until(deadline).await;
    while let Some(turn) = turn.upgrade() {
        if let Some(mut turn) = turn.try_lock() {
            if turn.stop() {
                return;
            }
        }
        drop(turn);
        tokio::time::sleep(AGAIN).await;
    }
}

impl Turn {
    fn end(&mut self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Turn::Runs { running, .. } = std::mem::replace(self, Turn::Over) {
            running.complete();
        }
        Poll::Ready(None)
    }

    fn fail(&mut self, otherwise: Ended) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match std::mem::replace(self, Turn::Over) {
            Turn::Runs { mut running, .. } => {
                Poll::Ready(Some(Err(Box::new(running.fail(otherwise)))))
            }
            Turn::Stopped(ended) => Poll::Ready(Some(Err(Box::new(ended)))),
            Turn::Over => Poll::Ready(None),
        }
    }

    /// Stops a guest that nobody waits for. Says whether there is nothing more to watch.
    fn stop(&mut self) -> bool {
        match self {
            // Its reader has the same clock.
            Turn::Runs { is_awaited: true, .. } => false,
            Turn::Runs { running, .. } => {
                running.call.flow.waits_for_reader();
                let limit = running.call.limits.wall;
                *self = Turn::Stopped(running.fail(Ended::TimedOut(limit)));
                true
            }
            Turn::Stopped(_) | Turn::Over => true,
        }
    }
}

impl http_body::Body for Streaming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut turn = this.turn.lock();
        let mut is_waiting = false;
        loop {
            let (running, is_awaited) = match &mut *turn {
                Turn::Runs { running, is_awaited } if !running.was_stopped() => {
                    (running, is_awaited)
                }
                _ => return turn.fail(Ended::Incomplete),
            };
            *is_awaited = true;
            match poll_content(&mut this.content, context) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        let length = data.len() as u64;
                        running.call.flow.sent(length);
                        this.left = this.left.map(|left| left.saturating_sub(length));
                    }
                    *is_awaited = false;
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(_))) => return turn.fail(Ended::Incomplete),
                Poll::Ready(None) => return turn.end(),
                // The guest has just run, and waits; so does its reader.
                Poll::Pending if is_waiting => return Poll::Pending,
                Poll::Pending if running.is_done() => {
                    if running.failure().is_some() {
                        return turn.fail(Ended::Incomplete);
                    }
                    running.drop_store();
                }
                Poll::Pending => is_waiting = running.poll(context).is_pending(),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &*self.turn.lock() {
            Turn::Runs { .. } => self.content.is_end_stream(),
            Turn::Stopped(_) => false,
            Turn::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.abort();
        }
        // A reader that knows the length stops after the last byte: the guest is not cancelled then.
        if self.left == Some(0) || self.content.is_end_stream() {
            let _ = self.turn.lock().end();
        }
    }
}
