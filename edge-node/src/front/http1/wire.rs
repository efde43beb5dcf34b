//! The connection's bytes under a clock: reads into the buffer, vectored writes. Knows no
//! HTTP.

use crate::front::deadline::Deadline;
use crate::listen::Io;
use bytes::{Buf, BytesMut};
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

/// The least room for a read.
const READ_ROOM: usize = 8 * 1024;

/// Reads more bytes into `buffer`; zero is the end of the stream.
pub(super) fn poll_fill(
    io: &mut Io,
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<Result<usize>> {
    buffer.reserve(READ_ROOM);
    poll_read_buf(Pin::new(io), cx, buffer)
}

/// Writes all of `parts`, each of one piece, taking away what is written; late when the visitor takes
/// nothing for the time that `clock` was set to before the call.
pub(super) fn poll_write_parts<const N: usize, B: Buf>(
    io: &mut Io,
    parts: &mut [B; N],
    clock: &mut Deadline,
    stall: Duration,
    cx: &mut Context<'_>,
) -> Poll<Result<()>> {
    loop {
        let slices = parts.each_ref().map(|part| IoSlice::new(part.chunk()));
        let left = slices.iter().position(|slice| !slice.is_empty());
        let Some(slices) = left.and_then(|first| slices.get(first..)) else {
            return Poll::Ready(Ok(()));
        };
        let io = Pin::new(&mut *io);
        let written = match slices {
            [only] => io.poll_write(cx, only),
            _ => io.poll_write_vectored(cx, slices),
        };
        match written {
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

fn advance<const N: usize>(parts: &mut [impl Buf; N], mut written: usize) {
    for part in parts {
        let count = part.remaining().min(written);
        part.advance(count);
        written -= count;
    }
}
