//! Previews: versions of a site that are not active, reached by whoever holds a token. What edges are told
//! of them, and the names that visitors' requests carry. Values only.

use crate::revision::Revision;
use crate::site::SiteDocument;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The most previews of a site at a time; each has a slot below this.
pub const MAX_PREVIEWS: usize = 5;
/// How long a preview lasts when nothing else is asked for.
pub const DEFAULT_TTL: Duration = Duration::from_secs(86_400);
/// How long it may last.
pub const MAX_TTL: Duration = Duration::from_secs(7 * 86_400);
/// The field of a request that carries a token, and of a response of a preview that says its version.
pub const FIELD: &str = "verge-preview";
/// The cookie that carries it as well.
pub const COOKIE: &str = "verge-preview";
/// Where a browser exchanges `?token=` for the cookie, on every host of the site.
pub const PATH: &str = "/__verge/preview";
/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 256;

/// A line of the feed: all previews of a site from a revision on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Previews {
    /// The revision.
    pub revision: Revision,
    /// The site.
    pub site: String,
    /// All that there are, at most [`MAX_PREVIEWS`].
    pub previews: Vec<Preview>,
}

/// One preview, with all that is needed to serve it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// Its id.
    pub id: String,
    /// Which of the site's slots it has, and so what its stored responses are kept under: they are
    /// dropped before another preview gets the slot.
    pub slot: u8,
    /// The version.
    pub version: u64,
    /// SHA-256 of the token, in hexadecimal.
    pub token_sha256: String,
    /// When it ends: milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// The version's document, with components by digest.
    pub document: Arc<SiteDocument>,
}

/// The name under which a preview's responses are stored: never a site's, whose names have no `@`.
#[must_use]
pub fn namespace(site: &str, slot: u8) -> String {
    format!("{site}@{slot}")
}

/// The site that a namespace, or a site's own name, belongs to.
#[must_use]
pub fn site_of(namespace: &str) -> &str {
    namespace.split('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_no_name_of_a_site() {
        assert_eq!(namespace("shop", 4), "shop@4");
        assert_eq!((site_of("shop@4"), site_of("shop")), ("shop", "shop"));
    }
}
