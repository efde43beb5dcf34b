//! From a document to a site: every fault at once, each with its place.

use super::{Site, SiteDocument};
use crate::Faults;

/// Where a site is to run, which decides what it may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// A standalone edge: `*` as a domain and components by path are allowed.
    Standalone,
    /// A fleet: real domains, components by digest.
    Fleet,
}

impl Site {
    /// The site of a document.
    ///
    /// # Errors
    /// Every fault of the document.
    pub fn from_document(_document: &SiteDocument, _context: Context) -> Result<Site, Faults> {
        Err(Faults::one("", "not written yet"))
    }
}
