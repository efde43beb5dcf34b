//! Bytes both ways between two streams, until both have ended or nothing has moved for too long.
//! Knows no HTTP.

use crate::front::deadline::Deadline;
use bytes::{Buf, Bytes};
use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is read of one side before the other side has taken it, in bytes.
const PIECE: usize = 16 * 1024;

/// One direction.
#[derive(Default)]
struct Way {
    /// Read and not yet taken; a tunnel that is silent holds no buffers.
    left: Bytes,
    unflushed: bool,
    ended: bool,
    done: bool,
    count: u64,
}

/// How a tunnel ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Bytes that went from the first side to the second.
    pub(super) forth: u64,
    /// Bytes that went from the second side to the first.
    pub(super) back: u64,
    /// Whether both sides ended by themselves.
    pub(super) result: Result<()>,
}

/// Copies between `one` and `other`. The end of either is passed on as an end, and the other way goes
/// on; `idle` is how long nothing may move in either direction.
pub(super) async fn copy<A, B>(one: &mut A, other: &mut B, idle: Duration) -> Ended
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut forth, mut back) = (Way::default(), Way::default());
    let mut clock = Deadline::new(idle);
    let result = poll_fn(|cx| {
        let before = (forth.count, back.count, forth.ended, back.ended);
        let (there, here) = (forth.poll(one, other, cx), back.poll(other, one, cx));
        match (there, here) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                return Poll::Ready(Err(error));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            _ => {}
        }
        if before != (forth.count, back.count, forth.ended, back.ended) {
            clock.set(idle);
        }
        clock.poll(cx).map(|()| Err(Error::new(ErrorKind::TimedOut, "nothing moved")))
    })
    .await;
    Ended { forth: forth.count, back: back.count, result }
}

impl Way {
    /// Moves what can be moved; ready when the end was passed on.
    fn poll<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Poll<Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            while !self.left.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.left))?;
                self.wrote(written)?;
                self.left.advance(written);
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if self.poll_piece(from, to, cx)?.is_pending() {
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
    }

    /// Reads a piece and writes what the other side takes of it at once.
    fn poll_piece<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut room = [const { MaybeUninit::uninit() }; PIECE];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
        let piece = read.filled();
        if piece.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(&mut *to).poll_write(cx, piece) {
            Poll::Ready(written) => {
                let written = written?;
                self.wrote(written)?;
                written
            }
            Poll::Pending => 0,
        };
        self.left = Bytes::copy_from_slice(piece.get(written..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, written: usize) -> Result<()> {
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        self.count += written as u64;
        self.unflushed = true;
        Ok(())
    }
}
