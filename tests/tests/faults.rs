//! Origins that break in the middle: a response that is not whole is never stored as if it were, every
//! visitor sees that it broke off, and what is stale stands in where that is allowed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use tempfile::TempDir;
use tokio::task::JoinSet;
use verge_tests::script::End;
use verge_tests::{Edge, Gate, Http1, Http2, Reply, Script, Turn, site, until};

const HOST: &str = "faults.example";
const HEAD: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nETag: \"broken\"\r\n";
/// What the origin says once it is well.
const GOOD: &str = "good and whole";
/// What an origin would smuggle behind a response.
const POISON: &str =
    "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: 6\r\n\r\npoison";

/// When the origin breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaks {
    /// Before its header section is whole: nothing of it can be passed on.
    InHead,
    /// In the content.
    InContent,
}

use Breaks::{InContent, InHead};

struct Fault {
    name: &'static str,
    breaks: Breaks,
    /// Everything that the origin sends.
    bytes: String,
    end: End,
}

fn fault(name: &'static str, breaks: Breaks, bytes: impl Into<String>, end: End) -> Fault {
    Fault { name, breaks, bytes: bytes.into(), end }
}

/// A content that ends too early, in every framing; and header sections that are none.
fn faults() -> Vec<Fault> {
    let chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    let length = format!("{HEAD}Content-Length: 100\r\n\r\n");
    let part = "x".repeat(40);
    vec![
        fault("short-closed", InContent, format!("{length}{part}"), End::Close),
        fault("short-reset", InContent, format!("{length}{part}"), End::Reset),
        fault("short-empty", InContent, length, End::Close),
        fault("length-less-reset", InContent, format!("{HEAD}\r\n{part}"), End::Reset),
        fault("chunks-closed", InContent, format!("{chunked}5\r\nxxxxx\r\n"), End::Close),
        fault("chunks-reset", InContent, format!("{chunked}5\r\nxxxxx\r\n"), End::Reset),
        fault("chunk-cut", InContent, format!("{chunked}5\r\nxx"), End::Close),
        fault(
            "chunk-no-number",
            InContent,
            format!("{chunked}5\r\nxxxxx\r\nzz\r\nxx\r\n0\r\n\r\n"),
            End::Stay,
        ),
        fault("chunk-negative", InContent, format!("{chunked}-5\r\nxxxxx\r\n0\r\n\r\n"), End::Stay),
        fault(
            "chunk-overflow",
            InContent,
            format!("{chunked}fffffffffffffffff\r\nxxxxx\r\n0\r\n\r\n"),
            End::Stay,
        ),
        fault(
            "chunk-too-long",
            InContent,
            format!("{chunked}5\r\nxxxxxyyyyy\r\n0\r\n\r\n"),
            End::Stay,
        ),
        fault("chunk-no-end", InContent, format!("{chunked}5\r\nxxxxx\r\n0\r\n"), End::Close),
        fault("nothing", InHead, "", End::Close),
        fault("nothing-reset", InHead, "", End::Reset),
        fault("half-a-head", InHead, HEAD, End::Close),
        fault("half-a-line", InHead, "HTTP/1.1 200 O", End::Reset),
        fault("no-http", InHead, "hello\r\n\r\nhello", End::Close),
        fault(
            "two-lengths",
            InHead,
            format!("{HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxxx"),
            End::Stay,
        ),
        fault("bad-length", InHead, format!("{HEAD}Content-Length: five\r\n\r\nxxxxx"), End::Stay),
        fault(
            "negative-length",
            InHead,
            format!("{HEAD}Content-Length: -5\r\n\r\nxxxxx"),
            End::Stay,
        ),
        fault(
            "bad-coding",
            InHead,
            format!("{HEAD}Transfer-Encoding: xchunked\r\n\r\n5\r\nxxxxx\r\n0\r\n\r\n"),
            End::Stay,
        ),
    ]
}

/// One edge before one origin, and how it is asked.
struct Place {
    script: Script,
    edge: Edge,
    http2: bool,
    _cache: TempDir,
}

impl Place {
    async fn start(http2: bool, disk: bool) -> Place {
        let script = Script::start().await;
        let cache = TempDir::new().unwrap();
        let mut edge = Edge::standalone(site::plain(script.origin()));
        if disk {
            let folder = cache.path().display().to_string();
            edge = edge.with(&["--cache-dir", &folder, "--ram", "0"]);
        }
        Place { script, edge: edge.start().await, http2, _cache: cache }
    }

    /// GET on a connection of its own; `None` when it ended without a response.
    async fn get(&self, path: &str) -> Option<Reply> {
        if self.http2 {
            let mut client = Http2::connect(self.edge.http).await;
            client.try_request("GET", HOST, path, &[], b"").await.ok()
        } else {
            let mut client = Http1::connect(self.edge.http).await;
            client.try_request("GET", HOST, path, &[], b"").await.ok()
        }
    }
}

fn good() -> Turn {
    Turn::new(200, &[("Cache-Control", "max-age=3600"), ("ETag", "\"good\"")], GOOD)
}

/// A broken response as its visitors may see it.
fn check_broken(said: &str, breaks: Breaks, reply: Option<&Reply>) {
    let Some(reply) = reply else {
        assert_eq!(breaks, InContent, "{said}: the visitor's connection was dropped");
        return;
    };
    let refused = reply.status == 502;
    let cut = reply.status == 200 && !reply.whole && breaks == InContent;
    assert!(refused || cut, "{said}: {reply:?}");
    if refused {
        assert!(!reply.text().contains("xxxxx"), "{said}: {reply:?}");
    }
}

async fn broken_is_never_stored(http2: bool, disk: bool) {
    let place = Place::start(http2, disk).await;
    for Fault { name, breaks, bytes, end } in faults() {
        let path = format!("/{name}");
        // As often as the edge tries again by itself.
        let broken = Turn::bytes(bytes).then(end);
        let turns = [broken.clone(), broken.clone(), broken.clone(), broken];
        for turn in &turns {
            place.script.plan(&path, [turn.clone()]);
            check_broken(name, breaks, place.get(&path).await.as_ref());
        }
        // What is stored now can only be what the origin says when it is well.
        place.script.plan(&path, [good()]);
        let before = place.script.count(&path);
        let reply = place.get(&path).await.unwrap().expect(200);
        assert!(reply.whole && reply.text() == GOOD, "{name}: {reply:?}");
        assert_eq!(place.script.count(&path), before + 1, "{name}: asked anew");
        until("the whole one to be stored", || async {
            let reply = place.get(&path).await.unwrap();
            assert_eq!(reply.text(), GOOD, "{name}");
            reply.is_hit().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_broke_off_is_never_stored() {
    broken_is_never_stored(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_broke_off_is_never_stored_http2() {
    broken_is_never_stored(true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_broke_off_is_never_stored_on_disk() {
    broken_is_never_stored(false, true).await;
}

/// The control of the guard: the same bytes, with their end, are stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_whole_is_stored() {
    let place = Place::start(false, false).await;
    let chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    for (name, bytes, end) in [
        ("length", format!("{HEAD}Content-Length: 5\r\n\r\nxxxxx"), End::Stay),
        ("chunks", format!("{chunked}5\r\nxxxxx\r\n0\r\n\r\n"), End::Stay),
        ("chunk-extension", format!("{chunked}5;a=b\r\nxxxxx\r\n0;c\r\nT: 1\r\n\r\n"), End::Stay),
        ("until-the-end", format!("{HEAD}Connection: close\r\n\r\nxxxxx"), End::Close),
        ("http-1.0", format!("{HEAD}\r\nxxxxx").replace("HTTP/1.1", "HTTP/1.0"), End::Close),
    ] {
        let path = format!("/{name}");
        place.script.plan(&path, [Turn::bytes(bytes).then(end)]);
        let reply = place.get(&path).await.unwrap().expect(200);
        assert!(reply.whole && reply.text() == "xxxxx", "{name}: {reply:?}");
        until("it to be stored", || async { place.get(&path).await?.is_hit().then_some(()) }).await;
        assert_eq!(place.script.count(&path), 1, "{name}");
    }
}

/// Without a length, chunks or `Connection: close`, an origin that dies ends as one that is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_with_a_close_that_nobody_announced_is_not_stored() {
    for (http2, disk) in [(false, false), (true, false), (false, true)] {
        let place = Place::start(http2, disk).await;
        let turn = Turn::bytes(format!("{HEAD}\r\nxxxxx")).then(End::Close);
        place.script.plan("/dies", [turn]);
        for asked in 1..=3 {
            let reply = place.get("/dies").await.unwrap().expect(200);
            assert!(reply.text() == "xxxxx" && !reply.is_hit(), "{reply:?}");
            assert_eq!(place.script.count("/dies"), asked);
        }
    }
}

/// More than was declared: the visitor gets what was declared, and the rest answers nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_after_the_end_answers_nobody() {
    for http2 in [false, true] {
        let place = Place::start(http2, false).await;
        let chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nxxxxx\r\n0\r\n\r\n");
        let nothing = "HTTP/1.1 204 No Content\r\nCache-Control: max-age=3600\r\n\r\n";
        for (name, bytes, content) in [
            ("length", format!("{HEAD}Content-Length: 5\r\n\r\nxxxxx{POISON}"), "xxxxx"),
            ("garbage", format!("{HEAD}Content-Length: 5\r\n\r\nxxxxxyyyyyyyyyyyyyyyy"), "xxxxx"),
            ("chunks", format!("{chunked}{POISON}"), "xxxxx"),
            ("no-content", format!("{nothing}{POISON}"), ""),
        ] {
            for turn in 0..20 {
                let path = format!("/{name}/{turn}");
                place.script.plan(&path, [Turn::bytes(bytes.clone())]);
                let reply = place.get(&path).await.unwrap();
                assert_eq!(reply.text(), content, "{path}: {reply:?}");
                let next = format!("/next{path}");
                place.script.plan(&next, [good()]);
                let reply = place.get(&next).await.unwrap();
                assert_eq!(reply.text(), GOOD, "{next}: {reply:?}");
            }
        }
    }
}

/// Everybody who reads along sees the break, and nobody takes it for the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_who_reads_along_sees_the_break() {
    for http2 in [false, true] {
        let place = Place::start(http2, false).await;
        for (name, head, end) in [
            ("length", "Content-Length: 100000", End::Reset),
            ("length-closed", "Content-Length: 100000", End::Close),
            ("chunks", "Transfer-Encoding: chunked", End::Close),
        ] {
            let path = format!("/{name}");
            let gate = Gate::default();
            let chunk = if name == "chunks" { "4\r\n" } else { "" };
            let bytes = format!("{HEAD}{head}\r\n\r\n{chunk}half");
            let sent = bytes.len();
            let turn = Turn::bytes(format!("{bytes} and more")).held_at(sent, &gate).then(end);
            place.script.plan(&path, [turn]);
            let address = place.edge.http;
            let mut crowd = JoinSet::new();
            for _ in 0..20 {
                let path = path.clone();
                crowd.spawn(async move {
                    if http2 {
                        Http2::connect(address)
                            .await
                            .try_request("GET", HOST, &path, &[], b"")
                            .await
                            .ok()
                    } else {
                        Http1::connect(address)
                            .await
                            .try_request("GET", HOST, &path, &[], b"")
                            .await
                            .ok()
                    }
                });
            }
            gate.reached().await;
            until("all of them to be in the edge", || async {
                let metrics = place.edge.admin("/metrics").await.text();
                metrics.contains("verge_front_requests_in_flight 20\n").then_some(())
            })
            .await;
            gate.open_for_good();
            while let Some(reply) = crowd.join_next().await {
                let reply = reply.unwrap();
                let whole = reply.as_ref().is_some_and(|reply| reply.status == 200 && reply.whole);
                assert!(!whole, "{name}: {reply:?}");
            }
            assert_eq!(place.script.count(&path), 1, "{name}: they read along");
            place.script.plan(&path, [good()]);
            assert_eq!(place.get(&path).await.unwrap().text(), GOOD);
        }
    }
}

/// Stale content stands in for a failure before the content; one in the middle of the content cannot be
/// taken back, but it does not throw the stale one away.
async fn stale_stands_in(http2: bool, disk: bool) {
    let place = Place::start(http2, disk).await;
    for Fault { name, breaks, bytes, end } in faults() {
        for (kind, control, allowed) in [
            ("allowed", "max-age=60, stale-if-error=3600", true),
            ("forbidden", "max-age=60, stale-if-error=3600, must-revalidate", false),
        ] {
            let path = format!("/{name}/{kind}");
            let stale = [("Cache-Control", control), ("Age", "120"), ("ETag", "\"old\"")];
            place.script.plan(&path, [Turn::new(200, &stale, "old")]);
            assert_eq!(place.get(&path).await.unwrap().text(), "old");
            place.script.plan(&path, [Turn::bytes(bytes.clone()).then(end)]);
            for _ in 0..2 {
                let said = format!("{name} {kind}");
                let reply = place.get(&path).await;
                let stood_in =
                    reply.as_ref().is_some_and(|r| r.status == 200 && r.whole && r.text() == "old");
                if breaks == InHead && allowed {
                    assert!(stood_in, "{said}: {reply:?}");
                } else if !stood_in || !allowed {
                    check_broken(&said, breaks, reply.as_ref());
                }
            }
            place.script.plan(&path, [good()]);
            let reply = place.get(&path).await.unwrap();
            assert_eq!(reply.text(), GOOD, "{name} {kind}: {reply:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_stands_in_where_it_may() {
    stale_stands_in(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_stands_in_where_it_may_http2() {
    stale_stands_in(true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_stands_in_where_it_may_from_disk() {
    stale_stands_in(false, true).await;
}
