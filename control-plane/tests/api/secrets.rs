//! Secrets: who may set them, that nobody reads one back but edges, what is on the disk, and the key.

use crate::harness::{Client, Reply, Server};
use serde_json::{Value, json};
use sqlx::{Connection, Row};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use verge_control::Control;

const CANARY: &str = "canary-of-a-secret";

async fn put(client: &Client, name: &str, value: &str) -> Reply {
    client.put(&format!("/v1/sites/shop/secrets/{name}"), json!({"value": value})).await
}

/// What an edge is given.
async fn given(client: &Client) -> Reply {
    client.get("/v1/edges/self/secrets/shop").await
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// The files of the store that hold a text; and how many there are.
fn holding(folder: &Path, text: &str) -> (Vec<PathBuf>, usize) {
    let mut all = Vec::new();
    files(folder, &mut all);
    let count = all.len();
    all.retain(|path| {
        let content = std::fs::read(path).unwrap();
        content.windows(text.len()).any(|window| window == text.as_bytes())
    });
    (all, count)
}

async fn database(server: &Server) -> sqlx::SqliteConnection {
    let path = server.config.data_dir.join("control.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    sqlx::SqliteConnection::connect_with(&options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_set_listed_and_removed_and_only_edges_are_given_it() {
    let server = Server::start().await;
    let client = server.role("a", &["deploy"]).await;
    client.deploy("shop", "one").await;
    let edge = server.edge("e").await;
    let mut feed = edge.feed("?since=0").await;
    feed.until_head().await;
    assert_eq!(given(&edge.client).await.json(), json!({"revision": 0, "secrets": {}}));

    let made = put(&client, "KEY", CANARY).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_eq!((&made["site"], &made["name"]), (&json!("shop"), &json!("KEY")));
    assert_eq!((&made["revision"], &made["set_by"]), (&json!(2), &json!("a [\"deploy\"]")));
    // The feed says whose, and no more.
    assert_eq!(feed.change().await, json!({"type": "secrets", "revision": 2, "site": "shop"}));
    let told = given(&edge.client).await;
    assert_eq!(told.fields["cache-control"], "no-store");
    assert_eq!(told.json(), json!({"revision": 2, "secrets": {"KEY": CANARY}}));

    assert_eq!(put(&client, "OTHER", "").await.status, 201, "an empty one is one");
    assert_eq!(put(&client, "KEY", "changed").await.status, 200, "it is replaced");
    let told = given(&edge.client).await.json();
    assert_eq!(told, json!({"revision": 4, "secrets": {"KEY": "changed", "OTHER": ""}}));

    let listed = client.get("/v1/sites/shop/secrets?limit=1").await.json();
    assert_eq!((&listed["items"][0]["name"], &listed["next"]), (&json!("KEY"), &json!("KEY")));
    let rest = client.get("/v1/sites/shop/secrets?cursor=KEY").await.json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert_eq!(rest["items"][0]["name"], "OTHER");
    for path in ["", "/KEY"] {
        let reply = client.get(&format!("/v1/sites/shop/secrets{path}")).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(!text.contains("changed") && !text.contains("value"), "{text}");
        assert!(path.is_empty() || reply.status == 405, "there is no way to read one back");
    }

    assert_eq!(client.delete("/v1/sites/shop/secrets/KEY").await.status, 204);
    assert_eq!(client.delete("/v1/sites/shop/secrets/KEY").await.status, 404);
    let told = given(&edge.client).await.json();
    assert_eq!(told, json!({"revision": 5, "secrets": {"OTHER": ""}}));
    // An edge that was away is told once, whatever happened meanwhile.
    let lines = server.edge("late").await.feed("?since=0").await.until_head().await;
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["hello", "site", "secrets"]);
    assert_eq!(lines[2]["revision"], 5);

    // Who did it, and no value.
    let admin = server.role("a", &["admin"]).await;
    let log = admin.get("/v1/audit").await;
    let rows = log.json()["items"].as_array().unwrap().clone();
    let line = |row: &Value| format!("{} {}", row["action"].as_str().unwrap(), row["target"]);
    let lines: Vec<_> = rows.iter().take(4).map(line).collect();
    let expected = [
        "secret.remove \"shop/KEY\"",
        "secret.put \"shop/KEY\"",
        "secret.put \"shop/OTHER\"",
        "secret.put \"shop/KEY\"",
    ];
    assert_eq!(lines, expected);
    let text = String::from_utf8_lossy(&log.body).into_owned();
    assert!(!text.contains(CANARY) && !text.contains("changed"), "{text}");

    // With its site they go, and none comes back with another of the name.
    assert_eq!(admin.delete("/v1/sites/shop").await.status, 200);
    assert_eq!(client.get("/v1/sites/shop/secrets").await.status, 404);
    assert_eq!(given(&edge.client).await.json()["secrets"], json!({}));
    client.deploy("shop", "two").await;
    assert_eq!(client.get("/v1/sites/shop/secrets").await.json()["items"], json!([]));
    assert_eq!(edge.client.get("/v1/edges/self/secrets/none").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_secret_is_refused_and_not_repeated() {
    let server = Server::start().await;
    let client = &server.operator;
    assert_eq!(put(client, "KEY", CANARY).await.status, 404, "there is no site");
    client.deploy("shop", "one").await;
    for name in ["1CANARY", "A-CANARY", "%C3%84CANARY", &format!("CANARY{}", "A".repeat(123))] {
        let reply = put(client, name, CANARY).await;
        assert_eq!(reply.status, 422, "{name}");
        assert!(reply.faults()[0].starts_with("name: "), "{reply:?}");
        assert!(!String::from_utf8_lossy(&reply.body).contains("CANARY"), "{reply:?}");
    }
    assert_eq!(put(client, "KEY", &"x".repeat(16 * 1024 + 1)).await.status, 422);
    assert_eq!(put(client, "KEY", &"x".repeat(16 * 1024)).await.status, 201);
    for body in [
        json!({"value": [CANARY]}).to_string(),
        json!({CANARY: 1}).to_string(),
        json!({"value": CANARY, "note": CANARY}).to_string(),
        json!(CANARY).to_string(),
        CANARY.to_owned(),
        String::new(),
    ] {
        let reply = client.send("PUT", "/v1/sites/shop/secrets/KEY", &[], body.clone()).await;
        assert_eq!(reply.status, 422, "{body}");
        assert!(reply.faults()[0].contains("{\"value\": \"…\"}"), "{reply:?}");
        assert!(!String::from_utf8_lossy(&reply.body).contains("canary"), "{reply:?}");
    }
    for n in 1..128 {
        assert_eq!(put(client, &format!("KEY{n}"), "x").await.status, 201);
    }
    let more = put(client, "MORE", "x").await;
    assert_eq!(
        (more.status.as_u16(), &more.json()["type"]),
        (409, &json!("/problems/limit-reached"))
    );
    assert_eq!(put(client, "KEY5", "y").await.status, 200, "one that is there is replaced");
    assert_eq!(client.delete("/v1/sites/shop/secrets/KEY6").await.status, 204);
    assert_eq!(put(client, "MORE", "x").await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_disk_they_are_sealed_and_a_restart_keeps_them() {
    let server = Server::start().await;
    let client = &server.operator;
    client.deploy("shop", "one").await;
    // With a key of idempotency as well, which would keep a hash of what is sent.
    let body = json!({"value": CANARY}).to_string();
    let key = [("idempotency-key", "k")];
    for status in [201, 200] {
        let path = "/v1/sites/shop/secrets/KEY";
        assert_eq!(client.send("PUT", path, &key, body.clone()).await.status, status);
    }
    let mut database = database(&server).await;
    let row = sqlx::query("SELECT count(*) FROM idempotency").fetch_one(&mut database).await;
    assert_eq!(row.unwrap().get::<i64, _>(0), 0);
    database.close().await.unwrap();
    let data = server.config.data_dir.clone();
    let (found, files) = holding(&data, CANARY);
    assert!(found.is_empty() && files >= 3, "{found:?} of {files}");
    let (found, _) = holding(&data, "secret.put");
    assert!(!found.is_empty(), "the control: what is not sealed is found");
    let key_file = data.join("secrets.key");
    let mode = std::fs::metadata(&key_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let server = server.restart().await;
    assert!(holding(&data, CANARY).0.is_empty());
    let edge = server.edge("e").await;
    assert_eq!(given(&edge.client).await.json()["secrets"], json!({"KEY": CANARY}));
    assert_eq!(
        server.operator.get("/v1/sites/shop/secrets").await.json()["items"][0]["name"],
        "KEY"
    );
    // An edge that is removed is given nothing any more.
    assert_eq!(server.operator.delete("/v1/edges/e").await.status, 204);
    assert_eq!(given(&edge.client).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_in_another_s_place_is_refused() {
    let server = Server::start().await;
    let client = &server.operator;
    for site in ["shop", "other"] {
        client.deploy(site, "one").await;
        for (name, value) in [("A", "one-canary"), ("B", "two-canary")] {
            let path = format!("/v1/sites/{site}/secrets/{name}");
            assert_eq!(client.put(&path, json!({"value": value})).await.status, 201);
        }
    }
    let edge = server.edge("e").await;
    let mut database = database(&server).await;
    let rows = sqlx::query("SELECT sealed FROM secrets WHERE site = 'shop' ORDER BY name");
    let rows = rows.fetch_all(&mut database).await.unwrap();
    let own: Vec<Vec<u8>> = rows.iter().map(|row| row.get(0)).collect();
    let row = sqlx::query("SELECT sealed FROM secrets WHERE site = 'other' AND name = 'A'");
    let foreign: Vec<u8> = row.fetch_one(&mut database).await.unwrap().get(0);
    let mut damaged = own[0].clone();
    *damaged.last_mut().unwrap() ^= 1;
    for wrong in [&own[1], &foreign, &damaged, &Vec::new()] {
        let query = "UPDATE secrets SET sealed = ? WHERE site = 'shop' AND name = 'A'";
        sqlx::query(query).bind(wrong).execute(&mut database).await.unwrap();
        let refused = given(&edge.client).await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(!String::from_utf8_lossy(&refused.body).contains("canary"));
        // The neighbour has his.
        let reply = edge.client.get("/v1/edges/self/secrets/other").await;
        assert_eq!(reply.json()["secrets"]["A"], "one-canary");
    }
    let query = "UPDATE secrets SET sealed = ? WHERE site = 'shop' AND name = 'A'";
    sqlx::query(query).bind(&own[0]).execute(&mut database).await.unwrap();
    assert_eq!(given(&edge.client).await.json()["secrets"]["A"], "one-canary");
    sqlx::query("UPDATE secrets SET key = 'none'").execute(&mut database).await.unwrap();
    assert_eq!(given(&edge.client).await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_key_it_does_not_start() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    assert_eq!(put(&server.operator, "KEY", CANARY).await.status, 201);
    let (folder, config, token) = server.stop().await;
    let key = config.data_dir.join("secrets.key");
    let right = std::fs::read(&key).unwrap();
    let refused = async || Control::open(config.clone()).await.err().unwrap().to_string();
    std::fs::remove_file(&key).unwrap();
    let told = refused().await;
    assert!(told.contains("secrets.key") && told.contains("put it back"), "{told}");
    assert!(!key.exists(), "no other is made in its place");
    std::fs::write(&key, [7; 32]).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let told = refused().await;
    assert!(told.contains("another key") || told.contains("sealed with the key"), "{told}");
    std::fs::write(&key, &right).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused().await.contains("chmod 600"));
    // Elsewhere, when the configuration says so.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let elsewhere = folder.path().join("elsewhere.key");
    std::fs::rename(&key, &elsewhere).unwrap();
    let mut config = config;
    config.secrets_key = Some(elsewhere);
    let server = Server::open(folder, config, token).await;
    let edge = server.edge("e").await;
    assert_eq!(given(&edge.client).await.json()["secrets"]["KEY"], CANARY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_before_gets_its_key_at_the_start() {
    let server = Server::start().await;
    server.operator.deploy("shop", "one").await;
    let (folder, config, token) = server.stop().await;
    let key = config.data_dir.join("secrets.key");
    std::fs::remove_file(&key).unwrap();
    let server = Server::open(folder, config, token).await;
    assert_eq!(std::fs::read(&key).unwrap().len(), 32);
    assert_eq!(put(&server.operator, "KEY", CANARY).await.status, 201);
    let server = server.restart().await;
    let edge = server.edge("e").await;
    assert_eq!(given(&edge.client).await.json()["secrets"]["KEY"], CANARY);
}
