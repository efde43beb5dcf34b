//! One request and its response on one connection: the clocks that run over them, and what of the
//! response is refused. Chooses no connection; that is `pool`'s part.

use super::connect::MAX_HEAD_BYTES;
use super::error::{Stage, from_hyper};
use super::pool::Lease;
use super::{OriginError, outgoing};
use crate::body::{self, Body, BoxError};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long whoever sends a request's content may pause.
const SENDER_PATIENCE: Duration = Duration::from_secs(60);

/// A request's content on its way, watched so that the wait for the response starts when it is sent,
/// and so that its failure is not put on the origin.
pub(super) struct Upload {
    content: Body,
    progress: Option<Arc<Mutex<Progress>>>,
}

/// An extension of responses whose content ends with a close that nobody announced.
#[derive(Debug, Clone, Copy)]
pub struct EndsUnannounced;

/// How far the sending of a request's content is.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    /// Content was taken at this time, and the origin has not taken more since.
    Sending(Instant),
    /// The edge waits for whoever sends the content, since this time.
    Waiting(Instant),
    /// All is sent, since this time.
    Sent(Instant),
    /// Whoever sends the content failed.
    Failed(String),
}

/// A response's content on its way: watched for stops, and giving its connection back at its end.
pub(super) struct Download {
    content: Incoming,
    patience: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    armed: bool,
    ended: bool,
    lease: Option<Lease>,
    _permit: Arc<OwnedSemaphorePermit>,
}

// === impl Upload ===

impl Upload {
    /// Content to send, and the view of its progress, when there is any content.
    pub(super) fn new(content: Body) -> (Upload, Option<Arc<Mutex<Progress>>>) {
        let progress = (!content.is_end_stream())
            .then(|| Arc::new(Mutex::new(Progress::Sending(Instant::now()))));
        (Upload { content, progress: progress.clone() }, progress)
    }

    /// The content again, when it was not sent.
    pub(super) fn into_content(self) -> Body {
        self.content
    }

    /// Notes what came of asking for the next part.
    fn note(&self, polled: &Poll<Option<Result<Frame<Bytes>, BoxError>>>) {
        let Some(shared) = &self.progress else { return };
        let now = Instant::now();
        let mut progress = shared.lock();
        *progress = match polled {
            // Asked again while waiting: the wait is as old as it was.
            Poll::Pending if matches!(*progress, Progress::Waiting(_)) => return,
            Poll::Pending => Progress::Waiting(now),
            Poll::Ready(Some(Ok(_))) if !self.content.is_end_stream() => Progress::Sending(now),
            Poll::Ready(Some(Err(error))) => Progress::Failed(error.to_string()),
            Poll::Ready(Some(Ok(_)) | None) => Progress::Sent(now),
        };
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.content).poll_frame(cx);
        self.note(&polled);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

/// Waits for `head` for `patience` from the time that the request is sent, however long the visitor
/// takes to send it.
///
/// # Errors
/// `FirstByteTimeout`; `RequestBody` when the visitor stops sending.
pub(super) async fn await_head<F: Future>(
    head: F,
    progress: Option<&Mutex<Progress>>,
    patience: Duration,
) -> Result<F::Output, OriginError> {
    let mut head = pin!(head);
    let mut deadline = Instant::now() + patience;
    loop {
        if let Ok(done) = tokio::time::timeout_at(deadline, &mut head).await {
            return Ok(done);
        }
        let since = match progress.map(|shared| shared.lock().clone()) {
            Some(Progress::Waiting(at)) if at.elapsed() < SENDER_PATIENCE => Instant::now(),
            Some(Progress::Waiting(_)) => {
                let cause = format!("it stopped for {SENDER_PATIENCE:?}");
                return Err(OriginError::RequestBody { cause });
            }
            Some(Progress::Sending(at) | Progress::Sent(at)) => at,
            Some(Progress::Failed(cause)) => return Err(OriginError::RequestBody { cause }),
            None => return Err(OriginError::FirstByteTimeout { after: patience }),
        };
        deadline = since + patience;
        if deadline <= Instant::now() {
            return Err(OriginError::FirstByteTimeout { after: patience });
        }
    }
}

/// Refuses what is not a response that can be passed on, strips its hop-by-hop fields and puts the
/// watch on its content. Without a lease, the connection serves nothing else.
///
/// # Errors
/// `Protocol`: a status outside 200 to 599, or a framing by which two readers could differ
/// (RFC 9112 section 6.3). `HeadTooLarge`.
pub(super) fn accept(
    response: Response<Incoming>,
    lease: Option<Lease>,
    permit: Arc<OwnedSemaphorePermit>,
    patience: Duration,
) -> Result<Response<Body>, OriginError> {
    let (mut parts, content) = response.into_parts();
    check_framing(parts.version, &parts.headers)?;
    check_size(&parts.headers)?;
    if !(200..=599).contains(&parts.status.as_u16()) {
        return Err(OriginError::Protocol { what: format!("status {}", parts.status.as_u16()) });
    }
    let unannounced = ends_unannounced(parts.version, &parts.headers);
    outgoing::strip_hop_by_hop(&mut parts.headers);
    if content.is_end_stream() {
        if let Some(lease) = lease {
            lease.give_back();
        }
        return Ok(Response::from_parts(parts, body::empty()));
    }
    if unannounced {
        parts.extensions.insert(EndsUnannounced);
    }
    let download = Download {
        content,
        patience,
        alarm: None,
        armed: false,
        ended: false,
        lease,
        _permit: permit,
    };
    Ok(Response::from_parts(parts, download.boxed_unsync()))
}

/// Whether content would end with a close that nobody announced: HTTP/1.1 without a length, chunks or
/// `Connection: close`. RFC 9112 section 8 takes it for whole, but an origin server that dies ends so too.
fn ends_unannounced(version: Version, headers: &HeaderMap) -> bool {
    let closes = |line: &HeaderValue| {
        let line = String::from_utf8_lossy(line.as_bytes());
        line.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"))
    };
    version == Version::HTTP_11
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
        && !headers.get_all(CONNECTION).iter().any(closes)
}

/// hyper's own limit is one on what it has read when it looks, which may be twice as much.
pub(super) fn check_size(headers: &HeaderMap) -> Result<(), OriginError> {
    let bytes: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    if bytes > MAX_HEAD_BYTES { Err(OriginError::HeadTooLarge) } else { Ok(()) }
}

/// hyper takes any coding that ends in `chunked`, and reads to the close what ends otherwise: both
/// are ways to smuggle, and neither is anything that a client ever asked for (no `TE` is sent).
fn check_framing(version: Version, headers: &HeaderMap) -> Result<(), OriginError> {
    let refuse = |what: &str| Err(OriginError::Protocol { what: what.to_owned() });
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if version >= Version::HTTP_2 {
            return refuse("Transfer-Encoding in HTTP/2");
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return refuse("a Transfer-Encoding other than chunked");
        }
        if headers.contains_key(CONTENT_LENGTH) {
            return refuse("Content-Length and Transfer-Encoding together");
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let digits = length.as_bytes();
        if lengths.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return refuse("a Content-Length that is not one number");
        }
    }
    Ok(())
}

// === impl Download ===

impl Download {
    /// Whether the content has stopped for too long.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        let alarm =
            self.alarm.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        if !self.armed {
            self.armed = true;
            alarm.as_mut().reset(Instant::now() + patience);
        }
        alarm.as_mut().poll(cx)
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match Pin::new(&mut self.content).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.poll_alarm(cx));
                self.ended = true;
                self.lease = None;
                let after = self.patience;
                return Poll::Ready(Some(Err(OriginError::BetweenBytesTimeout { after }.into())));
            }
        };
        self.armed = false;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if self.content.is_end_stream() {
                    self.end();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.ended = true;
                self.lease = None;
                Some(Err(from_hyper(&error, Stage::Content).into()))
            }
            None => {
                self.end();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended { SizeHint::with_exact(0) } else { self.content.size_hint() }
    }
}
