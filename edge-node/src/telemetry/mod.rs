//! What the edge tells of itself: counters, logs and the access log. Never blocks the data path and
//! never carries what visitors choose as a label.

mod access;
mod lines;
mod logging;
mod metrics;

pub(crate) use access::outcome_name;
pub use access::{Access, access_enabled, log_access};
pub use logging::{LogFormat, LogGuard, LogOptions, init_logging};
pub use metrics::{Destination, Handlers, InFlight, Metrics, metrics};
