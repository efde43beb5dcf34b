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
        let (_, selected) = self.inner.selected(&site, &purge.selectors);
        let mut preview = Preview::default();
        for entry in selected {
            let live =
                |object: &&std::sync::Arc<_>| site.verdict(&entry.key, object) != Verdict::Dead;
            let count = entry.variants.iter().filter(live).count() as u64;
            preview.matched += count;
            if count > 0 && preview.samples.len() < samples {
                let url = url(&entry.key);
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
