//! Puts an edge together from its configuration, runs it, and drains it. Decides nothing about requests.

mod hooks;
mod renewed;
mod sockets;

use crate::control_link::{
    Builder, Fleet, FleetError, FleetSettings, LinkStatus, LocalPurges, PurgeLog, PurgeSink,
    Standalone, StandaloneError, UsageReporter, Witness,
};
use crate::countries::CountriesError;
use crate::handlers::UsageBook;
use crate::kv::{Alone, Kv};
use crate::listen::{CertificateError, Limits, Listeners};
use crate::origin::{OriginSettings, Resolver, native_roots};
use crate::secrets::{self, SecretsError};
use crate::serve::Edge;
use crate::snapshot::{Snapshot, SnapshotCell};
use crate::tail::Tails;
use crate::telemetry;
use hooks::Hooks;
use renewed::Renewed;
use sockets::{Sockets, tell, write_addresses};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use verge_cache::{Cache, DiskError, DiskSettings, Settings};
use verge_config::process::edge::{CacheStorage, EdgeConfig, Source};
use verge_config::secrets::Secrets;
use verge_config::site::Context;
use verge_config::tail::TailLine;
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
    /// Find out what is wrong, and stop before listening.
    pub check: bool,
    /// Somebody waits in front of it: reconnect sooner.
    pub development: bool,
    /// Who in this process is told of every request; what does not fit is counted in its place.
    pub requests: Option<mpsc::Sender<TailLine>>,
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
    /// The secrets cannot be had.
    #[error("secrets: {0}")]
    Secrets(#[from] SecretsError),
    /// The database of countries cannot be used.
    #[error("country_database: {0}")]
    Countries(#[from] CountriesError),
    /// The cache's disk tier cannot be used.
    #[error("the cache's disk: {0}")]
    Disk(#[from] DiskError),
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
        Ok(Options { compiler, port_file, check, development: false, requests: None })
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
    let renewed = Renewed::read(&config)?;
    if options.check {
        return check(&config, &options).await;
    }
    let sockets = Sockets::bind(&config).await?;
    let addresses = sockets.addresses();
    let cell = Arc::new(SnapshotCell::from_pointee(Snapshot::default()));
    let cache = open_cache(cache_settings(&config.cache))?;
    let origins = Arc::new(origin_settings(&config, &addresses));
    let (sandbox, _scratch) = sandbox(&config, &options)?;
    let log = Arc::new(PurgeLog::new(Arc::new(cache.clone())));
    let builder = builder(&config, sandbox, &origins)?;
    let mut link = Link::open(&config, &options, builder, &origins, &cell, log.clone()).await?;
    let tails = Arc::new(Tails::new(Arc::clone(&config.name), options.requests.clone()));
    link.tell_of(&tails);
    let edge = Arc::new(Edge {
        id: Arc::clone(&config.name),
        snapshot: Arc::clone(&cell),
        cache: cache.clone(),
        origins: Arc::clone(&origins),
        tails,
        kv: link.kv(config.handlers.kv),
        countries: renewed.countries.clone(),
    });
    let hooks = Arc::new(Hooks {
        edge: Arc::clone(&edge),
        status: link.status(),
        purges: link.purges(),
        log,
        control: control(&config).to_owned(),
    });
    link.put_questions_to(hooks.clone());
    let listeners = Listeners::new(edge, limits(&config), shutdown.clone());
    // Taken before anyone knows of us: a SIGHUP that nobody takes would end the process.
    if let Ok(hangup) = signal(SignalKind::hangup()) {
        let reload = renewed.clone().at(hangup);
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(reload));
    }
    let admin = sockets.serve(&listeners, renewed.certificates, hooks, &shutdown);
    if let Some(path) = &options.port_file {
        write_addresses(path, &addresses)?;
    }
    tell(&addresses);
    bound(&addresses);
    let edge_cache = cache.clone();
    let gauges = tokio::spawn(keep_gauges(cache, link.status(), shutdown.clone()));
    let ended = CancellationToken::new();
    let usage = link.usage(config.handlers.usage_every);
    let usage = usage.map(|usage| tokio::spawn(usage.run(ended.clone())));
    let link = tokio::spawn(link.run(shutdown.clone()));
    shutdown.cancelled().await;
    if !listeners.drained(config.limits.drain).await {
        tracing::warn!("connections were still open when the time to drain was over");
    }
    let _ = link.await;
    ended.cancel();
    if let Some(usage) = usage {
        let _ = usage.await;
    }
    gauges.abort();
    let closing = edge_cache.clone();
    let _ = tokio::task::spawn_blocking(move || closing.close()).await;
    if let Some(admin) = admin {
        let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
    }
    Ok(())
}

/// A full disk keeps nobody from serving: then all of the cache is in memory. Whatever else is wrong with
/// the folder is for the operator to know before anything is served.
fn open_cache(settings: Settings) -> Result<Cache, DiskError> {
    match Cache::open(settings.clone()) {
        Err(error) if error.is_full() => {
            tracing::error!(%error, "the cache's disk is full: going on in memory until the next start");
            Ok(Cache::new(Settings { disk: None, ..settings }))
        }
        opened => opened,
    }
}

fn cache_settings(storage: &CacheStorage) -> Settings {
    let disk = storage.dir.as_ref().map(|folder| DiskSettings {
        folder: folder.join("responses"),
        bytes: storage.disk,
        ram_object_bytes: storage.ram_object,
    });
    Settings {
        ram_bytes: storage.ram,
        disk,
        max_object_bytes: storage.max_object,
        ..Settings::default()
    }
}

/// What can be found wrong without listening or asking anyone: for a site file all of it, its
/// components included; a fleet's edge takes its sites from its control plane.
async fn check(config: &EdgeConfig, options: &Options) -> Result<(), RunError> {
    if matches!(config.source, Source::Control { .. }) {
        return Ok(());
    }
    let cell = Arc::new(SnapshotCell::from_pointee(Snapshot::default()));
    let cache = Arc::new(Cache::new(Settings::default()));
    let origins = Arc::new(origin_settings(config, &Addresses::default()));
    let (sandbox, _scratch) = sandbox(config, options)?;
    let builder = builder(config, sandbox, &origins)?;
    Link::open(config, options, builder, &origins, &cell, cache).await.map(|_| ())
}

/// Who builds the sites.
fn builder(
    config: &EdgeConfig,
    sandbox: Sandbox,
    origins: &Arc<OriginSettings>,
) -> Result<Builder, SecretsError> {
    let context = match config.source {
        Source::SiteFile(_) => Context::Standalone,
        Source::Control { .. } => Context::Fleet,
    };
    let secrets =
        config.secrets.as_deref().map_or_else(|| Ok(Secrets::default()), secrets::read)?;
    // A standalone edge has nobody who would read what its handlers use.
    let usage = match config.source {
        Source::SiteFile(_) => Arc::new(UsageBook::unread()),
        Source::Control { .. } => Arc::default(),
    };
    Ok(Builder::new(sandbox, Arc::clone(origins), context)
        .with_secrets(Arc::new(secrets))
        .with_handlers(&config.handlers, usage))
}

/// The control plane's URL; empty where there is none.
fn control(config: &EdgeConfig) -> &str {
    match &config.source {
        Source::Control { url, .. } => url,
        Source::SiteFile(_) => "",
    }
}

fn limits(config: &EdgeConfig) -> Limits {
    let from = config.limits;
    Limits {
        connections: from.connections,
        connections_per_client: from.connections_per_client,
        header: from.header_timeout,
        idle: from.idle_timeout,
        stall: from.body_timeout,
        header_bytes: from.header_bytes,
        ..Limits::default()
    }
}

fn origin_settings(config: &EdgeConfig, addresses: &Addresses) -> OriginSettings {
    let control = addresses_in(control(config));
    let own = addresses.http.iter().chain(&addresses.https).chain(&addresses.admin).chain(&control);
    OriginSettings {
        allow_private: config.allow_private_origins,
        edge_id: Arc::clone(&config.name),
        resolver: Arc::new(Resolver::new()),
        roots: native_roots(),
        own: own.copied().collect(),
    }
}

/// Where a URL leads that says so itself. A control plane on this machine or at a private address is
/// nothing that a site may reach; one under a public name takes nobody without a token.
fn addresses_in(url: &str) -> Vec<SocketAddr> {
    let Ok(url) = url.parse::<http::Uri>() else { return Vec::new() };
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let found = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) if host.eq_ignore_ascii_case("localhost") => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        Err(_) => Vec::new(),
    };
    found.into_iter().map(|address| SocketAddr::new(address, port)).collect()
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
    std::fs::create_dir_all(&dir).map_err(|source| RunError::File { path: dir.clone(), source })?;
    let mut settings = SandboxSettings::new(dir.join("artefacts"), options.compiler.clone());
    settings.max_instances = config.handlers.instances;
    settings.max_memory = config.handlers.memory;
    if let Some(threads) = config.threads {
        settings.long_turns = threads;
    }
    Ok((Sandbox::new(settings)?, scratch))
}

/// Where the edge's sites come from.
enum Link {
    Fleet(Box<Fleet>),
    Standalone(Standalone),
}

impl Link {
    async fn open(
        config: &EdgeConfig,
        options: &Options,
        builder: Builder,
        origins: &Arc<OriginSettings>,
        cell: &Arc<SnapshotCell>,
        sink: Arc<dyn PurgeSink>,
    ) -> Result<Link, RunError> {
        let cell = Arc::clone(cell);
        match &config.source {
            Source::SiteFile(path) => {
                let standalone = Standalone::open(path.clone(), builder, cell, sink).await?;
                Ok(Link::Standalone(standalone))
            }
            Source::Control { url, join } => {
                let state_dir = config.state_dir.clone();
                let settings = FleetSettings {
                    control: url.clone(),
                    name: Arc::clone(&config.name),
                    join: join.clone(),
                    state_dir: state_dir.ok_or(RunError::Config("state_dir is missing"))?,
                    roots: Arc::clone(&origins.roots),
                    kv: config.handlers.kv,
                    longest_wait: if options.development {
                        FleetSettings::WAIT_IN_DEVELOPMENT
                    } else {
                        FleetSettings::WAIT
                    },
                };
                let fleet = Fleet::open(settings, builder, cell, sink).await?;
                Ok(Link::Fleet(Box::new(fleet)))
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

    /// The key-value stores of its sites; kept here, within so many bytes, where there is no other keeper.
    fn kv(&self, bytes: u64) -> Arc<Kv> {
        match self {
            Link::Fleet(fleet) => fleet.kv(),
            Link::Standalone(_) => Arc::new(Kv::Alone(Alone::new(bytes))),
        }
    }

    /// What reports the usage of handlers, where there is somebody to report it to.
    fn usage(&self, every: Duration) -> Option<UsageReporter> {
        match self {
            Link::Fleet(fleet) => Some(fleet.usage(every)),
            Link::Standalone(_) => None,
        }
    }

    fn put_questions_to(&self, witness: Arc<dyn Witness>) {
        if let Link::Fleet(fleet) = self {
            fleet.put_questions_to(witness);
        }
    }

    fn tell_of(&mut self, tails: &Arc<Tails>) {
        if let Link::Fleet(fleet) = self {
            fleet.tell_of(Arc::clone(tails));
        }
    }

    async fn run(self, shutdown: CancellationToken) {
        match self {
            Link::Fleet(fleet) => Box::pin(fleet.run(shutdown)).await,
            Link::Standalone(standalone) => standalone.run(shutdown).await,
        }
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
        metrics.cache_disk_faults.set(i64::try_from(stats.disk_faults).unwrap_or(i64::MAX));
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
