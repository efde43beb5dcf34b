//! URI references in a response's fields (RFC 3986 section 5), as far as they stay at the request's own
//! origin; pure.

use crate::api::Request;
use verge_config::purge::UrlParts;

/// Where a reference leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The scheme, where the reference says one.
    pub scheme: Option<&'static str>,
    /// The raw path.
    pub path: String,
    /// The raw query without its `?`.
    pub query: Option<String>,
}

/// What a reference leads to, if that is of the request's own host.
#[must_use]
pub fn resolve(reference: &str, request: &Request<'_>) -> Option<Target> {
    let reference = reference.trim_matches([' ', '\t']).split('#').next().unwrap_or_default();
    let (scheme, rest) = match scheme(reference) {
        Some(("http", rest)) => (Some("http"), rest),
        Some(("https", rest)) => (Some("https"), rest),
        Some(_) => return None,
        None => (None, reference),
    };
    if let Some(authority) = rest.strip_prefix("//") {
        let parts = UrlParts::parse(authority).filter(|_| !authority.starts_with('/'))?;
        if parts.host.as_deref() != Some(request.host) {
            return None;
        }
        return Some(Target { scheme, path: without_dots(&parts.path), query: parts.query });
    }
    if scheme.is_some() {
        // `http:path` is of a form that nobody should use (RFC 3986 section 4.2).
        return None;
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (rest, None),
    };
    let path = if path.starts_with('/') {
        without_dots(path)
    } else if path.is_empty() {
        let query = query.or_else(|| request.query.filter(|_| rest.is_empty()).map(str::to_owned));
        return Some(Target { scheme, path: request.path.to_owned(), query });
    } else {
        let folder = request.path.rfind('/').and_then(|at| request.path.get(..=at)).unwrap_or("/");
        without_dots(&format!("{folder}{path}"))
    };
    Some(Target { scheme, path, query })
}

/// A scheme in lower case, when there is one, and what follows its colon.
fn scheme(reference: &str) -> Option<(&'static str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let mut letters = scheme.bytes();
    let named = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !named {
        return None;
    }
    let known = ["http", "https"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known));
    Some((known.unwrap_or("other"), rest))
}

/// RFC 3986 section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let segments = path.strip_prefix('/').unwrap_or(path).split('/');
    let mut folder = false;
    for segment in segments {
        folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                out.pop();
            }
            _ => out.push(segment),
        }
    }
    let end = if folder && !out.is_empty() { "/" } else { "" };
    format!("/{}{end}", out.join("/"))
}
