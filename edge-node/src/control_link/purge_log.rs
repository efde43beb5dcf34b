//! The last purges that came into force here, so that an explanation can name the one that touched a
//! URL. For explaining only: what is served is decided by the cache's own index.

use super::PurgeSink;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use verge_cache::key::Key;
use verge_cache::purge_index::{PurgeIndex, Verdict};
use verge_config::Revision;
use verge_config::purge::{Mode, Purge, Selector};

/// Purges that are remembered, of all sites.
const PURGES_MAX: usize = 1_000;
/// What the selectors of all of them take, in bytes.
const BYTES_MAX: usize = 2 * 1024 * 1024;
/// What a selector takes besides its text.
const SELECTOR_BYTES: usize = 32;

/// A purge that touched something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastPurge {
    /// Its place in history.
    pub revision: Revision,
    /// Hard or soft.
    pub mode: Mode,
    /// The first of its selectors that selects it.
    pub selector: Selector,
    /// When it came into force here: milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// The last purges, with the sink that they go on to.
pub struct PurgeLog {
    sink: Arc<dyn PurgeSink>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The newest last.
    purges: VecDeque<(Purge, u64)>,
    bytes: usize,
}

// === impl PurgeLog ===

impl PurgeLog {
    /// An empty log before a sink.
    #[must_use]
    pub fn new(sink: Arc<dyn PurgeSink>) -> PurgeLog {
        PurgeLog { sink, kept: Mutex::default() }
    }

    /// The newest purge since the start that selects what is, or would be, stored under a key with
    /// these tags.
    #[must_use]
    pub fn last(&self, site: &str, key: &Key, tags: &[String]) -> Option<PastPurge> {
        let tags: Vec<Box<str>> = tags.iter().map(|tag| tag.as_str().into()).collect();
        let selects = |selector: &Selector| {
            let mut only = PurgeIndex::default();
            only.insert(std::slice::from_ref(selector), Mode::Hard, 1, 0);
            only.judge(key, &tags, 0) != Verdict::Alive
        };
        let kept = self.kept.lock();
        let of_site = kept.purges.iter().rev().filter(|(purge, _)| purge.site == site);
        of_site.into_iter().find_map(|(purge, at_ms)| {
            let selector = purge.selectors.iter().find(|selector| selects(selector))?.clone();
            let Purge { revision, mode, .. } = *purge;
            Some(PastPurge { revision, mode, selector, at_ms: *at_ms })
        })
    }

    fn note(&self, purge: &Purge) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut kept = self.kept.lock();
        kept.bytes += weight(purge);
        kept.purges.push_back((purge.clone(), now));
        while kept.purges.len() > PURGES_MAX || kept.bytes > BYTES_MAX {
            let Some((oldest, _)) = kept.purges.pop_front() else { break };
            kept.bytes -= weight(&oldest);
        }
    }
}

impl PurgeSink for PurgeLog {
    fn purge(&self, purge: &Purge) -> u64 {
        let matched = self.sink.purge(purge);
        self.note(purge);
        matched
    }

    fn flush(&self, revision: Revision) {
        self.sink.flush(revision);
        // Another history's revisions say nothing in this one.
        *self.kept.lock() = Kept::default();
    }
}

fn weight(purge: &Purge) -> usize {
    let text = |selector: &Selector| match selector {
        Selector::Url(text)
        | Selector::Tag(text)
        | Selector::Prefix(text)
        | Selector::Host(text) => text.len(),
        Selector::Everything(_) => 0,
    };
    purge.selectors.iter().map(|selector| SELECTOR_BYTES + text(selector)).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::{HeaderMap, Method};
    use verge_cache::{Request, SiteName, key::KeyRef};
    use verge_config::site::CachePolicy;

    struct Nothing;

    impl PurgeSink for Nothing {
        fn purge(&self, _: &Purge) -> u64 {
            7
        }

        fn flush(&self, _: Revision) {}
    }

    fn purge(revision: u64, site: &str, selectors: Vec<Selector>) -> Purge {
        Purge { revision: Revision(revision), site: site.into(), selectors, mode: Mode::Soft }
    }

    fn key(path: &str) -> Key {
        let (site, policy): (SiteName, _) = ("shop".into(), Arc::new(CachePolicy::default()));
        let (method, headers) = (Method::GET, HeaderMap::new());
        let request = Request {
            site: &site,
            scheme: "https",
            host: "shop.example",
            path,
            query: None,
            method: &method,
            headers: &headers,
            policy: &policy,
        };
        KeyRef::of(&request).keep()
    }

    #[test]
    fn the_newest_purge_that_selects_it_is_named() {
        let log = PurgeLog::new(Arc::new(Nothing));
        let last = |path: &str, tags: &[String]| log.last("shop", &key(path), tags);
        assert_eq!(last("/a", &[]), None);
        assert_eq!(log.purge(&purge(1, "shop", vec![Selector::Url("/a".into())])), 7);
        let two = vec![Selector::Tag("x".into()), Selector::Prefix("/b".into())];
        log.purge(&purge(2, "shop", two));
        log.purge(&purge(3, "other", vec![Selector::Everything(true)]));
        let found = last("/a", &[]).unwrap();
        assert_eq!((found.revision, found.mode), (Revision(1), Mode::Soft));
        assert_eq!(last("/b/c", &[]).unwrap().selector, Selector::Prefix("/b".into()));
        let tagged = last("/a", &["x".into()]).unwrap();
        assert_eq!((tagged.revision, tagged.selector), (Revision(2), Selector::Tag("x".into())));
        assert_eq!(last("/c", &[]), None);
        log.flush(Revision(0));
        assert_eq!(last("/a", &[]), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let log = PurgeLog::new(Arc::new(Nothing));
        for revision in 0..PURGES_MAX as u64 + 5 {
            log.purge(&purge(revision, "shop", vec![Selector::Tag(revision.to_string())]));
        }
        assert_eq!(log.kept.lock().purges.len(), PURGES_MAX);
        assert_eq!(log.last("shop", &key("/"), &["4".into()]), None);
        assert!(log.last("shop", &key("/"), &["5".into()]).is_some());
        let long = |_| Selector::Tag("x".repeat(8_000));
        for revision in 9_000..9_010 {
            log.purge(&purge(revision, "shop", (0..100).map(long).collect()));
        }
        let kept = log.kept.lock();
        assert_eq!(kept.purges.len(), 2, "{} bytes", kept.bytes);
        assert!(kept.bytes <= BYTES_MAX);
    }
}
