//! The control link: brings what the control plane (or one site file) says into force, keeps it on
//! disk, and tells how far it is. The data path never waits for anything in here; nothing in here
//! may answer a visitor.
//!
//! In a fleet: [`Fleet::open`] puts the last good state in force before the edge listens, and
//! [`Fleet::run`] follows the feed. Alone: [`Standalone`] does the same with a site file.
//!
//! One line of the feed goes verify → parse → build → swap → persist → acknowledge, in the order of
//! the revisions. What cannot be built is refused with its reason and the last good version stays.

mod ahead;
mod apply;
mod backoff;
mod blobs;
mod build;
mod client;
mod events;
mod feed;
mod fleet;
mod kv;
mod last_good;
mod local;
mod persist;
mod previews;
mod purge_log;
mod questions;
mod record;
mod report;
mod secrets;
mod session;
mod standalone;
mod status;
mod unreadable;
mod usage;
mod vault;
mod watch;

pub use build::{BuildError, Builder, ComponentError, Components};
pub use client::ClientError;
pub use fleet::{Fleet, FleetError, FleetSettings};
pub use last_good::StateError;
pub use local::{LocalPurge, LocalPurges};
pub use purge_log::{PastPurge, PurgeLog};
pub use questions::Witness;
pub use standalone::{Standalone, StandaloneError};
pub use status::{LinkStatus, LinkView};
pub use usage::UsageReporter;

use verge_config::Revision;
use verge_config::purge::Purge;

/// What purges work on: the cache, and in tests something that remembers their order.
pub trait PurgeSink: Send + Sync + 'static {
    /// Brings a purge into force and tells how many live objects it matched.
    fn purge(&self, purge: &Purge) -> u64;
    /// Forgets everything that began before now: what was missed can no longer be told. `revision`
    /// is the newest one of the history that counts from here on.
    fn flush(&self, revision: Revision);
}

impl PurgeSink for verge_cache::Cache {
    fn purge(&self, purge: &Purge) -> u64 {
        verge_cache::Cache::purge(self, purge)
    }

    fn flush(&self, revision: Revision) {
        verge_cache::Cache::flush(self, revision);
    }
}
