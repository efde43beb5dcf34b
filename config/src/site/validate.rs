//! From a document to a site: every fault at once, each with its place. Pure; opens no component and
//! resolves no name.

mod cache;
mod debug;
mod failure;
mod handlers;
mod hosts;
mod origins;
mod routes;

pub use debug::MAX_DEBUG_TOKENS;
pub use failure::MAX_HANDLER_CONCURRENCY;
pub use handlers::{
    MAX_CACHE_CALLS, MAX_CPU, MAX_FETCHES, MAX_KV_CALLS, MAX_MEMORY, MAX_REQUESTS, MAX_WALL,
};

use super::{ClientCacheControl, ComponentRef, Domain, Site, SiteDocument};
use crate::Faults;
use crate::check::{NAME_RULE, is_name};
use crate::read::key_notation;
use crate::units::{nearest, quote};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// The most domains of a site.
pub const MAX_DOMAINS: usize = 100;
/// The most origins of a site.
pub const MAX_ORIGINS: usize = 100;
/// The most handlers of a site.
pub const MAX_HANDLERS: usize = 100;
/// The most routes of a site.
pub const MAX_ROUTES: usize = 1_000;

/// Where a site is to run, which decides what it may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// A standalone edge: `*` as a domain and components by path are allowed.
    Standalone,
    /// A fleet: real domains, components by digest.
    Fleet,
}

impl Site {
    /// The site of a document.
    ///
    /// # Errors
    /// Every fault of the document.
    pub fn from_document(document: &SiteDocument, context: Context) -> Result<Site, Faults> {
        let mut faults = Faults::default();
        if document.site.is_empty() {
            faults.add("site", "is missing: the site's name");
        } else if !is_name(&document.site) {
            let name = quote(&document.site);
            faults.add("site", format!("{name} is not a site's name: {NAME_RULE}"));
        }
        let client_cache_control = client_cache_control(document, &mut faults);
        let debug_tokens = debug::check(&document.debug_tokens, &mut faults);
        let handler_concurrency = failure::concurrency(document.handler_concurrency, &mut faults);
        let domains = domains(&document.domains, context, &mut faults);
        let origins = named("origins", &document.origins, MAX_ORIGINS, &mut faults, origins::check);
        let check_handler = |path: &str, name: &str, raw: &_, faults: &mut Faults| {
            handlers::check(path, name, raw, context, faults)
        };
        let handlers =
            named("handlers", &document.handlers, MAX_HANDLERS, &mut faults, check_handler);
        let parts = routes::Parts { document, origins: &origins, handlers: &handlers };
        let routes = routes::check(&parts, client_cache_control, &mut faults);
        failure::check_routes(&handlers, &routes, &mut faults);
        faults.cut();
        faults.or(Site {
            name: Arc::from(document.site.as_str()),
            domains,
            origins,
            handlers,
            routes,
            handler_concurrency,
            client_cache_control,
            debug_tokens,
        })
    }

    /// Reads a site file whole.
    ///
    /// # Errors
    /// Every fault of its form and its content.
    pub fn from_toml(text: &str, context: Context) -> Result<(SiteDocument, Site), Faults> {
        let document = SiteDocument::from_toml(text)?;
        let site = Site::from_document(&document, context)?;
        Ok((document, site))
    }
}

impl ComponentRef {
    /// Reads what a site file names as a component: `sha256:` and 64 lower-case hexadecimal digits,
    /// or a path. `None` when it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<ComponentRef> {
        match text.strip_prefix("sha256:") {
            Some(digest) if is_digest(digest) => Some(ComponentRef::Digest(digest.to_owned())),
            Some(_) => None,
            None if text.is_empty() || text.contains('\0') => None,
            None => Some(ComponentRef::Path(text.to_owned())),
        }
    }
}

/// Whether a text is a SHA-256 in lower-case hexadecimal.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn client_cache_control(document: &SiteDocument, faults: &mut Faults) -> ClientCacheControl {
    let values = [("honour", ClientCacheControl::Honour), ("ignore", ClientCacheControl::Ignore)];
    choice("client_cache_control", document.client_cache_control.as_deref(), &values, faults)
        .unwrap_or_default()
}

fn domains(raw: &[String], context: Context, faults: &mut Faults) -> Vec<Domain> {
    if raw.is_empty() {
        faults.add("domains", "is missing: at least one host that the site answers");
    }
    over("domains", raw.len(), MAX_DOMAINS, faults);
    let mut seen = HashSet::new();
    let mut domains = Vec::new();
    for (index, text) in raw.iter().take(MAX_DOMAINS).enumerate() {
        let path = format!("domains[{index}]");
        match hosts::domain(text, context) {
            Ok(Domain::Any) if raw.len() > 1 => {
                faults.add(path, "\"*\" stands for every host and must be alone");
            }
            Ok(domain) if !seen.insert(domain.clone()) => {
                faults.add(path, format!("{} is there already", quote(text)));
            }
            Ok(domain) => domains.push(domain),
            Err(message) => faults.add(path, message),
        }
    }
    domains
}

/// Checks each entry of a table of names.
fn named<R, T>(
    table: &str,
    raw: &BTreeMap<String, R>,
    most: usize,
    faults: &mut Faults,
    mut check: impl FnMut(&str, &str, &R, &mut Faults) -> T,
) -> BTreeMap<String, Arc<T>> {
    over(table, raw.len(), most, faults);
    let mut all = BTreeMap::new();
    for (name, entry) in raw.iter().take(most) {
        let path = format!("{table}.{}", key_notation(name));
        if !is_name(name) {
            faults.add(path.as_str(), format!("is not a name: {NAME_RULE}"));
        }
        all.insert(name.clone(), Arc::new(check(&path, name, entry, faults)));
    }
    all
}

/// Notes that a list is too long.
fn over(path: &str, count: usize, most: usize, faults: &mut Faults) {
    if count > most {
        faults.add(path, format!("{count} entries; at most {most}"));
    }
}

/// One of a few words.
fn choice<T: Copy>(
    path: &str,
    text: Option<&str>,
    values: &[(&str, T)],
    faults: &mut Faults,
) -> Option<T> {
    let text = text?;
    if let Some((_, value)) = values.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let words: Vec<&str> = values.iter().map(|(word, _)| *word).collect();
    let hint = match nearest(text, words.iter().copied()) {
        Some(meant) => format!("did you mean {}?", quote(meant)),
        None => format!("write one of {}", words.join(", ")),
    };
    faults.add(path, format!("{} is not known here; {hint}", quote(text)));
    None
}

#[cfg(test)]
mod tests;
