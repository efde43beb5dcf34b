//! Dry runs and explanations, with edges that speak the feed by hand.

use crate::harness::{Edge, Feed, Server};
use serde_json::{Value, json};

/// The next line that is a question.
async fn question(feed: &mut Feed) -> Value {
    let line = feed.change().await;
    assert_eq!(line["type"], "question", "{line}");
    line
}

async fn counted(edge: &Edge, question: &Value, matched: u64, samples: &[&str]) {
    let told = json!({"kind": "preview", "matched": matched, "samples": samples});
    let answer = json!({"applied": 1, "answers": [{"id": question["id"], "told": told}]});
    assert_eq!(edge.report(answer).await.status, 204);
}

fn dry(selectors: Value) -> Value {
    json!({"site": "shop", "selectors": selectors, "dry_run": true})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_asks_the_connected_edges_and_commits_nothing() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let (a, b, _away) = (server.edge("a").await, server.edge("b").await, server.edge("c").await);
    let (mut feed_a, mut feed_b) = (a.feed("?since=0").await, b.feed("?since=0").await);
    feed_a.until_head().await;
    feed_b.until_head().await;
    let client = server.operator.clone();
    let body = dry(json!([{"tag": "assets"}]));
    let asking = tokio::spawn(async move { client.post("/v1/purges?timeout=20s", body).await });
    let asked = question(&mut feed_a).await;
    assert_eq!(asked["asked"]["kind"], "preview");
    assert_eq!(asked["asked"]["selectors"], json!([{"tag": "assets"}]));
    assert_eq!(asked["revision"], Value::Null, "it has no place in history");
    assert_eq!(question(&mut feed_b).await, asked);
    counted(&a, &asked, 3, &["https://shop.example/x"]).await;
    assert!(!asking.is_finished(), "one edge is still to come");
    counted(&b, &asked, 4, &[]).await;
    let reply = asking.await.unwrap();
    assert_eq!(reply.status, 200);
    let receipt = reply.json();
    assert_eq!((receipt["dry_run"].clone(), receipt["matched"].clone()), (json!(true), json!(7)));
    assert_eq!(receipt["complete"], false, "c was not asked");
    assert_eq!((receipt["applied"].clone(), receipt["offline"].clone()), (json!(2), json!(1)));
    let edge = &receipt["edges"][0];
    assert_eq!((edge["edge"].clone(), edge["state"].clone()), (json!("a"), json!("counted")));
    assert_eq!(edge["samples"], json!(["https://shop.example/x"]));
    assert!(receipt["notes"].to_string().contains("edge c is offline"), "{receipt}");
    // No revision was used up, nothing is listed, and the next line of the feed is the next change.
    assert_eq!(receipt["revision"], 1);
    assert_eq!(server.operator.get("/v1/purges").await.json()["items"], json!([]));
    let purge = server.operator.purge("shop", "").await.json();
    assert_eq!(purge["revision"], 2);
    assert_eq!(feed_a.change().await["type"], "purge");
    // What is closed is not asked again of an edge that comes back.
    let mut again = a.feed("?since=1").await;
    assert_eq!(again.change().await["type"], "hello");
    assert_eq!(again.change().await["type"], "purge");
    assert_eq!(again.next().await.unwrap()["type"], "head");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_comes_while_it_is_open_is_asked_after_what_it_has_missed() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let a = server.edge("a").await;
    let client = server.operator.clone();
    let body = dry(json!([{"everything": true}]));
    let asking =
        tokio::spawn(async move { client.post("/v1/purges?wait=all&timeout=20s", body).await });
    let mut feed = a.feed("?since=0").await;
    let kinds = [feed.change().await["type"].clone(), feed.change().await["type"].clone()];
    assert_eq!(kinds, [json!("hello"), json!("site")]);
    let asked = question(&mut feed).await;
    counted(&a, &asked, 0, &[]).await;
    let receipt = asking.await.unwrap().json();
    assert_eq!(receipt["complete"], true, "{receipt}");
    assert!(receipt["notes"].to_string().contains("matches nothing on any edge"), "{receipt}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_edge_is_waited_for_a_little() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let none = server.operator.post("/v1/purges", dry(json!([{"tag": "t"}]))).await.json();
    assert_eq!((none["complete"].clone(), none["matched"].clone()), (json!(true), json!(0)));
    assert!(none["notes"].to_string().contains("no edge is enrolled"), "{none}");
    let a = server.edge("a").await;
    let mut feed = a.feed("?since=0").await;
    feed.until_head().await;
    let reply = server.operator.post("/v1/purges?timeout=50ms", dry(json!([{"tag": "t"}]))).await;
    assert_eq!(reply.status, 200);
    let receipt = reply.json();
    assert_eq!(receipt["edges"][0]["state"], "pending");
    assert!(receipt["notes"].to_string().contains("has not answered"), "{receipt}");
    let asked = question(&mut feed).await;
    // Too late: it is dropped, and does no harm.
    counted(&a, &asked, 9, &[]).await;
    // A refusal is told in the edge's words.
    let client = server.operator.clone();
    let asking =
        tokio::spawn(async move { client.post("/v1/purges", dry(json!([{"tag": "t"}]))).await });
    let asked = question(&mut feed).await;
    let told = json!({"kind": "refused", "reason": "busy with others"});
    a.report(json!({"applied": 1, "answers": [{"id": asked["id"], "told": told}]})).await;
    let receipt = asking.await.unwrap().json();
    assert!(receipt["notes"].to_string().contains("edge a does not answer: busy"), "{receipt}");
    for query in ["?wait=none", "?wait=some"] {
        let path = format!("/v1/purges{query}");
        let reply = server.operator.post(&path, dry(json!([{"tag": "t"}]))).await;
        assert_eq!(reply.status, 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_and_foreign_sites_are_as_for_a_purge() {
    let server = Server::start().await;
    let (a, b) = (server.role("a", &["purge"]).await, server.role("b", &["purge"]).await);
    server.role("a", &["admin"]).await.deploy("shop", "one").await;
    assert_eq!(a.post("/v1/purges", dry(json!([{"tag": "t"}]))).await.status, 200);
    let foreign = b.post("/v1/purges", dry(json!([{"tag": "t"}]))).await;
    let missing = json!({"site": "none", "selectors": [{"tag": "t"}], "dry_run": true});
    let missing = b.post("/v1/purges", missing).await;
    assert_eq!(
        (foreign.status, missing.status),
        (404.try_into().unwrap(), 404.try_into().unwrap())
    );
    assert_eq!(a.post("/v1/purges", dry(json!([{"tag": ""}]))).await.status, 422);
    let reader = server.role("a", &["read"]).await;
    assert_eq!(reader.post("/v1/purges", dry(json!([{"tag": "t"}]))).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_cannot_keep_many_questions_open() {
    let server = Server::start().await;
    let client = server.role("a", &["admin"]).await;
    client.deploy("shop", "one").await;
    let edge = server.edge("silent").await;
    let mut feed = edge.feed("?since=0").await;
    feed.until_head().await;
    let open: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            let body = dry(json!([{"tag": "t"}]));
            tokio::spawn(async move { client.post("/v1/purges?timeout=30s", body).await })
        })
        .collect();
    let mut asked = Vec::new();
    for _ in 0..8 {
        asked.push(question(&mut feed).await);
    }
    let over = client.post("/v1/purges", dry(json!([{"tag": "t"}]))).await;
    assert_eq!(over.status, 429);
    assert!(over.fields.contains_key("retry-after"));
    // Another tenant is not in its way, and an answer makes room.
    let other = server.role("b", &["admin"]).await;
    other.deploy("sb", "one").await;
    let body = json!({"site": "sb", "selectors": [{"tag": "t"}], "dry_run": true});
    assert_eq!(other.post("/v1/purges?timeout=10ms", body).await.status, 200);
    for question in &asked {
        counted(&edge, question, 1, &[]).await;
    }
    for open in open {
        assert_eq!(open.await.unwrap().status, 200);
    }
    let again = client.post("/v1/purges?timeout=10ms", dry(json!([{"tag": "t"}]))).await;
    assert_eq!(again.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_edge_explains_a_url_of_the_tenants_own() {
    let server = Server::start().await;
    let reader = server.role("a", &["read"]).await;
    server.role("a", &["admin"]).await.deploy("shop", "one").await;
    let (a, b) = (server.edge("a").await, server.edge("b").await);
    let _away = server.edge("c").await;
    let (mut feed_a, mut feed_b) = (a.feed("?since=0").await, b.feed("?since=0").await);
    feed_a.until_head().await;
    feed_b.until_head().await;
    let path = "/v1/explanations?url=https%3A%2F%2FSHOP.example%3A8443%2Fx%3Fy&field=accept:%20a/b&timeout=20s";
    let client = reader.clone();
    let asking = tokio::spawn(async move { client.get(path).await });
    let asked = question(&mut feed_a).await;
    assert_eq!(question(&mut feed_b).await, asked);
    let expected = json!({
        "kind": "explain", "site": "shop", "url": "https://SHOP.example:8443/x?y",
        "fields": [["accept", "a/b"]],
    });
    assert_eq!(asked["asked"], expected);
    let told = json!({"kind": "explained", "explanation": {"site": "shop", "n": 1}});
    a.report(json!({"applied": 1, "answers": [{"id": asked["id"], "told": told}]})).await;
    let told = json!({"kind": "from-the-future", "x": 1});
    b.report(json!({"applied": 1, "answers": [{"id": asked["id"], "told": told}]})).await;
    let reply = asking.await.unwrap();
    assert_eq!(reply.status, 200);
    let explained = reply.json();
    assert_eq!(
        (explained["site"].clone(), explained["complete"].clone()),
        (json!("shop"), json!(false))
    );
    let states: Vec<_> =
        explained["edges"].as_array().unwrap().iter().map(|edge| edge["state"].clone()).collect();
    assert_eq!(states, [json!("answered"), json!("refused"), json!("offline")]);
    assert_eq!(explained["edges"][0]["explanation"], json!({"site": "shop", "n": 1}));
    // Foreign is missing.
    let stranger = server.role("b", &["admin"]).await;
    for url in ["https%3A%2F%2Fshop.example%2F", "https%3A%2F%2Fnobody.example%2F"] {
        let path = format!("/v1/explanations?url={url}");
        assert_eq!(stranger.get(&path).await.status, 404, "{url}");
    }
    assert_eq!(reader.get("/v1/explanations?url=%2Fx").await.status, 400);
    assert_eq!(reader.get("/v1/explanations").await.status, 400);
}
