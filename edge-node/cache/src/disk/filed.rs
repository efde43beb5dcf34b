//! Content in a file: which, how long, its checksums, and whether the file is still the one that was
//! checked. Reads and verifies; never decides to keep or to drop it.

use super::folder::Folder;
use super::record::{self, Record, TRAILER_BYTES};
use super::{BLOCK_BYTES, Disk, DiskError};
use crate::api::BoxError;
use crate::open_file::OpenFile;
use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// Content in a file.
#[derive(Debug)]
pub(crate) struct Filed {
    /// The file's number.
    pub(crate) id: u64,
    /// Bytes of content.
    pub(crate) len: u64,
    sums: Box<[u64]>,
    /// Entries of the store that hold it: the file goes with the last.
    owners: AtomicUsize,
    uses: AtomicU32,
    /// On which use it is copied into memory.
    due: AtomicU32,
    /// Its file, for as long as that is open.
    open: Mutex<Weak<OpenFile>>,
    /// A visitor was sent a part of it before the rest was found wrong: it is of no use to the next one.
    spoilt: AtomicBool,
    /// Blocks from the first on that were found right; all of them: it need not be read to be sent.
    right: AtomicU64,
    stamp: Mutex<Option<Stamp>>,
}

/// What changes when somebody writes to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, u64),
    size: u64,
    inode: u64,
}

// === impl Filed ===

impl Filed {
    /// Content that is about to be written.
    pub(crate) fn new(id: u64, content: &[Bytes]) -> Filed {
        let len = content.iter().map(|piece| piece.len() as u64).sum();
        Filed::of(id, len, super::sums_of(content))
    }

    /// Content with these checksums; not checked yet.
    pub(crate) fn of(id: u64, len: u64, sums: Vec<u64>) -> Filed {
        Filed {
            id,
            len,
            sums: sums.into(),
            owners: AtomicUsize::new(0),
            uses: AtomicU32::new(0),
            due: AtomicU32::new(super::PROMOTED_ON_USE),
            open: Mutex::default(),
            spoilt: AtomicBool::new(false),
            right: AtomicU64::new(0),
            stamp: Mutex::new(None),
        }
    }

    /// Bytes that it takes in memory.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Filed>() + 8 * self.sums.len()
    }

    pub(crate) fn sums(&self) -> &[u64] {
        &self.sums
    }

    /// An entry of the store holds it.
    pub(crate) fn held(&self) {
        self.owners.fetch_add(1, Ordering::AcqRel);
    }

    /// An entry lets it go; whether it was the last.
    pub(crate) fn let_go(&self) -> bool {
        self.owners.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether any entry of the store holds it.
    pub(crate) fn is_held(&self) -> bool {
        self.owners.load(Ordering::Acquire) > 0
    }

    /// Counts a use; whether it is one that brings the content into memory.
    pub(crate) fn used(&self) -> bool {
        let uses = self.uses.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        uses >= self.due.load(Ordering::Relaxed)
    }

    /// It was copied into memory, and is not to be again before it is used many `times` more.
    pub(crate) fn tried(&self, times: u32) {
        self.due.store(self.uses().saturating_mul(times), Ordering::Relaxed);
    }

    /// The file, if it is open.
    pub(crate) fn open_file(&self) -> Option<Arc<OpenFile>> {
        self.open.lock().upgrade()
    }

    pub(crate) fn set_open(&self, file: &Arc<OpenFile>) {
        *self.open.lock() = Arc::downgrade(file);
    }

    pub(crate) fn uses(&self) -> u32 {
        self.uses.load(Ordering::Relaxed)
    }

    /// It cannot be read, or not as it was written.
    pub(crate) fn spoil(&self) {
        self.spoilt.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Relaxed)
    }

    /// All of the content was found right.
    pub(crate) fn is_verified(&self) -> bool {
        self.right.load(Ordering::Acquire) == self.sums.len() as u64 && self.stamp.lock().is_some()
    }

    /// This process wrote the file just now.
    pub(crate) fn was_written(&self, file: &File) -> Result<(), DiskError> {
        *self.stamp.lock() = Some(Stamp::of(file)?);
        self.right.store(self.sums.len() as u64, Ordering::Release);
        Ok(())
    }

    /// Nobody wrote to the file since it was last looked at.
    pub(crate) fn is_untouched(&self, file: &File) -> bool {
        Stamp::of(file).is_ok_and(|now| *self.stamp.lock() == Some(now))
    }

    /// Looks at the file: where it was touched, nothing of it counts as right any longer.
    pub(crate) fn look(&self, file: &File) -> Result<(), DiskError> {
        let now = Stamp::of(file)?;
        let mut stamp = self.stamp.lock();
        if *stamp != Some(now) {
            *stamp = Some(now);
            self.right.store(0, Ordering::Release);
        }
        if now.size < self.len { Err(DiskError::Damaged) } else { Ok(()) }
    }

    /// Reads one block and checks it.
    pub(crate) fn read_block(&self, file: &File, index: u64) -> Result<Bytes, DiskError> {
        let start = index.saturating_mul(BLOCK_BYTES);
        let length = self.len.saturating_sub(start).min(BLOCK_BYTES);
        let mut block = vec![0; usize::try_from(length).unwrap_or_default()];
        read_exact(file, &mut block, start)?;
        self.check(index, &block)?;
        Ok(block.into())
    }

    /// Reads and checks all of it.
    pub(crate) fn read_all(&self, file: &File) -> Result<Bytes, DiskError> {
        let mut content = vec![0; usize::try_from(self.len).map_err(|_| DiskError::Damaged)?];
        read_exact(file, &mut content, 0)?;
        let size = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
        for (index, block) in content.chunks(size).enumerate() {
            self.check(index as u64, block)?;
        }
        Ok(content.into())
    }

    fn check(&self, index: u64, block: &[u8]) -> Result<(), DiskError> {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        if self.sums.get(at).copied() != Some(record::block_sum(index, block)) {
            return Err(DiskError::Damaged);
        }
        // In order only: what lies between two right blocks is not known to be right.
        let _ = self.right.compare_exchange(index, index + 1, Ordering::AcqRel, Ordering::Relaxed);
        Ok(())
    }

    /// Puts another record behind the content.
    pub(crate) fn rewrite(&self, folder: &Folder, record: &Record<'_>) -> Result<(), DiskError> {
        let file = File::options().read(true).write(true).open(folder.object(self.id))?;
        let end = record::seal(record, self.len).ok_or(DiskError::Damaged)?;
        let mut stamp = self.stamp.lock();
        let untouched = Stamp::of(&file).is_ok_and(|now| *stamp == Some(now));
        file.write_all_at(&end, self.len)?;
        file.set_len(self.len + end.len() as u64)?;
        // What was found right still is; but who else wrote to it is not to be covered up.
        if untouched {
            *stamp = Some(Stamp::of(&file)?);
        }
        Ok(())
    }
}

impl Stamp {
    fn of(file: &File) -> std::io::Result<Stamp> {
        let about = rustix::fs::fstat(file)?;
        let modified = (about.st_mtime, about.st_mtime_nsec);
        Ok(Stamp { modified, size: about.st_size.unsigned_abs(), inode: about.st_ino })
    }
}

/// A file that ends early is damaged; any other failure is the disk's.
pub(crate) fn read_exact(file: &File, into: &mut [u8], at: u64) -> Result<(), DiskError> {
    file.read_exact_at(into, at).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => DiskError::Damaged,
        _ => DiskError::Io(error),
    })
}

/// The end of a file of `size` bytes, and where it begins: enough for most records.
pub(crate) fn read_end(file: &File, size: u64) -> Result<(Vec<u8>, u64), DiskError> {
    const MOST: u64 = 8 * 1024;
    let start = size.saturating_sub(MOST.max(TRAILER_BYTES as u64));
    let mut end = vec![0; usize::try_from(size - start).unwrap_or_default()];
    read_exact(file, &mut end, start)?;
    Ok((end, start))
}

/// Content from a file, block by block, each checked before it goes out.
pub(crate) struct FileBody {
    disk: Arc<Disk>,
    filed: Arc<Filed>,
    file: Arc<OpenFile>,
    /// The next byte to be given, and the first that is not wanted.
    at: u64,
    end: u64,
    reading: Option<JoinHandle<Result<Bytes, DiskError>>>,
}

impl FileBody {
    /// The bytes from `start` up to `end`, which is not among them.
    pub(crate) fn new(
        disk: Arc<Disk>,
        filed: Arc<Filed>,
        file: Arc<OpenFile>,
        (start, end): (u64, u64),
    ) -> FileBody {
        FileBody { disk, filed, file, at: start, end, reading: None }
    }

    fn read(&self, index: u64) -> JoinHandle<Result<Bytes, DiskError>> {
        let (filed, file) = (Arc::clone(&self.filed), Arc::clone(&self.file));
        tokio::task::spawn_blocking(move || filed.read_block(file.file(), index))
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let index = self.at / BLOCK_BYTES;
        let mut reading = self.reading.take().unwrap_or_else(|| self.read(index));
        let Poll::Ready(read) = Pin::new(&mut reading).poll(cx) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        let block = match read {
            Ok(Ok(block)) => block,
            Ok(Err(error)) => {
                self.disk.fault("read", &error);
                self.filed.spoil();
                self.at = self.end;
                return Poll::Ready(Some(Err(Box::new(error))));
            }
            Err(error) => return Poll::Ready(Some(Err(Box::new(error)))),
        };
        let start = index * BLOCK_BYTES;
        let within = |offset: u64| {
            usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX).min(block.len())
        };
        let data = block.slice(within(self.at)..within(self.end));
        self.at = (start + BLOCK_BYTES).min(self.end);
        if self.at < self.end {
            // The next block is read while this one is sent.
            self.reading = Some(self.read(index + 1));
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

/// Bytes of a file that is still being written, read where they are already there.
pub(crate) fn read_part(
    file: &Arc<OpenFile>,
    at: u64,
    length: usize,
) -> JoinHandle<std::io::Result<Bytes>> {
    let file = Arc::clone(file);
    tokio::task::spawn_blocking(move || {
        let mut part = vec![0; length];
        file.file().read_exact_at(&mut part, at)?;
        Ok(part.into())
    })
}

/// Polls a read that was begun with [`read_part`].
pub(crate) fn poll_part(
    reading: &mut JoinHandle<std::io::Result<Bytes>>,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<Bytes>> {
    match ready!(Pin::new(reading).poll(cx)) {
        Ok(read) => Poll::Ready(read),
        Err(error) => Poll::Ready(Err(std::io::Error::other(error))),
    }
}
