//! The primary cache key: site, scheme, host, path and query as the policy counts it; pure. Raw parts,
//! never decoded: what is keyed is what is forwarded.

use crate::api::Request;
use ahash::RandomState;
use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use verge_config::site::{CachePolicy, QueryKey};

/// A key that borrows from a request: looking up a stored response copies nothing.
#[derive(Debug, Clone)]
pub struct KeyRef<'a> {
    /// The site.
    pub site: &'a Arc<str>,
    /// The scheme.
    pub scheme: &'a str,
    /// The normalised host.
    pub host: &'a str,
    /// The raw path.
    pub path: &'a str,
    /// The query as it counts.
    pub query: Option<Cow<'a, str>>,
    /// How it counts: objects of one policy are not taken for another's.
    pub kind: u64,
}

/// A key that is kept.
#[derive(Debug, Clone)]
pub struct Key {
    /// The site.
    pub site: Arc<str>,
    /// The scheme.
    pub scheme: Box<str>,
    /// The normalised host.
    pub host: Box<str>,
    /// The raw path.
    pub path: Box<str>,
    /// The query as it counts.
    pub query: Option<Box<str>>,
    /// See [`KeyRef::kind`].
    pub kind: u64,
    /// The policy under which the query counts: purges by URL are compared under it.
    pub policy: Arc<CachePolicy>,
}

// === impl KeyRef ===

impl<'a> KeyRef<'a> {
    /// The key of a request.
    #[must_use]
    pub fn of(request: &Request<'a>) -> KeyRef<'a> {
        KeyRef {
            site: request.site,
            scheme: request.scheme,
            host: request.host,
            path: request.path,
            query: query(&request.policy.query, request.query),
            kind: kind(&request.policy.query),
        }
    }

    /// 64 bits of it; whoever finds something under them compares the parts too.
    #[must_use]
    pub fn hash(&self, state: &RandomState) -> u64 {
        let mut hasher = state.build_hasher();
        self.site.as_ref().hash(&mut hasher);
        self.scheme.hash(&mut hasher);
        self.host.hash(&mut hasher);
        self.path.hash(&mut hasher);
        hasher.write_u64(self.kind);
        if let Some(query) = &self.query {
            query.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The same key, kept.
    #[must_use]
    pub fn keep(&self, policy: &Arc<CachePolicy>) -> Key {
        Key {
            site: Arc::clone(self.site),
            scheme: self.scheme.into(),
            host: self.host.into(),
            path: self.path.into(),
            query: self.query.as_deref().map(Into::into),
            kind: self.kind,
            policy: Arc::clone(policy),
        }
    }
}

// === impl Key ===

impl Key {
    /// Whether it is the same key.
    #[must_use]
    pub fn is(&self, other: &KeyRef<'_>) -> bool {
        self.kind == other.kind
            && *self.path == *other.path
            && self.query.as_deref() == other.query.as_deref()
            && *self.host == *other.host
            && *self.scheme == *other.scheme
            && (Arc::ptr_eq(&self.site, other.site) || self.site == *other.site)
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.scheme.len()
            + self.host.len()
            + self.path.len()
            + self.query.as_ref().map_or(0, |query| query.len())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}://{}{}", self.site, self.scheme, self.host, self.path)?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

/// A raw query as a policy counts it.
#[must_use]
pub fn query<'a>(policy: &QueryKey, raw: Option<&'a str>) -> Option<Cow<'a, str>> {
    match policy {
        QueryKey::All => raw.map(Cow::Borrowed),
        QueryKey::Ignore => None,
        QueryKey::Sort => chosen(raw?, |_| true),
        QueryKey::Include(names) => chosen(raw?, |name| names.iter().any(|n| n == name)),
        QueryKey::Exclude(names) => chosen(raw?, |name| !names.iter().any(|n| n == name)),
    }
}

/// The parameters whose names are wanted, in order of their names; repeated ones keep their order.
fn chosen<'a>(raw: &'a str, wanted: impl Fn(&str) -> bool) -> Option<Cow<'a, str>> {
    let mut parameters: Vec<&str> =
        raw.split('&').filter(|parameter| wanted(name_of(parameter))).collect();
    parameters.sort_by(|a, b| name_of(a).cmp(name_of(b)));
    if parameters.is_empty() { None } else { Some(Cow::Owned(parameters.join("&"))) }
}

fn name_of(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// Tells policies apart; a fixed hash, since it need not resist anybody but be the same everywhere.
#[must_use]
pub fn kind(policy: &QueryKey) -> u64 {
    let (tag, names): (u64, &[String]) = match policy {
        QueryKey::All => return 0,
        QueryKey::Ignore => return 1,
        QueryKey::Sort => return 2,
        QueryKey::Include(names) => (3, names),
        QueryKey::Exclude(names) => (4, names),
    };
    // FNV-1a.
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ tag;
    for name in names {
        for byte in name.bytes().chain([b'&']) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
