//! What is told of one request once it is done: counters, and a line of the access log or of a tail
//! when somebody reads it.

use super::Exchange;
use crate::admit;
use crate::listen::Connection;
use crate::respond::EdgeError;
use crate::snapshot::SiteRuntime;
use crate::tail::{Passed, Run, Tails};
use crate::telemetry::{self, Access, InFlight, outcome_name};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Version};
use std::sync::Arc;
use std::time::{Duration, Instant};
use verge_cache::Outcome;
use verge_config::site::{Route, Target};

/// A request's record; told when it is dropped.
pub struct Record {
    started: Instant,
    status: StatusCode,
    outcome: Option<Outcome>,
    bytes: u64,
    line: Option<Box<Line>>,
    _in_flight: InFlight,
}

/// What the access log and tails want besides; gathered only when somebody reads them.
struct Line {
    connection: Arc<Connection>,
    site: Option<Arc<str>>,
    host: String,
    method: Method,
    target: PathAndQuery,
    version: Version,
    route: Option<usize>,
    handler: Option<Arc<str>>,
    /// Who watches, until it is known that nobody watches this site.
    tails: Option<Arc<Tails>>,
    /// What the route's handler does, for them.
    run: Option<Arc<Run>>,
    failed: bool,
}

impl Record {
    pub(super) fn start(tails: &Arc<Tails>, exchange: &Exchange) -> Record {
        let Exchange { connection, method, target, .. } = exchange;
        let mut record = Record::begin(tails, connection, method, target, exchange.version);
        if let Some(line) = &mut record.line {
            line.host = admit::host_of(&exchange.authority).into_owned();
        }
        record
    }

    pub(super) fn begin(
        tails: &Arc<Tails>,
        connection: &Arc<Connection>,
        method: &Method,
        target: &PathAndQuery,
        version: Version,
    ) -> Record {
        let tails = tails.listening();
        let line = (tails.is_some() || telemetry::access_enabled()).then(|| {
            Box::new(Line {
                connection: Arc::clone(connection),
                site: None,
                host: String::new(),
                method: method.clone(),
                target: target.clone(),
                version,
                route: None,
                handler: None,
                tails,
                run: None,
                failed: false,
            })
        });
        let mut record = Record::bare(StatusCode::OK);
        record.line = line;
        record
    }

    /// The record of a request of which only the response is known.
    #[must_use]
    pub fn bare(status: StatusCode) -> Record {
        let in_flight = telemetry::metrics().in_flight();
        Record {
            started: Instant::now(),
            status,
            outcome: None,
            bytes: 0,
            line: None,
            _in_flight: in_flight,
        }
    }

    pub(super) fn set_host(&mut self, host: &str) {
        if let Some(line) = &mut self.line {
            host.clone_into(&mut line.host);
        }
    }

    pub(super) fn matched(&mut self, site: &Arc<SiteRuntime>, route: &Arc<Route>) {
        if let Some(line) = &mut self.line {
            line.site = Some(Arc::clone(&site.site.name));
            line.route = Some(route.index);
            if let Target::Handler { chain, .. } = &route.target {
                line.handler = Some(Arc::clone(chain.name()));
            }
            line.tails = line.tails.take().filter(|tails| tails.wants(&site.site.name));
        }
    }

    /// Where the handler of the request says what it does, when somebody watches.
    pub(super) fn run(&mut self) -> Option<Arc<Run>> {
        let line = self.line.as_mut().filter(|line| line.tails.is_some())?;
        Some(Arc::clone(line.run.get_or_insert_default()))
    }

    pub(super) fn answered(&mut self, status: StatusCode, outcome: Option<Outcome>) {
        self.status = status;
        self.outcome = outcome;
    }

    pub(super) fn failed(&mut self, error: &EdgeError) {
        self.status = error.status();
        if let Some(line) = &mut self.line {
            line.failed = true;
        }
    }

    /// The response was sent, with so many bytes of content; whole or not.
    pub fn done(mut self, bytes: u64, whole: bool) {
        self.bytes = bytes;
        if !whole {
            tracing::debug!(bytes, "the response was cut short");
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        telemetry::metrics().request(self.status, self.outcome, self.bytes, duration);
        let Some(line) = self.line.take() else { return };
        if telemetry::access_enabled() {
            telemetry::log_access(&Access {
                client: line.connection.peer.ip(),
                site: line.site.as_deref(),
                host: &line.host,
                method: line.method.as_str(),
                path: line.target.path(),
                version: line.version,
                status: self.status.as_u16(),
                bytes: self.bytes,
                duration,
                cache: self.outcome,
                route: line.route,
                handler: line.handler.as_deref(),
                tls: line.connection.tls.is_some(),
            });
        }
        let status = self.status.as_u16();
        line.tell_tails(status, self.bytes, self.outcome.map(outcome_name), duration);
    }
}

impl Line {
    fn tell_tails(self, status: u16, bytes: u64, cache: Option<&'static str>, wall: Duration) {
        let Some(tails) = self.tails else { return };
        let Line { site, host, method, target, handler, failed, .. } = self;
        let passed =
            Passed { site, host, method, target, handler, status, bytes, cache, failed, wall };
        match self.run {
            Some(run) => run.passed(tails, passed),
            None => tails.tell(&passed),
        }
    }
}
