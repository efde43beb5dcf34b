//! Live tails, with edges that speak the feed by hand.

use crate::harness::{Edge, Feed, Server, eventually};
use serde_json::{Value, json};

/// The next line of a tail that is no sign of life.
async fn told(tail: &mut Feed) -> Value {
    loop {
        let line = tail.next().await.expect("an open tail");
        if line["type"] != "alive" {
            return line;
        }
    }
}

fn event(path: &str) -> Value {
    json!({
        "at_ms": 1, "site": "shop", "host": "shop.example", "method": "GET", "path": path,
        "status": 200, "bytes": 2, "outcome": "responded", "wall_us": 3,
    })
}

async fn send(edge: &Edge, tail: &Value, dropped: u64, events: &[Value]) -> bool {
    let batch = json!({"tail": tail, "dropped": dropped, "events": events});
    let reply = edge.client.post("/v1/edges/self/events", batch).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["open"].as_bool().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_asks_the_edges_and_tells_what_they_say() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let (a, b) = (server.edge("a").await, server.edge("b").await);
    let mut feed = a.feed("?since=0").await;
    feed.until_head().await;
    let path = "/v1/sites/shop/tail?status=2xx&handler=h&sample=0.5";
    let mut tail = server.operator.stream(path).await;
    let first = told(&mut tail).await;
    assert_eq!(first, json!({"type": "open", "site": "shop", "edges": ["a"]}));
    let asked = feed.change().await;
    assert_eq!(
        (asked["type"].clone(), asked["revision"].clone()),
        (json!("question"), Value::Null)
    );
    let asked = asked["asked"].clone();
    let filter = json!({"handler": "h", "status": "2xx", "sample": 500_000});
    assert_eq!((&asked["kind"], &asked["site"]), (&json!("tail"), &json!("shop")));
    assert_eq!(asked["filter"], filter);
    // An edge that comes meanwhile is asked as well, after what it has missed.
    let mut late = b.feed("?since=0").await;
    let kinds = [late.change().await["type"].clone(), late.change().await["type"].clone()];
    assert_eq!(kinds, [json!("hello"), json!("site")]);
    assert_eq!(late.change().await["asked"], asked);

    assert!(send(&a, &asked["id"], 0, &[event("/x")]).await);
    let line = told(&mut tail).await;
    assert_eq!((&line["type"], &line["path"]), (&json!("request"), &json!("/x")));
    assert_eq!(line["edge"], "a", "whose credential it is says who it was");
    assert!(send(&b, &asked["id"], 7, &[]).await);
    let line = told(&mut tail).await;
    assert_eq!(line, json!({"type": "dropped", "place": "edge", "edge": "b", "count": 7}));

    // Where the reader is gone, the edges learn of it.
    drop(tail);
    eventually("the tail to be closed", async || {
        (!send(&a, &asked["id"], 0, &[]).await).then_some(())
    })
    .await;
    let unknown = a.client.post("/v1/edges/self/events", json!({"tail": 5})).await;
    assert_eq!(unknown.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_is_renewed_and_an_edge_that_cannot_says_so() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let edge = server.edge("old").await;
    let mut feed = edge.feed("?since=0").await;
    feed.until_head().await;
    let mut tail = server.operator.stream("/v1/sites/shop/tail").await;
    let first = feed.change().await;
    let refused = json!({"kind": "refused", "reason": "what is that?"});
    let answer = json!({"applied": 1, "answers": [{"id": first["id"], "told": refused}]});
    assert_eq!(edge.report(answer).await.status, 204);
    assert_eq!(told(&mut tail).await["type"], "open");
    let line = told(&mut tail).await;
    assert_eq!(line, json!({"type": "refused", "edge": "old", "reason": "what is that?"}));
    assert_eq!(feed.change().await, first, "it is asked again before the lease is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_tail_is_refused() {
    let server = Server::start().await;
    let a = server.role("a", &["read"]).await;
    let admin = server.role("a", &["admin"]).await;
    admin.deploy("shop", "one").await;
    assert_eq!(a.get("/v1/sites/none/tail").await.status, 404);
    assert_eq!(a.get("/v1/sites/shop/tail?status=oops").await.status, 400);
    let b = server.role("b", &["admin"]).await;
    assert_eq!(b.get("/v1/sites/shop/tail").await.status, 404);
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(a.stream("/v1/sites/shop/tail").await);
    }
    let reply = a.get("/v1/sites/shop/tail").await;
    assert_eq!(reply.status, 429, "{reply:?}");
    assert!(reply.fields.contains_key("retry-after"));
    open.pop();
    eventually("room for another", async || {
        let response = a.try_send("GET", "/v1/sites/shop/tail", &[], "").await.unwrap();
        (response.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_with_its_site_and_with_its_token() {
    let server = Server::start().await;
    let admin = server.role("a", &["admin"]).await;
    admin.deploy("shop", "one").await;
    admin.deploy("other", "one").await;
    let made = admin.post("/v1/tokens", json!({"name": "n", "scopes": ["read"]})).await.json();
    let reader = server.client(made["token"].as_str().unwrap());
    let mut by_token = reader.stream("/v1/sites/shop/tail").await;
    let mut of_site = admin.stream("/v1/sites/other/tail").await;
    let mut stays = admin.stream("/v1/sites/shop/tail").await;
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(admin.delete(&path).await.status, 204);
    assert_eq!(admin.delete("/v1/sites/other").await.status, 200);
    while by_token.next().await.is_some() {}
    while of_site.next().await.is_some() {}
    assert_eq!(told(&mut stays).await["type"], "open");
    assert_eq!(stays.next().await.unwrap(), json!({"type": "alive"}));
}
