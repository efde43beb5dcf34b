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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, sleep};

    const IDLE: Duration = Duration::from_secs(60);
    const ALMOST: Duration = Duration::from_secs(59);
    /// What a timer of the runtime may be late by.
    const TICK: Duration = Duration::from_millis(5);

    /// Both far ends of a tunnel whose streams hold so many bytes on their way, and its end.
    fn tunnel(room: usize) -> (DuplexStream, DuplexStream, JoinHandle<Ended>) {
        let (visitor, mut one) = duplex(room);
        let (origin, mut other) = duplex(room);
        let task = tokio::spawn(async move { copy(&mut one, &mut other, IDLE).await });
        (visitor, origin, task)
    }

    async fn pass(from: &mut DuplexStream, to: &mut DuplexStream, bytes: &[u8]) {
        from.write_all(bytes).await.unwrap();
        let mut read = vec![0; bytes.len()];
        to.read_exact(&mut read).await.unwrap();
        assert_eq!(read, bytes);
    }

    /// That the tunnel ends for its silence, and exactly the limit after `quiet`.
    async fn is_cut(task: JoinHandle<Ended>, quiet: Instant) -> Ended {
        let ended = task.await.unwrap();
        let silent = quiet.elapsed();
        assert!((IDLE..IDLE + TICK).contains(&silent), "cut after {silent:?}");
        let error = ended.result.as_ref().expect_err("it is cut");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        ended
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_tunnel_after_the_limit() {
        let (mut visitor, mut origin, task) = tunnel(1024);
        let ended = is_cut(task, Instant::now()).await;
        assert_eq!((ended.forth, ended.back), (0, 0));
        // Neither side may wait for the other any longer.
        assert_eq!(visitor.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(origin.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_either_side_begin_the_limit_anew() {
        let (mut visitor, mut origin, task) = tunnel(1024);
        for _ in 0..3 {
            sleep(ALMOST).await;
            pass(&mut visitor, &mut origin, b"ask").await;
            sleep(ALMOST).await;
            pass(&mut origin, &mut visitor, b"tell").await;
        }
        assert!(!task.is_finished(), "never silent for so long, however old");
        let ended = is_cut(task, Instant::now()).await;
        assert_eq!((ended.forth, ended.back), (9, 12));
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_of_one_side_begins_the_limit_anew_once() {
        let (mut visitor, mut origin, task) = tunnel(1024);
        sleep(ALMOST).await;
        visitor.shutdown().await.unwrap();
        assert_eq!(origin.read(&mut [0]).await.unwrap(), 0, "it is passed on");
        let quiet = Instant::now();
        sleep(ALMOST).await;
        assert!(!task.is_finished(), "the other way goes on");
        is_cut(task, quiet).await;
    }

    /// Bytes that the other side does not take are not moved: a stuck reader is silence, too.
    #[tokio::test(start_paused = true)]
    async fn a_side_that_takes_nothing_is_silence() {
        let (mut visitor, origin, task) = tunnel(16);
        let quiet = Instant::now();
        let writer = tokio::spawn(async move { visitor.write_all(&[7; 1_000]).await });
        let ended = is_cut(task, quiet).await;
        assert_eq!(ended.forth, 16, "what the stream to the other side has room for");
        assert!(writer.await.unwrap().is_err(), "the writer learns of it");
        drop(origin);
    }

    /// For control: a tunnel whose sides end by themselves is no error, however late in the limit.
    #[tokio::test(start_paused = true)]
    async fn both_ends_end_a_tunnel_in_order() {
        let (mut visitor, mut origin, task) = tunnel(1024);
        pass(&mut visitor, &mut origin, b"ask").await;
        sleep(ALMOST).await;
        origin.shutdown().await.unwrap();
        visitor.shutdown().await.unwrap();
        let ended = task.await.unwrap();
        assert!(ended.result.is_ok(), "{:?}", ended.result);
        assert_eq!((ended.forth, ended.back), (3, 0));
    }
}
