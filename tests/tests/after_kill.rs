//! What a real edge still knows once it was killed and started again on its disk: what is stale and may
//! stand in, what was purged softly, and what was purged while it was on its way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use bytes::Bytes;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::task::JoinSet;
use verge_tests::origin::{Answer, Seen, streamed};
use verge_tests::{Edge, Gate, Origin, Reply, answer, site, until};

const HOST: &str = "after.example";
const SCANNED: &str = "the cache's disk is read";
const DAY: &str = "max-age=86400";
/// Content that is written to the disk while it is on its way.
const LONG: usize = 3_000_000;

/// Starts one whose objects are all on the disk, and none in memory.
async fn edge(origin: &Origin, folder: &TempDir) -> Edge {
    let dir = folder.path().display().to_string();
    let arguments = ["--cache-dir", &dir, "--ram", "0"];
    Edge::standalone(site::plain(origin)).with(&arguments).start().await
}

/// Kills it, and waits until the next one has read what is on the disk.
async fn kill_and_restart(edge: &mut Edge) {
    let before = edge.process.output().matches(SCANNED).count();
    edge.restart().await;
    edge.ready().await;
    until("the scan to end", || async {
        (edge.process.output().matches(SCANNED).count() > before).then_some(())
    })
    .await;
}

fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => files(&entry.path()),
            Ok(_) => 1,
            Err(_) => 0,
        })
        .sum()
}

/// Waits until so many objects have files with their names.
async fn on_disk(folder: &TempDir, count: usize) {
    let objects = folder.path().join("responses/objects");
    until("the objects to have files", || async { (files(&objects) >= count).then_some(()) }).await;
}

fn text(path: &str, version: usize) -> String {
    format!("{path} version {version}")
}

fn says(reply: &Reply, part: &str) -> bool {
    reply.cache_status().split(';').any(|said| said.trim() == part)
}

/// Asks until what is stored is fresh no longer.
async fn when_stale(edge: &Edge, path: &str) -> Reply {
    until("it to be stale", || async {
        let reply = edge.get(HOST, path).await;
        let is_fresh = reply.is_hit() && !says(&reply, "fwd=stale");
        (!is_fresh).then_some(reply)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stale_stands_in_for_an_origin_that_is_down() {
    let is_broken = Arc::new(AtomicUsize::new(0));
    let broken = Arc::clone(&is_broken);
    let origin = Origin::start(move |seen| {
        let control = match seen.path.as_str() {
            "/allowed" => "max-age=1, stale-if-error=600",
            _ => "max-age=1",
        };
        let answer = match broken.load(Ordering::SeqCst) {
            0 => answer(200, &[("Cache-Control", control)], text(&seen.path, 1)),
            _ => answer(503, &[], "broken"),
        };
        async move { answer }
    })
    .await;
    let folder = TempDir::new().unwrap();
    let mut edge = edge(&origin, &folder).await;
    for path in ["/allowed", "/forbidden"] {
        assert_eq!(edge.get(HOST, path).await.expect(200).text(), text(path, 1));
    }
    on_disk(&folder, 2).await;
    is_broken.store(1, Ordering::SeqCst);
    kill_and_restart(&mut edge).await;

    // It answers, but not with what was asked for.
    let asked = origin.count("/allowed");
    let reply = when_stale(&edge, "/allowed").await.expect(200);
    assert_eq!(reply.text(), text("/allowed", 1));
    assert!(says(&reply, "fwd=stale") && says(&reply, "fwd-status=503"), "{reply:?}");
    assert_eq!(origin.count("/allowed"), asked + 1, "it was asked");
    let reply = when_stale(&edge, "/forbidden").await.expect(503);
    assert_eq!(reply.text(), "broken");

    // It is gone, and so is the edge once more.
    kill_and_restart(&mut edge).await;
    drop(origin);
    let reply = until("its connections to end", || async {
        let reply = edge.get(HOST, "/allowed").await;
        (!says(&reply, "fwd-status=503")).then_some(reply)
    })
    .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.text(), text("/allowed", 1));
    assert!(says(&reply, "fwd=stale") && reply.headers.contains_key("age"), "{reply:?}");
    let reply = edge.get(HOST, "/forbidden").await;
    assert!(matches!(reply.status, 502 | 504), "{reply:?}");
}

/// Answers with the version that is right, or that there is no other.
fn versioned(seen: &Seen, version: usize) -> Answer {
    // One of them stays as it is.
    let version = if seen.path == "/same" { 1 } else { version };
    let etag = format!("\"{version}\"");
    let control = match seen.path.as_str() {
        "/while" => "max-age=86400, stale-while-revalidate=600",
        _ => DAY,
    };
    let tag = match seen.path.as_str() {
        "/tagged" | "/while" => "news",
        _ => "other",
    };
    let fields = [("Cache-Control", control), ("ETag", &etag), ("Cache-Tag", tag)];
    match seen.headers.get("if-none-match") {
        Some(known) if known.to_str().unwrap() == etag => answer(304, &fields, ""),
        _ => answer(200, &fields, text(&seen.path, version)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_softly_is_stale() {
    const PATHS: [&str; 5] = ["/tagged", "/while", "/url", "/same", "/kept"];
    let version = Arc::new(AtomicUsize::new(1));
    let now = Arc::clone(&version);
    let origin = Origin::start(move |seen| {
        let answer = versioned(&seen, now.load(Ordering::SeqCst));
        async move { answer }
    })
    .await;
    let folder = TempDir::new().unwrap();
    let mut edge = edge(&origin, &folder).await;
    for path in PATHS {
        assert_eq!(edge.get(HOST, path).await.expect(200).text(), text(path, 1));
    }
    on_disk(&folder, PATHS.len()).await;
    version.store(2, Ordering::SeqCst);
    let url = |path: &str| json!({ "url": format!("http://{HOST}{path}") });
    let selectors = json!([{ "tag": "news" }, url("/url"), url("/same")]);
    edge.purge(&json!({ "selectors": selectors, "mode": "soft" })).await.expect(201);
    kill_and_restart(&mut edge).await;

    let asked = origin.seen().len();
    let kept = edge.get(HOST, "/kept").await.expect(200);
    assert!(kept.is_hit() && kept.text() == text("/kept", 1), "for control: {kept:?}");
    assert_eq!(origin.seen().len(), asked, "for control: nobody is asked");
    for (path, now, status) in [("/tagged", 2, "200"), ("/url", 2, "200"), ("/same", 1, "304")] {
        let reply = edge.get(HOST, path).await.expect(200);
        assert_eq!(reply.text(), text(path, now), "{reply:?}");
        assert!(says(&reply, "fwd=stale"), "{path}: {reply:?}");
        assert!(says(&reply, &format!("fwd-status={status}")), "{path}: {reply:?}");
        let last = origin.seen().into_iter().rfind(|seen| seen.path == path).unwrap();
        assert_eq!(last.headers["if-none-match"], "\"1\"", "what is stored is asked about");
        assert!(edge.get(HOST, path).await.is_hit(), "{path} is fresh again");
    }
    // The old one once more, and then what the origin said of it meanwhile.
    let (first, before) = (edge.get(HOST, "/while").await.expect(200), origin.count("/while"));
    assert_eq!(first.text(), text("/while", 1), "{first:?}");
    assert!(says(&first, "detail=stale"), "{first:?}");
    assert!(says(&first, "ttl=0"), "young, and yet no longer fresh: {first:?}");
    until("it to be revalidated beside", || async {
        let reply = edge.get(HOST, "/while").await.expect(200);
        (reply.is_hit() && reply.text() == text("/while", 2)).then_some(())
    })
    .await;
    assert!(before <= 2 && origin.count("/while") == 2, "asked once for it");

    // What came after the purge is not struck by it.
    on_disk(&folder, PATHS.len()).await;
    kill_and_restart(&mut edge).await;
    let asked = origin.seen().len();
    for path in PATHS {
        let reply = edge.get(HOST, path).await.expect(200);
        let now = if ["/same", "/kept"].contains(&path) { 1 } else { 2 };
        assert!(reply.is_hit() && reply.text() == text(path, now), "{path}: {reply:?}");
    }
    assert_eq!(origin.seen().len(), asked, "nobody is asked");
}

/// Content of a version; that of `/long…` goes to the disk while it comes.
fn content(path: &str, version: usize) -> Bytes {
    let name = text(path, version);
    let times = if path.starts_with("/long") { LONG / name.len() + 1 } else { 1 };
    name.repeat(times).into()
}

/// An origin that stops in the middle of the first version of anything.
async fn held_origin(gate: &Gate, version: &Arc<AtomicUsize>) -> Origin {
    let (gate, version) = (gate.clone(), Arc::clone(version));
    Origin::start(move |seen| {
        let version = version.load(Ordering::SeqCst);
        let content = content(&seen.path, version);
        let fields = [("Cache-Control", DAY), ("Cache-Tag", "race"), ("Content-Type", "image/png")];
        let gate = gate.clone();
        async move {
            if version > 1 {
                return answer(200, &fields, content);
            }
            let length = content.len().to_string();
            let (held, pieces) =
                streamed(200, &[&fields[..], &[("Content-Length", &length)]].concat());
            tokio::spawn(async move {
                let half = content.len() / 2;
                let _ = pieces.send(Ok(content.slice(..half)));
                gate.pass().await;
                let _ = pieces.send(Ok(content.slice(half..)));
            });
            held
        }
    })
    .await
}

fn raced() -> Vec<String> {
    (0..4).flat_map(|n| [format!("/short/{n}"), format!("/long/{n}")]).collect()
}

/// Fills that a purge, or none, meets half-way; then a kill. Which version is served after it.
async fn after_a_race(name: &str, selectors: Option<serde_json::Value>) -> Vec<(String, Reply)> {
    let (gate, version) = (Gate::default(), Arc::new(AtomicUsize::new(1)));
    let origin = held_origin(&gate, &version).await;
    let folder = TempDir::new().unwrap();
    let mut edge = edge(&origin, &folder).await;
    let paths = raced();
    let mut visitors = JoinSet::new();
    for path in &paths {
        let (mut client, path) = (edge.client().await, path.clone());
        visitors.spawn(async move {
            let reply = client.get(HOST, &path).await.expect(200);
            assert!(reply.whole && reply.body == content(&path, 1), "{path}: {reply:?}");
        });
        gate.reached().await;
    }
    version.store(2, Ordering::SeqCst);
    if let Some(selectors) = &selectors {
        edge.purge(&json!({ "selectors": selectors })).await.expect(201);
    } else {
        assert_eq!(files(&folder.path().join("responses/objects")), 0, "all are on their way");
    }
    gate.open_for_good();
    visitors.join_all().await;
    if selectors.is_none() {
        on_disk(&folder, paths.len()).await;
    }
    kill_and_restart(&mut edge).await;
    let mut replies = Vec::new();
    for path in paths {
        let asked = origin.count(&path);
        let reply = edge.get(HOST, &path).await.expect(200);
        let is_asked = origin.count(&path) > asked;
        assert_eq!(is_asked, !reply.is_hit(), "{name}: {path}: {reply:?}");
        replies.push((path, reply));
    }
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_on_its_way_does_not_come_back() {
    let url = |path: String| json!({ "url": format!("http://{HOST}{path}") });
    for selectors in [
        raced().into_iter().map(url).collect(),
        json!([{ "tag": "race" }]),
        json!([{ "prefix": "/" }]),
        json!([{ "host": HOST }]),
        json!([{ "everything": true }]),
    ] {
        let name = selectors.to_string();
        for (path, reply) in after_a_race(&name, Some(selectors)).await {
            assert!(reply.body == content(&path, 2), "{name}: {path} is old: {reply:?}");
            assert!(!reply.is_hit(), "{name}: {path}: {reply:?}");
        }
    }
    for (path, reply) in after_a_race("for control", None).await {
        assert!(reply.is_hit() && reply.body == content(&path, 1), "{path}: {reply:?}");
    }
}
