//! HTTP dates (RFC 9110 section 5.6.7) in seconds since the Unix epoch; pure.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::{Duration, UNIX_EPOCH};

/// The first line of a field as a date; `None` when it is absent or not one.
#[must_use]
pub fn field(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    parse(headers.get(name)?)
}

/// A date in any of the three formats, its words in any case (RFC 9111 section 4.2).
#[must_use]
pub fn parse(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    let mut canonical = String::with_capacity(text.len());
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphabetic()) {
        let letters = word.trim_end_matches(|c: char| !c.is_ascii_alphabetic());
        if letters.eq_ignore_ascii_case("gmt") {
            canonical.push_str(&word.to_ascii_uppercase());
        } else {
            let mut chars = word.chars();
            canonical.extend(chars.next().map(|c| c.to_ascii_uppercase()));
            canonical.extend(chars.map(|c| c.to_ascii_lowercase()));
        }
    }
    let date = httpdate::parse_http_date(&canonical).ok()?;
    Some(date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Seconds since the Unix epoch as a field value.
#[must_use]
pub fn format(seconds: u64) -> HeaderValue {
    // The formatter takes years up to 9999; a clock beyond that is not one.
    let seconds = seconds.min(253_402_300_799);
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
