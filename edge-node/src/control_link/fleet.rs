//! The control link of an edge in a fleet, put together: last good state first, then the feed.

use super::apply::{Applier, Effects};
use super::blobs::Blobs;
use super::build::Builder;
use super::client::{ClientError, ControlClient};
use super::kv::Remote;
use super::last_good::{LastGood, StateError};
use super::questions::{Questions, Witness};
use super::report::{self, Outbox};
use super::secrets::Source;
use super::session::Session;
use super::status::LinkStatus;
use super::usage::UsageReporter;
use super::vault::Vault;
use super::{PurgeSink, events, feed, record};
use crate::handlers::UsageBook;
use crate::kv::{Copies, Kv, Shared};
use crate::snapshot::SnapshotCell;
use crate::tail::Tails;
use rustls::RootCertStore;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use verge_config::process::Secret;
use verge_config::process::edge::Join;

/// The longest join token file, in bytes.
const TOKEN_MAX: u64 = 4096;

/// What an edge needs to follow its control plane.
pub struct FleetSettings {
    /// The control plane's URL: `http://host:port` or `https://host`.
    pub control: String,
    /// The name that the edge goes by.
    pub name: Arc<str>,
    /// How to enrol.
    pub join: Join,
    /// Where the last good state is kept.
    pub state_dir: PathBuf,
    /// The authorities that the control plane's certificate is checked against.
    pub roots: Arc<RootCertStore>,
    /// Room for copies of entries of key-value stores, in bytes.
    pub kv: u64,
    /// The longest wait between two attempts to reach the control plane; [`FleetSettings::WAIT`] is
    /// the usual one.
    pub longest_wait: Duration,
}

/// Why the control link cannot start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The control plane's URL cannot be used.
    #[error(transparent)]
    Control(#[from] ClientError),
    /// The join token cannot be read, and there is no credential.
    #[error("join token file {path}: {source}")]
    JoinToken {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The control link of an edge in a fleet.
pub struct Fleet {
    applier: Applier,
    session: Arc<Session>,
    outbox: Arc<Outbox>,
    status: Arc<LinkStatus>,
    questions: Arc<Questions>,
    tails: Option<Arc<Tails>>,
    kept: Arc<LastGood>,
    usage: Arc<UsageBook>,
    kv: Arc<Kv>,
    longest_wait: Duration,
}

// === impl FleetSettings ===

impl FleetSettings {
    /// The longest wait of an edge in production.
    pub const WAIT: Duration = Duration::from_secs(30);
    /// The longest wait where a developer waits for it.
    pub const WAIT_IN_DEVELOPMENT: Duration = Duration::from_secs(5);
}

// === impl Fleet ===

impl Fleet {
    /// Opens the state folder and puts what it holds in force, so that the edge can listen and serve
    /// when this returns, with or without its control plane.
    ///
    /// # Errors
    /// When the state folder, the URL or the join token cannot be used. Damaged state is no error: it
    /// is logged, and the control plane tells it again.
    pub async fn open(
        settings: FleetSettings,
        builder: Builder,
        cell: Arc<SnapshotCell>,
        cache: Arc<dyn PurgeSink>,
    ) -> Result<Fleet, FleetError> {
        let client = ControlClient::new(&settings.control, settings.roots)?;
        let kept = Arc::new(LastGood::open(&settings.state_dir)?);
        let vault = Vault::open(&settings.state_dir)?;
        let join = match join_token(&settings.join) {
            Err(error) if kept.credential().is_some() => {
                tracing::warn!(%error, "the edge goes on with the credential that it has");
                None
            }
            join => join?,
        };
        let session = Arc::new(Session::new(client, settings.name, join, Arc::clone(&kept)));
        let (status, outbox) = (Arc::new(LinkStatus::default()), Arc::new(Outbox::default()));
        let questions = Arc::new(Questions::new(Arc::clone(&outbox)));
        let position = kept.position();
        let usage = Arc::clone(builder.usage());
        let copies = Arc::new(Copies::new(settings.kv));
        let remote = Arc::new(Remote::new(Arc::clone(&session), Arc::clone(&status)));
        let kv = Arc::new(Kv::Fleet(Shared::new(Arc::clone(&copies), remote)));
        let effects = Effects {
            builder: Arc::new(builder),
            blobs: Arc::new(Blobs::fetching(kept.blobs(), Arc::clone(&session))),
            cell,
            cache,
            copies,
            kept: Arc::clone(&kept),
            status: Arc::clone(&status),
            outbox: Arc::clone(&outbox),
            questions: Arc::clone(&questions),
            secrets: Arc::new(Source { vault, session: Some(Arc::clone(&session)) }),
        };
        let mut applier = Applier::new(effects, position);
        applier.restore().await?;
        let longest_wait = settings.longest_wait;
        let tails = None;
        Ok(Fleet {
            applier,
            session,
            outbox,
            status,
            questions,
            tails,
            kept,
            usage,
            kv,
            longest_wait,
        })
    }

    /// How far the link is.
    #[must_use]
    pub fn status(&self) -> Arc<LinkStatus> {
        Arc::clone(&self.status)
    }

    /// The key-value stores that the control plane keeps.
    #[must_use]
    pub fn kv(&self) -> Arc<Kv> {
        Arc::clone(&self.kv)
    }

    /// Names who answers the control plane's questions.
    pub fn put_questions_to(&self, witness: Arc<dyn Witness>) {
        self.questions.put_to(witness);
    }

    /// Names whose requests the control plane's readers are told of.
    pub fn tell_of(&mut self, tails: Arc<Tails>) {
        self.tails = Some(tails);
    }

    /// What writes usage down and reports it, so often; to be run beside the link, and until the last
    /// request has ended.
    #[must_use]
    pub fn usage(&self, every: Duration) -> UsageReporter {
        let (session, status) = (Arc::clone(&self.session), Arc::clone(&self.status));
        let (kept, book) = (Arc::clone(&self.kept), Arc::clone(&self.usage));
        UsageReporter::new(session, status, kept, book, every)
    }

    /// Follows the control plane until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let status = Arc::clone(&self.status);
        let events = events::run(Arc::clone(&self.session), self.tails, status);
        let reports = report::run(Arc::clone(&self.session), self.outbox, self.status);
        let feed = feed::run(self.applier, self.session, self.longest_wait);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = reports => {}
            () = events => {}
            () = feed => {}
        }
    }
}

fn join_token(join: &Join) -> Result<Option<Secret>, FleetError> {
    match join {
        Join::Enrolled => Ok(None),
        Join::Token(token) => Ok(Some(token.clone())),
        Join::TokenFile(path) => match read_token(path) {
            Ok(token) => Ok(Some(Secret::new(token))),
            Err(source) => Err(FleetError::JoinToken { path: path.clone(), source }),
        },
    }
}

fn read_token(path: &Path) -> io::Result<String> {
    let bytes = record::read_bounded(path, TOKEN_MAX)?
        .ok_or_else(|| io::Error::other("longer than a token can be"))?;
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("not a text"))?;
    Ok(text.trim().to_owned())
}
