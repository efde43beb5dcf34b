//! The hosts by which a site's handlers call its origins by name: `http://web.origin.alt/`. RFC 9476
//! keeps `.alt` out of the DNS for ever, so that none of them is ever anybody's. Pure.

/// What is behind an origin's name.
pub const ORIGIN_HOSTS: &str = "origin.alt";

/// The name of the origin that a normalised host stands for, with what is written before it if there
/// is more; empty where there is none. `None` for every other host, which stands for no origin.
#[must_use]
pub fn named_origin(host: &str) -> Option<&str> {
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let before = name.strip_suffix(ORIGIN_HOSTS)?;
    if before.is_empty() { Some("") } else { before.strip_suffix('.') }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::normalise_host;
    use proptest::prelude::*;

    #[test]
    fn hosts_of_origins() {
        for (host, name) in [
            ("web.origin.alt", Some("web")),
            ("web.origin.alt:8080", Some("web")),
            ("a.b.origin.alt", Some("a.b")),
            ("origin.alt", Some("")),
            (".origin.alt", Some("")),
            ("webxorigin.alt", None),
            ("weborigin.alt", None),
            ("origin.alt.example", None),
            ("web.origin.alt.example", None),
            ("alt", None),
            ("[::1]:80", None),
        ] {
            assert_eq!(named_origin(host), name, "{host}");
        }
    }

    proptest! {
        #[test]
        fn every_name_has_its_host(name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", port in 1u16..) {
            for host in [
                format!("{name}.{ORIGIN_HOSTS}"),
                format!("{}.Origin.ALT.:{port}", name.to_uppercase()),
            ] {
                let host = normalise_host(&host);
                prop_assert_eq!(named_origin(&host), Some(name.as_str()));
            }
        }
    }
}
