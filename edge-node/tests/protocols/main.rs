//! HTTP towards visitors, each version as its clients speak it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;
mod http1;
mod http2;
