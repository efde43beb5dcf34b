//! The edge: takes requests, answers them from the cache, a handler or an origin, and follows the
//! control plane without ever depending on it.

pub mod admin;
pub mod body;
pub mod origin;
pub mod telemetry;
pub mod admit;
pub mod front;
pub mod listen;
pub mod respond;
pub mod routing;
pub mod serve;
pub mod snapshot;
