//! The durable truth: commits decided commands under the next revision, in SQLite, before anybody is
//! told. The only room that may touch the database; may not know HTTP.

mod commit;
mod entries;
mod load;
mod open;
mod read;
mod schema;
mod secrets;
mod usage;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use commit::Idempotency;
pub(crate) use entries::Entry;
pub(crate) use open::{First, create, make_private, open, sync_folder};
pub(crate) use read::{PurgeRow, ReceiptRow, encode};
pub(crate) use usage::{Batch, RowKey};

use crate::publish::Publisher;
use crate::state::{Rejection, State};
use parking_lot::RwLock;
use sqlx::{SqliteConnection, SqlitePool};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `init` found a store already there.
    #[error("there is a store in {0} already; nothing was changed")]
    Exists(PathBuf),
    /// Nobody has run `init`.
    #[error("there is no store in {0}; make one with `verge-control init --data {0}`")]
    Missing(PathBuf),
    /// Another control plane has it open.
    #[error("the store in {0} is in use by another process")]
    InUse(PathBuf),
    /// A setting that durability rests on did not take.
    #[error("SQLite says {pragma} = {actual} where {wanted} is needed; refusing to run without it")]
    Unsafe {
        /// The setting.
        pragma: &'static str,
        /// What it was set to.
        wanted: &'static str,
        /// What reads back.
        actual: String,
    },
    /// A row that this version cannot read.
    #[error("the store is damaged or of another version: {0}")]
    Corrupt(String),
    /// The database refuses.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database's schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// The file system refuses.
    #[error("{path}: {error}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

/// Why a command was not committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("the idempotency key was used for another request")]
    KeyReused,
    #[error("the disk is full")]
    Full,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store, open.
pub(crate) struct Store {
    state: RwLock<State>,
    writer: tokio::sync::Mutex<Writer>,
    readers: SqlitePool,
    pub(crate) publisher: Publisher,
    /// Held for as long as the store is open, so that no second process writes to it.
    _lock: File,
}

struct Writer {
    connection: SqliteConnection,
    /// To make the connection anew.
    path: PathBuf,
    /// A commit ended in doubt: the state is to be read anew before the next one.
    in_doubt: bool,
}

// === impl Store ===

impl Store {
    /// Reads the state; keep the closure short, commits wait for it.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read())
    }

    /// Whether the database answers.
    pub(crate) async fn ready(&self) -> bool {
        sqlx::query("SELECT revision FROM head").fetch_one(&self.readers).await.is_ok()
    }

    /// Ends the connections after what runs on them.
    pub(crate) async fn close(self: Arc<Self>) {
        // Whoever commits holds the writer: waiting for it waits for the commit.
        let _writer = self.writer.lock().await;
        self.readers.close().await;
    }
}

// === impl StoreError ===

impl StoreError {
    /// SQLite's "database or disk is full", or an I/O error of a full disk.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            // SQLITE_FULL; SQLITE_IOERR_WRITE.
            StoreError::Database(sqlx::Error::Database(error)) => {
                matches!(error.code().as_deref(), Some("13" | "778"))
            }
            StoreError::Io { error, .. } => {
                matches!(
                    error.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                )
            }
            _ => false,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> StoreError {
        let path = path.into();
        move |error| StoreError::Io { path, error }
    }
}
