//! The edge: takes requests, answers them from the cache, a handler or an origin, and follows the
//! control plane without ever depending on it.

pub mod admin;
pub mod admit;
pub mod body;
pub mod control_link;
pub mod countries;
pub mod front;
pub mod handlers;
pub mod kv;
pub mod listen;
pub mod origin;
pub mod previews;
pub mod respond;
pub mod routing;
mod run;
pub mod secrets;
pub mod serve;
pub mod snapshot;
pub mod tail;
pub mod telemetry;

pub use run::{Addresses, Options, RunError, run, run_with};
