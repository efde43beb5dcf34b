//! Origins as they are and as they should not be, over real sockets: what the origin room makes of
//! each. Starts no edge; only the room is under test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

#[path = "origin/exchange.rs"]
mod exchange;
#[path = "origin/faults.rs"]
mod faults;
#[path = "origin/forms.rs"]
mod forms;
#[path = "origin/guard.rs"]
mod guard;
#[path = "origin/registry.rs"]
mod registry;
#[path = "origin/support.rs"]
mod support;
#[path = "origin/tls.rs"]
mod tls;
#[path = "origin/upgrade.rs"]
mod upgrade;
