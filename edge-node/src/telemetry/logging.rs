//! Sets the process's logs up: what goes where, in which form. Called once, by `main`.

use super::access::{ACCESS_TARGET, enable_access};
use super::lines::{self, LinesGuard};
use std::io;
use tracing_subscriber::filter::{EnvFilter, FilterFn, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// The form of the lines on standard error.
    pub format: LogFormat,
    /// What is logged, in the words of `RUST_LOG`; that variable when absent, `info` when neither.
    pub filter: Option<String>,
    /// Whether each request is a line of JSON on standard output.
    pub access: bool,
}

/// Keeps the logs' threads; writes out what waits when it is dropped. `main` holds it to its end.
#[must_use]
pub struct LogGuard {
    _errors: LinesGuard,
    _access: Option<LinesGuard>,
}

/// Starts the logs of the process.
///
/// # Errors
/// When the filter is not one, when logs were started before, or when the system has no thread to
/// spare.
pub fn init_logging(options: &LogOptions) -> io::Result<LogGuard> {
    let filter = match &options.filter {
        Some(filter) => EnvFilter::try_new(filter).map_err(io::Error::other)?,
        None => {
            EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy()
        }
    };
    let (lines, errors) = lines::start(Box::new(io::stderr()), "log")?;
    // Filters without a level would have every span and line of every library looked at each time it
    // is reached, however little is logged in the end.
    let level = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let not_access =
        FilterFn::new(|meta| meta.target() != ACCESS_TARGET).with_max_level_hint(level);
    let layer = fmt::layer().with_writer(lines).with_ansi(false);
    let layer = match options.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let layer = layer.with_filter(filter).with_filter(not_access);
    let (access_layer, access) = if options.access {
        let (lines, guard) = lines::start(Box::new(io::stdout()), "access-log")?;
        let only_access = FilterFn::new(|meta| meta.target() == ACCESS_TARGET)
            .with_max_level_hint(LevelFilter::INFO);
        let layer = fmt::layer()
            .json()
            .flatten_event(true)
            .with_level(false)
            .with_target(false)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(lines)
            .with_filter(only_access);
        (Some(layer), Some(guard))
    } else {
        (None, None)
    };
    tracing_subscriber::registry()
        .with(layer)
        .with(access_layer)
        .try_init()
        .map_err(io::Error::other)?;
    if options.access {
        enable_access();
    }
    Ok(LogGuard { _errors: errors, _access: access })
}
