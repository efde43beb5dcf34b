//! `verge-control`: parses its command line, opens the control plane, serves, drains.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use verge_control::{Control, ControlConfig};

/// The control plane of Verge.
#[derive(Parser)]
#[command(name = "verge-control", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Command {
    /// Make the store, and print the operator's first token: once, alone on its line.
    Init {
        /// The folder of the store.
        #[arg(long)]
        data: PathBuf,
    },
}

#[derive(Args)]
struct Run {
    /// The control.toml to run by.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Validate the configuration and exit.
    #[arg(long)]
    check: bool,
    /// The folder that `init` made; instead of, or before, what the file says.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Write the port to this file once it is bound.
    #[arg(long)]
    port_file: Option<PathBuf>,
    /// How the log is written, to standard error.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// These write whole header sections, credentials too, to a log that is set to listen closely.
const SECRET_BEARERS: [&str; 4] = ["h2=info", "hyper=info", "hyper_util=info", "sqlx=info"];

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.run.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.context("no runtime").and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Some(Command::Init { data }) => init(&data).await,
                None => run(cli.run).await,
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "verge-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn init(data: &Path) -> Result<()> {
    let made = verge_control::init(data).await?;
    writeln!(std::io::stdout(), "{}", made.admin_token)?;
    Ok(())
}

async fn run(run: Run) -> Result<()> {
    let config = configure(&run)?;
    if run.check {
        return Ok(());
    }
    let listen = config.listen;
    let control = Control::open(config).await?;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    if let Some(path) = &run.port_file {
        write_port(path, address.port())?;
    }
    let shutdown = CancellationToken::new();
    tokio::spawn(until_signal(shutdown.clone()));
    tracing::info!("listening on http://{address}");
    control.serve(listener, shutdown).await;
    tracing::info!("stopped");
    Ok(())
}

fn configure(run: &Run) -> Result<ControlConfig> {
    let mut config = match (&run.config, &run.data) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            ControlConfig::from_toml(&text)
                .map_err(|faults| anyhow::anyhow!("{} has faults:\n{faults}", path.display()))?
        }
        (None, Some(data)) => ControlConfig::new(data, SocketAddr::from(([127, 0, 0, 1], 7700))),
        (None, None) => bail!("give --config FILE, or --data DIR; see --help"),
    };
    if let Some(data) = &run.data {
        config.data_dir.clone_from(data);
    }
    if let Some(listen) = run.listen {
        config.listen = listen;
    }
    Ok(config)
}

/// Whoever waits for the file finds it whole.
fn write_port(path: &Path, port: u16) -> Result<()> {
    let draft = path.with_extension("new");
    std::fs::write(&draft, format!("{port}\n"))
        .and_then(|()| std::fs::rename(&draft, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

async fn until_signal(shutdown: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals; only a kill will end this process");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    shutdown.cancel();
}

fn start_log(format: LogFormat) {
    let mut filter =
        EnvFilter::try_from_env("VERGE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    for quiet in SECRET_BEARERS {
        filter = quiet.parse().map_or_else(|_| EnvFilter::new("info"), |d| filter.add_directive(d));
    }
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.with_target(false).init(),
    }
}
