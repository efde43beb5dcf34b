//! Bounds on bodies, connections and time; the shapes of what is sent; the audit log.

use crate::harness::{Client, Server, component, digest};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_its_limit_is_refused() {
    let server = Server::start().await;
    let large = "x".repeat(3 * 1024 * 1024);
    let reply = server.operator.send("POST", "/v1/purges", &[], large).await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.json()["type"], "/problems/too-large");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_problems_too() {
    let server = Server::start().await;
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("PATCH", "/v1/sites", 405),
        ("DELETE", "/v1/feed", 405),
    ] {
        let reply = server.operator.send(method, path, &[], "").await;
        assert_eq!(reply.status, status, "{method} {path}");
        let problem = reply.json();
        assert_eq!(problem["status"], status);
        assert!(problem["type"].as_str().unwrap().starts_with("/problems/"));
        assert_eq!(reply.fields["content-type"], "application/problem+json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_beyond_the_cap_waits_for_another_to_end() {
    let server = Server::start_with(|config| config.limits.connections = 2).await;
    let open = async || {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream
    };
    let answered = async |stream: &mut TcpStream| {
        let mut first = [0_u8; 12];
        let read = stream.read_exact(&mut first);
        tokio::time::timeout(Duration::from_millis(300), read).await.is_ok()
    };
    let (mut a, mut b, mut c) = (open().await, open().await, open().await);
    assert!(answered(&mut a).await && answered(&mut b).await);
    assert!(!answered(&mut c).await, "a third is not served");
    drop(a);
    assert!(answered(&mut c).await, "and is when there is room");
}

#[tokio::test(flavor = "multi_thread")]
async fn running_requests_end_before_it_stops() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let edge = server.edge("e").await;
    let mut feed = edge.feed("?since=0").await;
    feed.until_head().await;
    let client = server.operator.clone();
    let waiting =
        tokio::spawn(async move { client.purge("shop", "?wait=all&timeout=60s").await.status });
    assert_eq!(feed.change().await["type"], "purge");
    let started = std::time::Instant::now();
    let server = server.restart().await;
    assert!(started.elapsed() < Duration::from_secs(9), "it did not wait out the drain time");
    assert_eq!(waiting.await.unwrap(), 202, "answered with what was known");
    while feed.next().await.is_some() {}
    assert_eq!(server.operator.get("/v1/purges").await.json()["items"][0]["pending"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_answers_while_components_are_checked() {
    let server = Server::start().await;
    // Valid at its head and a megabyte of sections to read.
    let mut large = component("x");
    for _ in 0..200_000 {
        large.extend_from_slice(&[0, 2, 1, b'x']);
    }
    let path = format!("/v1/blobs/{}", digest(&large));
    let uploads: Vec<_> = (0..8)
        .map(|_| {
            let (client, path, large) = (server.operator.clone(), path.clone(), large.clone());
            tokio::spawn(async move { client.send("PUT", &path, &[], large).await.status })
        })
        .collect();
    for _ in 0..20 {
        let asked = server.operator.get("/v1/sites");
        let reply = tokio::time::timeout(Duration::from_secs(5), asked).await.expect("in time");
        assert_eq!(reply.status, 200);
    }
    for upload in uploads {
        assert!(upload.await.unwrap().is_success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_who_did_what_at_which_revision() {
    let server = Server::start().await;
    let admin = server.role("a", &["admin"]).await;
    admin.deploy("shop", "one").await;
    admin.purge("shop", "").await;
    admin.put("/v1/sites/shop/active", json!({"version": 9})).await;
    let log = admin.get("/v1/audit").await.json();
    let line = |row: &Value| {
        format!("{} {} {}", row["action"].as_str().unwrap(), row["revision"], row["actor"])
    };
    let lines: Vec<String> = log["items"].as_array().unwrap().iter().map(line).collect();
    let who = "\"a [\\\"admin\\\"]\"";
    let expected = [
        format!("purge 2 {who}"),
        format!("site.activate 1 {who}"),
        format!("version.upload 0 {who}"),
    ];
    assert_eq!(lines, expected, "newest first, and what was refused is not there");
    let page = admin.get("/v1/audit?limit=1").await.json();
    let rest = admin.get(&format!("/v1/audit?cursor={}", page["next"].as_str().unwrap())).await;
    assert_eq!(rest.json()["items"].as_array().unwrap().len(), 2);
}

/// The hour of now, since the Unix epoch.
fn hour() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 3_600
}

/// The description's schemas against what is really sent: every property that is sent is described,
/// and every one that is required is sent.
#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_shape_that_is_described() {
    let server = Server::start().await;
    let client: &Client = &server.operator;
    let schemas = client.get("/v1/openapi.json").await.json()["components"]["schemas"].clone();
    let check = |name: &str, value: &Value| {
        let schema = &schemas[name];
        let described = schema["properties"].as_object().unwrap_or_else(|| panic!("{name}"));
        for key in value.as_object().unwrap().keys() {
            assert!(described.contains_key(key), "{name}.{key} is sent and not described");
        }
        for required in schema["required"].as_array().unwrap() {
            let required = required.as_str().unwrap();
            assert!(value.get(required).is_some(), "{name}.{required} is not sent");
        }
    };
    check("Activated", &client.deploy("shop", "one").await);
    let edge = server.edge("e").await;
    check("Receipt", &client.purge("shop", "").await.json());
    check("EdgeReceipt", &client.purge("shop", "").await.json()["edges"][0]);
    let dry = json!({"site": "shop", "selectors": [{"tag": "t"}], "dry_run": true});
    let dry = client.post("/v1/purges", dry).await.json();
    check("Receipt", &dry);
    check("EdgeReceipt", &dry["edges"][0]);
    let path = "/v1/explanations?url=https%3A%2F%2Fshop.example%2F";
    let explained = client.get(path).await.json();
    check("Explanations", &explained);
    check("EdgeExplanation", &explained["edges"][0]);
    edge.report(
        json!({"applied": 1, "refusals": [{"revision": 1, "site": "shop", "reason": "x"}]}),
    )
    .await;
    let entry = "/v1/sites/shop/kv/entry?key=k";
    check("EntryInfo", &client.send("PUT", entry, &[], "v").await.json());
    check("EntryInfo", &client.get("/v1/sites/shop/kv").await.json()["items"][0]);
    check("KeyPage", &edge.client.get("/v1/edges/self/kv/shop").await.json());
    let entry = "/v1/edges/self/kv/shop/entry?key=k";
    check("Written", &edge.client.delete(entry).await.json());
    let preview = client.post("/v1/sites/shop/versions/1/previews", json!({})).await.json();
    check("PreviewCreated", &preview);
    let previews = client.get("/v1/sites/shop/previews").await.json();
    check("PreviewInfo", &previews["items"][0]);
    let value = json!({"value": "v"});
    check("NewSecret", &value);
    check("SecretInfo", &client.put("/v1/sites/shop/secrets/KEY", value).await.json());
    check("SiteSecrets", &edge.client.get("/v1/edges/self/secrets/shop").await.json());
    let blob = component("x");
    let path = format!("/v1/blobs/{}", digest(&blob));
    check("BlobInfo", &client.send("PUT", &path, &[], blob).await.json());
    check("Problem", &client.get("/v1/none").await.json());
    check("TenantInfo", &client.post("/v1/tenants", json!({"name": "t"})).await.json());
    let token = client.post("/v1/tokens", json!({"name": "n", "scopes": ["read"]})).await.json();
    check("TokenCreated", &token);
    check("Enrolled", &client.post("/v1/edges", json!({"name": "z"})).await.json());
    let item = json!({"site": "shop", "handler": "h", "version": 1, "hour": hour(),
        "sums": {"outcomes": {"responded": 1}, "cpu_us": 1}});
    let batch = json!({"epoch": "e", "batch": {"number": 1, "items": [item]}});
    check("UsageAck", &edge.client.post("/v1/edges/self/usage", batch).await.json());
    for (schema, path) in [
        ("UsageRow", "/v1/sites/shop/usage"),
        ("SecretInfo", "/v1/sites/shop/secrets"),
        ("SiteInfo", "/v1/sites"),
        ("VersionInfo", "/v1/sites/shop/versions"),
        ("EdgeInfo", "/v1/edges"),
        ("TokenInfo", "/v1/tokens"),
        ("AuditRow", "/v1/audit"),
    ] {
        check(schema, &client.get(path).await.json()["items"][0]);
    }
    check("Refusal", &client.get("/v1/edges").await.json()["items"][0]["refusals"][0]);
    check("SiteDocument", &client.get("/v1/sites/shop/versions/1").await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_at_a_time_and_no_store_twice() {
    let server = Server::start().await;
    let second = verge_control::Control::open(server.config.clone()).await;
    assert!(second.err().unwrap().to_string().contains("in use"));
    let again = verge_control::init(&server.config.data_dir).await;
    assert!(again.is_err());
    assert_eq!(server.operator.get("/readyz").await.status, 200);
    let empty = tempfile::tempdir().unwrap();
    let mut config = server.config.clone();
    config.data_dir = empty.path().to_owned();
    let missing = verge_control::Control::open(config).await;
    assert!(missing.err().unwrap().to_string().contains("verge-control init"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_cut() {
    let server = Server::start().await;
    let cut = async |start: &'static [u8]| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(start).await.unwrap();
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        tokio::time::timeout(Duration::from_secs(15), read).await.is_ok()
    };
    // A feed asked for something, and is left alone meanwhile.
    let edge = server.edge("e").await;
    let mut feed = edge.feed("?since=0").await;
    feed.until_head().await;
    // Nothing, half of the HTTP/2 preface, the whole of it, half of a header section.
    let cases = tokio::join!(
        cut(b""),
        cut(b"PRI * HT"),
        cut(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        cut(b"GET /healthz HTTP/1.1\r\nHost:"),
    );
    assert_eq!(cases, (true, true, true, true));
    server.operator.deploy("shop", "one").await;
    assert_eq!(feed.change().await["type"], "site");
}
