//! The primary cache key: site, scheme, host, path, query and extras as the route's rule counts them; pure.
//! Raw parts, never decoded: what is keyed is what is forwarded.

use crate::api::Request;
use crate::key_parts;
use crate::site_name;
use ahash::RandomState;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use verge_config::site::KeyRule;

/// Parts the query from the extras in a kept key; neither has it inside: a query is of one line, and
/// extras are escaped.
const EXTRAS_MARK: u8 = b'\n';
const HAS_QUERY: u8 = 1;
const HAS_EXTRAS: u8 = 2;

/// A key that borrows from a request: looking up a stored response copies nothing, unless the rule
/// rearranges the query or counts fields or cookies.
#[derive(Debug, Clone)]
pub struct KeyRef<'a> {
    /// The site.
    pub site: &'a Arc<str>,
    /// The name's share of the hash: [`crate::site_hash`].
    pub site_hash: u64,
    /// The scheme.
    pub scheme: &'a str,
    /// The normalised host.
    pub host: &'a str,
    /// The raw path.
    pub path: &'a str,
    /// The query as it counts.
    pub query: Option<Cow<'a, str>>,
    /// The fields and cookies that count, where any do.
    pub extras: Option<Cow<'a, str>>,
    /// How it counts: objects of one rule are not taken for another's.
    pub rule: &'a Arc<KeyRule>,
}

/// UTF-8. Most keys are short, and lie in the key itself: comparing one follows no reference.
type Text = SmallVec<[u8; 48]>;

/// A key that is kept: one buffer for all its parts.
#[derive(Clone)]
pub struct Key {
    site: Arc<str>,
    /// Scheme, host, path and query behind each other, then [`EXTRAS_MARK`] and the extras.
    text: Text,
    rule: Arc<KeyRule>,
    path_len: u32,
    host_len: u16,
    scheme_len: u8,
    flags: u8,
}

// === impl KeyRef ===

impl<'a> KeyRef<'a> {
    /// The key of a request.
    #[must_use]
    pub fn of(request: &Request<'a>) -> KeyRef<'a> {
        let rule = &request.policy.key;
        KeyRef {
            site: request.site,
            site_hash: request.site.key_hash(),
            scheme: request.scheme,
            host: request.host,
            path: request.path,
            query: key_parts::query(rule.query(), request.query),
            extras: key_parts::extras(rule, request.headers).map(Cow::Owned),
            rule,
        }
    }

    /// 64 bits of it; whoever finds something under them compares the parts too.
    #[must_use]
    pub fn hash(&self, state: &RandomState) -> u64 {
        let mut hasher = state.build_hasher();
        hasher.write_u64(self.site_hash);
        self.scheme.hash(&mut hasher);
        self.host.hash(&mut hasher);
        self.path.hash(&mut hasher);
        hasher.write_u64(self.rule.kind());
        if let Some(query) = &self.query {
            query.hash(&mut hasher);
        }
        if let Some(extras) = &self.extras {
            hasher.write_u8(0);
            extras.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The same key, kept.
    #[must_use]
    pub fn keep(&self) -> Key {
        let (query, extras) = (self.query.as_deref(), self.extras.as_deref());
        let length = [self.scheme, self.host, self.path, query.unwrap_or(""), extras.unwrap_or("")]
            .iter()
            .map(|part| part.len())
            .sum::<usize>()
            + usize::from(extras.is_some());
        let mut text = Text::with_capacity(length);
        text.extend_from_slice(self.scheme.as_bytes());
        text.extend_from_slice(self.host.as_bytes());
        text.extend_from_slice(self.path.as_bytes());
        text.extend_from_slice(query.unwrap_or("").as_bytes());
        let mut flags = 0;
        if query.is_some() {
            flags |= HAS_QUERY;
        }
        if let Some(extras) = extras {
            flags |= HAS_EXTRAS;
            text.push(EXTRAS_MARK);
            text.extend_from_slice(extras.as_bytes());
        }
        // A part longer than any that is admitted is cut short by its length here; the key then equals
        // no request's, since comparing looks at the whole part.
        Key {
            site: Arc::clone(self.site),
            text,
            rule: Arc::clone(self.rule),
            path_len: u32::try_from(self.path.len()).unwrap_or(u32::MAX),
            host_len: u16::try_from(self.host.len()).unwrap_or(u16::MAX),
            scheme_len: u8::try_from(self.scheme.len()).unwrap_or(u8::MAX),
            flags,
        }
    }
}

// === impl Key ===

#[cfg(any(test, feature = "model"))]
impl Key {
    /// For tests and the model: `path` at `https://h`, by the plainest rule.
    pub(crate) fn at(path: &str) -> Key {
        let (site, rule): (Arc<str>, _) = ("s".into(), Arc::default());
        let (scheme, host, query, extras) = ("https", "h", None, None);
        KeyRef { site: &site, site_hash: 0, scheme, host, path, query, extras, rule: &rule }.keep()
    }
}

impl Key {
    /// The site.
    #[must_use]
    pub fn site(&self) -> &Arc<str> {
        &self.site
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> &str {
        text(self.part(0, self.host_at()))
    }

    /// The normalised host.
    #[must_use]
    pub fn host(&self) -> &str {
        text(self.part(self.host_at(), self.path_at()))
    }

    /// The raw path.
    #[must_use]
    pub fn path(&self) -> &str {
        text(self.part(self.path_at(), self.query_at()))
    }

    /// Host and path as bytes, by which keys are put in order.
    pub(crate) fn place(&self) -> (&[u8], &[u8]) {
        (self.part(self.host_at(), self.path_at()), self.part(self.path_at(), self.query_at()))
    }

    /// The query as it counts.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        (self.flags & HAS_QUERY != 0).then(|| text(self.tail().0))
    }

    /// The fields and cookies that count, where any do.
    #[must_use]
    pub fn extras(&self) -> Option<&str> {
        self.tail().1.map(text)
    }

    /// The rule that it was made under: purges by URL are compared under it.
    #[must_use]
    pub fn rule(&self) -> &Arc<KeyRule> {
        &self.rule
    }

    /// The same key, borrowed.
    #[must_use]
    pub fn as_key_ref(&self) -> KeyRef<'_> {
        KeyRef {
            site: &self.site,
            site_hash: site_name::hash(&self.site),
            scheme: self.scheme(),
            host: self.host(),
            path: self.path(),
            query: self.query().map(Cow::Borrowed),
            extras: self.extras().map(Cow::Borrowed),
            rule: &self.rule,
        }
    }

    /// See [`KeyRef::hash`].
    #[must_use]
    pub fn hash(&self, state: &RandomState) -> u64 {
        self.as_key_ref().hash(state)
    }

    /// Whether it is the same key.
    #[must_use]
    pub fn is(&self, other: &KeyRef<'_>) -> bool {
        let (query, extras) = self.tail();
        let query = (self.flags & HAS_QUERY != 0).then_some(query);
        self.rule.kind() == other.rule.kind()
            && self.part(self.path_at(), self.query_at()) == other.path.as_bytes()
            && query == other.query.as_deref().map(str::as_bytes)
            && self.part(self.host_at(), self.path_at()) == other.host.as_bytes()
            && self.part(0, self.host_at()) == other.scheme.as_bytes()
            && extras == other.extras.as_deref().map(str::as_bytes)
            && (Arc::ptr_eq(&self.site, other.site) || self.site == *other.site)
    }

    /// Bytes that it takes besides its struct and what it shares with others.
    #[must_use]
    pub fn weight(&self) -> usize {
        if self.text.spilled() { self.text.len() } else { 0 }
    }

    /// Query and extras.
    fn tail(&self) -> (&[u8], Option<&[u8]>) {
        let tail = self.part(self.query_at(), self.text.len());
        if self.flags & HAS_EXTRAS == 0 {
            return (tail, None);
        }
        let Some(mark) = memchr::memrchr(EXTRAS_MARK, tail) else { return (tail, None) };
        let (query, extras) = tail.split_at(mark);
        (query, extras.get(1..))
    }

    fn part(&self, from: usize, to: usize) -> &[u8] {
        self.text.get(from..to).unwrap_or_default()
    }

    fn host_at(&self) -> usize {
        usize::from(self.scheme_len)
    }

    fn path_at(&self) -> usize {
        self.host_at() + usize::from(self.host_len)
    }

    fn query_at(&self) -> usize {
        self.path_at().saturating_add(usize::try_from(self.path_len).unwrap_or(usize::MAX))
    }
}

/// A part of a key, made of strings in [`KeyRef::keep`].
fn text(part: &[u8]) -> &str {
    std::str::from_utf8(part).unwrap_or_default()
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.is(&other.as_key_ref())
    }
}

impl Eq for Key {}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}://{}{}", self.site, self.scheme(), self.host(), self.path())?;
        if let Some(query) = self.query() {
            write!(f, "?{query}")?;
        }
        match self.extras() {
            Some(extras) => write!(f, " {extras}"),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({self}; {:?})", self.rule)
    }
}
