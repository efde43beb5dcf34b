//! The control plane's metrics, by names from the table of endpoints: nothing that callers choose
//! becomes a label.

use crate::auth::EndpointSpec;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use std::time::Duration;
use verge_config::Revision;

/// The registry and what is in it.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Option<IntCounterVec>,
    durations: Option<HistogramVec>,
    purges: Option<IntCounter>,
    denied: Option<IntCounter>,
    feed_bytes: Option<IntCounter>,
    head: Option<IntGauge>,
    connected: Option<IntGauge>,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).ok()?;
            registry.register(Box::new(counter.clone())).ok()?;
            Some(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).ok()?;
            registry.register(Box::new(gauge.clone())).ok()?;
            Some(gauge)
        };
        let requests = || {
            let options = Opts::new("verge_api_requests_total", "Requests by endpoint and status");
            let requests = IntCounterVec::new(options, &["method", "path", "status"]).ok()?;
            registry.register(Box::new(requests.clone())).ok()?;
            Some(requests)
        };
        let durations = || {
            let options = HistogramOpts::new("verge_api_request_seconds", "Time to the response");
            let durations = HistogramVec::new(options, &["method", "path"]).ok()?;
            registry.register(Box::new(durations.clone())).ok()?;
            Some(durations)
        };
        Metrics {
            requests: requests(),
            durations: durations(),
            purges: counter("verge_store_purges_total", "Purges committed"),
            denied: counter("verge_auth_failures_total", "Requests without a valid credential"),
            feed_bytes: counter("verge_publish_feed_bytes_total", "Bytes written to feeds"),
            head: gauge("verge_store_head_revision", "The newest revision"),
            connected: gauge("verge_fleet_connected_edges", "Edges with an open feed"),
            registry,
        }
    }

    pub(crate) fn request(&self, spec: &EndpointSpec, status: u16, took: Duration) {
        if let Some(requests) = &self.requests {
            requests.with_label_values(&[spec.method, spec.path, &status.to_string()]).inc();
        }
        if let Some(durations) = &self.durations {
            durations.with_label_values(&[spec.method, spec.path]).observe(took.as_secs_f64());
        }
    }

    pub(crate) fn purge(&self) {
        self.purges.iter().for_each(IntCounter::inc);
    }

    pub(crate) fn denied(&self) {
        self.denied.iter().for_each(IntCounter::inc);
    }

    pub(crate) fn feed_line(&self, bytes: usize) {
        self.feed_bytes.iter().for_each(|counter| counter.inc_by(bytes as u64));
    }

    pub(crate) fn head(&self, revision: Revision) {
        let value = i64::try_from(revision.0).unwrap_or(i64::MAX);
        self.head.iter().for_each(|gauge| gauge.set(value));
    }

    pub(crate) fn connected_edges(&self, count: usize) {
        let value = i64::try_from(count).unwrap_or(i64::MAX);
        self.connected.iter().for_each(|gauge| gauge.set(value));
    }

    /// All of them, in the Prometheus text format.
    pub(crate) fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
