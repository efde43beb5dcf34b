//! An edge that serves one site file alone: reads it and its components, puts them in force, and does
//! so again whenever one of them changes. A faulty file is refused, the last good one stays.

use super::PurgeSink;
use super::build::{BuildError, Builder, ComponentError, Components, Wanted};
use super::local::LocalPurges;
use super::record;
use super::status::LinkStatus;
use super::watch::Watch;
use crate::snapshot::{SiteRuntime, Snapshot, SnapshotCell};
use bytes::Bytes;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use verge_config::Faults;
use verge_config::feed::Refusal;
use verge_config::site::{ComponentRef, MAX_DOCUMENT_BYTES, SiteDocument};
use verge_handlers::limits::COMPONENT_BYTES;

/// Why a site file cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It, or a component that it names, is wrong; all that is wrong with it.
    #[error("{path} is not valid:\n{faults}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong.
        faults: Faults,
    },
}

/// One site file, in force.
pub struct Standalone {
    path: PathBuf,
    builder: Builder,
    cell: Arc<SnapshotCell>,
    status: Arc<LinkStatus>,
    purges: Arc<LocalPurges>,
    current: Option<Arc<SiteRuntime>>,
    /// The content that was tried last, good or not.
    tried: Option<[u8; 32]>,
    files: BTreeSet<PathBuf>,
}

/// The files at one moment.
struct Files {
    digest: [u8; 32],
    document: Result<SiteDocument, Faults>,
    components: Loaded,
    paths: BTreeSet<PathBuf>,
}

/// Components as they were read, by the path that the document has for them.
#[derive(Default)]
struct Loaded(BTreeMap<String, Result<Bytes, String>>);

// === impl Standalone ===

impl Standalone {
    /// Reads a site file and puts it in force.
    ///
    /// # Errors
    /// When it cannot be read or served; all faults at once.
    pub async fn open(
        path: PathBuf,
        builder: Builder,
        cell: Arc<SnapshotCell>,
        cache: Arc<dyn PurgeSink>,
    ) -> Result<Standalone, StandaloneError> {
        let status = Arc::new(LinkStatus::default());
        status.set_connected(true);
        let purges = LocalPurges::new(cache, Arc::clone(&cell), Arc::clone(&status));
        let mut standalone = Standalone {
            files: BTreeSet::from([path.clone()]),
            path,
            builder,
            cell,
            status,
            purges: Arc::new(purges),
            current: None,
            tried: None,
        };
        standalone.reload().await?;
        Ok(standalone)
    }

    /// How far the link is.
    #[must_use]
    pub fn status(&self) -> Arc<LinkStatus> {
        Arc::clone(&self.status)
    }

    /// Takes purges.
    #[must_use]
    pub fn purges(&self) -> Arc<LocalPurges> {
        Arc::clone(&self.purges)
    }

    /// Follows the files until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut watch = Watch::new();
        watch.follow(self.files.clone());
        loop {
            // What changed between the first reading and the watch is seen here.
            if let Err(error) = self.reload().await {
                self.refused(&error);
            }
            watch.follow(self.files.clone());
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = watch.changed() => {}
            }
        }
    }

    /// Reads the files and puts them in force when their content is another than the last tried.
    async fn reload(&mut self) -> Result<(), StandaloneError> {
        let files = self.read().await?;
        self.files = files.paths;
        if self.tried == Some(files.digest) {
            return Ok(());
        }
        self.tried = Some(files.digest);
        let path = self.path.clone();
        let invalid = |faults| StandaloneError::Invalid { path, faults };
        let document = match files.document {
            Ok(document) => document,
            Err(faults) => return Err(invalid(faults)),
        };
        let wanted = Wanted {
            revision: self.status.applied().next(),
            site: document.site.clone(),
            version: 0,
            document: Arc::new(document),
        };
        let built = self.builder.build(&wanted, &files.components, self.current.as_ref()).await;
        let runtime = built.map_err(|error| match error {
            BuildError::Refused(faults) | BuildError::Later(faults) => invalid(faults),
            BuildError::Away(error) => invalid(Faults::one("", error.to_string())),
        })?;
        let revision = self.purges.next(|revision| {
            let snapshot = Snapshot::new(revision, [Arc::clone(&runtime)]);
            self.cell.store(Arc::new(snapshot));
            revision
        });
        tracing::info!(file = %self.path.display(), site = wanted.site, %revision, "site file in force");
        self.current = Some(runtime);
        self.status.set_refusals(&BTreeMap::new());
        self.status.set_ready();
        Ok(())
    }

    fn refused(&mut self, error: &StandaloneError) {
        match error {
            StandaloneError::Invalid { faults, .. } => {
                for fault in &faults.0 {
                    tracing::error!(file = %self.path.display(), "{fault}");
                }
                tracing::error!(file = %self.path.display(), faults = faults.0.len(), "site file refused; the last good one stays");
            }
            StandaloneError::Read { .. } => {
                // A file that is gone for a moment is tried whatever it holds when it is back.
                self.tried = None;
                tracing::error!(%error, "the last good site file stays");
            }
        }
        let site = self.current.as_ref().map_or(String::new(), |site| site.name.to_string());
        let revision = self.status.applied().next();
        let refusal = Refusal { revision, site: site.clone(), reason: error.to_string() };
        self.status.set_refusals(&BTreeMap::from([(site, refusal)]));
    }

    async fn read(&self) -> Result<Files, StandaloneError> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read_files(&path)).await;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        read.map_err(|source| StandaloneError::Read { path: self.path.clone(), source })
    }
}

// === impl Loaded ===

impl Components for Loaded {
    fn read<'a>(
        &'a self,
        reference: &'a ComponentRef,
    ) -> BoxFuture<'a, Result<Bytes, ComponentError>> {
        let found = match reference {
            ComponentRef::Path(path) => match self.0.get(path) {
                Some(Ok(bytes)) => Ok(bytes.clone()),
                Some(Err(reason)) => Err(ComponentError::Refused(format!("{path}: {reason}"))),
                None => Err(ComponentError::Refused(format!("{path}: not read"))),
            },
            ComponentRef::Digest(_) => Err(ComponentError::Refused(
                "a standalone edge takes components by path; digests are for deployed sites"
                    .to_owned(),
            )),
        };
        Box::pin(std::future::ready(found))
    }
}

fn read_files(path: &Path) -> io::Result<Files> {
    let text = bounded(path, MAX_DOCUMENT_BYTES)?;
    let mut hash = Sha256::new();
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(&text);
    let document = match std::str::from_utf8(&text) {
        Ok(_) if path.extension().is_some_and(|e| e == "json") => SiteDocument::from_json(&text),
        Ok(text) => SiteDocument::from_toml(text),
        Err(_) => Err(Faults::one("", "the file is not UTF-8")),
    };
    let mut paths = BTreeSet::from([path.to_owned()]);
    let mut components = Loaded::default();
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    for handler in document.iter().flat_map(|document| document.handlers.values()) {
        let reference = &handler.component;
        if reference.starts_with("sha256:") || components.0.contains_key(reference) {
            continue;
        }
        let place = folder.join(reference);
        let content = bounded(&place, COMPONENT_BYTES).map(Bytes::from);
        let content = content.map_err(|error| error.to_string());
        hash.update(Sha256::digest(reference));
        match &content {
            Ok(bytes) => hash.update(Sha256::digest(bytes)),
            Err(reason) => hash.update(reason),
        }
        components.0.insert(reference.clone(), content);
        paths.insert(place);
    }
    Ok(Files { digest: hash.finalize().into(), document, components, paths })
}

fn bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let bytes = record::read_bounded(path, limit as u64)?;
    bytes.ok_or_else(|| io::Error::other(format!("larger than {limit} bytes")))
}
