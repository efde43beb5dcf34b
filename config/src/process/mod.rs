//! The files that configure the two processes: `edge.toml` and `control.toml`. Values only: whoever
//! runs a process opens the files that are named here.

pub mod control;
pub mod edge;

use std::fmt;
use zeroize::Zeroize;

/// The longest process file, in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;

/// A text that may be in no log: its `Debug` says nothing of it, and its memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}
