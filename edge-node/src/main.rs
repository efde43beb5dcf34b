//! The `verge-edge` program: parse, build, run, drain.

use anyhow::{Context, Result};
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use verge_config::process::edge::{CertificateFiles, EdgeConfig, Standalone};
use verge_edge::telemetry::{LogFormat, LogOptions, init_logging};
use verge_edge::{Options, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An edge node: caches, runs handlers, follows its control plane.
#[derive(Debug, Parser)]
#[command(name = "verge-edge", version)]
struct Flags {
    /// The edge's file, when it joins a control plane.
    #[arg(long, value_name = "FILE", conflicts_with = "site")]
    config: Option<PathBuf>,
    /// A site file to serve alone, without a control plane.
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    site: Option<PathBuf>,
    /// Where visitors connect in the clear; repeatable.
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    listen: Vec<SocketAddr>,
    /// Where visitors connect with TLS; repeatable.
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    tls_listen: Vec<SocketAddr>,
    /// A certificate chain (PEM); repeatable, one for each --key, chosen by server name.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    cert: Vec<PathBuf>,
    /// The key of the --cert in the same place.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    key: Vec<PathBuf>,
    /// The admin listener, on loopback: health, metrics, explain, purges.
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    admin: Option<SocketAddr>,
    /// Threads of the data path; as many as cores when absent.
    #[arg(long, value_name = "N", conflicts_with = "config")]
    threads: Option<usize>,
    /// A folder for what the edge keeps on disk.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    cache_dir: Option<PathBuf>,
    /// The RAM tier of the cache, as in 512MiB; with 0 no response is kept whole in RAM.
    #[arg(long, value_name = "SIZE", conflicts_with = "config", value_parser = size)]
    ram: Option<u64>,
    /// The disk tier of the cache in --cache-dir, as in 10GiB.
    #[arg(long, value_name = "SIZE", conflicts_with = "config", value_parser = size)]
    disk: Option<u64>,
    /// A file of secrets for the handlers (NAME = "value"), which its owner alone may read.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    secrets: Option<PathBuf>,
    /// A database of countries in the MaxMind DB format, for handlers that ask where a visitor is.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    country_database: Option<PathBuf>,
    /// Write a JSON line for each request to standard output.
    #[arg(long)]
    access_log: bool,
    /// Lines of JSON instead of text on standard error.
    #[arg(long, value_enum, default_value = "text")]
    log_format: Format,
    /// Once bound, write the addresses here: lines `http=`, `https=` and `admin=`.
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Check the file and exit.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    internal: Option<Internal>,
}

#[derive(Debug, clap::Subcommand)]
enum Internal {
    /// The compiler child: a component in, an artefact out.
    #[command(hide = true)]
    CompileComponent,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

fn size(text: &str) -> Result<u64, String> {
    verge_config::units::parse_size(text)
}

fn main() -> ExitCode {
    // The compiler child takes no flags of ours, and must not start anything first.
    if std::env::args().nth(1).as_deref() == Some("compile-component") {
        return verge_handlers::compile_child();
    }
    match start(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("verge-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A first touch of a huge page waits while the kernel clears 2 MiB (5 ms where the machine is itself a
/// guest), and everybody whose request is on that core waits too; so memory comes in small pages.
fn take_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "memory comes in huge pages: a miss may wait for one to be cleared");
    }
}

/// Every connection is a file: takes as many as the system lets this process have.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn start(flags: Flags) -> Result<()> {
    let format = match flags.log_format {
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    };
    let config = read_config(&flags)?;
    let access = flags.access_log || config.access_log;
    let _logs = init_logging(&LogOptions { format, filter: None, access })?;
    raise_file_limit();
    take_small_pages();
    let options = Options::of_this_program(flags.port_file, flags.check)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(cancel_on_signal(shutdown.clone()));
        run(config, options, shutdown).await
    })?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    Ok(())
}

fn read_config(flags: &Flags) -> Result<EdgeConfig> {
    if let Some(path) = &flags.config {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        return EdgeConfig::from_toml(&text)
            .with_context(|| format!("{} is not valid", path.display()));
    }
    anyhow::ensure!(flags.cert.len() == flags.key.len(), "--cert and --key come in pairs");
    let pairs = flags.cert.iter().cloned().zip(flags.key.iter().cloned());
    let standalone = Standalone {
        site: flags.site.clone().unwrap_or_default(),
        listen: flags.listen.clone(),
        tls_listen: flags.tls_listen.clone(),
        certificates: pairs.map(|(cert, key)| CertificateFiles { cert, key }).collect(),
        admin: flags.admin,
        threads: flags.threads,
        cache_dir: flags.cache_dir.clone(),
        ram: flags.ram,
        disk: flags.disk,
        access_log: flags.access_log,
        secrets: flags.secrets.clone(),
        country_database: flags.country_database.clone(),
    };
    EdgeConfig::standalone(standalone).context("the flags are not valid")
}

async fn cancel_on_signal(shutdown: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("draining");
    shutdown.cancel();
}
