//! What the edge keeps beside each handler so that one tenant's fault stays that tenant's: a gate for
//! the site, a breaker for the handler, and what it has used. Knows no protocol and no cache.

mod breaker;
mod fuse;
mod gate;
mod usage;
mod visit;

pub use fuse::{Fuse, Ticket};
pub use gate::{Behind, Busy, Gate, Place};
pub use usage::{Counters, UsageBook, Used};
pub use visit::{MAX_RUNS, NoRun, Visit};

use std::sync::Arc;
use verge_config::site;
use verge_handlers::Handler;

/// A handler of a site as it is in force: ready to be called, and watched.
#[derive(Debug)]
pub struct Runner {
    /// The handler.
    pub handler: Handler,
    /// Its breaker.
    pub fuse: Arc<Fuse>,
    /// What it has used.
    pub usage: Arc<Counters>,
    spec: Arc<site::Handler>,
}

// === impl Runner ===

impl Runner {
    /// A handler comes into force. The breaker of the one before stays if it is the same handler,
    /// component and all; any other begins with a breaker that is closed.
    #[must_use]
    pub fn new(
        handler: Handler,
        spec: &Arc<site::Handler>,
        usage: Arc<Counters>,
        previous: Option<&Arc<Runner>>,
    ) -> Runner {
        let same = previous.filter(|previous| {
            previous.handler.component().digest() == handler.component().digest()
                && *previous.spec == **spec
        });
        let fuse = same.map_or_else(
            || Arc::new(Fuse::new(handler.site(), &spec.name, spec.breaker)),
            |same| Arc::clone(&same.fuse),
        );
        Runner { handler, fuse, usage, spec: Arc::clone(spec) }
    }

    /// What the site says of it.
    #[must_use]
    pub fn spec(&self) -> &Arc<site::Handler> {
        &self.spec
    }
}
