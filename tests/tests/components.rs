//! Hostile components through the API and onto an edge: each is refused with a clear reason or taken,
//! the API and the neighbours stay responsive, and nothing of a compilation stays behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "../../wasm-handlers/tests/support/odd.rs"]
mod odd;
#[path = "../../wasm-handlers/tests/support/text.rs"]
mod text;

use odd::{bombs, odd};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use text::Acts;
use verge_tests::process::guest;
use verge_tests::wait::until_for;
use verge_tests::{Control, Edge, Http1, Origin, Reply, site, until};

/// Everything is the origin's.
const ALL: &str = "[[routes]]\npath = \"/*\"\norigin = \"web\"\n";

/// How many are uploaded.
const COUNT: u64 = 560;

fn good() -> Vec<u8> {
    Acts::new(&[("good", "(call $good (local.get $out))")]).component()
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

async fn put(control: &Control, bytes: &[u8]) -> Reply {
    let path = format!("/v1/blobs/{}", digest(bytes));
    control.send(&control.admin_token, "PUT", &path, "application/wasm", bytes).await
}

/// A site of these handlers, each on a route of its own.
fn with_handlers(name: &str, origin: &Origin, digests: &[String]) -> String {
    let mut rest = String::new();
    for (index, digest) in digests.iter().enumerate() {
        rest.push_str(&format!("[handlers.h{index}]\ncomponent = \"sha256:{digest}\"\n\n"));
    }
    for index in 0..digests.len() {
        rest.push_str(&format!("[[routes]]\npath = \"/{index:02}\"\nhandler = \"h{index}\"\n\n"));
    }
    rest.push_str("[[routes]]\npath = \"/*\"\norigin = \"web\"\n");
    site::for_domains(name, &[&format!("{name}.example")], origin, &rest)
}

/// Someone who asks for one thing again and again while the attack runs.
struct Witness {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<Duration>>,
}

impl Witness {
    fn start<F>(ask: impl Fn() -> F + Send + 'static) -> Witness
    where
        F: Future<Output = Reply> + Send,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut took = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let began = Instant::now();
                let reply = ask().await;
                assert_eq!(reply.status, 200, "{reply:?}");
                took.push(began.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            took
        });
        Witness { stop, task }
    }

    /// Stops it; it must have been answered soon each time.
    async fn stop(self, who: &str) {
        self.stop.store(true, Ordering::SeqCst);
        let mut took = self.task.await.unwrap();
        took.sort();
        let p99 = took[took.len() * 99 / 100];
        let (count, slowest) = (took.len(), took[took.len() - 1]);
        println!("{who}: {count} answers, p99 {p99:?}, the slowest after {slowest:?}");
        assert!(count > 20, "{who}: {count}");
        assert!(p99 < Duration::from_secs(1), "{who}: {p99:?}");
        assert!(slowest < Duration::from_secs(3), "{who}: {slowest:?}");
    }
}

/// The processes whose parent this one is, zombies too.
fn children(parent: u32) -> Vec<String> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{parent}/task")).unwrap().flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().map(str::to_owned));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_hostile_components_hold_up_neither_the_api_nor_an_edge() {
    let origin = Origin::always(200, &[("Cache-Control", "no-store")], "here").await;
    let control = Arc::new(Control::start().await);
    let edge = Edge::join(&control, "one").await;
    let good = good();
    put(&control, &good).await.expect(201);
    let neighbour = with_handlers("neighbour", &origin, &[digest(&good)]);
    let mut revision = control.deploy("neighbour", &neighbour).await;
    control.applied(revision, &["one"]).await;
    let (asked, address) = (Arc::clone(&control), edge.http);
    let api = Witness::start(move || {
        let control = Arc::clone(&asked);
        async move { control.call("GET", "/v1/sites", None).await }
    });
    let files = Witness::start(move || async move {
        Http1::connect(address).await.get("neighbour.example", "/file").await
    });
    let handler = Witness::start(move || async move {
        Http1::connect(address).await.get("neighbour.example", "/00").await
    });

    let began = Instant::now();
    let (mut taken, mut statuses) = (Vec::new(), BTreeMap::<u16, u32>::new());
    for number in 0..COUNT {
        let odd = odd(number, &good);
        let reply = put(&control, &odd.bytes).await;
        *statuses.entry(reply.status).or_default() += 1;
        match reply.status {
            200 | 201 => taken.push(digest(&odd.bytes)),
            422 => {
                assert_eq!(reply.field("content-type"), "application/problem+json");
                let faults = reply.json()["faults"].to_string();
                assert!((10..4_000).contains(&faults.len()), "{}: {faults}", odd.name);
            }
            _ => panic!("{}: {reply:?}", odd.name),
        }
    }
    println!("{COUNT} uploads in {:?}: {statuses:?}", began.elapsed());
    assert!(taken.len() >= 60 && statuses[&422] >= 200, "{statuses:?}");

    // What was taken has to be compiled: on an edge that serves meanwhile.
    let began = Instant::now();
    let mut sites = Vec::new();
    for (number, digests) in taken.chunks(20).enumerate() {
        let name = format!("odd-{number}");
        revision = control.deploy(&name, &with_handlers(&name, &origin, digests)).await;
        sites.push(name);
    }
    until_for(Duration::from_secs(120), "the edge to have tried all of them", || async {
        let list = control.call("GET", "/v1/edges", None).await.expect(200).json();
        (list["items"][0]["applied"].as_u64() >= Some(revision)).then_some(())
    })
    .await;
    println!("{} compiled in {:?}", taken.len(), began.elapsed());
    let list = control.call("GET", "/v1/edges", None).await.expect(200).json();
    let refusals = list["items"][0]["refusals"].as_array().unwrap().clone();
    for name in &sites {
        let refusal = refusals.iter().find(|refusal| refusal["site"] == **name);
        if let Some(refusal) = refusal {
            let reason = refusal["reason"].as_str().unwrap();
            assert!(reason.contains("handlers.h"), "{name}: {reason}");
        } else {
            assert_eq!(edge.get(&format!("{name}.example"), "/file").await.status, 200, "{name}");
        }
    }
    assert!(!refusals.is_empty(), "the control: some cannot be run");
    for (witness, who) in [(api, "the API"), (files, "a file"), (handler, "a handler")] {
        witness.stop(who).await;
    }
    until("the compiler's children to be gone", || async {
        children(edge.process.pid()).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_are_answered_soon_and_visitors_do_not_notice() {
    let origin = Origin::always(200, &[("Cache-Control", "no-store")], "here").await;
    let control = Arc::new(Control::start().await);
    let edge = Edge::join(&control, "one").await;
    let good = good();
    put(&control, &good).await.expect(201);
    let neighbour = with_handlers("neighbour", &origin, &[digest(&good)]);
    let revision = control.deploy("neighbour", &neighbour).await;
    control.applied(revision, &["one"]).await;
    let (asked, address) = (Arc::clone(&control), edge.http);
    let api = Witness::start(move || {
        let control = Arc::clone(&asked);
        async move { control.call("GET", "/v1/sites", None).await }
    });
    let handler = Witness::start(move || async move {
        Http1::connect(address).await.get("neighbour.example", "/00").await
    });
    let mut taken = Vec::new();
    for bomb in bombs(40) {
        let began = Instant::now();
        let reply = put(&control, &bomb.bytes).await;
        println!(
            "{}: {} KiB, {} after {:?}",
            bomb.name,
            bomb.bytes.len() >> 10,
            reply.status,
            began.elapsed()
        );
        assert!(matches!(reply.status, 201 | 422), "{}: {reply:?}", bomb.name);
        assert!(began.elapsed() < Duration::from_secs(5), "{}: {:?}", bomb.name, began.elapsed());
        if reply.status == 201 {
            taken.push(digest(&bomb.bytes));
        }
    }
    // What is too large is refused by its announced length, before it is sent.
    let path = format!("/v1/blobs/{}", "0".repeat(64));
    let mut client = Http1::connect(control.address).await;
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 999999999\r\n\r\n",
        control.admin_token
    );
    client.send(head.as_bytes()).await.unwrap();
    assert_eq!(client.read_reply(false).await.unwrap().status, 413);
    assert!(taken.len() >= 3, "the control: some are valid, and only compiling them tells");
    control.deploy("bomb", &with_handlers("bomb", &origin, &taken[..3])).await;
    // While the edge compiles, its visitors are served; then it goes on with what comes next.
    let revision =
        control.deploy("after", &with_handlers("after", &origin, &[digest(&good)])).await;
    until_for(Duration::from_secs(120), "the edge to go on", || async {
        let list = control.call("GET", "/v1/edges", None).await.expect(200).json();
        (list["items"][0]["applied"].as_u64() >= Some(revision)).then_some(())
    })
    .await;
    assert_eq!(edge.get("after.example", "/00").await.expect(200).text(), "good\n");
    edge.get("bomb.example", "/file").await.expect(404);
    for (witness, who) in [(api, "the API"), (handler, "a handler")] {
        witness.stop(who).await;
    }
    until("the compiler's children to be gone", || async {
        children(edge.process.pid()).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_do_not_wait_for_a_neighbours_component() {
    let origin = Origin::always(200, &[("Cache-Control", "max-age=3600")], "here").await;
    let control = Control::start().await;
    let edge = Edge::join(&control, "one").await;
    let text = site::for_domains("neighbour", &["neighbour.example"], &origin, ALL);
    let revision = control.deploy("neighbour", &text).await;
    control.applied(revision, &["one"]).await;
    edge.get("neighbour.example", "/a").await.expect(200);
    edge.get("neighbour.example", "/a").await.expect(200);
    assert_eq!(origin.count("/a"), 1);

    // A whole engine for scripts: seconds of work for a compiler.
    let script = control.upload(&guest("hello-js")).await;
    let slow = with_handlers("slow", &origin, &[script.replace("sha256:", "")]);
    let revision = control.deploy("slow", &slow).await;
    let body = json!({ "site": "neighbour", "selectors": [{ "everything": true }] });
    let receipt = control.purge("?wait=all&timeout=20s", &body).await.expect(201).json();
    assert_eq!(receipt["complete"], true, "{receipt}");
    assert_eq!(receipt["matched"], 1, "{receipt}");
    // The control: the component is still being compiled, and the purge is told to have its own place.
    let edges = control.call("GET", "/v1/edges", None).await.expect(200).json();
    assert!(edges["items"][0]["applied"].as_u64() < Some(revision), "{edges} {receipt}");
    edge.get("neighbour.example", "/a").await.expect(200);
    assert_eq!(origin.count("/a"), 2);

    // In the end both are in force, and the purge was counted once.
    until_for(Duration::from_secs(120), "the component to be in force", || async {
        let edges = control.call("GET", "/v1/edges", None).await.expect(200).json();
        (edges["items"][0]["applied"].as_u64() > Some(revision)).then_some(())
    })
    .await;
    let path = format!("/v1/purges/{}", receipt["id"].as_str().unwrap());
    let receipt = control.call("GET", &path, None).await.expect(200).json();
    assert_eq!((&receipt["matched"], &receipt["applied"]), (&json!(1), &json!(1)), "{receipt}");
    edge.get("neighbour.example", "/a").await.expect(200);
    assert_eq!(origin.count("/a"), 2, "the purge is applied once");
}
