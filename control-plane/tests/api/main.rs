//! The API of a real control plane over sockets and a real store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines
)]

mod access;
mod binary;
mod blobs;
mod crash;
mod feed;
#[allow(dead_code, reason = "the other tests use the rest of it")]
mod harness;
mod keys;
mod kv;
mod limits;
mod previews;
mod purges;
mod questions;
mod secrets;
mod sites;
mod tails;
mod usage;
