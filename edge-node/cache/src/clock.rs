//! The clock that the whole cache reads: monotonic for how long things have been here, wall time only
//! to be compared with an origin's `Date`. May not be bypassed: no other room asks the system for time.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the time comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clocks.
    #[default]
    System,
    /// A clock that a test turns.
    Manual(Arc<ManualClock>),
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never jumps; only differences mean anything.
    pub mono: u64,
    /// Seconds since the Unix epoch: the earlier of what the wall clock shows now, and what it showed
    /// at the start plus the time since. So neither a jump of the clock nor a wrong start makes
    /// responses look older than they are (RFC 9111 section 4.2.3, `apparent_age`).
    pub wall: u64,
}

/// A clock that stands still until it is turned.
#[derive(Debug)]
pub struct ManualClock {
    mono: AtomicU64,
    wall_ms: AtomicU64,
    /// What the wall clock would show had nobody set it.
    steady_ms: AtomicU64,
}

/// Both clocks at the first look at them.
fn start() -> (Instant, u64) {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    *START.get_or_init(|| (Instant::now(), shown()))
}

fn shown() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

// === impl Clock ===

impl Clock {
    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: self.wall() }
    }

    /// The monotonic clock alone, in milliseconds: all that a hit needs.
    #[must_use]
    pub fn mono(&self) -> u64 {
        match self {
            Clock::System => u64::try_from(start().0.elapsed().as_millis()).unwrap_or(u64::MAX),
            Clock::Manual(clock) => clock.mono.load(Ordering::Acquire),
        }
    }

    fn wall(&self) -> u64 {
        match self {
            Clock::System => {
                let (instant, wall) = start();
                shown().min(wall.saturating_add(instant.elapsed().as_secs()))
            }
            Clock::Manual(clock) => {
                let wall = clock.wall_ms.load(Ordering::Acquire);
                wall.min(clock.steady_ms.load(Ordering::Acquire)) / 1000
            }
        }
    }
}

// === impl ManualClock ===

impl ManualClock {
    /// A clock that shows `wall` seconds since the Unix epoch.
    #[must_use]
    pub fn new(wall: u64) -> Arc<ManualClock> {
        Arc::new(ManualClock {
            mono: AtomicU64::new(1_000_000),
            wall_ms: AtomicU64::new(wall.saturating_mul(1000)),
            steady_ms: AtomicU64::new(wall.saturating_mul(1000)),
        })
    }

    /// Time passes, on both clocks.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.mono.fetch_add(ms, Ordering::AcqRel);
        self.wall_ms.fetch_add(ms, Ordering::AcqRel);
        self.steady_ms.fetch_add(ms, Ordering::AcqRel);
    }

    /// Somebody sets the wall clock; no time passes.
    pub fn set_wall(&self, wall: u64) {
        self.wall_ms.store(wall.saturating_mul(1000), Ordering::Release);
    }
}
