//! Keys with everything that may count: query, fields, cookies; their bytes; and how purges and unsafe
//! methods reach every copy under them.

use ahash::RandomState;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use std::sync::Arc;
use verge_cache::key::{Key, KeyRef};
use verge_cache::key_codec::Shared;
use verge_cache::{Request, SiteName};
use verge_config::purge::Selector;
use verge_config::site::{CachePolicy, KeyRule, QueryKey};

use crate::common::{Bench, Scripted, headers, reply};

fn rule(headers: &[&'static str], cookies: &[&str]) -> Arc<KeyRule> {
    let headers = headers.iter().map(|name| HeaderName::from_static(name)).collect();
    let cookies = cookies.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(KeyRule::new(QueryKey::All, headers, cookies))
}

fn with(key: Arc<KeyRule>) -> CachePolicy {
    CachePolicy { key, ..CachePolicy::default() }
}

/// The key of a request with these fields under a rule of `x-device` and `lang`.
fn keyed(fields: &HeaderMap) -> Key {
    let bench = Bench::policy(with(rule(&["x-device"], &["lang"])));
    KeyRef::of(&bench.request(&Method::GET, "/p?q", fields)).keep()
}

fn extras(fields: &[(&str, &str)]) -> String {
    keyed(&headers(fields)).extras().unwrap().to_owned()
}

#[test]
fn fields_and_cookies_count_in_their_normal_form() {
    assert_eq!(extras(&[]), "x-device;cookie:lang");
    for (fields, expected) in [
        (&[("x-device", ""), ("cookie", "lang=")][..], "x-device=;cookie:lang="),
        (&[("x-device", " a ,b "), ("cookie", "a=b; lang = de ")], "x-device=a,b;cookie:lang=de"),
        (&[("x-device", "a"), ("x-device", "b")], "x-device=a,b;cookie:lang"),
        (&[("x-device", "a;cookie:lang=de")], "x-device=a%3Bcookie:lang=de;cookie:lang"),
        (&[("cookie", "LANG=de; xlang=fr; lang=en; lang=it")], "x-device;cookie:lang=en,it"),
        (&[("cookie", "lang=en"), ("cookie", "lang=it")], "x-device;cookie:lang=en,it"),
        (&[("cookie", "lang")], "x-device;cookie:lang"),
        (&[("x-device", "50%"), ("cookie", "lang=a b")], "x-device=50%25;cookie:lang=a%20b"),
        (&[("x-other", "1"), ("accept-language", "de")], "x-device;cookie:lang"),
    ] {
        assert_eq!(extras(fields), expected, "{fields:?}");
    }
}

#[test]
fn a_long_value_counts_by_its_digest() {
    let long = |last: &str| format!("{}{last}", "x".repeat(1_024));
    let (a, b) = (extras(&[("x-device", &long("a"))]), extras(&[("x-device", &long("b"))]));
    assert!(a.len() < 120 && a.starts_with("x-device#"), "{a}");
    assert_ne!(a, b);
    // The control: up to the limit it stands there itself.
    assert!(extras(&[("x-device", &long(""))]).contains("xxxx"));
}

#[test]
fn bytes_beyond_ascii_are_told_apart() {
    let key = |bytes: &[u8]| {
        let mut map = HeaderMap::new();
        map.insert("x-device", HeaderValue::from_bytes(bytes).unwrap());
        keyed(&map)
    };
    assert!(key(b"\xe9") == key(b"\xe9"));
    assert!(key(b"\xe9") != key(b"\xe8"));
    assert!(key(b"\xe9") != key("é".as_bytes()));
}

#[derive(Debug, Clone)]
struct Parts {
    site: SiteName,
    host: String,
    path: String,
    query: Option<String>,
    device: Option<String>,
    lang: Option<String>,
    rule: u8,
}

fn parts() -> impl Strategy<Value = Parts> {
    let option = proptest::option::of::<&str>;
    (
        "[ab]",
        "[ab]",
        "/[ab\\n]{0,2}",
        option("[ab\\n]=?"),
        option("[a;%]{0,1}"),
        option("[a]{0,1}"),
        0u8..4,
    )
        .prop_map(|(site, host, path, query, device, lang, rule)| Parts {
            site: site.as_str().into(),
            host,
            path,
            query,
            device,
            lang,
            rule,
        })
}

impl Parts {
    /// The key in both forms, and what should be all of it.
    fn check(&self, check: &mut dyn FnMut(&KeyRef<'_>)) {
        let rule = match self.rule {
            0 => rule(&[], &[]),
            1 => rule(&["x-device"], &[]),
            2 => rule(&[], &["lang"]),
            _ => rule(&["x-device"], &["lang"]),
        };
        let mut headers = HeaderMap::new();
        if let Some(device) = &self.device {
            headers.insert("x-device", device.parse().unwrap());
        }
        if let Some(lang) = &self.lang {
            headers.insert("cookie", format!("lang={lang}").parse().unwrap());
        }
        check(&KeyRef::of(&Request {
            site: &self.site,
            scheme: "http",
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &Method::GET,
            headers: &headers,
            policy: &Arc::new(with(rule)),
        }));
    }

    fn counted(&self) -> (&str, &str, &str, Option<&str>, Option<&str>, Option<&str>, u8) {
        let device = self.device.as_deref().filter(|_| self.rule & 1 != 0);
        let lang = self.lang.as_deref().filter(|_| self.rule & 2 != 0);
        (&**self.site, &self.host, &self.path, self.query.as_deref(), device, lang, self.rule)
    }
}

proptest! {
    /// Equal exactly when all that counts is equal; kept, borrowed and decoded ones alike.
    #[test]
    fn keys_are_equal_exactly_when_what_counts_is(a in parts(), b in parts()) {
        let state = RandomState::with_seeds(1, 2, 3, 4);
        let mut kept = None;
        a.check(&mut |key| kept = Some((key.keep(), key.hash(&state))));
        let (kept, hash) = kept.unwrap();
        let (site, host, path, query, ..) = a.counted();
        prop_assert_eq!((&**kept.site(), kept.host(), kept.path(), kept.query()), (site, host, path, query));
        prop_assert_eq!(kept.hash(&state), hash);
        let mut bytes = Vec::new();
        kept.encode(&mut bytes);
        let (decoded, rest) = Key::decode(&bytes, &mut Shared::default()).unwrap();
        prop_assert!(rest.is_empty());
        let expected = a.counted() == b.counted();
        b.check(&mut |key| {
            assert_eq!(kept.is(key), expected);
            assert_eq!(decoded.is(key), expected);
            assert_eq!(kept == key.keep(), expected);
            assert_eq!(hash == key.hash(&state), expected);
        });
    }

    /// Any bytes, and a key with any damage, are a key or none; and what they are encodes again.
    #[test]
    fn decoding_is_total(a in parts(), noise in proptest::collection::vec(any::<u8>(), 0..80), at in 0usize..200, flip in 1u8..) {
        let mut bytes = Vec::new();
        a.check(&mut |key| key.keep().encode(&mut bytes));
        let at = at % bytes.len();
        bytes[at] ^= flip;
        for bytes in [noise, bytes] {
            let Some((key, rest)) = Key::decode(&bytes, &mut Shared::default()) else { continue };
            let mut again = Vec::new();
            key.encode(&mut again);
            let (same, _) = Key::decode(&again, &mut Shared::default()).unwrap();
            prop_assert!(same == key && rest.len() < bytes.len());
        }
    }
}

const COPIES: [&[(&str, &str)]; 3] =
    [&[], &[("x-device", "mobile")], &[("x-device", "mobile"), ("cookie", "lang=de")]];

async fn filled() -> (Bench, Arc<Scripted>) {
    let bench = Bench::policy(with(rule(&["x-device"], &["lang"])));
    let source = Scripted::new(|_, _| reply(200, &[("cache-control", "max-age=60")], "x"));
    for copy in COPIES {
        bench.ok("/a/b?q", copy, &source).await;
        bench.ok("/other", copy, &source).await;
    }
    assert_eq!(source.count(), 6, "each copy has a key of its own");
    (bench, source)
}

fn there(bench: &Bench, target: &str) -> usize {
    let hit = |fields: &&[(&str, &str)]| {
        bench.cache.hit(&bench.request(&Method::GET, target, &headers(fields))).is_some()
    };
    COPIES.iter().filter(|fields| hit(fields)).count()
}

#[tokio::test]
async fn a_purge_by_url_prefix_or_host_reaches_every_copy() {
    for (selector, other) in [
        (Selector::Url("https://shop.example/a/b?q".into()), 3),
        (Selector::Url("/a/b?q".into()), 3),
        (Selector::Prefix("/a/b?".into()), 3),
        (Selector::Prefix("/a".into()), 3),
        (Selector::Host("shop.example".into()), 0),
    ] {
        let (bench, _) = filled().await;
        assert_eq!((there(&bench, "/a/b?q"), there(&bench, "/other")), (3, 3));
        assert_eq!(bench.hard(1, selector.clone()), 6 - other as u64, "{selector:?}");
        assert_eq!((there(&bench, "/a/b?q"), there(&bench, "/other")), (0, other), "{selector:?}");
    }
}

#[tokio::test]
async fn an_unsafe_method_reaches_every_copy() {
    let (bench, source) = filled().await;
    let fields = headers(&[("x-device", "tablet")]);
    bench.cache.invalidate(&bench.request(&Method::POST, "/a/b?q", &fields), &HeaderMap::new());
    assert_eq!((there(&bench, "/a/b?q"), there(&bench, "/other")), (0, 3));
    bench.ok("/a/b?q", COPIES[1], &source).await;
    assert_eq!(there(&bench, "/a/b?q"), 1, "what comes after it is stored");
}
