//! Measures the time that one guest has spent on a CPU, by the clock of the thread that runs it. Knows
//! nothing of guests.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time on a CPU, over all the turns of a guest, which may be on different threads.
#[derive(Debug, Default)]
pub(super) struct Meter {
    used: Duration,
    turn: Option<Duration>,
}

impl Meter {
    /// A turn begins on this thread.
    pub(super) fn begin(&mut self) {
        self.turn = Some(thread_time());
    }

    /// The turn ends, on the same thread.
    pub(super) fn end(&mut self) {
        if let Some(began) = self.turn.take() {
            self.used += thread_time().saturating_sub(began);
        }
    }

    /// Time used so far, the turn that runs included.
    pub(super) fn used(&self) -> Duration {
        match self.turn {
            Some(began) => self.used + thread_time().saturating_sub(began),
            None => self.used,
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

    fn spin(time: Duration) {
        let began = thread_time();
        while thread_time() - began < time {
            std::hint::spin_loop();
        }
    }
}
