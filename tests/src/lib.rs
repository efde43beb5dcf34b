//! The harness of the whole-system tests: starts the real binaries, scripts the origins behind them
//! and speaks to them over sockets. It may not import any of the crates under test.

// A harness that cannot go on is a test that fails: it says so and stops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

pub mod bridge;
pub mod control;
pub mod countries;
pub mod edge;
pub mod generated;
pub mod http1;
pub mod http2;
pub mod lines;
pub mod origin;
pub mod process;
pub mod reply;
pub mod script;
pub mod site;
pub mod static_files;
pub mod suite;
pub mod tls;
pub mod wait;

pub use bridge::Bridge;
pub use control::Control;
pub use edge::Edge;
pub use generated::Generated;
pub use http1::Http1;
pub use http2::Http2;
pub use lines::Lines;
pub use origin::{Gate, Origin, answer};
pub use reply::Reply;
pub use script::{Script, Turn};
pub use wait::until;
