//! How far the control link is: what readiness, metrics, reports and logs read. Holds numbers and
//! reasons only; may not do I/O.

use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use verge_config::Revision;
use verge_config::feed::Refusal;

/// "Never", among the milliseconds since the start.
const NEVER: u64 = u64::MAX;

/// The state of the control link, shared by whoever wants to know.
pub struct LinkStatus {
    started: Instant,
    ready: AtomicBool,
    connected: AtomicBool,
    applied: AtomicU64,
    head: AtomicU64,
    last_contact_ms: AtomicU64,
    refusals: Mutex<BTreeMap<String, Refusal>>,
    /// Rises with every change above; its value means nothing.
    changes: watch::Sender<u64>,
}

/// [`LinkStatus`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkView {
    /// A first configuration is in force.
    pub ready: bool,
    /// The feed is open; always true in standalone mode.
    pub connected: bool,
    /// Everything up to here is in force or refused, and on disk.
    pub applied: Revision,
    /// The newest revision heard of.
    pub head: Revision,
    /// How many revisions the edge is behind.
    pub lag: u64,
    /// Milliseconds since the control plane was last heard; absent when it never was.
    pub contact_age_ms: Option<u64>,
    /// What is refused at present, by site.
    pub refusals: Vec<Refusal>,
}

impl Default for LinkStatus {
    fn default() -> LinkStatus {
        LinkStatus {
            started: Instant::now(),
            ready: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            applied: AtomicU64::new(0),
            head: AtomicU64::new(0),
            last_contact_ms: AtomicU64::new(NEVER),
            refusals: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl LinkStatus {
    /// A first configuration is in force.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The feed is open; always true in standalone mode.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Everything up to here is in force or refused, and on disk.
    #[must_use]
    pub fn applied(&self) -> Revision {
        Revision(self.applied.load(Ordering::Acquire))
    }

    /// The newest revision heard of.
    #[must_use]
    pub fn head(&self) -> Revision {
        Revision(self.head.load(Ordering::Relaxed))
    }

    /// Time since the control plane was last heard; `None` when it never was.
    #[must_use]
    pub fn contact_age(&self) -> Option<Duration> {
        let last = self.last_contact_ms.load(Ordering::Relaxed);
        let now = self.now_ms();
        (last != NEVER).then(|| Duration::from_millis(now.saturating_sub(last)))
    }

    /// What is refused at present.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refusal> {
        self.refusals.lock().values().cloned().collect()
    }

    /// All of it at once.
    #[must_use]
    pub fn view(&self) -> LinkView {
        let (applied, head) = (self.applied(), self.head());
        let age = self.contact_age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        LinkView {
            ready: self.is_ready(),
            connected: self.is_connected(),
            applied,
            head,
            lag: applied.lag(head),
            contact_age_ms: age,
            refusals: self.refusals(),
        }
    }

    /// A receiver that wakes at every change; look at [`LinkStatus::view`] then.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
        self.changed();
    }

    pub(super) fn set_connected(&self, connected: bool) {
        if self.connected.swap(connected, Ordering::Relaxed) != connected {
            self.changed();
        }
    }

    pub(super) fn set_applied(&self, revision: Revision) {
        self.applied.store(revision.0, Ordering::Release);
        self.changed();
    }

    pub(super) fn set_head(&self, revision: Revision) {
        self.head.store(revision.0, Ordering::Relaxed);
        self.changed();
    }

    /// Raises the head to a revision that was heard of.
    pub(super) fn saw(&self, revision: Revision) {
        if self.head.fetch_max(revision.0, Ordering::Relaxed) < revision.0 {
            self.changed();
        }
    }

    pub(super) fn heard(&self) {
        self.last_contact_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    pub(super) fn set_refusals(&self, refusals: &BTreeMap<String, Refusal>) {
        let mut held = self.refusals.lock();
        if *held != *refusals {
            held.clone_from(refusals);
            drop(held);
            self.changed();
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}
