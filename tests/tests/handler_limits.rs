//! What keeps one tenant's fault that tenant's alone: the gate of a site, the breaker of a handler, and
//! what takes a failing handler's place.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use verge_tests::process::guest;
use verge_tests::wait::within;
use verge_tests::{Control, Edge, Gate, Origin, Reply, answer, site, until};

const HOST: &str = "a.example";

/// An origin that holds `/slow` at a gate, and answers everything else with its path.
async fn origin(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |seen| {
        let gate = gate.clone();
        async move {
            if seen.path.starts_with("/slow") {
                gate.pass().await;
            }
            answer(200, &[], format!("origin {}", seen.path))
        }
    })
    .await
}

/// A site of a fleet whose handler fetches what it is asked for, uncached.
fn fetching(name: &str, origin: &Origin, component: &str, limits: &str) -> String {
    let rest = format!(
        "[handlers.hello]\ncomponent = {component:?}\nlimits = {{ wall = \"60s\" }}\n\n\
         [[routes]]\npath = \"/fetch\"\nhandler = \"hello\"\norigin = \"web\"\n\
         cache = {{ position = \"off\" }}\n\n\
         [[routes]]\npath = \"/*\"\norigin = \"web\"\ncache = {{ mode = \"bypass\" }}\n"
    );
    let text = site::for_domains(name, &[&format!("{name}.example")], origin, &rest);
    format!("{limits}{text}")
}

/// A number in the metrics of an edge.
async fn metric(edge: &Edge, name: &str) -> u64 {
    let text = edge.admin("/metrics").await.expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().unwrap() as u64
}

async fn ended(edge: &Edge, end: &str) -> u64 {
    metric(edge, &format!("verge_handlers_runs_total{{end=\"{end}\"}}")).await
}

fn asked(edge: &Edge, host: &'static str, path: &'static str) -> JoinHandle<Reply> {
    let address = edge.http;
    tokio::spawn(async move { verge_tests::http1::get(address, host, path).await })
}

/// An edge with two sites, whose handlers it has these limits for.
async fn two_sites(gate: &Gate, edge_limits: &str, site_limits: &str) -> (Control, Origin, Edge) {
    let (control, origin) = (Control::start().await, origin(gate).await);
    let component = control.upload(&guest("hello-rust")).await;
    control.deploy("a", &fetching("a", &origin, &component, site_limits)).await;
    let revision = control.deploy("b", &fetching("b", &origin, &component, "")).await;
    let lines = format!("allow_private_origins = true\n[handlers]\n{edge_limits}\n");
    let edge = Edge::join_with(&control, "e", &lines).await;
    control.applied(revision, &["e"]).await;
    (control, origin, edge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_has_so_many_requests_at_once_and_its_neighbour_never_notices() {
    let gate = Gate::default();
    let limits = "handler_concurrency = 2\n";
    let (_control, _origin, edge) = two_sites(&gate, "instances = 8", limits).await;
    let held = [
        asked(&edge, "a.example", "/fetch?path=/slow/1"),
        asked(&edge, "a.example", "/fetch?path=/slow/2"),
    ];
    gate.reached().await;
    gate.reached().await;

    // Two wait for a while, the third not at all; all are told when to come again.
    let waiting: Vec<_> = (0..5).map(|_| asked(&edge, "a.example", "/fetch?path=/quick")).collect();
    for reply in waiting {
        let reply = within("an answer", reply).await.unwrap().expect(503);
        assert_eq!(reply.field("retry-after"), "1");
        assert!(reply.field("proxy-status").contains("connection_limit_reached"), "{reply:?}");
    }
    assert_eq!(ended(&edge, "busy").await, 5);
    let log = edge.process.output();
    assert!(log.contains("raise handler_concurrency"), "no line that says what to do:\n{log}");

    // What is no handler's is served, and so is everything of the neighbour.
    edge.get("a.example", "/quick").await.expect(200);
    for _ in 0..10 {
        let reply = edge.get("b.example", "/fetch?path=/quick").await.expect(200);
        assert_eq!(reply.text(), "origin /quick");
    }
    gate.open_for_good();
    for reply in held {
        within("what was held", reply).await.unwrap().expect(200);
    }
    edge.get("a.example", "/fetch?path=/quick").await.expect(200);
    assert_eq!(ended(&edge, "busy").await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_site_takes_all_of_the_edge() {
    for (per_site, neighbour) in [(3, 200), (4, 503)] {
        let gate = Gate::default();
        let limits = format!("instances = 4\nper_site = {per_site}");
        let (_control, _origin, edge) = two_sites(&gate, &limits, "").await;
        let flood: Vec<_> =
            (0..4).map(|_| asked(&edge, "a.example", "/fetch?path=/slow")).collect();
        for _ in 0..per_site {
            gate.reached().await;
        }
        // The control: with as many as the edge has, the site takes them all.
        let reply = edge.get("b.example", "/fetch?path=/quick").await;
        assert_eq!(reply.status, neighbour, "per_site = {per_site}: {reply:?}");
        let full = ended(&edge, "instance_limit").await;
        assert_eq!(full, u64::from(neighbour == 503), "per_site = {per_site}");
        gate.open_for_good();
        for reply in flood {
            let reply = within("the flood", reply).await.unwrap();
            assert!(matches!(reply.status, 200 | 503), "{reply:?}");
        }
        edge.get("b.example", "/fetch?path=/quick").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_a_moment_is_served_and_never_more_at_once_than_may() {
    let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, highest) = (Arc::clone(&now), Arc::clone(&peak));
    let origin = Origin::start(move |seen| {
        let (now, peak) = (Arc::clone(&counted), Arc::clone(&highest));
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // An origin that takes its time, so that requests meet.
            tokio::time::sleep(Duration::from_millis(20)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            answer(200, &[], seen.path)
        }
    })
    .await;
    let text = fetching("a", &origin, "hello-rust.wasm", "handler_concurrency = 2\n")
        .replace("\"a.example\"", "\"*\"");
    let edge = Edge::standalone(text).beside("hello-rust.wasm", &guest("hello-rust")).start().await;
    until("four at once to be served two by two", || async {
        peak.store(0, Ordering::SeqCst);
        let all: Vec<_> = (0..4).map(|_| asked(&edge, HOST, "/fetch?path=/x")).collect();
        let mut served = 0;
        for reply in all {
            let reply = within("an answer", reply).await.unwrap();
            assert!(matches!(reply.status, 200 | 503), "{reply:?}");
            served += usize::from(reply.status == 200);
        }
        let peak = peak.load(Ordering::SeqCst);
        assert!(peak <= 2, "{peak} at once");
        (served == 4 && peak == 2).then_some(())
    })
    .await;
}

/// A site whose handler fails under `/trap` and succeeds elsewhere, and another handler beside it.
async fn failing(handler: &str, cache: &str) -> (Origin, Edge) {
    let origin = Origin::start(|seen| async move {
        let fields = [("Cache-Control", "max-age=3600")];
        answer(200, &fields, format!("origin {}", seen.path))
    })
    .await;
    let rest = format!(
        "[handlers.faulty]\ncomponent = \"faulty-rust.wasm\"\n\
         breaker = {{ failures = 3, window = \"60s\" }}\n{handler}\n\n\
         [handlers.other]\ncomponent = \"hello-rust.wasm\"\n\n\
         [[routes]]\npath = \"/other\"\nhandler = \"other\"\norigin = \"web\"\n\n\
         [[routes]]\npath = \"/*\"\nhandler = \"faulty\"\norigin = \"web\"\ncache = {{ {cache} }}\n"
    );
    let edge = Edge::standalone(site::with_routes(&origin, &rest))
        .beside("hello-rust.wasm", &guest("hello-rust"))
        .beside("faulty-rust.wasm", &guest("faulty-rust"))
        .start()
        .await;
    (origin, edge)
}

const GOOD: &str = "a good answer\n";

/// Trips the breaker, and again with each probe, until it stays open for this many seconds.
async fn trip(edge: &Edge, seconds: u64) {
    for _ in 0..3 {
        edge.get(HOST, "/trap").await.expect(500);
    }
    let mut open = 1;
    while open < seconds {
        until("a probe that fails", || async {
            let reply = edge.get(HOST, "/trap").await;
            (reply.status == 500).then_some(())
        })
        .await;
        open *= 2;
    }
}

/// Waits until the breaker is closed, and sees that it has said so once.
async fn closed(edge: &Edge) {
    // Each time another path: what a cache has is no probe.
    let round = AtomicUsize::new(0);
    until("the breaker to close", || async {
        edge.get(HOST, &format!("/good/{}", round.fetch_add(1, Ordering::SeqCst))).await;
        (metric(edge, "verge_handlers_breakers_open").await == 0).then_some(())
    })
    .await;
    let log = edge.process.output();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("the handler answers again"), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_keeps_failing_is_left_alone_and_tried_again() {
    let (_origin, edge) = failing("", "position = \"behind\"").await;
    // Two failures are not three.
    for _ in 0..2 {
        edge.get(HOST, "/trap").await.expect(500);
    }
    assert_eq!(edge.get(HOST, "/good").await.expect(200).text(), GOOD);
    edge.get(HOST, "/trap").await.expect(500);
    let refused = edge.get(HOST, "/good").await.expect(503);
    assert_eq!(refused.field("retry-after"), "1");
    assert!(refused.text().contains("out of order"), "{refused:?}");
    assert_eq!(metric(&edge, "verge_handlers_breakers_open").await, 1);
    let path = format!("/explain?url=http%3A%2F%2F{HOST}%2Fgood");
    let told = edge.admin(&path).await.expect(200).json();
    assert_eq!(told["handler"]["breaker"], "open", "{told}");
    // That handler alone.
    edge.get(HOST, "/other").await.expect(200);
    // A probe that fails makes it longer.
    until("a probe that fails", || async {
        (edge.get(HOST, "/trap").await.status == 500).then_some(())
    })
    .await;
    let refused = edge.get(HOST, "/good").await.expect(503);
    let wait: u64 = refused.field("retry-after").parse().unwrap();
    assert_eq!(wait, 2, "{refused:?}");
    closed(&edge).await;
    assert_eq!(edge.get(HOST, "/good").await.expect(200).text(), GOOD);
    assert!(ended(&edge, "tripped").await >= 2);
    assert_eq!(metric(&edge, "verge_handlers_breaker_opened_total").await, 2);
    assert_eq!(metric(&edge, "verge_handlers_breaker_closed_total").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_component_starts_with_a_closed_breaker() {
    let (_origin, edge) = failing("", "position = \"behind\"").await;
    trip(&edge, 8).await;
    edge.get(HOST, "/good").await.expect(503);
    // The same file again changes nothing; another component does.
    let text = std::fs::read_to_string(edge.file("verge.toml")).unwrap();
    std::fs::write(edge.file("verge.toml"), format!("{text}\n# the same\n")).unwrap();
    until("the same site to be in force again", || async {
        (edge.process.output().matches("site file in force").count() == 2).then_some(())
    })
    .await;
    edge.get(HOST, "/good").await.expect(503);
    std::fs::copy(guest("hello-rust"), edge.file("new.wasm")).unwrap();
    std::fs::rename(edge.file("new.wasm"), edge.file("faulty-rust.wasm")).unwrap();
    until("the new component to answer at once", || async {
        (edge.get(HOST, "/good").await.status == 200).then_some(())
    })
    .await;
    until("the old breaker to be gone", || async {
        (metric(&edge, "verge_handlers_breakers_open").await == 0).then_some(())
    })
    .await;
    assert_eq!(metric(&edge, "verge_handlers_breaker_closed_total").await, 0, "no probe closed it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cache_has_takes_the_place_of_a_failing_handler() {
    for (handler, status) in [("on_failure = \"stale\"", 200), ("on_failure = \"error\"", 503)] {
        let cache = "position = \"before\", mode = \"override\", ttl = \"1s\"";
        let (_origin, edge) = failing(handler, cache).await;
        edge.get(HOST, "/kept").await.expect(200);
        assert!(edge.get(HOST, "/kept").await.expect(200).is_hit());
        trip(&edge, 4).await;
        // Four seconds of it are left; one and what it took to get here are over.
        let reply = edge.get(HOST, "/kept").await;
        assert_eq!(reply.status, status, "{handler}: {reply:?}");
        if status == 200 {
            assert_eq!(reply.text(), GOOD);
            assert!(reply.cache_status().contains("stale"), "{reply:?}");
        }
        // What was never stored is an error with either.
        edge.get(HOST, "/never").await.expect(503);
        closed(&edge).await;
        assert_eq!(edge.get(HOST, "/kept").await.expect(200).text(), GOOD);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_origin_takes_the_place_of_a_failing_handler() {
    for position in ["behind", "before", "both", "off"] {
        let cache = format!("position = {position:?}, mode = \"override\", ttl = \"1h\"");
        let (origin, edge) = failing("on_failure = \"bypass\"", &cache).await;
        assert_eq!(edge.get(HOST, "/own").await.expect(200).text(), GOOD);
        trip(&edge, 4).await;
        for _ in 0..2 {
            let reply = edge.get(HOST, "/new").await.expect(200);
            assert_eq!(reply.text(), "origin /new", "{position}");
        }
        // As for the handler's own fetch: kept by the cache behind it, and by no other.
        let asked = if position == "behind" { 1 } else { 2 };
        assert_eq!(origin.count("/new"), asked, "{position}");
        let mut client = edge.client().await;
        let posted = client.request("POST", HOST, "/new", &[], b"content").await.expect(200);
        assert_eq!(posted.text(), "origin /new", "{position}");
        assert_eq!(origin.seen().last().unwrap().body, "content");
        let is_before = matches!(position, "before" | "both");
        let own = edge.get(HOST, "/own").await.expect(200).text();
        assert_eq!(own == GOOD, is_before, "{position}: what is fresh is the handler's");
        closed(&edge).await;
        // The origin's answer was not kept as the handler's.
        assert_eq!(edge.get(HOST, "/new").await.expect(200).text(), GOOD, "{position}");
    }
}
