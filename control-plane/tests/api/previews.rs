//! Previews: their tokens, their limits, and what edges are told of them.

use crate::harness::{Client, Server, digest, document};
use serde_json::{Value, json};

async fn uploaded(client: &Client, marker: &str) -> u64 {
    let reply = client.post("/v1/sites/shop/versions", document("shop", marker)).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["version"].as_u64().unwrap()
}

async fn make(client: &Client, version: u64, body: Value) -> crate::harness::Reply {
    client.post(&format!("/v1/sites/shop/versions/{version}/previews"), body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_are_told_all_previews_of_a_site_under_a_revision() {
    let server = Server::start().await;
    let client = &server.operator;
    client.deploy("shop", "one").await;
    let version = uploaded(client, "two").await;
    let edge = server.edge("e").await;
    let mut feed = edge.feed("?since=0").await;
    feed.until_head().await;
    let made = make(client, version, json!({"ttl_seconds": 60})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("vpv_") && token.len() == 4 + 43);
    assert_eq!(made["field"], "verge-preview");
    assert_eq!(
        made["urls"],
        json!([format!("https://shop.example/__verge/preview?token={token}")])
    );
    assert_eq!(made["expires_ms"], made["created_ms"].as_u64().unwrap() + 60_000);
    let line = feed.change().await;
    assert_eq!((&line["type"], &line["site"]), (&json!("previews"), &json!("shop")));
    assert_eq!((&line["revision"], &made["revision"]), (&json!(2), &json!(2)));
    let told = &line["previews"][0];
    assert_eq!(told["token_sha256"], digest(token.as_bytes()));
    assert_eq!((&told["id"], &told["version"]), (&made["id"], &json!(version)));
    assert_eq!((&told["slot"], &told["document"]["site"]), (&json!(0), &json!("shop")));
    assert!(!line.to_string().contains(token), "the token itself is told to nobody");

    // One who was away is told of the site, and of its previews as they are.
    let second = make(client, 1, json!({})).await.json();
    let path = format!("/v1/sites/shop/previews/{}", made["id"].as_str().unwrap());
    assert_eq!(client.delete(&path).await.status, 204);
    assert_eq!(client.delete(&path).await.status, 404);
    let third = make(client, version, json!({})).await.json();
    let lines = server.edge("late").await.feed("?since=0").await.until_head().await;
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["hello", "site", "previews"]);
    let slots: Vec<_> = lines[2]["previews"].as_array().unwrap().iter().collect();
    assert_eq!((slots.len(), &slots[0]["slot"], &slots[1]["slot"]), (2, &json!(1), &json!(0)));
    assert_eq!((&slots[0]["id"], &slots[1]["id"]), (&second["id"], &third["id"]));

    // With the site they are gone, and after a restart as well.
    let server = server.restart().await;
    let client = &server.operator;
    let listed = client.get("/v1/sites/shop/previews").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains("vpv_"));
    assert_eq!(client.delete("/v1/sites/shop").await.status, 200);
    assert_eq!(client.get("/v1/sites/shop/previews").await.status, 404);
    let lines = server.edge("last").await.feed("?since=0").await.until_head().await;
    assert_eq!(lines.last().unwrap()["previews"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_previewed_is_refused() {
    let server = Server::start().await;
    let client = &server.operator;
    assert_eq!(make(client, 1, json!({})).await.status, 404);
    let version = uploaded(client, "one").await;
    let early = make(client, version, json!({})).await;
    assert_eq!(early.status, 409, "it has no host to be reached on: {early:?}");
    client.deploy("shop", "two").await;
    assert_eq!(make(client, 9, json!({})).await.status, 404);
    for wrong in [json!({"ttl_seconds": 0}), json!({"ttl_seconds": 604_801}), json!({"ttl": 5})] {
        assert_eq!(make(client, version, wrong.clone()).await.status, 422, "{wrong}");
    }
    for _ in 0..5 {
        assert_eq!(make(client, version, json!({})).await.status, 201);
    }
    let more = make(client, version, json!({})).await;
    assert_eq!(
        (more.status.as_u16(), more.json()["type"].clone()),
        (409, json!("/problems/limit-reached"))
    );
    // A secret is told once, whoever asks again.
    let first = client.get("/v1/sites/shop/previews").await.json()["items"][0]["id"].clone();
    let path = format!("/v1/sites/shop/previews/{}", first.as_str().unwrap());
    assert_eq!(client.delete(&path).await.status, 204);
    let path = format!("/v1/sites/shop/versions/{version}/previews");
    let key = [("idempotency-key", "k")];
    assert_eq!(client.send("POST", &path, &key, "{}").await.status, 201);
    assert_eq!(client.send("POST", &path, &key, "{}").await.json()["type"], "/problems/told-once");
}
