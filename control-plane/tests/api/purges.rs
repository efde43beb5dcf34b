//! Purges and receipts, with edges that speak the feed by hand.

use crate::harness::{Server, eventually};
use serde_json::{Value, json};

fn edges(receipt: &Value) -> Vec<(String, String)> {
    let edge = |edge: &Value| {
        (edge["edge"].as_str().unwrap().to_owned(), edge["state"].as_str().unwrap().to_owned())
    };
    receipt["edges"].as_array().unwrap().iter().map(edge).collect()
}

fn notes(receipt: &Value) -> String {
    receipt["notes"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_all_ends_when_the_last_edge_has_applied_it() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let (a, b) = (server.edge("a").await, server.edge("b").await);
    let (mut feed_a, mut feed_b) = (a.feed("?since=0").await, b.feed("?since=0").await);
    feed_a.until_head().await;
    feed_b.until_head().await;
    let client = server.operator.clone();
    let purging = tokio::spawn(async move { client.purge("shop", "?wait=all&timeout=20s").await });
    let told = feed_a.change().await;
    assert_eq!(told["type"], "purge");
    let revision = told["revision"].as_u64().unwrap();
    assert_eq!(feed_b.change().await, told, "the same line for both");
    let report = |matched: u64| json!({"applied": revision, "purges": [{"revision": revision, "matched": matched, "took_us": 9}]});
    assert_eq!(a.report(report(3)).await.status, 204);
    let list = server.operator.get("/v1/purges").await.json();
    let half = &list["items"][0];
    assert_eq!((half["applied"].clone(), half["pending"].clone()), (json!(1), json!(1)));
    assert_eq!(half["complete"], false);
    assert!(!purging.is_finished(), "one edge is still to come");
    assert_eq!(b.report(report(4)).await.status, 204);
    let reply = purging.await.unwrap();
    assert_eq!(reply.status, 201);
    let receipt = reply.json();
    assert_eq!(receipt["complete"], true);
    assert_eq!(receipt["matched"], 7);
    assert_eq!(receipt["revision"], revision);
    assert!(receipt["p50_ms"].is_u64() && receipt["p99_ms"].is_u64());
    assert_eq!(edges(&receipt), [("a".into(), "applied".into()), ("b".into(), "applied".into())]);
    let id = receipt["id"].as_str().unwrap();
    assert_eq!(reply.fields["location"], format!("/v1/purges/{id}").as_str());
    assert_eq!(server.operator.get(&format!("/v1/purges/{id}")).await.json(), receipt);
    let server = server.restart().await;
    let kept = server.operator.get(&format!("/v1/purges/{id}")).await.json();
    assert_eq!(kept, receipt, "what was reported survives a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_away_shows_and_makes_up_for_it() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let (a, b) = (server.edge("a").await, server.edge("b").await);
    let mut feed = a.feed("?since=0").await;
    feed.until_head().await;
    let reply = server.operator.purge("shop", "?wait=all&timeout=100ms").await;
    assert_eq!(reply.status, 202);
    let receipt = reply.json();
    assert_eq!(edges(&receipt), [("a".into(), "pending".into()), ("b".into(), "offline".into())]);
    assert!(notes(&receipt).contains("edge b is offline"), "{receipt}");
    let path = format!("/v1/purges/{}", receipt["id"].as_str().unwrap());
    a.report(json!({"applied": 2})).await;
    let receipt = server.operator.get(&path).await.json();
    assert_eq!((receipt["applied"].clone(), receipt["offline"].clone()), (json!(1), json!(1)));
    // Half is not more than half.
    let half = server.operator.get(&format!("{path}?wait=quorum&timeout=50ms")).await.json();
    assert_eq!(half["complete"], false);
    let mut back = b.feed("?since=1").await;
    let lines = back.until_head().await;
    assert_eq!(lines[1]["type"], "purge");
    b.report(json!({"applied": 2, "purges": [{"revision": 2, "matched": 0, "took_us": 1}]})).await;
    let receipt = server.operator.get(&format!("{path}?wait=all&timeout=5s")).await.json();
    assert_eq!(receipt["complete"], true, "{receipt}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quorum_is_more_than_half() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let edges = [server.edge("a").await, server.edge("b").await, server.edge("c").await];
    let client = server.operator.clone();
    let purging =
        tokio::spawn(async move { client.purge("shop", "?wait=quorum&timeout=20s").await });
    eventually("the purge is committed", async || {
        let list = server.operator.get("/v1/purges").await.json();
        (!list["items"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    edges[0].report(json!({"applied": 2})).await;
    assert!(!purging.is_finished());
    edges[1].report(json!({"applied": 2})).await;
    let reply = purging.await.unwrap();
    assert_eq!(reply.status, 201);
    assert_eq!(reply.json()["complete"], false);
    assert_eq!(reply.json()["applied"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_matched_nothing_says_so() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let none = server.operator.purge("shop", "").await;
    assert_eq!(none.status, 201);
    assert!(notes(&none.json()).contains("no edge was enrolled"));
    let selectors = json!([{"host": "shop.exmple"}, {"url": "http://SHOP.example:80/a"}]);
    let body = json!({"site": "shop", "selectors": selectors});
    let slip = server.operator.post("/v1/purges", body).await.json();
    assert!(notes(&slip).contains("active version: shop.exmple\""), "{slip}");
    let edge = server.edge("a").await;
    let purge = server.operator.purge("shop", "").await.json();
    let revision = purge["revision"].clone();
    let applied = json!([{"revision": revision, "matched": 0, "took_us": 1}]);
    edge.report(json!({"applied": revision, "purges": applied})).await;
    let path = format!("/v1/purges/{}", purge["id"].as_str().unwrap());
    let receipt = server.operator.get(&path).await.json();
    assert!(notes(&receipt).contains("matched nothing on any edge"), "{receipt}");
    // A replay after a restart of the edge, with an empty cache, changes nothing.
    let again = json!([{"revision": revision, "matched": 5, "took_us": 1}]);
    edge.report(json!({"applied": 1})).await;
    edge.report(json!({"applied": revision, "purges": again})).await;
    assert_eq!(server.operator.get(&path).await.json(), receipt);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_edge_is_not_waited_for() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let _gone = server.edge("gone").await;
    let purge = server.operator.purge("shop", "").await.json();
    let path = format!("/v1/purges/{}", purge["id"].as_str().unwrap());
    assert_eq!(purge["complete"], false);
    assert_eq!(server.operator.delete("/v1/edges/gone").await.status, 204);
    let receipt = server.operator.get(&format!("{path}?wait=all")).await.json();
    assert_eq!(receipt["complete"], true);
    assert!(notes(&receipt).contains("edge gone was removed before"), "{receipt}");
    // One that is enrolled later was never told and is not asked.
    let _late = server.edge("late").await;
    assert_eq!(server.operator.get(&path).await.json(), receipt);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_and_wrong_parameters_are_named() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let purge = async |body: Value| server.operator.post("/v1/purges", body).await;
    let reply = purge(json!({"selectors": [{"tag": ""}, {"url": "nowhere at all"}]})).await;
    assert_eq!(reply.status, 422);
    let faults = reply.faults().join("\n");
    for place in ["selectors[0].tag", "selectors[1].url", "site"] {
        assert!(faults.contains(place), "{faults}");
    }
    assert_eq!(purge(json!({"site": "shop", "selectors": []})).await.status, 422);
    assert_eq!(purge(json!({"site": "shop", "selectors": [{"tga": "x"}]})).await.status, 422);
    assert_eq!(
        purge(json!({"site": "shop", "selectors": [{"tag": "x"}], "x": 1})).await.status,
        422
    );
    assert_eq!(purge(json!({"site": "none", "selectors": [{"tag": "x"}]})).await.status, 404);
    assert_eq!(server.operator.send("POST", "/v1/purges", &[], "{").await.status, 400);
    for query in ["?wait=some", "?wait=all&timeout=1y", "?timeout=9d"] {
        assert_eq!(server.operator.purge("shop", query).await.status, 400, "{query}");
    }
    assert_eq!(server.operator.get("/v1/purges?site=none").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_the_floodings_tenants_alone() {
    let server = Server::start_with(|config| {
        config.purge_rate.per_second = 1;
        config.purge_rate.burst = 5;
    })
    .await;
    let (a, b) = (server.role("a", &["admin"]).await, server.role("b", &["admin"]).await);
    a.deploy("sa", "one").await;
    b.deploy("sb", "one").await;
    let mut limited = None;
    for _ in 0..10 {
        let reply = a.purge("sa", "").await;
        if reply.status == 429 {
            limited = Some(reply);
        }
    }
    assert!(limited.expect("a limit").fields.contains_key("retry-after"));
    assert_eq!(b.purge("sb", "").await.status, 201);
}
