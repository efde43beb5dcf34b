//! Content in a file on its way to a visitor: read in pieces, or found to be in memory before the kernel
//! sends it. The event loop never waits for a disk here; nothing is decided about who gets what.

use super::BoxError;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fs::File;
use std::future::Future;
use std::io::{Error, ErrorKind, IoSliceMut, Result};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;
pub use verge_cache::{FilePart, OpenFile};

/// The most bytes of one piece.
pub const PIECE: usize = 256 * 1024;
/// How far ahead of a transfer a file is looked at, in bytes.
const WINDOW: u64 = 1 << 20;
/// Of how many bytes one is looked at: the kernel reads ahead, and forgets, in larger units.
const STRIDE: u64 = 64 * 1024;
/// `f_type` of a file system in memory (statfs(2)), which knows no reads that must not wait.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A file's bytes, piece by piece.
#[derive(Debug)]
pub struct Pieces {
    part: FilePart,
    reading: Option<JoinHandle<Result<Bytes>>>,
}

/// How much of a file is known to be in memory, so that sending it does not wait for the disk.
#[derive(Debug, Default)]
pub struct Resident {
    until: u64,
    reading: Option<JoinHandle<Result<()>>>,
}

/// The content of a file as a stream.
#[must_use]
pub fn stream(part: FilePart) -> super::Body {
    Pieces::new(part).boxed_unsync()
}

// === impl Pieces ===

impl Pieces {
    /// All bytes of `part`.
    #[must_use]
    pub fn new(part: FilePart) -> Pieces {
        Pieces { part, reading: None }
    }

    /// Bytes that are still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.part.len
    }

    /// The next piece, of at most `most` bytes (and at most [`PIECE`]); `None` after the last one.
    ///
    /// # Errors
    /// The disk's, and `UnexpectedEof` for a file that is shorter than it should be.
    pub fn poll_piece(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if self.part.len == 0 {
            return Poll::Ready(Ok(None));
        }
        let piece = match &mut self.reading {
            Some(reading) => {
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                read.map_err(Error::other)??
            }
            None => {
                let count = usize::try_from(self.part.len).unwrap_or(PIECE).min(most).min(PIECE);
                match read_now(&self.part.file, self.part.offset, count)? {
                    Some(piece) => piece,
                    None => {
                        let (file, at) = (Arc::clone(&self.part.file), self.part.offset);
                        let read = move || read_waiting(file.file(), at, count);
                        self.reading = Some(tokio::task::spawn_blocking(read));
                        return self.poll_piece(most, cx);
                    }
                }
            }
        };
        self.part.offset += piece.len() as u64;
        self.part.len = self.part.len.saturating_sub(piece.len() as u64);
        Poll::Ready(Ok(Some(piece)))
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, BoxError>>> {
        match ready!(self.get_mut().poll_piece(PIECE, cx)) {
            Ok(piece) => Poll::Ready(piece.map(|piece| Ok(Frame::data(piece)))),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.part.len == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.part.len)
    }
}

// === impl Resident ===

impl Resident {
    /// How many of the first bytes of `part` can be sent without waiting for the disk: one at least,
    /// since what is not in memory is read first. `part` may begin later from call to call.
    ///
    /// # Errors
    /// The disk's, and `UnexpectedEof` for a file that is shorter than it should be.
    pub fn poll_some(&mut self, part: &FilePart, cx: &mut Context<'_>) -> Poll<Result<u64>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                read.map_err(Error::other)??;
            }
            if self.until > part.offset {
                return Poll::Ready(Ok((self.until - part.offset).min(part.len)));
            }
            let end = part.offset + part.len.min(WINDOW);
            if part.file.is_resident(end) {
                // Nothing to look at.
            } else if is_resident(part.file.file(), part.offset, end)? {
                part.file.saw_resident(part.offset, end);
            } else {
                let (file, at) = (Arc::clone(&part.file), part.offset);
                let read = move || read_through(file.file(), at, end);
                self.reading = Some(tokio::task::spawn_blocking(read));
            }
            // Also while it is read: what a reading that came to its end has read is in memory.
            self.until = end;
        }
    }
}

// === the disk ===

/// Whether the bytes from `at` to `end` are in memory, as far as samples tell. What they miss costs a
/// wait for one read, and no correctness.
fn is_resident(file: &File, at: u64, end: u64) -> Result<bool> {
    let last = std::iter::once(end.saturating_sub(1));
    let step = usize::try_from(STRIDE).unwrap_or(usize::MAX);
    for sample in (at..end).step_by(step).chain(last) {
        match read_if_resident(file, sample, &mut [0]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::OPNOTSUPP) => return Ok(is_in_memory(file)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Reads if it needs no wait; `None` when it would.
fn read_now(open: &OpenFile, at: u64, count: usize) -> Result<Option<Bytes>> {
    let file = open.file();
    if open.is_in_memory() {
        return read_waiting(file, at, count).map(Some);
    }
    let mut buffer = BytesMut::zeroed(count);
    match read_if_resident(file, at, &mut buffer) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(read) => {
            buffer.truncate(read);
            Ok(Some(buffer.freeze()))
        }
        Err(Errno::AGAIN) => Ok(None),
        Err(Errno::OPNOTSUPP) if is_in_memory(file) => read_waiting(file, at, count).map(Some),
        Err(Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_if_resident(file: &File, at: u64, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    preadv2(file, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT)
}

fn is_in_memory(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS_MAGIC))
}

fn read_waiting(file: &File, at: u64, count: usize) -> Result<Bytes> {
    let mut buffer = Vec::with_capacity(count);
    // Into room that nobody has cleared for it.
    if rustix::io::pread(file, spare_capacity(&mut buffer), at)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(buffer.into())
}

/// Brings the bytes from `at` to `end` into memory.
fn read_through(file: &File, mut at: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; usize::try_from(STRIDE).unwrap_or(PIECE)];
    while at < end {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::future::poll_fn;
    use std::io::Write;

    /// A file of `length` bytes that the kernel was told to forget, and whether it did.
    fn forgotten(length: u64) -> (FilePart, Vec<u8>, bool) {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..length).map(|at| (at / 253 + at % 253) as u8).collect();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let gone = !is_in_memory(&file) && !is_resident(&file, 0, length).unwrap();
        (FilePart { file: Arc::new(OpenFile::new(file)), offset: 0, len: length }, bytes, gone)
    }

    /// How often somebody waited who asked for all of a file.
    async fn waits(part: &FilePart) -> usize {
        let mut resident = Resident::default();
        let mut left = part.clone();
        let mut waits = 0;
        while left.len > 0 {
            let some = poll_fn(|cx| {
                let some = resident.poll_some(&left, cx);
                waits += usize::from(some.is_pending());
                some
            })
            .await
            .unwrap();
            assert!(some > 0 && some <= WINDOW.min(left.len));
            left.offset += some;
            left.len -= some;
        }
        waits
    }

    #[tokio::test]
    async fn what_is_not_in_memory_is_read_beside_the_event_loop() {
        // The look at a file makes the kernel read it, so one try may come too late.
        for _ in 0..50 {
            let (part, _, gone) = forgotten((2 << 20) + 5);
            let waited = waits(&part).await;
            if !gone {
                return assert_eq!(waited, 0, "a file system in memory forgets nothing");
            }
            if waited > 0 {
                return assert_eq!(waits(&part).await, 0, "what was read is there");
            }
        }
        panic!("files that were not in memory were sent as if they were");
    }

    #[tokio::test]
    async fn pieces_are_the_file_wherever_it_is() {
        for _ in 0..2 {
            let (part, bytes, _) = forgotten(700_001);
            for most in [PIECE, 10_007] {
                let mut pieces = Pieces::new(part.clone());
                let mut read = Vec::new();
                while let Some(piece) = poll_fn(|cx| pieces.poll_piece(most, cx)).await.unwrap() {
                    assert!(!piece.is_empty() && piece.len() <= most);
                    read.extend_from_slice(&piece);
                }
                assert!(read == bytes);
            }
            let streamed = stream(part).collect().await.unwrap().to_bytes();
            assert!(streamed == bytes);
        }
    }

    #[tokio::test]
    async fn a_short_file_is_an_error() {
        let (mut part, _, _) = forgotten(100_000);
        part.len = 100_001;
        let mut pieces = Pieces::new(part.clone());
        let error = loop {
            match poll_fn(|cx| pieces.poll_piece(PIECE, cx)).await {
                Ok(piece) => assert!(piece.is_some()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(stream(part.clone()).collect().await.is_err());
        let mut resident = Resident::default();
        let error = poll_fn(|cx| resident.poll_some(&part, cx)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
