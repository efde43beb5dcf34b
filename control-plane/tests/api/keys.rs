//! Idempotency keys: the same request twice is one change.

use crate::harness::{Server, document};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_purge_also_after_a_restart() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let body = json!({"site": "shop", "selectors": [{"tag": "t"}]}).to_string();
    let key = [("idempotency-key", "k1")];
    let first = server.operator.send("POST", "/v1/purges", &key, body.clone()).await.json();
    let again = server.operator.send("POST", "/v1/purges", &key, body.clone()).await.json();
    assert_eq!(first["id"], again["id"]);
    let server = server.restart().await;
    let later = server.operator.send("POST", "/v1/purges", &key, body.clone()).await.json();
    assert_eq!(first["id"], later["id"]);
    let other = [("idempotency-key", "k2")];
    let second = server.operator.send("POST", "/v1/purges", &other, body).await.json();
    assert_ne!(first["id"], second["id"]);
    let list = server.operator.get("/v1/purges?site=shop").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_with_one_key_are_one_purge() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let body = json!({"site": "shop", "selectors": [{"tag": "t"}]}).to_string();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (client, body) = (server.operator.clone(), body.clone());
            tokio::spawn(async move {
                let key = [("idempotency-key", "k")];
                client.send("POST", "/v1/purges", &key, body).await.json()["id"].clone()
            })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_bound_to_its_request_and_its_tenant() {
    let server = Server::start().await;
    let (a, b) = (server.role("a", &["admin"]).await, server.role("b", &["admin"]).await);
    let key = [("idempotency-key", "k")];
    let upload = async |client: &crate::harness::Client, site: &str, marker: &str| {
        let path = format!("/v1/sites/{site}/versions");
        client.send("POST", &path, &key, document(site, marker).to_string()).await
    };
    assert_eq!(upload(&a, "sa", "one").await.status, 201);
    assert_eq!(upload(&a, "sa", "one").await.status, 201, "answered as the first time");
    assert_eq!(upload(&a, "sa", "two").await.status, 422);
    assert_eq!(upload(&b, "sb", "one").await.status, 201);
    let wide = [("idempotency-key", "x".repeat(300))];
    let wide: Vec<(&str, &str)> = wide.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(a.send("POST", "/v1/sites/sa/versions", &wide, "{}").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_not_told_twice() {
    let server = Server::start().await;
    let body = json!({"name": "ci", "scopes": ["read"]}).to_string();
    let key = [("idempotency-key", "k")];
    let first = server.operator.send("POST", "/v1/tokens", &key, body.clone()).await;
    assert_eq!(first.status, 201);
    let again = server.operator.send("POST", "/v1/tokens", &key, body).await;
    assert_eq!(again.status, 409);
    let list = server.operator.get("/v1/tokens").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 2, "the first admin's and one more");
}
