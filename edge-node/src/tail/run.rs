//! One request that somebody watches: what the front knows of it, and what its handler's run adds. It
//! is told of when both are done with it, in whichever order. Pure but for the clock.

use super::Tails;
use http::Method;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use verge_config::tail::{
    Event, Facts, Line, MAX_LINES, MAX_LINES_BYTES, MAX_NAME_BYTES, MAX_PATH_BYTES, cut,
};

/// A request as its front knows it, once the response is sent.
#[derive(Debug, Clone)]
pub struct Passed {
    /// The site, when one was found.
    pub site: Option<Arc<str>>,
    /// The host asked for.
    pub host: String,
    /// The method.
    pub method: Method,
    /// Path and query, raw.
    pub target: PathAndQuery,
    /// The handler of the route, or all of them.
    pub handler: Option<Arc<str>>,
    /// The response's status.
    pub status: u16,
    /// The response's content as sent, in bytes.
    pub bytes: u64,
    /// What the cache did, for what went through it.
    pub cache: Option<&'static str>,
    /// The response is the edge's own, for want of one.
    pub failed: bool,
    /// From the first byte in to the last byte out.
    pub wall: Duration,
}

/// The run of a handler for a request that is watched. Whoever holds it adds what it knows; the request
/// is told of when the last one lets go.
#[derive(Default)]
pub struct Run {
    ran: Mutex<Ran>,
    passed: Mutex<Option<(Arc<Tails>, Passed)>>,
}

/// What is known of a run.
#[derive(Debug, Default)]
pub(super) struct Ran {
    end: Option<&'static str>,
    cpu: Duration,
    lines: Vec<Line>,
    bytes: usize,
    more: u64,
}

// === impl Run ===

impl Run {
    /// A line of the handler's log.
    pub fn line(&self, line: Line) {
        let mut ran = self.ran.lock();
        if ran.lines.len() >= MAX_LINES || ran.bytes + line.bytes() > MAX_LINES_BYTES {
            ran.more += 1;
            return;
        }
        ran.bytes += line.bytes();
        ran.lines.push(line);
    }

    /// How it ended, and its time on a CPU.
    pub fn ended(&self, end: &'static str, cpu: Duration) {
        let mut ran = self.ran.lock();
        ran.end = Some(end);
        ran.cpu += cpu;
    }

    /// Another handler behind it has ended, and took this time on a CPU.
    pub fn took(&self, cpu: Duration) {
        self.ran.lock().cpu += cpu;
    }

    /// The response was sent; whoever watches is told as soon as the handler is done, too.
    pub(crate) fn passed(&self, tails: Arc<Tails>, passed: Passed) {
        *self.passed.lock() = Some((tails, passed));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some((tails, passed)) = self.passed.get_mut().take() {
            tails.tell_with(&passed, Some(self.ran.get_mut()));
        }
    }
}

// === impl Passed ===

impl Passed {
    /// How it ended, in one word.
    pub(super) fn outcome(&self, ran: Option<&Ran>) -> &'static str {
        let own = if self.failed { "failed" } else { "answered" };
        ran.and_then(|ran| ran.end).or(self.cache).unwrap_or(own)
    }

    pub(super) fn event(
        &self,
        edge: &str,
        facts: &Facts<'_>,
        ran: Option<&Ran>,
        query: bool,
    ) -> Event {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let began = SystemTime::now().checked_sub(self.wall).unwrap_or(UNIX_EPOCH);
        let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ran = ran.filter(|ran| ran.end.is_some());
        let text = |text: &str, bytes| cut(text, bytes).to_owned();
        let query = self.target.query().filter(|_| query);
        Event {
            at_ms: u64::try_from(began.as_millis()).unwrap_or(u64::MAX),
            edge: edge.to_owned(),
            site: self.site.as_deref().map(str::to_owned),
            host: text(&self.host, MAX_NAME_BYTES),
            method: text(self.method.as_str(), MAX_NAME_BYTES),
            path: text(self.target.path(), MAX_PATH_BYTES),
            query: query.map(|query| text(query, MAX_PATH_BYTES)),
            status: self.status,
            bytes: self.bytes,
            handler: self.handler.as_deref().map(|name| text(name, MAX_NAME_BYTES)),
            outcome: facts.outcome.to_owned(),
            cache: self.cache.map(str::to_owned),
            cpu_us: ran.map(|ran| micros(ran.cpu)),
            wall_us: micros(self.wall),
            lines: ran.map(|ran| ran.lines.clone()).unwrap_or_default(),
            more_lines: ran.map_or(0, |ran| ran.more),
        }
    }
}
