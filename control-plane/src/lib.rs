//! The control plane: it holds the truth and gives the edges their sites and purges. This file is its
//! outside: `init`, [`Control::open`], [`Control::serve`].

mod api;
mod auth;
mod blobs;
mod clock;
mod component;
mod dry_run;
mod fleet;
mod keys;
mod metrics;
mod publish;
mod questions;
mod server;
mod state;
mod store;
mod tails;
mod usage;

pub use auth::NoRandomness;
pub use keys::KeysError;
pub use store::StoreError;
pub use verge_config::process::control::ControlConfig;

use api::App;
use auth::{Secret, random_id};
use blobs::Blobs;
use keys::Keys;
use state::{Actor, Command, OPERATOR, TokenRecord};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use verge_config::api::Scope;
use verge_config::process::control::SECRETS_KEY;

/// How long running requests may take to end after the shutdown began.
const DRAIN: Duration = Duration::from_secs(10);
/// How often the purge log is trimmed, and old keys and old usage are swept away.
const TRIM_EVERY: Duration = Duration::from_secs(600);

/// What `init` made.
pub struct InitOutcome {
    /// The secret of the operator's first token, with the scope `admin`. It is told once.
    pub admin_token: String,
}

/// Why a control plane cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder of the components refuses.
    #[error("the blob store: {0}")]
    Blobs(String),
    /// The key of sites' secrets cannot be had.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// No secret can be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// A control plane, open and not yet serving.
pub struct Control {
    app: Arc<App>,
}

/// Makes a store in `data_dir` with the operator's tenant and its first token, and a key for secrets.
///
/// # Errors
/// When there is a store already, or the file system or SQLite refuse.
pub async fn init(data_dir: impl AsRef<Path>) -> Result<InitOutcome, ControlError> {
    let secret = Secret::new()?;
    let token = TokenRecord {
        id: random_id("tok")?,
        name: "first admin".to_owned(),
        tenant: OPERATOR.to_owned(),
        scopes: vec![Scope::Admin],
        created_ms: clock::now_ms(),
        expires_ms: None,
    };
    let first = store::First { history: random_id("his")?, secret: secret.hash(), token };
    let data_dir = data_dir.as_ref();
    store::create(data_dir, first).await?;
    Keys::open(&data_dir.join(SECRETS_KEY), &[])?;
    Ok(InitOutcome { admin_token: secret.reveal() })
}

// === impl Control ===

impl Control {
    /// Opens the store that `init` made. One process at a time can.
    ///
    /// # Errors
    /// When there is no store, it is in use or damaged, its settings do not hold, or the key of the secrets
    /// in it is not there.
    pub async fn open(config: ControlConfig) -> Result<Control, ControlError> {
        let store = store::open(&config.data_dir).await?;
        let limit = config.limits.blob_bytes;
        let blobs = Blobs::open(&config.data_dir, limit)
            .map_err(|error| ControlError::Blobs(error.to_string()))?;
        let keys = Keys::open(&config.secrets_key(), &store.secret_keys().await?)?;
        let app = App::new(config, store, blobs, keys, CancellationToken::new());
        Ok(Control { app: Arc::new(app) })
    }

    /// Serves the API on `listener` until `shutdown`; then ends the feeds, lets running requests end
    /// within ten seconds, and closes the store.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let app = self.app;
        let ended = app.shutdown.clone();
        let trimming = tokio::spawn(trim(app.clone()));
        let router = api::router(&app);
        let connections = app.config.limits.connections;
        let watch = tokio::spawn({
            let ended = ended.clone();
            async move {
                shutdown.cancelled().await;
                ended.cancel();
            }
        });
        server::serve(listener, router, connections, DRAIN, ended.clone()).await;
        watch.abort();
        ended.cancel();
        let _ = trimming.await;
        app.store.clone().close().await;
    }
}

/// Forgets purges beyond the number and the age that are kept; edges that were away for longer flush.
async fn trim(app: Arc<App>) {
    let log = app.config.purge_log;
    let actor = Actor { id: String::new(), name: "trim".to_owned(), tenant: OPERATOR.to_owned() };
    loop {
        let now = clock::now_ms();
        let age = u64::try_from(log.age.as_millis()).unwrap_or(u64::MAX);
        match app.store.trim_point(log.entries, now.saturating_sub(age)).await {
            Ok(Some(upto)) => {
                let command = Command::Trim { upto };
                match app.store.commit(actor.clone(), None, command, now).await {
                    Ok(_) => tracing::info!(upto = upto.0, "purge log trimmed"),
                    Err(error) => tracing::warn!(%error, "cannot trim the purge log"),
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cannot look at the purge log"),
        }
        if let Err(error) = app.store.commit(actor.clone(), None, Command::EndPreviews, now).await {
            tracing::warn!(%error, "cannot end previews");
        }
        if let Err(error) = app.store.sweep(now).await {
            tracing::warn!(%error, "cannot sweep the store");
        }
        if let Err(error) = app.store.sweep_usage(now).await {
            tracing::warn!(%error, "cannot forget old usage");
        }
        tokio::select! {
            () = tokio::time::sleep(TRIM_EVERY) => {}
            () = app.shutdown.cancelled() => return,
        }
    }
}
