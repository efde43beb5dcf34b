//! What a stranger can make a cache keep: variants of one URL without end, queries without end. The
//! edge's memory stays flat, and what others asked for stays in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinSet;
use verge_tests::{Edge, Origin, site};

/// Requests that each differ from all others.
const MANY: usize = 100_000;
/// After so many of them everything has the size that it keeps.
const WARM: usize = 10_000;
/// What the edge may grow by after that: far below what the rest of the requests would take.
const MAY_GROW: usize = 24 * 1024 * 1024;
const LANES: usize = 8;
/// Bytes of content in each response, so that what is kept can be seen.
const CONTENT: usize = 2_000;

/// An origin with a content for each value of the field `foo`, and how often it was asked.
async fn origin(fields: &'static str) -> (Origin, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let origin = Origin::raw(move |stream| {
        let counter = Arc::clone(&counter);
        async move {
            let mut stream = BufReader::new(stream);
            loop {
                let mut asked_for = String::new();
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    if let Some(value) = line.strip_prefix("foo: ") {
                        asked_for = value.trim_end().to_owned();
                    }
                    if line == "\r\n" {
                        break;
                    }
                }
                counter.fetch_add(1, Ordering::SeqCst);
                let body = format!("{asked_for:>CONTENT$}");
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n{fields}\
                     Content-Length: {CONTENT}\r\n\r\n{body}"
                );
                if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (origin, asked)
}

/// Requests by number, spread over connections; each must be answered with what is its own.
async fn ask(
    edge: &Edge,
    numbers: std::ops::Range<usize>,
    request: fn(usize) -> (String, Option<String>),
) {
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let mut client = edge.client().await;
        let numbers = numbers.clone();
        lanes.spawn(async move {
            for number in numbers.skip(lane).step_by(LANES) {
                let (path, value) = request(number);
                let fields: Vec<_> = value.iter().map(|value| ("Foo", value.as_str())).collect();
                let reply = client.request("GET", "many.example", &path, &fields, b"").await;
                assert_eq!(reply.status, 200, "{reply:?}");
                assert_eq!(reply.text().trim(), value.as_deref().unwrap_or(""), "{reply:?}");
            }
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap();
    }
}

/// What others asked for, before and after.
async fn neighbours_hit(edge: &Edge) -> usize {
    let mut hits = 0;
    let mut client = edge.client().await;
    for number in 0..200 {
        let path = format!("/neighbour/{number}");
        hits += usize::from(client.get("many.example", &path).await.expect(200).is_hit());
    }
    hits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variants_without_end_leave_memory_flat() {
    let (origin, asked) = origin("Vary: Foo\r\n").await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let variant = |number: usize| ("/one".to_owned(), Some(format!("v{number}")));
    neighbours_hit(&edge).await;
    neighbours_hit(&edge).await;
    ask(&edge, 0..WARM, variant).await;
    let before = edge.process.resident();
    ask(&edge, WARM..MANY, variant).await;
    let after = edge.process.resident();
    assert!(after < before + MAY_GROW, "from {before} to {after} bytes");
    assert!(asked.load(Ordering::SeqCst) >= MANY, "each of them was a variant of its own");
    assert_eq!(neighbours_hit(&edge).await, 200);
    // A cap is not a cache that gave up: the next variant is stored like the first.
    ask(&edge, MANY..MANY + 1, variant).await;
    let before = asked.load(Ordering::SeqCst);
    ask(&edge, MANY..MANY + 1, variant).await;
    assert_eq!(asked.load(Ordering::SeqCst), before, "the latest variant hits");
}

/// The control of the measure: what is not capped by the number of variants does show in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_without_end_show_in_memory() {
    let (origin, _) = origin("").await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let path = |number: usize| (format!("/{number}"), None);
    ask(&edge, 0..WARM, path).await;
    let before = edge.process.resident();
    ask(&edge, WARM..WARM * 3, path).await;
    let after = edge.process.resident();
    assert!(after > before + MAY_GROW, "from {before} to {after} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_that_are_ignored_are_one_object() {
    let (origin, asked) = origin("").await;
    let rest = "[[routes]]\npath = \"/*\"\norigin = \"web\"\ncache = { query = \"ignore\" }\n";
    let edge = Edge::standalone(site::with_routes(&origin, rest)).start().await;
    let query = |number: usize| (format!("/one?q={number}&r={}", number * 7), None);
    ask(&edge, 0..1, query).await;
    ask(&edge, 1..WARM, query).await;
    let before = edge.process.resident();
    ask(&edge, WARM..MANY, query).await;
    let after = edge.process.resident();
    assert!(after < before + MAY_GROW, "from {before} to {after} bytes");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
