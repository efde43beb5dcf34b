//! One visitor's request on its way through the handlers of a route: one place in the site's gate for
//! all of them, and how many of them it may start. Knows no handler.

use super::gate::{Behind, Gate, Place};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The most runs of handlers for one request of a visitor, the first one's included. Each handler may
/// ask the next one as often as it may fetch: with eight in a row that would be a number without end.
pub const MAX_RUNS: u32 = 32;

/// A visitor's request, as all the handlers that run for it share it.
#[derive(Debug)]
pub struct Visit {
    gate: Arc<Gate>,
    runs: AtomicU32,
    is_bypassed: AtomicBool,
    _place: Place,
}

/// Why one more handler may not run for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRun {
    /// So many have run for it already.
    TooMany(u32),
    /// So many run behind others for requests of the whole site.
    Full(u32),
}

// === impl Visit ===

impl Visit {
    /// A request that has its place, and whose first handler is about to run.
    #[must_use]
    pub fn new(gate: &Arc<Gate>, place: Place) -> Visit {
        Visit {
            gate: Arc::clone(gate),
            runs: AtomicU32::new(1),
            is_bypassed: AtomicBool::new(false),
            _place: place,
        }
    }

    /// Leave for a handler behind another to run. It waits for nothing: the request holds a place
    /// already, and whoever waits for a second one may wait for itself.
    ///
    /// # Errors
    /// When too many have run for this request, or run for the site.
    pub fn run_behind(&self) -> Result<Behind, NoRun> {
        let more = |runs: u32| (runs < MAX_RUNS).then_some(runs + 1);
        let counted = self.runs.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        counted.map_err(|_| NoRun::TooMany(MAX_RUNS))?;
        self.gate.run_behind().ok_or(NoRun::Full(self.gate.most_behind()))
    }

    /// One of the handlers is left alone, and another answers in its place.
    pub fn bypass(&self) {
        self.is_bypassed.store(true, Ordering::Release);
    }

    /// Whether any was left alone so far.
    #[must_use]
    pub fn is_bypassed(&self) -> bool {
        self.is_bypassed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn visit(gate: &Arc<Gate>) -> Visit {
        Visit::new(gate, gate.enter().await.unwrap())
    }

    #[tokio::test]
    async fn a_request_has_one_place_and_so_many_runs_over_its_whole_way() {
        let gate = Arc::new(Gate::new(1, 2));
        let request = visit(&gate).await;
        // The gate is full, and nobody behind the first waits for it.
        for _ in 1..MAX_RUNS {
            drop(request.run_behind().unwrap());
        }
        assert_eq!(request.run_behind().unwrap_err(), NoRun::TooMany(MAX_RUNS));
        assert_eq!(gate.running(), 1);
        drop(request);
        assert_eq!(gate.running(), 0);
    }

    #[tokio::test]
    async fn a_site_has_so_many_behind_others_at_once() {
        let gate = Arc::new(Gate::new(2, 2));
        let (one, other) = (visit(&gate).await, visit(&gate).await);
        let held = [one.run_behind().unwrap(), other.run_behind().unwrap()];
        assert_eq!(one.run_behind().unwrap_err(), NoRun::Full(2));
        assert_eq!(gate.running_behind(), 2);
        drop(held);
        assert_eq!(gate.running_behind(), 0);
        drop(other.run_behind().unwrap());
    }
}
