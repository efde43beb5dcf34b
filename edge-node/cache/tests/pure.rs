//! Properties of the pure rooms: ranges, directives, structured fields, keys, selection, dates.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use std::sync::Arc;
use verge_cache::directives::{
    Directives, MAX_DELTA_SECONDS, RequestDirectives, ResponseDirectives,
};
use verge_cache::key::KeyRef;
use verge_cache::key_parts;
use verge_cache::purge_index::{PurgeIndex, Verdict};
use verge_cache::range::{ByteRange, Resolved};
use verge_cache::structured::{Bare, dictionary};
use verge_cache::tags::Tags;
use verge_cache::vary::{self, Selection, Vary};
use verge_cache::{Request, SiteName, conditional};
use verge_config::Mode;
use verge_config::purge::Selector;
use verge_config::site::{CachePolicy, QueryKey};

fn one(name: &str, value: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(
        HeaderName::from_bytes(name.as_bytes()).unwrap(),
        HeaderValue::from_bytes(value.as_bytes()).unwrap(),
    );
    map
}

proptest! {
    /// A part lies within the representation and holds just the bytes asked for.
    #[test]
    fn a_range_is_within_its_length(first in 0u64..50, last in 0u64..50, length in 0u64..40) {
        let content: Vec<u64> = (0..length).collect();
        let cases: [(String, Vec<u64>); 3] = [
            (format!("bytes={first}-{last}"), content.iter().copied().filter(|b| (first..=last).contains(b)).collect()),
            (format!("bytes={first}-"), content.iter().copied().filter(|b| *b >= first).collect()),
            (format!("bytes=-{last}"), content.iter().rev().take(last as usize).rev().copied().collect()),
        ];
        for (value, expected) in cases {
            match ByteRange::parse(value.as_bytes()) {
                None => prop_assert!(first > last, "{value}"),
                Some(range) => match range.resolve(length) {
                    Resolved::Unsatisfiable => prop_assert!(expected.is_empty(), "{value} of {length}"),
                    Resolved::Part { start, end } => {
                        prop_assert_eq!(&content[start as usize..=end as usize], &expected[..], "{} of {}", value, length);
                    }
                },
            }
        }
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ByteRange::parse(&bytes).map(|range| range.resolve(17));
        let text = String::from_utf8_lossy(&bytes);
        let _ = dictionary(&text);
        let _ = Directives::new(&text).count();
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            let mut map = HeaderMap::new();
            for name in ["cache-control", "vary", "accept-encoding", "accept-language", "if-none-match",
                "if-range", "etag", "cache-tag", "surrogate-key", "cdn-cache-control", "range"] {
                map.insert(HeaderName::from_static(name), value.clone());
            }
            let _ = ResponseDirectives::of(&map);
            let _ = RequestDirectives::of(&map);
            let _ = conditional::evaluate(&map, &map);
            let _ = conditional::if_range_holds(&map, &map);
            let _ = Tags::of(&map, &[]);
            let _ = verge_cache::date::parse(&value);
            if let Vary::Fields(names) = vary::parse(&map) {
                prop_assert!(Selection::of(&names, &map).matches(&map));
            }
        }
    }

    /// Directives survive what the grammar allows to differ: case, white space, empty members, order.
    #[test]
    fn directives_do_not_depend_on_their_looks(age in 0u64..5_000_000_000, shared in 0u64..100, upper: bool, pad in "[ \t]{0,3}", junk in "[a-z]{1,8}") {
        let mut text = format!("{pad}max-age={age}{pad},,{pad}x-{junk}=\"a, max-age=7\",no-store , s-maxage=\"{shared}\"");
        if upper {
            text = text.to_ascii_uppercase();
        }
        let directives = ResponseDirectives::of(&one("cache-control", &text));
        prop_assert_eq!(directives.max_age, Some(age.min(MAX_DELTA_SECONDS)));
        prop_assert_eq!(directives.s_maxage, Some(shared));
        prop_assert!(directives.no_store && !directives.must_revalidate);
    }

    /// Sorted queries are equal exactly when they have the same parameters, repeated ones in order.
    #[test]
    fn sorting_a_query_is_idempotent_and_keeps_every_parameter(parameters in proptest::collection::vec("[ab]=?[0-9]?", 1..6), swap in 0usize..5) {
        let raw = parameters.join("&");
        let sorted = key_parts::query(&QueryKey::Sort, Some(&raw)).unwrap().into_owned();
        let again = key_parts::query(&QueryKey::Sort, Some(&sorted)).unwrap().into_owned();
        prop_assert_eq!(&sorted, &again);
        let mut before: Vec<&str> = raw.split('&').collect();
        let mut after: Vec<&str> = sorted.split('&').collect();
        before.sort_unstable();
        after.sort_unstable();
        prop_assert_eq!(before, after);
        // Exchanging neighbours of different names changes nothing.
        let mut exchanged = parameters.clone();
        let at = swap % parameters.len();
        let name = |p: &str| p.split('=').next().unwrap().to_owned();
        if at + 1 < exchanged.len() && name(&exchanged[at]) != name(&exchanged[at + 1]) {
            exchanged.swap(at, at + 1);
            let other = key_parts::query(&QueryKey::Sort, Some(&exchanged.join("&"))).unwrap().into_owned();
            prop_assert_eq!(&sorted, &other);
        }
    }

    /// Different parts make different keys, and equal parts equal ones.
    #[test]
    fn keys_are_equal_exactly_when_their_parts_are(a in parts(), b in parts()) {
        let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let (policy_a, policy_b) = (policy(a.4), policy(b.4));
        let none = HeaderMap::new();
        let request = |p: &'_ Parts, policy: &Arc<CachePolicy>, check: &mut dyn FnMut(&Request<'_>)| {
            check(&Request { site: &p.0, scheme: "http", host: &p.1, path: &p.2, query: p.3.as_deref(), method: &Method::GET, headers: &none, policy });
        };
        let mut kept = None;
        request(&a, &policy_a, &mut |r| kept = Some((KeyRef::of(r).keep(), KeyRef::of(r).hash(&state))));
        let (kept, hash) = kept.unwrap();
        let mut equal = false;
        let mut same_hash = false;
        request(&b, &policy_b, &mut |r| {
            equal = kept.is(&KeyRef::of(r));
            same_hash = hash == KeyRef::of(r).hash(&state);
        });
        let query = |p: &Parts| key_parts::query(policy(p.4).key.query(), p.3.as_deref()).map(std::borrow::Cow::into_owned);
        let expected = a.0 == b.0 && a.1 == b.1 && a.2 == b.2 && a.4 == b.4 && query(&a) == query(&b);
        prop_assert_eq!(equal, expected);
        prop_assert_eq!(same_hash, expected);
    }

    /// The order in which purges and fills come does not matter, only their epochs do.
    #[test]
    fn an_index_answers_as_a_plain_list_would(purges in proptest::collection::vec((selector(), any::<bool>()), 0..12), path in path(), query in proptest::option::of("[ab]{0,2}"), tag in "[xy]", epoch in 0u64..12) {
        let policy = policy(0);
        let site: SiteName = "s".into();
        let none = HeaderMap::new();
        let request = Request { site: &site, scheme: "http", host: "h", path: &path, query: query.as_deref(), method: &Method::GET, headers: &none, policy: &policy };
        let kept = KeyRef::of(&request).keep();
        let mut index = PurgeIndex::default();
        let url = match &query { Some(q) => format!("{path}?{q}"), None => path.clone() };
        let mut expected = Verdict::Alive;
        for (n, (selector, soft)) in purges.iter().enumerate() {
            let at = n as u64 + 1;
            let mode = if *soft { Mode::Soft } else { Mode::Hard };
            index.insert(std::slice::from_ref(selector), mode, at, 7);
            let selects = match selector {
                Selector::Url(u) => *u == url || *u == format!("http://h{url}"),
                Selector::Prefix(p) => url.starts_with(p.trim_start_matches("http://h")) && !p.starts_with("http://i"),
                Selector::Tag(t) => *t == tag,
                Selector::Host(h) => h == "h",
                Selector::Everything(_) => true,
            };
            if selects && at > epoch && expected != Verdict::Dead {
                expected = if *soft { Verdict::Soft { since: 7 } } else { Verdict::Dead };
            }
        }
        prop_assert_eq!(index.judge(&kept, &[tag.clone().into()], epoch), expected);
        // Forgetting what nothing is old enough for changes no answer.
        index.forget_until(epoch);
        prop_assert_eq!(index.judge(&kept, &[tag.into()], epoch), expected);
    }
}

#[test]
fn directives_of_rfc_8246_and_5861() {
    let directives = ResponseDirectives::of(&one("cache-control", "max-age=60, Immutable"));
    assert!(directives.immutable && !ResponseDirectives::default().immutable);
    let request = |value| RequestDirectives::of(&one("cache-control", value)).stale_if_error;
    assert_eq!(request("stale-if-error=60, stale-if-error=1"), Some(60));
    assert_eq!(request("stale-if-error"), None);
    assert_eq!(request("max-age=1"), None);
}

#[test]
fn a_dictionary_has_a_thousand_members_and_no_more() {
    let members = |count: usize| {
        let list: Vec<String> = (0..count).map(|n| format!("a{n}")).collect();
        dictionary(&list.join(",")).map(|members| members.len())
    };
    assert_eq!(members(1024), Some(1024));
    assert_eq!(members(1025), None);
    // The same key again does not count.
    assert_eq!(dictionary(&["a"; 5000].join(",")).map(|members| members.len()), Some(1));
}

type Parts = (SiteName, String, String, Option<String>, u8);

fn parts() -> impl Strategy<Value = Parts> {
    ("[ab]", "[ab]", "/[ab]{0,2}", proptest::option::of("[ab]=?"), 0u8..5).prop_map(
        |(site, host, path, query, policy)| (site.as_str().into(), host, path, query, policy),
    )
}

fn policy(kind: u8) -> Arc<CachePolicy> {
    let query = match kind {
        0 => QueryKey::All,
        1 => QueryKey::Ignore,
        2 => QueryKey::Sort,
        3 => QueryKey::Include(vec!["a".into()]),
        _ => QueryKey::Exclude(vec!["a".into()]),
    };
    Arc::new(CachePolicy { key: Arc::new(query.into()), ..CachePolicy::default() })
}

fn path() -> impl Strategy<Value = String> {
    "(/[ab]{0,2}){1,3}"
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        (path(), proptest::option::of("[ab]{0,2}"), prop_oneof!["", "http://h", "http://i"])
            .prop_map(|(path, query, origin)| Selector::Url(match query {
                Some(query) => format!("{origin}{path}?{query}"),
                None => format!("{origin}{path}"),
            })),
        (path(), prop_oneof!["", "http://h", "http://i"], prop_oneof!["", "\\?[ab]{0,1}"])
            .prop_map(|(path, origin, query)| Selector::Prefix(format!("{origin}{path}{query}"))),
        "[xyz]".prop_map(Selector::Tag),
        prop_oneof!["h", "i"].prop_map(Selector::Host),
        Just(Selector::Everything(true)),
    ]
}

#[test]
fn structured_dictionaries_parse_or_fail_as_a_whole() {
    let member = |name: &str, value| (name.to_owned(), value);
    for (text, expected) in [
        ("max-age=60", Some(vec![member("max-age", Bare::Integer(60))])),
        (
            "no-store, max-age=-1;x",
            Some(vec![
                member("no-store", Bare::Boolean(true)),
                member("max-age", Bare::Integer(-1)),
            ]),
        ),
        ("a=1, a=2", Some(vec![member("a", Bare::Integer(2))])),
        ("a=?0", Some(vec![member("a", Bare::Boolean(false))])),
        ("a=\"x\\\"y\"", Some(vec![member("a", Bare::Text("x\"y".into()))])),
        ("a=tok/en;q=1.5", Some(vec![member("a", Bare::Text("tok/en".into()))])),
        ("a=(1 \"b\" c;d=?1)", Some(vec![member("a", Bare::Other)])),
        (
            "a=:YWJj:, b=1.5, c=@17, d=%\"%c3%bc\"",
            Some(vec![
                member("a", Bare::Other),
                member("b", Bare::Other),
                member("c", Bare::Other),
                member("d", Bare::Other),
            ]),
        ),
        ("", Some(vec![])),
        ("A=1", None),
        ("a=1,", None),
        ("a=1 b=2", None),
        ("a =1", None),
        ("a= 1", None),
        ("a=1, &", None),
        ("a=1234567890123456", None),
        ("a=\"x", None),
        ("a=(1", None),
        ("a=1.", None),
    ] {
        assert_eq!(dictionary(text), expected, "{text}");
    }
}

#[test]
fn dates_in_all_three_formats_and_any_case() {
    let parse = |text: &'static str| verge_cache::date::parse(&HeaderValue::from_static(text));
    let expected = Some(784_111_777);
    for text in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "SUN, 06 nov 1994 08:49:37 gmt",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ] {
        assert_eq!(parse(text), expected, "{text}");
    }
    for text in [
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "0",
        "",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}

#[test]
fn selecting_fields_have_one_normal_form() {
    let names = [HeaderName::from_static("foo"), http::header::ACCEPT_LANGUAGE];
    let request = |values: &[&str], language: &str| {
        let mut map = HeaderMap::new();
        for value in values {
            map.append("foo", HeaderValue::from_str(value).unwrap());
        }
        map.insert("accept-language", HeaderValue::from_str(language).unwrap());
        map
    };
    let stored = Selection::of(&names, &request(&["1, 2"], "en, de"));
    for (values, language, expected) in [
        (vec!["1,2"], "de,en", true),
        (vec!["1", "2"], "eN , De", true),
        (vec![" 1 ,  2 "], "en;q=1, de", true),
        (vec!["2, 1"], "en, de", false),
        (vec!["1, 2"], "en, de;q=0.5", false),
        (vec!["1, 2"], "en", false),
        (vec![], "en, de", false),
    ] {
        assert_eq!(stored.matches(&request(&values, language)), expected, "{values:?} {language}");
    }
    let quoted = Selection::of(&names[..1], &request(&["\"a, b\""], ""));
    assert!(!quoted.matches(&request(&["\"a,b\""], "")), "inside quotes white space counts");
    for any in ["*", ", *", "Foo, *", "a b"] {
        assert_eq!(vary::parse(&one("vary", any)), Vary::Any, "{any}");
    }
    assert_eq!(vary::parse(&one("vary", " , ")), Vary::None);
}

#[test]
fn tags_are_limited() {
    let many: Vec<String> = (0..1_500).map(|n| format!("T{n}")).collect();
    let mut map = one("cache-tag", &many.join(","));
    map.insert("surrogate-key", HeaderValue::from_str(&"x".repeat(2_000)).unwrap());
    let tags = Tags::of(&map, &["Mine".to_owned()]);
    assert_eq!((tags.kept.len(), tags.ignored), (1_000, 502));
    assert!(tags.kept.iter().any(|tag| &**tag == "mine"));
}
