//! Tells the log of stored files that give less than they should, however many there are: once a minute.
//! May not decide what becomes of the response.

use parking_lot::Mutex;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// How often it is told at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

static TOLD: Mutex<Told> = Mutex::new(Told { last: None, untold: 0 });

/// What the log knows.
struct Told {
    /// When it was told the last time.
    last: Option<Instant>,
    /// How many there were since.
    untold: u64,
}

impl Told {
    /// Counts one; how many the log is to be told of, if it is time.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < TELL_EVERY) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// A file that was being sent gave less than it should.
pub(super) fn warn(error: &dyn Display) {
    let due = TOLD.lock().count(Instant::now());
    if let Some(responses) = due {
        tracing::warn!(%error, responses, "a stored file is short: its response breaks off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_a_minute_with_the_number_in_between() {
        let start = Instant::now();
        let mut told = Told { last: None, untold: 0 };
        let mut count = |seconds| told.count(start + Duration::from_secs(seconds));
        assert_eq!(count(0), Some(1));
        assert_eq!([count(0), count(1), count(59)], [None; 3]);
        assert_eq!(count(60), Some(4));
        assert_eq!(count(61), None);
        assert_eq!(count(1000), Some(2));
        assert_eq!(count(1060), Some(1));
    }
}
