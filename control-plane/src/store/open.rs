//! Makes a store and opens it: one process at a time, WAL with `synchronous=FULL`, read back.

use super::load::load;
use super::schema::migrate;
use super::write::write;
use super::{Store, StoreError, Writer};
use crate::publish::Publisher;
use crate::state::{Change, OPERATOR, SecretHash, TokenRecord};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections that read; SQLite lets them read beside the one that writes.
const READERS: u32 = 4;

/// What `init` puts into a new store.
pub(crate) struct First {
    pub(crate) history: String,
    pub(crate) secret: SecretHash,
    pub(crate) token: TokenRecord,
}

fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("control.db")
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging()
}

/// A connection that writes, with the settings that durability rests on.
pub(super) async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    let mut connection = options(path).connect().await?;
    verify(&mut connection).await?;
    Ok(connection)
}

/// Makes the store, with the operator's tenant and its first token.
///
/// # Errors
/// When there is one already, or the file system or SQLite refuse.
pub(crate) async fn create(data_dir: &Path, first: First) -> Result<(), StoreError> {
    make_private(data_dir)?;
    let _lock = lock(data_dir)?;
    let path = database(data_dir);
    if path.exists() {
        return Err(StoreError::Exists(data_dir.to_owned()));
    }
    // Made under another name, so that a crash in the middle leaves no half store behind.
    let draft = data_dir.join("control.db.new");
    for stale in ["control.db.new", "control.db.new-wal", "control.db.new-shm"] {
        let _ = std::fs::remove_file(data_dir.join(stale));
    }
    let mut connection = options(&draft).create_if_missing(true).connect().await?;
    verify(&mut connection).await?;
    migrate(&mut connection).await?;
    sqlx::query("INSERT INTO head (id, revision, trimmed, history) VALUES (1, 0, 0, ?)")
        .bind(&first.history)
        .execute(&mut connection)
        .await?;
    let at_ms = first.token.created_ms;
    write(&mut connection, &Change::TenantCreated { name: OPERATOR.to_owned(), at_ms }).await?;
    let change = Change::TokenCreated { secret: first.secret, record: first.token };
    write(&mut connection, &change).await?;
    connection.close().await?;
    File::open(&draft).and_then(|file| file.sync_all()).map_err(StoreError::io(&draft))?;
    std::fs::rename(&draft, &path).map_err(StoreError::io(&path))?;
    sync_folder(data_dir)
}

/// Opens the store and reads its state.
///
/// # Errors
/// When there is none, it is in use, its settings do not hold or its rows cannot be read.
pub(crate) async fn open(data_dir: &Path) -> Result<Store, StoreError> {
    let path = database(data_dir);
    if !path.exists() {
        return Err(StoreError::Missing(data_dir.to_owned()));
    }
    let lock = lock(data_dir)?;
    let mut connection = connect(&path).await?;
    migrate(&mut connection).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .connect_with(options(&path).read_only(true))
        .await?;
    let state = load(&mut connection).await?;
    let publisher = Publisher::new(state.revision);
    Ok(Store {
        state: parking_lot::RwLock::new(state),
        writer: tokio::sync::Mutex::new(Writer { connection, path, in_doubt: false }),
        readers,
        publisher,
        _lock: lock,
    })
}

/// A setting that SQLite ignores is ignored in silence; so what it says counts, not what it was told.
pub(super) async fn verify(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let row = sqlx::query("PRAGMA journal_mode").fetch_one(&mut *connection).await?;
    let mode: String = row.try_get(0)?;
    if mode != "wal" {
        return Err(StoreError::Unsafe { pragma: "journal_mode", wanted: "wal", actual: mode });
    }
    let row = sqlx::query("PRAGMA synchronous").fetch_one(&mut *connection).await?;
    let level: i64 = row.try_get(0)?;
    if level != 2 {
        let actual = level.to_string();
        return Err(StoreError::Unsafe { pragma: "synchronous", wanted: "2 (FULL)", actual });
    }
    Ok(())
}

/// How often a lock that another holds is tried.
const LOCK_TRIES: u32 = 25;
/// The pause between two tries.
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let path = data_dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StoreError::io(&path))?;
    // A lock given up a moment ago lives on in a child that another thread has forked and that has
    // not become its own program yet.
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(StoreError::Io { path, error }),
        }
    }
    Err(StoreError::InUse(data_dir.to_owned()))
}

/// Makes a folder that only its owner may read, with what is missing above it.
pub(crate) fn make_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::io(path))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StoreError::io(path))
}
