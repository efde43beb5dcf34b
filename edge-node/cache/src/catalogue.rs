//! What of one site is stored, by URL, by tag and by epoch: so that a purge finds what it is for without
//! looking at the rest. Purges are right without it; it counts them and makes room after them.

use crate::object::StoredObject;
use ahash::{AHashMap, AHashSet};
use parking_lot::Mutex;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::Ordering::Relaxed;
use verge_config::purge::{Selector, UrlParts, normalise_host};

/// The objects of a site.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    urls: BTreeSet<Listed>,
    tags: AHashMap<Box<str>, AHashSet<Listed>>,
    /// How many objects each host has.
    hosts: BTreeMap<Box<str>, usize>,
    /// Objects by the count of purges that they were fetched after.
    epochs: BTreeMap<u64, usize>,
}

/// An object, in the order of its URL; two of one URL are told apart by where they lie in memory.
#[derive(Debug, Clone)]
struct Listed(StoredObject);

/// A place in that order.
trait Place {
    fn place(&self) -> (&[u8], &[u8], usize);
}

struct At<'a>(&'a str, &'a str);

// === impl Listed ===

impl Place for Listed {
    fn place(&self) -> (&[u8], &[u8], usize) {
        let (host, path) = self.0.key.place();
        (host, path, self.0.address())
    }
}

impl Place for At<'_> {
    fn place(&self) -> (&[u8], &[u8], usize) {
        (self.0.as_bytes(), self.1.as_bytes(), 0)
    }
}

impl<'a> Borrow<dyn Place + 'a> for Listed {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for dyn Place + '_ {}

impl Ord for Listed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Listed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }
}

impl Eq for Listed {}

impl std::hash::Hash for Listed {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.address().hash(state);
    }
}

// === impl Catalogue ===

impl Catalogue {
    /// An entry with the object came into the store.
    pub(crate) fn add(&self, object: &StoredObject) {
        let mut inner = self.inner.lock();
        if object.holders.fetch_add(1, Relaxed) > 0 {
            return;
        }
        let listed = Listed(object.clone());
        match inner.hosts.get_mut(object.key.host()) {
            Some(count) => *count += 1,
            None => {
                inner.hosts.insert(object.key.host().into(), 1);
            }
        }
        *inner.epochs.entry(object.epoch.applied).or_insert(0) += 1;
        for tag in &object.tags {
            match inner.tags.get_mut(tag) {
                Some(objects) => {
                    objects.insert(listed.clone());
                }
                None => {
                    inner.tags.insert(tag.clone(), AHashSet::from_iter([listed.clone()]));
                }
            }
        }
        inner.urls.insert(listed);
    }

    /// An entry with the object has left the store.
    pub(crate) fn remove(&self, object: &StoredObject) {
        let mut inner = self.inner.lock();
        if object.holders.fetch_sub(1, Relaxed) > 1 {
            return;
        }
        let listed = Listed(object.clone());
        inner.urls.remove(&listed);
        if let Some(count) = inner.hosts.get_mut(object.key.host()) {
            *count -= 1;
            if *count == 0 {
                inner.hosts.remove(object.key.host());
            }
        }
        if let Some(count) = inner.epochs.get_mut(&object.epoch.applied) {
            *count -= 1;
            if *count == 0 {
                inner.epochs.remove(&object.epoch.applied);
            }
        }
        for tag in &object.tags {
            if let Some(objects) = inner.tags.get_mut(tag) {
                objects.remove(&listed);
                if objects.is_empty() {
                    inner.tags.remove(tag);
                }
            }
        }
    }

    /// The objects among which everything is that the selectors are for; some that they are not for may
    /// be among them, none twice.
    pub(crate) fn candidates(&self, selectors: &[Selector]) -> Vec<StoredObject> {
        let inner = self.inner.lock();
        let mut found = Vec::new();
        for selector in selectors {
            inner.collect(selector, &mut found);
        }
        if selectors.len() > 1 {
            let mut seen = AHashSet::with_capacity(found.len());
            found.retain(|object| seen.insert(object.address()));
        }
        found
    }

    /// The oldest epoch of what is stored.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.inner.lock().epochs.keys().next().copied()
    }

    /// Lets go of everything: objects know their site, and their site must not keep them for ever.
    pub(crate) fn clear(&self) {
        let inner = std::mem::take(&mut *self.inner.lock());
        drop(inner);
    }
}

impl Inner {
    fn collect(&self, selector: &Selector, found: &mut Vec<StoredObject>) {
        match selector {
            Selector::Everything(_) => found.extend(self.urls.iter().map(|l| l.0.clone())),
            Selector::Host(host) => self.below(&normalise_host(host), "", found),
            Selector::Tag(tag) => {
                let tagged = self.tags.get(crate::tags::normal(tag).as_str());
                found.extend(tagged.into_iter().flatten().map(|l| l.0.clone()));
            }
            Selector::Url(url) => {
                if let Some(parts) = UrlParts::parse(url) {
                    self.of_hosts(&parts, |host, path| self.at(host, path, found));
                }
            }
            Selector::Prefix(prefix) => {
                if let Some(parts) = UrlParts::parse_prefix(prefix) {
                    let end = parts.path.find('?').unwrap_or(parts.path.len());
                    let path = parts.path.get(..end).unwrap_or_default();
                    self.of_hosts(&parts, |host, _| self.below(host, path, found));
                }
            }
        }
    }

    /// The host that is named, or every host of the site.
    fn of_hosts(&self, parts: &UrlParts, mut each: impl FnMut(&str, &str)) {
        match &parts.host {
            Some(host) => each(host, &parts.path),
            None => self.hosts.keys().for_each(|host| each(host, &parts.path)),
        }
    }

    fn from<'s>(&'s self, host: &'s str, path: &'s str) -> impl Iterator<Item = &'s StoredObject> {
        let at = At(host, path);
        let start: &dyn Place = &at;
        self.urls
            .range::<dyn Place + '_, _>((Bound::Included(start), Bound::Unbounded))
            .map(|listed| &listed.0)
            .take_while(move |object| object.key.host() == host)
    }

    fn at(&self, host: &str, path: &str, found: &mut Vec<StoredObject>) {
        found.extend(self.from(host, path).take_while(|object| object.key.path() == path).cloned());
    }

    fn below(&self, host: &str, prefix: &str, found: &mut Vec<StoredObject>) {
        let within = |object: &&StoredObject| object.key.path().starts_with(prefix);
        found.extend(self.from(host, prefix).take_while(within).cloned());
    }
}
