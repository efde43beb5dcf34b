//! Shows each request of `verge dev` as a line with its handler's own lines beneath, as the edge in this
//! process tells of them; faults of both processes go to standard error.

use crate::error::CliError;
use crate::output::Output;
use crate::requests;
use tokio::sync::mpsc;
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};
use verge_config::tail::TailLine;

/// Requests that wait to be shown; more than that are counted.
const WAITING: usize = 1_024;
/// The target of handlers' lines in the edge's log.
const HANDLER: &str = "handler";

/// Starts the logs of this process.
pub(super) fn start_logs() -> Result<(), CliError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    // What is shown with its request is not shown twice.
    let others = FilterFn::new(|meta| meta.target() != HANDLER);
    let faults = fmt::layer().with_writer(std::io::stderr).with_ansi(false).without_time();
    tracing_subscriber::registry()
        .with(faults.with_filter(filter).with_filter(others))
        .try_init()
        .map_err(|error| CliError::Dev(format!("no logs: {error}")))
}

/// Where the edge tells of requests; they are shown from now on.
pub(super) fn shown(output: Output) -> mpsc::Sender<TailLine> {
    let (send, mut lines) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            requests::show(&line, output);
        }
    });
    send
}
