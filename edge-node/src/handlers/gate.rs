//! How many requests of one site's handlers run at once: so many, a short queue of as many in the
//! order in which they came, and no more. One atomic operation where nobody waits. Knows no handler.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a request waits for its place. A handler that called another of its site by a way around
/// would hold a place while it waits for a second one: it could not wait for ever.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often a site's log is told of requests that were refused.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// One waiter, among the two halves of [`Gate::state`].
const WAITER: u64 = 1 << 32;

/// The gate of one site.
#[derive(Debug)]
pub struct Gate {
    most: u32,
    most_behind: u32,
    /// Handlers that run behind others.
    behind: AtomicU32,
    /// Requests that run in the lower half, requests that wait in the upper one. The upper half
    /// changes under the lock of `queue` alone; while it is not zero, nobody comes in but from there.
    state: AtomicU64,
    queue: Mutex<VecDeque<oneshot::Sender<Place>>>,
    /// When it was last told that a request was refused.
    told: Mutex<Option<Instant>>,
}

/// A request's place; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place(Option<Arc<Gate>>);

/// A handler that runs behind another, for a request that has its place; counted until this is dropped.
#[derive(Debug)]
pub struct Behind(Arc<Gate>);

/// There was no place in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// How many have one.
    pub most: u32,
}

// === impl Gate ===

impl Gate {
    /// A gate for so many requests at once, and for so many handlers behind those that have a place.
    #[must_use]
    pub fn new(most: u32, most_behind: u32) -> Gate {
        Gate {
            most: most.max(1),
            most_behind: most_behind.max(1),
            behind: AtomicU32::new(0),
            state: AtomicU64::new(0),
            queue: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// How many may run at once.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.most
    }

    /// How many run now.
    #[must_use]
    pub fn running(&self) -> u64 {
        self.state.load(Ordering::Acquire) % WAITER
    }

    /// How many handlers may run behind others.
    #[must_use]
    pub fn most_behind(&self) -> u32 {
        self.most_behind
    }

    /// How many handlers run behind others now.
    #[must_use]
    pub fn running_behind(&self) -> u32 {
        self.behind.load(Ordering::Acquire)
    }

    /// Counts a handler that is to run behind another, when it may.
    #[must_use]
    pub fn run_behind(self: &Arc<Self>) -> Option<Behind> {
        let more = |behind: u32| (behind < self.most_behind).then_some(behind + 1);
        self.behind.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Behind(Arc::clone(self)))
    }

    /// A place: at once where one is free, else in the order of coming, and within a short time.
    ///
    /// # Errors
    /// When there is none in time, or as many wait already as may.
    pub async fn enter(self: &Arc<Self>) -> Result<Place, Busy> {
        if self.take().is_ok() {
            return Ok(Place::new(self));
        }
        let waiting = match self.stand_in_line() {
            Standing::In => return Ok(Place::new(self)),
            Standing::Full => return Err(Busy { most: self.most }),
            Standing::Waiting(waiting) => waiting,
        };
        // Whoever gives up drops the receiver; a place that was on its way is free again with it.
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Busy { most: self.most }),
        }
    }

    /// Whether the site's log may be told of one more request that was refused: whoever is flooded with
    /// requests is not to be flooded with lines.
    #[must_use]
    pub fn may_tell(&self) -> bool {
        let (mut told, now) = (self.told.lock(), Instant::now());
        let is_due = told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY);
        if is_due {
            *told = Some(now);
        }
        is_due
    }

    /// Takes a place where one is free and nobody waits.
    fn take(&self) -> Result<u64, u64> {
        let most = u64::from(self.most);
        let more = |state| (state < most).then_some(state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
    }

    fn stand_in_line(self: &Arc<Self>) -> Standing {
        let mut queue = self.queue.lock();
        if queue.len() >= self.most as usize {
            // Those who gave up have left their senders behind.
            let before = queue.len();
            queue.retain(|sender| !sender.is_closed());
            self.state.fetch_sub(WAITER * (before - queue.len()) as u64, Ordering::AcqRel);
            if queue.len() >= self.most as usize {
                return Standing::Full;
            }
        }
        let most = u64::from(self.most);
        // Either a place has become free meanwhile, or whoever leaves next sees that somebody waits.
        let wait = |state| Some(if state < most { state + 1 } else { state + WAITER });
        let before = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, wait);
        if before.is_ok_and(|before| before < most) {
            return Standing::In;
        }
        let (sender, receiver) = oneshot::channel();
        queue.push_back(sender);
        Standing::Waiting(receiver)
    }

    fn leave(self: &Arc<Self>) {
        let less = |state| (state < WAITER).then(|| state - 1);
        if self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok() {
            return;
        }
        loop {
            let next = {
                let mut queue = self.queue.lock();
                let next = queue.pop_front();
                // The place goes to the next one as it is; without a next one it is free.
                let change = if next.is_some() { WAITER } else { 1 };
                self.state.fetch_sub(change, Ordering::AcqRel);
                next
            };
            let Some(next) = next else { return };
            match next.send(Place::new(self)) {
                Ok(()) => return,
                // It gave up; the place is still here, for the one behind.
                Err(place) => place.pass_on(),
            }
        }
    }
}

/// What came of standing in line.
enum Standing {
    In,
    Waiting(oneshot::Receiver<Place>),
    Full,
}

// === impl Place ===

impl Place {
    fn new(gate: &Arc<Gate>) -> Place {
        Place(Some(Arc::clone(gate)))
    }

    /// Leaves the place taken: somebody else has it.
    fn pass_on(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.leave();
        }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.0.behind.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn gate(most: u32) -> Arc<Gate> {
        Arc::new(Gate::new(most, 1))
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_it_is_dropped() {
        let gate = gate(2);
        let (one, two) = (gate.enter().await.unwrap(), gate.enter().await.unwrap());
        assert_eq!(gate.running(), 2);
        drop(one);
        let _three = gate.enter().await.unwrap();
        drop(two);
        assert_eq!(gate.running(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_is_told_so_and_leaves_nothing_behind() {
        let gate = gate(1);
        let held = gate.enter().await.unwrap();
        assert_eq!(gate.enter().await.unwrap_err(), Busy { most: 1 });
        drop(held);
        assert_eq!(gate.running(), 0);
        drop(gate.enter().await.unwrap());
        assert_eq!(gate.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_in_order_and_as_long_as_the_gate_is_wide() {
        let gate = gate(2);
        let held = [gate.enter().await.unwrap(), gate.enter().await.unwrap()];
        let order: Arc<Mutex<Vec<usize>>> = Arc::default();
        let waiting: Vec<_> = (0..2)
            .map(|n| {
                let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
                tokio::spawn(async move {
                    let place = gate.enter().await.unwrap();
                    order.lock().push(n);
                    tokio::task::yield_now().await;
                    drop(place);
                })
            })
            .collect();
        while gate.queue.lock().len() < 2 {
            tokio::task::yield_now().await;
        }
        let began = tokio::time::Instant::now();
        assert!(gate.enter().await.is_err(), "two wait already");
        assert!(began.elapsed() < PATIENCE, "nobody waits behind a full queue");
        drop(held);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), [0, 1]);
        assert_eq!(gate.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_makes_room_in_the_queue() {
        let gate = gate(1);
        let held = gate.enter().await.unwrap();
        for _ in 0..5 {
            assert!(gate.enter().await.is_err());
        }
        let (waits, passed) = (Arc::clone(&gate), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&passed);
        let task = tokio::spawn(async move {
            let _place = waits.enter().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
        });
        tokio::task::yield_now().await;
        drop(held);
        task.await.unwrap();
        assert_eq!((passed.load(Ordering::SeqCst), gate.running()), (1, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn never_more_than_may_and_no_place_is_lost() {
        let gate = gate(3);
        let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..64)
            .map(|n| {
                let (gate, now, peak) = (Arc::clone(&gate), Arc::clone(&now), Arc::clone(&peak));
                tokio::spawn(async move {
                    for round in 0..200 {
                        // Some give up at once, in the middle of it.
                        let patience = Duration::from_micros((n * 7 + round) % 300);
                        let entered = tokio::time::timeout(patience, gate.enter()).await;
                        let Ok(Ok(place)) = entered else { continue };
                        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!((1..=3).contains(&peak.load(Ordering::SeqCst)));
        assert_eq!(gate.running(), 0);
        let all: Vec<Place> = futures::future::join_all((0..3).map(|_| gate.enter()))
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(all.len(), 3);
    }
}
