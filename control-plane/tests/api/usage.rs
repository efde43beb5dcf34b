//! Usage: batches that come twice, late or from a stranger, and the sums that tenants read.

use crate::harness::{Edge, Reply, Server};
use serde_json::{Value, json};
use std::time::UNIX_EPOCH;

const HOUR_MS: u64 = 3_600_000;

fn now_ms() -> u64 {
    u64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

fn this_hour() -> u64 {
    now_ms() / HOUR_MS
}

fn item(site: &str, version: u64, hour: u64, count: u64) -> Value {
    json!({"site": site, "handler": "greet", "version": version, "hour": hour, "sums": {
        "outcomes": {"responded": count, "trapped": 1}, "cpu_us": count * 10, "wall_us": count * 20,
        "memory_kib_ms": count * 30, "fetches": count, "bytes_in": count * 2, "bytes_out": count * 3}})
}

async fn send(edge: &Edge, epoch: &str, number: u64, items: Value) -> Reply {
    let body = json!({"epoch": epoch, "batch": {"number": number, "items": items}});
    edge.client.post("/v1/edges/self/usage", body).await
}

async fn sent(edge: &Edge, epoch: &str, number: u64, items: Value) -> u64 {
    let reply = send(edge, epoch, number, items).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["applied"].as_u64().unwrap()
}

async fn rows(server: &Server, query: &str) -> Vec<Value> {
    let reply = server.operator.get(&format!("/v1/sites/shop/usage{query}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_counts_once_however_often_it_comes() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let edge = server.edge("a").await;
    let hour = this_hour();
    let asking = json!({"epoch": "e1"});
    let asked = edge.client.post("/v1/edges/self/usage", asking.clone()).await.json();
    assert_eq!(asked["applied"], 0);
    assert_eq!(sent(&edge, "e1", 1, json!([item("shop", 1, hour, 4)])).await, 1);
    for _ in 0..3 {
        assert_eq!(sent(&edge, "e1", 1, json!([item("shop", 1, hour, 4)])).await, 1);
    }
    assert_eq!(sent(&edge, "e1", 2, json!([item("shop", 1, hour, 6)])).await, 2);
    // An old one, long under way; and what it would have been after a restart of both sides.
    assert_eq!(sent(&edge, "e1", 1, json!([item("shop", 1, hour, 1_000)])).await, 2);
    let server = server.restart().await;
    let edge = Edge { client: server.client(&edge.client.token), id: edge.id };
    assert_eq!(sent(&edge, "e1", 2, json!([item("shop", 1, hour, 1_000)])).await, 2);
    // A gap is no reason to wait; another epoch has numbers of its own.
    assert_eq!(sent(&edge, "e1", 9, json!([item("shop", 1, hour, 100)])).await, 9);
    assert_eq!(sent(&edge, "e2", 1, json!([item("shop", 1, hour, 1)])).await, 1);
    let rows = rows(&server, "").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!(row["outcomes"], json!({"responded": 111, "trapped": 4}));
    assert_eq!((row["requests"].as_u64(), row["cpu_us"].as_u64()), (Some(115), Some(1_110)));
    assert_eq!(
        (row["wall_us"].as_u64(), row["memory_kib_ms"].as_u64()),
        (Some(2_220), Some(3_330))
    );
    assert_eq!((row["bytes_in"].as_u64(), row["bytes_out"].as_u64()), (Some(222), Some(333)));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_copies_of_one_batch_at_once_count_once() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let edge = server.edge("a").await;
    let hour = this_hour();
    let copies: Vec<_> =
        (0..16).map(|n| send(&edge, "e1", n % 4 + 1, json!([item("shop", 1, hour, 1)]))).collect();
    for reply in futures::future::join_all(copies).await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    // At most once each: one that came after a later one is not counted.
    let counted = rows(&server, "").await[0]["cpu_us"].as_u64().unwrap() / 10;
    assert!((1..=4).contains(&counted), "{counted}");
    assert_eq!(sent(&edge, "e1", 5, json!([item("shop", 1, hour, 1)])).await, 5);
    assert_eq!(rows(&server, "").await[0]["cpu_us"].as_u64().unwrap() / 10, counted + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_by_hour_day_and_in_total() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let edge = server.edge("a").await;
    // The same hour of three days.
    let hour = this_hour();
    let items: Vec<Value> = (0..3)
        .flat_map(|day| [item("shop", 1, hour - day * 24, 1), item("shop", 2, hour - day * 24, 5)])
        .collect();
    sent(&edge, "e1", 1, json!(items)).await;
    assert_eq!(rows(&server, "").await.len(), 2, "of the last day, by version");
    let from = now_ms() - 4 * 24 * HOUR_MS;
    let total = rows(&server, &format!("?from={from}&by=total")).await;
    let cpu: Vec<_> = total.iter().map(|row| row["cpu_us"].as_u64().unwrap()).collect();
    assert_eq!(cpu, [30, 150]);
    let days = rows(&server, &format!("?from={from}&by=day")).await;
    assert_eq!(days.len(), 6);
    for row in &days {
        let (begin, end) = (row["from_ms"].as_u64().unwrap(), row["to_ms"].as_u64().unwrap());
        assert!(begin < end && end - begin <= 24 * HOUR_MS, "{row}");
    }
    let hours = rows(&server, &format!("?from={from}&by=hour")).await;
    assert_eq!(hours[0]["from_ms"].as_u64().unwrap(), (hour - 48) * HOUR_MS, "the oldest first");
    // Page by page it is the same.
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/sites/shop/usage?from={from}&by=hour&limit=4{cursor}");
        let page = server.operator.get(&path).await.json();
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={}", next.replace('/', "%2F"));
    }
    assert_eq!(paged, hours);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_foreign_is_not_there_and_what_is_wrong_is_named() {
    let server = Server::start().await;
    let owner = server.role("a", &["read"]).await;
    server.role("a", &["admin"]).await.deploy("shop", "one").await;
    let stranger = server.role("b", &["admin"]).await;
    let foreign = stranger.get("/v1/sites/shop/usage").await;
    let missing = stranger.get("/v1/sites/shap/usage").await;
    assert_eq!(foreign.status, 404);
    assert_eq!(missing.status, 404);
    assert_eq!(
        foreign.json()["detail"].as_str().unwrap().replace("shop", "shap"),
        missing.json()["detail"].as_str().unwrap()
    );
    for query in ["by=week", "from=x", "from=9&to=9", "from=0", "from=-1", "cursor=1", "limit=x"] {
        let reply = owner.get(&format!("/v1/sites/shop/usage?{query}")).await;
        assert_eq!(reply.status, 400, "{query}: {reply:?}");
        assert_eq!(reply.fields["content-type"], "application/problem+json");
    }
    assert_eq!(owner.get("/v1/sites/shop/usage").await.json()["items"], json!([]));
    // A token is no edge, and an edge reads nothing.
    let body = json!({"epoch": "e", "batch": {"number": 1, "items": []}});
    assert_eq!(owner.post("/v1/edges/self/usage", body.clone()).await.status, 403);
    let edge = server.edge("a").await;
    assert_eq!(edge.client.get("/v1/sites/shop/usage").await.status, 403);
    for (body, status) in [
        (json!({"epoch": "no epoch"}), 400),
        (json!({"epoch": "e", "batch": {"number": 0, "items": []}}), 400),
        (json!({"epoch": "e", "batch": {"number": 1, "items": [{"site": "shop"}]}}), 422),
        (json!({"epoch": "e", "batch": {"number": -1, "items": []}}), 422),
    ] {
        let reply = edge.client.post("/v1/edges/self/usage", body.clone()).await;
        assert_eq!(reply.status, status, "{body}");
    }
    let mut negative = item("shop", 1, this_hour(), 1);
    negative["sums"]["cpu_us"] = json!(-5);
    assert_eq!(send(&edge, "e", 1, json!([negative])).await.status, 422);
    assert_eq!(owner.get("/v1/sites/shop/usage").await.json()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_number_overflows() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let edge = server.edge("a").await;
    let mut huge = item("shop", 1, this_hour(), 1);
    for name in ["cpu_us", "wall_us", "memory_kib_ms", "fetches", "bytes_in", "bytes_out"] {
        huge["sums"][name] = json!(u64::MAX);
    }
    huge["sums"]["outcomes"]["responded"] = json!(u64::MAX);
    for number in 1..=3 {
        sent(&edge, "e1", number, json!([huge, huge])).await;
    }
    let rows = rows(&server, "?by=day").await;
    for row in &rows {
        assert!(row["cpu_us"].as_u64().unwrap() >= i64::MAX as u64, "{row}");
        assert!(row["requests"].as_u64().unwrap() >= i64::MAX as u64, "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_site_s_usage_stays_its_tenant_s() {
    let server = Server::start().await;
    let admin = server.role("a", &["admin"]).await;
    admin.deploy("shop", "one").await;
    let edge = server.edge("a").await;
    sent(&edge, "e1", 1, json!([item("shop", 1, this_hour(), 2)])).await;
    assert_eq!(admin.delete("/v1/sites/shop").await.status, 200);
    // What was still under way when it was removed counts, too.
    sent(&edge, "e1", 2, json!([item("shop", 1, this_hour(), 3)])).await;
    let rows = admin.get("/v1/sites/shop/usage").await.json()["items"].clone();
    assert_eq!(rows[0]["cpu_us"], 50, "{rows}");
}
