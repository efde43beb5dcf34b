//! A stored part and the bytes that are missing: purges in between, several visitors at once, and every
//! way to cut content in two.

use http::Method;
use http_body_util::BodyExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;
use verge_cache::{ManualClock, Outcome, SourceResponse};
use verge_config::purge::{Mode, Selector};
use verge_config::site::{CachePolicy, CompressRule};

use crate::common::{Bench, Scripted, Tap, read, reply, tapped, until};

const FIELDS: [(&str, &str); 2] = [("cache-control", "max-age=100"), ("etag", "\"v\"")];
const RANGE: [(&str, &str); 1] = [("range", "bytes=0-3")];

fn part(range: &str, body: &str) -> crate::common::Reply {
    reply(206, &[FIELDS[0], FIELDS[1], ("content-range", range)], body.to_owned())
}

/// The first four bytes of ten, then the other six, and otherwise all of another representation.
fn in_two(n: usize, request: &verge_cache::SourceRequest) -> crate::common::Reply {
    match request.headers.get("range").map(|range| range.to_str().unwrap()) {
        Some(_) if n == 0 => part("bytes 0-3/10", "0123"),
        Some("bytes=4-") => part("bytes 4-9/10", "456789"),
        range => {
            assert_eq!(range, None);
            reply(200, &[FIELDS[0], ("etag", "\"w\"")], "abcdefghij")
        }
    }
}

type Gate = Arc<Semaphore>;
type Kept = Arc<parking_lot::Mutex<Option<Tap>>>;

/// A source whose rest comes through a tap, once its header section is let out.
fn tapped_rest() -> (Arc<Scripted>, Gate, Kept) {
    let (gate, tap): (Gate, Kept) = (Arc::new(Semaphore::new(0)), Arc::default());
    let (opened, kept) = (Arc::clone(&gate), Arc::clone(&tap));
    let source = Scripted::later(move |n, request| {
        let (opened, kept) = (Arc::clone(&opened), Arc::clone(&kept));
        Box::pin(async move {
            if n != 1 {
                return in_two(n, &request);
            }
            let _open = opened.acquire().await;
            let (tap, body) = tapped();
            *kept.lock() = Some(tap);
            let rest = part("bytes 4-9/10", "456789")?;
            Ok(SourceResponse { body, ..rest })
        })
    });
    (source, gate, tap)
}

#[tokio::test]
async fn a_purge_of_the_part_is_a_purge_of_what_it_becomes() {
    for (mode, between) in [
        (Mode::Hard, "before the request"),
        (Mode::Soft, "before the request"),
        (Mode::Hard, "before the answer"),
        (Mode::Soft, "before the answer"),
        (Mode::Hard, "within the content"),
        (Mode::Soft, "within the content"),
        // The control.
        (Mode::Hard, "never"),
    ] {
        let bench = Bench::new();
        let (source, gate, tap) = tapped_rest();
        let purge = |when: &str| {
            if when == between {
                bench.purge(1, mode, &[Selector::Url("/a".into())]);
            }
        };
        bench.ok("/a", &RANGE, &source).await;
        purge("before the request");
        let whole = async {
            // With its header section, and so with the part.
            let response = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
            purge("within the content");
            let tap = tap.lock().take();
            tap.unwrap().send(Ok("456789".into())).ok();
            read(response).await
        };
        let meanwhile = async {
            until("the request for the rest", || source.count() == 2).await;
            if between == "before the request" {
                assert_eq!(source.last().get("range"), None);
            } else {
                assert_eq!(source.last()["range"], "bytes=4-");
                assert_eq!(source.last()["if-range"], "\"v\"");
            }
            purge("before the answer");
            gate.close();
        };
        let (whole, ()) = tokio::join!(whole, meanwhile);
        let case = format!("{mode:?} {between}");
        match between {
            // The rest that nobody asked for is not the whole, nor stored.
            "before the request" => assert_eq!(whole.unwrap().status, 206, "{case}"),
            "before the answer" => assert_eq!(whole.unwrap().text(), "abcdefghij", "{case}"),
            _ => assert_eq!(whole.unwrap().text(), "0123456789", "{case}"),
        }
        let next = bench.ok("/a", &[], &source).await;
        let (text, outcome) = match between {
            "never" => ("0123456789", Outcome::Hit),
            "before the answer" => ("abcdefghij", Outcome::Hit),
            _ => ("abcdefghij", Outcome::Miss),
        };
        assert_eq!((next.text(), next.outcome), (text, outcome), "{case}");
    }
}

#[tokio::test]
async fn what_is_made_of_a_part_is_as_old_as_the_part() {
    for (tag, kept) in [("late", false), ("other", true)] {
        let bench = Bench::new();
        let source = Scripted::new(|n, request| {
            let mut reply = in_two(n, &request)?;
            if n == 1 {
                reply.headers.insert("cache-tag", "late".parse()?);
            }
            Ok(reply)
        });
        bench.ok("/a", &RANGE, &source).await;
        // The part has no such tag; what it becomes has.
        bench.hard(1, Selector::Tag(tag.into()));
        let got = bench.ok("/a", &[], &source).await;
        assert_eq!((got.text(), source.count()), ("0123456789", 2), "{tag}");
        assert_eq!(bench.hits("/a"), kept, "{tag}");
    }
}

#[tokio::test]
async fn whoever_comes_meanwhile_reads_the_same_fill() {
    let bench = Bench::new();
    let (source, gate, tap) = tapped_rest();
    bench.ok("/a", &RANGE, &source).await;
    let before = bench.get("/a", &[], &source);
    let meanwhile = async {
        until("the request for the rest", || source.count() == 2).await;
        let second = bench.get("/a", &[], &source);
        let after = async {
            gate.close();
            until("the answer", || tap.lock().is_some()).await;
            let third = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
            let ranged = bench.serve(Method::GET, "/a", &[("range", "bytes=2-6")], &source);
            let ranged = ranged.await.unwrap();
            let tap = tap.lock().take().unwrap();
            tap.send(Ok("45".into())).unwrap();
            tap.send(Ok("6789".into())).unwrap();
            drop(tap);
            (read(third).await.unwrap(), read(ranged).await.unwrap())
        };
        tokio::join!(second, after)
    };
    let (first, (second, (third, ranged))) = tokio::join!(before, meanwhile);
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.text(), first.outcome), ("0123456789", Outcome::Miss));
    for got in [&second, &third] {
        assert_eq!((got.text(), got.outcome), ("0123456789", Outcome::Collapsed));
        assert_eq!((got.status, got.header("content-length")), (200, "10"));
    }
    assert_eq!((ranged.status, ranged.text()), (206, "23456"));
    assert_eq!((source.count(), bench.hits("/a")), (2, true));
}

#[tokio::test]
async fn a_visitor_that_leaves_takes_nothing_from_the_next() {
    let bench = Bench::new();
    let (source, gate, tap) = tapped_rest();
    bench.ok("/a", &RANGE, &source).await;
    gate.close();
    let response = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
    drop(response);
    let tap = tap.lock().take().unwrap();
    tap.send(Ok("456789".into())).ok();
    drop(tap);
    let got = bench.ok("/a", &[], &source).await;
    assert_eq!(got.text(), "0123456789");
    assert_eq!((got.status, bench.hits("/a")), (200, true));
}

#[tokio::test]
async fn a_part_that_cannot_be_read_is_no_part() {
    for (damaged, text, fetches) in [(false, "0123456789", 2), (true, "abcdefghij", 3)] {
        let (folder, clock) =
            (Arc::new(tempfile::tempdir().unwrap()), ManualClock::new(crate::common::NOW));
        let source = Scripted::new(|n, request| in_two(n, &request));
        let bench = Bench::on_disk(&folder, &clock).await;
        bench.ok("/a", &RANGE, &source).await;
        let objects = folder.path().join("objects");
        until("its file", || below(&objects).len() == 1).await;
        drop(bench);
        // What is read again has to come from the file.
        let bench = Bench::on_disk(&folder, &clock).await;
        if damaged {
            let file = below(&objects).remove(0);
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[3] ^= 1;
            std::fs::write(&file, bytes).unwrap();
        }
        assert_eq!(bench.ok("/a", &[], &source).await.text(), text);
        assert_eq!(source.count(), fetches);
    }
}

/// The files below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn the_whole_is_compressed_as_any_other() {
    let rule = CompressRule { min: 1, ..CompressRule::default() };
    let policy = CachePolicy { compress: Some(Arc::new(rule)), ..CachePolicy::default() };
    let bench = Bench::policy(policy);
    let text = "0123456789".repeat(100);
    let all = text.clone();
    let source = Scripted::new(move |n, request| {
        let (range, body) = if n == 0 {
            ("bytes 0-399/1000", &all[..400])
        } else {
            assert_eq!(request.headers["range"], "bytes=400-");
            ("bytes 400-999/1000", &all[400..])
        };
        let fields =
            [FIELDS[0], FIELDS[1], ("content-type", "text/plain"), ("content-range", range)];
        reply(206, &fields, body.to_owned())
    });
    bench.ok("/a", &[("range", "bytes=0-399"), ("accept-encoding", "gzip")], &source).await;
    for outcome in [Outcome::Miss, Outcome::Hit] {
        let got = bench.ok("/a", &[("accept-encoding", "gzip")], &source).await;
        assert_eq!((got.header("content-encoding"), got.outcome), ("gzip", outcome));
        let mut decoder = flate2::read::GzDecoder::new(&got.body[..]);
        let mut plain = String::new();
        std::io::Read::read_to_string(&mut decoder, &mut plain).unwrap();
        assert_eq!(plain, text);
    }
}

/// Wherever content is cut in two, it is whole again; and what is asked for is never more than what is
/// missing, where that is worth it.
#[tokio::test]
async fn every_cut_is_mended() {
    for length in [2usize, 9, 100] {
        for cut in 1..length {
            let bench = Bench::new();
            let all: String = (b'0'..=b'z').cycle().take(length).map(char::from).collect();
            let whole = all.clone();
            let source = Scripted::new(move |n, request| {
                let range = request.headers.get("range").map(|range| range.to_str().unwrap());
                match (n, range) {
                    (0, _) => part(&format!("bytes 0-{}/{length}", cut - 1), &whole[..cut]),
                    (_, None) => reply(200, &FIELDS, whole.clone()),
                    (_, Some(range)) => {
                        assert_eq!(range, format!("bytes={cut}-"));
                        part(&format!("bytes {cut}-{}/{length}", length - 1), &whole[cut..])
                    }
                }
            });
            bench.ok("/a", &[("range", &format!("bytes=0-{}", cut - 1))], &source).await;
            for _ in 0..2 {
                let got = bench.ok("/a", &[], &source).await;
                assert_eq!((got.status, got.text()), (200, all.as_str()), "{cut} of {length}");
                assert_eq!(got.header("content-length"), length.to_string());
            }
            assert_eq!(source.count(), 2);
            assert_eq!(source.last().contains_key("range"), cut * 8 >= length);
        }
    }
}

#[tokio::test]
async fn what_streams_is_given_as_it_comes() {
    let bench = Bench::new();
    let (source, gate, tap) = tapped_rest();
    bench.ok("/a", &RANGE, &source).await;
    gate.close();
    let response = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
    let verge_cache::Body::Stream(mut body) = response.body else { panic!("not a stream") };
    // The part, before a byte of the rest has come.
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "0123");
    let tap = tap.lock().take().unwrap();
    tap.send(Ok("456".into())).unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "456");
    // A source that breaks off is a response that breaks off.
    tap.send(Err("reset".into())).unwrap();
    assert!(body.frame().await.unwrap().is_err());
    assert!(!bench.hits("/a"));
}
