//! Puts an edge together from its configuration, runs it, and drains it. Decides nothing about requests.

use crate::admin::{self, AdminHooks, PurgeDone, PurgeRefused, Readiness};
use crate::control_link::{
    Builder, Fleet, FleetError, FleetSettings, LinkStatus, LocalPurges, PurgeSink, Standalone,
    StandaloneError,
};
use crate::listen::{CertificateError, CertificateFiles, Certificates, Limits, Listeners};
use crate::origin::{OriginSettings, Outside, Resolver, native_roots};
use crate::serve::Edge;
use crate::snapshot::{Snapshot, SnapshotCell};
use crate::telemetry;
use futures::future::BoxFuture;
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use verge_cache::{Cache, Settings};
use verge_config::PurgeRequest;
use verge_config::process::edge::{EdgeConfig, Source};
use verge_config::site::Context;
use verge_handlers::{CompilerCommand, Sandbox, SandboxError, SandboxSettings};

/// How often gauges are brought up to date.
const GAUGES: Duration = Duration::from_secs(2);

/// What a program that runs an edge decides besides its configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to start the compiler of components.
    pub compiler: CompilerCommand,
    /// Where the bound addresses are written, once they are bound.
    pub port_file: Option<PathBuf>,
    /// Stop before listening: everything else was found to be right.
    pub check: bool,
    /// Somebody waits in front of it: reconnect sooner.
    pub development: bool,
}

/// Where an edge listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// In the clear.
    pub http: Vec<SocketAddr>,
    /// With TLS.
    pub https: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: Option<SocketAddr>,
}

/// Why an edge does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The sandbox cannot start.
    #[error("the sandbox cannot start: {0}")]
    Sandbox(#[from] SandboxError),
    /// The site file cannot be served.
    #[error(transparent)]
    Site(#[from] StandaloneError),
    /// The control link cannot start.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A folder or file of the edge's own cannot be used.
    #[error("{path}: {source}")]
    File {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration lacks what this way of running needs.
    #[error("{0}")]
    Config(&'static str),
}

impl Options {
    /// The options of a program that answers `compile-component` itself.
    ///
    /// # Errors
    /// When the program cannot tell its own path.
    pub fn of_this_program(port_file: Option<PathBuf>, check: bool) -> io::Result<Options> {
        let program = std::env::current_exe()?;
        let compiler = CompilerCommand { program, args: vec!["compile-component".to_owned()] };
        Ok(Options { compiler, port_file, check, development: false })
    }
}

/// Runs an edge until `shutdown`, then drains it.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(
    config: EdgeConfig,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    run_with(config, options, shutdown, |_| ()).await
}

/// As [`run`]; `bound` is told where it listens.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run_with(
    config: EdgeConfig,
    options: Options,
    shutdown: CancellationToken,
    bound: impl FnOnce(&Addresses),
) -> Result<(), RunError> {
    // One provider in the whole program; whoever came first may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificates = certificates(&config)?;
    let sockets = Sockets::bind(&config).await?;
    let addresses = sockets.addresses();
    let cell = Arc::new(SnapshotCell::from_pointee(Snapshot::default()));
    let cache = Cache::new(Settings { ram_bytes: config.cache.ram, ..Settings::default() });
    let origins = Arc::new(origin_settings(&config, &addresses));
    let (sandbox, _scratch) = sandbox(&config, &options)?;
    let link = Link::open(&config, &options, sandbox, &origins, &cell, &cache).await?;
    if options.check {
        return Ok(());
    }
    let edge = Arc::new(Edge {
        id: Arc::clone(&config.name),
        snapshot: Arc::clone(&cell),
        cache: cache.clone(),
        outside: Arc::new(Outside::new(Arc::clone(&origins))),
    });
    let hooks = Arc::new(Hooks {
        edge: Arc::clone(&edge),
        status: link.status(),
        purges: link.purges(),
        control: match &config.source {
            Source::Control { url, .. } => url.clone(),
            Source::SiteFile(_) => String::new(),
        },
    });
    let listeners = Listeners::new(edge, limits(&config), shutdown.clone());
    let admin = sockets.serve(&listeners, certificates, hooks, &shutdown);
    if let Some(path) = &options.port_file {
        write_addresses(path, &addresses)?;
    }
    tell(&addresses);
    bound(&addresses);
    let gauges = tokio::spawn(keep_gauges(cache, link.status(), shutdown.clone()));
    let link = tokio::spawn(link.run(shutdown.clone()));
    shutdown.cancelled().await;
    if !listeners.drained(config.limits.drain).await {
        tracing::warn!("connections were still open when the time to drain was over");
    }
    let _ = link.await;
    gauges.abort();
    if let Some(admin) = admin {
        let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
    }
    Ok(())
}

fn certificates(config: &EdgeConfig) -> Result<Option<Arc<Certificates>>, RunError> {
    if config.listen.https.is_empty() {
        return Ok(None);
    }
    let files: Vec<_> = config
        .certificates
        .iter()
        .map(|pair| CertificateFiles { chain: pair.cert.clone(), key: pair.key.clone() })
        .collect();
    Ok(Some(Arc::new(Certificates::load(&files)?)))
}

fn limits(config: &EdgeConfig) -> Limits {
    let from = config.limits;
    Limits {
        connections: from.connections,
        header: from.header_timeout,
        idle: from.idle_timeout,
        stall: from.body_timeout,
        header_bytes: from.header_bytes,
        ..Limits::default()
    }
}

fn origin_settings(config: &EdgeConfig, addresses: &Addresses) -> OriginSettings {
    let own = addresses.http.iter().chain(&addresses.https).chain(&addresses.admin);
    OriginSettings {
        allow_private: config.allow_private_origins,
        edge_id: Arc::clone(&config.name),
        resolver: Arc::new(Resolver::new()),
        roots: native_roots(),
        own: own.copied().collect(),
    }
}

/// The sandbox, and the folder that goes when the edge does, where it has none of its own.
fn sandbox(
    config: &EdgeConfig,
    options: &Options,
) -> Result<(Sandbox, Option<tempfile::TempDir>), RunError> {
    let kept = config.state_dir.as_ref().or(config.cache.dir.as_ref()).cloned();
    let (dir, scratch) = match kept {
        Some(dir) => (dir, None),
        None => {
            let path = std::env::temp_dir();
            let scratch = tempfile::Builder::new().prefix("verge-edge-").tempdir_in(&path);
            let scratch = scratch.map_err(|source| RunError::File { path, source })?;
            (scratch.path().to_owned(), Some(scratch))
        }
    };
    std::fs::create_dir_all(&dir)
        .map_err(|source| RunError::File { path: dir.clone(), source })?;
    let mut settings = SandboxSettings::new(dir.join("artefacts"), options.compiler.clone());
    settings.max_instances = config.handlers.instances;
    settings.max_memory = config.handlers.memory;
    Ok((Sandbox::new(settings)?, scratch))
}

/// Where the edge's sites come from.
enum Link {
    Fleet(Fleet),
    Standalone(Standalone),
}

impl Link {
    async fn open(
        config: &EdgeConfig,
        options: &Options,
        sandbox: Sandbox,
        origins: &Arc<OriginSettings>,
        cell: &Arc<SnapshotCell>,
        cache: &Cache,
    ) -> Result<Link, RunError> {
        let sink: Arc<dyn PurgeSink> = Arc::new(cache.clone());
        let cell = Arc::clone(cell);
        match &config.source {
            Source::SiteFile(path) => {
                let builder = Builder::new(sandbox, Arc::clone(origins), Context::Standalone);
                let standalone = Standalone::open(path.clone(), builder, cell, sink).await?;
                Ok(Link::Standalone(standalone))
            }
            Source::Control { url, join } => {
                let builder = Builder::new(sandbox, Arc::clone(origins), Context::Fleet);
                let state_dir = config.state_dir.clone();
                let settings = FleetSettings {
                    control: url.clone(),
                    name: Arc::clone(&config.name),
                    join: join.clone(),
                    state_dir: state_dir.ok_or(RunError::Config("state_dir is missing"))?,
                    roots: Arc::clone(&origins.roots),
                    longest_wait: if options.development {
                        FleetSettings::WAIT_IN_DEVELOPMENT
                    } else {
                        FleetSettings::WAIT
                    },
                };
                Ok(Link::Fleet(Fleet::open(settings, builder, cell, sink).await?))
            }
        }
    }

    fn status(&self) -> Arc<LinkStatus> {
        match self {
            Link::Fleet(fleet) => fleet.status(),
            Link::Standalone(standalone) => standalone.status(),
        }
    }

    fn purges(&self) -> Option<Arc<LocalPurges>> {
        match self {
            Link::Fleet(_) => None,
            Link::Standalone(standalone) => Some(standalone.purges()),
        }
    }

    async fn run(self, shutdown: CancellationToken) {
        match self {
            Link::Fleet(fleet) => fleet.run(shutdown).await,
            Link::Standalone(standalone) => standalone.run(shutdown).await,
        }
    }
}

/// Sockets that are bound and not yet served.
struct Sockets {
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
    admin: Option<TcpListener>,
}

impl Sockets {
    async fn bind(config: &EdgeConfig) -> Result<Sockets, RunError> {
        let mut sockets = Sockets { http: Vec::new(), https: Vec::new(), admin: None };
        for address in &config.listen.http {
            sockets.http.push(bind(*address).await?);
        }
        for address in &config.listen.https {
            sockets.https.push(bind(*address).await?);
        }
        if let Some(address) = config.admin {
            sockets.admin = Some(bind(address).await?);
        }
        Ok(sockets)
    }

    fn addresses(&self) -> Addresses {
        let of = |listeners: &[TcpListener]| {
            listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
        };
        Addresses {
            http: of(&self.http),
            https: of(&self.https),
            admin: self.admin.as_ref().and_then(|admin| admin.local_addr().ok()),
        }
    }

    fn serve(
        self,
        listeners: &Listeners,
        certificates: Option<Arc<Certificates>>,
        hooks: Arc<Hooks>,
        shutdown: &CancellationToken,
    ) -> Option<JoinHandle<io::Result<()>>> {
        for socket in self.http {
            listeners.serve_plain(socket);
        }
        if let Some(certificates) = certificates {
            for socket in self.https {
                listeners.serve_tls(socket, Arc::clone(&certificates));
            }
        }
        let end = shutdown.clone().cancelled_owned();
        self.admin.map(|socket| tokio::spawn(admin::serve(socket, hooks, end)))
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Bind { address, source })
}

/// Writes the addresses in one step, so that a reader finds all of them or none.
fn write_addresses(path: &Path, addresses: &Addresses) -> Result<(), RunError> {
    let mut lines = String::new();
    let all = [("http", &addresses.http), ("https", &addresses.https)];
    for (name, listeners) in all {
        for address in listeners {
            lines.push_str(&format!("{name}={address}\n"));
        }
    }
    if let Some(admin) = addresses.admin {
        lines.push_str(&format!("admin={admin}\n"));
    }
    let fresh = path.with_extension("tmp");
    std::fs::write(&fresh, lines)
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(|source| RunError::File { path: path.to_owned(), source })
}

fn tell(addresses: &Addresses) {
    for address in &addresses.http {
        tracing::info!("listening on http://{address}");
    }
    for address in &addresses.https {
        tracing::info!("listening on https://{address}");
    }
    if let Some(address) = addresses.admin {
        tracing::info!("admin on http://{address}");
    }
}

/// Brings the gauges up to date that nobody else does.
async fn keep_gauges(cache: Cache, status: Arc<LinkStatus>, shutdown: CancellationToken) {
    let metrics = telemetry::metrics();
    let mut applied = None;
    loop {
        let stats = cache.stats();
        metrics.cache_objects.set(i64::try_from(stats.entries).unwrap_or(i64::MAX));
        metrics.cache_bytes.set(i64::try_from(stats.bytes).unwrap_or(i64::MAX));
        let view = status.view();
        metrics.feed_connected.set(i64::from(view.connected));
        metrics.applied_revision.set(i64::try_from(view.applied.0).unwrap_or(i64::MAX));
        metrics.feed_lag.set(i64::try_from(view.lag).unwrap_or(i64::MAX));
        if view.ready && applied != Some(view.applied) {
            applied = Some(view.applied);
            metrics.config_applied();
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(GAUGES) => {}
        }
    }
}

/// What the admin listener may ask of this edge.
struct Hooks {
    edge: Arc<Edge>,
    status: Arc<LinkStatus>,
    purges: Option<Arc<LocalPurges>>,
    control: String,
}

impl AdminHooks for Hooks {
    fn edge_name(&self) -> String {
        self.edge.id.to_string()
    }

    fn readiness(&self) -> Readiness {
        if self.status.is_ready() {
            Readiness::Ready { revision: self.edge.snapshot.load().revision }
        } else {
            Readiness::NotReady("no configuration is in force yet")
        }
    }

    fn explain(&self, url: &str) -> Result<Value, String> {
        self.edge.explain(url).map_err(|error| error.to_string())
    }

    fn purge(&self, request: PurgeRequest) -> BoxFuture<'_, Result<PurgeDone, PurgeRefused>> {
        Box::pin(async move {
            let control_plane = self.control.clone();
            let purges = self.purges.clone().ok_or(PurgeRefused::Fleet { control_plane })?;
            let site = request.site.clone().unwrap_or_default();
            // A scan of a large cache may take a while; it must not hold up a thread of the data path.
            let applied = tokio::task::spawn_blocking(move || purges.purge(&request)).await;
            match applied {
                Ok(Ok(done)) => {
                    let metrics = telemetry::metrics();
                    metrics.purges.inc();
                    metrics.purged_objects.inc_by(done.matched);
                    Ok(PurgeDone {
                        site: done.purge.site,
                        revision: done.purge.revision,
                        matched: done.matched,
                    })
                }
                Ok(Err(_)) if site.is_empty() => Err(PurgeRefused::NotReady),
                Ok(Err(_)) => Err(PurgeRefused::UnknownSite(site)),
                Err(_) => Err(PurgeRefused::NotReady),
            }
        })
    }
}
