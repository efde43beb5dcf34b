//! A model of purges racing with fills and lookups: the real site state and purge index under every order
//! of steps that a scheduler comes upon; only the store and the source are stand-ins.
//! Nothing but `tests/model` runs it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::key::Key;
use crate::purge_index::Verdict;
use crate::site::{Purgeable, SiteState};
use crate::sync::{AtomicU64, Mutex, Ordering};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, thread};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use verge_config::Revision;
use verge_config::purge::{Mode, Selector};

/// Schedules of each model and each scheduler; eight runs of them are over a million.
const SCHEDULES: usize = 126_000;

/// A stored response: which version of the content it is, and what purges look at.
#[derive(Debug)]
struct Stored {
    version: u64,
    applied: u64,
    tags: [Box<str>; 1],
    checked: AtomicU64,
}

/// One URL, from the source to the store.
struct World {
    site: Arc<SiteState>,
    key: Key,
    /// The version that the source has.
    source: AtomicU64,
    /// The version that every lookup from now on must have at least: raised when a purge has returned.
    least: AtomicU64,
    store: Mutex<Option<Arc<Stored>>>,
}

/// How a fill goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// As the cache does: the epoch is noted before the source is asked.
    Real,
    /// Wrong: noted when the answer is there.
    LateEpoch,
}

/// How a lookup goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// As the cache does.
    Real,
    /// Wrong: without asking the purges.
    Trusting,
}

impl Purgeable for Stored {
    fn tags(&self) -> &[Box<str>] {
        &self.tags
    }

    fn applied(&self) -> u64 {
        self.applied
    }

    fn is_checked(&self, applied: u64) -> bool {
        self.checked.load(Ordering::Relaxed) == applied
    }

    fn set_checked(&self, applied: u64) {
        self.checked.store(applied, Ordering::Relaxed);
    }
}

impl World {
    fn new() -> Arc<World> {
        Arc::new(World {
            site: SiteState::new(Revision::ZERO),
            key: Key::at("/a/b"),
            source: AtomicU64::new(0),
            least: AtomicU64::new(0),
            store: Mutex::new(None),
        })
    }

    fn fill(&self, how: Fill) {
        let early = (how == Fill::Real).then(|| self.site.hold(None));
        let version = self.source.load(Ordering::SeqCst);
        let (epoch, guard) = early.unwrap_or_else(|| self.site.hold(None));
        let (tags, checked) = (["t".into()], AtomicU64::new(epoch.applied));
        let copy = Arc::new(Stored { version, applied: epoch.applied, tags, checked });
        // As the store does: the purges are asked again under its lock, and what is newer stays.
        let mut store = self.store.lock();
        let outdated = store.as_ref().is_some_and(|present| present.applied > copy.applied);
        if !outdated && self.site.weigh(&self.key, &*copy) != Verdict::Dead {
            *store = Some(copy);
        }
        drop(store);
        drop(guard);
    }

    fn change_and_purge(&self, version: u64, selector: &Selector, mode: Mode) {
        self.source.store(version, Ordering::SeqCst);
        let selectors = std::slice::from_ref(selector);
        self.site.purge(selectors, mode, Revision(version), 7);
        self.least.fetch_max(version, Ordering::SeqCst);
    }

    fn look(&self, how: Look) {
        let least = self.least.load(Ordering::SeqCst);
        let Some(copy) = self.store.lock().clone() else { return };
        let alive = how == Look::Trusting || self.site.weigh(&self.key, &*copy) == Verdict::Alive;
        assert!(!alive || copy.version >= least, "stale: {} after {least}", copy.version);
    }
}

/// A fill, three purges and three lookups at once.
fn race(fill: Fill, look: Look, selector: &Selector, mode: Mode) {
    let world = World::new();
    world.fill(Fill::Real);
    let filler = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.fill(fill))
    };
    let purger = {
        let (world, selector) = (Arc::clone(&world), selector.clone());
        thread::spawn(move || {
            // One that selects something else: what is stored is asked about again, and found alive.
            let other = Selector::Tag("other".into());
            world.site.purge(&[other], mode, Revision(1), 7);
            for version in 1..=2 {
                world.change_and_purge(version, &selector, mode);
            }
        })
    };
    world.look(look);
    world.look(look);
    filler.join().unwrap();
    purger.join().unwrap();
    world.look(look);
}

fn run(
    scheduler: impl Scheduler + 'static,
    fill: Fill,
    look: Look,
    selector: Selector,
    mode: Mode,
) -> usize {
    let runner = Runner::new(scheduler, Config::default());
    runner.run(move || race(fill, look, &selector, mode))
}

/// Runs every way in which a purge selects, under random schedules and under those that look for rare orders;
/// tells how many there were.
///
/// # Panics
/// When a lookup after a purge is served what was fetched before it.
#[must_use]
pub fn race_purges_and_fills() -> usize {
    let models = [
        (Selector::Url("https://h/a/b".into()), Mode::Hard),
        (Selector::Tag("t".into()), Mode::Soft),
        (Selector::Prefix("/a/".into()), Mode::Hard),
        (Selector::Everything(true), Mode::Soft),
    ];
    std::thread::scope(|scope| {
        let random = scope.spawn(|| {
            let run = |(seed, (selector, mode)): (u64, &(Selector, Mode))| {
                let scheduler = RandomScheduler::new_from_seed(seed, SCHEDULES);
                run(scheduler, Fill::Real, Look::Real, selector.clone(), *mode)
            };
            (1..).zip(&models).map(run).sum::<usize>()
        });
        let rare = scope.spawn(|| {
            let run = |(seed, (selector, mode)): (u64, &(Selector, Mode))| {
                let scheduler = PctScheduler::new_from_seed(seed, 3, SCHEDULES);
                run(scheduler, Fill::Real, Look::Real, selector.clone(), *mode)
            };
            (1..).zip(&models).map(run).sum::<usize>()
        });
        random.join().unwrap() + rare.join().unwrap()
    })
}

/// The controls: whether schedules show that an epoch is noted too late, and that a lookup does not ask.
#[must_use]
pub fn faults_are_found() -> [bool; 2] {
    [(Fill::LateEpoch, Look::Real), (Fill::Real, Look::Trusting)].map(|(fill, look)| {
        let found = catch_unwind(AssertUnwindSafe(|| {
            let scheduler = RandomScheduler::new_from_seed(1, SCHEDULES);
            run(scheduler, fill, look, Selector::Everything(true), Mode::Hard)
        }));
        found.is_err()
    })
}
