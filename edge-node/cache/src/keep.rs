//! What becomes of a fill's content: how much of it is kept while it streams, when it goes to the disk,
//! and the object that it is in the end. Asks no source and answers no visitor.

use crate::api::FilePart;
use crate::buffer::Keeping;
use crate::cache::Inner;
use crate::content::Content;
use crate::disk::record::Record;
use crate::disk::{Disk, DiskError, Filed, Spill};
use crate::fill::Fill;
use crate::object::{Parts, StoredObject};
use crate::open_file::OpenFile;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Content goes to its file in pieces of about this many bytes.
const PIECE_BYTES: u64 = 1024 * 1024;
/// Content up to this length lies in one piece with its header section. Longer content has a piece of its
/// own, which begins where the kernel copies fastest from: at the start of a page.
const INLINE_BYTES: u64 = 4 * 1024;
/// From this length on content lies in a file in memory: sending its pages as they are takes less than
/// copying them.
const MEMORY_FILE_BYTES: u64 = 64 * 1024;
/// Nobody reads: what is left of content is fetched for the store's sake if it is not more than this.
const FINISHED_ALONE_BYTES: u64 = 16 * 1024 * 1024;

/// The content of a fill that is to be stored, while it comes.
pub(crate) struct Keeper<'a> {
    inner: &'a Arc<Inner>,
    fill: &'a Arc<Fill>,
    /// Bytes in memory, counted among those of all fills.
    own: u64,
    /// Bytes reserved of the disk.
    reserved: u64,
    spill: Option<Spill>,
}

/// All of the content.
pub(crate) enum Kept {
    Memory(Vec<Bytes>),
    File(Spill),
}

impl Kept {
    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Kept::Memory(pieces) => kept_len(pieces),
            Kept::File(spill) => spill.written(),
        }
    }
}

fn kept_len(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// In one piece of its own: what came may be a slice of a larger buffer, which it would keep alive.
fn joined(pieces: &[Bytes]) -> Bytes {
    pieces.concat().into()
}

/// In memory alone. Where it cannot have a file there, a piece does as well.
fn in_memory(pieces: &[Bytes]) -> Content {
    let len = kept_len(pieces);
    match (len >= MEMORY_FILE_BYTES).then(|| OpenFile::in_memory(pieces)) {
        Some(Ok(file)) => {
            Content::MemoryFile(Arc::new(FilePart { file: Arc::new(file), offset: 0, len }))
        }
        _ => Content::Shared(Arc::new(joined(pieces))),
    }
}

/// Why content is not kept any longer.
pub(crate) enum Dropped {
    TooLarge,
    DiskFailed,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(inner: &'a Arc<Inner>, fill: &'a Arc<Fill>) -> Keeper<'a> {
        Keeper { inner, fill, own: 0, reserved: 0, spill: None }
    }

    /// So many bytes came, and so many so far.
    pub(crate) async fn took(&mut self, size: u64, received: u64) -> Result<(), Dropped> {
        self.own += size;
        let all = self.inner.filling.fetch_add(size, Ordering::Relaxed) + size;
        if received > self.inner.max_object {
            return Err(Dropped::TooLarge);
        }
        let Some(disk) = self.inner.store.disk() else {
            let fits = all <= self.inner.settings.fill_bytes;
            return if fits { Ok(()) } else { Err(Dropped::TooLarge) };
        };
        let full = all > self.inner.settings.fill_bytes;
        if received <= PIECE_BYTES.max(disk.ram_object()) && !full {
            return Ok(());
        }
        if self.own >= PIECE_BYTES || full { self.flush(&Arc::clone(disk)).await } else { Ok(()) }
    }

    /// Whether the rest is worth fetching when nobody reads it: little of it is left.
    pub(crate) fn may_finish_alone(received: u64, length: Option<u64>) -> bool {
        let left = length.map_or(received, |length| length.saturating_sub(received));
        left <= FINISHED_ALONE_BYTES
    }

    async fn flush(&mut self, disk: &Arc<Disk>) -> Result<(), Dropped> {
        let pieces = self.fill.unwritten();
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        if !disk.reserve(bytes) {
            return Err(Dropped::TooLarge);
        }
        self.reserved += bytes;
        let _turn = disk.turn().await;
        let (spill, writer) = (self.spill.take(), Arc::clone(disk));
        let writing = tokio::task::spawn_blocking(move || -> Result<Spill, DiskError> {
            let mut spill = match spill {
                Some(spill) => spill,
                None => Spill::create(&writer).inspect_err(|e| writer.fault("create", e))?,
            };
            spill.append(&writer, &pieces)?;
            Ok(spill)
        });
        let Ok(Ok(spill)) = writing.await else { return Err(Dropped::DiskFailed) };
        self.fill.is_in_file(spill.file(), spill.written());
        self.fill.keep(Keeping::Filed);
        self.forget_memory();
        self.spill = Some(spill);
        Ok(())
    }

    /// It is all there.
    pub(crate) async fn finish(mut self) -> Result<Kept, Dropped> {
        if self.spill.is_some()
            && let Some(disk) = self.inner.store.disk()
        {
            self.flush(&Arc::clone(disk)).await?;
        }
        Ok(match self.spill.take() {
            Some(spill) => Kept::File(spill),
            None => Kept::Memory(self.fill.pieces()),
        })
    }

    fn forget_memory(&mut self) {
        self.inner.filling.fetch_sub(self.own, Ordering::Relaxed);
        self.own = 0;
    }
}

impl Drop for Keeper<'_> {
    fn drop(&mut self) {
        self.forget_memory();
        if let Some(disk) = self.inner.store.disk() {
            disk.release(self.reserved);
        }
    }
}

impl Inner {
    /// Makes an object of content that is all there. Where there is a disk tier, long content has its
    /// file when this returns, and short content is to be written with [`Inner::write`] once the object
    /// is in the store. `None` when it could not be kept anywhere.
    pub(crate) async fn object(&self, parts: Parts, kept: Kept) -> Option<StoredObject> {
        match (self.store.disk(), kept) {
            (None, Kept::Memory(pieces)) if kept_len(&pieces) > INLINE_BYTES => {
                let content = in_memory(&pieces);
                Some(StoredObject::with_content(parts, content))
            }
            (None, Kept::Memory(pieces)) => {
                let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
                Some(StoredObject::inline(parts, &pieces))
            }
            (None, Kept::File(_)) => None,
            (Some(disk), Kept::Memory(pieces)) => {
                let filed = disk.await_file(joined(&pieces)).await?;
                Some(filed_object(parts, &filed))
            }
            (Some(disk), Kept::File(mut spill)) => {
                let object = filed_object(parts, &spill.filed());
                let writer = Writer::new(self, disk, &object);
                let written =
                    writer.run(move |disk, filed, record| spill.finish(disk, filed, record));
                written.await.map(|()| object)
            }
        }
    }

    /// Writes the file of an object that is in the store without one. Where that fails, the object stays
    /// for as long as memory has room for it.
    pub(crate) async fn write(&self, object: &StoredObject) {
        let (Content::Filed(filed), Some(disk)) = (&object.content, self.store.disk()) else {
            return;
        };
        if !disk.awaits_file(filed) {
            return;
        }
        let writer = Writer::new(self, disk, object);
        let written = writer.run(|disk, filed, record| disk.save(filed, record)).await;
        disk.has_file(filed, written.is_some());
    }

    /// The file of an object whose record has changed is told so, beside the work.
    pub(crate) fn rewrite(&self, object: &StoredObject) {
        let (Content::Filed(_), Some(disk)) = (&object.content, self.store.disk()) else { return };
        let writer = Writer::new(self, disk, object);
        tokio::spawn(writer.run(|disk, filed, record| {
            disk.rewrite(filed, record).inspect_err(|error| disk.fault("write", error))
        }));
    }
}

fn filed_object(parts: Parts, filed: &Arc<Filed>) -> StoredObject {
    StoredObject::with_content(parts, Content::Filed(Arc::clone(filed)))
}

/// What is needed to write an object's record, on a thread that may wait.
struct Writer {
    disk: Arc<Disk>,
    object: StoredObject,
    now: (u64, u64),
}

impl Writer {
    fn new(inner: &Inner, disk: &Arc<Disk>, object: &StoredObject) -> Writer {
        let now = inner.settings.clock.now();
        Writer { disk: Arc::clone(disk), object: object.clone(), now: (now.mono, now.wall) }
    }

    /// Does it; `None` when it failed.
    async fn run<W>(self, work: W) -> Option<()>
    where
        W: FnOnce(&Disk, &Filed, &Record<'_>) -> Result<(), DiskError> + Send + 'static,
    {
        let disk = Arc::clone(&self.disk);
        let _turn = disk.turn().await;
        let writing = tokio::task::spawn_blocking(move || {
            let Content::Filed(filed) = &self.object.content else { return Ok(()) };
            let mut key = Vec::new();
            self.object.key.encode(&mut key);
            let record = Record::of(&key, &self.object, filed.sums(), self.now);
            work(&self.disk, filed, &record)
        });
        writing.await.ok()?.ok()
    }
}
