//! A key as bytes, for the disk tier; pure and total: whatever the bytes, decoding is a key or nothing.

use crate::key::{Key, KeyRef};
use ahash::{AHashMap, AHashSet};
use http::HeaderName;
use std::borrow::Cow;
use std::sync::Arc;
use verge_config::site::{KeyRule, MAX_KEY_NAMES, QueryKey};

/// The first byte; another one is of another format.
const FORMAT: u8 = 1;
/// The most parameters that a decoded rule names; a site file allows fewer.
const MAX_PARAMETERS: usize = 1_024;
/// The most sites, and the most rules, that decoding shares; what comes beyond is not shared.
const MAX_SHARED: usize = 65_536;

/// What decoded keys share: of a million keys of one site, one copy of its name and of each rule.
#[derive(Debug, Default)]
pub struct Shared {
    sites: AHashSet<Arc<str>>,
    rules: AHashMap<Box<[u8]>, Arc<KeyRule>>,
}

/// What is left to decode.
struct Reader<'a>(&'a [u8]);

// === impl Key ===

impl Key {
    /// Appends the key as bytes. The rule goes with it, since purges are compared under it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        for part in [self.site(), self.scheme(), self.host(), self.path()] {
            put(out, part);
        }
        for part in [self.query(), self.extras()] {
            out.push(u8::from(part.is_some()));
            put(out, part.unwrap_or(""));
        }
        encode_rule(self.rule(), out);
    }

    /// The key that `bytes` begin with, and what follows it; `None` when they begin with none.
    #[must_use]
    pub fn decode<'a>(bytes: &'a [u8], shared: &mut Shared) -> Option<(Key, &'a [u8])> {
        let mut reader = Reader(bytes);
        if reader.byte()? != FORMAT {
            return None;
        }
        let (site, scheme) = (reader.text()?, reader.text()?);
        let (host, path) = (reader.text()?, reader.text()?);
        let (query, extras) = (reader.optional()?, reader.optional()?);
        let rule = reader.rule(shared)?;
        let whole = scheme.len() <= usize::from(u8::MAX) && host.len() <= usize::from(u16::MAX);
        // What would not have been kept like this was not encoded from a key.
        if !whole || rule.has_extras() != extras.is_some() || extras.is_some_and(is_odd) {
            return None;
        }
        let site = shared.site(site);
        let (query, extras) = (query.map(Cow::Borrowed), extras.map(Cow::Borrowed));
        let key =
            KeyRef { site: &site, site_hash: 0, scheme, host, path, query, extras, rule: &rule };
        Some((key.keep(), reader.0))
    }
}

/// Extras are escaped: nothing but visible ASCII.
fn is_odd(extras: &str) -> bool {
    extras.bytes().any(|byte| !byte.is_ascii_graphic())
}

fn put(out: &mut Vec<u8>, part: &str) {
    // No part of a request comes near this; a longer one would not decode.
    out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(part.as_bytes());
}

fn encode_rule(rule: &KeyRule, out: &mut Vec<u8>) {
    let (tag, names): (u8, &[String]) = match rule.query() {
        QueryKey::All => (0, &[]),
        QueryKey::Ignore => (1, &[]),
        QueryKey::Sort => (2, &[]),
        QueryKey::Include(names) => (3, names),
        QueryKey::Exclude(names) => (4, names),
    };
    out.push(tag);
    put_names(out, names.iter().map(String::as_str));
    put_names(out, rule.headers().iter().map(HeaderName::as_str));
    put_names(out, rule.cookies().iter().map(|name| &**name));
}

fn put_names<'n>(out: &mut Vec<u8>, names: impl ExactSizeIterator<Item = &'n str>) {
    out.extend_from_slice(&u16::try_from(names.len()).unwrap_or(u16::MAX).to_le_bytes());
    names.for_each(|name| put(out, name));
}

// === impl Shared ===

impl Shared {
    fn site(&mut self, name: &str) -> Arc<str> {
        if let Some(site) = self.sites.get(name) {
            return Arc::clone(site);
        }
        let site: Arc<str> = name.into();
        if self.sites.len() < MAX_SHARED {
            self.sites.insert(Arc::clone(&site));
        }
        site
    }

    fn rule(
        &mut self,
        bytes: &[u8],
        made: impl FnOnce() -> Option<KeyRule>,
    ) -> Option<Arc<KeyRule>> {
        if let Some(rule) = self.rules.get(bytes) {
            return Some(Arc::clone(rule));
        }
        let rule = made()?.shared();
        if self.rules.len() < MAX_SHARED {
            self.rules.insert(bytes.into(), Arc::clone(&rule));
        }
        Some(rule)
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
        std::str::from_utf8(self.take(usize::try_from(length).ok()?)?).ok()
    }

    fn optional(&mut self) -> Option<Option<&'a str>> {
        let (present, text) = (self.byte()?, self.text()?);
        match present {
            0 if text.is_empty() => Some(None),
            1 => Some(Some(text)),
            _ => None,
        }
    }

    fn names(&mut self, most: usize) -> Option<Vec<&'a str>> {
        let count = usize::from(u16::from_le_bytes(self.take(2)?.try_into().ok()?));
        if count > most {
            return None;
        }
        (0..count).map(|_| self.text()).collect()
    }

    fn rule(&mut self, shared: &mut Shared) -> Option<Arc<KeyRule>> {
        let before = self.0;
        let tag = self.byte()?;
        let names = self.names(MAX_PARAMETERS)?;
        let (headers, cookies) = (self.names(MAX_KEY_NAMES)?, self.names(MAX_KEY_NAMES)?);
        let encoded = before.get(..before.len() - self.0.len())?;
        shared.rule(encoded, || {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let query = match tag {
                0..=2 if !names.is_empty() => return None,
                0 => QueryKey::All,
                1 => QueryKey::Ignore,
                2 => QueryKey::Sort,
                3 => QueryKey::Include(names),
                4 => QueryKey::Exclude(names),
                _ => return None,
            };
            let headers: Result<Vec<HeaderName>, _> =
                headers.into_iter().map(HeaderName::try_from).collect();
            let cookies = cookies.into_iter().map(str::to_owned).collect();
            Some(KeyRule::new(query, headers.ok()?, cookies))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn key(rule: KeyRule, query: Option<&str>, extras: Option<&str>) -> Key {
        let (site, rule): (Arc<str>, _) = ("shop".into(), Arc::new(rule));
        let (query, extras) = (query.map(Cow::Borrowed), extras.map(Cow::Borrowed));
        let (scheme, host, path) = ("https", "shop.example", "/a/ü");
        KeyRef { site: &site, site_hash: 0, scheme, host, path, query, extras, rule: &rule }.keep()
    }

    #[test]
    fn a_key_is_small() {
        assert!(size_of::<Key>() <= 96, "{}", size_of::<Key>());
    }

    #[test]
    fn what_is_encoded_decodes_and_is_shared() {
        let extra = KeyRule::new(
            QueryKey::Exclude(vec!["x".into()]),
            vec![HeaderName::from_static("x-device")],
            vec!["lang".into()],
        );
        let mut shared = Shared::default();
        let keys = [
            key(KeyRule::default(), None, None),
            key(KeyRule::default(), Some(""), None),
            key(QueryKey::Include(vec!["a".into(), "b".into()]).into(), Some("a=1"), None),
            key(extra, Some("a=1"), Some("x-device=m;cookie:lang")),
        ];
        let mut bytes = Vec::new();
        keys.iter().for_each(|key| key.encode(&mut bytes));
        let mut rest = &bytes[..];
        let mut sites = Vec::new();
        for key in &keys {
            let (again, after) = Key::decode(rest, &mut shared).unwrap();
            assert_eq!(&again, key);
            assert_eq!(again.rule(), key.rule());
            assert_eq!(again.to_string(), key.to_string());
            sites.push(Arc::clone(again.site()));
            rest = after;
        }
        assert!(rest.is_empty());
        assert!(sites.iter().all(|site| Arc::ptr_eq(site, &sites[0])));
        // Cut anywhere, it is no key.
        let mut one = Vec::new();
        keys[3].encode(&mut one);
        for end in 0..one.len() {
            assert!(Key::decode(&one[..end], &mut shared).is_none(), "{end}");
        }
    }
}
