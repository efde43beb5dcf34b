//! What becomes of the requests of a handler that keeps failing. Plain values.

use std::time::Duration;

/// What visitors get while a handler keeps failing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// An error at once, with the time after which to come again. What the route's cache may use of
    /// what it has (`stale_if_error`) it uses.
    #[default]
    Error,
    /// What the cache before the handler has, even if it is stale; else as [`OnFailure::Error`].
    Stale,
    /// What the route's origin answers.
    Bypass,
}

/// When a handler counts as one that keeps failing: so many of its requests have failed within the
/// window after the first of them, and no more have succeeded meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BreakerLimits {
    /// Failed requests. Default 50.
    pub failures: u32,
    /// From the first of them. Default 30 s.
    pub window: Duration,
}

impl BreakerLimits {
    /// How long what a cache has may stand in for a handler whose `on_failure` is `stale`, where the
    /// route says nothing else.
    pub const STALE: Duration = Duration::from_secs(86_400);
}

impl Default for BreakerLimits {
    fn default() -> Self {
        BreakerLimits { failures: 50, window: Duration::from_secs(30) }
    }
}
