//! Which stored response a request selects (RFC 9111 section 4.1): `Vary`, and selecting fields in a
//! normal form; pure.

use crate::accept::{self, weighted};
use crate::directives::end_of_member;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_ENCODING, CONTENT_LANGUAGE, HeaderName, VARY,
};
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use verge_config::site::Coding;

pub use crate::accept::accept_encoding;

/// The most fields that a `Vary` may name; with more it matches nothing.
const MAX_FIELDS: usize = 32;

/// Begins the note of a form in the place of a normal form of `Accept-Encoding`, which begins otherwise.
const FORM_MARK: char = '=';

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
    /// A content coding that normalising knows nothing of: only who takes it selects the response.
    coding: Option<Box<str>>,
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
        Selection { fields, language: None, coding: None }
    }

    /// The same for a response whose form was chosen here: what selects it is not which codings a request
    /// names, but that it would be given the same form out of `codings`.
    #[must_use]
    pub fn in_form_of(mut self, codings: &[Coding], request: &HeaderMap) -> Selection {
        let names: Vec<&str> = codings.iter().map(|coding| coding.name()).collect();
        let form = accept::Accepted::of(request).form(codings).name();
        for field in self.fields.iter_mut().filter(|field| field.name == ACCEPT_ENCODING) {
            field.normal = Some(format!("{FORM_MARK}{form} {}", names.join(",")).into());
        }
        self
    }

    /// What another request would have been selected by, had it been answered with the same response.
    #[must_use]
    pub fn like(&self, request: &HeaderMap) -> Selection {
        let names: Vec<HeaderName> = self.names().cloned().collect();
        let selection = Selection::of(&names, request);
        match self.fields.iter().find_map(Selecting::form) {
            Some((_, codings)) => selection.in_form_of(&codings, request),
            None => selection,
        }
    }

    /// The same for a response in one language (`Content-Language`): a request that prefers it to all
    /// others would be answered with it again.
    #[must_use]
    pub fn in_language_of(mut self, response: &HeaderMap) -> Selection {
        self.language = single(response, &CONTENT_LANGUAGE)
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.contains(','))
            .map(|value| value.trim().to_ascii_lowercase().into_boxed_str());
        self.coding = single(response, &CONTENT_ENCODING)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.trim().to_ascii_lowercase())
            .filter(|coding| {
                !matches!(coding.as_str(), "br" | "gzip" | "x-gzip" | "zstd" | "identity" | "")
            })
            .map(String::into_boxed_str);
        self
    }

    /// Whether `request` selects the response.
    #[must_use]
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.coding.as_deref().is_none_or(|coding| takes(request, coding))
            && self.fields.iter().all(|field| {
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

/// A selection as a file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SelectionRecord {
    fields: Vec<(String, Option<Vec<u8>>, Option<String>)>,
    language: Option<String>,
    coding: Option<String>,
}

impl Selection {
    pub(crate) fn record(&self) -> SelectionRecord {
        let fields = self.fields.iter().map(|field| {
            let raw = field.raw.as_ref().map(|raw| raw.as_bytes().to_vec());
            (field.name.to_string(), raw, field.normal.as_deref().map(str::to_owned))
        });
        let owned = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let (language, coding) = (owned(&self.language), owned(&self.coding));
        SelectionRecord { fields: fields.collect(), language, coding }
    }
}

impl SelectionRecord {
    /// The selection, if the record is of one.
    pub(crate) fn selection(&self) -> Option<Selection> {
        let fields = self.fields.iter().map(|(name, raw, normal)| {
            let raw = raw.as_ref().map(|raw| HeaderValue::from_bytes(raw)).transpose().ok()?;
            let normal = normal.as_deref().map(Into::into);
            Some(Selecting { name: HeaderName::try_from(name).ok()?, raw, normal })
        });
        let fields = fields.collect::<Option<Box<[_]>>>()?;
        let boxed = |text: &Option<String>| text.as_deref().map(Into::into);
        Some(Selection { fields, language: boxed(&self.language), coding: boxed(&self.coding) })
    }
}

impl Selecting {
    fn matches(&self, request: &HeaderMap) -> bool {
        match single(request, &self.name) {
            Some(value) if self.raw.as_ref() == Some(value) => true,
            _ => match self.form() {
                Some((form, codings)) => {
                    accept::Accepted::of(request).form(&codings).name() == form
                }
                None => normal(&self.name, request).as_deref() == self.normal.as_deref(),
            },
        }
    }
}

impl Selecting {
    /// The form and the codings that [`Selection::in_form_of`] noted.
    fn form(&self) -> Option<(&str, Vec<Coding>)> {
        let noted = self.normal.as_deref().filter(|_| self.name == ACCEPT_ENCODING)?;
        let (form, names) = noted.strip_prefix(FORM_MARK)?.split_once(' ')?;
        let coding = |name| Coding::ALL.into_iter().find(|coding| coding.name() == name);
        Some((form, names.split(',').filter_map(coding).collect()))
    }
}

/// Whether the request takes every one of these content codings by name.
fn takes(request: &HeaderMap, codings: &str) -> bool {
    let lines: Vec<_> = request.get_all(ACCEPT_ENCODING).iter().map(text).collect();
    let taken = |coding: &str| {
        lines.iter().flat_map(|line| members(line)).map(weighted).any(|(n, w)| n == coding && w > 0)
    };
    codings.split(',').all(|coding| taken(coding.trim()))
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
pub(crate) fn normal(name: &HeaderName, headers: &HeaderMap) -> Option<String> {
    if name == ACCEPT_ENCODING {
        return Some(accept_encoding(headers));
    }
    let mut joined: Option<String> = None;
    for line in headers.get_all(name) {
        let line = text(line);
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

/// A value as text, each byte beyond ASCII as the character of its number: two values are never taken
/// for each other.
pub(crate) fn text(value: &HeaderValue) -> Cow<'_, str> {
    match value.to_str() {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => value.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
    }
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
