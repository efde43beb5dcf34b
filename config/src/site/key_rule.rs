//! What of a request takes part in a route's cache keys: query, fields and cookies. Values only; how they
//! are read off a request is the cache's affair.

use super::alike::Alike;
use http::HeaderName;
use std::sync::Arc;

/// The most fields and the most cookies that a key names.
pub const MAX_KEY_NAMES: usize = 16;

/// How the query takes part in the key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum QueryKey {
    /// Whole and raw.
    #[default]
    All,
    /// Not at all.
    Ignore,
    /// Whole, its parameters in order of their names.
    Sort,
    /// Only the parameters named, in order of their names.
    Include(Vec<String>),
    /// All but the parameters named, in order of their names.
    Exclude(Vec<String>),
}

/// What of a request takes part in the key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct KeyRule {
    query: QueryKey,
    headers: Box<[HeaderName]>,
    cookies: Box<[Box<str>]>,
    kind: u64,
}

// === impl KeyRule ===

impl KeyRule {
    /// A rule; the order and repetition of names do not matter.
    #[must_use]
    pub fn new(query: QueryKey, mut headers: Vec<HeaderName>, cookies: Vec<String>) -> KeyRule {
        headers.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        headers.dedup();
        let mut cookies: Vec<Box<str>> = cookies.into_iter().map(String::into_boxed_str).collect();
        cookies.sort_unstable();
        cookies.dedup();
        let kind = kind(&query, &headers, &cookies);
        KeyRule { query, headers: headers.into(), cookies: cookies.into(), kind }
    }

    /// The rule, shared by all policies that have an equal one, and by the keys that are kept under it.
    #[must_use]
    pub fn shared(self) -> Arc<KeyRule> {
        static RULES: Alike<KeyRule> = Alike::new();
        RULES.share(self)
    }

    /// How the query counts.
    #[must_use]
    pub fn query(&self) -> &QueryKey {
        &self.query
    }

    /// The request fields that count, sorted.
    #[must_use]
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// The cookies that count, sorted; their names are case-sensitive.
    #[must_use]
    pub fn cookies(&self) -> &[Box<str>] {
        &self.cookies
    }

    /// Tells rules apart: objects of one are not taken for another's. Zero for the default rule.
    #[must_use]
    pub fn kind(&self) -> u64 {
        self.kind
    }

    /// Whether fields or cookies count.
    #[must_use]
    pub fn has_extras(&self) -> bool {
        !self.headers.is_empty() || !self.cookies.is_empty()
    }
}

impl From<QueryKey> for KeyRule {
    fn from(query: QueryKey) -> KeyRule {
        KeyRule::new(query, Vec::new(), Vec::new())
    }
}

/// A fixed hash, since it need not resist anybody but be the same on every edge and after a restart.
fn kind(query: &QueryKey, headers: &[HeaderName], cookies: &[Box<str>]) -> u64 {
    let (tag, names): (u8, &[String]) = match query {
        QueryKey::All if headers.is_empty() && cookies.is_empty() => return 0,
        QueryKey::All => (0, &[]),
        QueryKey::Ignore => (1, &[]),
        QueryKey::Sort => (2, &[]),
        QueryKey::Include(names) => (3, names),
        QueryKey::Exclude(names) => (4, names),
    };
    let mut hash = Fnv::new();
    hash.byte(tag);
    names.iter().for_each(|name| hash.text(name));
    hash.byte(0xff);
    headers.iter().for_each(|name| hash.text(name.as_str()));
    hash.byte(0xff);
    cookies.iter().for_each(|name| hash.text(name));
    hash.0
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    /// A text and an end that no text has inside.
    fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.byte(byte));
        self.byte(0xfe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_differ_exactly_when_rules_do() {
        let name = HeaderName::from_static;
        let s = |text: &str| text.to_owned();
        let rules = [
            KeyRule::default(),
            QueryKey::Ignore.into(),
            QueryKey::Sort.into(),
            QueryKey::Include(vec![s("a")]).into(),
            QueryKey::Include(vec![s("a"), s("b")]).into(),
            QueryKey::Exclude(vec![s("a")]).into(),
            KeyRule::new(QueryKey::All, vec![name("a")], vec![]),
            KeyRule::new(QueryKey::All, vec![name("a"), name("b")], vec![]),
            KeyRule::new(QueryKey::All, vec![name("ab")], vec![]),
            KeyRule::new(QueryKey::All, vec![], vec![s("a")]),
            KeyRule::new(QueryKey::Sort, vec![], vec![s("a")]),
            KeyRule::new(QueryKey::Sort, vec![], vec![s("A")]),
        ];
        for (i, a) in rules.iter().enumerate() {
            for (j, b) in rules.iter().enumerate() {
                assert_eq!(a.kind() == b.kind(), i == j, "{a:?} {b:?}");
            }
        }
        let other = KeyRule::new(QueryKey::All, vec![name("b"), name("a"), name("b")], vec![]);
        assert_eq!(Some(&other), rules.get(7));
    }
}
