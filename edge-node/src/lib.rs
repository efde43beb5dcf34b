//! The edge: takes requests, answers them from the cache, a handler or an origin, and follows the
//! control plane without ever depending on it.

pub mod body;
