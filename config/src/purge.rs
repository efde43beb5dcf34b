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
    /// Purge nothing: say how many objects it would be for, with samples.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
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
    // `//host/path`, a network-path reference, is not told from a path with an empty first segment: it
    // is the path that is meant.
    if value.starts_with('/') {
        return Some((None, value));
    }
    let rest = match value.split_once("://") {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
        {
            rest
        }
        Some(_) => return None,
        None => value,
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, rest) = rest.split_at(end);
    if host.is_empty() || host.contains('@') {
        return None;
    }
    Some((Some(normalise_host(host)), rest))
}

/// The one form of a host that keys and purges use: lower case, without a default port (80 and 443)
/// and without a trailing dot (RFC 9110 section 4.2.3). Of a valid host, the form is its own form.
#[must_use]
pub fn normalise_host(host: &str) -> String {
    let (name, port) = split_port(host);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    match port {
        None | Some("" | "80" | "443") => name,
        Some(port) => format!("{name}:{port}"),
    }
}

/// The host and the port's digits. The colons of an IPv6 address belong to the host, whether it is in
/// brackets or not.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (name.ends_with(']') || !name.contains(':')) =>
        {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(host: Option<&str>, path: &str, query: Option<&str>) -> Option<UrlParts> {
        let owned = |text: &str| text.to_owned();
        Some(UrlParts { host: host.map(owned), path: path.to_owned(), query: query.map(owned) })
    }

    #[test]
    fn hosts_have_one_form() {
        for (host, normal) in [
            ("Shop.Example", "shop.example"),
            ("shop.example.", "shop.example"),
            ("shop.example:80", "shop.example"),
            ("shop.example.:443", "shop.example"),
            ("shop.example:8080", "shop.example:8080"),
            ("shop.example:", "shop.example"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("[::1]:8080", "[::1]:8080"),
            ("[2001:DB8::443]", "[2001:db8::443]"),
            ("2001:db8::443", "2001:db8::443"),
            ("::80", "::80"),
            ("127.0.0.1:443", "127.0.0.1"),
            ("shop.example:8443", "shop.example:8443"),
            ("shop.example:1443", "shop.example:1443"),
            ("", ""),
        ] {
            assert_eq!(normalise_host(host), normal, "{host}");
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let host = Some("shop.example");
        assert_eq!(UrlParts::parse("https://Shop.example/a?b=c"), parts(host, "/a", Some("b=c")));
        assert_eq!(UrlParts::parse("http://shop.example:80/a"), parts(host, "/a", None));
        assert_eq!(UrlParts::parse("HTTPS://shop.example"), parts(host, "/", None));
        assert_eq!(UrlParts::parse("shop.example/a#f"), parts(host, "/a", None));
        assert_eq!(UrlParts::parse("//a/b"), parts(None, "//a/b", None));
        assert_eq!(UrlParts::parse_prefix("//"), parts(None, "//", None));
        assert_eq!(UrlParts::parse("shop.example/a?"), parts(host, "/a", Some("")));
        assert_eq!(UrlParts::parse("https://shop.example?q"), parts(host, "/", Some("q")));
        assert_eq!(UrlParts::parse("/a/B?c=d"), parts(None, "/a/B", Some("c=d")));
        let six = Some("[::1]:8080");
        assert_eq!(UrlParts::parse("http://[::1]:8080/a"), parts(six, "/a", None));
        for odd in ["", "ftp://shop.example/", "https://", "https:///a", "https://u@shop.example/"]
        {
            assert_eq!(UrlParts::parse(odd), None, "{odd}");
        }
        let prefix = UrlParts::parse_prefix("https://shop.example/blog/?p=");
        assert_eq!(prefix, parts(host, "/blog/?p=", None));
    }

    #[test]
    fn every_fault_of_a_request_at_once() {
        let request = PurgeRequest {
            site: None,
            mode: Mode::Hard,
            dry_run: false,
            selectors: vec![
                Selector::Tag("assets".into()),
                Selector::Url("ftp://x/".into()),
                Selector::Tag("a b".into()),
                Selector::Everything(false),
                Selector::Host("http://shop.example".into()),
                Selector::Prefix(String::new()),
                Selector::Tag("x".repeat(MAX_SELECTOR_BYTES + 1)),
                Selector::Everything(true),
            ],
        };
        let faults = request.validate().unwrap_err();
        let paths: Vec<_> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "selectors[1].url",
                "selectors[2].tag",
                "selectors[3].everything",
                "selectors[4].host",
                "selectors[5].prefix",
                "selectors[6].tag"
            ]
        );
        let none = PurgeRequest { selectors: vec![], ..request.clone() };
        assert_eq!(none.validate().unwrap_err().0[0].path, "selectors");
        let many = vec![Selector::Tag("a".into()); MAX_SELECTORS + 1];
        let many = PurgeRequest { selectors: many, ..request };
        assert!(many.validate().unwrap_err().to_string().contains("1001 selectors"));
    }

    #[test]
    fn the_bodies_that_the_documentation_shows() {
        let body = r#"{"site": "shop", "mode": "soft", "selectors": [
            {"url": "https://shop.example/a.css"}, {"tag": "assets"},
            {"prefix": "https://shop.example/blog/"}, {"host": "shop.example"},
            {"everything": true}]}"#;
        let request: PurgeRequest = serde_json::from_str(body).unwrap();
        assert_eq!(request.validate(), Ok(()));
        assert_eq!(request.mode, Mode::Soft);
        assert_eq!(request.selectors.len(), 5);
        assert!(!request.dry_run);
        let body = r#"{"selectors": [{"tag": "a"}], "dry_run": true}"#;
        let dry: PurgeRequest = serde_json::from_str(body).unwrap();
        assert!(dry.dry_run);
        assert!(serde_json::to_string(&dry).unwrap().contains("\"dry_run\":true"));
        assert!(!serde_json::to_string(&request).unwrap().contains("dry_run"));
        assert!(serde_json::from_str::<PurgeRequest>(r#"{"selectors": [{"tags": "a"}]}"#).is_err());
    }

    proptest! {
        #[test]
        fn real_hosts_have_one_form(name in "[a-zA-Z0-9-]{1,9}(\\.[a-zA-Z]{1,5}){0,2}", port in 1_u16..) {
            let normal = normalise_host(&format!("{name}.:{port}"));
            prop_assert_eq!(normalise_host(&normal), normal.clone());
            prop_assert_eq!(normalise_host(&format!("{}:{port}", name.to_uppercase())), normal);
        }

        #[test]
        fn no_selector_panics(value in "\\PC{0,40}") {
            let _ = normalise_host(&value);
            let _ = UrlParts::parse(&value);
            let _ = UrlParts::parse_prefix(&value);
        }
    }
}
