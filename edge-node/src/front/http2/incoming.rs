//! A request's content off an HTTP/2 stream; the visitor's window opens as it is read.

use crate::body::{self, Body, BoxError};
use bytes::Bytes;
use h2::{FlowControl, RecvStream};
use http_body::Frame;
use http_body_util::BodyExt;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// The content of a request; late when the visitor sends nothing for `stall`.
pub(super) fn incoming(stream: RecvStream, has_content: bool, stall: Duration) -> Body {
    if !has_content {
        return body::empty();
    }
    Incoming { stream, stall, sleep: None, unreleased: 0 }.boxed_unsync()
}

/// A request's content; the visitor's window opens as it is read.
struct Incoming {
    stream: RecvStream,
    stall: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    unreleased: usize,
}

impl Incoming {
    fn release(&mut self) {
        let control: &mut FlowControl = self.stream.flow_control();
        let _ = control.release_capacity(std::mem::take(&mut self.unreleased));
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.release();
        match this.stream.poll_data(cx) {
            Poll::Ready(Some(Ok(data))) => {
                this.sleep = None;
                this.unreleased = data.len();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            // Trailers are dropped: a field that frames or routes must not come in by the back door.
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let stall = this.stall;
                let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
                match sleep.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err("the content stalled".into()))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}
