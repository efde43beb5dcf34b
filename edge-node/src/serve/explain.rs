//! Says what the edge would do with a URL and why: the rule, the key, what is stored.

use super::Edge;
use crate::admit;
use crate::routing::{self, NoRoute};
use crate::snapshot::SiteRuntime;
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde_json::{Value, json};
use verge_cache::key::{Key, KeyRef};
use verge_cache::{Explanation, State};
use verge_config::site::{CacheMode, Route, Target};

/// The most tags that an explanation names.
const MAX_TAGS: usize = 100;

/// Why a URL cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Not an absolute URL.
    #[error("not a URL with scheme and host, as in https://shop.example/path")]
    NotAUrl,
    /// The host is another site's here than the asker may know of.
    #[error("on this edge the host is not of the site that was asked about")]
    AnotherSite,
}

/// A GET that is to be explained.
#[derive(Debug, Clone, Copy)]
pub struct Wondered<'a> {
    /// The URL, with scheme and host.
    pub url: &'a str,
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// The only site that may be told of; any when absent.
    pub site: Option<&'a str>,
}

/// A GET, explained.
#[derive(Debug, Clone)]
pub struct Explained {
    /// What there is to say.
    pub value: Value,
    /// Under what it is, or would be, stored, and the stored tags; absent where nothing is routed.
    pub stored_as: Option<(Key, Vec<String>)>,
}

impl Edge {
    /// What would happen to a GET.
    ///
    /// # Errors
    /// When it is not of an absolute http or https URL, or of another site than may be told of.
    pub fn explain(&self, wondered: &Wondered<'_>) -> Result<Explained, ExplainError> {
        let url = wondered.url;
        let uri: Uri = url.parse().map_err(|_| ExplainError::NotAUrl)?;
        let scheme = uri.scheme_str().ok_or(ExplainError::NotAUrl)?;
        let authority = uri.authority().ok_or(ExplainError::NotAUrl)?;
        let authority = HeaderValue::from_str(authority.as_str());
        let authority = authority.map_err(|_| ExplainError::NotAUrl)?;
        let host = admit::host_of(&authority);
        let snapshot = self.snapshot.load();
        let revision = snapshot.revision;
        let site = snapshot.site_for(&host);
        if wondered.site.is_some() && wondered.site != site.map(|site| &**site.name) {
            return Err(ExplainError::AnotherSite);
        }
        let found = match routing::find(&snapshot, &host, uri.path()) {
            Ok(found) => found,
            Err(why) => {
                let reason = match why {
                    NoRoute::Host => "no site answers this host",
                    NoRoute::Path => "the site has no route for this path",
                };
                let value = json!({
                    "url": url, "host": host, "edge": self.id, "revision": revision, "error": reason,
                });
                return Ok(Explained { value, stored_as: None });
            }
        };
        let (site, route) = (found.site, found.route);
        let request = verge_cache::Request {
            site: &site.name,
            scheme,
            host: &host,
            path: uri.path(),
            query: uri.query(),
            method: &Method::GET,
            headers: wondered.headers,
            policy: &route.cache,
        };
        let explanation = self.cache.explain(&request);
        let mut value = json!({
            "url": url,
            "host": host,
            "edge": self.id,
            "revision": revision,
            "site": **site.name,
            "version": site.version,
            "rule": {
                "route": format!("routes[{}]", route.index),
                "path": route.path.as_str(),
                "captures": found.captures(uri.path()),
                "target": target(&route.target),
                "cache": mode(&route.cache.mode),
                "why": why_route(site, route),
            },
            "cache": cache(&explanation, route),
        });
        if let (Value::Object(fields), Some(now)) = (&mut value, handler_now(site, route)) {
            fields.insert("handler".to_owned(), now);
        }
        let key = KeyRef::of(&request).keep();
        Ok(Explained { value, stored_as: Some((key, explanation.tags)) })
    }
}

/// How a route's handlers are at present: whether their breakers let requests through, and how many of
/// the site's places are taken.
fn handler_now(site: &SiteRuntime, route: &Route) -> Option<Value> {
    let Target::Handler { chain, .. } = &route.target else { return None };
    let breaker = |name: &str| {
        let is_closed = site.handler(name)?.fuse.is_closed();
        Some(if is_closed { "closed" } else { "open" })
    };
    let (running, most) = (site.gate.running(), site.gate.most());
    Some(match chain.handlers() {
        [alone] => json!({ "breaker": breaker(&alone.name)?, "running": running, "most": most }),
        several => {
            let breakers: serde_json::Map<String, Value> = several
                .iter()
                .filter_map(|one| Some((one.name.to_string(), breaker(&one.name)?.into())))
                .collect();
            json!({
                "breakers": breakers,
                "running": running,
                "most": most,
                "running_behind": site.gate.running_behind(),
                "most_behind": site.gate.most_behind(),
            })
        }
    })
}

/// The cache's part, with the reason in words and no more tags than can be read.
fn cache(explanation: &Explanation, route: &Route) -> Value {
    let mut shown = explanation.clone();
    shown.tags.truncate(MAX_TAGS);
    let mut value = serde_json::to_value(&shown).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        let untold = explanation.tags.len() - shown.tags.len();
        if untold > 0 {
            fields.insert("more_tags".to_owned(), json!(untold));
        }
        fields.insert("why".to_owned(), Value::String(why_stored(explanation, route)));
    }
    value
}

fn why_route(site: &SiteRuntime, route: &Route) -> String {
    let all = site.site.routes.len();
    match route.index {
        0 => format!("the path matches the first of {all} routes"),
        before => format!("the path matches, and none of the {before} routes before it does"),
    }
}

/// Why a response is, or is not, stored.
fn why_stored(explanation: &Explanation, route: &Route) -> String {
    if matches!(route.target, Target::Static(_) | Target::Redirect { .. }) {
        return "the route answers by itself: nothing is stored".to_owned();
    }
    if route.cache.mode == CacheMode::Bypass {
        return "the route bypasses the cache".to_owned();
    }
    let ttl = explanation.ttl.unwrap_or_default();
    let source = explanation.ttl_source.map(super::debug::word).unwrap_or_default();
    match explanation.state {
        State::Fresh => format!("stored and fresh for {ttl} s more, by {source}"),
        State::Stale if ttl > 0 => "stored, and stale since a soft purge".to_owned(),
        State::Stale => format!("stored and stale for {} s, by {source}", -ttl),
        State::TooLarge => "the last answer was larger than what is stored".to_owned(),
        State::HitForMiss | State::Absent => match explanation.not_stored {
            Some(reason) => {
                format!("the last answer was not stored: {}", super::debug::word(reason))
            }
            None if explanation.variants > 0 => format!(
                "{} variants are stored, and none is for a request with these fields",
                explanation.variants
            ),
            None => "not asked for since the start, or evicted, or purged".to_owned(),
        },
    }
}

fn target(target: &Target) -> Value {
    match target {
        Target::Origin(origin) => json!({ "origin": origin.name }),
        Target::Handler { chain, origin } => {
            let origin = origin.as_ref().map(|origin| &origin.name);
            match chain.handlers() {
                [alone] => json!({ "handler": alone.name, "origin": origin }),
                several => {
                    let names: Vec<_> = several.iter().map(|handler| &handler.name).collect();
                    json!({ "handlers": names, "origin": origin })
                }
            }
        }
        Target::Redirect { to, status } => json!({ "redirect": to, "status": status }),
        Target::Static(response) => json!({ "static": response.status }),
    }
}

fn mode(mode: &CacheMode) -> &'static str {
    match mode {
        CacheMode::Respect => "respect: the response says how long",
        CacheMode::Override(_) => "override: the route says how long",
        CacheMode::Bypass => "bypass: nothing is stored",
    }
}
