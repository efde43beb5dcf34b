//! Sets of ranges, what they come to, how several parts are framed, and `Content-Range`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)]

use http::HeaderValue;
use proptest::prelude::*;
use verge_cache::multipart::Multipart;
use verge_cache::range::{ByteRange, ContentRange, Part, RangeSet, Selected};

fn resolve(value: &str, length: u64) -> Option<Selected> {
    Some(RangeSet::parse(value.as_bytes())?.resolve(length))
}

fn part(start: u64, end: u64) -> Part {
    Part { start, end }
}

#[test]
fn sets_of_ranges() {
    let parts = |list: &[(u64, u64)]| {
        Some(Selected::Parts(list.iter().map(|(start, end)| part(*start, *end)).collect()))
    };
    let one = |start, end| Some(Selected::Part(part(start, end)));
    let many = |count: usize| format!("bytes={}", vec!["1-2"; count].join(","));
    for (value, expected) in [
        ("bytes=0-9", one(0, 9)),
        ("bytes=0-9,500-599", parts(&[(0, 9), (500, 599)])),
        ("BYTES= 0-9 ,, 500-599 ,", parts(&[(0, 9), (500, 599)])),
        // In the order in which they were asked for.
        ("bytes=500-599,0-9,-1", parts(&[(500, 599), (0, 9), (999, 999)])),
        // Overlapping, touching and nearly touching ranges become one, in the place of the first.
        ("bytes=0-9,5-20", one(0, 20)),
        ("bytes=0-9,10-20", one(0, 20)),
        ("bytes=0-9,100-120", one(0, 120)),
        ("bytes=0-9,900-,200-209,5-100", parts(&[(0, 209), (900, 999)])),
        ("bytes=0-,0-,0-,0-", one(0, 999)),
        // Those that do not exist are left out.
        ("bytes=2000-,0-9", one(0, 9)),
        ("bytes=2000-,-0", Some(Selected::Unsatisfiable)),
        ("bytes=", None),
        ("bytes=,", None),
        ("bytes=0-9,x", None),
        ("bytes=0-9,9-0", None),
        ("lines=0-9", None),
        ("bytes 0-9", None),
    ] {
        assert_eq!(resolve(value, 1000), expected, "{value}");
    }
    assert_eq!(resolve(&many(16), 1000), one(1, 2));
    assert_eq!(resolve(&many(17), 1000), None, "too many");
    assert_eq!(resolve("bytes=0-0", 0), Some(Selected::Unsatisfiable));
    let set = RangeSet::parse(b"bytes=7-").unwrap();
    assert_eq!(set.single(), Some(ByteRange::From(7)));
    assert_eq!(RangeSet::parse(b"bytes=7-,1-2").unwrap().single(), None);
}

#[test]
fn content_ranges() {
    let has = |start, end, whole| Some(ContentRange::Part { part: part(start, end), whole });
    for (value, expected) in [
        ("bytes 0-9/100", has(0, 9, Some(100))),
        ("Bytes 0-9/*", has(0, 9, None)),
        ("bytes */100", Some(ContentRange::Unsatisfied { whole: 100 })),
        ("bytes 0-99/100", has(0, 99, Some(100))),
        ("bytes 0-100/100", None),
        ("bytes 9-0/100", None),
        ("bytes */*", None),
        ("bytes 0-9", None),
        ("bytes=0-9/100", None),
        ("bytes 0-9/", None),
        ("bytes +0-9/100", None),
        ("bytes 0-9/18446744073709551616", None),
        ("bytes 0-18446744073709551615/*", has(0, u64::MAX, None)),
        ("lines 0-9/100", None),
        ("", None),
    ] {
        assert_eq!(ContentRange::parse(value.as_bytes()), expected, "{value}");
    }
}

/// Takes a multipart answer apart as a client does: the boundary alone tells where parts end.
fn read(kind: &HeaderValue, body: &[u8]) -> Vec<(Option<String>, ContentRange, Vec<u8>)> {
    let boundary = kind.to_str().unwrap().split_once("boundary=").unwrap().1;
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(&delimiter.as_bytes()[2..]).unwrap();
    let mut parts = Vec::new();
    loop {
        let Some(after) = rest.strip_prefix(b"\r\n") else {
            assert_eq!(rest, b"--\r\n");
            return parts;
        };
        let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|w| w == what);
        let head = find(after, b"\r\n\r\n").unwrap();
        let end = find(after, delimiter.as_bytes()).unwrap();
        let lines = std::str::from_utf8(&after[..head]).unwrap();
        let field = |name: &str| {
            lines.lines().find_map(|line| line.strip_prefix(name).map(|v| v.trim().to_owned()))
        };
        let range = ContentRange::parse(field("Content-Range:").unwrap().as_bytes()).unwrap();
        parts.push((field("Content-Type:"), range, after[head + 4..end].to_vec()));
        rest = &after[end + delimiter.len()..];
    }
}

proptest! {
    /// A set holds just the bytes asked for, apart from what joining brings in; the parts do not meet.
    #[test]
    fn a_set_is_what_was_asked_for(asked in proptest::collection::vec((0u64..3000, 0u64..400), 1..17), length in 1u64..2500) {
        let list: Vec<String> = asked.iter().map(|(start, more)| format!("{start}-{}", start + more)).collect();
        let wanted = |byte: u64| asked.iter().any(|(start, more)| (*start..=start + more).contains(&byte));
        let parts = match resolve(&format!("bytes={}", list.join(",")), length).unwrap() {
            Selected::Unsatisfiable => vec![],
            Selected::Part(part) => vec![part],
            Selected::Parts(parts) => parts,
        };
        for byte in 0..length {
            let holding = parts.iter().filter(|part| (part.start..=part.end).contains(&byte)).count();
            prop_assert!(holding <= 1);
            if wanted(byte) {
                prop_assert_eq!(holding, 1, "{}", byte);
            }
        }
        for (i, part) in parts.iter().enumerate() {
            prop_assert!(part.end < length && wanted(part.start) && wanted(part.end.min(length - 1)));
            for other in &parts[i + 1..] {
                prop_assert!(part.end + 128 < other.start || other.end + 128 < part.start);
            }
        }
    }

    /// A client that reads what was framed has the parts again; the length is right to the byte.
    #[test]
    fn what_is_framed_is_read_again(starts in proptest::collection::vec((0usize..3000, 1usize..200), 2..9), typed: bool, random: u128) {
        let content: Vec<u8> = (0..4000u32).map(|n| (n % 251) as u8).collect();
        let parts: Vec<Part> = starts.iter().map(|(start, n)| part(*start as u64, (start + n - 1) as u64)).collect();
        let kind = HeaderValue::from_static("text/css; charset=utf-8");
        let frame = Multipart::new(parts.clone(), 4000, typed.then_some(&kind), random);
        let mut body = Vec::new();
        for (index, part) in frame.parts().iter().enumerate() {
            body.extend_from_slice(&frame.head(index));
            body.extend_from_slice(&content[part.start as usize..=part.end as usize]);
        }
        body.extend_from_slice(&frame.end());
        prop_assert_eq!(frame.length(), body.len() as u64);
        let read = read(&frame.content_type(), &body);
        prop_assert_eq!(read.len(), parts.len());
        for ((own, range, bytes), part) in read.into_iter().zip(parts) {
            prop_assert_eq!(own.as_deref(), typed.then_some("text/css; charset=utf-8"));
            prop_assert_eq!(range, ContentRange::Part { part, whole: Some(4000) });
            prop_assert_eq!(&bytes[..], &content[part.start as usize..=part.end as usize]);
        }
    }

    /// Any bytes are a set or none, and a content range written is read again.
    #[test]
    fn parsing_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in "bytes[= ][-0-9,/* ]{0,40}", length: u64, start: u64, end: u64, whole in proptest::option::of(any::<u64>())) {
        for value in [&bytes[..], text.as_bytes()] {
            let _ = RangeSet::parse(value).map(|set| set.resolve(length));
            if let Some(range) = ContentRange::parse(value) {
                prop_assert_eq!(ContentRange::parse(range.value().as_bytes()), Some(range));
            }
        }
        let range = ContentRange::Part { part: part(start, end), whole };
        let valid = start <= end && whole.is_none_or(|whole| end < whole);
        prop_assert_eq!(ContentRange::parse(range.value().as_bytes()), valid.then_some(range));
    }
}
