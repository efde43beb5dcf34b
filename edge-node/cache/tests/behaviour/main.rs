//! The cache as an edge uses it, with a scripted source and a clock of its own. In memory, or with
//! everything forced onto disk when `VERGE_CACHE_TIER=disk`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod complete;
mod compress;
mod disk;
mod fills;
mod keys;
mod methods;
mod preview;
mod purge;
mod rfc9111;
mod slices;
mod speed;
