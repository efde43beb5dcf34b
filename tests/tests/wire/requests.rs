//! Directives of requests (RFC 9111 section 5.2.1), and methods that are not GET or HEAD.

use super::lab::{Case, FRESH, Fields, Lab, NO_STORE, Want};
use verge_tests::Turn;

const NONE: Fields = &[];
const AGED: Fields = &[("Cache-Control", "max-age=3600"), ("Age", "100")];
const STALE: Fields = &[("Cache-Control", "max-age=60"), ("Age", "160")];
const STRICT: Fields = &[("Cache-Control", "max-age=60, must-revalidate"), ("Age", "160")];
const S_MAXAGE: Fields = &[("Cache-Control", "s-maxage=60"), ("Age", "160")];

/// The first request stores; the second carries the directive.
const DIRECTIVES: &[Case] = &[
    ("req-none", NONE, 200, FRESH, NONE, Want::Reused),
    ("req-unknown", NONE, 200, FRESH, &[("Cache-Control", "foo")], Want::Reused),
    (
        "req-pragma-foo",
        NONE,
        200,
        FRESH,
        &[("Pragma", "foo"), ("Cache-Control", "bar")],
        Want::Reused,
    ),
    ("req-no-cache", NONE, 200, FRESH, &[("Cache-Control", "no-cache")], Want::Asked),
    ("req-no-cache-case", NONE, 200, FRESH, &[("Cache-Control", "No-Cache")], Want::Asked),
    ("req-no-cache-among", NONE, 200, FRESH, &[("Cache-Control", "foo, no-cache")], Want::Asked),
    (
        "req-no-cache-line",
        NONE,
        200,
        FRESH,
        &[("Cache-Control", "foo"), ("Cache-Control", "no-cache")],
        Want::Asked,
    ),
    ("req-max-age-0", NONE, 200, FRESH, &[("Cache-Control", "max-age=0")], Want::Asked),
    ("req-max-age-below", NONE, 200, AGED, &[("Cache-Control", "max-age=50")], Want::Asked),
    ("req-max-age-above", NONE, 200, AGED, &[("Cache-Control", "max-age=1000")], Want::Reused),
    ("req-max-age-quoted", NONE, 200, AGED, &[("Cache-Control", "max-age=\"50\"")], Want::Asked),
    (
        "req-max-age-huge",
        NONE,
        200,
        AGED,
        &[("Cache-Control", "max-age=99999999999999999999")],
        Want::Reused,
    ),
    ("req-min-fresh-below", NONE, 200, AGED, &[("Cache-Control", "min-fresh=100")], Want::Reused),
    ("req-min-fresh-above", NONE, 200, AGED, &[("Cache-Control", "min-fresh=3550")], Want::Asked),
    ("req-max-stale", NONE, 200, STALE, &[("Cache-Control", "max-stale")], Want::Reused),
    ("req-max-stale-above", NONE, 200, STALE, &[("Cache-Control", "max-stale=1000")], Want::Reused),
    ("req-max-stale-below", NONE, 200, STALE, &[("Cache-Control", "max-stale=10")], Want::Asked),
    ("req-max-stale-strict", NONE, 200, STRICT, &[("Cache-Control", "max-stale")], Want::Asked),
    ("req-max-stale-s-maxage", NONE, 200, S_MAXAGE, &[("Cache-Control", "max-stale")], Want::Asked),
    (
        "req-max-stale-max-age",
        NONE,
        200,
        STALE,
        &[("Cache-Control", "max-stale=1000, max-age=50")],
        Want::Asked,
    ),
    ("req-max-stale-0", NONE, 200, FRESH, &[("Cache-Control", "max-stale=0")], Want::Reused),
    (
        "req-only-if-cached-hit",
        NONE,
        200,
        FRESH,
        &[("Cache-Control", "only-if-cached")],
        Want::Reused,
    ),
    ("req-no-transform", NONE, 200, FRESH, &[("Cache-Control", "no-transform")], Want::Reused),
    ("req-quoted-no-cache", NONE, 200, FRESH, &[("Cache-Control", "x=\"no-cache\"")], Want::Reused),
    ("req-immutable", NONE, 200, FRESH, &[("Cache-Control", "immutable")], Want::Reused),
];

pub(crate) async fn directives(lab: &Lab) {
    lab.run(DIRECTIVES).await;

    // only-if-cached: 504, and the origin is not asked (5.2.1.7).
    for (id, stored) in [("only-if-cached", None), ("only-if-cached-stale", Some(STALE))] {
        let path = format!("/{id}");
        lab.script.plan(&path, [Turn::new(200, stored.unwrap_or(NO_STORE), "1")]);
        if stored.is_some() {
            lab.get(&path).await;
        }
        let before = lab.script.count(&path);
        let reply = lab.ask("GET", &path, &[("Cache-Control", "only-if-cached")]).await;
        lab.same(id, reply.status, 504, &reply);
        lab.same(id, lab.script.count(&path), before, &reply);
    }

    // no-cache validates what is stored where it can (5.2.1.4), and what comes is stored for others.
    let tagged: Fields = &[("Cache-Control", "max-age=3600"), ("ETag", "\"1\"")];
    lab.script.plan("/req-validated", [Turn::new(200, tagged, "1"), Turn::new(304, tagged, "")]);
    lab.get("/req-validated").await;
    let reply = lab.ask("GET", "/req-validated", &[("Cache-Control", "no-cache")]).await;
    lab.same("req-validated", (reply.status, reply.text().as_str()), (200, "1"), &reply);
    lab.same("req-validated", lab.script.count("/req-validated"), 2, &reply);
    let hit = lab.get("/req-validated").await;
    lab.check("req-validated", hit.is_hit() && hit.text() == "1", format!("{hit:?}"));

    // no-store says nothing about what is stored already: it is neither used up nor thrown away.
    lab.script.plan("/req-no-store", [Turn::new(200, FRESH, "1"), Turn::new(200, FRESH, "2")]);
    lab.get("/req-no-store").await;
    lab.ask("GET", "/req-no-store", &[("Cache-Control", "no-store")]).await;
    let hit = lab.get("/req-no-store").await;
    lab.same("req-no-store-keeps", hit.text().as_str(), "1", &hit);
}

pub(crate) async fn methods(lab: &Lab) {
    // The origin gets each of these, each time, with its content (RFC 9111 section 4).
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "FOO"] {
        let (id, path) = (format!("method-{method}"), format!("/method-{method}"));
        lab.script.plan(&path, [Turn::new(200, FRESH, "1"), Turn::new(200, FRESH, "2")]);
        for expected in ["1", "2"] {
            let reply = lab.ask_host(method, super::lab::HOST, &path, &[], b"abc").await;
            lab.same(&id, reply.text().as_str(), expected, &reply);
        }
        for seen in lab.script.seen(&path) {
            lab.check(&id, seen.method == method && seen.body == "abc", format!("{seen:?}"));
        }
    }

    // A response to POST answers a later GET only when it says that it is that representation
    // (RFC 9110 section 9.3.3): explicitly fresh, and Content-Location is the URI.
    lab.script.plan("/post-plain", [Turn::new(200, FRESH, "1"), Turn::new(200, NO_STORE, "2")]);
    lab.ask("POST", "/post-plain", &[]).await;
    let reply = lab.get("/post-plain").await;
    lab.same("post-plain", reply.text().as_str(), "2", &reply);
    for (id, location, body) in
        [("post-located", "/post-located", "1"), ("post-located-elsewhere", "/elsewhere", "2")]
    {
        let path = format!("/{id}");
        let fields = [("Cache-Control", "max-age=3600"), ("Content-Location", location)];
        lab.script.plan(&path, [Turn::new(200, &fields, "1"), Turn::new(200, NO_STORE, "2")]);
        lab.ask("POST", &path, &[]).await;
        let reply = lab.get(&path).await;
        lab.same(id, reply.text().as_str(), body, &reply);
    }

    // Max-Forwards (RFC 9110 section 7.6.2): at nought we answer ourselves; else it counts down.
    lab.script.plan("/max-forwards", [Turn::new(200, NO_STORE, "1")]);
    lab.ask("OPTIONS", "/max-forwards", &[("Max-Forwards", "5")]).await;
    let seen = lab.script.seen("/max-forwards");
    let forwards = seen.first().and_then(|seen| seen.headers.get("max-forwards").cloned());
    let reply = lab.ask("OPTIONS", "/max-forwards", &[("Max-Forwards", "0")]).await;
    lab.check("max-forwards", forwards.is_some_and(|value| value == "4"), format!("{seen:?}"));
    lab.same("max-forwards-0", lab.script.count("/max-forwards"), 1, &reply);
}
