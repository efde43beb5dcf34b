//! A file that content is sent from: on disk, or in memory alone. Says since when it is known to be in
//! memory; reads nothing by itself.

use bytes::Bytes;
use rustix::fs::MemfdFlags;
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io::{ErrorKind, Result};
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// How long a file that was in memory is taken to be there still, in milliseconds. The kernel drops what
/// was used last of all, so a wrong guess is rare, and costs a wait for one read.
const BELIEVED: u64 = 1_000;

/// Files in memory that are open now.
static IN_MEMORY: AtomicU64 = AtomicU64::new(0);
/// How many there may be: most descriptors are for connections.
static MOST_IN_MEMORY: LazyLock<u64> =
    LazyLock::new(|| getrlimit(Resource::Nofile).current.map_or(65_536, |limit| limit / 4));
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// An open file. Only ever read at given positions, so that readers share it.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    /// Its first bytes that were seen to be in memory.
    until: AtomicU64,
    /// When that was, in milliseconds.
    seen: AtomicU64,
    in_memory: bool,
}

impl OpenFile {
    /// A file of any file system.
    #[must_use]
    pub fn new(file: File) -> OpenFile {
        OpenFile { file, until: AtomicU64::new(0), seen: AtomicU64::new(0), in_memory: false }
    }

    /// A file without a name that holds `content` in memory (memfd_create(2)): the kernel sends its
    /// pages as they are, where it copies bytes that a process holds.
    ///
    /// # Errors
    /// The kernel's, and `QuotaExceeded` when a quarter of the process's descriptors are such files.
    pub fn in_memory(content: &[Bytes]) -> Result<OpenFile> {
        if IN_MEMORY.fetch_add(1, Ordering::Relaxed) >= *MOST_IN_MEMORY {
            IN_MEMORY.fetch_sub(1, Ordering::Relaxed);
            return Err(ErrorKind::QuotaExceeded.into());
        }
        let made = rustix::fs::memfd_create("verge-response", MemfdFlags::CLOEXEC);
        let file = made.inspect_err(|_| {
            IN_MEMORY.fetch_sub(1, Ordering::Relaxed);
        })?;
        let open = OpenFile {
            file: file.into(),
            until: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            in_memory: true,
        };
        let mut at = 0;
        for piece in content {
            open.file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(open)
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it lies in memory alone: reading it never waits.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Whether its first `end` bytes are in memory, as far as they were looked at lately.
    #[must_use]
    pub fn is_resident(&self, end: u64) -> bool {
        self.in_memory || (end <= self.until.load(Ordering::Relaxed) && self.is_believed())
    }

    /// The bytes from `start` up to `end` were seen to be in memory just now.
    pub fn saw_resident(&self, start: u64, end: u64) {
        let until = self.until.load(Ordering::Relaxed);
        if start == 0 && (end >= until || !self.is_believed()) {
            self.until.store(end, Ordering::Relaxed);
            self.seen.store(now(), Ordering::Relaxed);
        } else if start <= until && end > until {
            self.until.store(end, Ordering::Relaxed);
        }
    }

    fn is_believed(&self) -> bool {
        now().saturating_sub(self.seen.load(Ordering::Relaxed)) < BELIEVED
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.in_memory {
            IN_MEMORY.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn now() -> u64 {
    u64::try_from(STARTED.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn content_in_memory_is_what_was_given_and_is_counted() {
        let pieces = [Bytes::from_static(b"one "), Bytes::new(), Bytes::from_static(b"two")];
        let open = OpenFile::in_memory(&pieces).unwrap();
        assert!(IN_MEMORY.load(Ordering::Relaxed) >= 1);
        let mut read = [0; 8];
        assert_eq!(open.file().read_at(&mut read, 0).unwrap(), 7);
        assert_eq!(&read[..7], b"one two");
        assert!(open.is_resident(7));
    }

    #[test]
    fn a_file_on_disk_is_in_memory_when_it_was_seen_there() {
        let open = OpenFile::new(tempfile::tempfile().unwrap());
        assert!(!open.is_resident(10));
        open.saw_resident(5, 10);
        assert!(!open.is_resident(10), "its first bytes were not seen");
        open.saw_resident(0, 10);
        assert!(open.is_resident(10) && !open.is_resident(11));
        open.saw_resident(0, 4);
        open.saw_resident(10, 20);
        assert!(open.is_resident(20) && !open.is_resident(21));
        std::thread::sleep(std::time::Duration::from_millis(BELIEVED + 5));
        assert!(!open.is_resident(1));
    }
}
