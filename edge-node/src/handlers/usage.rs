//! What handlers have used, counted as requests end and taken out from time to time. Atomic adds and
//! nothing else on the way of a request; knows no files and no control plane.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use verge_config::usage::Sums;
use verge_handlers::{End, Usage};

/// What one version of a handler has used and nobody has taken out yet.
#[derive(Debug, Default)]
pub struct Counters {
    outcomes: [AtomicU64; End::NAMES.len()],
    cpu_us: AtomicU64,
    wall_us: AtomicU64,
    memory_kib_ms: AtomicU64,
    fetches: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// The counters of every handler in force, and of those that are still running.
#[derive(Debug, Default)]
pub struct UsageBook {
    entries: Mutex<HashMap<Key, Arc<Counters>>>,
    /// Nobody takes anything out: what is no longer in force is forgotten.
    is_unread: bool,
}

/// What a version of a handler has used since it was last taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The site.
    pub site: Arc<str>,
    /// The handler.
    pub handler: Arc<str>,
    /// The site's version.
    pub version: u64,
    /// What it used.
    pub sums: Sums,
}

type Key = (Arc<str>, Arc<str>, u64);

// === impl Counters ===

impl Counters {
    /// Adds one request.
    pub fn add(&self, end: &End, usage: &Usage) {
        let add = |sum: &AtomicU64, more: u64| {
            if more > 0 {
                sum.fetch_add(more, Ordering::Relaxed);
            }
        };
        let wall_us = micros(usage.wall);
        add(&self.cpu_us, micros(usage.cpu));
        add(&self.wall_us, wall_us);
        add(&self.memory_kib_ms, (usage.peak_memory >> 10).saturating_mul(wall_us) / 1_000);
        add(&self.fetches, u64::from(usage.fetches));
        add(&self.bytes_in, usage.bytes_in);
        add(&self.bytes_out, usage.bytes_out);
        if let Some(outcome) = self.outcomes.get(end.index()) {
            outcome.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes out what was added. A request that ends meanwhile may be in this take with a part and in
    /// the next with the rest.
    fn take(&self) -> Option<Sums> {
        let take = |sum: &AtomicU64| match sum.load(Ordering::Relaxed) {
            0 => 0,
            _ => sum.swap(0, Ordering::Relaxed),
        };
        let mut outcomes = BTreeMap::new();
        for (name, counter) in End::NAMES.iter().zip(&self.outcomes) {
            match take(counter) {
                0 => {}
                count => {
                    outcomes.insert((*name).to_owned(), count);
                }
            }
        }
        let sums = Sums {
            outcomes,
            cpu_us: take(&self.cpu_us),
            wall_us: take(&self.wall_us),
            memory_kib_ms: take(&self.memory_kib_ms),
            fetches: take(&self.fetches),
            bytes_in: take(&self.bytes_in),
            bytes_out: take(&self.bytes_out),
        };
        (sums != Sums::default()).then_some(sums)
    }
}

// === impl UsageBook ===

impl UsageBook {
    /// A book that nobody reads, for an edge without a control plane.
    #[must_use]
    pub fn unread() -> UsageBook {
        UsageBook { is_unread: true, ..UsageBook::default() }
    }

    /// The counters of a version of a handler.
    #[must_use]
    pub fn counters(&self, site: &Arc<str>, handler: &Arc<str>, version: u64) -> Arc<Counters> {
        let mut entries = self.entries.lock();
        if self.is_unread {
            entries.retain(|_, counters| Arc::strong_count(counters) > 1);
        }
        let key = (Arc::clone(site), Arc::clone(handler), version);
        Arc::clone(entries.entry(key).or_default())
    }

    /// Takes out everything that was counted since the last time.
    #[must_use]
    pub fn take(&self) -> Vec<Used> {
        let mut all = Vec::new();
        self.entries.lock().retain(|(site, handler, version), counters| {
            // Looked at first: whoever may still count holds a reference, and new ones are given
            // out under this lock alone.
            let is_held = Arc::strong_count(counters) > 1;
            if let Some(sums) = counters.take() {
                let (site, handler) = (Arc::clone(site), Arc::clone(handler));
                all.push(Used { site, handler, version: *version, sums });
            }
            is_held
        });
        all
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use verge_handlers::Ended;

    fn usage() -> Usage {
        Usage {
            cpu: Duration::from_micros(700),
            wall: Duration::from_millis(2),
            peak_memory: 3 << 20,
            fetches: 2,
            bytes_in: 10,
            bytes_out: 100,
            ..Usage::default()
        }
    }

    #[test]
    fn what_is_added_is_taken_out_once() {
        let book = UsageBook::default();
        let counters = book.counters(&"shop".into(), &"greet".into(), 7);
        counters.add(&End::Responded, &usage());
        counters.add(&End::Responded, &usage());
        counters.add(&End::Failed(Ended::NoResponse), &usage());
        let used = book.take();
        assert_eq!(used.len(), 1);
        let sums = &used[0].sums;
        assert_eq!((&*used[0].site, &*used[0].handler, used[0].version), ("shop", "greet", 7));
        assert_eq!(sums.outcomes["responded"], 2);
        assert_eq!(sums.outcomes["no_response"], 1);
        assert_eq!((sums.cpu_us, sums.wall_us, sums.fetches), (2_100, 6_000, 6));
        assert_eq!((sums.memory_kib_ms, sums.bytes_in, sums.bytes_out), (3 * 2 * 3_072, 30, 300));
        assert_eq!(book.take(), []);
    }

    #[test]
    fn what_ends_after_its_version_is_counted_and_then_forgotten() {
        let book = UsageBook::default();
        let counters = book.counters(&"shop".into(), &"greet".into(), 1);
        assert_eq!(book.take(), []);
        counters.add(&End::Cancelled, &usage());
        drop(counters);
        assert_eq!(book.take().len(), 1);
        assert!(book.entries.lock().is_empty());
    }

    #[test]
    fn a_book_that_nobody_reads_does_not_grow() {
        let book = UsageBook::unread();
        for version in 0..100 {
            book.counters(&"shop".into(), &"greet".into(), version).add(&End::Responded, &usage());
        }
        assert_eq!(book.entries.lock().len(), 1);
    }

    #[test]
    fn nothing_is_lost_between_two_threads() {
        let book = Arc::new(UsageBook::default());
        let counters = book.counters(&"shop".into(), &"greet".into(), 1);
        let adding = std::thread::spawn(move || {
            for _ in 0..50_000 {
                counters.add(&End::Responded, &usage());
            }
        });
        let mut all = Sums::default();
        while !adding.is_finished() {
            book.take().iter().for_each(|used| all.add(&used.sums));
        }
        adding.join().unwrap();
        book.take().iter().for_each(|used| all.add(&used.sums));
        assert_eq!((all.requests(), all.cpu_us), (50_000, 50_000 * 700));
        assert_eq!((all.bytes_in, all.bytes_out, all.fetches), (500_000, 5_000_000, 100_000));
    }
}
