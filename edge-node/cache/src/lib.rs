//! The HTTP cache by itself: what is stored, for how long it is fresh, who waits for whom, and what a
//! purge does to it. Knows no pingora, no sites and no sockets; it fetches from a [`Source`].

mod api;
mod cache;
pub mod cache_status;
mod clock;
pub mod conditional;
pub mod date;
pub mod directives;
mod error;
mod explain;
mod fetch;
mod fill;
mod flights;
pub mod freshness;
pub mod key;
mod lookup;
mod object;
pub mod purge_index;
pub mod range;
mod respond;
mod serve;
mod site;
mod stats;
mod store;
pub mod structured;
pub mod tags;
pub mod vary;

pub use api::*;
pub use cache::{Cache, Hit, Settings};
pub use clock::{Clock, ManualClock, Now};
pub use error::{BodyError, CacheError};
pub use explain::{Explanation, State};
pub use object::{Epoch, StoredObject};
pub use stats::Stats;
