//! Who watches the requests of this edge, and what waits for them. While nobody does, a request costs
//! one look at a flag; whoever watches is slow at their own expense: what does not fit is counted.
//! Knows neither sockets nor how requests are served.

mod run;

pub use run::{Passed, Run};

use parking_lot::{Mutex, RwLock};
use run::Ran;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use verge_config::tail::{
    Backlog, Batch, Event, Facts, Filter, MAX_BATCH_BYTES, Place, Tail, TailLine, WHOLE,
};

/// Tails on one edge at a time.
const MAX_TAILS: usize = 64;
/// How often ended tails are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// All who watch.
pub struct Tails {
    edge: Arc<str>,
    /// Somebody watches.
    on: AtomicBool,
    readers: RwLock<Vec<Arc<Reader>>>,
    here: Option<Here>,
    wake: Notify,
}

/// A watcher in this process, who is told of every request.
struct Here {
    lines: mpsc::Sender<TailLine>,
    untold: AtomicU64,
}

/// A watcher behind the control plane.
struct Reader {
    id: String,
    site: String,
    filter: Filter,
    until: Mutex<Instant>,
    backlog: Mutex<Backlog<Event>>,
}

// === impl Tails ===

impl Tails {
    /// Those of an edge, by its name; `here` is told of every request from the start.
    #[must_use]
    pub fn new(edge: Arc<str>, here: Option<mpsc::Sender<TailLine>>) -> Tails {
        Tails {
            edge,
            on: AtomicBool::new(here.is_some()),
            readers: RwLock::default(),
            here: here.map(|lines| Here { lines, untold: AtomicU64::new(0) }),
            wake: Notify::new(),
        }
    }

    /// Itself, while anybody watches: ask before gathering what it takes.
    #[inline]
    #[must_use]
    pub fn listening(self: &Arc<Tails>) -> Option<Arc<Tails>> {
        self.on.load(Ordering::Relaxed).then(|| Arc::clone(self))
    }

    /// Whether anybody watches this site.
    #[must_use]
    pub fn wants(&self, site: &str) -> bool {
        self.here.is_some() || self.readers.read().iter().any(|reader| reader.site == site)
    }

    /// Begins to tell of a site's requests, or goes on with it; says whether there was room.
    pub fn open(&self, tail: Tail, now: Instant) -> bool {
        let until = now + Duration::from_secs(tail.lease_seconds);
        if !tail.filter.names(&self.edge) {
            return true;
        }
        let mut readers = self.readers.write();
        readers.retain(|reader| reader.is_open(now));
        if let Some(reader) = readers.iter().find(|reader| reader.id == tail.id) {
            *reader.until.lock() = until;
            return true;
        }
        if readers.len() >= MAX_TAILS {
            return false;
        }
        let Tail { id, site, filter, .. } = tail;
        let (until, backlog) = (Mutex::new(until), Mutex::default());
        readers.push(Arc::new(Reader { id, site, filter, until, backlog }));
        self.on.store(true, Ordering::Relaxed);
        true
    }

    /// Nobody reads this tail any more.
    pub fn close(&self, id: &str) {
        self.keep(|reader| reader.id != id);
    }

    /// Waits until there may be something to tell; ends what nobody has renewed meanwhile.
    pub async fn due(&self) {
        let _ = tokio::time::timeout(SWEEP_EVERY, self.wake.notified()).await;
        if self.on.load(Ordering::Relaxed) {
            let now = Instant::now();
            self.keep(|reader| reader.is_open(now));
        }
    }

    /// What is to be told now: at most one batch of each tail.
    #[must_use]
    pub fn batches(&self) -> Vec<Batch> {
        let readers = self.readers.read();
        let batches = readers.iter().filter_map(|reader| {
            let mut backlog = reader.backlog.lock();
            let waits = !backlog.is_empty();
            waits.then(|| {
                let (events, dropped) = backlog.take(MAX_BATCH_BYTES);
                Batch { tail: reader.id.clone(), dropped, events }
            })
        });
        batches.collect()
    }

    /// Whether more waits than went into the last batches.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.readers.read().iter().any(|reader| !reader.backlog.lock().is_empty())
    }

    /// A batch did not get through.
    pub fn lost(&self, batch: &Batch) {
        let readers = self.readers.read();
        if let Some(reader) = readers.iter().find(|reader| reader.id == batch.tail) {
            reader.backlog.lock().lost(batch.dropped + batch.events.len() as u64);
        }
    }

    fn keep(&self, keeps: impl Fn(&Reader) -> bool) {
        let mut readers = self.readers.write();
        readers.retain(|reader| keeps(reader));
        // Under the lock, so that a tail that begins meanwhile is not switched off.
        self.on.store(self.here.is_some() || !readers.is_empty(), Ordering::Relaxed);
    }

    /// Tells everybody who wants to know of a request that is done.
    pub fn tell(&self, passed: &Passed) {
        self.tell_with(passed, None);
    }

    fn tell_with(&self, passed: &Passed, ran: Option<&Ran>) {
        let facts = Facts {
            handler: passed.handler.as_deref(),
            status: passed.status,
            outcome: passed.outcome(ran),
            path: passed.target.path(),
        };
        if let Some(here) = &self.here {
            here.tell(passed.event(&self.edge, &facts, ran, true));
        }
        let Some(site) = passed.site.as_deref() else { return };
        let now = Instant::now();
        for reader in self.readers.read().iter() {
            if reader.site == site && reader.takes(&facts, now) {
                let event = passed.event(&self.edge, &facts, ran, reader.filter.query);
                let weight = event.weight();
                reader.backlog.lock().push(event, weight);
                self.wake.notify_one();
            }
        }
    }
}

// === impl Here ===

impl Here {
    fn tell(&self, event: Event) {
        let count = self.untold.swap(0, Ordering::Relaxed);
        if count > 0 {
            let line = TailLine::Dropped { place: Place::Reader, edge: None, count };
            if self.lines.try_send(line).is_err() {
                self.untold.fetch_add(count, Ordering::Relaxed);
            }
        }
        if self.lines.try_send(TailLine::Request(Box::new(event))).is_err() {
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl Reader ===

impl Reader {
    fn is_open(&self, now: Instant) -> bool {
        now < *self.until.lock()
    }

    fn takes(&self, facts: &Facts<'_>, now: Instant) -> bool {
        self.filter.takes(facts)
            && self.is_open(now)
            && (self.filter.sample >= WHOLE || rand::random_range(0..WHOLE) < self.filter.sample)
    }
}

#[cfg(test)]
mod tests;
