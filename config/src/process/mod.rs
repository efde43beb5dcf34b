//! The files that configure the two processes: `edge.toml` and `control.toml`.

pub mod control;
pub mod edge;
