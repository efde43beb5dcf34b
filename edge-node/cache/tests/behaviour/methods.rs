//! References at the request's own origin, what HEAD says of a stored response, and when an answer to POST
//! is one to GET.

use http::{HeaderMap, Method, StatusCode};
use proptest::prelude::*;
use verge_cache::freshness::{Input, judge};
use verge_cache::methods::{HeadUpdate, answers_get, head_update};
use verge_cache::reference::resolve;
use verge_cache::{Now, Request};

use crate::common::{Bench, headers};

#[test]
fn references_lead_where_rfc_3986_says() {
    let bench = Bench::new();
    let none = HeaderMap::new();
    let request = bench.request(&Method::POST, "/b/c/d;p?q", &none);
    let found = |reference: &str| {
        resolve(reference, &request).map(|target| match target.query {
            Some(query) => format!("{}?{query}", target.path),
            None => target.path,
        })
    };
    for (reference, expected) in [
        // Section 5.4, as far as it is of the same origin.
        ("g", "/b/c/g"),
        ("./g", "/b/c/g"),
        ("g/", "/b/c/g/"),
        ("/g", "/g"),
        ("?y", "/b/c/d;p?y"),
        ("g?y", "/b/c/g?y"),
        ("#s", "/b/c/d;p?q"),
        ("g#s", "/b/c/g"),
        ("g?y#s", "/b/c/g?y"),
        (";x", "/b/c/;x"),
        ("", "/b/c/d;p?q"),
        (".", "/b/c/"),
        ("./", "/b/c/"),
        ("..", "/b/"),
        ("../", "/b/"),
        ("../g", "/b/g"),
        ("../..", "/"),
        ("../../g", "/g"),
        ("../../../../g", "/g"),
        ("/./g", "/g"),
        ("/../g", "/g"),
        ("g.", "/b/c/g."),
        ("..g", "/b/c/..g"),
        ("./../g", "/b/g"),
        ("g/./h", "/b/c/g/h"),
        ("g/../h", "/b/c/h"),
        ("g?y/../x", "/b/c/g?y/../x"),
        ("https://shop.example/x?y", "/x?y"),
        ("HTTP://Shop.Example:80", "/"),
        ("//shop.example/x", "/x"),
        ("//shop.example:443/x/../y", "/y"),
        (" /x ", "/x"),
        ("a/b:c", "/b/c/a/b:c"),
    ] {
        assert_eq!(found(reference).as_deref(), Some(expected), "{reference}");
    }
    for elsewhere in [
        "https://other.example/x",
        "//other.example/x",
        "///x",
        "http:///x",
        "http:g",
        "mailto:a@shop.example",
        "https://user@shop.example/",
        "https://shop.example:8443/",
    ] {
        assert_eq!(found(elsewhere), None, "{elsewhere}");
    }
}

#[test]
fn head_freshens_what_it_is_of_and_invalidates_what_it_is_not_of() {
    use HeadUpdate::{Freshen, Invalidate, Nothing};
    let stored = headers(&[
        ("etag", "\"a\""),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("content-length", "7"),
    ]);
    let update = |status: u16, head: &[(&str, &str)]| {
        head_update(&stored, StatusCode::from_u16(status).unwrap(), &headers(head))
    };
    let date = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    for (status, head, expected) in [
        (200, &[("etag", "\"a\""), date, ("content-length", "7")][..], Freshen),
        (200, &[("etag", "\"a\"")], Freshen),
        (200, &[("last-modified", "Sunday, 06-Nov-94 08:49:37 GMT")], Freshen),
        (200, &[], Freshen),
        (200, &[("etag", "\"b\""), date], Invalidate),
        (200, &[("etag", "W/\"a\"")], Invalidate),
        (200, &[("etag", "\"a\""), ("content-length", "8")], Invalidate),
        (200, &[("last-modified", "Sun, 06 Nov 1994 08:49:38 GMT")], Invalidate),
        (200, &[("last-modified", "never")], Invalidate),
        (404, &[("etag", "\"b\"")], Nothing),
        (304, &[("etag", "\"b\"")], Nothing),
    ] {
        assert_eq!(update(status, head), expected, "{status} {head:?}");
    }
    // A validator that the stored response lacks does not match either.
    let head = headers(&[("etag", "\"a\"")]);
    assert_eq!(head_update(&HeaderMap::new(), StatusCode::OK, &head), Invalidate);
}

fn answers(request: &Request<'_>, status: u16, response: &[(&str, &str)]) -> bool {
    let (status, response) = (StatusCode::from_u16(status).unwrap(), headers(response));
    let now = Now { mono: 0, wall: 1_700_000_000 };
    let judgement = judge(&Input {
        status,
        headers: &response,
        request: request.headers,
        policy: request.policy,
        requested: now,
        received: now,
    });
    answers_get(request, status, &response, &judgement)
}

#[test]
fn an_answer_to_post_is_one_to_get_only_where_the_source_says_so() {
    let bench = Bench::new();
    let none = HeaderMap::new();
    let request = bench.request(&Method::POST, "/p?q", &none);
    let fresh = ("cache-control", "max-age=60");
    for (response, expected) in [
        (&[fresh, ("content-location", "/p?q")][..], true),
        (&[fresh, ("content-location", "https://shop.example/p?q")], true),
        (&[("cdn-cache-control", "max-age=60"), ("content-location", "/p?q")], true),
        (&[fresh, ("content-location", "http://shop.example/p?q")], false),
        (&[fresh, ("content-location", "/p")], false),
        (&[fresh, ("content-location", "/p?q2")], false),
        (&[fresh, ("content-location", "https://other.example/p?q")], false),
        (&[fresh, ("content-location", "/p?q"), ("content-location", "/p?q")], false),
        (&[fresh], false),
        (&[("content-location", "/p?q")], false),
        (
            &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("content-location", "/p?q")],
            false,
        ),
        (&[("cache-control", "max-age=0"), ("content-location", "/p?q")], false),
        (&[("cache-control", "max-age=60, private"), ("content-location", "/p?q")], false),
        (&[("cache-control", "max-age=60, no-store"), ("content-location", "/p?q")], false),
    ] {
        assert_eq!(answers(&request, 200, response), expected, "{response:?}");
    }
    let right = [fresh, ("content-location", "/p?q")];
    assert!(!answers(&request, 201, &right));
    assert!(!answers(&bench.request(&Method::PUT, "/p?q", &none), 200, &right));
    let authorised = headers(&[("authorization", "x")]);
    assert!(!answers(&bench.request(&Method::POST, "/p?q", &authorised), 200, &right));
}

proptest! {
    #[test]
    fn a_reference_leads_to_a_path_or_nowhere(reference in "[-a:/.?#% é]{0,20}", path in "(/[a.]{0,3}){0,3}") {
        let bench = Bench::new();
        let none = HeaderMap::new();
        if let Some(target) = resolve(&reference, &bench.request(&Method::POST, &path, &none)) {
            let own = reference.trim().split('#').next().unwrap().split('?').next().unwrap().is_empty();
            prop_assert!(target.path.starts_with('/') || own, "{}", target.path);
        }
    }
}
