//! What a purge says: which objects, and whether they die or become stale.

use crate::{Faults, Revision};
use serde::{Deserialize, Serialize};

/// The most selectors that one purge may carry.
pub const MAX_SELECTORS: usize = 1_000;
/// The longest selector value, in bytes.
pub const MAX_SELECTOR_BYTES: usize = 8 * 1024;

/// Which objects of one site a purge is for.
///
/// As JSON: `{"url": "https://shop.example/a.css"}`, `{"tag": "assets"}`,
/// `{"prefix": "https://shop.example/blog/"}`, `{"host": "shop.example"}`, `{"everything": true}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Selector {
    /// One URL with its query, every variant and key-customised copy of it, whatever the scheme.
    /// A value that starts with `/` means that path and query on every host of the site.
    Url(String),
    /// Every object that carries the tag.
    Tag(String),
    /// Every object whose URL begins with the value, whatever the scheme. A value that starts with
    /// `/` means every host of the site.
    Prefix(String),
    /// Every object of one host of the site.
    Host(String),
    /// Every object of the site; the value must be `true`.
    Everything(bool),
}

/// What a purge does to the objects that it selects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They are dead: never served again.
    #[default]
    Hard,
    /// They are stale from now on: served only where stale responses may be.
    Soft,
}

/// The body of `POST /v1/purges`, and of `POST /purges` at a standalone edge's admin listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// The site. A standalone edge serves one site and takes its name when this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// What to purge: 1 to [`MAX_SELECTORS`].
    pub selectors: Vec<Selector>,
    /// Hard unless it says soft.
    #[serde(default)]
    pub mode: Mode,
}

/// A purge as the edges are told of it, and as the cache applies it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// Its place in history: objects whose fill began before it are touched, later ones are not.
    pub revision: Revision,
    /// The site that it is for; never more than one.
    pub site: String,
    /// What it selects.
    pub selectors: Vec<Selector>,
    /// What it does.
    pub mode: Mode,
}

impl PurgeRequest {
    /// Every fault of the request, each with its place.
    ///
    /// # Errors
    /// All that is wrong with the selectors: too many, none, empty, too long, or not a URL.
    pub fn validate(&self) -> Result<(), Faults> {
        let mut faults = Faults::default();
        if self.selectors.is_empty() {
            faults.add("selectors", "at least one selector is needed");
        }
        if self.selectors.len() > MAX_SELECTORS {
            let count = self.selectors.len();
            faults.add(
                "selectors",
                format!("{count} selectors; at most {MAX_SELECTORS} in one purge"),
            );
        }
        for (index, selector) in self.selectors.iter().take(MAX_SELECTORS).enumerate() {
            selector.check(&format!("selectors[{index}]"), &mut faults);
        }
        faults.or(())
    }
}

impl Selector {
    fn check(&self, path: &str, faults: &mut Faults) {
        let (name, value) = match self {
            Selector::Url(value) => ("url", value),
            Selector::Tag(value) => ("tag", value),
            Selector::Prefix(value) => ("prefix", value),
            Selector::Host(value) => ("host", value),
            Selector::Everything(true) => return,
            Selector::Everything(false) => {
                faults.add(format!("{path}.everything"), "must be true");
                return;
            }
        };
        let path = format!("{path}.{name}");
        if value.is_empty() {
            faults.add(path, "must not be empty");
        } else if value.len() > MAX_SELECTOR_BYTES {
            faults.add(path, format!("longer than {MAX_SELECTOR_BYTES} bytes"));
        } else if value.bytes().any(|b| b.is_ascii_control() || b == b' ') {
            faults.add(path, "must not contain spaces or control characters");
        } else if matches!(self, Selector::Url(_)) && UrlParts::parse(value).is_none() {
            faults.add(
                path,
                "must be a URL (https://host/path?query) or a path that starts with \"/\"",
            );
        } else if matches!(self, Selector::Prefix(_)) && UrlParts::parse_prefix(value).is_none() {
            faults.add(
                path,
                "must begin like a URL (https://host/path) or be a path that starts with \"/\"",
            );
        } else if matches!(self, Selector::Host(_)) && value.contains(['/', '?', '#', '@']) {
            faults.add(path, "must be a host name alone");
        }
    }
}

/// A URL of a selector, taken apart: the scheme is dropped, the host normalised, path and query raw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlParts {
    /// The normalised host; absent when the selector is a path on every host of the site.
    pub host: Option<String>,
    /// The raw path, beginning with `/`.
    pub path: String,
    /// The raw query without its `?`.
    pub query: Option<String>,
}

impl UrlParts {
    /// Takes a URL selector apart; `None` when it is not one.
    #[must_use]
    pub fn parse(value: &str) -> Option<UrlParts> {
        let value = value.split('#').next().unwrap_or_default();
        let (host, rest) = split_host(value)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Some(UrlParts { host, path: path.to_owned(), query })
    }

    /// Takes a prefix selector apart: host, and everything from the path on as `path`.
    #[must_use]
    pub fn parse_prefix(value: &str) -> Option<UrlParts> {
        let (host, rest) = split_host(value)?;
        let path = if rest.is_empty() { "/" } else { rest };
        Some(UrlParts { host, path: path.to_owned(), query: None })
    }
}

fn split_host(value: &str) -> Option<(Option<String>, &str)> {
    if value.starts_with('/') && !value.starts_with("//") {
        return Some((None, value));
    }
    let rest = match value.split_once("://") {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
        {
            rest
        }
        Some(_) => return None,
        None => value.strip_prefix("//").unwrap_or(value),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, rest) = rest.split_at(end);
    if host.is_empty() || host.contains('@') {
        return None;
    }
    Some((Some(normalise_host(host)), rest))
}

/// The one form of a host that keys and purges use: lower case, without a default port (80 and 443)
/// and without a trailing dot (RFC 9110 section 4.2.3).
#[must_use]
pub fn normalise_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(":80").or_else(|| host.strip_suffix(":443")).unwrap_or(&host);
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (name, Some(port))
        }
        Some((name, "")) => (name, None),
        _ => (host, None),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    match port {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    }
}
