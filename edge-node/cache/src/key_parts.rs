//! How a rule counts a request's query, fields and cookies; pure, knows no other part of a key.

use crate::vary;
use http::HeaderMap;
use http::header::COOKIE;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt::Write;
use verge_config::site::{KeyRule, QueryKey};

/// The longest value of a field or cookie that a key holds, in bytes; of a longer one it holds the
/// SHA-256, since visitors who could make two values meet could have one served for the other.
pub const MAX_VALUE_BYTES: usize = 1_024;

/// A raw query as a rule counts it.
#[must_use]
pub fn query<'a>(rule: &QueryKey, raw: Option<&'a str>) -> Option<Cow<'a, str>> {
    match rule {
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

/// The fields and cookies that count: `x-device=mobile;cookie:lang=de`. A name alone is an absent one,
/// which is not the same as an empty one; `#` in the place of `=` leads a digest.
#[must_use]
pub fn extras(rule: &KeyRule, headers: &HeaderMap) -> Option<String> {
    if !rule.has_extras() {
        return None;
    }
    let mut out = String::new();
    for name in rule.headers() {
        push(&mut out, "", name.as_str(), vary::normal(name, headers));
    }
    for name in rule.cookies() {
        push(&mut out, "cookie:", name, cookie(name, headers));
    }
    Some(out)
}

/// One entry. The rule fixes the names and their order, so that entries need no escaping of names.
fn push(out: &mut String, kind: &str, name: &str, value: Option<String>) {
    if !out.is_empty() {
        out.push(';');
    }
    out.push_str(kind);
    out.push_str(name);
    let Some(value) = value else { return };
    if value.len() > MAX_VALUE_BYTES {
        out.push('#');
        for byte in Sha256::digest(value.as_bytes()) {
            // Writing to a string does not fail.
            let _ = write!(out, "{byte:02x}");
        }
        return;
    }
    out.push('=');
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' && byte != b';' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Every value of a cookie, in order: which of several counts differs from origin to origin.
fn cookie(name: &str, headers: &HeaderMap) -> Option<String> {
    let mut found: Option<String> = None;
    for line in headers.get_all(COOKIE) {
        for pair in vary::text(line).split(';') {
            let Some((own, value)) = pair.split_once('=') else { continue };
            if own.trim_matches([' ', '\t']) != name {
                continue;
            }
            let value = value.trim_matches([' ', '\t']);
            match &mut found {
                None => found = Some(value.to_owned()),
                Some(found) => {
                    found.push(',');
                    found.push_str(value);
                }
            }
        }
    }
    found
}
