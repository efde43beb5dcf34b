//! Checks of single fields that several documents share: each notes its fault and goes on with the
//! default, so that one pass names everything. Knows no particular document.

use crate::Faults;
use crate::units::{parse_duration, parse_size, quote, write_duration, write_size};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A millisecond.
pub(crate) const MS: Duration = Duration::from_millis(1);
/// An hour.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
/// The longest that anything may be told to last.
pub(crate) const YEAR: Duration = Duration::from_secs(365 * 86_400);

impl Faults {
    /// A duration within bounds, or the default.
    pub(crate) fn duration(
        &mut self,
        path: &str,
        text: Option<&str>,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        self.some_duration(path, text, bounds).unwrap_or(default)
    }

    /// A duration within bounds, when there is one.
    pub(crate) fn some_duration(
        &mut self,
        path: &str,
        text: Option<&str>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        match parse_duration(text?) {
            Ok(duration) if bounds.contains(&duration) => return Some(duration),
            Ok(duration) => {
                let (given, low, high) = (duration, *bounds.start(), *bounds.end());
                let [given, low, high] = [given, low, high].map(write_duration);
                self.add(path, format!("{given} is out of bounds: {low} to {high}"));
            }
            Err(message) => self.add(path, message),
        }
        None
    }

    /// A size in bytes within bounds, or the default.
    pub(crate) fn size(
        &mut self,
        path: &str,
        text: Option<&str>,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> u64 {
        match text.map(parse_size) {
            None => return default,
            Some(Ok(size)) if bounds.contains(&size) => return size,
            Some(Ok(size)) => {
                let [given, low, high] = [size, *bounds.start(), *bounds.end()].map(write_size);
                self.add(path, format!("{given} is out of bounds: {low} to {high}"));
            }
            Some(Err(message)) => self.add(path, message),
        }
        default
    }

    /// A count within bounds, or the default.
    pub(crate) fn count(
        &mut self,
        path: &str,
        count: Option<u64>,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> u64 {
        match count {
            None => default,
            Some(count) if bounds.contains(&count) => count,
            Some(count) => {
                let (low, high) = (bounds.start(), bounds.end());
                self.add(path, format!("{count} is out of bounds: {low} to {high}"));
                default
            }
        }
    }

    /// An address to listen on.
    pub(crate) fn address(&mut self, path: &str, text: &str) -> Option<SocketAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            let wanted = "write an IP address and a port, for instance \"127.0.0.1:8080\"";
            self.add(path, format!("{} is not an address to listen on; {wanted}", quote(text)));
        }
        address
    }
}

/// Whether a name is `[a-z0-9-]{1,63}` and neither begins nor ends with a hyphen.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// What [`is_name`] asks for, in words.
pub(crate) const NAME_RULE: &str =
    "a name is 1 to 63 of a-z, 0-9 and hyphens, with no hyphen at its ends";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_leaves_the_default_and_a_note() {
        let mut faults = Faults::default();
        let five = Duration::from_secs(5);
        assert_eq!(faults.duration("a", None, five, MS..=HOUR), five);
        assert_eq!(faults.duration("a", Some("2s"), five, MS..=HOUR), Duration::from_secs(2));
        assert_eq!(faults.size("b", Some("1KiB"), 7, 1..=2_000), 1_024);
        assert_eq!(faults.count("c", Some(3), 7, 1..=3), 3);
        assert!(faults.address("d", "[::1]:80").is_some());
        assert_eq!(faults, Faults::default());
        assert_eq!(faults.duration("a", Some("2d"), five, MS..=HOUR), five);
        assert_eq!(faults.size("b", Some("1MiB"), 7, 1..=2_000), 7);
        assert_eq!(faults.count("c", Some(4), 7, 1..=3), 7);
        assert!(faults.address("d", "localhost:80").is_none());
        let paths: Vec<_> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["a", "b", "c", "d"]);
        assert_eq!(faults.0[0].message, "2d is out of bounds: 1ms to 1h");
    }

    #[test]
    fn names() {
        for name in ["a", "shop", "a-b", "0", &"a".repeat(63)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a.b", "a_b", "é", &"a".repeat(64)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
