//! `Cache-Control` taken apart (RFC 9111 section 5.2), as responses and requests use it; pure, knows no
//! objects and no time.

use crate::structured::{self, Bare};
use http::header::{CACHE_CONTROL, HeaderName, PRAGMA};
use http::{HeaderMap, HeaderValue};
use std::borrow::Cow;

/// The largest `delta-seconds` (RFC 9111 section 1.2.2): what is larger counts as this.
pub const MAX_DELTA_SECONDS: u64 = 1 << 31;

/// A directive that may be confined to certain fields (`no-cache="set-cookie"`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scoped {
    /// Absent.
    #[default]
    Absent,
    /// For these fields only.
    Fields(Vec<HeaderName>),
    /// For the whole response.
    Whole,
}

/// What a response's directives say. Where one is given twice the first counts, and an invalid
/// lifetime counts as zero (RFC 9111 section 4.2.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// `max-age`, in seconds.
    pub max_age: Option<u64>,
    /// `s-maxage`, in seconds.
    pub s_maxage: Option<u64>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`.
    pub no_cache: Scoped,
    /// `private`.
    pub private: Scoped,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246): while it is fresh, a request with `max-age` alone is no reason to ask the
    /// source; one with `no-cache` is.
    pub immutable: bool,
    /// `stale-while-revalidate` (RFC 5861), in seconds.
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error` (RFC 5861), in seconds.
    pub stale_if_error: Option<u64>,
}

/// What a request's directives say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-cache`, or `Pragma: no-cache` where there is no `Cache-Control`.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `max-age`, in seconds.
    pub max_age: Option<u64>,
    /// `min-fresh`, in seconds.
    pub min_fresh: Option<u64>,
    /// `max-stale`, in seconds; without a value, any staleness.
    pub max_stale: Option<u64>,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `stale-if-error`, in seconds: what this visitor takes rather than an error, whatever the response
    /// says, unless it forbids stale use (RFC 5861 section 4).
    pub stale_if_error: Option<u64>,
}

/// The directives of one field value: names as sent, values unquoted.
pub struct Directives<'a> {
    rest: &'a str,
}

// === impl Directives ===

impl<'a> Directives<'a> {
    /// Reads `value`.
    #[must_use]
    pub fn new(value: &'a str) -> Directives<'a> {
        Directives { rest: value }
    }
}

impl<'a> Iterator for Directives<'a> {
    type Item = (&'a str, Option<Cow<'a, str>>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let end = end_of_member(self.rest);
            let (member, rest) = self.rest.split_at(end);
            self.rest = rest.strip_prefix(',').unwrap_or(rest);
            let member = member.trim_matches([' ', '\t']);
            if member.is_empty() {
                continue;
            }
            return Some(match member.split_once('=') {
                Some((name, value)) => (name, Some(unquote(value))),
                None => (member, None),
            });
        }
    }
}

/// The position of the comma that ends the first list member, one inside quotes not counting.
pub(crate) fn end_of_member(list: &str) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    list.len()
}

fn unquote(value: &str) -> Cow<'_, str> {
    match value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
        Some(inner) if inner.contains('\\') => {
            let mut out = String::with_capacity(inner.len());
            let mut escaped = false;
            for c in inner.chars() {
                if c == '\\' && !escaped {
                    escaped = true;
                } else {
                    out.push(c);
                    escaped = false;
                }
            }
            Cow::Owned(out)
        }
        Some(inner) => Cow::Borrowed(inner),
        None => Cow::Borrowed(value),
    }
}

/// `delta-seconds`, or nothing when it is not a whole number.
#[must_use]
pub fn delta_seconds(value: &str) -> Option<u64> {
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(value.parse::<u64>().map_or(MAX_DELTA_SECONDS, |n| n.min(MAX_DELTA_SECONDS)))
}

fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// A lifetime that is invalid is zero, so that the response counts as stale.
fn lifetime(value: Option<&str>) -> u64 {
    value.and_then(delta_seconds).unwrap_or(0)
}

impl Scoped {
    fn add(&mut self, value: Option<&str>) {
        let Some(list) = value.filter(|list| !list.trim().is_empty()) else {
            *self = Scoped::Whole;
            return;
        };
        let names = list.split(',').filter_map(|name| name.trim().parse().ok());
        match self {
            Scoped::Whole => {}
            Scoped::Fields(fields) => fields.extend(names),
            Scoped::Absent => *self = Scoped::Fields(names.collect()),
        }
    }

    /// The fields that it is confined to.
    #[must_use]
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Scoped::Fields(fields) => fields,
            Scoped::Absent | Scoped::Whole => &[],
        }
    }
}

// === impl ResponseDirectives ===

impl ResponseDirectives {
    /// Reads every `Cache-Control` line.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> ResponseDirectives {
        let mut directives = ResponseDirectives::default();
        for line in headers.get_all(CACHE_CONTROL) {
            for (name, value) in Directives::new(&lossy(line)) {
                directives.add(&name.to_ascii_lowercase(), value.as_deref());
            }
        }
        directives
    }

    /// Reads a targeted field (RFC 9213): a Structured Field dictionary. `None` when the field is
    /// absent, empty or does not parse, in which case it counts as absent.
    #[must_use]
    pub fn targeted(headers: &HeaderMap, name: &HeaderName) -> Option<ResponseDirectives> {
        let mut lines = headers.get_all(name).iter();
        let first = lines.next()?;
        let mut joined = lossy(first).into_owned();
        for line in lines {
            joined.push_str(", ");
            joined.push_str(&lossy(line));
        }
        let members = structured::dictionary(&joined)?;
        if members.is_empty() {
            return None;
        }
        let mut directives = ResponseDirectives::default();
        for (name, value) in members {
            match value {
                Bare::Boolean(true) => directives.add(&name, None),
                Bare::Boolean(false) => {}
                Bare::Integer(number) => directives.add(&name, Some(&number.to_string())),
                Bare::Text(text) => directives.add_text(&name, &text),
                Bare::Other => directives.add_text(&name, ""),
            }
        }
        Some(directives)
    }

    /// In a targeted field a lifetime of another type than Integer is ignored (RFC 9213 section 2.1).
    fn add_text(&mut self, name: &str, value: &str) {
        if matches!(name, "no-cache" | "private") {
            self.add(name, Some(value));
        } else if !matches!(
            name,
            "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error"
        ) {
            self.add(name, None);
        }
    }

    fn add(&mut self, name: &str, value: Option<&str>) {
        match name {
            "max-age" => self.max_age = self.max_age.or(Some(lifetime(value))),
            "s-maxage" => self.s_maxage = self.s_maxage.or(Some(lifetime(value))),
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache.add(value),
            "private" => self.private.add(value),
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "immutable" => self.immutable = true,
            "stale-while-revalidate" => {
                let window = value.and_then(delta_seconds);
                self.stale_while_revalidate = self.stale_while_revalidate.or(window);
            }
            "stale-if-error" => {
                let window = value.and_then(delta_seconds);
                self.stale_if_error = self.stale_if_error.or(window);
            }
            _ => {}
        }
    }
}

// === impl RequestDirectives ===

impl RequestDirectives {
    /// Reads every `Cache-Control` line, and `Pragma` where there is none (RFC 9111 section 5.4).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> RequestDirectives {
        let mut directives = RequestDirectives::default();
        if !headers.contains_key(CACHE_CONTROL) {
            directives.no_cache = headers.get_all(PRAGMA).iter().any(|line| {
                lossy(line).split(',').any(|token| token.trim().eq_ignore_ascii_case("no-cache"))
            });
            return directives;
        }
        for line in headers.get_all(CACHE_CONTROL) {
            for (name, value) in Directives::new(&lossy(line)) {
                directives.add(&name.to_ascii_lowercase(), value.as_deref());
            }
        }
        directives
    }

    fn add(&mut self, name: &str, value: Option<&str>) {
        match name {
            "no-cache" => self.no_cache = true,
            "no-store" => self.no_store = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => self.max_age = self.max_age.or(Some(lifetime(value))),
            "min-fresh" => self.min_fresh = self.min_fresh.or(value.and_then(delta_seconds)),
            "stale-if-error" => {
                let window = value.and_then(delta_seconds);
                self.stale_if_error = self.stale_if_error.or(window);
            }
            "max-stale" => {
                let allowed = match value {
                    None => Some(MAX_DELTA_SECONDS),
                    Some(value) => delta_seconds(value),
                };
                self.max_stale = self.max_stale.or(allowed);
            }
            _ => {}
        }
    }
}
