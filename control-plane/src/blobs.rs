//! Components by their SHA-256, once for all tenants; whose they are stands in the store. Durable
//! before it answers. May not judge who may see them.

use crate::store::StoreError;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

/// Validations at a time: each holds a whole component in memory and a core.
const VALIDATIONS: usize = 2;
/// Uploads at a time, of all and of one tenant; each has a temporary file of at most the largest
/// component.
const UPLOADS: usize = 32;
const UPLOADS_PER_TENANT: usize = 8;

/// Why a component is not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("the content has the SHA-256 {actual}, not the one in the address")]
    WrongDigest { actual: String },
    #[error("larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("{0}")]
    Invalid(String),
    #[error("the content ended early")]
    Broken,
    #[error("too many uploads at a time")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the blob store: {0}")]
    Objects(#[from] object_store::Error),
}

/// The blob store.
pub(crate) struct Blobs {
    objects: Arc<dyn ObjectStore>,
    folder: PathBuf,
    drafts: PathBuf,
    limit: u64,
    validations: Semaphore,
    /// Uploads under way, by tenant.
    uploads: Mutex<HashMap<String, usize>>,
}

/// An upload under way; it counts until it is dropped.
struct Upload<'b> {
    blobs: &'b Blobs,
    tenant: &'b str,
}

/// Content that was received whole and has the digest that it was sent under.
struct Received {
    file: File,
    bytes: u64,
}

// === impl Blobs ===

impl Blobs {
    /// Opens the store in a folder, and clears the drafts that a crash left.
    ///
    /// # Errors
    /// The file system refuses.
    pub(crate) fn open(data_dir: &Path, limit: u64) -> Result<Blobs, BlobError> {
        let folder = data_dir.join("blobs");
        let drafts = data_dir.join("drafts");
        crate::store::make_private(&folder)?;
        crate::store::make_private(&drafts)?;
        for entry in std::fs::read_dir(&drafts).map_err(StoreError::io(&drafts))?.flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        crate::store::sync_folder(data_dir)?;
        let objects = Arc::new(LocalFileSystem::new_with_prefix(&folder)?);
        Ok(Blobs {
            objects,
            folder,
            drafts,
            limit,
            validations: Semaphore::new(VALIDATIONS),
            uploads: Mutex::default(),
        })
    }

    /// The largest component, in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes a component in: receives, checks its digest, validates, and makes it durable. Returns
    /// its size. Nothing is kept unless all of it holds.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub(crate) async fn put(
        &self,
        tenant: &str,
        digest: &str,
        content: BoxStream<'_, Result<Bytes, axum::Error>>,
    ) -> Result<u64, BlobError> {
        let _upload = self.begin(tenant)?;
        let received = self.receive(digest, content).await?;
        let _validation = self.validations.acquire().await.map_err(|_| BlobError::Busy)?;
        let bytes = received.bytes;
        let content = tokio::task::spawn_blocking(move || received.read_and_validate())
            .await
            .map_err(|error| BlobError::Invalid(error.to_string()))??;
        self.objects.put(&Key::from(digest), PutPayload::from_bytes(content)).await?;
        // The object store renames without syncing; the reply must mean that it is on the disk.
        let (file, folder) = (self.folder.join(digest), self.folder.clone());
        tokio::task::spawn_blocking(move || {
            File::open(&file).and_then(|f| f.sync_all()).map_err(StoreError::io(&file))?;
            crate::store::sync_folder(&folder)
        })
        .await
        .map_err(|error| BlobError::Invalid(error.to_string()))??;
        Ok(bytes)
    }

    fn begin<'b>(&'b self, tenant: &'b str) -> Result<Upload<'b>, BlobError> {
        let mut uploads = self.uploads.lock();
        if uploads.values().sum::<usize>() >= UPLOADS {
            return Err(BlobError::Busy);
        }
        let own = uploads.entry(tenant.to_owned()).or_default();
        if *own >= UPLOADS_PER_TENANT {
            return Err(BlobError::Busy);
        }
        *own += 1;
        Ok(Upload { blobs: self, tenant })
    }

    async fn receive(
        &self,
        digest: &str,
        mut content: BoxStream<'_, Result<Bytes, axum::Error>>,
    ) -> Result<Received, BlobError> {
        let io = || StoreError::io(&self.drafts);
        // Without a name: whatever ends this process, nothing is left behind.
        let drafts = self.drafts.clone();
        let file = tokio::task::spawn_blocking(move || nameless(&drafts))
            .await
            .map_err(|error| BlobError::Invalid(error.to_string()))?
            .map_err(io())?;
        let mut file = tokio::fs::File::from_std(file);
        let mut hash = Sha256::new();
        let mut bytes = 0_u64;
        while let Some(chunk) = content.try_next().await.map_err(|_| BlobError::Broken)? {
            bytes = bytes.saturating_add(chunk.len() as u64);
            if bytes > self.limit {
                return Err(BlobError::TooLarge { limit: self.limit });
            }
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(io())?;
        }
        file.flush().await.map_err(io())?;
        let actual = hex::encode(hash.finalize());
        if actual != digest {
            return Err(BlobError::WrongDigest { actual });
        }
        Ok(Received { file: file.into_std().await, bytes })
    }

    /// A component's size and content.
    ///
    /// # Errors
    /// The file system refuses, or there is none.
    pub(crate) async fn get(
        &self,
        digest: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>, BlobError> {
        Ok(self.objects.get(&Key::from(digest)).await?.into_stream())
    }
}

// === impl Upload ===

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        let mut uploads = self.blobs.uploads.lock();
        if let Some(own) = uploads.get_mut(self.tenant) {
            *own -= 1;
            if *own == 0 {
                uploads.remove(self.tenant);
            }
        }
    }
}

// === impl Received ===

impl Received {
    fn read_and_validate(mut self) -> Result<Bytes, BlobError> {
        use std::io::Read;
        let io = || StoreError::io("a draft");
        let mut content = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or(0));
        self.file.seek(SeekFrom::Start(0)).map_err(io())?;
        self.file.read_to_end(&mut content).map_err(io())?;
        crate::component::validate(&content).map_err(BlobError::Invalid)?;
        Ok(content.into())
    }
}

/// A file that is gone when it is closed.
fn nameless(folder: &Path) -> std::io::Result<File> {
    let name = crate::auth::random_id("draft").map_err(std::io::Error::other)?;
    let path = folder.join(name);
    let file = File::options().create_new(true).read(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
