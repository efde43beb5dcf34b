//! Measures the time that one guest has spent on a CPU. Knows nothing of guests.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A shorter turn counts for as long as it took, which is known without a system call. The clock of the
/// thread is asked for longer ones, and is read at least this often for where they began: what else ran on the
/// CPU counts as the guest's for no longer than this.
const SHORT: Duration = Duration::from_micros(500);

/// Time on a CPU, over all the turns of a guest, which may be on different threads.
#[derive(Debug, Default)]
pub(super) struct Meter {
    used: Duration,
    turn: Option<Turn>,
}

impl Meter {
    /// A turn begins on this thread.
    pub(super) fn begin(&mut self) {
        self.turn = Some(Turn::begin());
    }

    /// The turn ends, on the same thread.
    pub(super) fn end(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.used += turn.used();
        }
    }

    /// Time used so far, the turn that runs included.
    pub(super) fn used(&self) -> Duration {
        self.used + self.turn.as_ref().map_or(Duration::ZERO, Turn::used)
    }
}

/// A turn that runs on this thread.
#[derive(Debug)]
struct Turn {
    began: Instant,
    /// What the thread had used by then, or a little earlier.
    thread: Duration,
}

impl Turn {
    fn begin() -> Turn {
        let began = Instant::now();
        Turn { began, thread: recent_thread_time(began) }
    }

    fn used(&self) -> Duration {
        let elapsed = self.began.elapsed();
        if elapsed < SHORT {
            return elapsed;
        }
        elapsed.min(thread_time().saturating_sub(self.thread))
    }
}

/// The time of this thread, at most as long ago as a short turn takes.
fn recent_thread_time(now: Instant) -> Duration {
    thread_local! {
        static LAST: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    }
    match LAST.get() {
        Some((at, time)) if now.saturating_duration_since(at) < SHORT => time,
        _ => {
            let time = thread_time();
            LAST.set(Some((now, time)));
            time
        }
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_the_turns() {
        let mut meter = Meter::default();
        spin(Duration::from_millis(20));
        assert_eq!(meter.used(), Duration::ZERO);
        meter.begin();
        spin(Duration::from_millis(20));
        let inside = meter.used();
        meter.end();
        assert!(inside >= Duration::from_millis(20), "{inside:?}");
        let after = meter.used();
        spin(Duration::from_millis(20));
        assert_eq!(meter.used(), after);
    }

    #[test]
    fn a_thread_that_sleeps_uses_nothing() {
        let mut meter = Meter::default();
        meter.begin();
        std::thread::sleep(Duration::from_millis(50));
        meter.end();
        assert!(meter.used() < Duration::from_millis(25), "{:?}", meter.used());
    }

    #[test]
    fn short_turns_add_up() {
        let mut meter = Meter::default();
        for _ in 0..200 {
            meter.begin();
            spin(Duration::from_micros(100));
            meter.end();
        }
        assert!(meter.used() >= Duration::from_millis(20), "{:?}", meter.used());
    }

    #[test]
    fn what_the_thread_did_before_a_turn_is_not_the_guests() {
        spin(Duration::from_millis(30));
        let mut meter = Meter::default();
        meter.begin();
        std::thread::sleep(Duration::from_millis(50));
        assert!(meter.used() < Duration::from_millis(10), "{:?}", meter.used());
    }

    fn spin(time: Duration) {
        let began = thread_time();
        while thread_time() - began < time {
            std::hint::spin_loop();
        }
    }
}
