//! What HTTP/2 writes, gathered: frames of many streams leave in one write, and in TLS records that are
//! full. Between the h2 crate, which flushes after every DATA frame, and the connection's bytes.

use crate::listen::Rewind;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that are gathered before they are written: four full TLS records.
const GATHERED: usize = 64 * 1024;

struct Out {
    io: Rewind,
    buffer: BytesMut,
    /// Whether a flush waits until the connection has nothing more to write.
    deferred: bool,
    /// Whether the visitor took something since it was last asked.
    moved: bool,
}

/// The byte stream that h2 has.
pub(super) struct Gathered(Arc<Mutex<Out>>);

/// The connection's own hold of it.
pub(super) struct Gatherer(Arc<Mutex<Out>>);

/// A byte stream for h2, and the hold that flushes it.
pub(super) fn pair(io: Rewind) -> (Gathered, Gatherer) {
    let out =
        Arc::new(Mutex::new(Out { io, buffer: BytesMut::new(), deferred: false, moved: false }));
    (Gathered(Arc::clone(&out)), Gatherer(out))
}

// === impl Gatherer ===

impl Gatherer {
    /// From here on a flush by h2 waits for [`Gatherer::poll_flush`].
    pub(super) fn defer(&self) {
        self.0.lock().deferred = true;
    }

    /// Writes all that is gathered; called whenever h2 has nothing more to do.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.lock().poll_flush(cx)
    }

    /// Whether the visitor took something since this was last asked.
    pub(super) fn has_moved(&self) -> bool {
        std::mem::take(&mut self.0.lock().moved)
    }
}

// === impl Out ===

impl Out {
    fn poll_write(&mut self, slices: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<Result<usize>> {
        if self.buffer.len() >= GATHERED {
            ready!(self.poll_drain(cx))?;
        }
        self.buffer.reserve(GATHERED - self.buffer.len());
        let mut room = GATHERED - self.buffer.len();
        let before = self.buffer.len();
        for slice in slices {
            let taken = slice.get(..slice.len().min(room)).unwrap_or_default();
            self.buffer.extend_from_slice(taken);
            room -= taken.len();
        }
        Poll::Ready(Ok(self.buffer.len() - before))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.buffer.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.buffer))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.buffer.advance(written);
            self.moved = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_drain(cx))?;
        // A connection that is silent holds no buffer.
        self.buffer = BytesMut::new();
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

// === impl Gathered ===

impl AsyncRead for Gathered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        self.0.lock().poll_write(&[IoSlice::new(buf)], cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.0.lock().poll_write(bufs, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut out = self.0.lock();
        if out.deferred { Poll::Ready(Ok(())) } else { out.poll_flush(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut out = self.0.lock();
        ready!(out.poll_flush(cx))?;
        Pin::new(&mut out.io).poll_shutdown(cx)
    }
}
