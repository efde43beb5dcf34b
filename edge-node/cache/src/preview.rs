//! What a purge would be for, were it made now: counts and samples; reads the store, changes nothing.

use crate::cache::Cache;
use crate::key::Key;
use crate::purge_index::Verdict;
use verge_config::purge::Purge;

/// The live objects that a purge would be for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// How many, each variant counted.
    pub matched: u64,
    /// URLs of some of them, each once.
    pub samples: Vec<String>,
}

impl Cache {
    /// Counts what a purge would be for, and names up to `samples` URLs. Nothing is purged, and the
    /// purge's revision does not matter. The cost is that of the purge itself.
    #[must_use]
    pub fn preview(&self, purge: &Purge, samples: usize) -> Preview {
        let site = self.inner.site_named(&purge.site);
        let mut preview = Preview::default();
        for object in self.inner.selected(&site, &purge.selectors) {
            if object.verdict() == Verdict::Dead {
                continue;
            }
            preview.matched += 1;
            if preview.samples.len() < samples {
                let url = url(&object.key);
                if !preview.samples.contains(&url) {
                    preview.samples.push(url);
                }
            }
        }
        preview
    }
}

/// The URL of a key; its query is the one that counts.
fn url(key: &Key) -> String {
    let query = key.query().map_or(String::new(), |query| format!("?{query}"));
    format!("{}://{}{}{query}", key.scheme(), key.host(), key.path())
}
