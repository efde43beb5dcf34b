//! The one number that orders everything an edge is told.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A position in the control plane's history. Each committed change takes the next one, so that
/// "is this edge behind, and by how much" is a subtraction and never a comparison of clocks.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first change.
    pub const ZERO: Revision = Revision(0);

    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0.saturating_add(1))
    }

    /// How many changes `self` is behind `head`; zero when it is not behind.
    #[must_use]
    pub fn lag(self, head: Revision) -> u64 {
        head.0.saturating_sub(self.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
