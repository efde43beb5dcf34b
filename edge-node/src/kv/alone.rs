//! The entries of an edge that serves a site file alone: in memory, bounded, and gone with the process.

use super::KvError;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use verge_config::kv::{KEYS_PER_PAGE, KeyPage, MAX_ENTRIES, weight};

/// Entries by site and key.
pub struct Alone {
    entries: Mutex<Entries>,
    most_bytes: u64,
}

#[derive(Default)]
struct Entries {
    by_name: BTreeMap<(Arc<str>, String), Bytes>,
    bytes: u64,
}

// === impl Alone ===

impl Alone {
    /// Room for so many bytes of keys and values.
    #[must_use]
    pub fn new(most_bytes: u64) -> Alone {
        Alone { entries: Mutex::default(), most_bytes }
    }

    pub(super) fn get(&self, site: &Arc<str>, key: &str) -> Option<Bytes> {
        let name = (Arc::clone(site), key.to_owned());
        self.entries.lock().by_name.get(&name).cloned()
    }

    pub(super) fn set(
        &self,
        site: &Arc<str>,
        key: String,
        value: Option<Bytes>,
    ) -> Result<(), KvError> {
        let mut entries = self.entries.lock();
        let name = (Arc::clone(site), key);
        let held = entries.by_name.get(&name).map(|value| weight(&name.1, value));
        let bytes = entries.bytes - held.unwrap_or(0);
        let Some(value) = value else {
            entries.by_name.remove(&name);
            entries.bytes = bytes;
            return Ok(());
        };
        let bytes = bytes + weight(&name.1, &value);
        let count = entries.by_name.len() as u64 + u64::from(held.is_none());
        if count > MAX_ENTRIES || bytes > self.most_bytes {
            let most = self.most_bytes;
            return Err(KvError::Refused(format!(
                "a standalone edge keeps {MAX_ENTRIES} entries of {most} bytes in memory; remove some"
            )));
        }
        entries.by_name.insert(name, value);
        entries.bytes = bytes;
        Ok(())
    }

    pub(super) fn keys(&self, site: &Arc<str>, skip: u64) -> KeyPage {
        let entries = self.entries.lock();
        let from = Bound::Included((Arc::clone(site), String::new()));
        let own = entries.by_name.range((from, Bound::Unbounded));
        let own = own.take_while(|((of, _), _)| of == site).map(|((_, key), _)| key);
        let mut rest = own.skip(usize::try_from(skip).unwrap_or(usize::MAX));
        let keys: Vec<String> = rest.by_ref().take(KEYS_PER_PAGE).cloned().collect();
        let next = rest.next().map(|_| skip.saturating_add(KEYS_PER_PAGE as u64));
        KeyPage { keys, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_bounded_and_of_their_site() {
        let alone = Alone::new(100);
        let (site, other): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let set = |site: &Arc<str>, key: &str, bytes: usize| {
            alone.set(site, key.to_owned(), Some(vec![b'v'; bytes].into()))
        };
        set(&site, "one", 60).unwrap();
        assert!(set(&site, "two", 60).is_err());
        assert_eq!(alone.get(&site, "two"), None);
        set(&site, "one", 97).unwrap();
        assert!(set(&site, "one", 98).is_err());
        assert_eq!(alone.get(&site, "one").unwrap().len(), 97, "what was there stays");
        assert_eq!(alone.get(&other, "one"), None);
        assert_eq!(alone.keys(&other, 0), KeyPage::default());
        alone.set(&site, "one".to_owned(), None).unwrap();
        set(&other, "two", 97).unwrap();
        assert_eq!(alone.keys(&other, 0).keys, ["two"]);
        assert_eq!(alone.keys(&other, 1), KeyPage::default());
    }

    #[test]
    fn keys_come_in_pages() {
        let alone = Alone::new(1 << 20);
        let site: Arc<str> = "a".into();
        for number in 0..KEYS_PER_PAGE + 1 {
            alone.set(&site, format!("{number:04}"), Some(Bytes::new())).unwrap();
        }
        let first = alone.keys(&site, 0);
        assert_eq!((first.keys.len(), first.next), (KEYS_PER_PAGE, Some(KEYS_PER_PAGE as u64)));
        let last = alone.keys(&site, first.next.unwrap());
        assert_eq!((last.keys.len(), last.next), (1, None));
    }
}
