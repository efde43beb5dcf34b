//! The routes of a site: one target each, paths that can match, references that resolve.

use super::{MAX_ROUTES, cache, failure, over};
use crate::Faults;
use crate::site::{
    Chain, ClientCacheControl, Handler, MAX_CHAIN, Origin, PathPattern, RedirectDocument, Route,
    RouteDocument, SiteDocument, StaticDocument, StaticResponse, Target,
};
use crate::units::{nearest, quote};
use http::{HeaderName, HeaderValue, Uri};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// The most stars of a pattern.
const MAX_STARS: usize = 8;
/// The longest pattern or location, in bytes.
const MAX_PATH_BYTES: usize = 2_048;
/// The most fields of a static response, and the longest content.
const MAX_HEADERS: usize = 64;
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The longest value of a field.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// Fields that the edge writes itself (RFC 9110 section 7.6.1, RFC 9112 section 6).
const OWN_FIELDS: [&str; 11] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "age",
    "cache-status",
];

/// What routes refer to.
pub(super) struct Parts<'s> {
    pub(super) document: &'s SiteDocument,
    pub(super) origins: &'s BTreeMap<String, Arc<Origin>>,
    pub(super) handlers: &'s BTreeMap<String, Arc<Handler>>,
}

pub(super) fn check(
    parts: &Parts<'_>,
    client_cache_control: ClientCacheControl,
    faults: &mut Faults,
) -> Vec<Arc<Route>> {
    let raw = &parts.document.routes;
    if raw.is_empty() {
        faults.add("routes", "is missing: without a route, every request is a 404");
    }
    over("routes", raw.len(), MAX_ROUTES, faults);
    let mut routes = Vec::new();
    for (index, route) in raw.iter().take(MAX_ROUTES).enumerate() {
        let at = format!("routes[{index}]");
        match pattern(&route.path) {
            Ok(()) => unreachable_after(raw, index, &at, faults),
            Err(message) => faults.add(format!("{at}.path"), message),
        }
        let stars = route.path.matches('*').count();
        let (target, kind) = match target(&at, route, stars, parts, faults) {
            Some((target, kind)) => (Some(target), kind),
            None => (None, cache::Kind::Unknown),
        };
        let cache = route.cache.as_ref();
        let mut cache =
            cache::check(&format!("{at}.cache"), cache, kind, client_cache_control, faults);
        failure::stand_in(target.as_ref(), &mut cache);
        if let Some(target) = target {
            let path = PathPattern::new(&route.path);
            routes.push(Arc::new(Route { index, path, target, cache: cache.shared() }));
        }
    }
    routes
}

fn pattern(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("is missing: for instance \"/*\"".to_owned());
    }
    if !path.starts_with('/') {
        return Err(format!("{} must begin with \"/\"", quote(path)));
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(format!("{} bytes long; at most {MAX_PATH_BYTES}", path.len()));
    }
    if let Some(odd) = path.chars().find(|c| !c.is_ascii_graphic() || "?#".contains(*c)) {
        let hint = "a path as it is sent, percent-encoded, without a query";
        return Err(format!("{} has {odd:?} in it; write {hint}", quote(path)));
    }
    if path.contains("**") {
        return Err(format!("{}: one \"*\" stands for \"/\" too; write it once", quote(path)));
    }
    let stars = path.matches('*').count();
    if stars > MAX_STARS {
        return Err(format!("{stars} stars; at most {MAX_STARS}"));
    }
    Ok(())
}

/// Notes that no request reaches a route, since an earlier one takes them all.
fn unreachable_after(raw: &[RouteDocument], index: usize, at: &str, faults: &mut Faults) {
    let Some(route) = raw.get(index) else { return };
    let literal = route.path.split('*').next().unwrap_or_default();
    let takes_all = |earlier: &RouteDocument| {
        let prefix = earlier.path.strip_suffix('*').filter(|prefix| !prefix.contains('*'));
        earlier.path == route.path || prefix.is_some_and(|prefix| literal.starts_with(prefix))
    };
    let earlier = raw.iter().take(index).position(takes_all);
    if let Some((earlier, taken)) = earlier.and_then(|e| raw.get(e).map(|r| (e, &r.path))) {
        let taken = quote(taken);
        let message = format!(
            "{} is never reached: routes[{earlier}] ({taken}) takes all its requests",
            quote(&route.path)
        );
        faults.add(format!("{at}.path"), message);
    }
}

fn target(
    at: &str,
    route: &RouteDocument,
    stars: usize,
    parts: &Parts<'_>,
    faults: &mut Faults,
) -> Option<(Target, cache::Kind)> {
    let origin_name = route.origin.as_deref();
    let origin = origin_name.map(|name| (format!("{at}.origin"), name)).map(|(at, name)| {
        reference(&at, "origin", name, &parts.document.origins, parts.origins, faults)
    });
    let chain = chain(at, route, parts, faults);
    let redirect = route.redirect.as_ref().map(|raw| redirect(at, raw, stars, faults));
    let fixed = route.fixed.as_ref().map(|raw| fixed(at, raw, faults));
    match (origin, chain, redirect, fixed) {
        (Some(origin), None, None, None) => Some((Target::Origin(origin?), cache::Kind::Origin)),
        (None, Some(chain), None, None) => {
            Some((Target::Handler { chain: chain?, origin: None }, cache::Kind::Handler))
        }
        (Some(origin), Some(chain), None, None) => {
            let target = Target::Handler { chain: chain?, origin: Some(origin?) };
            Some((target, cache::Kind::HandlerAndOrigin))
        }
        (None, None, Some(target), None) => Some((target, cache::Kind::Made)),
        (None, None, None, Some(target)) => Some((target, cache::Kind::Made)),
        (None, None, None, None) => {
            faults.add(at, "names no target: origin, handler, handlers, redirect or static");
            None
        }
        _ => {
            let rule = "one of origin, handler, handlers, redirect and static; only handlers may \
                        have an origin besides";
            faults.add(at, format!("names several targets; a route has {rule}"));
            None
        }
    }
}

/// The handlers of a route, where it names any; none inside where what it names is at fault.
fn chain(
    at: &str,
    route: &RouteDocument,
    parts: &Parts<'_>,
    faults: &mut Faults,
) -> Option<Option<Chain>> {
    let find = |at: &str, name: &str, faults: &mut Faults| {
        reference(at, "handler", name, &parts.document.handlers, parts.handlers, faults)
    };
    let alone = route.handler.as_deref().map(|name| find(&format!("{at}.handler"), name, faults));
    let Some(names) = &route.handlers else {
        return alone.map(|handler| Chain::new(vec![handler?]));
    };
    let at = format!("{at}.handlers");
    if alone.is_some() {
        let message = "stands beside handler; write one of the two: handlers for several, in order";
        faults.add(at.as_str(), message);
    }
    if names.is_empty() {
        faults.add(at.as_str(), "is empty; name at least one handler, or leave it out");
    }
    over(&at, names.len(), MAX_CHAIN, faults);
    let (mut seen, mut handlers) = (HashSet::new(), Vec::new());
    for (index, name) in names.iter().take(MAX_CHAIN).enumerate() {
        let at = format!("{at}[{index}]");
        if !seen.insert(name) {
            faults.add(at, format!("{} is there already", quote(name)));
        } else if let Some(handler) = find(&at, name, faults) {
            handlers.push(handler);
        }
    }
    let is_whole = alone.is_none() && handlers.len() == names.len();
    Some(Chain::new(handlers).filter(|_| is_whole))
}

/// What a name stands for.
fn reference<R, T>(
    at: &str,
    kind: &str,
    name: &str,
    raw: &BTreeMap<String, R>,
    all: &BTreeMap<String, Arc<T>>,
    faults: &mut Faults,
) -> Option<Arc<T>> {
    if let Some(found) = all.get(name) {
        return Some(Arc::clone(found));
    }
    let hint = match nearest(name, raw.keys().map(String::as_str)) {
        Some(meant) => format!("; did you mean {}?", quote(meant)),
        None if raw.is_empty() => format!("; the site has no {kind}s"),
        None => String::new(),
    };
    faults.add(at, format!("no {kind} named {}{hint}", quote(name)));
    None
}

fn redirect(at: &str, raw: &RedirectDocument, stars: usize, faults: &mut Faults) -> Target {
    let path = format!("{at}.redirect.to");
    let to = raw.to.as_str();
    let lower = to.get(..8).unwrap_or(to).to_ascii_lowercase();
    let absolute = lower.starts_with("http://") || lower.starts_with("https://");
    if to.is_empty() {
        faults.add(path.as_str(), "is missing: the location, for instance \"/new/$1\"");
    } else if to.len() > MAX_PATH_BYTES {
        faults.add(path.as_str(), format!("{} bytes long; at most {MAX_PATH_BYTES}", to.len()));
    } else if !absolute && !to.starts_with('/') {
        faults.add(path.as_str(), format!("{} must begin with / or https://", quote(to)));
    } else if !to.bytes().all(|b| b.is_ascii_graphic()) || to.contains('\\') {
        let message = format!("{} must be a URL or a path, percent-encoded", quote(to));
        faults.add(path.as_str(), message);
    } else if absolute && host_from_visitor(to) {
        let message = "a capture may not be part of the host: visitors would choose where to go";
        faults.add(path.as_str(), message);
    } else if absolute && to.replace('$', "").parse::<Uri>().is_err() {
        faults.add(path.as_str(), format!("{} is not a URL", quote(to)));
    }
    for capture in captures(to).filter(|n| *n > stars) {
        let message = format!("${capture} is not there: the path has {stars} stars");
        faults.add(path.as_str(), message);
    }
    let status = raw.status.unwrap_or(308);
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        let message = format!("{status} is not a redirect: 301, 302, 303, 307 or 308");
        faults.add(format!("{at}.redirect.status"), message);
    }
    Target::Redirect { to: to.to_owned(), status }
}

/// The numbers of the captures that a location names: `$1` … `$9`; `$0` is the path.
fn captures(to: &str) -> impl Iterator<Item = usize> + '_ {
    to.split('$').skip(1).filter_map(|rest| {
        let digit = rest.chars().next()?.to_digit(10)?;
        usize::try_from(digit).ok()
    })
}

/// Whether a capture takes part in the authority of an absolute location.
fn host_from_visitor(to: &str) -> bool {
    let rest = to.split_once("://").map_or("", |(_, rest)| rest);
    match rest.split_once('$') {
        Some((before, _)) => !before.contains(['/', '?', '#']),
        None => false,
    }
}

fn fixed(at: &str, raw: &StaticDocument, faults: &mut Faults) -> Target {
    let at = format!("{at}.static");
    let status = raw.status.unwrap_or(200);
    if !(200..=599).contains(&status) {
        faults.add(format!("{at}.status"), format!("{status} is out of bounds: 200 to 599"));
    }
    if matches!(status, 204 | 205 | 304) && !raw.body.is_empty() {
        faults.add(format!("{at}.body"), format!("a {status} has no content"));
    }
    if raw.body.len() > MAX_BODY_BYTES {
        let message = format!("{} bytes long; at most {MAX_BODY_BYTES}", raw.body.len());
        faults.add(format!("{at}.body"), message);
    }
    over(&format!("{at}.headers"), raw.headers.len(), MAX_HEADERS, faults);
    let mut headers = Vec::new();
    for (name, value) in raw.headers.iter().take(MAX_HEADERS) {
        match field(name, value) {
            Ok(name) => headers.push((name, value.clone())),
            Err(message) => {
                let key = crate::read::key_notation(name);
                faults.add(format!("{at}.headers.{key}"), message);
            }
        }
    }
    Target::Static(Arc::new(StaticResponse { status, headers, body: raw.body.clone() }))
}

fn field(name: &str, value: &str) -> Result<String, String> {
    let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err("is not a field's name".to_owned());
    };
    if OWN_FIELDS.contains(&known.as_str()) {
        return Err("is written by the edge itself".to_owned());
    }
    if value.len() > MAX_HEADER_BYTES || HeaderValue::from_str(value).is_err() {
        return Err(format!("{} is not a field's value", quote(value)));
    }
    Ok(known.as_str().to_owned())
}
