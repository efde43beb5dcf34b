//! Components by digest: from the edge's own disk, or from the control plane into it. Every byte is
//! checked against the digest each time; may not know what a component is.

use super::build::{ComponentError, Components};
use super::record;
use super::session::{Session, SessionError, collect};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::Method;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use verge_config::site::ComponentRef;
use verge_handlers::limits::COMPONENT_BYTES;

/// The longest pause in a component's download.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The folder of components and where missing ones come from.
pub(super) struct Blobs {
    folder: PathBuf,
    /// Absent while the last good state is loaded: nothing is waited for then.
    session: Option<Arc<Session>>,
}

// === impl Blobs ===

impl Blobs {
    /// What is on disk alone.
    pub(super) fn local(folder: PathBuf) -> Blobs {
        Blobs { folder, session: None }
    }

    /// What is on disk, and the rest from the control plane.
    pub(super) fn fetching(folder: PathBuf, session: Arc<Session>) -> Blobs {
        Blobs { folder, session: Some(session) }
    }

    /// Sees that a component is on disk.
    pub(super) async fn ensure(&self, digest: &str) -> Result<(), ComponentError> {
        let path = self.path(digest)?;
        let there = tokio::task::spawn_blocking(move || path.exists()).await.unwrap_or(false);
        if there { Ok(()) } else { self.fetch(digest).await?.1.map_err(not_stored) }
    }

    /// Removes every component that is not in `wanted`.
    pub(super) fn retain(&self, wanted: &HashSet<String>) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let unwanted =
                name.to_str().is_some_and(|name| is_digest(name) && !wanted.contains(name));
            if unwanted && let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "component cannot be removed");
            }
        }
    }

    async fn get(&self, digest: &str) -> Result<Bytes, ComponentError> {
        let path = self.path(digest)?;
        let expected = digest.to_owned();
        let found = tokio::task::spawn_blocking(move || read(&path, &expected)).await;
        if let Ok(Some(bytes)) = found {
            return Ok(bytes);
        }
        let (bytes, stored) = self.fetch(digest).await?;
        if let Err(error) = stored {
            // It is served now; that the site is not kept without it is seen when it is persisted.
            tracing::error!(digest, %error, "component cannot be written to disk");
        }
        Ok(bytes)
    }

    async fn fetch(&self, digest: &str) -> Result<(Bytes, io::Result<()>), ComponentError> {
        let session = self
            .session
            .as_ref()
            .ok_or_else(|| ComponentError::Missing("it is not on this edge's disk".to_owned()))?;
        let response = session.send(Method::GET, &format!("/v1/blobs/{digest}"), None).await?;
        let bytes = collect(response, COMPONENT_BYTES, PAUSE_MAX)
            .await
            .map_err(|error| ComponentError::from(SessionError::from(error)))?;
        let path = self.path(digest)?;
        let expected = digest.to_owned();
        tokio::task::spawn_blocking(move || {
            let actual = hex::encode(Sha256::digest(&bytes));
            if actual != expected {
                return Err(ComponentError::Missing(format!(
                    "the control plane sent other content (sha256:{actual})"
                )));
            }
            let stored = store(&path, &bytes);
            Ok((bytes, stored))
        })
        .await
        .map_err(|error| ComponentError::Missing(error.to_string()))?
    }

    fn path(&self, digest: &str) -> Result<PathBuf, ComponentError> {
        if is_digest(digest) {
            Ok(self.folder.join(digest))
        } else {
            Err(ComponentError::Refused("not a SHA-256 in lower-case hexadecimal".to_owned()))
        }
    }
}

impl Components for Blobs {
    fn read<'a>(
        &'a self,
        reference: &'a ComponentRef,
    ) -> BoxFuture<'a, Result<Bytes, ComponentError>> {
        Box::pin(async move {
            match reference {
                ComponentRef::Digest(digest) => self.get(digest).await,
                ComponentRef::Path(_) => {
                    Err(ComponentError::Refused("a fleet takes components by digest".to_owned()))
                }
            }
        })
    }
}

fn not_stored(error: io::Error) -> ComponentError {
    ComponentError::Missing(format!("it cannot be written to disk: {error}"))
}

/// Whether a name is a SHA-256, and so may be a part of a path and of a file's name.
fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The component when it is there and what its name says; a damaged one is removed.
fn read(path: &Path, digest: &str) -> Option<Bytes> {
    let bytes = record::read_bounded(path, COMPONENT_BYTES as u64).ok()?.unwrap_or_default();
    if hex::encode(Sha256::digest(&bytes)) == digest {
        return Some(bytes.into());
    }
    tracing::error!(path = %path.display(), "damaged component; it is removed");
    let _ = fs::remove_file(path);
    None
}

fn store(path: &Path, bytes: &[u8]) -> io::Result<()> {
    record::write_raw(path, bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_damaged_component_is_never_given() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::local(folder.path().to_owned());
        let content = b"\0asm component".to_vec();
        let digest = hex::encode(Sha256::digest(&content));
        let path = folder.path().join(&digest);
        store(&path, &content).unwrap();
        let reference = ComponentRef::Digest(digest.clone());
        assert_eq!(blobs.read(&reference).await.unwrap(), content);
        for at in 0..content.len() {
            let mut bad = content.clone();
            if let Some(byte) = bad.get_mut(at) {
                *byte ^= 1;
            }
            fs::write(&path, &bad).unwrap();
            assert!(matches!(blobs.read(&reference).await, Err(ComponentError::Missing(_))));
            assert!(!path.exists(), "what is damaged is removed");
        }
        let outside = ComponentRef::Digest("../../etc/passwd".to_owned());
        assert!(matches!(blobs.read(&outside).await, Err(ComponentError::Refused(_))));
    }

    #[test]
    fn only_what_is_wanted_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, gone) = ("a".repeat(64), "b".repeat(64));
        for name in [kept.as_str(), gone.as_str(), "other"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        Blobs::local(folder.path().to_owned()).retain(&HashSet::from([kept.clone()]));
        assert!(folder.path().join(&kept).exists());
        assert!(!folder.path().join(&gone).exists());
        assert!(folder.path().join("other").exists());
    }
}
