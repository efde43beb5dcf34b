//! The handlers of a route, in the order in which a request comes to them. Plain values.

use super::Handler;
use std::sync::Arc;

/// The most handlers of a route.
pub const MAX_CHAIN: usize = 8;

/// The handlers of a route: the first gets the visitor's request, each other one what the one before it
/// asks of its own site. There is at least one; a clone shares them.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    name: Arc<str>,
    handlers: Arc<[Arc<Handler>]>,
}

impl Chain {
    /// These handlers in this order; `None` without any.
    #[must_use]
    pub fn new(handlers: Vec<Arc<Handler>>) -> Option<Chain> {
        let name = match handlers.as_slice() {
            [] => return None,
            [alone] => Arc::clone(&alone.name),
            several => several.iter().map(|one| &*one.name).collect::<Vec<_>>().join(">").into(),
        };
        Some(Chain { name, handlers: handlers.into() })
    }

    /// The handler's name, or all of them: `auth>rewrite`.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// All of them, in order.
    #[must_use]
    pub fn handlers(&self) -> &[Arc<Handler>] {
        &self.handlers
    }

    /// The one that gets the visitor's request.
    #[must_use]
    pub fn first(&self) -> Option<&Arc<Handler>> {
        self.handlers.first()
    }

    /// The one that has no other behind it.
    #[must_use]
    pub fn last(&self) -> Option<&Arc<Handler>> {
        self.handlers.last()
    }
}
