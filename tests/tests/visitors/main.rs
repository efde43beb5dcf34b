//! One edge, or a few, as visitors and operators meet them. One binary: each links the whole harness.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod attacks;
mod bad_input;
mod connections;
mod debugging;
mod dry_run;
mod first_light;
mod harness;
mod interim;
mod operations;
mod protocols;
mod routes;
mod slow_visitors;
mod standalone;
mod tunnels;
