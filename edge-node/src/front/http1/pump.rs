//! Moves a request's content from the connection to its reader, beside the response, in one task.

use super::content::{Decoder, Step};
use super::head::Framing;
use super::upload::{Upload, Wish};
use super::wire;
use crate::front::deadline::Deadline;
use crate::listen::Io;
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http::header::TE;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// One request's content, coming in.
pub(super) struct Pump {
    decoder: Decoder,
    upload: Option<Upload>,
    /// What is still to be written of `100 Continue`.
    interim: Bytes,
    broken: bool,
    clock: Deadline,
    stall: Duration,
    starving: bool,
}

impl Pump {
    pub(super) fn new(
        framing: Framing,
        upload: Upload,
        expects_continue: bool,
        stall: Duration,
    ) -> Pump {
        Pump {
            decoder: Decoder::new(framing),
            upload: Some(upload),
            interim: Bytes::from_static(if expects_continue { CONTINUE } else { b"" }),
            broken: false,
            clock: Deadline::new(stall),
            stall,
            starving: false,
        }
    }

    /// Moves what can be moved; wakes the task when more can be.
    pub(super) fn poll(&mut self, io: &mut Io, buffer: &mut BytesMut, cx: &mut Context<'_>) {
        while let Some(upload) = &self.upload {
            match upload.poll_wish(cx) {
                Poll::Pending => return,
                Poll::Ready(Wish::Nothing) => {
                    self.upload = None;
                    return;
                }
                Poll::Ready(Wish::Piece) => {}
            }
            match self.poll_step(io, buffer, cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(Step::Piece(piece))) => {
                    if let Some(upload) = &self.upload {
                        upload.give(piece);
                    }
                }
                Poll::Ready(Ok(Step::Done)) => {
                    if let Some(upload) = self.upload.take() {
                        upload.complete();
                    }
                }
                Poll::Ready(Ok(Step::Starved)) => {}
                Poll::Ready(Err(error)) => {
                    self.broken = true;
                    if let Some(upload) = self.upload.take() {
                        upload.fail(error.into());
                    }
                }
            }
        }
    }

    /// Whether `100 Continue` is written in part: nothing else may be written now.
    pub(super) fn is_writing(&self) -> bool {
        !self.interim.is_empty() && self.interim.len() < CONTINUE.len()
    }

    /// Throws the rest of the content away; whether the connection is good for another request.
    pub(super) fn poll_drain(
        &mut self,
        io: &mut Io,
        buffer: &mut BytesMut,
        max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        self.upload = None;
        // Content that the visitor was never told to send may never come.
        if self.broken || !self.interim.is_empty() {
            return Poll::Ready(false);
        }
        let mut left = max;
        loop {
            match ready!(self.poll_step(io, buffer, cx)) {
                Ok(Step::Done) => return Poll::Ready(true),
                Ok(Step::Piece(piece)) if piece.len() > left => return Poll::Ready(false),
                Ok(Step::Piece(piece)) => left -= piece.len(),
                Ok(Step::Starved) => {}
                Err(_) => return Poll::Ready(false),
            }
        }
    }

    fn poll_step(
        &mut self,
        io: &mut Io,
        buffer: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Step, Error>> {
        match self.decoder.step(buffer)? {
            Step::Starved => {}
            step => {
                self.starving = false;
                return Poll::Ready(Ok(step));
            }
        }
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.interim))?;
            self.interim.advance(written);
        }
        ready!(wire::poll_flush(io, cx))?;
        if !self.starving {
            self.starving = true;
            self.clock.set(self.stall);
        }
        match wire::poll_fill(io, buffer, cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(_)) => {
                self.starving = false;
                Poll::Ready(Ok(Step::Starved))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.clock.poll(cx));
                Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the content stalled")))
            }
        }
    }
}

/// Whether a visitor says that it takes trailer fields (RFC 9110 section 10.1.4).
pub(super) fn wants_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case("trailers")))
}
