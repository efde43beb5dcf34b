//! The disk tier: one file an object, written once, checked whenever it is read after somebody else may
//! have touched it. A fault of the disk is an error here and a miss for the cache; what is stored and
//! what is served is decided elsewhere.

mod filed;
mod folder;
mod purge_log;
pub mod record;
mod scan;
mod spill;

pub(crate) use filed::{FileBody, Filed, poll_part, read_part};
pub(crate) use folder::Folder;
pub(crate) use purge_log::{Logged, PurgeLog};
pub(crate) use scan::{Found, scan};
pub(crate) use spill::Spill;

use crate::api::FilePart;
use crate::object::StoredObject;
use crate::open_file::OpenFile;
use ahash::AHashMap;
use bytes::Bytes;
use moka::sync::Cache as Moka;
use parking_lot::Mutex;
use record::Record;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Content is read, checked and sent in blocks of this many bytes.
pub(crate) const BLOCK_BYTES: u64 = 256 * 1024;
/// The most files that are kept open for hits.
const MAX_OPEN: u64 = 2_048;
/// A failing disk is told of so often.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// On which use an object is copied into memory, and by how many times its uses grow until the next
/// try: memory that is full of what is used more does not take it, and then its file is the quicker way.
const PROMOTED_ON_USE: u32 = 2;
const NEXT_TRY: u32 = 16;
/// Bytes of content that may wait in memory for a file, and how long a response waits for its turn
/// there before it is given up.
const MOST_UNWRITTEN: usize = 64 * 1024 * 1024;
const WAIT_FOR_TURN: Duration = Duration::from_secs(1);
/// In what units they are counted.
const UNWRITTEN_UNIT: usize = 1024;
/// Files that are written at a time, and objects that are copied into memory at a time: a disk gains
/// nothing from more, and the event loops lose.
const WRITERS: usize = 8;
const PROMOTIONS: usize = 2;

/// Where the disk tier lies and how large it may grow.
#[derive(Debug, Clone)]
pub struct DiskSettings {
    /// The folder; made when it is missing, and used by one process at a time.
    pub folder: PathBuf,
    /// Bytes of files.
    pub bytes: u64,
    /// The longest content that is also kept in memory, in bytes. Default 1 MiB.
    pub ram_object_bytes: u64,
}

/// Why the disk tier cannot be used, or an object of it.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The folder cannot be used.
    #[error("{path}: {source}")]
    Folder {
        /// The folder or a file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses the folder.
    #[error("{0}: another process uses this cache folder")]
    Taken(PathBuf),
    /// An operation on an object's file failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A file does not hold what was written to it.
    #[error("the file of a stored response is damaged")]
    Damaged,
}

/// Content that a hit can be sent from without waiting.
pub(crate) enum Ready {
    Whole(Bytes),
    File(FilePart),
    /// It has to be read and checked first.
    Later,
}

/// Content that waits for its file, and its room among the others.
struct Unwritten {
    content: Bytes,
    _room: OwnedSemaphorePermit,
}

/// The disk tier.
pub(crate) struct Disk {
    folder: Folder,
    ram_object: u64,
    /// The first number of this process's files; all before it are an earlier one's.
    first: u64,
    next: AtomicU64,
    /// Content that is also in memory, by file.
    ram: Moka<u64, Bytes, ahash::RandomState>,
    handles: Moka<u64, Arc<OpenFile>, ahash::RandomState>,
    remover: mpsc::Sender<u64>,
    faults: AtomicU64,
    told: Mutex<Option<Instant>>,
    /// Content whose file is not written yet.
    unwritten: Mutex<AHashMap<u64, Unwritten>>,
    room: Arc<Semaphore>,
    writers: Semaphore,
    promotions: Arc<Semaphore>,
    /// Bytes of objects that are being written.
    spilling: AtomicU64,
    most_spilling: u64,
    scanning: AtomicBool,
}

// === impl DiskError ===

impl DiskError {
    /// There is no room. What the folder held will not be believed by the next process either, so that
    /// one may go on without it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let (DiskError::Folder { source, .. } | DiskError::Io(source)) = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

// === impl Disk ===

impl Disk {
    /// Opens the folder, alone, and reads what was purged of its objects.
    pub(crate) fn open(
        settings: &DiskSettings,
        ram_bytes: u64,
    ) -> Result<(Arc<Disk>, PurgeLog, Vec<Logged>), DiskError> {
        let folder = Folder::open(&settings.folder)?;
        let (mut log, mut lines) = match PurgeLog::open(folder.purges()) {
            Ok(opened) => opened,
            Err(error) => {
                // Purges that come meanwhile will not be in it.
                folder.disown()?;
                return Err(error.into());
            }
        };
        if lines.is_none() {
            tracing::warn!("the cache's log of purges cannot be read: its objects are thrown away");
            folder.renew()?;
            (log, lines) = PurgeLog::open(folder.purges())?;
        }
        let disk = Disk::with(folder, settings, ram_bytes)?;
        Ok((disk, log, lines.unwrap_or_default()))
    }

    fn with(
        folder: Folder,
        settings: &DiskSettings,
        ram_bytes: u64,
    ) -> Result<Arc<Disk>, DiskError> {
        let hasher = ahash::RandomState::new();
        let weigh = |_: &u64, content: &Bytes| {
            u32::try_from(content.len().saturating_add(256)).unwrap_or(u32::MAX)
        };
        let ram = Moka::builder()
            .max_capacity(ram_bytes)
            .weigher(weigh)
            .build_with_hasher(hasher.clone());
        let handles = Moka::builder().max_capacity(MAX_OPEN).build_with_hasher(hasher);
        let (remover, doomed) = mpsc::channel();
        let paths = folder.clone();
        std::thread::Builder::new().name("cache-remover".to_owned()).spawn(move || {
            for id in doomed {
                let _ = std::fs::remove_file(paths.object(id));
            }
        })?;
        let first = folder.first_id();
        Ok(Arc::new(Disk {
            first,
            next: AtomicU64::new(first),
            folder,
            ram_object: if ram_bytes == 0 { 0 } else { settings.ram_object_bytes },
            ram,
            handles,
            remover,
            faults: AtomicU64::new(0),
            told: Mutex::new(None),
            unwritten: Mutex::default(),
            room: Arc::new(Semaphore::new(MOST_UNWRITTEN / UNWRITTEN_UNIT)),
            writers: Semaphore::new(WRITERS),
            promotions: Arc::new(Semaphore::new(PROMOTIONS)),
            spilling: AtomicU64::new(0),
            most_spilling: settings.bytes / 4,
            scanning: AtomicBool::new(true),
        }))
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The longest content that may be kept in memory.
    pub(crate) fn ram_object(&self) -> u64 {
        self.ram_object
    }

    /// Bytes of content in memory.
    pub(crate) fn ram_bytes(&self) -> u64 {
        self.ram.weighted_size()
    }

    /// Operations that failed, and files that were found damaged.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Whether a file is an earlier process's.
    pub(crate) fn is_earlier(&self, id: u64) -> bool {
        id < self.first
    }

    fn new_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a fault, and tells of it once a minute.
    pub(crate) fn fault(&self, doing: &'static str, error: &dyn std::fmt::Display) {
        let faults = self.faults.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = self.told.lock();
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(doing, %error, faults, "the cache's disk fails; going on without what it holds");
        }
    }

    /// What a hit can be sent from at once.
    pub(crate) fn ready(self: &Arc<Self>, filed: &Arc<Filed>) -> Ready {
        if self.ram_object > 0
            && filed.len <= self.ram_object
            && let Some(content) = self.ram.get(&filed.id)
        {
            return Ready::Whole(content);
        }
        if !filed.is_verified() {
            if let Some(content) = self.unwritten_content(filed.id) {
                return Ready::Whole(content);
            }
            // Or it was written just now.
            if !filed.is_verified() {
                return Ready::Later;
            }
        }
        let Some(file) = self.handle(filed) else { return Ready::Later };
        if !filed.is_untouched(file.file()) {
            return Ready::Later;
        }
        if filed.used() && filed.len <= self.ram_object {
            self.promote(filed);
        }
        Ready::File(FilePart { file, offset: 0, len: filed.len })
    }

    /// The file, if it is open. Its place among those that are kept open is looked after now and then.
    fn handle(&self, filed: &Filed) -> Option<Arc<OpenFile>> {
        const LOOKED_AFTER_EVERY: u32 = 8;
        if !filed.uses().is_multiple_of(LOOKED_AFTER_EVERY)
            && let Some(file) = filed.open_file()
        {
            return Some(file);
        }
        let file = self.handles.get(&filed.id)?;
        filed.set_open(&file);
        Some(file)
    }

    /// Copies an object into memory beside the work, unless enough are being copied.
    fn promote(self: &Arc<Self>, filed: &Arc<Filed>) {
        let (Ok(permit), Ok(runtime)) =
            (Arc::clone(&self.promotions).try_acquire_owned(), Handle::try_current())
        else {
            return;
        };
        filed.tried(NEXT_TRY);
        let (disk, filed) = (Arc::clone(self), Arc::clone(filed));
        runtime.spawn_blocking(move || {
            let copied = disk.file(&filed).and_then(|file| filed.read_all(file.file()));
            match copied {
                Ok(content) => disk.ram.insert(filed.id, content),
                // The next hit finds the same, and deals with it.
                Err(error) => disk.fault("read", &error),
            }
            // An object that left the store meanwhile needs no place in memory.
            if !filed.is_held() {
                disk.ram.invalidate(&filed.id);
            }
            drop(permit);
        });
    }

    fn unwritten_content(&self, id: u64) -> Option<Bytes> {
        self.unwritten.lock().get(&id).map(|unwritten| unwritten.content.clone())
    }

    /// A turn to write a file, which ends when it is dropped.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.writers.acquire().await.ok()
    }

    /// Whether the content is in memory: the tier that a hit comes from.
    pub(crate) fn is_in_ram(&self, filed: &Filed) -> bool {
        self.ram.contains_key(&filed.id)
    }

    /// Opens the file of an object and sees whether it was touched. Blocks.
    pub(crate) fn file(&self, filed: &Filed) -> Result<Arc<OpenFile>, DiskError> {
        if filed.is_spoilt() {
            return Err(DiskError::Damaged);
        }
        let file = match self.handles.get(&filed.id) {
            Some(file) => file,
            None => Arc::new(OpenFile::new(File::open(self.folder.object(filed.id))?)),
        };
        filed.look(file.file())?;
        self.handles.insert(filed.id, Arc::clone(&file));
        filed.set_open(&file);
        Ok(file)
    }

    /// Reads short content whole, checks it, and keeps it in memory if it is used again. Blocks.
    pub(crate) fn read(&self, filed: &Filed) -> Result<Bytes, DiskError> {
        let due = filed.used() && filed.len <= self.ram_object;
        let file = self.file(filed)?;
        let content = filed.read_all(file.file())?;
        if due {
            filed.tried(NEXT_TRY);
            self.ram.insert(filed.id, content.clone());
        }
        Ok(content)
    }

    /// Short content that is to get a file; until then it is held in memory. `None` when a disk that
    /// is slower than the origins leaves it no room there.
    pub(crate) async fn await_file(&self, content: Bytes) -> Option<Arc<Filed>> {
        let units = content.len().div_ceil(UNWRITTEN_UNIT).min(MOST_UNWRITTEN / UNWRITTEN_UNIT);
        let room = Arc::clone(&self.room).acquire_many_owned(u32::try_from(units).ok()?);
        let Ok(Ok(room)) = tokio::time::timeout(WAIT_FOR_TURN, room).await else {
            self.fault("keep up", &"content waits too long for its file");
            return None;
        };
        let filed = Arc::new(Filed::new(self.new_id(), std::slice::from_ref(&content)));
        self.unwritten.lock().insert(filed.id, Unwritten { content, _room: room });
        Some(filed)
    }

    /// Whether it still has no file.
    pub(crate) fn awaits_file(&self, filed: &Filed) -> bool {
        self.unwritten.lock().contains_key(&filed.id)
    }

    /// Writes the file of content that awaits it. Blocks.
    pub(crate) fn save(&self, filed: &Filed, record: &Record<'_>) -> Result<(), DiskError> {
        let Some(content) = self.unwritten_content(filed.id) else { return Ok(()) };
        let mut spill =
            Spill::with_id(self, filed.id).inspect_err(|error| self.fault("create", error))?;
        spill.append(self, &[content])?;
        spill.finish(self, filed, record)
    }

    /// The wait for a file is over. Without one, memory is what is left; and an object that left the
    /// store meanwhile needs none.
    pub(crate) fn has_file(&self, filed: &Filed, written: bool) {
        let content = self.unwritten.lock().remove(&filed.id).map(|waited| waited.content);
        if let Some(content) = content.filter(|_| !written && filed.len <= self.ram_object) {
            self.ram.insert(filed.id, content);
        }
        if !filed.is_held() {
            self.remove(filed.id);
        }
    }

    /// A file's record is replaced, after a revalidation. Blocks.
    pub(crate) fn rewrite(&self, filed: &Filed, record: &Record<'_>) -> Result<(), DiskError> {
        filed.rewrite(&self.folder, record)
    }

    /// An object's file is no longer needed.
    pub(crate) fn remove(&self, id: u64) {
        self.unwritten.lock().remove(&id);
        self.ram.invalidate(&id);
        self.handles.invalidate(&id);
        // Without a remover the process is ending.
        let _ = self.remover.send(id);
    }

    /// The same, done when this returns.
    pub(crate) fn remove_now(&self, id: u64) {
        let _ = std::fs::remove_file(self.folder.object(id));
        self.remove(id);
    }

    /// Whether what an earlier process left is still being found.
    pub(crate) fn is_scanning(&self) -> bool {
        self.scanning.load(Ordering::Acquire)
    }

    /// All of it is found.
    pub(crate) fn scanned(&self) {
        self.scanning.store(false, Ordering::Release);
    }

    /// From now on nothing in the folder is believed by the next process.
    pub(crate) fn disown(&self) {
        if let Err(error) = self.folder.disown() {
            self.fault("disown", &error);
        }
    }

    /// The process ends in peace: what lies in the folder outlives the machine's own end as well.
    pub(crate) fn close(&self) {
        if let Err(error) = self.folder.close() {
            self.fault("close", &error);
        }
    }

    /// Room for so many bytes of an object on its way.
    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        let all = self.spilling.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > self.most_spilling {
            self.release(bytes);
            return false;
        }
        true
    }

    /// Gives the room back.
    pub(crate) fn release(&self, bytes: u64) {
        self.spilling.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The content's blocks, each with its checksum.
pub(crate) fn sums_of(content: &[Bytes]) -> Vec<u64> {
    let mut summing = spill::Summing::default();
    content.iter().for_each(|piece| summing.add(piece));
    summing.finish()
}

/// What an object's content weighs on disk, its record included.
pub(crate) fn file_bytes(object: &StoredObject, filed: &Filed) -> u64 {
    filed.len + object.weight() as u64
}
