//! Handlers on a fleet: what they have of it, and what the fleet says of them. One binary: each links the
//! whole harness.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod chains;
mod handlers;
mod kv;
mod preview;
mod secrets;
mod tail;
mod usage;
