//! The disk tier's folder: where files lie in it, whose it is, and whether what lies in it may still be
//! believed. Knows no objects.

use super::DiskError;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Changes whenever files of an older release may not be read.
const FORMAT: &str = "verge cache 2";

/// An opened folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: Arc<Path>,
    /// Held for as long as the folder is used.
    _lock: Arc<File>,
}

// === impl Folder ===

impl Folder {
    /// Opens it, alone. What lies in it is thrown away when it cannot be believed: files of another
    /// format; or files from before the machine itself stopped without notice, when neither they nor
    /// the purges after them need have reached the disk.
    pub(crate) fn open(root: &Path) -> Result<Folder, DiskError> {
        let wrong = |path: &Path, source| DiskError::Folder { path: path.to_owned(), source };
        // What is stored is for this process alone to read.
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(root).map_err(|error| wrong(root, error))?;
        let lock_path = root.join("lock");
        let lock = File::create(&lock_path).map_err(|error| wrong(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DiskError::Taken(root.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(wrong(&lock_path, error)),
        }
        let folder = Folder { root: root.into(), _lock: Arc::new(lock) };
        if !folder.is_believable() {
            folder.discard().map_err(|error| wrong(root, error))?;
        }
        let _ = fs::remove_dir_all(folder.temporary());
        if let Err(error) = folder.prepare() {
            // Purges that come meanwhile are not written down beside what lies here.
            folder.disown().map_err(|error| wrong(root, error))?;
            return Err(wrong(root, error));
        }
        Ok(folder)
    }

    /// Throws away what is there, and begins anew.
    pub(crate) fn renew(&self) -> std::io::Result<()> {
        self.discard()?;
        self.prepare()
    }

    fn prepare(&self) -> std::io::Result<()> {
        fs::create_dir_all(self.objects())?;
        fs::create_dir_all(self.temporary())?;
        self.believe(&boot())
    }

    /// The folder of all objects.
    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// The file of an object, two folders deep.
    pub(crate) fn object(&self, id: u64) -> PathBuf {
        // Neighbouring numbers are spread over the folders.
        let spread = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (a, b) = (spread >> 56, (spread >> 48) & 0xff);
        self.root.join(format!("objects/{a:02x}/{b:02x}/{id:016x}"))
    }

    fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where a file is written before it is whole.
    pub(crate) fn unfinished(&self, id: u64) -> PathBuf {
        self.root.join(format!("tmp/{id:016x}"))
    }

    /// The log of purges.
    pub(crate) fn purges(&self) -> PathBuf {
        self.root.join("purges")
    }

    /// The first number for files of this process: later than all before it.
    pub(crate) fn first_id(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or_default() << 8
    }

    /// From now on nothing in the folder is believed by the next process.
    pub(crate) fn disown(&self) -> std::io::Result<()> {
        match fs::remove_file(self.root.join("state")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Everything is on the disk: what lies here may be believed even after the machine was restarted.
    pub(crate) fn close(&self) -> std::io::Result<()> {
        let dir = File::open(&*self.root)?;
        rustix::fs::syncfs(&dir)?;
        self.believe("any")?;
        rustix::fs::syncfs(&dir)?;
        Ok(())
    }

    fn believe(&self, boot: &str) -> std::io::Result<()> {
        let path = self.root.join("state");
        let state = format!("{FORMAT}\n{boot}\n");
        // A disk without any room left can still be used for what it holds.
        if fs::read_to_string(&path).is_ok_and(|now| now == state) {
            return Ok(());
        }
        let unfinished = self.root.join("state.new");
        let mut file = File::create(&unfinished)?;
        file.write_all(state.as_bytes())?;
        fs::rename(unfinished, path)
    }

    fn is_believable(&self) -> bool {
        let Ok(state) = fs::read_to_string(self.root.join("state")) else { return false };
        let mut lines = state.lines();
        let boot_then = (lines.next() == Some(FORMAT)).then(|| lines.next()).flatten();
        boot_then.is_some_and(|then| then == "any" || then == boot())
    }

    /// Moves away what is there, which is quick, and deletes it beside the work.
    fn discard(&self) -> std::io::Result<()> {
        let _ = fs::remove_file(self.purges());
        if fs::symlink_metadata(self.objects()).is_err() {
            return Ok(());
        }
        let gone = self.root.join(format!("gone-{:x}", self.first_id()));
        fs::rename(self.objects(), &gone)?;
        std::thread::spawn(move || {
            let _ = fs::remove_dir_all(gone);
        });
        Ok(())
    }
}

/// What tells one run of the machine from another.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
}
