//! A stored response's content, brought to where it can be sent from. Reads the tiers; says nothing of
//! freshness.

use crate::api::{Body, FilePart};
use crate::content::Content;
use crate::disk::{Disk, DiskError, FileBody, Filed, Ready};
use crate::explain::Tier;
use crate::object::StoredObject;
use crate::open_file::OpenFile;
use crate::store::Store;
use bytes::Bytes;
use http_body_util::BodyExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Content that can be sent.
pub(crate) enum Held {
    /// In memory.
    Bytes(Bytes),
    /// In a file that was found right.
    File(FilePart),
    /// In a file that has to be checked block by block.
    Blocks { disk: Arc<Disk>, filed: Arc<Filed>, file: Arc<OpenFile> },
}

impl Held {
    /// The content, or its bytes from the first to the last of a part, counted from the content's own
    /// beginning.
    pub(crate) fn body(self, part: Option<(u64, u64)>) -> Body {
        match self {
            Held::Bytes(bytes) => Body::Whole(match part {
                None => bytes,
                Some((first, last)) => slice(&bytes, first, last),
            }),
            Held::File(file) => {
                let (first, last) = part.unwrap_or((0, file.len.saturating_sub(1)));
                let last = last.min(file.len.saturating_sub(1));
                let len = (last + 1).saturating_sub(first);
                Body::File(FilePart { file: file.file, offset: file.offset + first, len })
            }
            Held::Blocks { disk, filed, file } => {
                let (first, last) = part.unwrap_or((0, filed.len.saturating_sub(1)));
                let end = (last + 1).min(filed.len);
                Body::Stream(FileBody::new(disk, filed, file, (first, end)).boxed_unsync())
            }
        }
    }
}

/// The bytes of a part, both ends included.
pub(crate) fn slice(content: &Bytes, first: u64, last: u64) -> Bytes {
    let start = usize::try_from(first).unwrap_or(usize::MAX).min(content.len());
    let end = usize::try_from(last).unwrap_or(usize::MAX).saturating_add(1).min(content.len());
    content.slice(start..end.max(start))
}

/// A file in memory is read without a wait.
fn read_memory(file: &OpenFile, len: u64) -> Result<Bytes, DiskError> {
    let mut content = vec![0; usize::try_from(len).map_err(|_| DiskError::Damaged)?];
    file.file().read_exact_at(&mut content, 0)?;
    Ok(content.into())
}

impl Store {
    /// The tier that a hit comes from.
    pub(crate) fn tier(&self, object: &StoredObject) -> Tier {
        match (&object.content, self.disk()) {
            (Content::Filed(filed), Some(disk)) if !disk.is_in_ram(filed) => Tier::Disk,
            _ => Tier::Ram,
        }
    }

    /// All of the content of an object that is short, in memory.
    pub(crate) async fn bytes(&self, object: &StoredObject) -> Result<Bytes, DiskError> {
        if let Some(Held::Bytes(bytes)) = self.ready(object) {
            return Ok(bytes);
        }
        if let Content::MemoryFile(part) = &object.content {
            return read_memory(&part.file, part.len);
        }
        let (Content::Filed(filed), Some(disk)) = (&object.content, self.disk()) else {
            return Err(DiskError::Damaged);
        };
        let (disk, filed) = (Arc::clone(disk), Arc::clone(filed));
        let reading = tokio::task::spawn_blocking(move || {
            disk.read(&filed).inspect_err(|error| disk.fault("read", error))
        });
        reading.await.unwrap_or(Err(DiskError::Damaged))
    }

    /// What can be sent at once; `None` when it takes a wait.
    pub(crate) fn ready(&self, object: &StoredObject) -> Option<Held> {
        match &object.content {
            Content::Inline | Content::Shared(_) => object.body().map(Held::Bytes),
            Content::MemoryFile(part) => Some(Held::File(FilePart::clone(part))),
            Content::Filed(filed) => match self.disk()?.ready(filed) {
                Ready::Whole(bytes) => Some(Held::Bytes(bytes)),
                Ready::File(file) => Some(Held::File(file)),
                Ready::Later => None,
            },
        }
    }

    /// Brings content to where it can be sent from.
    ///
    /// # Errors
    /// When the disk fails, or the file is not what was written: the object is of no use any longer.
    pub(crate) async fn hold(&self, object: &StoredObject) -> Result<Held, DiskError> {
        if let Some(held) = self.ready(object) {
            return Ok(held);
        }
        let (Content::Filed(filed), Some(disk)) = (&object.content, self.disk()) else {
            return Err(DiskError::Damaged);
        };
        let (disk, filed) = (Arc::clone(disk), Arc::clone(filed));
        let reading = tokio::task::spawn_blocking(move || {
            let whole = filed.len <= disk.ram_object().max(crate::disk::BLOCK_BYTES);
            let held = if whole {
                disk.read(&filed).map(Held::Bytes)
            } else {
                disk.file(&filed).map(|file| match filed.is_verified() {
                    true => Held::File(FilePart { file, offset: 0, len: filed.len }),
                    false => Held::Blocks { disk: Arc::clone(&disk), filed, file },
                })
            };
            held.inspect_err(|error| disk.fault("read", error))
        });
        reading.await.unwrap_or(Err(DiskError::Damaged))
    }
}
