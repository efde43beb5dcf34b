//! An edge as it runs: on a control plane's line, or alone with one site file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod control_link;
mod standalone;
mod support;
