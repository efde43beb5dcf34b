//! Instances between two requests, where the contract lets an instance serve more than one. Each goes back
//! to the handler that it was made for and to no other; few are kept, of little memory, and not for long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wasmtime::Store;
use wasmtime_wasi_http::p3::bindings::Service;

use crate::guest::State;

/// The most instances that wait, of all handlers.
pub(crate) const MAX_INSTANCES: u32 = 256;
/// The most memory of all that wait, in bytes.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// How long one waits.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A guest's store and what is in it.
pub(crate) struct Instance {
    pub(crate) store: Store<State>,
    /// The component's instance, once there is one and where it may serve again.
    pub(crate) service: Option<Service>,
    /// The requests that were given to it.
    pub(crate) served: u32,
}

/// The instances that wait.
#[derive(Default)]
pub(crate) struct Idle {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Who has waited longest comes first.
    instances: VecDeque<Kept>,
    bytes: u64,
}

struct Kept {
    owner: u64,
    since: Instant,
    bytes: u64,
    instance: Instance,
}

impl Instance {
    /// A store in which nothing runs yet.
    pub(crate) fn new(store: Store<State>) -> Instance {
        Instance { store, service: None, served: 0 }
    }
}

impl Idle {
    /// The owner's instance that has waited for the shortest time.
    pub(crate) fn take(&self, owner: u64) -> Option<Instance> {
        let mut waiting = self.waiting.lock();
        let last = waiting.instances.iter().rposition(|kept| kept.owner == owner)?;
        let kept = waiting.instances.remove(last)?;
        waiting.bytes = waiting.bytes.saturating_sub(kept.bytes);
        Some(kept.instance)
    }

    /// Keeps an instance for its owner's next request; who has waited longest goes, where it is too much.
    pub(crate) fn put(&self, owner: u64, instance: Instance) {
        let bytes = instance.store.data().memory();
        let since = Instant::now();
        let mut gone = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            waiting.instances.push_back(Kept { owner, since, bytes, instance });
            waiting.bytes = waiting.bytes.saturating_add(bytes);
            while waiting.is_too_much(since) {
                let Some(oldest) = waiting.instances.pop_front() else { break };
                waiting.bytes = waiting.bytes.saturating_sub(oldest.bytes);
                gone.push(oldest);
            }
        }
        // Outside the lock: giving an instance up takes longer than a request's look here.
        drop(gone);
    }
}

impl Waiting {
    fn is_too_much(&self, now: Instant) -> bool {
        self.instances.len() > MAX_INSTANCES as usize
            || self.bytes > MAX_BYTES
            || self.instances.front().is_some_and(|kept| now - kept.since > MAX_WAIT)
    }
}
