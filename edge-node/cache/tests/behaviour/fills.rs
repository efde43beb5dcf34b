//! Fills: collapsing, aborts, failures, hit-for-miss, stale while revalidated and stale if error,
//! bodies that break off, bodies too large to keep.

use futures::FutureExt;
use http::Method;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use verge_cache::{Body, Outcome, SourceRequest};
use verge_config::Mode;
use verge_config::purge::Selector;
use verge_config::site::CachePolicy;

use crate::common::{Bench, Reply, Scripted, Tap, read, reply, tapped, until};

const FRESH: [(&str, &str); 1] = [("cache-control", "max-age=100")];

/// A source that answers only when the gate has a permit.
fn gated(
    gate: &Arc<Semaphore>,
    answer: impl Fn(usize, SourceRequest) -> Reply + Send + Sync + 'static,
) -> Arc<Scripted> {
    let gate = Arc::clone(gate);
    let answer = Arc::new(answer);
    Scripted::later(move |n, request| {
        let (gate, answer) = (Arc::clone(&gate), Arc::clone(&answer));
        async move {
            gate.acquire().await.unwrap().forget();
            answer(n, request)
        }
        .boxed()
    })
}

/// A source whose one body the test lets out, with these fields.
fn streaming(fields: &'static [(&'static str, &'static str)]) -> (Tap, Arc<Scripted>) {
    let (tap, body) = tapped();
    let body = Mutex::new(Some(body));
    let source = Scripted::new(move |_, _| {
        let mut answer = reply(200, fields, "")?;
        if !fields.iter().any(|(name, _)| *name == "content-length") {
            answer.headers.remove("content-length");
        }
        answer.body = body.lock().take().ok_or("only one body")?;
        Ok(answer)
    });
    (tap, source)
}

/// `count` GETs at once, each in a task.
async fn crowd(
    bench: &Arc<Bench>,
    count: usize,
    fields: &'static [(&'static str, &'static str)],
    source: &Arc<Scripted>,
) -> Vec<tokio::task::JoinHandle<Result<crate::common::Got, String>>> {
    let started = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let tasks = (0..count)
        .map(|_| {
            let (bench, source) = (Arc::clone(bench), Arc::clone(source));
            let started = Arc::clone(&started);
            tokio::spawn(async move {
                started.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                bench.get("/a", fields, &source).await
            })
        })
        .collect();
    until("all have started", || started.load(std::sync::atomic::Ordering::SeqCst) == count).await;
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_cold_requests_make_one_fetch() {
    let bench = Arc::new(Bench::new());
    let gate = Arc::new(Semaphore::new(0));
    let source = gated(&gate, |_, _| reply(200, &FRESH, vec![7; 100_000]));
    let tasks = crowd(&bench, 1000, &[], &source).await;
    gate.add_permits(1);
    let mut joined = 0;
    for task in tasks {
        let got = task.await.unwrap().unwrap();
        assert_eq!(got.body.len(), 100_000);
        joined += usize::from(got.outcome == Outcome::Collapsed);
    }
    assert_eq!(source.count(), 1);
    assert!(joined > 0, "nobody joined: the crowd was none");
    assert!(bench.hits("/a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failing_source_is_not_asked_by_each_waiter_in_turn() {
    for answer in [0, 503] {
        let bench = Arc::new(Bench::new());
        let gate = Arc::new(Semaphore::new(0));
        let source = gated(&gate, move |_, _| match answer {
            0 => Err("refused".into()),
            status => reply(status, &[], "sorry"),
        });
        let tasks = crowd(&bench, 200, &[], &source).await;
        until("the source is asked", || source.count() == 1).await;
        until("all wait", || bench.cache.stats().fills == 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.add_permits(1);
        for task in tasks {
            match task.await.unwrap() {
                Ok(got) => assert_eq!((got.status, got.text()), (503, "sorry")),
                Err(error) => assert!(error.contains("refused"), "{error}"),
            }
        }
        assert_eq!(source.count(), 1, "answer {answer}");
    }
}

#[tokio::test]
async fn a_visitor_who_leaves_does_not_stop_a_fill() {
    let bench = Bench::new();
    let (tap, source) = streaming(&FRESH);
    let response = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
    tap.send(Ok("half ".into())).unwrap();
    drop(response);
    tap.send(Ok("whole".into())).unwrap();
    drop(tap);
    until("it is stored", || bench.hits("/a")).await;
    let got = bench.ok("/a", &[], &source).await;
    assert_eq!((got.text(), got.header("content-length"), source.count()), ("half whole", "10", 1));
}

#[tokio::test]
async fn a_fill_that_nobody_reads_and_nothing_stores_is_stopped() {
    let bench = Bench::new();
    let (tap, source) = streaming(&[("cache-control", "no-store")]);
    let response = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
    tap.send(Ok("x".into())).unwrap();
    assert_eq!(bench.cache.stats().fills, 0, "not for others to join");
    drop(response);
    until("the source's stream is dropped", || tap.is_closed()).await;
}

#[tokio::test]
async fn content_streams_to_every_reader_while_it_arrives() {
    let bench = Bench::new();
    let (tap, source) = streaming(&FRESH);
    let first = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
    tap.send(Ok("one".into())).unwrap();
    let Body::Stream(mut first) = first.body else { panic!("not a stream") };
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    let second = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
    assert_eq!(second.outcome, Outcome::Collapsed);
    let Body::Stream(mut second) = second.body else { panic!("not a stream") };
    assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    assert!(second.frame().now_or_never().is_none(), "there is no more yet");
    tap.send(Ok("two".into())).unwrap();
    drop(tap);
    for body in [&mut first, &mut second] {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "two");
        assert!(body.frame().await.is_none());
    }
    assert_eq!(source.count(), 1);
}

#[tokio::test]
async fn what_breaks_off_is_seen_to_and_never_stored() {
    // Too short, too long, an error in mid-stream; and, for control, what is whole.
    type Item = Result<&'static str, &'static str>;
    type Case = (&'static [(&'static str, &'static str)], &'static [Item], bool);
    let cases: [Case; 4] = [
        (&[FRESH[0], ("content-length", "9")], &[Ok("short")], false),
        (&[FRESH[0], ("content-length", "3")], &[Ok("longer")], false),
        (&FRESH, &[Ok("some"), Err("reset")], false),
        (&[FRESH[0], ("content-length", "4")], &[Ok("so"), Ok("me")], true),
    ];
    for (fields, items, whole) in cases {
        let bench = Bench::new();
        let (tap, source) = streaming(fields);
        for item in items {
            tap.send(item.map(Into::into).map_err(Into::into)).unwrap();
        }
        drop(tap);
        let got = bench.get("/a", &[], &source).await;
        assert_eq!(got.is_ok(), whole, "{fields:?}: {got:?}");
        until("it is over", || bench.cache.stats().fills == 0).await;
        assert_eq!(bench.hits("/a"), whole, "{fields:?}");
        assert_eq!(bench.cache.stats().incomplete, u64::from(!whole));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uncacheable_answers_do_not_queue_and_are_not_shared() {
    let bench = Arc::new(Bench::new());
    let gate = Arc::new(Semaphore::new(0));
    let source = gated(&gate, |n, _| reply(200, &[("cache-control", "private")], format!("{n}")));
    let tasks = crowd(&bench, 50, &[], &source).await;
    until("one asks", || source.count() == 1).await;
    gate.add_permits(1);
    // All the others are released by the first answer, together.
    until("all ask", || source.count() == 50).await;
    gate.add_permits(49);
    let mut bodies = std::collections::HashSet::new();
    for task in tasks {
        assert!(bodies.insert(task.await.unwrap().unwrap().body), "shared");
    }
    // While the mark lasts nobody waits; afterwards requests collapse again.
    let tasks = crowd(&bench, 5, &[], &source).await;
    until("all ask at once", || source.count() == 55).await;
    gate.add_permits(5);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    bench.advance(60);
    let tasks = crowd(&bench, 5, &[], &source).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(source.count(), 56);
    gate.add_permits(5);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn waiters_of_another_variant_fetch_their_own_once() {
    let bench = Arc::new(Bench::new());
    let gate = Arc::new(Semaphore::new(0));
    let source = gated(&gate, |_, request| {
        let own = request.headers["foo"].to_str().unwrap().to_owned();
        reply(200, &[FRESH[0], ("vary", "foo")], own)
    });
    let mut all = Vec::new();
    for fields in [&[("foo", "1")] as &'static [_], &[("foo", "2")], &[("foo", "3")]] {
        for task in crowd(&bench, 40, fields, &source).await {
            all.push((fields[0].1, task));
        }
    }
    gate.add_permits(100);
    for (value, task) in all {
        assert_eq!(task.await.unwrap().unwrap().text(), value);
    }
    assert_eq!(source.count(), 3);
}

#[tokio::test]
async fn stale_while_revalidate_serves_at_once_and_refreshes_once() {
    let bench = Bench::new();
    let gate = Arc::new(Semaphore::new(1));
    let source = gated(&gate, |n, _| {
        reply(200, &[("cache-control", "max-age=10, stale-while-revalidate=20")], format!("{n}"))
    });
    bench.ok("/a", &[], &source).await;
    bench.advance(29);
    for _ in 0..5 {
        let got = bench.ok("/a", &[], &source).await;
        assert_eq!((got.text(), got.outcome, got.header("age")), ("0", Outcome::Stale, "29"));
    }
    until("it is asked for", || source.count() == 2).await;
    gate.add_permits(1);
    until("it is fresh", || bench.hits("/a")).await;
    assert_eq!(bench.ok("/a", &[], &source).await.text(), "1");
    assert_eq!(source.count(), 2);
    // Past its window it is not served.
    bench.advance(31);
    gate.add_permits(1);
    assert_eq!(bench.ok("/a", &[], &source).await.text(), "2");
    assert_eq!(source.count(), 3);
}

#[tokio::test]
async fn stale_if_error_only_where_allowed_and_within_its_window() {
    let windows =
        CachePolicy { stale_if_error: Some(Duration::from_secs(20)), ..CachePolicy::default() };
    for (cc, policy, after, served) in [
        ("max-age=10, stale-if-error=20", CachePolicy::default(), 29, true),
        ("max-age=10, stale-if-error=20", CachePolicy::default(), 31, false),
        ("max-age=10", CachePolicy::default(), 11, false),
        ("max-age=10", windows.clone(), 29, true),
        ("max-age=10, stale-if-error=20, must-revalidate", CachePolicy::default(), 11, false),
        ("max-age=10, stale-if-error=20, proxy-revalidate", windows.clone(), 11, false),
        ("s-maxage=10, stale-if-error=20", windows.clone(), 11, false),
        ("max-age=10, no-cache, stale-if-error=20", windows.clone(), 1, false),
    ] {
        for failure in [0, 500, 502, 503, 504, 404] {
            let bench = Bench::policy(policy.clone());
            let source = Scripted::new(move |n, _| match (n, failure) {
                (0, _) => reply(200, &[("cache-control", cc), ("etag", "\"e\"")], "good"),
                (_, 0) => Err("refused".into()),
                (_, status) => reply(status, &[], "bad"),
            });
            bench.ok("/a", &[], &source).await;
            bench.advance(after);
            let got = bench.get("/a", &[], &source).await;
            match (served && failure != 404, got) {
                (true, got) => {
                    let got = got.unwrap();
                    assert_eq!(
                        (got.status, got.text(), got.outcome),
                        (200, "good", Outcome::Stale)
                    );
                }
                (false, Ok(got)) => assert_eq!((got.status, got.text()), (failure, "bad"), "{cc}"),
                (false, Err(error)) => assert!(error.contains("refused"), "{cc}: {error}"),
            }
            assert_eq!(source.count(), 2);
        }
    }
}

#[tokio::test]
async fn soft_purged_objects_are_stale_from_the_purge_on() {
    let bench = Bench::new();
    let cc = "max-age=100, stale-if-error=20, stale-while-revalidate=5";
    let source = Scripted::new(move |n, _| match n {
        0 => reply(200, &[("cache-control", cc), ("etag", "\"e\"")], "good"),
        1 => Err("down".into()),
        2 => Err("down".into()),
        3 => Err("down".into()),
        _ => reply(304, &[], ""),
    });
    bench.ok("/a", &[], &source).await;
    bench.advance(10);
    assert_eq!(bench.purge(1, Mode::Soft, &[Selector::Url("/a".into())]), 1);
    assert!(!bench.hits("/a"));
    let got = bench.ok("/a", &[], &source).await;
    assert_eq!((got.text(), got.outcome), ("good", Outcome::Stale));
    until("the refresh failed", || source.count() == 2 && bench.cache.stats().fills == 0).await;
    bench.advance(19);
    assert_eq!(bench.ok("/a", &[], &source).await.outcome, Outcome::Stale);
    bench.advance(2);
    assert!(bench.get("/a", &[], &source).await.is_err(), "past the window");
    assert_eq!(bench.ok("/a", &[], &source).await.outcome, Outcome::Revalidated);
    assert!(bench.hits("/a"), "what is confirmed after the purge is fresh again");
}

#[tokio::test]
async fn what_is_too_large_streams_through_within_bounds() {
    let small = |settings: &mut verge_cache::Settings| settings.max_object_bytes = Some(1000);
    // Declared, and found out on the way.
    for fields in [&[FRESH[0], ("content-length", "8388608")] as &'static [_], &FRESH] {
        let bench = Bench::with(small, CachePolicy::default());
        let (tap, source) = streaming(fields);
        let feeder = tokio::spawn(async move {
            for _ in 0..128 {
                if tap.send(Ok(vec![1; 65_536].into())).is_err() {
                    break;
                }
            }
        });
        let got = bench.ok("/a", &[], &source).await;
        feeder.await.unwrap();
        assert_eq!(got.body.len(), 8_388_608);
        assert!(!bench.hits("/a"));
        assert_eq!(bench.cache.stats().fill_bytes, 0);
    }
    // A range of it is asked of the source, once it is known to be too large.
    let bench = Bench::with(small, CachePolicy::default());
    let source = Scripted::new(|_, request| match request.headers.get("range") {
        Some(range) if range == "bytes=0-0" => {
            reply(206, &[FRESH[0], ("content-range", "bytes 0-0/5000")], "x")
        }
        _ => reply(200, &FRESH, vec![b'x'; 5000]),
    });
    for fetches in [2, 4] {
        let got = bench.ok("/a", &[("range", "bytes=0-0")], &source).await;
        assert_eq!((got.status, got.text(), source.count()), (206, "x", fetches));
    }
}

#[tokio::test]
async fn a_reader_of_a_large_body_holds_the_source_back() {
    let small = |settings: &mut verge_cache::Settings| settings.max_object_bytes = Some(1000);
    let bench = Bench::with(small, CachePolicy::default());
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let source = Scripted::new(move |_, _| {
        let counter = Arc::clone(&counter);
        let mut answer = reply(200, &FRESH, "")?;
        answer.headers.remove("content-length");
        let endless = futures::stream::repeat_with(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(http_body::Frame::data(bytes::Bytes::from(vec![0; 65_536])))
        });
        answer.body = http_body_util::StreamBody::new(endless).boxed_unsync();
        Ok(answer)
    });
    let response = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let held = sent.load(std::sync::atomic::Ordering::SeqCst);
    assert!((16..=20).contains(&held), "the window is 1 MiB: {held} chunks of 64 KiB");
    let Body::Stream(mut body) = response.body else { panic!("not a stream") };
    for _ in 0..100 {
        body.frame().await.unwrap().unwrap();
    }
    assert!(sent.load(std::sync::atomic::Ordering::SeqCst) > held);
    drop(body);
    until("it ends", || bench.cache.stats().fills == 0).await;
}

#[tokio::test]
async fn head_requests_do_not_fetch_content() {
    let bench = Bench::new();
    let source = Scripted::new(|_, _| reply(200, &FRESH, ""));
    read(bench.serve(Method::HEAD, "/a", &[], &source).await.unwrap()).await.unwrap();
    assert_eq!(source.seen.lock()[0].0, Method::HEAD);
    assert!(!bench.hits("/a"));
}

#[tokio::test]
async fn explanations_name_what_is_stored_and_why_not() {
    use verge_cache::State;
    use verge_cache::freshness::{NotStored, TtlSource};
    let bench = Bench::new();
    let none = http::HeaderMap::new();
    let explain = || bench.cache.explain(&bench.request(&Method::GET, "/a?x", &none));
    assert_eq!((explain().state, explain().not_stored), (State::Absent, None));
    let source = Scripted::new(|n, _| match n {
        0 => reply(200, &[("cache-control", "private")], "x"),
        _ => {
            reply(200, &[("cache-control", "s-maxage=9"), ("cache-tag", "T"), ("age", "2")], "xyz")
        }
    });
    bench.ok("/a?x", &[], &source).await;
    let private = Some(NotStored::Private);
    assert_eq!((explain().state, explain().not_stored), (State::HitForMiss, private));
    bench.advance(60);
    assert_eq!((explain().state, explain().not_stored), (State::Absent, private));
    bench.ok("/a?x", &[], &source).await;
    let told = explain();
    assert_eq!(told.key, "shop https://shop.example/a?x");
    assert_eq!((told.state, told.not_stored), (State::Fresh, None));
    assert_eq!((told.age, told.ttl), (Some(2), Some(7)));
    assert_eq!((told.ttl_source, told.size), (Some(TtlSource::SMaxage), Some(3)));
    assert_eq!(told.tags, ["t"]);
    bench.advance(8);
    assert_eq!((explain().state, explain().ttl), (State::Stale, Some(-1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_under_constant_change_keeps_serving() {
    // Purges, invalidations and flushes beside a crowd of readers: every answer is a whole one.
    let bench = Arc::new(Bench::new());
    let source = Scripted::new(|_, _| reply(200, &FRESH, vec![9; 50_000]));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let storm = std::thread::spawn({
        let (bench, stop) = (Arc::clone(&bench), Arc::clone(&stop));
        move || {
            let none = http::HeaderMap::new();
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                n += 1;
                match n % 4 {
                    0 => bench.cache.flush(verge_config::Revision(n)),
                    1 => bench.cache.invalidate(&bench.request(&Method::PUT, "/a", &none), &none),
                    _ => drop(bench.hard(n, Selector::Url("/a".into()))),
                }
            }
            n
        }
    });
    for _ in 0..20 {
        for task in crowd(&bench, 50, &[], &source).await {
            let got = task.await.unwrap().unwrap();
            assert_eq!((got.status, got.body.len()), (200, 50_000));
        }
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(storm.join().unwrap() > 4);
    until("every fill has ended", || bench.cache.stats().fills == 0).await;
}
