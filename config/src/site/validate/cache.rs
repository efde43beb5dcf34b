//! The cache policy of a route. Freshness itself is the cache's affair.

use super::{choice, over};
use crate::Faults;
use crate::check::YEAR;
use crate::read::key_notation;
use crate::site::{
    CacheDocument, CacheMode, CachePolicy, CachePosition, ClientCacheControl, Coding,
    CompressDocument, CompressRule, KeyRule, MAX_KEY_NAMES, QueryKey, TtlDocument, TtlRule,
    TtlRules, TypePattern,
};
use crate::units::quote;
use http::HeaderName;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// The statuses that are cacheable by default, as ranges (RFC 9110 section 15.1).
const DEFAULT_STATUSES: [(u16, u16); 9] = [
    (200, 200),
    (203, 204),
    (206, 206),
    (300, 301),
    (308, 308),
    (404, 405),
    (410, 410),
    (414, 414),
    (501, 501),
];
/// The most tags that a route adds, and the longest.
const MAX_TAGS: usize = 64;
const MAX_TAG_BYTES: usize = 1_024;
/// The most parameters that a key names, and the longest.
const MAX_PARAMETERS: usize = 64;
const MAX_PARAMETER_BYTES: usize = 256;
/// The most media types of a route that are compressed.
const MAX_TYPES: usize = 64;
/// The largest least length of what is compressed, in bytes.
const MAX_COMPRESS_MIN: u64 = 1 << 30;
/// The most rules by status.
const MAX_TTL_RULES: usize = 64;

/// What a route has that decides which fields make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An origin alone.
    Origin,
    /// A handler alone.
    Handler,
    /// A handler with an origin behind it.
    HandlerAndOrigin,
    /// A redirect or a static response: made here, never stored.
    Made,
    /// The target itself is faulty.
    Unknown,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Respect,
    Override,
    Bypass,
}

pub(super) fn check(
    path: &str,
    raw: Option<&CacheDocument>,
    kind: Kind,
    client_cache_control: ClientCacheControl,
    faults: &mut Faults,
) -> CachePolicy {
    let default = CachePolicy { client_cache_control, ..CachePolicy::default() };
    let Some(raw) = raw else { return default };
    if kind == Kind::Made {
        faults.add(path, "a redirect or static response is made here and never stored");
        return default;
    }
    let modes =
        [("respect", Mode::Respect), ("override", Mode::Override), ("bypass", Mode::Bypass)];
    let mode = choice(&format!("{path}.mode"), raw.mode.as_deref(), &modes, faults);
    // Which fields make sense cannot be told of a mode that is not known.
    if mode.is_some() || raw.mode.is_none() {
        fields_of_mode(path, raw, mode.unwrap_or(Mode::Respect), faults);
    }
    let mode = mode.unwrap_or(Mode::Respect);
    let mut window = |name: &str, text: &Option<String>| {
        faults.some_duration(&format!("{path}.{name}"), text.as_deref(), Duration::ZERO..=YEAR)
    };
    CachePolicy {
        browser_ttl: window("browser_ttl", &raw.browser_ttl),
        stale_while_revalidate: window("stale_while_revalidate", &raw.stale_while_revalidate),
        stale_if_error: window("stale_if_error", &raw.stale_if_error),
        mode: match (mode, &raw.ttl) {
            (Mode::Override, Some(ttl)) => {
                CacheMode::Override(rules(&format!("{path}.ttl"), ttl, faults))
            }
            (Mode::Override, None) => CacheMode::Override(TtlRules::default()),
            (Mode::Respect, _) => CacheMode::Respect,
            (Mode::Bypass, _) => CacheMode::Bypass,
        },
        key: key(path, raw, faults).shared(),
        compress: compress(&format!("{path}.compress"), raw.compress.as_ref(), faults),
        tags: tags(&format!("{path}.tags"), &raw.tags, faults),
        position: position(&format!("{path}.position"), raw.position.as_deref(), kind, faults),
        client_cache_control,
    }
}

/// Names the fields that would have no effect in this mode.
fn fields_of_mode(path: &str, raw: &CacheDocument, mode: Mode, faults: &mut Faults) {
    match (mode, &raw.ttl) {
        (Mode::Override, None) => {
            faults.add(format!("{path}.ttl"), "is missing: mode \"override\" says how long");
        }
        (Mode::Respect, Some(_)) => {
            let message = "needs mode = \"override\"; otherwise the response says how long";
            faults.add(format!("{path}.ttl"), message);
        }
        _ => {}
    }
    if mode != Mode::Bypass {
        return;
    }
    let given = [
        ("ttl", raw.ttl.is_some()),
        ("browser_ttl", raw.browser_ttl.is_some()),
        ("stale_while_revalidate", raw.stale_while_revalidate.is_some()),
        ("stale_if_error", raw.stale_if_error.is_some()),
        ("query", raw.query.is_some()),
        ("headers", !raw.headers.is_empty()),
        ("cookies", !raw.cookies.is_empty()),
        ("compress", raw.compress.as_ref().is_some_and(|c| *c != CompressDocument::Switch(false))),
        ("tags", !raw.tags.is_empty()),
    ];
    for (name, _) in given.iter().filter(|(_, given)| *given) {
        let message = "has no effect with mode \"bypass\", which stores nothing";
        faults.add(format!("{path}.{name}"), message);
    }
}

fn rules(path: &str, raw: &TtlDocument, faults: &mut Faults) -> TtlRules {
    let by_status = match raw {
        TtlDocument::ByStatus(by_status) => by_status,
        TtlDocument::All(text) => {
            let ttl = faults.duration(path, Some(text), Duration::ZERO, Duration::ZERO..=YEAR);
            let rule = |(low, high)| TtlRule { low, high, ttl };
            return TtlRules(DEFAULT_STATUSES.map(rule).to_vec());
        }
    };
    if by_status.is_empty() {
        faults
            .add(path, "is empty: write for instance { \"200-299\" = \"1d\", \"404\" = \"10s\" }");
    }
    over(path, by_status.len(), MAX_TTL_RULES, faults);
    let mut rules = by_status_rules(path, by_status, faults);
    // A table has no order: the narrower range counts, as whoever writes 404 beside 400-499 means it.
    rules.sort_by_key(|rule| (rule.high - rule.low, rule.low));
    for (index, rule) in rules.iter().enumerate() {
        for wider in rules.iter().skip(index + 1) {
            let apart = rule.high < wider.low || wider.high < rule.low;
            let inside = wider.low <= rule.low && rule.high <= wider.high && {
                (wider.low, wider.high) != (rule.low, rule.high)
            };
            if !apart && !inside {
                let (a, b) = (rule.low, rule.high);
                let (c, d) = (wider.low, wider.high);
                faults.add(path, format!("{a}-{b} and {c}-{d} overlap; which counts is unclear"));
            }
        }
    }
    TtlRules(rules)
}

fn by_status_rules(
    path: &str,
    raw: &BTreeMap<String, String>,
    faults: &mut Faults,
) -> Vec<TtlRule> {
    let mut rules = Vec::new();
    for (key, text) in raw.iter().take(MAX_TTL_RULES) {
        let path = format!("{path}.{}", key_notation(key));
        let ttl = faults.duration(&path, Some(text), Duration::ZERO, Duration::ZERO..=YEAR);
        match statuses(key) {
            Some((low, high)) => rules.push(TtlRule { low, high, ttl }),
            None => faults.add(path, "is not a status or a range: write 404 or 200-299"),
        }
    }
    rules
}

fn statuses(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok())?.filter(|status| (200..=599).contains(status))
    };
    let (low, high) = (status(low)?, status(high)?);
    (low <= high).then_some((low, high))
}

fn key(path: &str, raw: &CacheDocument, faults: &mut Faults) -> KeyRule {
    let query = query(&format!("{path}.query"), raw.query.as_deref(), faults);
    let headers = key_names(&format!("{path}.headers"), &raw.headers, faults, key_header);
    let cookies = key_names(&format!("{path}.cookies"), &raw.cookies, faults, key_cookie);
    KeyRule::new(query, headers, cookies)
}

/// Names of fields or of cookies, each once.
fn key_names<T: Clone + Eq + std::hash::Hash>(
    path: &str,
    raw: &[String],
    faults: &mut Faults,
    check: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    over(path, raw.len(), MAX_KEY_NAMES, faults);
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    for (index, text) in raw.iter().take(MAX_KEY_NAMES).enumerate() {
        match check(text) {
            Ok(name) if !seen.insert(name.clone()) => {
                faults.add(format!("{path}[{index}]"), format!("{} is there already", quote(text)));
            }
            Ok(name) => names.push(name),
            Err(message) => faults.add(format!("{path}[{index}]"), message),
        }
    }
    names
}

/// A request field that a key may hold. Refused with their reasons: what differs from visitor to visitor,
/// what the key holds already, and what the cache itself acts upon.
fn key_header(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::try_from(text)
        .ok()
        .filter(|_| text.len() <= MAX_PARAMETER_BYTES)
        .ok_or_else(|| format!("{} is not a field's name", quote(text)))?;
    let why = match name.as_str() {
        "cookie" => "differs from visitor to visitor; name single cookies in \"cookies\"",
        "authorization" | "proxy-authorization" => {
            "names one visitor; what answers it is shared only where the response allows it"
        }
        "host" => "takes part in every key already",
        "accept-encoding" => "is taken care of by Vary and by compression",
        "range"
        | "if-range"
        | "if-match"
        | "if-none-match"
        | "if-modified-since"
        | "if-unmodified-since" => "is answered from one stored response for all its values",
        "cache-control" | "pragma" => "tells the cache what to do and selects no response",
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer"
        | "transfer-encoding" | "upgrade" | "content-length" | "expect" | "max-forwards" => {
            "is of the connection or the message, not of what is asked for"
        }
        _ => return Ok(name),
    };
    Err(format!("{} cannot take part in the key: it {why}", quote(text)))
}

/// A cookie's name: a token (RFC 6265 section 4.1.1).
fn key_cookie(text: &str) -> Result<String, String> {
    let odd = |b: u8| !b.is_ascii_graphic() || b"()<>@,;:\\\"/[]?={}".contains(&b);
    if text.is_empty() || text.len() > MAX_PARAMETER_BYTES || text.bytes().any(odd) {
        return Err(format!("{} is not a cookie's name", quote(text)));
    }
    Ok(text.to_owned())
}

fn query(path: &str, text: Option<&str>, faults: &mut Faults) -> QueryKey {
    let Some(text) = text else { return QueryKey::All };
    if let Some((word @ ("include" | "exclude"), names)) = text.split_once(':') {
        let mut names: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
        over(path, names.len(), MAX_PARAMETERS, faults);
        let odd = |name: &String| {
            name.is_empty()
                || name.len() > MAX_PARAMETER_BYTES
                || name.bytes().any(|b| b <= b' ' || b == 0x7f || b"&=#".contains(&b))
        };
        if let Some(name) = names.iter().find(|name| odd(name)) {
            faults.add(path, format!("{} is not a parameter's name", quote(name)));
        }
        names.sort();
        names.dedup();
        return match word {
            "include" => QueryKey::Include(names),
            _ => QueryKey::Exclude(names),
        };
    }
    let words = [("all", 0), ("ignore", 1), ("sort", 2), ("include:a,b", 3), ("exclude:a,b", 3)];
    match choice(path, Some(text), &words, faults) {
        Some(1) => QueryKey::Ignore,
        Some(2) => QueryKey::Sort,
        _ => QueryKey::All,
    }
}

fn compress(
    path: &str,
    raw: Option<&CompressDocument>,
    faults: &mut Faults,
) -> Option<Arc<CompressRule>> {
    let raw = match raw {
        None | Some(CompressDocument::Switch(true)) => return CachePolicy::default().compress,
        Some(CompressDocument::Switch(false)) => return None,
        Some(CompressDocument::Table(raw)) => raw,
    };
    let mut rule = CompressRule::default();
    let min = format!("{path}.min");
    rule.min = faults.size(&min, raw.min.as_deref(), rule.min, 0..=MAX_COMPRESS_MIN);
    if let Some(types) = &raw.types {
        rule.types = media_types(&format!("{path}.types"), types, faults);
    }
    if let Some(codings) = &raw.codings {
        rule.codings = codings_of(&format!("{path}.codings"), codings, faults);
    }
    Some(Arc::new(rule))
}

fn media_types(path: &str, raw: &[String], faults: &mut Faults) -> Vec<TypePattern> {
    if raw.is_empty() {
        faults.add(path, "is empty: write compress = false for none");
    }
    over(path, raw.len(), MAX_TYPES, faults);
    let mut types = Vec::new();
    for (index, text) in raw.iter().take(MAX_TYPES).enumerate() {
        match TypePattern::parse(text).filter(|_| text.len() <= MAX_PARAMETER_BYTES) {
            Some(pattern) => types.push(pattern),
            None => faults.add(
                format!("{path}[{index}]"),
                format!("{} is not a media type: text/html, text/*, *+json", quote(text)),
            ),
        }
    }
    types
}

fn codings_of(path: &str, raw: &[String], faults: &mut Faults) -> Vec<Coding> {
    let words = Coding::ALL.map(|coding| (coding.name(), coding));
    if raw.is_empty() {
        faults.add(path, "is empty: write compress = false for none");
    }
    over(path, raw.len(), words.len(), faults);
    let mut codings = Vec::new();
    for (index, text) in raw.iter().take(words.len()).enumerate() {
        let path = format!("{path}[{index}]");
        match choice(&path, Some(text), &words, faults) {
            Some(coding) if codings.contains(&coding) => {
                faults.add(path, format!("{} is there already", quote(text)));
            }
            Some(coding) => codings.push(coding),
            None => {}
        }
    }
    codings
}

fn tags(path: &str, raw: &[String], faults: &mut Faults) -> Vec<String> {
    over(path, raw.len(), MAX_TAGS, faults);
    let odd = |b: u8| b <= b' ' || b == 0x7f || b == b',';
    for (index, tag) in raw.iter().take(MAX_TAGS).enumerate() {
        let path = format!("{path}[{index}]");
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES {
            faults.add(path, format!("a tag is 1 to {MAX_TAG_BYTES} bytes long"));
        } else if tag.bytes().any(odd) {
            faults.add(path, format!("{} has a space, comma or control in it", quote(tag)));
        }
    }
    raw.iter().take(MAX_TAGS).cloned().collect()
}

fn position(path: &str, text: Option<&str>, kind: Kind, faults: &mut Faults) -> CachePosition {
    let positions = [
        ("before", CachePosition::Before),
        ("behind", CachePosition::Behind),
        ("both", CachePosition::Both),
        ("off", CachePosition::Off),
    ];
    let Some(position) = choice(path, text, &positions, faults) else {
        return CachePosition::default();
    };
    let behind = matches!(position, CachePosition::Behind | CachePosition::Both);
    match kind {
        Kind::Origin => faults.add(path, "is for routes with a handler"),
        Kind::Handler if behind => {
            faults.add(path, "needs an origin in this route: there is nothing behind the handler");
        }
        _ => {}
    }
    position
}
