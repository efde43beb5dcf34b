//! Says what the edge would do with a URL and why: the rule, the key, what is stored.

use super::Edge;
use crate::admit;
use crate::routing::{self, NoRoute};
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde_json::{Value, json};
use verge_config::site::{CacheMode, Target};

/// Why a URL cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Not an absolute URL.
    #[error("not a URL with scheme and host, as in https://shop.example/path")]
    NotAUrl,
}

impl Edge {
    /// What would happen to a GET of `url`.
    ///
    /// # Errors
    /// When it is not an absolute http or https URL.
    pub fn explain(&self, url: &str) -> Result<Value, ExplainError> {
        let uri: Uri = url.parse().map_err(|_| ExplainError::NotAUrl)?;
        let scheme = uri.scheme_str().ok_or(ExplainError::NotAUrl)?;
        let authority = uri.authority().ok_or(ExplainError::NotAUrl)?;
        let authority = HeaderValue::from_str(authority.as_str());
        let authority = authority.map_err(|_| ExplainError::NotAUrl)?;
        let host = admit::host_of(&authority);
        let snapshot = self.snapshot.load();
        let revision = snapshot.revision;
        let found = match routing::find(&snapshot, &host, uri.path()) {
            Ok(found) => found,
            Err(why) => {
                let reason = match why {
                    NoRoute::Host => "no site answers this host",
                    NoRoute::Path => "the site has no route for this path",
                };
                return Ok(
                    json!({ "url": url, "host": host, "revision": revision, "error": reason }),
                );
            }
        };
        let (site, route) = (found.site, found.route);
        let headers = HeaderMap::new();
        let request = verge_cache::Request {
            site: &site.name,
            scheme,
            host: &host,
            path: uri.path(),
            query: uri.query(),
            method: &Method::GET,
            headers: &headers,
            policy: &route.cache,
        };
        Ok(json!({
            "url": url,
            "host": host,
            "edge": self.id,
            "revision": revision,
            "site": site.name,
            "version": site.version,
            "rule": {
                "route": format!("routes[{}]", route.index),
                "path": route.path.as_str(),
                "captures": found.captures(uri.path()),
                "target": target(&route.target),
                "cache": mode(&route.cache.mode),
            },
            "cache": self.cache.explain(&request),
        }))
    }
}

fn target(target: &Target) -> Value {
    match target {
        Target::Origin(origin) => json!({ "origin": origin.name }),
        Target::Handler { handler, origin } => json!({
            "handler": handler.name,
            "origin": origin.as_ref().map(|origin| &origin.name),
        }),
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
