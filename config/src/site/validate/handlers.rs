//! The handlers of a site: where their components are and what a request may use. Opens none.

use super::{Context, choice, failure, hosts, over};
use crate::Faults;
use crate::check::MS;
use crate::read::key_notation;
use crate::site::{
    ComponentRef, Grant, Handler, HandlerDocument, HandlerLimits, LimitsDocument, named_origin,
};
use crate::units::quote;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The most CPU time of a request.
pub const MAX_CPU: Duration = Duration::from_secs(10);
/// The most wall-clock time of a request.
pub const MAX_WALL: Duration = Duration::from_secs(15 * 60);
/// The most memory of an instance, in bytes; an edge may set less.
pub const MAX_MEMORY: u64 = 1 << 30;
/// The most outgoing requests of a request.
pub const MAX_FETCHES: u32 = 1_000;
/// The most calls of the cache of a request.
pub const MAX_CACHE_CALLS: u32 = 1_000;
/// The most calls of the key-value store of a request.
pub const MAX_KV_CALLS: u32 = 1_000;
/// The most requests that an instance may serve.
pub const MAX_REQUESTS: u32 = 10_000;
/// The most environment variables, and the most keys of a configuration.
const MAX_VALUES: usize = 128;
/// The most bytes of the names and values of either.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// The longest key of a configuration, in bytes.
const MAX_KEY_BYTES: usize = 128;
/// The most outside hosts.
const MAX_FETCH_HOSTS: usize = 256;
/// One page, without which no memory is.
const PAGE: u64 = 64 * 1024;

pub(super) fn check(
    path: &str,
    name: &str,
    raw: &HandlerDocument,
    context: Context,
    faults: &mut Faults,
) -> Handler {
    let component = component(&format!("{path}.component"), &raw.component, context, faults);
    env(path, &raw.env, faults);
    config(path, &raw.config, faults);
    Handler {
        name: Arc::from(name),
        component,
        limits: limits(path, raw.limits.as_ref(), faults),
        env: raw.env.clone(),
        config: raw.config.clone(),
        fetch: fetch(path, &raw.fetch, faults),
        grants: grants(path, &raw.grants, faults),
        on_failure: failure::on_failure(path, raw.on_failure.as_deref(), faults),
        breaker: failure::breaker(path, raw.breaker.as_ref(), faults),
    }
}

fn component(path: &str, text: &str, context: Context, faults: &mut Faults) -> ComponentRef {
    match ComponentRef::parse(text) {
        Some(ComponentRef::Path(_)) if context == Context::Fleet => {
            let hint = "a site of a fleet names components by digest (sha256:…); `verge deploy` \
                        uploads the file and puts the digest in";
            faults.add(path, format!("{} is a path; {hint}", quote(text)));
        }
        Some(component) => return component,
        None if text.is_empty() => {
            faults.add(path, "is missing: a path, or \"sha256:\" and 64 hexadecimal digits");
        }
        None => {
            let wanted = "\"sha256:\" and 64 lower-case hexadecimal digits, or a path";
            faults.add(path, format!("{} is not {wanted}", quote(text)));
        }
    }
    ComponentRef::Path(String::new())
}

fn limits(path: &str, raw: Option<&LimitsDocument>, faults: &mut Faults) -> HandlerLimits {
    let default = HandlerLimits::default();
    let Some(raw) = raw else { return default };
    let at = |name: &str| format!("{path}.limits.{name}");
    let cpu = faults.duration(&at("cpu"), raw.cpu.as_deref(), default.cpu, MS..=MAX_CPU);
    let wall = faults.duration(&at("wall"), raw.wall.as_deref(), default.wall, MS..=MAX_WALL);
    let memory =
        faults.size(&at("memory"), raw.memory.as_deref(), default.memory, PAGE..=MAX_MEMORY);
    let mut count = |name: &str, raw: Option<u32>, default: u32, range: RangeInclusive<u32>| {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        let count = faults.count(&at(name), raw.map(u64::from), u64::from(default), range);
        u32::try_from(count).unwrap_or(default)
    };
    let fetches = count("fetches", raw.fetches, default.fetches, 0..=MAX_FETCHES);
    let cache_calls =
        count("cache_calls", raw.cache_calls, default.cache_calls, 0..=MAX_CACHE_CALLS);
    let kv_calls = count("kv_calls", raw.kv_calls, default.kv_calls, 0..=MAX_KV_CALLS);
    let requests = count("requests", raw.requests, default.requests, 1..=MAX_REQUESTS);
    HandlerLimits { cpu, memory, wall, fetches, cache_calls, kv_calls, requests }
}

fn env(path: &str, env: &BTreeMap<String, String>, faults: &mut Faults) {
    let path = format!("{path}.env");
    bounded(&path, env, faults);
    for (name, value) in env.iter().take(MAX_VALUES) {
        let path = format!("{path}.{}", key_notation(name));
        let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let starts_well = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
        if !starts_well || !name.bytes().all(letters) {
            faults.add(path, "is not a variable's name: letters, digits and _, no digit first");
        } else if value.contains('\0') {
            faults.add(path, "must not contain a zero byte");
        }
    }
}

fn config(path: &str, config: &BTreeMap<String, String>, faults: &mut Faults) {
    let path = format!("{path}.config");
    bounded(&path, config, faults);
    for key in config.keys().take(MAX_VALUES) {
        let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.bytes().all(letters) {
            let rule = format!("is not a key: 1 to {MAX_KEY_BYTES} letters, digits, _, - and dots");
            faults.add(format!("{path}.{}", key_notation(key)), rule);
        }
    }
}

/// Notes that a table of names and values is too long.
fn bounded(path: &str, table: &BTreeMap<String, String>, faults: &mut Faults) {
    over(path, table.len(), MAX_VALUES, faults);
    let bytes: usize = table.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_VALUE_BYTES {
        let message = format!("{bytes} bytes of names and values; at most {MAX_VALUE_BYTES}");
        faults.add(path, message);
    }
}

fn grants(path: &str, raw: &[String], faults: &mut Faults) -> BTreeSet<Grant> {
    let words = Grant::ALL.map(|grant| (grant.name(), grant));
    over(&format!("{path}.grants"), raw.len(), MAX_VALUES, faults);
    let mut granted = BTreeSet::new();
    for (index, text) in raw.iter().take(MAX_VALUES).enumerate() {
        let path = format!("{path}.grants[{index}]");
        if matches!(text.as_str(), "config" | "logging") {
            faults.add(path, format!("{} needs no grant: every handler has it", quote(text)));
            continue;
        }
        match choice(&path, Some(text), &words, faults) {
            Some(grant) if !granted.insert(grant) => {
                faults.add(path, format!("{} is there already", quote(text)));
            }
            _ => {}
        }
    }
    granted
}

fn fetch(path: &str, raw: &[String], faults: &mut Faults) -> Vec<String> {
    over(&format!("{path}.fetch"), raw.len(), MAX_FETCH_HOSTS, faults);
    let mut allowed = Vec::new();
    for (index, text) in raw.iter().take(MAX_FETCH_HOSTS).enumerate() {
        match hosts::name_and_port(text, true) {
            Ok(host) if named_origin(&host).is_some() => {
                let message = "names an origin of the site, which its handlers call without that";
                faults.add(format!("{path}.fetch[{index}]"), format!("{} {message}", quote(text)));
            }
            Ok(host) => allowed.push(host),
            Err(message) => faults.add(format!("{path}.fetch[{index}]"), message),
        }
    }
    allowed
}
