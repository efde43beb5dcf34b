//! What a handler has only where its site grants it. Values only.

/// A capability that a site grants to a handler by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grant {
    /// `verge:edge/cache`: values of its own in the edge's cache, and purges of the site's tags.
    Cache,
    /// `verge:edge/client`: who asks.
    Client,
    /// `wasi:keyvalue`: the site's key-value store.
    KeyValue,
    /// `verge:edge/secrets`: the site's secrets.
    Secrets,
}

impl Grant {
    /// All of them.
    pub const ALL: [Grant; 4] = [Grant::Cache, Grant::Client, Grant::KeyValue, Grant::Secrets];

    /// Its name in the site file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Grant::Cache => "cache",
            Grant::Client => "client",
            Grant::KeyValue => "keyvalue",
            Grant::Secrets => "secrets",
        }
    }
}
