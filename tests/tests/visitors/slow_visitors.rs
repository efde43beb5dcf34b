//! A visitor that reads nothing beside one that reads all, on one long fill: the one is not held up by the
//! other for longer than the limits say, and neither the edge's memory nor the origin is the worse for it.

use std::time::{Duration, Instant};
use tempfile::TempDir;
use verge_tests::generated::{Download, Generated};
use verge_tests::{Control, Edge, site, until};

const MIB: u64 = 1024 * 1024;
/// Far more than what the kernel takes for a visitor that does not read.
const LENGTH: u64 = 128 * MIB + 4_321;
/// What the edge may grow by, in bytes.
const MAY_GROW: u64 = 64 * MIB;
/// How long the slowest of several readers may hold the others up (ARCHITECTURE.md), and for how long
/// a visitor may take nothing where nobody said otherwise.
const HELD_UP: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(30);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(5);

/// How it was for the one that reads, and the other one, as it was left.
struct Beside {
    started: Instant,
    longest: Duration,
    stalled: Download,
}

async fn open_connections(edge: &Edge) -> usize {
    let text = edge.admin("/metrics").await.expect(200).text();
    let name = "verge_listen_connections_open ";
    text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap()
}

/// One reads all of it at full speed beside one that reads nothing.
async fn beside(large: &Generated, edge: &Edge) -> Beside {
    // What every edge takes with its first requests is taken already.
    large.get(edge.http, "/warm", Some((0, MIB - 1))).await.finish().await;
    let (asked, before) = (large.asked(), edge.process.resident());
    edge.process.forget_peak();
    // Both are readers of the fill before there is content.
    let stalled = large.get(edge.http, "/held", None).await;
    let mut fast = large.get(edge.http, "/held", None).await;
    assert_eq!((stalled.status, fast.status), (200, 200));
    large.gate.reached().await;
    large.gate.open_for_good();
    let (started, mut longest) = (Instant::now(), Duration::ZERO);
    loop {
        let asked = Instant::now();
        let left = fast.read(64 * 1024).await;
        longest = longest.max(asked.elapsed());
        if left == 0 {
            break;
        }
    }
    fast.finish().await;
    let grown = edge.process.peak().saturating_sub(before) as u64 + edge.process.memory_files();
    eprintln!("held up for {longest:?} of {:?}, grown by {grown} bytes", started.elapsed());
    assert!(grown <= MAY_GROW, "grown by {grown} bytes");
    assert_eq!(large.asked(), asked + 1, "the origin is asked once");
    Beside { started, longest, stalled }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stalls_holds_others_up_for_ten_seconds_at_most() {
    let large = Generated::start(LENGTH).await;
    let edge = Edge::standalone(site::plain(&large.origin)).start().await;
    let Beside { longest, stalled, .. } = beside(&large, &edge).await;
    assert!(longest > HELD_UP / 2, "for control: it held the other up, {longest:?}");
    assert!(longest < HELD_UP + SLACK, "held up for {longest:?}");
    let missing = stalled.read_to_cut().await;
    assert!(missing > LENGTH / 2, "it was cut: {missing} bytes are missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stalls_is_cut_off_after_the_operators_limit() {
    const LIMIT: Duration = Duration::from_secs(2);
    let large = Generated::start(LENGTH).await;
    let control = Control::start().await;
    let lines = "allow_private_origins = true\n\n[limits]\nbody_timeout = \"2s\"\n";
    let edge = Edge::join_with(&control, "strict", lines).await;
    let routes = "[[routes]]\npath = \"/*\"\norigin = \"web\"\n";
    let site = site::for_domains("test", &["large.example"], &large.origin, routes);
    let revision = control.deploy("test", &site).await;
    control.applied(revision, &["strict"]).await;
    let Beside { started, longest, stalled } = beside(&large, &edge).await;
    assert!(longest > LIMIT / 2, "for control: it held the other up, {longest:?}");
    assert!(longest < LIMIT + SLACK, "held up for {longest:?}");
    // It has not read a byte more, and still its connection goes.
    until("it to be cut off", || async { (open_connections(&edge).await == 0).then_some(()) })
        .await;
    let cut = started.elapsed();
    assert!((LIMIT..STALL / 2).contains(&cut), "cut off after {cut:?}");
    let missing = stalled.read_to_cut().await;
    assert!(missing > LENGTH / 2, "it was cut: {missing} bytes are missing");
}

/// Where the fill goes to a file, who is behind reads from there, and holds nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stalls_holds_nobody_up_beside_a_disk() {
    let large = Generated::start(LENGTH).await;
    let folder = TempDir::new().unwrap();
    let dir = folder.path().display().to_string();
    let edge = Edge::standalone(site::plain(&large.origin)).with(&["--cache-dir", &dir]);
    let edge = edge.start().await;
    let Beside { started, longest, stalled } = beside(&large, &edge).await;
    assert!(longest < HELD_UP / 2, "held up for {longest:?}");
    if started.elapsed() < STALL / 2 {
        until("the other's connection to be gone", || async {
            (open_connections(&edge).await == 1).then_some(())
        })
        .await;
        // Not one byte is lost to it.
        stalled.finish().await;
    }
}
