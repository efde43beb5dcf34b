//! The vocabulary that the edge and the control plane share: sites, purges, revisions, the feed and
//! the files of both processes. Pure values; this crate may not touch sockets, files or a runtime.

pub mod api;
mod check;
pub mod component;
pub mod fault;
pub mod feed;
pub mod kv;
pub mod preview;
pub mod process;
pub mod purge;
pub mod read;
pub mod revision;
pub mod seal;
pub mod secrets;
pub mod site;
pub mod tail;
pub mod units;
pub mod usage;

pub use fault::{Fault, Faults};
pub use purge::{Mode, PurgeRequest, Selector};
pub use revision::Revision;
pub use site::Site;
