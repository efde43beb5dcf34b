//! Advances the engines' epochs from a thread of the operating system, so that guests are interrupted
//! even when every worker of the runtime spins. It sleeps for good while no guest runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// Ticks without a running guest after which the thread parks.
const IDLE_TICKS: u32 = 1000;

/// The thread, stopped when this is dropped.
pub(crate) struct Ticker {
    state: Arc<State>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    active: AtomicBool,
    parked: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    pub(crate) fn start(engines: Vec<Engine>, period: Duration) -> io::Result<Ticker> {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let handle = thread::Builder::new()
            .name("verge-epoch".into())
            .spawn(move || run(&engines, &shared, period))?;
        Ok(Ticker { state, thread: handle.thread().clone(), handle: Some(handle) })
    }

    /// Says that a guest is about to run.
    pub(crate) fn touch(&self) {
        // Sequentially consistent against `run`: either it sees the guest, or this sees it parked.
        if self.state.active.load(Ordering::SeqCst) {
            return;
        }
        self.state.active.store(true, Ordering::SeqCst);
        if self.state.parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

fn run(engines: &[Engine], state: &State, period: Duration) {
    let mut idle = 0;
    while !state.stop.load(Ordering::SeqCst) {
        thread::sleep(period);
        engines.iter().for_each(Engine::increment_epoch);
        idle = if state.active.swap(false, Ordering::SeqCst) { 0 } else { idle + 1 };
        if idle < IDLE_TICKS {
            continue;
        }
        state.parked.store(true, Ordering::SeqCst);
        while state.parked.load(Ordering::SeqCst)
            && !state.active.load(Ordering::SeqCst)
            && !state.stop.load(Ordering::SeqCst)
        {
            thread::park();
        }
        state.parked.store(false, Ordering::SeqCst);
        idle = 0;
    }
}
