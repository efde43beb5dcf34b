//! Durations and sizes as people write them: `50ms`, `2s`, `1d`, `64MiB`. Pure text; may not know
//! which field it reads.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZE_UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// What is wrong with the text, in words for its author.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let wanted = || {
        format!(
            "{} is not a duration; write for instance \"50ms\", \"2s\", \"5m\", \"1h\" or \"1d\"",
            quote(text)
        )
    };
    let number: u64 = number.parse().map_err(|_| wanted())?;
    let scale = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wanted)?.1;
    let millis = number.checked_mul(scale).ok_or_else(|| format!("{} is too long", quote(text)))?;
    Ok(Duration::from_millis(millis))
}

/// A size in bytes: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, `TiB`, `KB`, `MB`, `GB`, or a
/// whole number alone.
///
/// # Errors
/// What is wrong with the text, in words for its author.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let wanted = || {
        format!(
            "{} is not a size; write for instance \"64MiB\", \"1GiB\" or \"65536\"",
            quote(text)
        )
    };
    let number: u64 = number.parse().map_err(|_| wanted())?;
    let scale = match unit {
        "" => 1,
        unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wanted)?.1,
    };
    number.checked_mul(scale).ok_or_else(|| format!("{} is too large", quote(text)))
}

/// A duration in the notation that [`parse_duration`] reads, in the largest unit that is exact.
#[must_use]
pub fn write_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, scale) = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, scale)| millis >= *scale && millis.is_multiple_of(*scale))
        .unwrap_or(&("ms", 1));
    format!("{}{unit}", millis / scale)
}

/// A size in the notation that [`parse_size`] reads, in the largest binary unit that is exact.
#[must_use]
pub fn write_size(bytes: u64) -> String {
    let (unit, scale) = SIZE_UNITS
        .iter()
        .filter(|(name, _)| name.ends_with("iB"))
        .rev()
        .find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale))
        .unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / scale)
}

/// A value of a document, quoted for a message and cut where it is long.
#[must_use]
pub fn quote(value: &str) -> String {
    const LONGEST: usize = 80;
    if value.chars().count() <= LONGEST {
        return format!("{value:?}");
    }
    let cut: String = value.chars().take(LONGEST).collect();
    format!("{cut:?}…")
}

/// The candidate that was probably meant by `name`, when one is near enough.
#[must_use]
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // The comparison costs the product of the lengths, and `name` is anybody's text.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_in_every_unit() {
        assert_eq!(parse_duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(parse_duration("1d"), Ok(Duration::from_secs(86_400)));
    }

    #[test]
    fn what_is_not_a_duration_is_named() {
        for text in ["", "5", "s", "-1s", "1.5s", "1 s", "1S", "1h30m", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        assert!(parse_duration("18446744073709551615d").unwrap_err().contains("too long"));
    }

    #[test]
    fn sizes_in_every_unit() {
        assert_eq!(parse_size("65536"), Ok(65_536));
        assert_eq!(parse_size("1B"), Ok(1));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("1GB"), Ok(1_000_000_000));
        for text in ["", "MiB", "1mib", "-1", "1.5GiB", "1 KiB", "18446744073709551615TiB"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("wb", ["web", "api"]), Some("web"));
        assert_eq!(nearest("orgin", ["origin", "handler"]), Some("origin"));
        assert_eq!(nearest("zebra", ["web", "api"]), None);
        assert_eq!(nearest(&"a".repeat(1_000_000), ["web"]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0_u64..=1_000_000_000_000, bytes: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&write_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&write_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
            let _ = quote(&text);
            let _ = nearest(&text, ["web"]);
        }
    }
}
