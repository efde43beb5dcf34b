//! Writing an object's file: content as it comes, its checksums beside it, the record at the end, and a
//! new name once all of it is there. Blocks; belongs on a thread that may.

use super::record::{self, Record};
use super::{BLOCK_BYTES, Disk, DiskError, Filed};
use crate::open_file::OpenFile;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::path::PathBuf;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// A file that is being written; deleted unless it is finished.
#[derive(Debug)]
pub(crate) struct Spill {
    id: u64,
    path: PathBuf,
    file: Arc<OpenFile>,
    written: u64,
    summing: Summing,
    finished: bool,
}

/// Checksums of content that comes in pieces.
#[derive(Default)]
pub(crate) struct Summing {
    sums: Vec<u64>,
    block: Option<Box<Xxh3>>,
    in_block: u64,
}

// === impl Spill ===

impl Spill {
    /// A new file.
    pub(crate) fn create(disk: &Disk) -> Result<Spill, DiskError> {
        Spill::with_id(disk, disk.new_id())
    }

    pub(crate) fn with_id(disk: &Disk, id: u64) -> Result<Spill, DiskError> {
        let path = disk.folder.unfinished(id);
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let summing = Summing::default();
        Ok(Spill {
            id,
            path,
            file: Arc::new(OpenFile::new(file)),
            written: 0,
            summing,
            finished: false,
        })
    }

    /// The file, for those who read what was written so far.
    pub(crate) fn file(&self) -> Arc<OpenFile> {
        Arc::clone(&self.file)
    }

    /// Bytes of content so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Adds content.
    pub(crate) fn append(&mut self, disk: &Disk, content: &[Bytes]) -> Result<(), DiskError> {
        for piece in content {
            self.summing.add(piece);
        }
        let length: u64 = content.iter().map(|piece| piece.len() as u64).sum();
        if let Err(error) = write_all(self.file.file(), content) {
            disk.fault("write", &error);
            return Err(error.into());
        }
        self.written += length;
        Ok(())
    }

    /// What is known of the content, once it is all there.
    pub(crate) fn filed(&mut self) -> Arc<Filed> {
        let sums = std::mem::take(&mut self.summing).finish();
        Arc::new(Filed::of(self.id, self.written, sums))
    }

    /// Writes the record, and gives the file its name.
    pub(crate) fn finish(
        mut self,
        disk: &Disk,
        filed: &Filed,
        record: &Record<'_>,
    ) -> Result<(), DiskError> {
        let done = self.seal(disk, filed, record);
        if let Err(error) = &done {
            disk.fault("write", error);
        }
        done
    }

    fn seal(&mut self, disk: &Disk, filed: &Filed, record: &Record<'_>) -> Result<(), DiskError> {
        let end = record::seal(record, self.written).ok_or(DiskError::Damaged)?;
        write_all(self.file.file(), &[Bytes::from(end)])?;
        let path = disk.folder.object(self.id);
        if let Err(error) = fs::rename(&self.path, &path) {
            // The folders are made when they are first needed.
            let Some(parent) = path.parent().filter(|_| error.kind() == io::ErrorKind::NotFound)
            else {
                return Err(error.into());
            };
            fs::create_dir_all(parent)?;
            fs::rename(&self.path, &path)?;
        }
        self.finished = true;
        disk.handles.insert(self.id, self.file());
        filed.was_written(self.file.file())?;
        Ok(())
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// All pieces, in as few calls as there need be.
fn write_all(mut file: &File, content: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = content.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut rest, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

// === impl Summing ===

impl std::fmt::Debug for Summing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Summing").field("blocks", &self.sums.len()).finish_non_exhaustive()
    }
}

impl Summing {
    pub(crate) fn add(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let room = usize::try_from(BLOCK_BYTES - self.in_block).unwrap_or(usize::MAX);
            let (now, later) = piece.split_at(room.min(piece.len()));
            if self.block.is_none() && now.len() == room {
                // A whole block in one piece needs no state.
                self.sums.push(record::block_sum(self.sums.len() as u64, now));
                piece = later;
                continue;
            }
            let index = self.sums.len() as u64;
            let block = self.block.get_or_insert_with(|| Box::new(record::block_summer(index)));
            block.update(now);
            self.in_block += now.len() as u64;
            if self.in_block == BLOCK_BYTES {
                self.end_block();
            }
            piece = later;
        }
    }

    fn end_block(&mut self) {
        if let Some(block) = self.block.take() {
            self.sums.push(block.digest());
        }
        self.in_block = 0;
    }

    pub(crate) fn finish(mut self) -> Vec<u64> {
        self.end_block();
        self.sums
    }
}
