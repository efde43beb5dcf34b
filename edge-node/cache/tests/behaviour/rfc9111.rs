//! What RFC 9111 asks of a cache, seen from outside: freshness, validation, conditions, ranges, Vary.

use http::{HeaderMap, Method};
use std::sync::Arc;
use std::time::Duration;
use verge_cache::Outcome;
use verge_config::site::{CacheMode, CachePolicy, ClientCacheControl, TtlRule, TtlRules};

use crate::common::{Bench, NOW, Scripted, headers, read, reply};

fn dated(offset: i64) -> String {
    let at = NOW.checked_add_signed(offset).unwrap();
    verge_cache::date::format(at).to_str().unwrap().to_owned()
}

/// Whether a response with these fields is reused by the next request, `after` seconds later.
async fn reused_with(
    bench: &Bench,
    status: u16,
    fields: &[(&str, &str)],
    request: &[(&str, &str)],
    after: u64,
) -> bool {
    let owned: Vec<(String, String)> =
        fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let source = Scripted::new(move |n, _| {
        let fields: Vec<(&str, &str)> = owned.iter().map(|(n, v)| (&**n, &**v)).collect();
        reply(status, &fields, format!("body {n}"))
    });
    let first = bench.ok("/a", request, &source).await;
    assert_eq!(first.status, status);
    bench.advance(after);
    let second = bench.ok("/a", request, &source).await;
    assert_eq!(second.text() == "body 0", source.count() == 1);
    source.count() == 1
}

async fn reused(fields: &[(&str, &str)], after: u64) -> bool {
    reused_with(&Bench::new(), 200, fields, &[], after).await
}

#[tokio::test]
async fn freshness_follows_the_directives() {
    for (fields, after, expected) in [
        (vec![("cache-control", "max-age=10")], 9, true),
        (vec![("cache-control", "max-age=10")], 10, false),
        (vec![("cache-control", "MaX-aGe=10")], 9, true),
        (vec![("cache-control", "foo, max-age=\"10\"")], 9, true),
        (vec![("cache-control", "max-age=99999999999")], 1_000_000, true),
        (vec![("cache-control", "max-age=-5")], 0, false),
        (vec![("cache-control", "max-age='10'")], 0, false),
        (vec![("cache-control", "x=\"max-age=10\", max-age=1")], 5, false),
        (vec![("cache-control", "max-age=1, s-maxage=10")], 5, true),
        (vec![("cache-control", "max-age=10, s-maxage=1")], 5, false),
        (vec![("cache-control", "max-age=10"), ("age", "7")], 5, false),
        (vec![("cache-control", "max-age=10"), ("age", "abc")], 5, true),
        (vec![("cache-control", "max-age=10"), ("age", "7;a=b")], 5, false),
        (vec![("cache-control", "max-age=10"), ("age", "0, 70")], 5, true),
        (vec![("cache-control", "no-store, max-age=10")], 0, false),
        (vec![("cache-control", "private, max-age=10")], 0, false),
        (vec![("cache-control", "no-cache, max-age=10")], 0, false),
        (vec![("cache-control", "max-age=10"), ("vary", "*")], 0, false),
        (vec![("cache-control", "max-age=10"), ("set-cookie", "a=b")], 5, true),
        (vec![("set-cookie", "a=b")], 0, false),
        (vec![], 0, false),
    ] {
        assert_eq!(reused(&fields, after).await, expected, "{fields:?} after {after} s");
    }
}

#[tokio::test]
async fn expires_and_last_modified_count() {
    let (date, later, past) = (dated(0), dated(10), dated(-1000));
    let date = ("date", date.as_str());
    assert!(reused(&[date, ("expires", &later)], 9).await);
    assert!(!reused(&[date, ("expires", &later)], 10).await);
    assert!(!reused(&[date, ("expires", "0")], 0).await);
    assert!(!reused(&[date, ("expires", "0"), ("last-modified", &past)], 0).await);
    assert!(reused(&[date, ("expires", "0"), ("cache-control", "max-age=10")], 5).await);
    // A tenth of 1,000 s.
    assert!(reused(&[date, ("last-modified", &past)], 99).await);
    assert!(!reused(&[date, ("last-modified", &past)], 100).await);
    // Heuristics are not for every status, unless the response says public.
    let bench = Bench::new();
    assert!(!reused_with(&bench, 403, &[date, ("last-modified", &past)], &[], 0).await);
    let public = [date, ("last-modified", &*past), ("cache-control", "public")];
    assert!(reused_with(&bench, 599, &public, &[], 0).await);
    // A Date in the past makes the response older.
    assert!(!reused(&[("date", &past), ("cache-control", "max-age=500")], 0).await);
}

#[tokio::test]
async fn statuses_are_stored_when_explicitly_fresh() {
    for status in [200, 203, 299, 301, 303, 400, 404, 499, 500, 503, 599] {
        let bench = Bench::new();
        let fields = [("cache-control", "max-age=10")];
        assert!(reused_with(&bench, status, &fields, &[], 5).await, "{status} fresh");
        bench.advance(100);
        assert!(!reused_with(&Bench::new(), status, &fields, &[], 10).await, "{status} stale");
    }
    let bench = Bench::new();
    let understood = [("cache-control", "max-age=10, must-understand")];
    assert!(!reused_with(&bench, 599, &understood, &[], 0).await);
    let understood = [("cache-control", "max-age=10, must-understand, no-store")];
    assert!(reused_with(&Bench::new(), 200, &understood, &[], 0).await);
}

#[tokio::test]
async fn targeted_cache_control_replaces_the_rest() {
    let long = ("cache-control", "max-age=100");
    assert!(!reused(&[long, ("cdn-cache-control", "max-age=1")], 5).await);
    assert!(reused(&[("cache-control", "no-store"), ("cdn-cache-control", "max-age=9")], 5).await);
    assert!(!reused(&[long, ("cdn-cache-control", "no-store")], 0).await);
    // What does not parse is ignored whole.
    assert!(reused(&[long, ("cdn-cache-control", "max-age=1, &&&")], 5).await);
    assert!(reused(&[long, ("cdn-cache-control", "MAX-AGE=1")], 5).await);
    let ours = ("verge-cdn-cache-control", "max-age=50");
    assert!(reused(&[long, ("cdn-cache-control", "max-age=1"), ours], 49).await);

    let bench = Bench::new();
    let source = Scripted::new(|_, _| {
        let fields = [
            ("verge-cdn-cache-control", "max-age=9"),
            ("cdn-cache-control", "max-age=1"),
            ("cache-tag", "a,b"),
            ("surrogate-key", "c d"),
        ];
        reply(200, &fields, "x")
    });
    for _ in 0..2 {
        let got = bench.ok("/t", &[], &source).await;
        assert_eq!(got.header("cdn-cache-control"), "max-age=1");
        for gone in ["verge-cdn-cache-control", "cache-tag", "surrogate-key"] {
            assert!(!got.headers.contains_key(gone), "{gone}");
        }
    }
    assert_eq!(source.count(), 1);
}

#[tokio::test]
async fn authorization_and_cookies_never_cross_users() {
    let auth = [("authorization", "Basic x")];
    for (cc, expected) in [
        ("max-age=10", false),
        ("max-age=10, public", true),
        ("s-maxage=10", true),
        ("max-age=10, must-revalidate", true),
        ("max-age=10, private", false),
    ] {
        let fields = [("cache-control", cc)];
        assert_eq!(reused_with(&Bench::new(), 200, &fields, &auth, 0).await, expected, "{cc}");
    }
    // A lifetime that was guessed is not for what answers a cookie.
    let (date, past) = (dated(0), dated(-1000));
    let fields = [("date", &*date), ("last-modified", &*past)];
    assert!(!reused_with(&Bench::new(), 200, &fields, &[("cookie", "a=b")], 0).await);
}

#[tokio::test]
async fn request_directives_are_honoured_unless_the_site_says_no() {
    let fields = [("cache-control", "max-age=10"), ("age", "3")];
    for (cc, expected) in [
        ("no-cache", false),
        ("no-store", false),
        ("max-age=2", false),
        ("max-age=0", false),
        ("max-age=5", true),
        ("min-fresh=8", false),
        ("min-fresh=5", true),
        ("unknown", true),
        ("only-if-cached", true),
    ] {
        let bench = Bench::new();
        let source = Scripted::new(move |_, _| reply(200, &fields, "x"));
        bench.ok("/a", &[], &source).await;
        bench.ok("/a", &[("cache-control", cc)], &source).await;
        assert_eq!(source.count() == 1, expected, "{cc}");

        let ignore = ClientCacheControl::Ignore;
        let bench =
            Bench::policy(CachePolicy { client_cache_control: ignore, ..CachePolicy::default() });
        let source = Scripted::new(move |_, _| reply(200, &fields, "x"));
        bench.ok("/a", &[], &source).await;
        bench.ok("/a", &[("cache-control", cc)], &source).await;
        assert_eq!(source.count(), 1, "{cc} ignored");
    }
    let bench = Bench::new();
    let source = Scripted::new(move |_, _| reply(200, &fields, "x"));
    let refused = bench.get("/a", &[("cache-control", "only-if-cached")], &source).await;
    assert!(refused.unwrap_err().contains("only-if-cached"));
    bench.ok("/a", &[], &source).await;
    bench.advance(20);
    let stale = bench.ok("/a", &[("cache-control", "max-stale=100")], &source).await;
    assert_eq!((source.count(), stale.outcome), (1, Outcome::Stale));
    assert_eq!(bench.ok("/a", &[("pragma", "no-cache")], &source).await.outcome, Outcome::Miss);
}

#[tokio::test]
async fn a_304_confirms_and_updates() {
    let bench = Bench::new();
    let source = Scripted::new(|n, request| match n {
        0 => reply(
            200,
            &[
                ("cache-control", "max-age=10"),
                ("etag", "\"one\""),
                ("x-kept", "1"),
                ("x-changed", "old"),
                ("content-type", "text/plain"),
                ("content-encoding", "x"),
            ],
            "hello",
        ),
        _ => {
            assert_eq!(request.headers["if-none-match"], "\"one\"");
            let fields = [
                ("cache-control", "max-age=50"),
                ("x-changed", "new"),
                ("content-length", "99"),
                ("content-encoding", "y"),
            ];
            reply(304, &fields, "")
        }
    });
    bench.ok("/a", &[], &source).await;
    bench.advance(10);
    for outcome in [Outcome::Revalidated, Outcome::Hit] {
        let got = bench.ok("/a", &[], &source).await;
        assert_eq!((got.status, got.text(), got.outcome), (200, "hello", outcome));
        assert_eq!(got.header("x-kept"), "1");
        assert_eq!(got.header("x-changed"), "new");
        assert_eq!(got.header("content-length"), "5");
        assert_eq!(got.header("content-encoding"), "x");
        assert_eq!(got.header("cache-control"), "max-age=50");
        let hit = outcome == Outcome::Hit;
        assert_eq!(got.header("age"), if hit { "49" } else { "0" });
        if !hit {
            bench.advance(49);
        }
    }
    assert_eq!(source.count(), 2);
    // The visitor's own condition is answered from what was confirmed.
    bench.advance(1);
    let got = bench.ok("/a", &[("if-none-match", "W/\"one\"")], &source).await;
    assert_eq!((got.status, source.count()), (304, 3));
}

#[tokio::test]
async fn conditions_are_answered_from_the_store_and_from_fills() {
    let bench = Bench::new();
    let past = dated(-1000);
    let source = Scripted::new(move |_, request| {
        assert!(!request.headers.contains_key("if-none-match"));
        assert!(!request.headers.contains_key("if-modified-since"));
        let fields =
            [("cache-control", "max-age=10"), ("etag", "\"v1\""), ("last-modified", &*past)];
        reply(200, &fields, "hello")
    });
    let (same, newer, older) = (dated(-1000), dated(-10), dated(-2000));
    for (fields, status) in [
        (vec![("if-none-match", "\"v1\"")], 304),
        (vec![("if-none-match", "\"v0\", W/\"v1\"")], 304),
        (vec![("if-none-match", "*")], 304),
        (vec![("if-none-match", "\"v0\"")], 200),
        (vec![("if-none-match", "\"v0\""), ("if-modified-since", &*newer)], 200),
        (vec![("if-modified-since", &*same)], 304),
        (vec![("if-modified-since", &*newer)], 304),
        (vec![("if-modified-since", &*older)], 200),
        (vec![("if-modified-since", "yesterday")], 200),
    ] {
        let got = bench.ok("/a", &fields, &source).await;
        assert_eq!(got.status, status, "{fields:?}");
        if status == 304 {
            assert_eq!((got.header("etag"), got.text()), ("\"v1\"", ""));
            assert!(!got.headers.contains_key("content-length"));
        }
    }
    assert_eq!(source.count(), 1);
}

#[tokio::test]
async fn ranges_are_slices_cold_and_warm() {
    let bench = Bench::new();
    let source = Scripted::new(|_, _| {
        reply(200, &[("cache-control", "max-age=10"), ("etag", "\"v\"")], "0123456789")
    });
    for (target, range, status, body, content_range) in [
        ("/cold", "bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("/cold", "bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("/a", "bytes=-3", 206, "789", "bytes 7-9/10"),
        ("/a", "bytes=7-", 206, "789", "bytes 7-9/10"),
        ("/a", "bytes=0-99", 206, "0123456789", "bytes 0-9/10"),
        ("/a", "bytes=10-", 416, "", "bytes */10"),
        ("/a", "bytes=5-2", 200, "0123456789", ""),
        ("/a", "bytes=0-1,3-4", 206, "01234", "bytes 0-4/10"),
        ("/a", "lines=0-1", 200, "0123456789", ""),
    ] {
        let got = bench.ok(target, &[("range", range)], &source).await;
        assert_eq!((got.status, got.text()), (status, body), "{range}");
        assert_eq!(got.header("content-range"), content_range, "{range}");
        assert_eq!(got.header("content-length"), body.len().to_string(), "{range}");
    }
    assert_eq!(source.count(), 2);
    for (condition, status) in [("\"v\"", 206), ("\"w\"", 200), ("W/\"v\"", 200)] {
        let fields = [("range", "bytes=0-1"), ("if-range", condition)];
        assert_eq!(bench.ok("/a", &fields, &source).await.status, status, "{condition}");
    }
}

#[tokio::test]
async fn head_is_answered_from_a_stored_get_and_otherwise_passed() {
    let bench = Bench::new();
    let source = Scripted::new(|_, request| {
        let body = if request.method == Method::HEAD { "" } else { "hello" };
        reply(200, &[("cache-control", "max-age=10"), ("content-length", "5")], body)
    });
    let head = || async {
        read(bench.serve(Method::HEAD, "/a", &[], &source).await.unwrap()).await.unwrap()
    };
    let cold = head().await;
    assert_eq!((cold.header("content-length"), cold.text()), ("5", ""));
    assert_eq!(source.seen.lock()[0].0, Method::HEAD);
    bench.ok("/a", &[], &source).await;
    let warm = head().await;
    assert_eq!((warm.header("content-length"), warm.text()), ("5", ""));
    assert_eq!(warm.outcome, Outcome::Hit);
    assert_eq!(source.count(), 2);
}

#[tokio::test]
async fn variants_are_kept_apart_and_capped() {
    let bench = Bench::with(|settings| settings.max_variants = 4, CachePolicy::default());
    let source = Scripted::new(|_, request| {
        let own = request.headers.get("foo").map_or("none", |v| v.to_str().unwrap()).to_owned();
        reply(200, &[("cache-control", "max-age=10"), ("vary", "Foo")], own)
    });
    for round in 0..2 {
        for value in ["1", "2", "3"] {
            let got = bench.ok("/a", &[("foo", value), ("bar", "x")], &source).await;
            assert_eq!(got.text(), value, "round {round}");
        }
    }
    assert_eq!(source.count(), 3);
    assert_eq!(bench.ok("/a", &[], &source).await.text(), "none");
    assert_eq!(bench.ok("/a", &[("foo", " 1 ")], &source).await.text(), "1");
    assert_eq!(source.count(), 4);
    for n in 10..1000 {
        let value = n.to_string();
        assert_eq!(bench.ok("/a", &[("foo", &value)], &source).await.text(), value);
    }
    let request = bench.request(&Method::GET, "/a", &EMPTY);
    assert_eq!(bench.cache.explain(&request).variants, 4);
    assert_eq!(bench.cache.stats().entries, 1);
}

static EMPTY: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);

#[tokio::test]
async fn accept_encoding_is_normalised_towards_the_source() {
    let bench = Bench::new();
    let source = Scripted::new(|_, request| {
        let coding = request.headers.get("accept-encoding").map(|v| v.to_str().unwrap().to_owned());
        let fields = [("cache-control", "max-age=10"), ("vary", "Accept-Encoding")];
        reply(200, &fields, coding.unwrap_or_default())
    });
    for (accept, expected, fetches) in [
        ("gzip, br", "br, gzip", 1),
        ("br;q=0.5,  gzip;q=1.0, deflate", "br, gzip", 1),
        ("gzip, br;q=0", "gzip", 2),
        ("deflate", "identity", 3),
        ("*", "br, gzip, zstd", 4),
    ] {
        let got = bench.ok("/a", &[("accept-encoding", accept)], &source).await;
        assert_eq!((got.text(), source.count()), (expected, fetches), "{accept}");
    }
}

#[tokio::test]
async fn rules_of_the_site_override_lifetimes_but_not_secrecy() {
    let rules = vec![TtlRule { low: 200, high: 299, ttl: Duration::from_secs(60) }];
    let policy = || CachePolicy {
        mode: CacheMode::Override(TtlRules(rules.clone())),
        browser_ttl: Some(Duration::from_secs(5)),
        ..CachePolicy::default()
    };
    for (fields, expected) in [
        (vec![], true),
        (vec![("cache-control", "max-age=0")], true),
        (vec![("cache-control", "no-cache")], true),
        (vec![("cache-control", "private")], false),
        (vec![("cache-control", "no-store")], false),
        (vec![("set-cookie", "a=b")], false),
    ] {
        let bench = Bench::policy(policy());
        assert_eq!(reused_with(&bench, 200, &fields, &[], 59).await, expected, "{fields:?}");
    }
    assert!(!reused_with(&Bench::policy(policy()), 200, &[], &[], 60).await);
    let bench = Bench::policy(policy());
    let source = Scripted::new(|_, _| reply(200, &[("cache-control", "public, max-age=9")], "x"));
    for _ in 0..2 {
        let got = bench.ok("/b", &[], &source).await;
        assert_eq!(got.header("cache-control"), "max-age=5, public");
    }
    let bypass = CachePolicy { mode: CacheMode::Bypass, ..CachePolicy::default() };
    let fields = [("cache-control", "max-age=10")];
    assert!(!reused_with(&Bench::policy(bypass), 200, &fields, &[], 0).await);
}

#[tokio::test]
async fn age_date_and_cache_status_tell_the_truth() {
    let bench = Bench::new();
    let source = Scripted::new(|_, _| {
        let fields = [
            ("cache-control", "max-age=100"),
            ("age", "30"),
            ("cache-status", "Origin; hit"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        reply(200, &fields[..3], "x")
    });
    let first = bench.ok("/a", &[], &source).await;
    let own: Vec<_> = first.headers.get_all("cache-status").iter().collect();
    assert_eq!(own, ["Origin; hit", "Verge; fwd=uri-miss; fwd-status=200; stored; ttl=70"]);
    bench.advance(12);
    // A jump of the wall clock changes nothing of what is stored.
    bench.clock.set_wall(NOW + 100_000);
    let second = bench.ok("/a", &[], &source).await;
    assert_eq!(second.header("age"), "42");
    assert_eq!(second.header("date"), dated(0));
    let own: Vec<_> = second.headers.get_all("cache-status").iter().collect();
    assert_eq!(own, ["Origin; hit", "Verge; hit; ttl=58"]);
}

#[tokio::test]
async fn a_clock_that_jumps_makes_nothing_older() {
    for jump in [NOW + 86_400, NOW - 86_400] {
        let bench = Bench::new();
        bench.clock.set_wall(jump);
        let date = dated(0);
        let fields = [("date", date.as_str()), ("cache-control", "max-age=10")];
        assert!(reused_with(&bench, 200, &fields, &[], 9).await, "{jump}");
        bench.advance(1);
        assert!(!bench.hits("/a"), "it still becomes stale on time");
    }
}

#[tokio::test]
async fn unsafe_methods_invalidate_and_doom_fills() {
    let bench = Bench::new();
    let source =
        Scripted::new(|n, _| reply(200, &[("cache-control", "max-age=100")], format!("{n}")));
    for target in ["/a", "/b", "/d/c?x"] {
        bench.ok(target, &[], &source).await;
        assert!(bench.hits(target));
    }
    let none = HeaderMap::new();
    let post = bench.request(&Method::POST, "/a", &none);
    let answer = headers(&[("location", "https://shop.example/b"), ("content-location", "/d/c?x")]);
    bench.cache.invalidate(&post, &answer);
    for target in ["/a", "/b", "/d/c?x"] {
        assert!(!bench.hits(target), "{target}");
    }
    bench.ok("/b", &[], &source).await;
    bench.cache.invalidate(&post, &headers(&[("location", "https://other.example/b")]));
    assert!(bench.hits("/b"), "another origin's URL is not touched");

    // A fill from before does not survive.
    let (tap, body) = crate::common::tapped();
    let body = parking_lot::Mutex::new(Some(body));
    let held = Scripted::new(move |_, _| {
        let mut answer = reply(200, &[("cache-control", "max-age=100")], "")?;
        answer.headers.remove("content-length");
        answer.body = body.lock().take().unwrap();
        Ok(answer)
    });
    let response = bench.serve(Method::GET, "/a", &[], &held).await.unwrap();
    bench.cache.invalidate(&post, &none);
    tap.send(Ok("old".into())).unwrap();
    drop(tap);
    assert_eq!(read(response).await.unwrap().text(), "old");
    assert!(!bench.hits("/a"));
    assert_eq!(Arc::strong_count(&held), 1 + usize::from(bench.cache.stats().fills > 0));
}
