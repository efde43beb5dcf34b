//! The connection's bytes under a clock: reads into the buffer, vectored writes, and a timer that costs
//! nothing while nothing is late. Knows no HTTP.

use crate::listen::Io;
use bytes::{Buf, Bytes, BytesMut};
use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;

/// The least room for a read.
const READ_ROOM: usize = 8 * 1024;

/// A deadline that is moved on every request but armed only when it would fire: moving it is a store,
/// where re-arming a timer each time would be a lock in the runtime.
pub(super) struct Deadline {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// A deadline `after` from now.
    #[must_use]
    pub(super) fn new(after: Duration) -> Deadline {
        Deadline { at: Instant::now() + after, sleep: None }
    }

    /// Moves it to `after` from now.
    pub(super) fn set(&mut self, after: Duration) {
        self.at = Instant::now() + after;
        // An armed timer that fires too early re-arms itself; one that is too late must be moved.
        if let Some(sleep) = &mut self.sleep
            && sleep.deadline() > self.at
        {
            sleep.as_mut().reset(self.at);
        }
    }

    /// Ready once it has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

/// Reads more bytes into `buffer`; zero is the end of the stream.
pub(super) fn poll_fill(
    io: &mut Io,
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<Result<usize>> {
    buffer.reserve(READ_ROOM);
    poll_read_buf(Pin::new(io), cx, buffer)
}

/// Writes all of `parts`, taking away what is written; late when the visitor takes nothing for the time
/// that `clock` was set to before the call.
pub(super) fn poll_write_parts<const N: usize>(
    io: &mut Io,
    parts: &mut [Bytes; N],
    clock: &mut Deadline,
    stall: Duration,
    cx: &mut Context<'_>,
) -> Poll<Result<()>> {
    loop {
        let slices = parts.each_ref().map(|part| IoSlice::new(part));
        let left = slices.iter().position(|slice| !slice.is_empty());
        let Some(slices) = left.and_then(|first| slices.get(first..)) else {
            return Poll::Ready(Ok(()));
        };
        match Pin::new(&mut *io).poll_write_vectored(cx, slices) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(written)) => {
                advance(parts, written);
                clock.set(stall);
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(clock.poll(cx));
                return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the visitor is stalled")));
            }
        }
    }
}

/// Hands what TLS still holds to the socket; nothing to do in the clear.
pub(super) fn poll_flush(io: &mut Io, cx: &mut Context<'_>) -> Poll<Result<()>> {
    match io {
        Io::Plain(_) => Poll::Ready(Ok(())),
        Io::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
    }
}

fn advance<const N: usize>(parts: &mut [Bytes; N], mut written: usize) {
    for part in parts {
        let count = part.len().min(written);
        part.advance(count);
        written -= count;
    }
}
