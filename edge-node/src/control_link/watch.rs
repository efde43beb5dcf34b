//! Notices that files changed: by the system's notices where they come, by looking once a second where
//! they do not. Says only that something may have changed; what, the reader finds out by reading.

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::RwLock;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// Editors write a file in several steps; what comes within this time is one change.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often files are looked at without a notice.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A set of files that are watched.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    wake: Arc<Notify>,
    files: BTreeSet<PathBuf>,
    names: Arc<Names>,
    folders: BTreeSet<PathBuf>,
    seen: Vec<Print>,
}

/// The names of the files: a folder's notices are of all that lies in it, and reading the files again
/// for a neighbour's sake would cost a component's worth of hashing each time.
type Names = RwLock<BTreeSet<OsString>>;

/// What tells that a file is another one than before.
type Print = Option<(SystemTime, u64, u64)>;

// === impl Watch ===

impl Watch {
    pub(super) fn new() -> Watch {
        let wake = Arc::new(Notify::new());
        let names = Arc::new(Names::default());
        let (notice, wanted) = (Arc::clone(&wake), Arc::clone(&names));
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files makes events too; to act on them would never end.
            if event.is_ok_and(|event| changes(event.kind) && concerns(&event, &wanted)) {
                notice.notify_one();
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "no notices of changed files; they are looked at every second"))
            .ok();
        let (files, folders) = (BTreeSet::new(), BTreeSet::new());
        Watch { watcher, wake, files, names, folders, seen: Vec::new() }
    }

    /// Watches these files from now on. Their folders are what the system watches: an editor's rename
    /// over a file ends the watch of the file itself.
    pub(super) fn follow(&mut self, files: BTreeSet<PathBuf>) {
        *self.names.write() =
            files.iter().filter_map(|file| file.file_name()).map(OsString::from).collect();
        let folders: BTreeSet<PathBuf> = files.iter().filter_map(|f| folder_of(f)).collect();
        if let Some(watcher) = &mut self.watcher {
            for gone in self.folders.difference(&folders) {
                let _ = watcher.unwatch(gone);
            }
            for new in folders.difference(&self.folders) {
                if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                    tracing::debug!(folder = %new.display(), %error, "no notices; looked at every second");
                }
            }
        }
        self.folders = folders;
        if self.files != files {
            self.files = files;
            self.seen = self.look();
        }
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&mut self) {
        loop {
            let notice = tokio::time::timeout(LOOK_EVERY, self.wake.notified()).await.is_ok();
            if notice {
                tokio::time::sleep(DEBOUNCE).await;
            }
            let now = self.look();
            let differs = now != self.seen;
            self.seen = now;
            if notice || differs {
                return;
            }
        }
    }

    fn look(&self) -> Vec<Print> {
        self.files.iter().map(|file| print(file)).collect()
    }
}

/// Whether an event is of a file that is watched, or does not say of which it is.
fn concerns(event: &notify::Event, names: &Names) -> bool {
    let names = names.read();
    event.paths.is_empty()
        || event.paths.iter().any(|path| path.file_name().is_some_and(|name| names.contains(name)))
}

fn changes(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn folder_of(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    Some(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
}

fn print(file: &Path) -> Print {
    let about = std::fs::metadata(file).ok()?;
    Some((about.modified().ok()?, about.len(), about.ino()))
}
