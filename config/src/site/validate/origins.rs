//! The origins of a site. Whether an address may be reached is for the edge to say.

use super::{hosts, over};
use crate::Faults;
use crate::check::{HOUR, MS};
use crate::site::{Origin, OriginDocument, OriginUrl, Timeouts, TimeoutsDocument, UrlDocument};
use crate::units::quote;
use std::sync::Arc;
use url::{Host, Url};

/// The most addresses of an origin.
const MAX_URLS: usize = 64;
/// The largest share of one address.
const MAX_WEIGHT: u16 = 1_000;
/// The longest URL, in bytes.
const MAX_URL_BYTES: usize = 2_048;

pub(super) fn check(path: &str, name: &str, raw: &OriginDocument, faults: &mut Faults) -> Origin {
    if raw.urls.is_empty() {
        faults.add(format!("{path}.urls"), "is missing: at least one URL");
    }
    over(&format!("{path}.urls"), raw.urls.len(), MAX_URLS, faults);
    let mut urls: Vec<OriginUrl> = Vec::new();
    for (index, entry) in raw.urls.iter().take(MAX_URLS).enumerate() {
        let at = format!("{path}.urls[{index}]");
        let (text, weight) = match entry {
            UrlDocument::Plain(text) => (text, 1),
            UrlDocument::Weighted { url, weight } => (url, *weight),
        };
        if !(1..=MAX_WEIGHT).contains(&weight) {
            let message = format!("{weight} is out of bounds: 1 to {MAX_WEIGHT}");
            faults.add(format!("{at}.weight"), message);
        }
        match url(text, weight) {
            Ok(url) if urls.iter().any(|u| u.tls == url.tls && same_place(u, &url)) => {
                faults.add(at, format!("{} is there already; give it a weight", quote(text)));
            }
            Ok(url) => urls.push(url),
            Err(message) => faults.add(at, message),
        }
    }
    let host = raw.host.as_deref().and_then(|text| {
        hosts::name_and_port(text, false)
            .map_err(|message| faults.add(format!("{path}.host"), message))
            .ok()
    });
    let timeouts = timeouts(path, raw.timeouts.as_ref(), faults);
    Origin { name: Arc::from(name), urls, host, timeouts }
}

fn same_place(a: &OriginUrl, b: &OriginUrl) -> bool {
    a.host == b.host && a.port == b.port
}

fn url(text: &str, weight: u16) -> Result<OriginUrl, String> {
    let not = |why: &str| format!("{} is not an origin's URL: {why}", quote(text));
    let example = "write for instance \"https://web.example.com\" or \"http://127.0.0.1:9000\"";
    // The URL standard forgives backslashes, spaces and much else; an origin's author means a URL.
    let forgiven = |b: u8| b <= b' ' || b == b'\\' || b == 0x7f;
    if text.len() > MAX_URL_BYTES || text.bytes().any(forgiven) {
        return Err(not(example));
    }
    let lower = text.to_ascii_lowercase();
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        return Err(not(&format!("it must begin with http:// or https://; {example}")));
    }
    let url = Url::parse(text).map_err(|error| not(&error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(not("it must hold no user name and no password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(not("it must end after the port; paths are the routes' affair"));
    }
    let host = match url.host() {
        Some(Host::Domain(name)) => hosts::resolvable(name)?,
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => return Err(not(example)),
    };
    match url.port_or_known_default() {
        Some(port) if port > 0 => {
            Ok(OriginUrl { tls: url.scheme() == "https", host, port, weight })
        }
        _ => Err(not("its port must be 1 to 65535")),
    }
}

fn timeouts(path: &str, raw: Option<&TimeoutsDocument>, faults: &mut Faults) -> Timeouts {
    let default = Timeouts::default();
    let Some(raw) = raw else { return default };
    let mut one = |name: &str, text: &Option<String>, default| {
        let path = format!("{path}.timeouts.{name}");
        faults.duration(&path, text.as_deref(), default, MS..=HOUR)
    };
    Timeouts {
        connect: one("connect", &raw.connect, default.connect),
        first_byte: one("first_byte", &raw.first_byte, default.first_byte),
        between_bytes: one("between_bytes", &raw.between_bytes, default.between_bytes),
    }
}
