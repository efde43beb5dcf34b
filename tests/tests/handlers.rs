//! Handlers over HTTP: what they answer, what they may not do, and that a neighbour never notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use verge_tests::process::guest;
use verge_tests::wait::within;
use verge_tests::{Edge, Http1, Origin, answer, site, until};

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

/// A site with the handlers in Rust, and an origin behind them.
async fn handlers() -> (Origin, Edge) {
    let origin =
        Origin::start(|seen| async move { answer(200, FRESH, format!("origin {}", seen.path)) })
            .await;
    let rest = "[handlers.hello]\ncomponent = \"hello-rust.wasm\"\n\
                env = { GREETING = \"good day\" }\n\n\
                [handlers.faulty]\ncomponent = \"faulty-rust.wasm\"\n\
                limits = { cpu = \"50ms\", memory = \"32MiB\", wall = \"2s\", fetches = 4 }\n\n\
                [[routes]]\npath = \"/plain/*\"\norigin = \"web\"\n\n\
                [[routes]]\npath = \"/\"\nhandler = \"hello\"\norigin = \"web\"\n\n\
                [[routes]]\npath = \"/echo\"\nhandler = \"hello\"\norigin = \"web\"\n\n\
                [[routes]]\npath = \"/fetch\"\nhandler = \"hello\"\norigin = \"web\"\n\n\
                [[routes]]\npath = \"/*\"\nhandler = \"faulty\"\norigin = \"web\"\n";
    let edge = Edge::standalone(site::with_routes(&origin, rest))
        .beside("hello-rust.wasm", &guest("hello-rust"))
        .beside("faulty-rust.wasm", &guest("faulty-rust"))
        .start()
        .await;
    (origin, edge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_javascript_answers() {
    let origin =
        Origin::start(|seen| async move { answer(200, FRESH, format!("origin {}", seen.path)) })
            .await;
    let rest = "[handlers.script]\ncomponent = \"hello-js.wasm\"\nlimits = { cpu = \"2s\" }\n\n\
                [[routes]]\npath = \"/page\"\norigin = \"web\"\n\n\
                [[routes]]\npath = \"/*\"\nhandler = \"script\"\norigin = \"web\"\n";
    let edge = Edge::standalone(site::with_routes(&origin, rest))
        .beside("hello-js.wasm", &guest("hello-js"))
        .start()
        .await;
    let greeting = edge.get("a.example", "/").await.expect(200);
    assert!(greeting.text().contains("JavaScript"), "{greeting:?}");
    let told = edge.get("a.example", "/json").await.expect(200).json();
    assert_eq!((&told["path"], &told["method"]), (&"/json".into(), &"GET".into()), "{told}");
    for _ in 0..3 {
        let fetched = edge.get("a.example", "/fetch?path=/page").await.expect(200);
        assert_eq!(fetched.text(), "origin /page");
        assert_eq!(fetched.field("x-handler"), "hello");
    }
    assert_eq!(origin.count("/page"), 1, "the cache stands behind the handler");
    let body = "0123456789".repeat(20_000);
    let mut client = edge.client().await;
    let echo = client.request("POST", "a.example", "/echo", &[], body.as_bytes()).await;
    assert_eq!(echo.expect(200).text(), body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_rust_answers() {
    let (origin, edge) = handlers().await;
    let hello = edge.get("a.example", "/").await.expect(200);
    assert!(hello.text().contains("good day"), "{hello:?}");

    // The handler's own fetch goes to the cache and the origin behind it.
    for _ in 0..3 {
        let fetched = edge.get("a.example", "/fetch?path=/page").await.expect(200);
        assert_eq!(fetched.text(), "origin /page");
        assert_eq!(fetched.field("x-handler"), "hello");
    }
    assert_eq!(origin.count("/page"), 1, "the cache stands behind the handler");

    // Content streams in and out.
    let body = "0123456789".repeat(100_000);
    let mut client = edge.client().await;
    let echo = client.request("POST", "a.example", "/echo", &[], body.as_bytes()).await;
    assert_eq!(echo.expect(200).text(), body);
    let mut client = edge.client2().await;
    let echo = client.request("POST", "a.example", "/echo", &[], body.as_bytes()).await;
    assert_eq!(echo.expect(200).text(), body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_is_one_request_s_alone() {
    let (_origin, edge) = handlers().await;
    edge.get("a.example", "/plain/a").await.expect(200);
    // The neighbours: a cached file and a handler of another component, asked all the while.
    let stop = Arc::new(AtomicBool::new(false));
    let neighbours: Vec<_> = ["/plain/a", "/"]
        .into_iter()
        .map(|path| {
            let (stop, address) = (Arc::clone(&stop), edge.http);
            tokio::spawn(async move {
                let mut client = Http1::connect(address).await;
                let (mut count, mut slowest) = (0_u32, Duration::ZERO);
                while !stop.load(Ordering::SeqCst) {
                    let started = Instant::now();
                    client.get("a.example", path).await.expect(200);
                    slowest = slowest.max(started.elapsed());
                    count += 1;
                    tokio::task::yield_now().await;
                }
                (count, slowest)
            })
        })
        .collect();

    for (path, statuses) in [
        ("/trap", &[500][..]),
        ("/spin", &[500, 503, 508]),
        ("/memory", &[500, 503]),
        ("/deep", &[500]),
        ("/exit", &[500]),
        ("/no-response", &[500]),
        ("/hang", &[500, 503, 504]),
    ] {
        for _ in 0..5 {
            let started = Instant::now();
            let reply = edge.get("a.example", path).await;
            assert!(statuses.contains(&reply.status), "{path}: {reply:?}");
            assert!(started.elapsed() < Duration::from_secs(8), "{path}: {:?}", started.elapsed());
        }
    }
    let denied = edge.get("a.example", "/fs").await;
    assert!(denied.status < 600, "{denied:?}");

    // Half a body, then a trap: told as cut, never as whole.
    let late = edge.client().await.try_request("GET", "a.example", "/late-trap", &[], b"").await;
    assert!(late.is_err() || late.as_ref().is_ok_and(|reply| !reply.whole), "{late:?}");
    let mut client = edge.client().await;
    let endless = client.try_request("GET", "a.example", "/endless", &[], b"");
    let endless = within("an endless body to be cut", endless).await;
    assert!(endless.is_err() || endless.as_ref().is_ok_and(|reply| !reply.whole));

    stop.store(true, Ordering::SeqCst);
    for neighbour in neighbours {
        let (count, slowest) = neighbour.await.unwrap();
        assert!(count > 50, "a neighbour got {count} answers");
        assert!(slowest < Duration::from_secs(2), "a neighbour waited {slowest:?}");
    }
    // Its end is told in its log.
    let log = edge.process.output();
    assert!(log.contains("trap"), "the handler's log has no line of the trap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_are_counted() {
    let (origin, edge) = handlers().await;
    let told = edge.get("a.example", "/fetch-many?n=20").await.expect(200);
    assert!(told.text().starts_with("good 4, bad 16"), "{told:?}");
    assert_eq!(origin.seen().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_round_again_is_a_loop() {
    let origin = Origin::always(200, FRESH, "here").await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let circle = Edge::standalone(site::plain(&origin)).start().await;
    // The site's origin is the edge itself.
    let own = site::plain(&origin).replace(&origin.url(), &format!("http://{}", circle.http));
    std::fs::write(circle.file("verge.toml"), own).unwrap();
    // Each time another path: what was stored before the loop is no proof.
    let round = AtomicUsize::new(0);
    let looped = until("the loop to be in force", || async {
        let path = format!("/plain/{}", round.fetch_add(1, Ordering::SeqCst));
        let reply = circle.get("a.example", &path).await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert!(matches!(looped.status, 508 | 502), "{looped:?}");
    // The control: the same file with a real origin answers.
    edge.get("a.example", "/round").await.expect(200);
}
