//! The response of a guest: its head checked, its content streamed from the running guest, which makes
//! progress only as its reader reads, and no longer than it may run. Never ends cleanly what the guest did
//! not finish.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use wasmtime_wasi_http::WasiBody;

use crate::guest::Call;
use crate::outcome::Ended;
use crate::running::Running;
use crate::settings::limits;
use crate::{Body, BoxError};

/// The response with this head, from a guest that may still run.
pub(crate) async fn respond(
    head: Response<WasiBody>,
    is_head_request: bool,
    mut running: Running,
) -> Result<Response<Body>, Ended> {
    if let Some(ended) = unfit(&head) {
        return Err(running.fail(ended));
    }
    let (mut parts, mut content) = head.into_parts();
    if is_head_request {
        // Nobody reads it; a guest that promised a length and writes nothing is right to.
        drop(content);
        running.complete_head();
        return Ok(Response::from_parts(parts, empty()));
    }
    let mut frames = VecDeque::new();
    match poll_fn(|context| Poll::Ready(gather(&mut content, &mut running, &mut frames, context)))
        .await
    {
        Gathered::All => {
            let whole = Whole::new(frames);
            if has_content(parts.status)
                && declared_length(&parts.headers).is_some_and(|length| length != whole.left)
            {
                return Err(running.fail(Ended::Incomplete));
            }
            running.call.flow.sent(whole.left);
            running.complete();
            declare_length(&mut parts, &whole);
            Ok(Response::from_parts(parts, whole.boxed_unsync()))
        }
        Gathered::Incomplete => Err(running.fail(Ended::Incomplete)),
        Gathered::Some => {
            let left = declared_length(&parts.headers);
            let body = Streaming::new(frames, content, running, left);
            Ok(Response::from_parts(parts, body.boxed_unsync()))
        }
    }
}

/// How often in a row a guest may say that it waits before it is believed: tasks of one instance wake each
/// other through whoever drives them, and each such turn looks like waiting from outside.
const WAITS: u8 = 3;

/// How much of its content a guest has written without waiting for anything else.
enum Gathered {
    All,
    /// There is more to come.
    Some,
    /// It will never be all.
    Incomplete,
}

/// Gathers what there is of the content and what the guest goes on to write, until it waits for something:
/// short content is then known to be whole before its head is sent.
fn gather(
    content: &mut WasiBody,
    running: &mut Running,
    frames: &mut VecDeque<Frame<Bytes>>,
    context: &mut Context<'_>,
) -> Gathered {
    let (mut bytes, mut waits) = (0, 0);
    loop {
        if running.was_stopped() {
            return Gathered::Incomplete;
        }
        match poll_content(content, context) {
            Poll::Ready(Some(Ok(frame))) => {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                frames.push_back(frame);
                waits = 0;
                if bytes >= limits::BODY_CHUNK_BYTES {
                    return Gathered::Some;
                }
            }
            Poll::Ready(Some(Err(_))) => return Gathered::Incomplete,
            Poll::Ready(None) => return Gathered::All,
            Poll::Pending if running.is_done() => {
                if running.failure().is_some() || !running.drop_instance() {
                    return Gathered::Incomplete;
                }
                // It returned and left its body open: with the instance goes the other end, which counts
                // as its end, as on other hosts.
            }
            Poll::Pending if waits == WAITS => return Gathered::Some,
            Poll::Pending => waits += u8::from(running.poll(context).is_pending()),
        }
    }
}

fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Why a head cannot be answered with. An interim status would leave the visitor waiting for a final
/// one, and 101 would make a tunnel of its connection.
fn unfit(head: &Response<WasiBody>) -> Option<Ended> {
    if let Some(reason) = oversize(head.headers()) {
        return Some(Ended::HeadTooLarge(reason));
    }
    let status = head.status();
    let interim = || Ended::GuestError(format!("{status} is no status of a final response"));
    status.is_informational().then(interim)
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
    if has_content(head.status) && whole.frames.iter().all(Frame::is_data) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| whole.left.into());
    }
}

/// Whether content may follow a status.
fn has_content(status: StatusCode) -> bool {
    status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// The next frame of what the guest wrote. Outside Tokio's budget: that it says "later" must mean that
/// nothing is there.
fn poll_content(
    content: &mut WasiBody,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, wasmtime_wasi_http::Error>>> {
    let next = poll_fn(|context| Pin::new(&mut *content).poll_frame(context));
    pin!(tokio::task::unconstrained(next)).poll(context)
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

/// Content that a running guest writes. The guest runs as its reader reads; its clock runs all the same,
/// so that a reader who does not read on holds no instance for longer than a guest may run.
struct Streaming {
    /// What is read already.
    frames: VecDeque<Frame<Bytes>>,
    content: WasiBody,
    guest: Arc<Mutex<Guest>>,
    call: Arc<Call>,
    clock: Option<AbortHandle>,
    /// The reader knows how the content ended.
    is_over: bool,
    /// What is left of the length that the guest declared.
    left: Option<u64>,
}

/// What the reader of a guest's content and the guest's clock share.
struct Guest {
    /// Gone once the content has ended, or the clock has run out.
    running: Option<Running>,
    /// The reader waits for more, rather than the guest for its reader.
    is_awaited: bool,
}

impl Streaming {
    fn new(
        frames: VecDeque<Frame<Bytes>>,
        content: WasiBody,
        running: Running,
        left: Option<u64>,
    ) -> Streaming {
        let call = Arc::clone(&running.call);
        let (deadline, wall) = (Instant::from_std(call.deadline()), call.limits.wall);
        let guest = Guest { running: Some(running), is_awaited: frames.is_empty() };
        let guest = Arc::new(Mutex::new(guest));
        let watched = Arc::clone(&guest);
        let clock = tokio::runtime::Handle::try_current().ok().map(|runtime| {
            let clock = runtime.spawn(async move {
                tokio::time::sleep_until(deadline).await;
                let mut guest = watched.lock();
                if let Some(mut running) = guest.running.take() {
                    if !guest.is_awaited {
                        running.call.flow.waits_for_reader();
                    }
                    running.fail(Ended::TimedOut(wall));
                }
            });
            clock.abort_handle()
        });
        Streaming { frames, content, guest, call, clock, is_over: false, left }
    }

    fn end(&mut self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.is_over = true;
        if let Some(running) = self.guest.lock().running.take() {
            running.complete();
        }
        Poll::Ready(None)
    }

    fn fail(&mut self, otherwise: Ended) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.is_over = true;
        let ended = match self.guest.lock().running.take() {
            Some(mut running) => running.fail(otherwise),
            None => Ended::TimedOut(self.call.limits.wall),
        };
        Poll::Ready(Some(Err(Box::new(ended))))
    }

    /// What comes next, as far as the guest gets now.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        let mut guest = self.guest.lock();
        if guest.running.is_some()
            && let Some(frame) = self.frames.pop_front()
        {
            guest.is_awaited = false;
            return Poll::Ready(Next::Frame(frame));
        }
        guest.is_awaited = true;
        let Some(running) = guest.running.as_mut() else { return Poll::Ready(Next::Broken) };
        let mut is_waiting = false;
        loop {
            if running.was_stopped() {
                return Poll::Ready(Next::Broken);
            }
            match poll_content(&mut self.content, context) {
                Poll::Ready(Some(Ok(frame))) => {
                    guest.is_awaited = false;
                    return Poll::Ready(Next::Frame(frame));
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Next::Broken),
                Poll::Ready(None) => return Poll::Ready(Next::End),
                // The guest has just run, and waits; so does its reader.
                Poll::Pending if is_waiting => return Poll::Pending,
                Poll::Pending if running.is_done() => {
                    if running.failure().is_some() || !running.drop_instance() {
                        return Poll::Ready(Next::Broken);
                    }
                }
                Poll::Pending => is_waiting = running.poll(context).is_pending(),
            }
        }
    }
}

/// What comes next of a guest's content.
enum Next {
    Frame(Frame<Bytes>),
    End,
    Broken,
}

impl http_body::Body for Streaming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        match ready!(self.poll_next(context)) {
            Next::Frame(frame) => {
                if let Some(data) = frame.data_ref() {
                    let length = data.len() as u64;
                    self.call.flow.sent(length);
                    self.left = self.left.map(|left| left.saturating_sub(length));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Next::End => self.end(),
            Next::Broken => self.fail(Ended::Incomplete),
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_read = self.frames.is_empty() && self.content.is_end_stream();
        self.is_over || (is_read && self.guest.lock().running.is_some())
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if let Some(clock) = &self.clock {
            clock.abort();
        }
        // A reader that knows the length stops after the last byte: the guest is not cancelled then.
        if let Some(running) = self.guest.lock().running.take()
            && (self.left == Some(0) || (self.frames.is_empty() && self.content.is_end_stream()))
        {
            running.complete();
        }
    }
}
