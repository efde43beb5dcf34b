//! A guest that runs: driven by whoever waits for its answer, in that one's own task, with its clock
//! stopped while it waits. Decides how it ended, and says so exactly once.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep};
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::FieldMapError;

use crate::guest::{Call, OutOfCpu};
use crate::idle::Instance;
use crate::outcome::{End, Ended, brief};
use crate::sandbox::Runtime;
use crate::settings::limits;

/// What is told of a function's name, in bytes: names are the component's to choose.
const NAME_BYTES: usize = 200;

/// The call of a guest's handler. It gives the instance back, so that what the guest left in it can be
/// told from what went away with it.
pub(crate) type Guest = Pin<Box<dyn Future<Output = (Instance, wasmtime::Result<()>)> + Send>>;

/// A running guest. Dropping it stops the guest.
pub(crate) struct Running {
    guest: Option<Guest>,
    instance: Option<Instance>,
    /// Whose further requests the instance may serve.
    again: Option<u64>,
    failed: Option<Ended>,
    is_reported: bool,
    /// The response has no content, whatever length it says (RFC 9110 section 9.3.2).
    is_head: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    pub(crate) call: Arc<Call>,
    slot: Slot,
}

impl Running {
    pub(crate) fn new(guest: Guest, call: Arc<Call>, slot: Slot, again: Option<u64>) -> Running {
        Running {
            guest: Some(guest),
            instance: None,
            again,
            failed: None,
            is_reported: false,
            is_head: false,
            sleep: None,
            call,
            slot,
        }
    }

    /// Lets the guest run until it waits for something. Ready when it has ended, however it did.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(guest) = self.guest.as_mut() else { return Poll::Ready(()) };
        self.call.begin_turn();
        let polled = guest.as_mut().poll(context);
        self.call.end_turn();
        if let Poll::Ready((instance, result)) = polled {
            self.guest = None;
            self.instance = Some(instance);
            self.failed = result.err().map(|error| self.classify(&error));
            return Poll::Ready(());
        }
        // Only a guest that waits needs the timer; most requests never set one.
        let deadline = self.call.deadline();
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::from_std(deadline))));
        if sleep.as_mut().poll(context).is_ready() {
            self.guest = None;
            self.failed = Some(Ended::TimedOut(self.call.limits.wall));
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Whether the guest has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.guest.is_none()
    }

    /// How the guest failed, when it did.
    pub(crate) fn failure(&self) -> Option<&Ended> {
        self.failed.as_ref()
    }

    /// Whether the guest was stopped, and everything it held went away with it: its content seems to
    /// end then, and does not.
    pub(crate) fn was_stopped(&self) -> bool {
        matches!(self.failed, Some(Ended::TimedOut(_)))
    }

    /// Gives up what an ended guest left in its instance; says whether there was one.
    pub(crate) fn drop_instance(&mut self) -> bool {
        self.instance.take().is_some()
    }

    /// The request has failed: stops the guest and says so. Gives what to tell the reader.
    pub(crate) fn fail(&mut self, ended: Ended) -> Ended {
        let ended = self.failed.take().unwrap_or(ended);
        let ended = self.blame_memory(ended);
        self.guest = None;
        self.instance = None;
        self.report(&End::Failed(ended.clone()));
        ended
    }

    /// The response to a HEAD request is whole. Libraries that pass on the length of content that there is
    /// none of take it for a promise that is broken, and panic: that is no fault of the handler.
    pub(crate) fn complete_head(mut self) {
        self.is_head = true;
        self.complete();
    }

    /// The response is whole. A guest that still runs goes on by itself, within the same limits.
    pub(crate) fn complete(mut self) {
        self.call.set_read();
        // It may have waited for nothing but that.
        let waits_for_more = self.poll(&mut Context::from_waker(Waker::noop())).is_pending();
        if !waits_for_more {
            return self.settle();
        }
        // Without a runtime there is nobody to drive it: it is stopped, which is what dropping does.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                std::future::poll_fn(|context| self.poll(context)).await;
                self.settle();
            });
        }
    }

    fn settle(mut self) {
        let end = match self.failed.take() {
            Some(Ended::Trapped { .. }) if self.is_head => {
                self.instance = None;
                End::Responded
            }
            failed => failed.map_or(End::Responded, End::Failed),
        };
        self.report(&end);
        if let (Some(owner), Some(instance), End::Responded) =
            (self.again, self.instance.take(), end)
            && instance.served < self.call.limits.requests
        {
            self.slot.runtime.idle.put(owner, instance);
        }
    }

    fn report(&mut self, end: &End) {
        if !std::mem::replace(&mut self.is_reported, true) {
            self.call.report(end);
        }
    }

    /// A guest that was refused memory and then failed by itself failed for want of it.
    fn blame_memory(&self, ended: Ended) -> Ended {
        match ended {
            Ended::Trapped { .. }
            | Ended::NoResponse
            | Ended::GuestError(_)
            | Ended::Exited(_)
            | Ended::Incomplete
                if self.call.was_refused_memory() =>
            {
                Ended::OutOfMemory(self.call.limits.memory)
            }
            other => other,
        }
    }

    fn classify(&self, error: &wasmtime::Error) -> Ended {
        let ended = if error.is::<OutOfCpu>() {
            Ended::OutOfCpu(self.call.limits.cpu)
        } else if let Some(exit) = error.downcast_ref::<I32Exit>() {
            Ended::Exited(exit.0)
        } else if error.is::<PoolConcurrencyLimitError>() {
            Ended::InstanceLimit(self.call.max_instances())
        } else if error.is::<FieldMapError>() {
            Ended::HeadTooLarge(format!(
                "{} (limit {} bytes)",
                error.root_cause(),
                limits::FIELDS_BYTES
            ))
        } else {
            let reason = match error.downcast_ref::<Trap>() {
                Some(trap) => trap.to_string(),
                None => error.root_cause().to_string(),
            };
            let reason = brief(&reason, limits::REASON_BYTES).into_owned();
            Ended::Trapped { reason, backtrace: backtrace(error) }
        };
        self.blame_memory(ended)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.guest = None;
        self.report(&End::Cancelled);
    }
}

/// The guest's frames, innermost first.
fn backtrace(error: &wasmtime::Error) -> String {
    let Some(frames) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let mut text = String::new();
    for (n, frame) in frames.frames().iter().enumerate() {
        let name = brief(frame.func_name().unwrap_or("?"), NAME_BYTES);
        let line_end = if n == 0 { "" } else { "\n" };
        let _ = write!(text, "{line_end}{n:>3}: {name}");
    }
    text
}

/// A share of the edge's instances, taken until this is dropped.
pub(crate) struct Slot {
    runtime: Arc<Runtime>,
    weight: u32,
}

impl Slot {
    /// An instance of a component of this weight, when that much is free.
    pub(crate) fn take(runtime: &Arc<Runtime>, weight: u32) -> Option<Slot> {
        let most = runtime.max_instances;
        let take = |running: u32| running.checked_add(weight).filter(|running| *running <= most);
        runtime.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(Slot { runtime: Arc::clone(runtime), weight })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.runtime.running.fetch_sub(self.weight, Ordering::AcqRel);
    }
}
