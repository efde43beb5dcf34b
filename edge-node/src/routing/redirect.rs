//! Where a redirect leads: the template with its captures put in, safe to stand in a `Location`
//! field whatever the visitor's path was. Pure.

use std::fmt::Write;
use verge_config::site::PathPattern;

/// The `Location` (RFC 9110 section 10.2.2) of a redirect: `template` with `$0` replaced by the path
/// and `$1` … `$9` by what the pattern's stars stood for; a capture that is not there is empty, and a
/// `$` before anything but a digit stands for itself. The site file validates the template; what the
/// visitor sent cannot break out of it:
/// - bytes that may not stand in a URI reference (RFC 3986 section 2), controls among them, are
///   percent-encoded;
/// - a template that stays on the site (`/new/$1`) never becomes a reference to another host, which
///   a capture beginning with `/` would make of it;
/// - within a template's authority, a capture cannot add user information or a port.
#[must_use]
pub fn location(template: &str, pattern: &PathPattern, path: &str) -> String {
    let captures = pattern.captures(path).unwrap_or_default();
    let mut out = String::with_capacity(template.len() + path.len());
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('$') {
        push_encoded(&mut out, literal, false);
        let digit = after.chars().next().and_then(|c| c.to_digit(10));
        match digit {
            Some(digit) => {
                let value = match digit {
                    0 => path,
                    n => captures.get(n as usize - 1).copied().unwrap_or_default(),
                };
                let authority = in_authority(&out);
                push_encoded(&mut out, value, authority);
                rest = after.get(1..).unwrap_or_default();
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    push_encoded(&mut out, rest, false);
    stay_on_site(template, out)
}

/// Whether what comes next belongs to the authority: `https://shop` or `//shop`.
fn in_authority(so_far: &str) -> bool {
    let rest = match so_far.split_once("//") {
        Some((scheme, rest)) if scheme.is_empty() || scheme.ends_with(':') => rest,
        _ => return false,
    };
    !rest.contains(['/', '?', '#'])
}

/// `//host/…` is a reference to another host (RFC 3986 section 4.2): only a template that begins so
/// may lead there.
fn stay_on_site(template: &str, out: String) -> String {
    let foreign = out.starts_with("//");
    if !foreign || template.starts_with("//") {
        return out;
    }
    format!("/{}", out.trim_start_matches('/'))
}

fn push_encoded(out: &mut String, text: &str, authority: bool) {
    for byte in text.bytes() {
        if allowed(byte) && !(authority && matches!(byte, b'@' | b':')) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Unreserved, reserved, and the percent sign of what is encoded already.
fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn to(template: &str, pattern: &str, path: &str) -> String {
        location(template, &PathPattern::new(pattern), path)
    }

    #[test]
    fn captures_are_put_in() {
        assert_eq!(to("/new/$1", "/old/*", "/old/a/b"), "/new/a/b");
        assert_eq!(to("https://b.example$0", "/*", "/x"), "https://b.example/x");
        assert_eq!(to("/$2/$1", "/*/to/*", "/a/to/b"), "/b/a");
        assert_eq!(to("/cost/$", "/*", "/x"), "/cost/$");
        assert_eq!(to("/p/$9", "/*", "/x"), "/p/");
        assert_eq!(to("/$x$1", "/*", "/y"), "/$xy");
        assert_eq!(
            to("/new?from=$1", "/old/*", "/old/é\r\nSet-Cookie: a"),
            "/new?from=%C3%A9%0D%0ASet-Cookie:%20a"
        );
    }

    #[test]
    fn a_site_never_leads_to_another_host_by_a_visitors_path() {
        assert_eq!(to("/$1", "/old/*", "/old//evil.example/"), "/evil.example/");
        assert_eq!(to("/$1", "/old/*", "/old/\\evil.example/"), "/%5Cevil.example/");
        assert_eq!(to("$0", "/*", "//evil.example"), "/evil.example");
        assert_eq!(to("$1", "/*", "///evil.example"), "/evil.example");
        assert_eq!(
            to("https://a.example$1", "/r*", "/r@evil.example"),
            "https://a.example%40evil.example"
        );
        // The developer's own words may.
        assert_eq!(to("//cdn.example/$1", "/a/*", "/a/b"), "//cdn.example/b");
    }

    proptest! {
        #[test]
        fn a_location_is_always_a_safe_field_value(template in "\\PC{0,20}(\\$[0-9])?\\PC{0,9}", path in "/(\\PC|[\r\n\t\0/]){0,40}") {
            let out = location(&template, &PathPattern::new("/*"), &path);
            prop_assert!(out.bytes().all(allowed), "{out:?}");
            prop_assert!(http::HeaderValue::from_str(&out).is_ok());
        }

        #[test]
        fn a_rooted_template_stays_rooted(tail in "[a-z/$0-9]{0,12}", path in "/[a-z/@:.]{0,20}") {
            let out = location(&format!("/{}", tail.trim_start_matches('/')), &PathPattern::new("/*"), &path);
            prop_assert!(out.starts_with('/') && !out.starts_with("//"), "{out:?}");
        }
    }
}
