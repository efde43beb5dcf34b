//! The name of a site with its share of a key's hash: among ten thousand sites, a hit that had to read the
//! name would wait for memory.

use ahash::RandomState;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

/// A site's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteName {
    text: Arc<str>,
    hash: u64,
}

/// A name's share of its keys' hashes: the same for equal names in one process, and not to be guessed, so
/// that nobody chooses a name for the hash of another's.
#[must_use]
pub fn hash(name: &str) -> u64 {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    STATE.hash_one(name)
}

// === impl SiteName ===

impl SiteName {
    /// Its share of its keys' hashes.
    #[must_use]
    pub fn key_hash(&self) -> u64 {
        self.hash
    }
}

impl From<Arc<str>> for SiteName {
    fn from(text: Arc<str>) -> SiteName {
        let hash = hash(&text);
        SiteName { text, hash }
    }
}

impl From<&str> for SiteName {
    fn from(text: &str) -> SiteName {
        Arc::<str>::from(text).into()
    }
}

impl Deref for SiteName {
    type Target = Arc<str>;

    fn deref(&self) -> &Arc<str> {
        &self.text
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
