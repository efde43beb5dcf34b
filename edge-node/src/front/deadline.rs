//! A timer that costs nothing while nothing is late. Knows no protocol.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A deadline that is moved on every request but armed only when it would fire: moving it is a store,
/// where re-arming a timer each time would be a lock in the runtime. It counts from when somebody first
/// waits for it: what never waits does not even look at the clock.
pub(super) struct Deadline {
    after: Duration,
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// A deadline `after` from when it is first waited for.
    #[must_use]
    pub(super) fn new(after: Duration) -> Deadline {
        Deadline { after, at: None, sleep: None }
    }

    /// Moves it to `after` from when it is next waited for.
    pub(super) fn set(&mut self, after: Duration) {
        self.after = after;
        self.at = None;
    }

    /// Ready once it has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = *self.at.get_or_insert_with(|| Instant::now() + self.after);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        // An armed timer that fires too early re-arms itself; one that is too late must be moved.
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}
