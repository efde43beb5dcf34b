//! Which stored response a request selects (RFC 9111 section 4.1): `Vary`, and selecting fields in a
//! normal form; pure.

use crate::directives::end_of_member;
use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, HeaderName, VARY};
use http::{HeaderMap, HeaderValue};

/// The most fields that a `Vary` may name; with more it matches nothing.
const MAX_FIELDS: usize = 32;

/// A response's `Vary`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// The response does not vary.
    None,
    /// It varies by these fields, sorted.
    Fields(Vec<HeaderName>),
    /// `*`, or a field that is not valid: no request ever matches.
    Any,
}

/// The selecting fields of the request that a stored response answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    fields: Box<[Selecting]>,
    /// The one language of the stored response: whoever likes it best selects the response too.
    language: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Selecting {
    name: HeaderName,
    /// The value as sent, where it was one line: equal values need no normal form.
    raw: Option<HeaderValue>,
    /// Absent when the request had no such field.
    normal: Option<Box<str>>,
}

/// Reads every `Vary` line.
#[must_use]
pub fn parse(headers: &HeaderMap) -> Vary {
    let mut names = Vec::new();
    for line in headers.get_all(VARY) {
        for member in line.as_bytes().split(|b| *b == b',') {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            match HeaderName::from_bytes(member) {
                Ok(name) if member != b"*" && names.len() < MAX_FIELDS => names.push(name),
                _ => return Vary::Any,
            }
        }
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    if names.is_empty() { Vary::None } else { Vary::Fields(names) }
}

// === impl Selection ===

impl Selection {
    /// The selecting fields of `request` for a response that varies by `names`.
    #[must_use]
    pub fn of(names: &[HeaderName], request: &HeaderMap) -> Selection {
        let fields = names
            .iter()
            .map(|name| Selecting {
                name: name.clone(),
                raw: single(request, name).cloned(),
                normal: normal(name, request).map(String::into_boxed_str),
            })
            .collect();
        Selection { fields, language: None }
    }

    /// The same for a response in one language (`Content-Language`): a request that prefers it to all
    /// others would be answered with it again.
    #[must_use]
    pub fn in_language_of(mut self, response: &HeaderMap) -> Selection {
        self.language = single(response, &CONTENT_LANGUAGE)
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.contains(','))
            .map(|value| value.trim().to_ascii_lowercase().into_boxed_str());
        self
    }

    /// Whether `request` selects the response.
    #[must_use]
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.fields.iter().all(|field| {
            field.matches(request)
                || (field.name == ACCEPT_LANGUAGE
                    && self.language.as_deref().is_some_and(|own| prefers(request, own)))
        })
    }

    /// Whether both were selected in the same way, so that one replaces the other.
    #[must_use]
    pub fn same(&self, other: &Selection) -> bool {
        self.fields.len() == other.fields.len()
            && self
                .fields
                .iter()
                .zip(&other.fields)
                .all(|(a, b)| a.name == b.name && a.normal == b.normal)
    }

    /// The fields' names.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.fields.iter().map(|field| &field.name)
    }

    /// For people: `accept-encoding=br,gzip; foo=`.
    #[must_use]
    pub fn describe(&self) -> String {
        let parts: Vec<String> = self
            .fields
            .iter()
            .map(|field| format!("{}={}", field.name, field.normal.as_deref().unwrap_or("")))
            .collect();
        parts.join("; ")
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let field = |f: &Selecting| {
            64 + f.raw.as_ref().map_or(0, HeaderValue::len)
                + f.normal.as_ref().map_or(0, |normal| normal.len())
        };
        self.fields.iter().map(field).sum()
    }
}

impl Selecting {
    fn matches(&self, request: &HeaderMap) -> bool {
        match single(request, &self.name) {
            Some(value) if self.raw.as_ref() == Some(value) => true,
            _ => normal(&self.name, request).as_deref() == self.normal.as_deref(),
        }
    }
}

/// Whether the request likes one language better than every other.
fn prefers(request: &HeaderMap, language: &str) -> bool {
    let Some(value) = single(request, &ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let mut best = (String::new(), 0);
    let mut alone = false;
    for (name, weight) in members(value).into_iter().map(weighted) {
        match weight.cmp(&best.1) {
            std::cmp::Ordering::Greater => (best, alone) = ((name, weight), true),
            std::cmp::Ordering::Equal => alone = false,
            std::cmp::Ordering::Less => {}
        }
    }
    alone && best.0 == language
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

/// A field's normal form; `None` when it is absent and absence means something of its own.
fn normal(name: &HeaderName, headers: &HeaderMap) -> Option<String> {
    if name == ACCEPT_ENCODING {
        return Some(accept_encoding(headers));
    }
    let mut joined: Option<String> = None;
    for line in headers.get_all(name) {
        let line = String::from_utf8_lossy(line.as_bytes());
        match &mut joined {
            None => joined = Some(line.into_owned()),
            Some(joined) => {
                joined.push(',');
                joined.push_str(&line);
            }
        }
    }
    let joined = joined?;
    Some(if name == ACCEPT_LANGUAGE { by_preference(&joined) } else { members(&joined).join(",") })
}

/// List members without the white space around them; quoted commas do not count.
fn members(list: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = list;
    loop {
        let (member, tail) = rest.split_at(end_of_member(rest));
        out.push(member.trim_matches([' ', '\t']));
        match tail.strip_prefix(',') {
            Some(tail) => rest = tail,
            None => return out,
        }
    }
}

/// A member's name in lower case and its weight in thousandths.
fn weighted(member: &str) -> (String, u16) {
    let mut parts = member.split(';');
    let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let weight = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case("q"))
        .map_or(1000, |(_, value)| thousandths(value.trim()));
    (name, weight)
}

fn thousandths(value: &str) -> u16 {
    let value: f32 = value.parse().unwrap_or(1.0);
    if value <= 0.0 {
        0
    } else if value >= 1.0 {
        1000
    } else {
        // In (0, 1): the product lies in (0, 1000).
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let weight = (value * 1000.0) as u16;
        weight.max(1)
    }
}

/// Languages in lower case by falling preference; equal ones by name.
fn by_preference(list: &str) -> String {
    let mut languages: Vec<(String, u16)> =
        members(list).into_iter().filter(|m| !m.is_empty()).map(weighted).collect();
    languages.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut ranks = languages.chunk_by(|a, b| a.1 == b.1).map(|rank| {
        let names: Vec<&str> = rank.iter().map(|(name, _)| name.as_str()).collect();
        let refused = if rank.first().is_some_and(|(_, q)| *q == 0) { "!" } else { "" };
        format!("{refused}{}", names.join(","))
    });
    let mut out = ranks.next().unwrap_or_default();
    for rank in ranks {
        out.push('>');
        out.push_str(&rank);
    }
    out
}

/// The codings that matter and that the visitor takes, in a fixed order: `br, gzip, zstd`, or
/// `identity`. Which of several it likes best is not kept: any of them is acceptable.
#[must_use]
pub fn accept_encoding(headers: &HeaderMap) -> String {
    let mut taken: [Option<bool>; 3] = [None; 3];
    let mut star = None;
    for line in headers.get_all(ACCEPT_ENCODING) {
        for member in String::from_utf8_lossy(line.as_bytes()).split(',') {
            let (name, weight) = weighted(member);
            let takes = Some(weight > 0);
            match (name.as_str(), &mut taken) {
                ("br", [br, _, _]) => *br = takes,
                ("gzip" | "x-gzip", [_, gzip, _]) => *gzip = takes,
                ("zstd", [_, _, zstd]) => *zstd = takes,
                ("*", _) => star = takes,
                _ => {}
            }
        }
    }
    let names: Vec<&str> = ["br", "gzip", "zstd"]
        .into_iter()
        .zip(taken)
        .filter(|(_, takes)| takes.or(star).unwrap_or(false))
        .map(|(name, _)| name)
        .collect();
    if names.is_empty() { "identity".to_owned() } else { names.join(", ") }
}
