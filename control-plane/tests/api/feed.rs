//! The feed: order, replay, flush, and what an edge says back.

use crate::harness::{Server, document, eventually};
use serde_json::{Value, json};
use std::time::Duration;

fn kinds(lines: &[Value]) -> Vec<(String, u64)> {
    lines
        .iter()
        .map(|line| {
            let revision = line["revision"].as_u64().unwrap_or(0);
            (line["type"].as_str().unwrap().to_owned(), revision)
        })
        .collect()
}

fn expect(lines: &[Value], expected: &[(&str, u64)]) {
    let expected: Vec<(String, u64)> =
        expected.iter().map(|(kind, revision)| ((*kind).to_owned(), *revision)).collect();
    assert_eq!(kinds(lines), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_edge_is_told_everything_in_order_and_then_what_happens() {
    let server = Server::start().await;
    let client = &server.operator;
    client.deploy("one", "a").await;
    client.deploy("two", "a").await;
    client.purge("one", "").await;
    client.deploy("one", "b").await;
    client.post("/v1/sites/idle/versions", document("idle", "a")).await;
    client.delete("/v1/sites/two").await;
    let edge = server.edge("e").await;
    let mut feed = edge.feed("?since=0").await;
    let lines = feed.until_head().await;
    // The site "one" once, as it is; the removal with the purge that goes before it.
    expect(&lines, &[("hello", 0), ("purge", 3), ("site", 4), ("purge", 5), ("site_removed", 6)]);
    assert_eq!((lines[0]["head"].clone(), lines[0]["flush"].clone()), (json!(6), json!(false)));
    assert_eq!(lines[2]["document"]["routes"][0]["static"]["body"], "b");
    client.deploy("three", "a").await;
    client.purge("three", "").await;
    expect(&[feed.change().await, feed.change().await], &[("site", 7), ("purge", 8)]);
    // From the middle, and from the head; also after a restart, when nothing is in memory.
    let history = lines[0]["history"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        let mut feed = edge.feed(&format!("?since=5&history={history}")).await;
        let rest = feed.until_head().await;
        expect(&rest, &[("hello", 0), ("site_removed", 6), ("site", 7), ("purge", 8)]);
    }
    drop(feed);
    let mut edge = edge;
    let server = server.restart().await;
    edge.client.address = server.address;
    let mut feed = edge.feed(&format!("?since=5&history={history}")).await;
    let rest = feed.until_head().await;
    expect(&rest, &[("hello", 0), ("site_removed", 6), ("site", 7), ("purge", 8)]);
    assert_eq!(rest[0]["flush"], false);
    let mut feed = edge.feed(&format!("?since=8&history={history}")).await;
    expect(&feed.until_head().await, &[("hello", 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_of_another_history_or_ahead_of_it_flushes_and_starts_anew() {
    let server = Server::start().await;
    server.operator.deploy("one", "a").await;
    let edge = server.edge("e").await;
    for query in ["?since=1&history=his_other", "?since=99"] {
        let mut feed = edge.feed(query).await;
        let lines = feed.until_head().await;
        assert_eq!(lines[0]["flush"], true, "{query}");
        expect(&lines, &[("hello", 0), ("site", 1)]);
    }
    assert_eq!(edge.report(json!({"applied": 99})).await.status, 409);
    assert_eq!(edge.client.get("/v1/feed?since=x").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_for_longer_than_the_log_flushes() {
    let server = Server::start_with(|config| config.purge_log.entries = 3).await;
    server.operator.deploy("one", "a").await;
    let edge = server.edge("e").await;
    for _ in 0..10 {
        server.operator.purge("one", "").await;
    }
    // The log is trimmed when the control plane starts, and every ten minutes.
    let server = server.restart().await;
    let mut edge = edge;
    edge.client.address = server.address;
    let query = async |since: u64| {
        let mut feed = edge.feed(&format!("?since={since}")).await;
        feed.until_head().await
    };
    eventually("the log is trimmed", async || (query(2).await[0]["flush"] == true).then_some(()))
        .await;
    expect(&query(8).await, &[("hello", 0), ("purge", 9), ("purge", 10), ("purge", 11)]);
    assert_eq!(query(8).await[0]["flush"], false);
    assert_eq!(query(7).await[0]["flush"], true);
    let list = server.operator.get("/v1/purges").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_edge_has_only_so_many_feeds() {
    let server = Server::start().await;
    let edge = server.edge("e").await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(edge.feed("?since=0").await);
    }
    assert_eq!(edge.client.get("/v1/feed?since=0").await.status, 429);
    drop(open);
    eventually("the feeds are known to be closed", async || {
        let response = edge.client.try_send("GET", "/v1/feed?since=0", &[], "").await.unwrap();
        (response.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_feed_shows_that_it_lives() {
    let server = Server::start().await;
    let edge = server.edge("e").await;
    let mut feed = edge.feed("?since=0").await;
    feed.until_head().await;
    let sign = tokio::time::timeout(
        Duration::from_secs(verge_config::feed::HEARTBEAT_SECONDS),
        feed.next(),
    );
    assert_eq!(sign.await.expect("a heartbeat in time").unwrap()["type"], "head");
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_are_listed_with_their_lag_and_refusals() {
    let server = Server::start().await;
    let (a, b) = (server.role("a", &["admin"]).await, server.role("b", &["read"]).await);
    a.deploy("shop", "one").await;
    a.deploy("shop", "two").await;
    let edge = server.edge("e").await;
    let feed = edge.feed("?since=0").await;
    let refusal = json!({"revision": 2, "site": "shop", "reason": "no such component"});
    let report = json!({"applied": 1, "refusals": [refusal], "version": "9.9"});
    assert_eq!(edge.report(report).await.status, 204);
    let listed = a.get("/v1/edges").await.json()["items"][0].clone();
    assert_eq!(listed["id"], edge.id);
    assert_eq!(listed["connected"], true);
    assert_eq!((listed["applied"].clone(), listed["lag"].clone()), (json!(1), json!(1)));
    assert_eq!(
        (listed["version"].clone(), listed["refusals"].clone()),
        (json!("9.9"), json!([refusal]))
    );
    assert!(listed["last_seen_ms"].is_u64());
    let foreign = b.get("/v1/edges").await.json()["items"][0].clone();
    assert_eq!(foreign["refusals"], json!([]), "another tenant's refusals are its own");
    drop(feed);
    eventually("the edge is away", async || {
        (a.get("/v1/edges").await.json()["items"][0]["connected"] == false).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolling_again_replaces_the_credential_and_keeps_the_edge() {
    let server = Server::start().await;
    let first = server.edge("e").await;
    let second = server.edge("e").await;
    assert_eq!(first.id, second.id);
    assert_eq!(first.report(json!({"applied": 0})).await.status, 401);
    assert_eq!(second.report(json!({"applied": 0})).await.status, 204);
    assert_eq!(server.operator.get("/v1/edges").await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_edge_is_told_nothing_more() {
    let server = Server::start().await;
    let edge = server.edge("e").await;
    let mut feed = edge.feed("?since=0").await;
    feed.until_head().await;
    server.operator.delete("/v1/edges/e").await;
    server.operator.deploy("one", "a").await;
    while let Some(line) = feed.next().await {
        assert_eq!(line["type"], "head", "told after its removal");
    }
    assert_eq!(edge.client.get("/v1/feed?since=0").await.status, 401);
}
