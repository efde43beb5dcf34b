//! The edge's state on disk: the last good document of every site, how far the history was applied,
//! and the credential. Knows files and their damage; may not know the feed or what is in force.

use super::record::{self, Stored};
use super::usage::Ledger;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use verge_config::Revision;
use verge_config::feed::{MAX_LINE_BYTES, Refusal};
use verge_config::preview::Preview;
use verge_config::process::Secret;
use verge_config::site::SiteDocument;

/// The longest payload of a site's file: what a line of the feed can carry, and its frame.
const SITE_MAX: u64 = MAX_LINE_BYTES as u64 + 4096;
/// The longest payload of any other file.
const SMALL_MAX: u64 = 16 * 1024 * 1024;
/// The longest payload of the usage: a row for each site that an edge can have.
const USAGE_MAX: u64 = 64 * 1024 * 1024;
/// Refusals kept on disk; the rest are refused again when they come again.
const REFUSALS_KEPT: usize = 1_000;

/// How the file of a site's previews ends.
const PREVIEWS: &str = ".previews";

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made, locked, read or written.
    #[error("state folder {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another edge works in it.
    #[error("state folder {path}: in use by another edge")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

/// A site as it is kept: everything that is needed to serve it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SiteRecord {
    /// The history that the revision is of.
    pub(super) history: String,
    /// Its revision.
    pub(super) revision: Revision,
    /// Its name.
    pub(super) site: String,
    /// Its version.
    pub(super) version: u64,
    /// Its document.
    pub(super) document: Arc<SiteDocument>,
}

/// The previews of a site as they are kept; none means that there are none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PreviewsRecord {
    /// The history that the revision is of.
    pub(super) history: String,
    /// Their revision.
    pub(super) revision: Revision,
    /// The site.
    pub(super) site: String,
    /// All of them.
    pub(super) previews: Vec<Preview>,
}

/// How far the history is applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Which history; empty before the first.
    pub(super) history: String,
    /// Everything up to here is in force or refused.
    pub(super) applied: Revision,
    /// A start from zero has not reached the head yet: sites that it has not named may be gone.
    #[serde(default)]
    pub(super) resync: bool,
    /// How many sites are kept, so that one that is gone is missed.
    #[serde(default)]
    pub(super) sites: u64,
    /// How many sites have secrets that are kept, likewise. None by a version that knew nothing of secrets,
    /// and so has passed over what it was told of them.
    #[serde(default)]
    pub(super) secrets: Option<u64>,
    /// What was refused.
    #[serde(default)]
    pub(super) refusals: Vec<Refusal>,
}

/// What is kept of one site.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its name.
    pub(super) site: String,
    /// The documents to try, the newest first.
    pub(super) candidates: Vec<SiteRecord>,
    /// The newest one is damaged or missing: the control plane must tell it again.
    pub(super) damaged: bool,
}

/// The state folder; locked against a second edge while this value lives.
#[derive(Debug)]
pub(super) struct LastGood {
    root: PathBuf,
    _lock: File,
}

// === impl LastGood ===

impl LastGood {
    /// Opens the folder, makes it when it is not there, and sees that it can be written.
    pub(super) fn open(root: &Path) -> Result<LastGood, StateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        for folder in [root.to_owned(), root.join("sites"), root.join("blobs")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(at(&folder))?;
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&folder, private).map_err(at(&folder))?;
        }
        let path = root.join("lock");
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StateError::InUse { path: root.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(StateError::Io { path, source }),
        }
        let kept = LastGood { root: root.to_owned(), _lock: lock };
        kept.sweep();
        record::write(&root.join("probe"), b"").map_err(at(root))?;
        Ok(kept)
    }

    /// The folder of components.
    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Every site that is kept, by name; what is damaged is logged and left out.
    pub(super) fn sites(&self) -> Result<Vec<Kept>, StateError> {
        let folder = self.root.join("sites");
        let io = |source| StateError::Io { path: folder.clone(), source };
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&folder).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            let Some(name) = name.to_str() else { continue };
            let stem = name.strip_suffix(".prev").unwrap_or(name);
            if let Some(site) = stem.strip_suffix(".site").filter(|site| is_site_name(site)) {
                names.insert(site.to_owned());
            }
        }
        Ok(names.into_iter().map(|site| self.kept(site)).collect())
    }

    fn kept(&self, site: String) -> Kept {
        let mut kept = Kept { site, candidates: Vec::new(), damaged: false };
        let current = self.site_file(&kept.site);
        for (path, newest) in [(current.clone(), true), (previous_of(&current), false)] {
            match read_json::<SiteRecord>(&path, SITE_MAX) {
                Ok(Some(record)) if record.site == kept.site => kept.candidates.push(record),
                Ok(None) => kept.damaged |= newest,
                Ok(Some(other)) => {
                    kept.damaged |= newest;
                    tracing::error!(path = %path.display(), holds = other.site, "state file of another site; it is passed over");
                }
                Err(reason) => {
                    kept.damaged |= newest;
                    tracing::error!(path = %path.display(), reason, "damaged state file; it is passed over");
                }
            }
        }
        kept
    }

    /// Keeps a site's document; the one before stays beside it.
    pub(super) fn save_site(&self, record: &SiteRecord) -> Result<(), StateError> {
        let path = self.site_file(&record.site);
        let io = |source| StateError::Io { path: path.clone(), source };
        let payload = serde_json::to_vec(record).map_err(|error| io(error.into()))?;
        record::write_keeping(&path, &previous_of(&path), &payload).map_err(io)
    }

    /// Keeps a site's previews, or forgets that there were any.
    pub(super) fn save_previews(&self, record: &PreviewsRecord) -> Result<(), StateError> {
        let path = self.root.join("sites").join(format!("{}{PREVIEWS}", record.site));
        let io = |source| StateError::Io { path: path.clone(), source };
        if !record.previews.is_empty() {
            let payload = serde_json::to_vec(record).map_err(|error| io(error.into()))?;
            return record::write(&path, &payload).map_err(io);
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io(error)),
            _ => record::sync_folder_of(&path).map_err(io),
        }
    }

    /// The previews that are kept, and whether all of them could be read; a damaged file is logged.
    pub(super) fn previews(&self) -> (Vec<PreviewsRecord>, bool) {
        let (mut records, mut whole) = (Vec::new(), true);
        for entry in fs::read_dir(self.root.join("sites")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(site) = name.to_str().and_then(|name| name.strip_suffix(PREVIEWS)) else {
                continue;
            };
            match read_json::<PreviewsRecord>(&entry.path(), SITE_MAX) {
                Ok(Some(record)) if record.site == site => records.push(record),
                Ok(_) => whole = false,
                Err(reason) => {
                    whole = false;
                    tracing::error!(path = %entry.path().display(), reason, "damaged state file; it is passed over");
                }
            }
        }
        (records, whole)
    }

    /// Forgets a site. The previous document goes first, so that a crash between cannot revive it.
    pub(super) fn remove_site(&self, site: &str) -> Result<(), StateError> {
        let path = self.site_file(site);
        for path in [previous_of(&path), path.clone()] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StateError::Io { path, source });
                }
                _ => {}
            }
        }
        record::sync_folder_of(&path).map_err(|source| StateError::Io { path, source })
    }

    /// How far the history was applied; the beginning when that is not known any more, so that the
    /// control plane tells everything again.
    pub(super) fn position(&self) -> Position {
        let path = self.root.join("position");
        read_json(&path, SMALL_MAX).map(Option::unwrap_or_default).unwrap_or_else(|reason| {
            tracing::error!(path = %path.display(), reason, "damaged state file; everything is asked for again");
            Position::default()
        })
    }

    /// Keeps the position.
    pub(super) fn save_position(&self, position: &Position) -> Result<(), StateError> {
        let mut position = position.clone();
        position.refusals.truncate(REFUSALS_KEPT);
        self.save_small("position", &position)
    }

    /// The credential, when there is one.
    pub(super) fn credential(&self) -> Option<Secret> {
        let path = self.root.join("credential");
        match read_json::<String>(&path, SMALL_MAX) {
            Ok(found) => found.map(Secret::new),
            Err(reason) => {
                tracing::error!(path = %path.display(), reason, "damaged credential; the edge must enrol again");
                None
            }
        }
    }

    /// Keeps the credential, readable by the edge's user alone.
    pub(super) fn save_credential(&self, credential: &Secret) -> Result<(), StateError> {
        self.save_small("credential", credential.reveal())
    }

    /// What handlers have used and the control plane has not counted yet; none when that is not known
    /// any more.
    pub(super) fn usage(&self) -> Option<Ledger> {
        let path = self.root.join("usage");
        read_json(&path, USAGE_MAX).unwrap_or_else(|reason| {
            tracing::error!(path = %path.display(), reason, "damaged state file; usage that was not reported is lost");
            None
        })
    }

    /// Keeps what handlers have used.
    pub(super) fn save_usage(&self, ledger: &Ledger) -> Result<(), StateError> {
        self.save_small("usage", ledger)
    }

    fn save_small<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.root.join(name);
        let io = |source| StateError::Io { path: path.clone(), source };
        let payload = serde_json::to_vec(value).map_err(|error| io(error.into()))?;
        record::write(&path, &payload).map_err(io)
    }

    fn site_file(&self, site: &str) -> PathBuf {
        debug_assert!(is_site_name(site), "names are checked where they come in");
        self.root.join("sites").join(format!("{site}.site"))
    }

    /// Removes what crashes in the middle of a write have left.
    fn sweep(&self) {
        for folder in [self.root.clone(), self.root.join("sites"), self.blobs()] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "tmp") {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }
}

/// Whether a name may be a site's, and so a part of a file's name.
pub(super) fn is_site_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn previous_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".prev");
    path.with_file_name(name)
}

fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<Option<T>, String> {
    match record::read(path, limit) {
        Stored::Whole(payload) => {
            serde_json::from_slice(&payload).map(Some).map_err(|error| error.to_string())
        }
        Stored::Absent => Ok(None),
        Stored::Damaged(reason) => Err(reason),
    }
}

#[cfg(test)]
mod tests;
