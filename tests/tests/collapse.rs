//! Many visitors on one cold key: one origin request, streamed to all; nobody waits for another's luck.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use verge_tests::wait::within;
use verge_tests::{Edge, Gate, Http1, Origin, Reply, answer, site, until};

const CLIENTS: usize = 1_000;
const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

/// Sends one request on each of `clients` connections, all of them connected first.
async fn crowd(edge: &Edge, clients: usize, path: &'static str) -> JoinSet<Reply> {
    let mut connected = Vec::with_capacity(clients);
    for _ in 0..clients {
        connected.push(Http1::connect(edge.http).await);
    }
    let mut requests = JoinSet::new();
    for mut client in connected {
        requests.spawn(async move { client.get("crowd.example", path).await });
    }
    requests
}

async fn answers(mut requests: JoinSet<Reply>) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some(reply) = within("a client of the crowd", requests.join_next()).await {
        replies.push(reply.unwrap());
    }
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_make_one_origin_request() {
    let gate = Gate::default();
    let held = gate.clone();
    let body = "x".repeat(100_000);
    let sent = body.clone();
    let origin = Origin::start(move |_| {
        let (held, sent) = (held.clone(), sent.clone());
        async move {
            held.pass().await;
            answer(200, FRESH, sent)
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let requests = crowd(&edge, CLIENTS, "/cold").await;
    gate.reached().await;
    gate.open_for_good();
    let replies = answers(requests).await;
    assert_eq!(replies.len(), CLIENTS);
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.text() == body));
    assert_eq!(origin.count("/cold"), 1);
}

/// The control of the guard: what may not be shared is not collapsed into one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_shared_is_fetched_for_each() {
    let next = Arc::new(AtomicUsize::new(0));
    let origin = Origin::start(move |_| {
        let number = next.fetch_add(1, Ordering::SeqCst);
        async move {
            answer(200, &[("Cache-Control", "private, no-store")], format!("for {number} alone"))
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let replies = answers(crowd(&edge, 200, "/mine").await).await;
    let mut bodies: Vec<_> = replies.iter().map(Reply::text).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 200, "no content crosses from one visitor to another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_not_served_one_after_another() {
    let origin = Origin::start(|_| async move {
        // The failure takes its time: in a row, 200 of them would take a minute.
        tokio::time::sleep(Duration::from_millis(300)).await;
        answer(500, &[("Cache-Control", "no-store")], "broken")
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let started = Instant::now();
    let replies = answers(crowd(&edge, 200, "/broken").await).await;
    assert!(replies.iter().all(|reply| reply.status == 500), "{:?}", replies[0]);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_outlives_the_visitor_that_began_it() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            answer(200, FRESH, "whole")
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut first = edge.client().await;
    first.send(b"GET /a HTTP/1.1\r\nHost: crowd.example\r\n\r\n").await.unwrap();
    gate.reached().await;
    drop(first);
    gate.open_for_good();
    until("the object to be stored", || async {
        edge.get("crowd.example", "/a").await.is_hit().then_some(())
    })
    .await;
    assert_eq!(origin.count("/a"), 1);
}
