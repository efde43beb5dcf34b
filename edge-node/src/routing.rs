//! Which site and which route a request is for, and where a redirect leads. Pure: values in, values
//! out; may not know sockets, the cache or the sandbox.

mod redirect;

use crate::snapshot::{SiteRuntime, Snapshot};
use ahash::RandomState;
use std::collections::HashMap;
use std::sync::Arc;
use verge_config::site::{CachePolicy, CachePosition, Captures, PathPattern, Route, Target};

pub use redirect::location;

/// A request's site and route.
#[derive(Debug, Clone, Copy)]
pub struct Match<'s> {
    /// The site.
    pub site: &'s Arc<SiteRuntime>,
    /// The first of its routes that holds the path.
    pub route: &'s Arc<Route>,
    /// The route's policy, when the cache is its first stop.
    pub cached_first: Option<&'s Arc<CachePolicy>>,
}

/// Why a request has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoRoute {
    /// No site answers the host.
    #[error("no site answers this host")]
    Host,
    /// The site has no route for the path.
    #[error("the site has no route for this path")]
    Path,
}

/// A site's routes, compiled: the same answers as trying each in order, in less time. Of a site with one
/// route for everything, nothing but this itself is read: with ten thousand sites, every reference that a
/// hit follows is a wait for memory.
#[derive(Debug)]
#[repr(C)]
pub struct Router {
    /// The first route that holds every path; those behind it are never reached.
    every: Option<Stop>,
    /// Those before it, where there are any.
    before: Option<Box<Ordered>>,
    routes: Vec<Arc<Route>>,
}

/// A route, and what a hit wants to know of it.
#[derive(Debug, Clone)]
pub struct Stop {
    /// The route.
    pub route: Arc<Route>,
    /// Its policy, when the cache is its first stop.
    pub cached_first: Option<Arc<CachePolicy>>,
}

/// Routes of which the first that holds a path counts.
#[derive(Debug, Default)]
struct Ordered {
    stops: Vec<Stop>,
    /// The first route of each pattern without a star.
    exact: HashMap<Box<str>, usize, RandomState>,
    /// Patterns with stars whose literal start holds a whole first segment, by that segment.
    by_segment: HashMap<Box<str>, Vec<Starred>, RandomState>,
    /// Patterns with stars that may match under any first segment.
    anywhere: Vec<Starred>,
}

/// A pattern with a star and its place in the order.
#[derive(Debug)]
struct Starred {
    index: usize,
    test: Test,
}

#[derive(Debug)]
enum Test {
    /// Literal text and one star at the end.
    Prefix(Box<str>),
    /// Anything else.
    Pattern(PathPattern),
}

/// The site and the route of a request.
///
/// # Errors
/// Why it has none.
pub fn find<'s>(snapshot: &'s Snapshot, host: &str, path: &str) -> Result<Match<'s>, NoRoute> {
    let site = snapshot.site_for(host).ok_or(NoRoute::Host)?;
    within(site, path)
}

/// The route of a request whose site is known.
///
/// # Errors
/// That it has none.
pub fn within<'s>(site: &'s Arc<SiteRuntime>, path: &str) -> Result<Match<'s>, NoRoute> {
    let Stop { route, cached_first } = site.routes.find(path).ok_or(NoRoute::Path)?;
    Ok(Match { site, route, cached_first: cached_first.as_ref() })
}

// === impl Match ===

impl Match<'_> {
    /// What the stars of the route's pattern stand for in `path`; computed only when asked for.
    #[must_use]
    pub fn captures<'p>(&self, path: &'p str) -> Captures<'p> {
        self.route.path.captures(path).unwrap_or_default()
    }
}

// === impl Router ===

impl Router {
    /// Compiles routes; their order is their precedence.
    #[must_use]
    pub fn new(routes: Vec<Arc<Route>>) -> Router {
        // Targets begin with a slash, but for the `*` of OPTIONS.
        let every = routes.iter().position(|route| route.path.as_str() == "/*");
        let before = routes.get(..every.unwrap_or(routes.len())).unwrap_or_default();
        let before = (!before.is_empty()).then(|| Box::new(Ordered::new(before)));
        let every = every.and_then(|index| routes.get(index)).map(Stop::new);
        Router { every, before, routes }
    }

    /// The first route, in order, whose pattern holds the path.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Stop> {
        let before = self.before.as_ref().and_then(|ordered| ordered.find(path));
        before.or_else(|| self.every.as_ref().filter(|_| path.starts_with('/')))
    }

    /// All routes, in order.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }
}

// === impl Stop ===

impl Stop {
    fn new(route: &Arc<Route>) -> Stop {
        let first = match &route.target {
            Target::Origin(_) => true,
            Target::Handler { .. } => {
                matches!(route.cache.position, CachePosition::Before | CachePosition::Both)
            }
            Target::Redirect { .. } | Target::Static(_) => false,
        };
        Stop { route: Arc::clone(route), cached_first: first.then(|| Arc::clone(&route.cache)) }
    }
}

// === impl Ordered ===

impl Ordered {
    fn new(routes: &[Arc<Route>]) -> Ordered {
        let mut ordered =
            Ordered { stops: routes.iter().map(Stop::new).collect(), ..Ordered::default() };
        for (index, route) in routes.iter().enumerate() {
            let text = route.path.as_str();
            let Some((literal, rest)) = text.split_once('*') else {
                ordered.exact.entry(text.into()).or_insert(index);
                continue;
            };
            let test = if rest.is_empty() {
                Test::Prefix(literal.into())
            } else {
                Test::Pattern(route.path.clone())
            };
            let starred = Starred { index, test };
            match whole_segment(literal) {
                Some(segment) => {
                    ordered.by_segment.entry(segment.into()).or_default().push(starred);
                }
                None => ordered.anywhere.push(starred),
            }
        }
        ordered
    }

    fn find(&self, path: &str) -> Option<&Stop> {
        let mut best = self.exact.get(path).copied().unwrap_or(usize::MAX);
        if !self.by_segment.is_empty() {
            let under = whole_segment(path).and_then(|segment| self.by_segment.get(segment));
            best = first(under.map_or(&[], Vec::as_slice), path, best);
        }
        best = first(&self.anywhere, path, best);
        self.stops.get(best)
    }
}

// === impl Starred ===

impl Starred {
    fn holds(&self, path: &str) -> bool {
        match &self.test {
            Test::Prefix(prefix) => path.starts_with(&**prefix),
            Test::Pattern(pattern) => pattern.matches(path),
        }
    }
}

/// The lowest index below `best` of a pattern that holds the path, or `best`.
fn first(starred: &[Starred], path: &str, best: usize) -> usize {
    starred
        .iter()
        .take_while(|starred| starred.index < best)
        .find(|starred| starred.holds(path))
        .map_or(best, |starred| starred.index)
}

/// `assets` of `/assets/…`: the first segment when a slash ends it, so that text that begins so can
/// only match paths that begin so.
fn whole_segment(text: &str) -> Option<&str> {
    let (segment, _) = text.strip_prefix('/')?.split_once('/')?;
    Some(segment)
}

#[cfg(test)]
mod tests;
