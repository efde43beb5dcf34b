//! A purge against a fill, over sockets: the origin is held before its header section, in the middle
//! of its content, and on a 304, or not at all; the purge and its receipt come in between; the next GET
//! is never older. More than 20,000 runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use bytes::Bytes;
use serde_json::json;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use verge_tests::origin::{Answer, Seen, streamed};
use verge_tests::wait::within;
use verge_tests::{Control, Edge, Gate, Http1, Origin, Reply, answer, site};

/// Runs of each kind.
const RUNS: usize = 3_500;
/// Runs at once, each on a path of its own.
const LANES: usize = 20;

/// Where the origin is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    BeforeHead,
    MidBody,
    OnNotModified,
}

/// What the origin does with the next request for a path.
#[derive(Clone)]
enum Next {
    /// Answers at once with this version.
    Now(u32),
    /// Answers with this version as it was when the request came, once the gate opens.
    Held(u32, Hold, Gate),
}

type Plan = Arc<Mutex<HashMap<String, Next>>>;

const KEPT: &str = "max-age=3600";

fn version(number: u32) -> String {
    format!("version {number:06}")
}

async fn obey(plan: Plan, seen: Seen) -> Answer {
    let next = plan.lock().unwrap().get(&seen.path).cloned();
    let conditional = seen.headers.contains_key("if-none-match");
    match next {
        None => answer(404, &[], "no plan"),
        Some(Next::Now(number)) => whole(number, KEPT),
        Some(Next::Held(number, Hold::BeforeHead, gate)) => {
            gate.pass().await;
            whole(number, KEPT)
        }
        Some(Next::Held(number, Hold::MidBody, gate)) => {
            let text = version(number);
            let (held, pieces) = streamed(200, &fields(number, KEPT));
            tokio::spawn(send_in_two(text, gate, pieces));
            held
        }
        Some(Next::Held(number, Hold::OnNotModified, gate)) => {
            gate.pass().await;
            if conditional {
                let etag = format!("\"{number}\"");
                answer(304, &[("ETag", &etag), ("Cache-Control", KEPT)], "")
            } else {
                whole(number, KEPT)
            }
        }
    }
}

async fn send_in_two(text: String, gate: Gate, pieces: mpsc::UnboundedSender<io::Result<Bytes>>) {
    let (first, second) = text.split_at(5);
    let _ = pieces.send(Ok(Bytes::copy_from_slice(first.as_bytes())));
    gate.pass().await;
    let _ = pieces.send(Ok(Bytes::copy_from_slice(second.as_bytes())));
}

fn fields(number: u32, cache: &'static str) -> [(&'static str, &'static str); 3] {
    // Leaked on purpose: a few bytes a run, in a process that ends with the test.
    let etag = Box::leak(format!("\"{number}\"").into_boxed_str());
    [("Cache-Control", cache), ("ETag", etag), ("Cache-Tag", "race")]
}

fn whole(number: u32, cache: &'static str) -> Answer {
    answer(200, &fields(number, cache), version(number))
}

/// The connections of one lane, kept from run to run.
struct Lane {
    /// The visitor whose request is held.
    held: Option<Http1>,
    client: Http1,
    admin: Http1,
}

impl Lane {
    async fn of(edge: &Edge) -> Lane {
        Lane {
            held: Some(edge.client().await),
            client: edge.client().await,
            admin: Http1::connect(edge.admin).await,
        }
    }

    async fn get(&mut self, path: &str) -> Reply {
        self.client.get("race.example", path).await
    }

    /// Purges; in force when this returns.
    async fn purge(&mut self, selector: &serde_json::Value, mode: &str) {
        let body = json!({ "selectors": [selector], "mode": mode }).to_string();
        let fields = [("Content-Type", "application/json")];
        let request = self.admin.request("POST", "localhost", "/purges", &fields, body.as_bytes());
        let receipt = request.await;
        assert!(receipt.status < 300 && receipt.json()["complete"] == true, "{receipt:?}");
    }
}

/// A selector of the path; all lanes share the tag, so that each one's purges hit the others' fills too.
fn selector(path: &str, number: u32) -> serde_json::Value {
    match number % 3 {
        0 => json!({ "url": format!("http://race.example{path}") }),
        1 => json!({ "prefix": path }),
        _ => json!({ "tag": "race" }),
    }
}

/// One run: a fill begins with version n, is held, the world moves on to n + 1, the purge is receipted,
/// the fill goes on; then nobody may see n.
async fn run(lane: &mut Lane, plan: &Plan, path: &str, hold: Hold, number: u32) {
    let set = |next: Next| plan.lock().unwrap().insert(path.to_owned(), next);
    if hold == Hold::OnNotModified {
        // Something stale to revalidate: stored, then soft-purged.
        set(Next::Now(number));
        assert_eq!(lane.get(path).await.text(), version(number));
        lane.purge(&json!({ "url": path }), "soft").await;
    }
    let gate = Gate::default();
    set(Next::Held(number, hold, gate.clone()));
    let mut held = lane.held.take().expect("the lane's connection");
    let held_path = path.to_owned();
    let first = tokio::spawn(async move {
        let reply = held.get("race.example", &held_path).await;
        (held, reply)
    });
    gate.reached().await;

    set(Next::Now(number + 1));
    lane.purge(&selector(path, number), "hard").await;

    // After the receipt, while the old fill is still on its way ...
    let next = lane.get(path).await;
    assert_eq!(next.text(), version(number + 1), "{hold:?} {path}: joined an old fill: {next:?}");
    gate.open_for_good();
    let (held, old) = within("the held request", first).await.unwrap();
    lane.held = Some(held);
    assert_eq!(old.status, 200, "{old:?}");
    // ... and once it has ended.
    for _ in 0..2 {
        let after = lane.get(path).await;
        assert_eq!(after.text(), version(number + 1), "{hold:?} {path}: old again: {after:?}");
    }
}

/// Runs everything in lanes, each in a task of its own.
async fn in_lanes<F, A>(edge: &Edge, work: F)
where
    F: Fn(Lane, usize) -> A,
    A: Future<Output = ()> + Send + 'static,
{
    let mut lanes = JoinSet::new();
    for number in 0..LANES {
        lanes.spawn(work(Lane::of(edge).await, number));
    }
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap();
    }
}

async fn race(hold: Hold) {
    let plan = Plan::default();
    let orders = Arc::clone(&plan);
    let origin = Origin::start(move |seen| obey(Arc::clone(&orders), seen)).await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    in_lanes(&edge, |mut lane, index| {
        let plan = Arc::clone(&plan);
        async move {
            for turn in 0..RUNS / LANES {
                let path = format!("/{index}/{}", turn % 7);
                let number = u32::try_from(turn * LANES + index).unwrap();
                run(&mut lane, &plan, &path, hold, number).await;
            }
        }
    })
    .await;
    assert!(origin.seen().len() >= RUNS * 2, "every run asked the origin again");
}

/// Nothing is held: two visitors and the purge go off together, and the origin takes a moment that
/// differs, so that the purge meets the fill anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_any_moment() {
    let versions: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let now = Arc::clone(&versions);
    let origin = Origin::start(move |seen| {
        let number = now.lock().unwrap().get(&seen.path).copied().unwrap_or(0);
        async move {
            for _ in 0..number % 13 {
                tokio::task::yield_now().await;
            }
            let (answer, pieces) = streamed(200, &fields(number, KEPT));
            tokio::spawn(async move {
                let text = version(number);
                for piece in text.as_bytes().chunks(5) {
                    let _ = pieces.send(Ok(Bytes::copy_from_slice(piece)));
                    for _ in 0..number % 7 {
                        tokio::task::yield_now().await;
                    }
                }
            });
            answer
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    in_lanes(&edge, |mut lane, index| {
        let versions = Arc::clone(&versions);
        async move {
            let mut other = lane.held.take().unwrap();
            for turn in 0..RUNS * 3 / LANES {
                let path = format!("/{index}/{}", turn % 7);
                let number = u32::try_from(turn + 1).unwrap();
                let selector = selector(&path, number);
                let visitors = async {
                    let first = lane.client.get("race.example", &path);
                    let second = other.get("race.example", &path);
                    tokio::join!(first, second)
                };
                let purge = async {
                    for _ in 0..number % 11 {
                        tokio::task::yield_now().await;
                    }
                    versions.lock().unwrap().insert(path.clone(), number);
                    let body = json!({ "selectors": [selector] }).to_string();
                    let fields = [("Content-Type", "application/json")];
                    lane.admin
                        .request("POST", "localhost", "/purges", &fields, body.as_bytes())
                        .await
                };
                let (_, receipt) = tokio::join!(visitors, purge);
                assert!(receipt.status < 300 && receipt.json()["complete"] == true, "{receipt:?}");
                for _ in 0..2 {
                    let after = lane.client.get("race.example", &path).await;
                    assert_eq!(after.text(), version(number), "{path}: old again: {after:?}");
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_before_the_head() {
    race(Hold::BeforeHead).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_in_mid_body() {
    race(Hold::MidBody).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_on_a_304() {
    race(Hold::OnNotModified).await;
}

/// The control of the guard: without the purge in between, the old version is what the next GET gets,
/// so the runs above would see it if purges did nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_purge_the_old_one_is_served() {
    let plan = Plan::default();
    let orders = Arc::clone(&plan);
    let origin = Origin::start(move |seen| obey(Arc::clone(&orders), seen)).await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let gate = Gate::default();
    plan.lock().unwrap().insert("/a".into(), Next::Held(1, Hold::BeforeHead, gate.clone()));
    let address = edge.http;
    let first =
        tokio::spawn(async move { Http1::connect(address).await.get("race.example", "/a").await });
    gate.reached().await;
    plan.lock().unwrap().insert("/a".into(), Next::Now(2));
    gate.open_for_good();
    first.await.unwrap();
    assert_eq!(edge.get("race.example", "/a").await.text(), version(1));
}

/// The same through the control plane: receipts of two edges, fills held on both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_on_two_edges_behind_a_control_plane() {
    let plan = Plan::default();
    let orders = Arc::clone(&plan);
    let origin = Origin::start(move |seen| obey(Arc::clone(&orders), seen)).await;
    let control = Control::start().await;
    let edges = [Edge::join(&control, "one").await, Edge::join(&control, "two").await];
    let routes = "[[routes]]\npath = \"/*\"\norigin = \"web\"\n";
    let text = site::for_domains("race", &["race.example"], &origin, routes);
    control.applied(control.deploy("race", &text).await, &["one", "two"]).await;
    for number in 0..60 {
        let path = format!("/{}", number % 5);
        let hold = if number % 2 == 0 { Hold::BeforeHead } else { Hold::MidBody };
        let gate = Gate::default();
        plan.lock().unwrap().insert(path.clone(), Next::Held(number, hold, gate.clone()));
        let mut held = JoinSet::new();
        for edge in &edges {
            let (address, path) = (edge.http, path.clone());
            held.spawn(async move {
                Http1::connect(address).await.get("race.example", &path).await.expect(200)
            });
            gate.reached().await;
        }
        plan.lock().unwrap().insert(path.clone(), Next::Now(number + 1));
        let body = json!({ "site": "race", "selectors": [{ "url": path }] });
        let receipt = control.purge("?wait=all&timeout=20s", &body).await.json();
        assert_eq!(receipt["complete"], true, "{receipt}");
        for edge in &edges {
            assert_eq!(edge.get("race.example", &path).await.text(), version(number + 1));
        }
        gate.open_for_good();
        while let Some(reply) = held.join_next().await {
            reply.unwrap();
        }
        for edge in &edges {
            assert_eq!(edge.get("race.example", &path).await.text(), version(number + 1));
        }
        // The next round on this path starts cold.
        control.purge("?wait=all&timeout=20s", &body).await.expect(201);
    }
}
