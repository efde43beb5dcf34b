//! The counters, each resolved once when the process starts: counting a request is a few atomic adds
//! and looks nothing up. Reads nothing of other rooms; they call in.

use crate::origin::OriginError;
use http::StatusCode;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use verge_cache::Outcome;
use verge_handlers::End;

/// From half a millisecond (a hit) to half a minute (a timeout), in seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const CACHE_OUTCOMES: [&str; 7] =
    ["none", "hit", "stale", "revalidated", "miss", "collapsed", "bypass"];
const ORIGIN_RESULTS: [&str; 12] = [
    "1xx",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "resolve_failed",
    "connect_failed",
    "tls_failed",
    "timeout",
    "broken",
    "forbidden",
    "not_sent",
];
static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "names and labels are constants, built in a test too")]
    Metrics::new().expect("constant metric names are valid")
});

/// The process's counters.
#[must_use]
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// All counters of the edge.
pub struct Metrics {
    registry: Registry,
    requests: Vec<IntCounter>,
    response_bytes: IntCounter,
    request_bytes: IntCounter,
    in_flight: IntGauge,
    duration: Histogram,
    /// Requests to sites' origins.
    pub origin: Destination,
    /// Requests of handlers to outside hosts.
    pub outside: Destination,
    /// Handlers and their breakers.
    pub handlers: Handlers,
    /// Reports of usage that did not get to the control plane; they are sent again.
    pub usage_unsent: IntCounter,
    /// Connections accepted.
    pub connections: IntCounter,
    /// Connections closed at once, since their client had as many as it may.
    pub connections_refused: IntCounter,
    connections_open: IntGauge,
    /// TLS handshakes that failed.
    pub tls_failures: IntCounter,
    /// Purges applied.
    pub purges: IntCounter,
    /// Objects that purges matched.
    pub purged_objects: IntCounter,
    /// Objects stored now.
    pub cache_objects: IntGauge,
    /// Bytes stored now.
    pub cache_bytes: IntGauge,
    /// Operations of the cache's disk that failed, since the start.
    pub cache_disk_faults: IntGauge,
    /// 1 while the feed is open.
    pub feed_connected: IntGauge,
    /// The last revision applied.
    pub applied_revision: IntGauge,
    /// Revisions known of and not yet applied.
    pub feed_lag: IntGauge,
    /// Configurations refused.
    pub refusals: IntCounter,
    config_age: Gauge,
    config_applied_at: AtomicU64,
    /// Log lines dropped since their reader was too slow.
    pub log_lines_dropped: IntCounter,
}

/// Handlers, by how their requests ended and what their breakers do.
pub struct Handlers {
    ends: Vec<IntCounter>,
    duration: Histogram,
    /// Breakers that have tripped.
    pub opened: IntCounter,
    /// Breakers that began to try again.
    pub probed: IntCounter,
    /// Breakers that have closed again.
    pub closed: IntCounter,
    /// Breakers that are not closed now.
    pub open: IntGauge,
}

/// Requests to one kind of place, by result.
pub struct Destination {
    results: Vec<IntCounter>,
}

/// A request under way, or an open connection; it ends when this is dropped.
pub struct InFlight(&'static IntGauge);

// === impl Metrics ===

impl Metrics {
    fn new() -> Result<Metrics, prometheus::Error> {
        let r = Registry::new();
        Ok(Metrics {
            requests: request_counters(&r)?,
            response_bytes: counter(
                &r,
                "front_response_bytes_total",
                "Content bytes to visitors.",
            )?,
            request_bytes: counter(
                &r,
                "front_request_bytes_total",
                "Content bytes from visitors.",
            )?,
            in_flight: gauge(&r, "front_requests_in_flight", "Requests under way.")?,
            duration: histogram(
                &r,
                "front_request_duration_seconds",
                "First byte in to last out.",
            )?,
            origin: Destination::new(
                &r,
                "origin_requests_total",
                "Requests to origins, by result.",
            )?,
            outside: Destination::new(
                &r,
                "outside_requests_total",
                "Handlers' requests to outside hosts, by result.",
            )?,
            handlers: Handlers::new(&r)?,
            usage_unsent: counter(
                &r,
                "control_link_usage_unsent_total",
                "Usage to be sent again.",
            )?,
            connections: counter(&r, "listen_connections_total", "Connections accepted.")?,
            connections_refused: counter(&r, "listen_connections_refused_total", "Refused.")?,
            connections_open: gauge(&r, "listen_connections_open", "Connections open.")?,
            tls_failures: counter(&r, "listen_tls_failures_total", "TLS handshakes that failed.")?,
            purges: counter(&r, "cache_purges_total", "Purges applied.")?,
            purged_objects: counter(&r, "cache_purged_objects_total", "Objects purges matched.")?,
            cache_objects: gauge(&r, "cache_objects", "Objects stored.")?,
            cache_bytes: gauge(&r, "cache_bytes", "Bytes stored.")?,
            cache_disk_faults: gauge(
                &r,
                "cache_disk_faults",
                "Operations of the cache's disk that failed, since the start.",
            )?,
            feed_connected: gauge(&r, "control_link_connected", "1 while the feed is open.")?,
            applied_revision: gauge(&r, "control_link_applied_revision", "Last revision applied.")?,
            feed_lag: gauge(&r, "control_link_lag_revisions", "Revisions not yet applied.")?,
            refusals: counter(&r, "control_link_refusals_total", "Configurations refused.")?,
            config_age: register(
                &r,
                Gauge::with_opts(opts(
                    "control_link_config_age_seconds",
                    "Since the configuration in force was applied; -1 before the first.",
                ))?,
            )?,
            config_applied_at: AtomicU64::new(0),
            log_lines_dropped: counter(
                &r,
                "telemetry_log_lines_dropped_total",
                "Log lines dropped.",
            )?,
            registry: r,
        })
    }

    /// Counts a request that is answered; `cache` is `None` for what did not go through the cache.
    pub fn request(
        &self,
        status: StatusCode,
        cache: Option<Outcome>,
        response_bytes: u64,
        duration: Duration,
    ) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        let cell = class * CACHE_OUTCOMES.len() + outcome_index(cache);
        if let Some(counter) = self.requests.get(cell) {
            counter.inc();
        }
        self.response_bytes.inc_by(response_bytes);
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts content from a visitor.
    pub fn received(&self, bytes: u64) {
        self.request_bytes.inc_by(bytes);
    }

    /// Counts a request as under way until the guard is dropped.
    #[must_use]
    pub fn in_flight(&'static self) -> InFlight {
        self.in_flight.inc();
        InFlight(&self.in_flight)
    }

    /// Counts a connection as open until the guard is dropped.
    #[must_use]
    pub fn connection_open(&'static self) -> InFlight {
        self.connections_open.inc();
        InFlight(&self.connections_open)
    }

    /// Notes that a configuration came into force now.
    pub fn config_applied(&self) {
        self.config_applied_at.store(unix_seconds(), Ordering::Relaxed);
    }

    /// Adds a collector of another room's own.
    ///
    /// # Errors
    /// When a metric of that name is there already.
    pub fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(collector)
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let at = self.config_applied_at.load(Ordering::Relaxed);
        self.config_age.set(match at {
            0 => -1.0,
            at => unix_seconds().saturating_sub(at) as f64,
        });
        let mut text = Vec::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written out");
        }
        text
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

// === impl Handlers ===

impl Handlers {
    fn new(r: &Registry) -> Result<Handlers, prometheus::Error> {
        let runs = "Requests for handlers, by how they ended.";
        Ok(Handlers {
            ends: labelled(r, "handlers_runs_total", runs, "end", End::NAMES)?,
            duration: histogram(r, "handlers_run_duration_seconds", "Handler runs.")?,
            opened: counter(r, "handlers_breaker_opened_total", "Breakers tripped.")?,
            probed: counter(r, "handlers_breaker_probed_total", "Breakers half open.")?,
            closed: counter(r, "handlers_breaker_closed_total", "Breakers closed again.")?,
            open: gauge(r, "handlers_breakers_open", "Breakers not closed.")?,
        })
    }

    /// Counts a request by its end.
    pub fn ended(&self, end: &End) {
        if let Some(counter) = self.ends.get(end.index()) {
            counter.inc();
        }
    }

    /// Counts how long a request ran.
    pub fn ran(&self, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
    }
}

// === impl Destination ===

impl Destination {
    fn new(registry: &Registry, name: &str, help: &str) -> Result<Destination, prometheus::Error> {
        Ok(Destination { results: labelled(registry, name, help, "result", &ORIGIN_RESULTS)? })
    }

    /// Counts a request by its status or its failure.
    pub fn request(&self, result: Result<StatusCode, &OriginError>) {
        let index = match result {
            Ok(status) => usize::from(status.as_u16() / 100).clamp(1, 5) - 1,
            Err(error) => failure_index(error),
        };
        if let Some(counter) = self.results.get(index) {
            counter.inc();
        }
    }
}

/// The place of a failure in [`ORIGIN_RESULTS`].
fn failure_index(error: &OriginError) -> usize {
    match error {
        OriginError::DnsFailed { .. } | OriginError::DnsTimeout { .. } => 5,
        OriginError::ConnectionRefused { .. }
        | OriginError::ConnectFailed { .. }
        | OriginError::ConnectTimeout { .. } => 6,
        OriginError::CertificateRefused { .. } | OriginError::TlsFailed { .. } => 7,
        OriginError::FirstByteTimeout { .. } | OriginError::BetweenBytesTimeout { .. } => 8,
        OriginError::ClosedEarly { .. }
        | OriginError::Incomplete { .. }
        | OriginError::HeadTooLarge
        | OriginError::Protocol { .. } => 9,
        OriginError::AddressForbidden { .. }
        | OriginError::HostNotAllowed { .. }
        | OriginError::LoopDetected => 10,
        OriginError::Busy { .. }
        | OriginError::RequestBody { .. }
        | OriginError::InvalidRequest { .. } => 11,
    }
}

fn outcome_index(cache: Option<Outcome>) -> usize {
    match cache {
        None => 0,
        Some(Outcome::Hit) => 1,
        Some(Outcome::Stale) => 2,
        Some(Outcome::Revalidated) => 3,
        Some(Outcome::Miss) => 4,
        Some(Outcome::Collapsed) => 5,
        Some(Outcome::Bypass) => 6,
    }
}

fn request_counters(registry: &Registry) -> Result<Vec<IntCounter>, prometheus::Error> {
    let options =
        opts("front_requests_total", "Requests answered, by status and way through the cache.");
    let vector = register(registry, IntCounterVec::new(options, &["class", "cache"])?)?;
    let mut counters = Vec::with_capacity(CLASSES.len() * CACHE_OUTCOMES.len());
    for class in CLASSES {
        for cache in CACHE_OUTCOMES {
            counters.push(vector.get_metric_with_label_values(&[class, cache])?);
        }
    }
    Ok(counters)
}

fn labelled(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: &[&str],
) -> Result<Vec<IntCounter>, prometheus::Error> {
    let vector = register(registry, IntCounterVec::new(opts(name, help), &[label])?)?;
    values.iter().map(|value| vector.get_metric_with_label_values(&[*value])).collect()
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    register(registry, IntCounter::with_opts(opts(name, help))?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    register(registry, IntGauge::with_opts(opts(name, help))?)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::from(opts(name, help)).buckets(LATENCY_BUCKETS.to_vec());
    register(registry, Histogram::with_opts(options)?)
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("verge")
}

fn register<C>(registry: &Registry, collector: C) -> Result<C, prometheus::Error>
where
    C: Collector + Clone + 'static,
{
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_what_is_told() {
        let metrics = Box::leak(Box::new(Metrics::new().unwrap()));
        metrics.request(StatusCode::OK, Some(Outcome::Hit), 10, Duration::from_millis(1));
        metrics.request(StatusCode::OK, Some(Outcome::Hit), 5, Duration::from_millis(1));
        metrics.request(StatusCode::BAD_GATEWAY, None, 0, Duration::from_secs(60));
        let limit = Duration::from_millis(50);
        metrics.handlers.ended(&End::Failed(verge_handlers::Ended::OutOfCpu(limit)));
        metrics.origin.request(Ok(StatusCode::NOT_FOUND));
        metrics.origin.request(Err(&OriginError::HeadTooLarge));
        let guard = metrics.in_flight();
        let text = String::from_utf8(metrics.render()).unwrap();
        for line in [
            "verge_front_requests_total{cache=\"hit\",class=\"2xx\"} 2",
            "verge_front_requests_total{cache=\"none\",class=\"5xx\"} 1",
            "verge_front_requests_total{cache=\"miss\",class=\"2xx\"} 0",
            "verge_front_response_bytes_total 15",
            "verge_front_requests_in_flight 1",
            "verge_front_request_duration_seconds_count 3",
            "verge_handlers_runs_total{end=\"out_of_cpu\"} 1",
            "verge_handlers_runs_total{end=\"busy\"} 0",
            "verge_origin_requests_total{result=\"4xx\"} 1",
            "verge_origin_requests_total{result=\"broken\"} 1",
            "verge_control_link_config_age_seconds -1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
        drop(guard);
        metrics.config_applied();
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.contains("verge_front_requests_in_flight 0"));
        assert!(!text.contains("verge_control_link_config_age_seconds -1"));
    }

    #[test]
    fn every_end_has_its_own_counter() {
        assert_eq!(outcome_index(Some(Outcome::Bypass)) + 1, CACHE_OUTCOMES.len());
        let last = OriginError::InvalidRequest { what: "" };
        assert_eq!(failure_index(&last) + 1, ORIGIN_RESULTS.len());
    }
}
