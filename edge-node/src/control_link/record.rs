//! One file of the edge's state: written so that a crash leaves the old one or the new one, and read
//! so that one damaged byte makes it no file at all. May not know what is in it.

use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The first word of every file.
const MAGIC: &str = "verge-state-1";
/// The longest header: magic, digest, length and the line feed.
const HEADER_MAX: u64 = 128;

/// What a file of state turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// Its payload, as it was written.
    Whole(Vec<u8>),
    /// There is none.
    Absent,
    /// There is one that is not what was written; the reason is for the log.
    Damaged(String),
}

/// Replaces the file at `path` by `payload` under a checksum: temporary file, fsync, rename, fsync of
/// the directory. Only its owner may read it.
pub(super) fn write(path: &Path, payload: &[u8]) -> io::Result<()> {
    write_with(path, &header(payload), payload, |_| Ok(()))
}

/// As [`write`], without a checksum: for content that is known by its digest.
pub(super) fn write_raw(path: &Path, content: &[u8]) -> io::Result<()> {
    write_with(path, "", content, |_| Ok(()))
}

/// As [`write`], and the file that was there becomes `previous`.
pub(super) fn write_keeping(path: &Path, previous: &Path, payload: &[u8]) -> io::Result<()> {
    write_with(path, &header(payload), payload, |path| match fs::rename(path, previous) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

fn write_with(
    path: &Path,
    header: &str,
    payload: &[u8],
    before_rename: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary_of(path);
    let result = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(header.as_bytes())?;
        file.write_all(payload)?;
        file.sync_all()?;
        before_rename(path)?;
        fs::rename(&temporary, path)?;
        sync_folder_of(path)
    })();
    if result.is_err() {
        // What is left of a failed write is of no use; that it cannot be removed changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Reads the file at `path` when its payload is at most `limit` bytes and what was written.
pub(super) fn read(path: &Path, limit: u64) -> Stored {
    let bytes = match read_bounded(path, limit.saturating_add(HEADER_MAX)) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Stored::Damaged("longer than a file of its kind can be".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Stored::Absent,
        Err(error) => return Stored::Damaged(error.to_string()),
    };
    match payload_of(bytes) {
        Some(payload) => Stored::Whole(payload),
        None => Stored::Damaged("does not match its checksum".to_owned()),
    }
}

/// A file's bytes, or `None` when there are more than `limit`.
pub(super) fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

fn payload_of(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let end = bytes.iter().take(HEADER_MAX as usize).position(|&byte| byte == b'\n')?;
    let payload = bytes.split_off(end + 1);
    (bytes == header(&payload).as_bytes()).then_some(payload)
}

fn header(payload: &[u8]) -> String {
    let digest = hex::encode(Sha256::digest(payload));
    format!("{MAGIC} {digest} {}\n", payload.len())
}

/// Makes a removal or a rename in the folder of `path` last.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

/// Where a file is written before it takes its place; the same for each write of it, so that crashes
/// cannot pile them up.
pub(super) fn temporary_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn comes_back_as_written_and_keeps_the_previous() {
        let folder = tempfile::tempdir().unwrap();
        let (path, previous) = (folder.path().join("a"), folder.path().join("a.prev"));
        assert_eq!(read(&path, 10), Stored::Absent);
        write_keeping(&path, &previous, b"one").unwrap();
        assert_eq!(read(&path, 10), Stored::Whole(b"one".to_vec()));
        assert_eq!(read(&previous, 10), Stored::Absent);
        write_keeping(&path, &previous, b"two\nlines").unwrap();
        assert_eq!(read(&path, 10), Stored::Whole(b"two\nlines".to_vec()));
        assert_eq!(read(&previous, 10), Stored::Whole(b"one".to_vec()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!temporary_of(&path).exists());
        write(&path, &[b'x'; 4096]).unwrap();
        assert!(matches!(read(&path, 10), Stored::Damaged(_)), "longer than allowed");
    }

    proptest! {
        #[test]
        fn any_flipped_byte_or_cut_is_seen(payload in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut in any::<bool>()) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            write(&path, &payload).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            fs::write(&path, &bytes).unwrap();
            let seen = read(&path, 1000);
            prop_assert!(matches!(seen, Stored::Damaged(_)), "{seen:?}");
        }
    }
}
