//! Ticks from a thread of the operating system, so that guests are interrupted even when every worker of the
//! runtime spins. It sleeps for good while no guest runs.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Ticks without a running guest after which the thread parks.
const IDLE_TICKS: u32 = 1000;
/// How many times more often it ticks while a guest runs for long: others then wait for less.
const HURRY: u32 = 10;
/// For how many of these: others may run in between for longer than a few.
const HURRIED_TICKS: u32 = 200;
/// How much later than asked for this thread may wake, in nanoseconds. The system's own is half of a
/// hurried tick.
const SLACK: NonZeroU64 = NonZeroU64::MIN;

/// The thread, stopped when this is dropped.
pub(crate) struct Ticker {
    state: Arc<State>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    active: AtomicBool,
    hurried: AtomicBool,
    parked: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    pub(crate) fn start(
        period: Duration,
        on_tick: impl Fn() + Send + 'static,
    ) -> io::Result<Ticker> {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let handle = thread::Builder::new()
            .name("verge-epoch".into())
            .spawn(move || run(&on_tick, &shared, period))?;
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

    /// Says that a guest runs for long.
    pub(crate) fn hurry(&self) {
        self.state.hurried.store(true, Ordering::Relaxed);
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

/// Asks the system to wake this thread when it is due, and at once, though another runs on the same CPU:
/// that one would go on for milliseconds otherwise. Where it is refused, since it is a privilege, ticks come
/// later.
fn be_on_time() {
    let _ = rustix::thread::set_current_timer_slack(Some(SLACK));
    let first_in_first_out = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let (this, lowest) = (thread_native_id(), ThreadPriority::Min);
    if let Err(error) = set_thread_priority_and_policy(this, lowest, first_in_first_out) {
        tracing::debug!(%error, "the epochs' thread has no priority: guests are interrupted late");
    }
}

fn run(on_tick: &impl Fn(), state: &State, period: Duration) {
    be_on_time();
    let (mut idle, mut hurried) = (0, 0u32);
    while !state.stop.load(Ordering::SeqCst) {
        if state.hurried.swap(false, Ordering::Relaxed) {
            hurried = HURRIED_TICKS;
        }
        thread::sleep(if hurried > 0 { period / HURRY } else { period });
        hurried = hurried.saturating_sub(1);
        on_tick();
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
