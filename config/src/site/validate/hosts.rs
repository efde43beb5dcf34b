//! Host names as sites, origins and handlers write them, in the one form that all else compares:
//! ASCII, lower case, without a trailing dot. Resolves nothing.

use super::Context;
use crate::site::{Domain, ORIGIN_HOSTS, named_origin};
use crate::units::quote;
use std::net::{IpAddr, Ipv6Addr};

/// A host that a site answers, without a port.
pub(super) fn domain(text: &str, context: Context) -> Result<Domain, String> {
    if text == "*" {
        return match context {
            Context::Standalone => Ok(Domain::Any),
            Context::Fleet => {
                Err("\"*\" is for standalone edges; name the site's hosts".to_owned())
            }
        };
    }
    let (base, is_wildcard) = match text.strip_prefix("*.") {
        Some(base) => (name(base)?, true),
        None => (name(text)?, false),
    };
    // A visitor who could ask for such a host would choose which origin a handler calls.
    if named_origin(&base).is_some() || (is_wildcard && base == "alt") {
        return Err(format!(
            "{} is no site's: handlers call origins by hosts below {ORIGIN_HOSTS}",
            quote(text)
        ));
    }
    if !is_wildcard {
        return Ok(Domain::Exact(base));
    }
    if base.parse::<IpAddr>().is_ok() || base.starts_with('[') {
        return Err(format!("{} is not a wildcard of host names", quote(text)));
    }
    // `*.com` would be half the world. These are nobody's (RFC 6761).
    let nobodys = matches!(base.as_str(), "localhost" | "test" | "example" | "internal");
    if context == Context::Fleet && !base.contains('.') && !nobodys {
        return Err(format!("{} is too wide; a wildcard stands below a domain", quote(text)));
    }
    Ok(Domain::Wildcard(base))
}

/// A host name or address without a port.
pub(super) fn name(text: &str) -> Result<String, String> {
    let wanted = |why: &str| format!("{} is not a host name{why}", quote(text));
    if text.contains('*') {
        return Err(wanted(": \"*\" may only be the whole first label, as in \"*.example.com\""));
    }
    if text.contains(['/', '@', '?', '#']) {
        return Err(wanted(": write the name alone, without a scheme or a path"));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| wanted(""))?;
        return Ok(format!("[{address}]"));
    }
    if text.contains(':') {
        return Err(wanted(": write it without a port"));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    // The length of a name is bounded before anything is computed from it.
    if name.is_empty() || name.len() > 1_000 {
        return Err(wanted(""));
    }
    idna::domain_to_ascii_strict(name).map_err(|_| wanted(""))
}

/// A name that a resolver may know: as a host name, but underscores may be in it, as they are in the
/// names of services on private networks. `text` is in lower-case ASCII already.
pub(super) fn resolvable(text: &str) -> Result<String, String> {
    if text.contains('_') {
        name(&text.replace('_', "x"))?;
        return Ok(text.strip_suffix('.').unwrap_or(text).to_owned());
    }
    name(text)
}

/// A host name or address with an optional port; a wildcard where one may be.
pub(super) fn name_and_port(text: &str, wildcard: bool) -> Result<String, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host = match host.strip_prefix("*.") {
        Some(base) if wildcard => format!("*.{}", name(base)?),
        _ => name(host)?,
    };
    let Some(port) = port else { return Ok(host) };
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(format!("{host}:{port}")),
        _ => Err(format!("{} has no valid port", quote(text))),
    }
}
