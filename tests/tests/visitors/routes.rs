//! Routes that are not for the cache: redirects, which ask nobody, and bypasses, which ask every time
//! and change nothing on the way; and certificates that are renewed while the edge runs.

use std::fs;
use tempfile::TempDir;
use tokio::time::{Duration, timeout};
use verge_tests::tls::{Certificate, connect};
use verge_tests::{Edge, Origin, Reply, Script, Turn, site, until};

const HOST: &str = "routes.example";
const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

const REDIRECTS: &str = "
[[routes]]
path = \"/moved/*\"
redirect = { to = \"/new/$1\", status = 301 }

[[routes]]
path = \"/found/*\"
redirect = { to = \"/new/$1?from=found\", status = 302 }

[[routes]]
path = \"/see/*\"
redirect = { to = \"https://other.example/$1\", status = 303 }

[[routes]]
path = \"/old/*/to/*\"
redirect = { to = \"/$2/$1\", status = 307 }

[[routes]]
path = \"/base/*\"
redirect = { to = \"/$1\", status = 308 }

[[routes]]
path = \"/*\"
origin = \"web\"
";

/// A request by either version of HTTP.
async fn ask(edge: &Edge, http2: bool, method: &str, path: &str) -> Reply {
    if http2 {
        edge.client2().await.request(method, HOST, path, &[], b"").await
    } else {
        edge.client().await.request(method, HOST, path, &[], b"").await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_lead_where_the_site_says() {
    let origin = Origin::always(200, FRESH, "origin").await;
    let edge = Edge::standalone(site::with_routes(&origin, REDIRECTS)).start().await;
    for http2 in [false, true] {
        for (path, status, location) in [
            ("/moved/a", 301, "/new/a"),
            ("/moved/", 301, "/new/"),
            ("/moved/a/b?x=1&y", 301, "/new/a/b?x=1&y"),
            ("/found/a", 302, "/new/a?from=found"),
            ("/found/a?x=1", 302, "/new/a?from=found"),
            ("/see/a", 303, "https://other.example/a"),
            ("/old/a/to/b", 307, "/b/a"),
            ("/base/a%20b", 308, "/a%20b"),
            ("/base/a%0D%0Ab", 308, "/a%0D%0Ab"),
            // What a visitor writes leads to no other host.
            ("/base//evil.example/", 308, "/evil.example/"),
        ] {
            for method in ["GET", "HEAD", "POST"] {
                let reply = ask(&edge, http2, method, path).await;
                let said = format!("{method} {path}: {reply:?}");
                assert_eq!(reply.status, status, "{said}");
                assert_eq!(reply.field("location"), location, "{said}");
                assert!(!reply.is_hit() && reply.whole, "{said}");
            }
        }
        // The connection is still in step after one, also with content on the way.
        let mut client = edge.client().await;
        client.request("POST", HOST, "/moved/a", &[], b"content").await.expect(301);
        assert_eq!(client.get(HOST, "/other").await.expect(200).text(), "origin");
    }
    let asked: Vec<_> = origin.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(asked, ["/other"], "redirects ask nobody");
}

const BYPASS: &str = "
[[routes]]
path = \"/live/*\"
origin = \"web\"
cache = { mode = \"bypass\" }

[[routes]]
path = \"/*\"
origin = \"web\"
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bypass_asks_every_time_and_changes_nothing() {
    let script = Script::start().await;
    let edge = Edge::standalone(site::with_routes(script.origin(), BYPASS)).start().await;
    for http2 in [false, true] {
        let path = format!("/live/{http2}");
        let fields = [FRESH[0], ("ETag", "\"v1\""), ("Age", "5"), ("Set-Cookie", "a=b")];
        script.plan(&path, ["1", "2", "3"].map(|body| Turn::new(200, &fields, body)));
        for expected in ["1", "2", "3", "3"] {
            let reply = ask(&edge, http2, "GET", &path).await.expect(200);
            assert_eq!(reply.text(), expected);
            assert!(!reply.is_hit(), "{reply:?}");
            assert!(reply.cache_status().contains("fwd=bypass"), "{reply:?}");
            assert!(!reply.cache_status().contains("stored"), "{reply:?}");
            assert_eq!((reply.field("etag"), reply.field("age")), ("\"v1\"", "5"), "{reply:?}");
            assert_eq!(reply.field("set-cookie"), "a=b", "{reply:?}");
        }
        // The control of the guard: the same answers on a route that caches.
        let path = format!("/kept/{http2}");
        script.plan(&path, ["1", "2"].map(|body| Turn::new(200, FRESH, body)));
        ask(&edge, http2, "GET", &path).await;
        assert_eq!(ask(&edge, http2, "GET", &path).await.text(), "1");
    }
}

/// What a visitor asks for comes to the origin as it was asked, and its answer comes back as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bypass_leaves_conditions_and_ranges_to_the_origin() {
    let script = Script::start().await;
    let edge = Edge::standalone(site::with_routes(script.origin(), BYPASS)).start().await;
    let part: &[_] = &[("Content-Range", "bytes 2-3/10"), ("Cache-Control", "max-age=60")];
    script.plan("/live/part", [Turn::new(206, part, "23")]);
    script.plan("/live/same", [Turn::new(304, &[("ETag", "\"v1\"")], "")]);
    script.plan("/live/beyond", [Turn::new(416, &[("Content-Range", "bytes */10")], "")]);
    let mut client = edge.client().await;
    for (path, field, value, status) in [
        ("/live/part", "Range", "bytes=2-3", 206),
        ("/live/same", "If-None-Match", "\"v1\"", 304),
        ("/live/same", "If-Modified-Since", "Mon, 06 Jan 2025 10:00:00 GMT", 304),
        ("/live/beyond", "Range", "bytes=20-", 416),
        ("/live/part", "Cookie", "a=b; c", 206),
        ("/live/part", "Authorization", "Bearer x", 206),
        ("/live/part", "Accept-Encoding", "br;q=0.5, x-mine", 206),
        ("/live/part", "Cache-Control", "no-cache", 206),
    ] {
        let reply = client.request("GET", HOST, path, &[(field, value)], b"").await;
        assert_eq!(reply.status, status, "{field}: {reply:?}");
        let seen = script.seen(path).pop().unwrap();
        assert_eq!(seen.headers[field.to_ascii_lowercase()], value, "{seen:?}");
    }
    let posted = client.request("POST", HOST, "/live/part", &[], b"content").await;
    assert_eq!(posted.status, 206);
    assert_eq!(script.seen("/live/part").pop().unwrap().body, "content");
}

/// Requests on a bypass do not wait for each other: the first is held until the second is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bypass_collapses_nothing() {
    let script = Script::start().await;
    let edge = Edge::standalone(site::with_routes(script.origin(), BYPASS)).start().await;
    let gate = verge_tests::Gate::default();
    let held = Turn::new(200, FRESH, "first").held(&gate);
    script.plan("/live/a", [held, Turn::new(200, FRESH, "second")]);
    let mut first = edge.client().await;
    let first = tokio::spawn(async move { first.get(HOST, "/live/a").await.text() });
    gate.reached().await;
    assert_eq!(edge.get(HOST, "/live/a").await.text(), "second");
    gate.open_for_good();
    assert_eq!(first.await.unwrap(), "first");
}

/// SIGHUP: a renewed certificate is shown to new connections, open ones go on; one that is none
/// changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_taken_up_on_sighup() {
    let folder = TempDir::new().unwrap();
    let other = TempDir::new().unwrap();
    let old = Certificate::make(folder.path(), &[HOST]);
    let new = Certificate::make(other.path(), &[HOST]);
    let origin = Origin::always(200, FRESH, "content").await;
    let edge = Edge::standalone(site::plain(&origin)).tls(&[&old]).start().await;
    let address = edge.https.unwrap();
    let both = [&old, &new];
    let open = connect(address, HOST, &["http/1.1"], &both).await;
    assert!(old.is(&open.shown));
    let mut open = open.http1();
    open.get(HOST, "/a").await.expect(200);

    // A pair of which half is there yet: the ones in force stay.
    fs::write(&old.cert, "no certificate").unwrap();
    edge.process.signal("-HUP").unwrap();
    until("the fault to be told", || async {
        edge.process.output().contains("the certificates in force stay").then_some(())
    })
    .await;
    assert!(old.is(&connect(address, HOST, &["h2"], &both).await.shown));

    fs::copy(&new.cert, &old.cert).unwrap();
    fs::copy(&new.key, &old.key).unwrap();
    edge.process.signal("-HUP").unwrap();
    until("the new certificate", || async {
        new.is(&connect(address, HOST, &["h2"], &both).await.shown).then_some(())
    })
    .await;
    open.get(HOST, "/a").await.expect(200);
}

/// SIGHUP means to read again what there is, and never to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_ends_no_edge() {
    let origin = Origin::always(200, FRESH, "content").await;
    let mut edge = Edge::standalone(site::plain(&origin)).start().await;
    for _ in 0..20 {
        edge.process.signal("-HUP").unwrap();
        let reply = timeout(Duration::from_secs(10), edge.get(HOST, "/a")).await;
        assert_eq!(reply.expect("an answer").status, 200);
        assert!(edge.process.is_alive());
    }
}
