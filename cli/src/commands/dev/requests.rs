//! Shows each request of `verge dev` as a line, out of the edge's access log, and the handlers' own
//! lines; faults of the edge go to standard error.

use crate::error::CliError;
use crate::output::Output;
use serde_json::{Map, Value};
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt as lines};

/// The targets of the edge's access log and of its handlers' lines.
const ACCESS: &str = "access";
const HANDLER: &str = "handler";

/// Starts the logs of this process.
pub(super) fn start(output: Output) -> Result<(), CliError> {
    // What has lines of its own here is not shown twice.
    let quiet = format!("warn,{ACCESS}=off,{HANDLER}=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    let others = FilterFn::new(|meta| meta.target() != ACCESS && meta.target() != HANDLER);
    let faults = lines::layer().with_writer(std::io::stderr).with_ansi(false).without_time();
    let shown = FilterFn::new(|meta| {
        let level = *meta.level() <= tracing::Level::INFO;
        level && (meta.target() == ACCESS || meta.target() == HANDLER)
    });
    tracing_subscriber::registry()
        .with(faults.with_filter(filter).with_filter(others))
        .with(Lines { output }.with_filter(shown))
        .try_init()
        .map_err(|error| CliError::Dev(format!("no logs: {error}")))?;
    verge_edge::telemetry::enable_access();
    Ok(())
}

struct Lines {
    output: Output,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let text = match event.metadata().target() {
            ACCESS => request(&fields.0),
            _ => handler(&fields.0),
        };
        self.output.event(&Value::Object(fields.0), &text);
    }
}

/// An event's fields by name.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }
}

fn text<'f>(fields: &'f Map<String, Value>, name: &str) -> &'f str {
    fields.get(name).and_then(Value::as_str).unwrap_or("-")
}

fn number(fields: &Map<String, Value>, name: &str) -> u64 {
    fields.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn request(fields: &Map<String, Value>) -> String {
    let (method, path, cache) =
        (text(fields, "method"), text(fields, "path"), text(fields, "cache"));
    let (status, bytes) = (number(fields, "status"), number(fields, "bytes"));
    let micros = number(fields, "duration_us");
    let took = format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100);
    let host = text(fields, "host");
    format!("{status} {cache:<11} {took:>10} {bytes:>9} B  {method} {host}{path}")
}

fn handler(fields: &Map<String, Value>) -> String {
    let (handler, message) = (text(fields, "handler"), text(fields, "message"));
    // What the handler says of a message itself tells more than where it wrote it.
    let said = |name: &str| fields.get(name).and_then(Value::as_str);
    let kind = said("severity").unwrap_or_else(|| text(fields, "stream"));
    match said("context") {
        Some(context) => format!("[{handler} {kind}] {context}: {message}"),
        None => format!("[{handler} {kind}] {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_one_line() {
        let fields = json!({
            "method": "GET", "host": "localhost", "path": "/a", "status": 200, "cache": "hit",
            "bytes": 12, "duration_us": 1_250,
        });
        let line = request(fields.as_object().unwrap());
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["200", "hit", "1.2", "ms", "12", "B", "GET", "localhost/a"]);
    }

    #[test]
    fn a_handler_s_line_names_its_stream_or_its_level() {
        let line = |fields: Value| handler(fields.as_object().unwrap());
        let printed = json!({ "handler": "cart", "stream": "stdout", "message": "text" });
        assert_eq!(line(printed), "[cart stdout] text");
        let logged = json!({
            "handler": "cart", "stream": "logging", "severity": "warn", "context": "stock",
            "message": "low",
        });
        assert_eq!(line(logged), "[cart warn] stock: low");
    }

    #[test]
    fn what_a_request_lacks_is_a_dash() {
        let fields = json!({ "status": 404, "method": "GET" });
        assert!(request(fields.as_object().unwrap()).starts_with("404 - "));
    }
}
