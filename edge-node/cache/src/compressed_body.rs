//! Content that is compressed as it streams, and a first look at content of unknown length; knows no
//! fields and no store.

use crate::api::{BoxError, StreamBody};
use crate::encoder::Encoder;
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How much is compressed at once; then others get their turn, as compressing costs time.
const PIECE: usize = 64 * 1024;

/// Content that is compressed as it streams. What is there when the source pauses is sent on, so that who
/// reads a slow source waits no longer than without compression.
#[derive(Debug)]
pub struct CompressedBody {
    source: StreamBody,
    /// `None` once it is finished or broken.
    encoder: Option<Encoder>,
    /// What has come and is not compressed yet.
    input: Bytes,
    /// Whether something went into the encoder since it was last flushed.
    unflushed: bool,
    /// Trailers, to be sent after the last of the content.
    trailers: Option<Frame<Bytes>>,
}

/// What a first look at content found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is so many bytes long.
    Whole(u64),
    /// It has so many bytes at least.
    AtLeast(u64),
}

/// Content of which a part was looked at, whole again.
#[derive(Debug)]
struct Peeked {
    frames: VecDeque<Frame<Bytes>>,
    failed: Option<BoxError>,
    /// `None` once it has ended.
    rest: Option<StreamBody>,
}

// === impl Seen ===

impl Seen {
    /// The bytes that are known of.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Seen::Whole(bytes) | Seen::AtLeast(bytes) => bytes,
        }
    }
}

// === impl CompressedBody ===

impl CompressedBody {
    /// Compresses `source` with `encoder`.
    #[must_use]
    pub fn new(source: StreamBody, encoder: Encoder) -> CompressedBody {
        let encoder = Some(encoder);
        CompressedBody { source, encoder, input: Bytes::new(), unflushed: false, trailers: None }
    }

    /// Compresses one piece of the input; nothing when there is nothing to send yet.
    fn piece(&mut self, encoder: &mut Encoder) -> std::io::Result<Bytes> {
        let piece = self.input.split_to(self.input.len().min(PIECE));
        self.unflushed = true;
        encoder.push(&piece)
    }

    fn frame(out: Bytes) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Ok(Frame::data(out))))
    }
}

impl Body for CompressedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        // Taken out, and put back unless it ends here: an error leaves none.
        let Some(mut encoder) = this.encoder.take() else {
            return Poll::Ready(this.trailers.take().map(Ok));
        };
        loop {
            if !this.input.is_empty() {
                let out = this.piece(&mut encoder)?;
                this.encoder = Some(encoder);
                if !out.is_empty() {
                    return CompressedBody::frame(out);
                }
                // One piece a turn, whether or not it gave something.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match Pin::new(&mut this.source).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.input = data,
                    Err(trailers) => this.trailers = Some(trailers),
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return CompressedBody::frame(encoder.finish()?),
                Poll::Pending => {
                    let out = if this.unflushed { encoder.flush()? } else { Bytes::new() };
                    this.unflushed = false;
                    this.encoder = Some(encoder);
                    return if out.is_empty() { Poll::Pending } else { CompressedBody::frame(out) };
                }
            }
        }
    }
}

/// Looks at content until `enough` bytes of it are seen, it ends, or `patience` is over: a source that
/// sends its fields early and its content late is not waited for. The content comes back whole.
pub async fn peek(body: StreamBody, enough: u64, patience: Duration) -> (Seen, StreamBody) {
    let mut peeked = Peeked { frames: VecDeque::new(), failed: None, rest: Some(body) };
    let mut seen = 0;
    // What has been seen is kept in `peeked`, so that nothing is lost when time is up.
    let looking = async {
        while seen < enough && peeked.failed.is_none() {
            let Some(rest) = &mut peeked.rest else { break };
            match rest.frame().await {
                Some(Ok(frame)) => {
                    seen += frame.data_ref().map_or(0, |data| data.len() as u64);
                    peeked.frames.push_back(frame);
                }
                Some(Err(error)) => peeked.failed = Some(error),
                None => peeked.rest = None,
            }
        }
    };
    // Time being up is one of the ways to have seen what there is.
    let _ = tokio::time::timeout(patience, looking).await;
    let seen = if peeked.rest.is_none() { Seen::Whole(seen) } else { Seen::AtLeast(seen) };
    (seen, peeked.boxed_unsync())
}

// === impl Peeked ===

impl Body for Peeked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = self.failed.take() {
            self.rest = None;
            return Poll::Ready(Some(Err(error)));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        if frame.is_none() {
            self.rest = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let ended = self.rest.as_ref().is_none_or(Body::is_end_stream);
        self.frames.is_empty() && self.failed.is_none() && ended
    }
}
