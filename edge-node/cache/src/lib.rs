//! The HTTP cache by itself: what is stored, for how long it is fresh, who waits for whom, and what a
//! purge does to it. Knows no pingora, no sites and no sockets; it fetches from a [`Source`].

mod api;

pub use api::*;
