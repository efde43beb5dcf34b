//! A handler's breaker as requests meet it: two loads while all is well, a lock otherwise. Says in the
//! log and in the counters what the breaker has become; decides nothing itself.

use super::breaker::{Admission, Breaker, Change};
use crate::telemetry;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use verge_config::site::BreakerLimits;
use verge_handlers::{Verdict, seconds};

/// The breaker of one handler.
#[derive(Debug)]
pub struct Fuse {
    site: Arc<str>,
    handler: Arc<str>,
    /// The breaker lets everything through.
    is_closed: AtomicBool,
    /// The breaker wants to know of successes.
    is_counting: AtomicBool,
    successes: AtomicU32,
    breaker: Mutex<Breaker>,
}

/// A request's leave to run. One that is dropped unused says nothing of the handler.
#[derive(Debug)]
pub struct Ticket {
    fuse: Arc<Fuse>,
    /// The probe's number; 0 for a request that is none.
    probe: u64,
    is_told: AtomicBool,
}

// === impl Fuse ===

impl Fuse {
    /// The breaker of a handler, closed.
    #[must_use]
    pub fn new(site: &str, handler: &Arc<str>, limits: BreakerLimits) -> Fuse {
        Fuse {
            site: site.into(),
            handler: Arc::clone(handler),
            is_closed: AtomicBool::new(true),
            is_counting: AtomicBool::new(false),
            successes: AtomicU32::new(0),
            breaker: Mutex::new(Breaker::new(limits)),
        }
    }

    /// Whether all requests may run.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Leave for one request to run.
    ///
    /// # Errors
    /// While the breaker is open: the time after which to try again.
    pub fn admit(self: &Arc<Self>) -> Result<Ticket, Duration> {
        let ticket =
            |probe| Ticket { fuse: Arc::clone(self), probe, is_told: AtomicBool::new(false) };
        if self.is_closed.load(Ordering::Acquire) {
            return Ok(ticket(0));
        }
        let mut breaker = self.breaker.lock();
        let (admission, change) = breaker.admit(Instant::now());
        self.became(&breaker, change);
        match admission {
            Admission::Run => Ok(ticket(0)),
            Admission::Probe(number) => Ok(ticket(number)),
            Admission::Refuse(wait) => Err(wait),
        }
    }

    fn ended(&self, probe: u64, verdict: Verdict) {
        if probe == 0 {
            match verdict {
                Verdict::Neither => return,
                Verdict::Good => {
                    if self.is_counting.load(Ordering::Relaxed) {
                        self.successes.fetch_add(1, Ordering::Relaxed);
                    }
                    return;
                }
                Verdict::Fault => {}
            }
        }
        let mut breaker = self.breaker.lock();
        let now = Instant::now();
        let change = if probe == 0 {
            breaker.failed(now, self.successes.load(Ordering::Relaxed))
        } else {
            breaker.probed(now, probe, verdict)
        };
        self.became(&breaker, change);
    }

    /// Notes what the breaker is now, and tells of a change.
    fn became(&self, breaker: &Breaker, change: Option<Change>) {
        self.is_counting.store(breaker.is_counting(), Ordering::Relaxed);
        let was_closed = self.is_closed.swap(breaker.is_closed(), Ordering::AcqRel);
        let Some(change) = change else { return };
        let (site, handler) = (&*self.site, &*self.handler);
        let metrics = &telemetry::metrics().handlers;
        match change {
            Change::Opened(wait) => {
                metrics.opened.inc();
                if was_closed {
                    metrics.open.inc();
                }
                tracing::warn!(
                    target: "handler", site, handler, seconds = seconds(wait),
                    "the handler keeps failing: it is left alone and then tried again; see what its \
                     requests end with"
                );
            }
            Change::HalfOpened => {
                metrics.probed.inc();
                tracing::info!(target: "handler", site, handler, "the handler is tried again");
            }
            Change::Closed => {
                metrics.closed.inc();
                metrics.open.dec();
                tracing::info!(target: "handler", site, handler, "the handler answers again");
            }
        }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // Its handler is no longer in force.
        if !self.is_closed.load(Ordering::Relaxed) {
            telemetry::metrics().handlers.open.dec();
        }
    }
}

// === impl Ticket ===

impl Ticket {
    /// The request has ended.
    pub fn ended(&self, verdict: Verdict) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            self.fuse.ended(self.probe, verdict);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.probe != 0 {
            self.ended(Verdict::Neither);
        }
    }
}
