//! Whose turn it is among guests that run for long. There are as many turns at a time as threads that run
//! guests, and between two of them a thread looks after whoever else waits for it: a request that is short
//! finds at most one long guest before it, however many there are.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a turn waits for whom it was given to. A guest whose reader has stopped reading does not come
/// for it, and must not keep the others waiting.
const PATIENCE: Duration = Duration::from_millis(5);

/// The turns of all guests.
pub(crate) struct Turns {
    /// How many there are at a time.
    most: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    last: u64,
    /// Who has waited longest comes first.
    waiting: VecDeque<(u64, Waker)>,
    /// Whose turn it is, and since when, of those that have not begun it.
    given: Vec<(u64, Instant)>,
    running: usize,
}

/// A turn that has begun; dropping it ends it.
pub(crate) struct Turn {
    turns: Arc<Turns>,
}

impl Turns {
    pub(crate) fn new(most: usize) -> Turns {
        Turns { most: most.max(1), queue: Mutex::default() }
    }

    /// Begins the next turn: after those who wait already, and after the thread has looked after others.
    pub(crate) async fn next(self: Arc<Turns>) -> Turn {
        let place = Place { id: self.new_id(), turns: self };
        poll_fn(|context| place.turns.poll(place.id, context)).await;
        tokio::task::yield_now().await;
        place.begin()
    }

    /// Gives the turns of those who have not come for them to others. To be called from time to time.
    pub(crate) fn review(&self) {
        self.change(|_| ());
    }

    fn new_id(&self) -> u64 {
        self.change(|queue| {
            queue.last += 1;
            queue.last
        })
    }

    fn poll(&self, id: u64, context: &mut Context<'_>) -> Poll<()> {
        self.change(|queue| {
            if queue.is_given(id) {
                return;
            }
            match queue.waiting.iter_mut().find(|(waiting, _)| *waiting == id) {
                Some((_, waker)) => waker.clone_from(context.waker()),
                None => queue.waiting.push_back((id, context.waker().clone())),
            }
        });
        if self.queue.lock().is_given(id) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Changes the queue, and gives out the turns that are free then.
    fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut woken = Vec::new();
        let result = {
            let mut queue = self.queue.lock();
            let result = change(&mut queue);
            if !queue.waiting.is_empty() {
                queue.give(self.most, &mut woken);
            }
            result
        };
        woken.into_iter().for_each(Waker::wake);
        result
    }
}

impl Queue {
    fn is_given(&self, id: u64) -> bool {
        self.given.iter().any(|(given, _)| *given == id)
    }

    fn give(&mut self, most: usize, woken: &mut Vec<Waker>) {
        let now = Instant::now();
        let expected = self.given.iter().filter(|(_, since)| now - *since < PATIENCE).count();
        let free = most.saturating_sub(self.running + expected).min(self.waiting.len());
        for (id, waker) in self.waiting.drain(..free) {
            self.given.push((id, now));
            woken.push(waker);
        }
    }

    fn forget(&mut self, id: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        self.given.retain(|(given, _)| *given != id);
    }
}

/// A guest's place in the queue, given up when this is dropped.
struct Place {
    id: u64,
    turns: Arc<Turns>,
}

impl Place {
    fn begin(self) -> Turn {
        self.turns.queue.lock().running += 1;
        Turn { turns: Arc::clone(&self.turns) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turns.change(|queue| queue.forget(self.id));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.change(|queue| queue.running = queue.running.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::BoxFuture;

    fn next(turns: &Arc<Turns>) -> BoxFuture<'static, Turn> {
        Arc::clone(turns).next().boxed()
    }

    /// The guest looks once.
    fn look(guest: &mut BoxFuture<'static, Turn>) -> Option<Turn> {
        match guest.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    /// The guest looks until it would have begun its turn, if it had one.
    fn begun(guest: &mut BoxFuture<'static, Turn>) -> Option<Turn> {
        (0..4).find_map(|_| look(guest))
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_as_many_as_there_may_be_and_the_first_to_come_is_the_first() {
        let turns = Arc::new(Turns::new(2));
        let mut guests = [next(&turns), next(&turns), next(&turns), next(&turns)];
        let [first, second, third, fourth] = &mut guests;
        let (one, two) = (begun(first), begun(second));
        assert!(one.is_some() && two.is_some());
        assert!(begun(third).is_none() && begun(fourth).is_none());
        drop(two);
        assert!(begun(fourth).is_none());
        let three = begun(third);
        assert!(three.is_some());
        drop((one, three));
        assert!(begun(fourth).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn others_are_looked_after_before_each() {
        let turns = Arc::new(Turns::new(1));
        let mut guest = next(&turns);
        assert!(look(&mut guest).is_none());
        assert!(begun(&mut guest).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_makes_room() {
        let turns = Arc::new(Turns::new(1));
        let (mut gone, mut waiting, mut last) = (next(&turns), next(&turns), next(&turns));
        assert!(look(&mut gone).is_none());
        assert!(look(&mut waiting).is_none() && begun(&mut last).is_none());
        drop((gone, waiting));
        assert!(begun(&mut last).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_come_is_not_waited_for() {
        let turns = Arc::new(Turns::new(1));
        let (mut absent, mut waiting) = (next(&turns), next(&turns));
        assert!(look(&mut absent).is_none());
        assert!(begun(&mut waiting).is_none());
        turns.review();
        assert!(begun(&mut waiting).is_none());
        tokio::time::advance(PATIENCE).await;
        turns.review();
        let turn = begun(&mut waiting);
        assert!(turn.is_some());
        drop(turn);
        // Its own turn is still there when it comes.
        assert!(begun(&mut absent).is_some());
    }
}
