//! One edge with one site file and no control plane: what visitors get, hot reload, purges on admin.

use serde_json::json;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::task::JoinSet;
use verge_tests::process::{Process, binary};
use verge_tests::{Edge, Origin, answer, site, until};

const FRESH: &[(&str, &str)] = &[
    ("Cache-Control", "max-age=3600"),
    ("ETag", "\"v1\""),
    ("Last-Modified", "Mon, 06 Jan 2025 10:00:00 GMT"),
    ("Content-Type", "text/plain"),
    ("Cache-Tag", "page, other"),
];
const TEXT: &str = "0123456789abcdefghij";

async fn fresh_site() -> (Origin, Edge) {
    let origin = Origin::always(200, FRESH, TEXT).await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    (origin, edge)
}

/// An origin that counts its answers: each body is the next number.
async fn counting(fields: &'static [(&'static str, &'static str)]) -> Origin {
    let next = Arc::new(AtomicU64::new(1));
    Origin::start(move |_| {
        let body = next.fetch_add(1, Ordering::SeqCst).to_string();
        let answer = answer(200, fields, body);
        async move { answer }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_becomes_a_hit_on_one_connection() {
    let (origin, edge) = fresh_site().await;
    let mut client = edge.client().await;
    let miss = client.get("any.example", "/a").await.expect(200);
    assert!(!miss.is_hit(), "{miss:?}");
    for _ in 0..20 {
        let hit = client.get("any.example", "/a").await.expect(200);
        assert!(hit.is_hit(), "{hit:?}");
        assert_eq!(hit.text(), TEXT);
        assert_eq!(hit.field("content-length"), TEXT.len().to_string());
        assert_eq!(hit.field("content-type"), "text/plain");
        assert_eq!(hit.field("cache-tag"), "");
    }
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_says_what_get_says() {
    let (_origin, edge) = fresh_site().await;
    let mut client = edge.client().await;
    client.get("a.example", "/a").await.expect(200);
    let get = client.get("a.example", "/a").await.expect(200);
    let head = client.request("HEAD", "a.example", "/a", &[], b"").await.expect(200);
    assert!(head.body.is_empty());
    for name in ["content-length", "content-type", "etag", "last-modified", "cache-control"] {
        assert_eq!(head.field(name), get.field(name), "{name}");
    }
    // The connection is still in step after it.
    assert_eq!(client.get("a.example", "/a").await.text(), TEXT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_slices_cold_and_warm() {
    let (origin, edge) = fresh_site().await;
    for (round, temperature) in ["cold", "warm"].iter().enumerate() {
        let ranges = [("bytes=2-5", 2..6), ("bytes=15-", 15..20), ("bytes=-3", 17..20)];
        for (index, (range, slice)) in ranges.into_iter().enumerate() {
            let path = format!("/{index}");
            let mut client = edge.client().await;
            let reply = client.request("GET", "a.example", &path, &[("Range", range)], b"").await;
            let said = format!("{temperature} {range}: {reply:?}");
            assert_eq!(reply.status, 206, "{said}");
            assert_eq!(reply.text(), &TEXT[slice.clone()], "{said}");
            let expected = format!("bytes {}-{}/{}", slice.start, slice.end - 1, TEXT.len());
            assert_eq!(reply.field("content-range"), expected, "{said}");
            until("the whole to be stored", || async {
                edge.get("a.example", &path).await.is_hit().then_some(())
            })
            .await;
            assert_eq!(origin.count(&path), 1, "round {round}: {said}");
        }
    }
    let mut client = edge.client().await;
    let beyond = [("Range", "bytes=100-")];
    let reply = client.request("GET", "a.example", "/0", &beyond, b"").await.expect(416);
    assert_eq!(reply.field("content-range"), "bytes */20");
    let changed = [("Range", "bytes=0-1"), ("If-Range", "\"other\"")];
    let reply = client.request("GET", "a.example", "/0", &changed, b"").await.expect(200);
    assert_eq!(reply.text(), TEXT, "another version is sent whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_are_judged_from_the_store() {
    let (origin, edge) = fresh_site().await;
    let mut client = edge.client().await;
    client.get("a.example", "/a").await.expect(200);
    let since = "Mon, 06 Jan 2025 10:00:00 GMT";
    for (name, value, status) in [
        ("If-None-Match", "\"v1\"", 304),
        ("If-None-Match", "W/\"v1\"", 304),
        ("If-None-Match", "\"x\", \"v1\"", 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"v2\"", 200),
        ("If-Modified-Since", since, 304),
        ("If-Modified-Since", "Sun, 05 Jan 2025 10:00:00 GMT", 200),
    ] {
        let reply = client.request("GET", "a.example", "/a", &[(name, value)], b"").await;
        assert_eq!(reply.status, status, "{name}: {value}: {reply:?}");
        if status == 304 {
            assert_eq!(reply.field("etag"), "\"v1\"", "{reply:?}");
        }
    }
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_stored_is_not() {
    let origin = counting(&[("Cache-Control", "no-store")]).await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut client = edge.client().await;
    for expected in ["1", "2", "3"] {
        let reply = client.get("a.example", "/a").await.expect(200);
        assert_eq!(reply.text(), expected);
        assert!(!reply.is_hit(), "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_rules_over_the_origin() {
    let origin = counting(&[("Cache-Control", "max-age=0")]).await;
    let rest = "[[routes]]\npath = \"/kept/*\"\norigin = \"web\"\n\
                cache = { mode = \"override\", ttl = \"1h\", query = \"ignore\" }\n\n\
                [[routes]]\npath = \"/old/*\"\nredirect = { to = \"/new/$1\", status = 308 }\n\n\
                [[routes]]\npath = \"/robots.txt\"\n\
                static = { status = 200, headers = { X-From = \"file\" }, body = \"none\" }\n\n\
                [[routes]]\npath = \"/passed/*\"\norigin = \"web\"\n\
                cache = { mode = \"bypass\" }\n";
    let edge = Edge::standalone(site::with_routes(&origin, rest)).start().await;
    let mut client = edge.client().await;
    assert_eq!(client.get("a.example", "/kept/a?x=1").await.text(), "1");
    let hit = client.get("a.example", "/kept/a?x=2").await;
    assert_eq!(hit.text(), "1", "the query is not in the key");
    assert!(hit.is_hit(), "{hit:?}");
    let moved = client.get("a.example", "/old/b/c").await.expect(308);
    assert_eq!(moved.field("location"), "/new/b/c");
    let fixed = client.get("a.example", "/robots.txt").await.expect(200);
    assert_eq!((fixed.text().as_str(), fixed.field("x-from")), ("none", "file"));
    assert_eq!(client.get("a.example", "/passed/a").await.text(), "2");
    assert_eq!(client.get("a.example", "/passed/a").await.text(), "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_on_the_admin_listener_take_effect_before_their_answer() {
    let origin = counting(FRESH).await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut last = String::new();
    for selector in [
        json!({ "url": "http://a.example/a" }),
        json!({ "url": "/a" }),
        json!({ "tag": "page" }),
        json!({ "prefix": "http://a.example/" }),
        json!({ "host": "a.example" }),
        json!({ "everything": true }),
    ] {
        let stored = edge.get("a.example", "/a").await.expect(200).text();
        assert!(edge.get("a.example", "/a").await.is_hit());
        assert_ne!(stored, last);
        let reply = edge.purge(&json!({ "selectors": [selector] })).await;
        assert!(matches!(reply.status, 200 | 201), "{reply:?}");
        assert_eq!(reply.json()["complete"], true, "{reply:?}");
        assert!(reply.json()["matched"].as_u64() >= Some(1), "{reply:?}");
        let fresh = edge.get("a.example", "/a").await;
        assert_ne!(fresh.text(), stored, "{selector} left it: {fresh:?}");
        last = stored;
    }
    // The control of the guard: a purge of something else leaves it.
    let stored = edge.get("a.example", "/a").await.text();
    for selector in [json!({ "url": "/b" }), json!({ "tag": "pages" }), json!({ "host": "b" })] {
        edge.purge(&json!({ "selectors": [selector] })).await;
        let hit = edge.get("a.example", "/a").await;
        assert!(hit.is_hit() && hit.text() == stored, "{selector} hit what it should not");
    }
    let refused = edge.purge(&json!({ "selectors": [{ "tag": "" }, { "url": "x y" }] })).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert_eq!(refused.json()["faults"].as_array().unwrap().len(), 2, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_purge_makes_stale_not_gone() {
    let origin = counting(&[("Cache-Control", "max-age=3600, stale-while-revalidate=60")]).await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    assert_eq!(edge.get("a.example", "/a").await.text(), "1");
    let purge = json!({ "selectors": [{ "everything": true }], "mode": "soft" });
    edge.purge(&purge).await;
    let stale = edge.get("a.example", "/a").await;
    assert_eq!(stale.text(), "1", "served while it is revalidated");
    until("the revalidation to be stored", || async {
        (edge.get("a.example", "/a").await.text() == "2").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_site_file_is_in_force_at_once_and_a_faulty_one_never() {
    let first = Origin::always(200, &[("Cache-Control", "no-store")], "first").await;
    let second = Origin::always(200, &[("Cache-Control", "no-store")], "second").await;
    let edge = Edge::standalone(site::plain(&first)).start().await;
    assert_eq!(edge.get("a.example", "/").await.text(), "first");

    let file = edge.file("verge.toml");
    fs::write(&file, site::plain(&first).replace("\"web\"\n", "\"wb\"\n")).unwrap();
    until("the fault to be told", || async {
        edge.process.output().contains("did you mean").then_some(())
    })
    .await;
    assert_eq!(edge.get("a.example", "/").await.text(), "first", "the last good one stays");

    fs::write(&file, site::plain(&second)).unwrap();
    until("the new site", || async {
        (edge.get("a.example", "/").await.text() == "second").then_some(())
    })
    .await;
}

/// What goes wrong is logged whatever the edge did just before: a request on the same thread once cost
/// the next line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_told_however_many_requests_came() {
    let origin = Origin::always(200, &[("Cache-Control", "no-store")], TEXT).await;
    let good = site::plain(&origin);
    let edge = Edge::standalone(&*good).start().await;
    for number in 0..20 {
        for _ in 0..10 {
            edge.get("a.example", "/").await.expect(200);
        }
        let wrong = format!("wrong{number}");
        let faulty = good.replace("\"web\"\n", &format!("{wrong:?}\n"));
        fs::write(edge.file("verge.toml"), faulty).unwrap();
        until("the fault to be told", || async {
            edge.process.output().contains(&format!("{wrong:?}")).then_some(())
        })
        .await;
    }
}

/// Every change is noticed, while visitors come on connections of their own; each of them is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_site_file_changes_again_and_again_under_load() {
    const CHANGES: usize = 30;
    let first = Origin::always(200, &[("Cache-Control", "no-store")], "first").await;
    let second = Origin::always(200, &[("Cache-Control", "no-store")], "second").await;
    let edge = Arc::new(Edge::standalone(site::plain(&first)).start().await);
    let over = Arc::new(AtomicBool::new(false));
    let mut lanes = JoinSet::new();
    for lane in 0..4 {
        let (edge, over) = (Arc::clone(&edge), Arc::clone(&over));
        lanes.spawn(async move {
            let path = format!("/{lane}");
            while !over.load(Ordering::SeqCst) {
                let text = edge.get("a.example", &path).await.expect(200).text();
                assert!(text == "first" || text == "second", "{text}");
            }
        });
    }
    let file = edge.file("verge.toml");
    for change in 0..CHANGES {
        let (origin, text) = if change % 2 == 0 { (&second, "second") } else { (&first, "first") };
        fs::write(&file, site::plain(origin)).unwrap();
        until("the new site", || async {
            (edge.get("a.example", "/").await.text() == text).then_some(())
        })
        .await;
    }
    over.store(true, Ordering::SeqCst);
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faulty_site_file_is_refused_with_every_fault() {
    let origin = Origin::always(200, &[], "").await;
    let faulty = site::with_routes(
        &origin,
        "[[routes]]\npath = \"no-slash\"\norigin = \"web\"\n\n\
         [[routes]]\npath = \"/b\"\norigin = \"wb\"\n",
    );
    let (arguments, folder) = Edge::standalone(faulty).prepare();
    let mut edge = Process::start("faulty", &binary("verge-edge"), &arguments, folder.path());
    let code = until("the edge to end", || {
        let code = edge.exit_code();
        async move { code }
    })
    .await;
    assert_ne!(code, 0);
    let said = edge.output();
    for part in ["routes[0].path", "routes[1].origin", "did you mean \"web\"?"] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_tells_health_metrics_and_reasons() {
    let (_origin, edge) = fresh_site().await;
    edge.get("a.example", "/a").await.expect(200);
    edge.admin("/healthz").await.expect(200);
    edge.admin("/readyz").await.expect(200);
    let metrics = edge.admin("/metrics").await.expect(200).text();
    assert!(metrics.contains("verge_"), "{metrics}");
    let explained = edge.admin("/explain?url=http://a.example/a").await.expect(200).text();
    assert!(explained.contains("routes[0]"), "{explained}");
    assert!(explained.contains("fresh"), "{explained}");
    edge.admin("/nothing").await.expect(404);
}
