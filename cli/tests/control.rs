//! Every command against a real control plane over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{World, guest, plain_site};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use verge_config::process::edge::{EdgeConfig, Standalone};

#[tokio::test(flavor = "multi_thread")]
async fn login_stores_what_later_commands_use() {
    let world = World::start().await;
    world.verge_bare(&["sites"], "").await.expect(4);
    let wrong = ["login", "--control", &world.url, "--token", "vrg_wrong"];
    world.verge_bare(&wrong, "").await.expect(4);
    assert!(!world.credentials().exists(), "a refused token is not stored");

    let ran = world.verge_bare(&["login", "--control", &world.url], &world.admin_token).await;
    let ran = ran.expect(0);
    assert!(!ran.out.contains(&world.admin_token) && !ran.err.contains(&world.admin_token));
    let mode = std::fs::metadata(world.credentials()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(world.verge_bare(&["sites", "--json"], "").await.expect(0).json(), json!([]));

    // The stored token stays with its own control plane.
    let elsewhere = ["sites", "--control", "http://127.0.0.1:9"];
    let ran = world.verge_bare(&elsewhere, "").await.expect(4);
    assert!(ran.err.contains("the stored token is for"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy_versions_activate_rollback() {
    let world = World::start().await;
    world.write("verge.toml", &plain_site("shop", "one"));
    let first = world.verge(&["deploy", "--json"]).await.expect(0).json();
    assert_eq!((&first["version"], &first["active"]), (&json!(1), &json!(true)));
    assert!(first["revision"].as_u64().unwrap() > 0);

    // The same again is the same version.
    let again = world.verge(&["deploy", "--json"]).await.expect(0).json();
    assert_eq!(again["version"], 1);

    world.write("verge.toml", &plain_site("shop", "two"));
    let second = world.verge(&["deploy", "--no-activate", "--json"]).await.expect(0).json();
    assert_eq!((&second["version"], &second["active"]), (&json!(2), &json!(false)));
    let versions = world.verge(&["versions", "shop", "--json"]).await.expect(0).json();
    let seen: Vec<_> = versions
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (v["version"].as_u64().unwrap(), v["active"].as_bool().unwrap()))
        .collect();
    assert_eq!(seen, [(2, false), (1, true)]);
    assert_eq!(
        world.verge(&["versions", "shop", "--limit", "1", "--json"]).await.json()[0]["version"],
        2
    );

    let activated = world.verge(&["activate", "shop", "2", "--json"]).await.expect(0).json();
    assert_eq!((&activated["version"], &activated["previous"]), (&json!(2), &json!(1)));
    let back = world.verge(&["rollback", "shop", "--json"]).await.expect(0).json();
    assert_eq!(back["version"], 1);
    let table = world.verge(&["sites"]).await.expect(0).out;
    assert!(table.contains("SITE") && table.contains("shop.example"), "{table}");

    // What is not there, or another's.
    world.verge(&["activate", "shop", "9"]).await.expect(4);
    world.verge(&["versions", "nope"]).await.expect(4);
    world.verge(&["activate", "shop"]).await.expect(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_uploaded_once() {
    let world = World::start().await;
    let component = guest("hello-rust");
    let site = format!(
        "site = 'fn'\ndomains = ['fn.example']\n[handlers.h]\ncomponent = '{}'\n\
         [[routes]]\npath = '/*'\nhandler = 'h'\n",
        component.display()
    );
    world.write("verge.toml", &site);
    let first = world.verge(&["deploy", "--json"]).await.expect(0).json();
    assert_eq!(first["uploaded"].as_array().unwrap().len(), 1);
    let site = site.replace("fn.example", "fn2.example");
    world.write("verge.toml", &site);
    let second = world.verge(&["deploy", "--json"]).await.expect(0).json();
    assert_eq!(second["uploaded"], json!([]));
    assert_eq!(second["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_told_before_anything_is_sent() {
    let world = World::start().await;
    world.write(
        "verge.toml",
        "site = 'shop'\ndomains = ['*']\nextra = 1\n[origins.web]\nurls = ['ftp://x']\n\
         [handlers.h]\ncomponent = 'none.wasm'\n[[routes]]\npath = '/*'\norigin = 'wb'\n",
    );
    let ran = world.verge(&["deploy"]).await.expect(5);
    for place in ["extra: ", "origins.web.urls[0]: ", "did you mean \"web\"?"] {
        assert!(ran.err.contains(place), "{place} in {}", ran.err);
    }
    world.write("verge.toml", &plain_site("shop", "x").replace("shop.example", "*"));
    let ran = world.verge(&["deploy", "--json"]).await.expect(5);
    assert_eq!(ran.out, "");
    let problem: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(problem["faults"][0]["path"], "domains[0]");
    assert_eq!(world.verge(&["sites", "--json"]).await.json(), json!([]));

    // A component that only the control plane can tell is none.
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    bytes.extend([0xff; 64]);
    std::fs::write(world.folder.path().join("none.wasm"), bytes).unwrap();
    let site = "site = 'shop'\ndomains = ['shop.example']\n[handlers.h]\n\
                component = 'none.wasm'\n[[routes]]\npath = '/*'\nhandler = 'h'\n";
    world.write("verge.toml", site);
    world.verge(&["deploy"]).await.expect(5);
    assert_eq!(world.verge(&["sites", "--json"]).await.json(), json!([]));
}

/// A POST to the control plane with another credential than the admin's.
async fn post(world: &World, token: &str, path: &str, body: &Value) -> Value {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("{}{path}", world.url)).bearer_auth(token);
    let reply = request.body(body.to_string()).send().await.unwrap();
    assert!(reply.status().is_success(), "{reply:?}");
    serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_handlers_have_used() {
    let world = World::start().await;
    for site in ["shop", "blog"] {
        world.write("verge.toml", &plain_site(site, "one"));
        world.verge(&["deploy"]).await.expect(0);
    }
    assert!(world.verge(&["usage"]).await.expect(0).out.contains("(none)"));
    world.verge(&["usage", "nope"]).await.expect(4);
    world.verge(&["usage", "--by", "week"]).await.expect(2);
    world.verge(&["usage", "--since", "yesterday"]).await.expect(2);

    let edge = post(&world, &world.admin_token, "/v1/edges", &json!({ "name": "e" })).await;
    let hour = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 3_600;
    let item = |site: &str, version: u64| {
        json!({ "site": site, "handler": "greet", "version": version, "hour": hour, "sums": {
            "outcomes": { "responded": 40, "trapped": 2 }, "cpu_us": 1_500_000, "bytes_out": 2_048 } })
    };
    let items = [item("shop", 1), item("shop", 2), item("blog", 7)];
    let batch = json!({ "epoch": "e1", "batch": { "number": 1, "items": items } });
    let token = edge["token"].as_str().unwrap();
    let told = post(&world, token, "/v1/edges/self/usage", &batch).await;
    assert_eq!(told["applied"], 1);

    let all = world.verge(&["usage", "--json"]).await.expect(0).json();
    let sites: Vec<_> = all.as_array().unwrap().iter().map(|row| &row["site"]).collect();
    assert_eq!(sites, ["blog", "shop", "shop"]);
    assert_eq!((&all[0]["requests"], &all[0]["outcomes"]["trapped"]), (&json!(42), &json!(2)));
    let table = world.verge(&["usage", "shop", "--by", "day", "--since", "2d"]).await.expect(0).out;
    assert!(table.contains("FROM (UTC)") && !table.contains("blog"), "{table}");
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[1..8], ["shop", "greet", "1", "42", "2", "1.5", "s"], "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn purges_and_their_receipts() {
    let world = World::start().await;
    world.write("verge.toml", &plain_site("shop", "one"));
    world.verge(&["deploy"]).await.expect(0);
    // Nobody is there to wait for.
    let receipt = world.verge(&["purge", "--tag", "a", "--wait", "--json"]).await.expect(0).json();
    assert_eq!((&receipt["complete"], &receipt["site"]), (&json!(true), &json!("shop")));

    // An edge that is away.
    let join = world.verge(&["tokens", "create", "edges", "--scope", "join"]).await.expect(0);
    let enrolled = raw_post(&world, "/v1/edges", join.out.trim(), &json!({ "name": "e1" })).await;
    assert!(enrolled.contains("201"), "{enrolled}");
    let purge = ["purge", "--everything", "--soft", "--wait", "--timeout", "100ms"];
    let ran = world.verge(&purge).await.expect(3);
    for word in ["soft purge", "e1", "offline", "not complete"] {
        assert!(ran.out.contains(word), "{word} in {}", ran.out);
    }
    // Not waited for, it is done when it is committed.
    world.verge(&["purge", "--everything"]).await.expect(0);
    let edges = world.verge(&["edges", "--json"]).await.expect(0).json();
    assert_eq!((&edges[0]["name"], &edges[0]["connected"]), (&json!("e1"), &json!(false)));
    assert!(world.verge(&["edges"]).await.expect(0).out.contains("offline"));

    world.verge(&["purge", "--tag", "a b"]).await.expect(5);
    world.verge(&["purge", "--site", "nope", "--everything"]).await.expect(4);
    world.verge(&["purge"]).await.expect(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_told_once_and_end() {
    let world = World::start().await;
    world.write("verge.toml", &plain_site("shop", "one"));
    world.verge(&["deploy"]).await.expect(0);
    let made = world.verge(&["tokens", "create", "ci", "--scope", "purge"]).await.expect(0);
    let token = made.out.trim().to_owned();
    assert!(token.starts_with("vrg_") && !token.contains(char::is_whitespace), "{made:?}");
    assert!(!made.err.contains(&token));
    world.verge_as(&token, &["purge", "--tag", "a"]).await.expect(0);
    world.verge_as(&token, &["deploy"]).await.expect(4);

    let tokens = world.verge(&["tokens", "list", "--json"]).await.expect(0);
    assert!(!tokens.out.contains(&token));
    let tokens = tokens.json();
    let ci = tokens.as_array().unwrap().iter().find(|t| t["name"] == "ci").unwrap();
    let id = ci["id"].as_str().unwrap();
    world.verge(&["tokens", "revoke", id]).await.expect(0);
    world.verge_as(&token, &["purge", "--tag", "a"]).await.expect(4);
    world.verge(&["tokens", "revoke", id]).await.expect(4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_is_not_there_is_a_failure() {
    let world = World::start().await;
    // A port that nobody listens on: bound once, and let go.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let arguments = ["sites", "--control", &url, "--token", "vrg_x"];
    let ran = world.verge_bare(&arguments, "").await.expect(1);
    assert!(ran.err.contains("cannot connect"), "{ran:?}");
    assert!(!ran.err.contains("vrg_x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_told() {
    let world = World::start().await;
    world.verge(&["tail", "nope"]).await.expect(4);
    let ran = world.verge(&["tail"]).await.expect(2);
    assert!(ran.err.contains("there is no verge.toml here"), "{ran:?}");
    world.verge(&["tail", "nope", "--status", "9xx"]).await.expect(2);
    world.write("verge.toml", &plain_site("shop", "one"));
    world.verge(&["tail"]).await.expect(4);
    world.verge(&["deploy"]).await.expect(0);
    world.verge(&["tail", "--sample", "2"]).await.expect(1);
    let told = world.verge(&["tail", "--count", "0", "--json"]).await.expect(0);
    assert_eq!(told.out, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_asks_the_admin_listener() {
    let world = World::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    let answered = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        let body = r#"{"site": "shop", "cache": {"status": "fresh"}}"#;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let url = "https://shop.example/a?b=c";
    let ran = world.verge_bare(&["explain", url, "--admin", &admin], "").await.expect(0);
    assert_eq!(ran.out, "cache:\n  status: fresh\nsite: shop\n");
    let asked = answered.await.unwrap();
    let wanted = "GET /explain?url=https%3A%2F%2Fshop.example%2Fa%3Fb%3Dc HTTP/1.1";
    assert!(asked.starts_with(wanted), "{asked}");
    assert!(!asked.to_lowercase().contains("authorization"), "no token goes to an edge");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_edge_is_purged_through_its_admin_listener() {
    let world = World::start().await;
    let site = world.write("alone/verge.toml", &plain_site("shop", "one"));
    let config = EdgeConfig::standalone(Standalone {
        site,
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        admin: Some("127.0.0.1:0".parse().unwrap()),
        ..Standalone::default()
    });
    let options = verge_edge::Options::of_this_program(None, false).unwrap();
    let shutdown = CancellationToken::new();
    let (send, bound) = tokio::sync::oneshot::channel();
    let edge = tokio::spawn(verge_edge::run_with(
        config.unwrap(),
        options,
        shutdown.clone(),
        move |addresses| send.send(addresses.clone()).unwrap(),
    ));
    let admin = format!("http://{}", bound.await.unwrap().admin.unwrap());
    let purge = ["purge", "--everything", "--admin", &admin, "--json"];
    let receipt = world.verge_bare(&purge, "").await.expect(0).json();
    assert_eq!((&receipt["site"], &receipt["complete"]), (&json!("shop"), &json!(true)));
    // It knows its own site and no other.
    let other = ["purge", "--site", "other", "--everything", "--admin", &admin];
    assert_ne!(world.verge_bare(&other, "").await.code, 0);
    shutdown.cancel();
    edge.await.unwrap().unwrap();
}

/// A call that the command line has no command for; the status line and the body.
async fn raw_post(world: &World, path: &str, token: &str, body: &Value) -> String {
    let address = world.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_put_listed_and_deleted_and_never_shown() {
    let world = World::start().await;
    world.write("verge.toml", &plain_site("shop", "one"));
    let put = async |arguments: &[&str], input: &str| {
        let mut all = vec!["secrets", "put"];
        all.extend(arguments);
        all.extend(["--control", &world.url, "--token", &world.admin_token]);
        let ran = world.verge_bare(&all, input).await;
        assert!(!ran.out.contains("canary") && !ran.err.contains("canary"), "{ran:?}");
        ran
    };
    put(&["KEY"], "canary\n").await.expect(4);
    world.verge(&["deploy"]).await.expect(0);
    // From standard input, said or not; and from a file. The site is the one here, or another.
    let set = put(&["KEY", "--json"], "canary\n").await.expect(0).json();
    assert_eq!((&set["site"], &set["name"]), (&json!("shop"), &json!("KEY")));
    assert!(set["revision"].as_u64().unwrap() > 0 && set.get("value").is_none());
    let said = put(&["KEY", "--file", "-", "--site", "shop"], "canary-two").await.expect(0).out;
    assert!(said.contains("shop: KEY is set"), "{said}");
    world.write("key.pem", "canary\nof two lines\n");
    put(&["PEM", "--file", "key.pem"], "").await.expect(0);
    let listed = world.verge(&["secrets", "list", "--json"]).await.expect(0).json();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["KEY", "PEM"]);
    assert!(!listed.to_string().contains("canary") && listed[0].get("value").is_none());
    let table = world.verge(&["secrets", "list"]).await.expect(0).out;
    assert!(table.contains("SECRET") && table.contains("first admin"), "{table}");

    // What an edge is given is what was written: without the end of a single line, with those of a file.
    let edge = post(&world, &world.admin_token, "/v1/edges", &json!({ "name": "e" })).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.get(format!("{}/v1/edges/self/secrets/shop", world.url));
    let reply = request.bearer_auth(edge["token"].as_str().unwrap()).send().await.unwrap();
    let given: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
    let expected = json!({ "KEY": "canary-two", "PEM": "canary\nof two lines\n" });
    assert_eq!(given["secrets"], expected);

    let deleted = world.verge(&["secrets", "delete", "KEY", "--json"]).await.expect(0).json();
    assert_eq!(deleted, json!({ "site": "shop", "deleted": "KEY" }));
    world.verge(&["secrets", "delete", "KEY"]).await.expect(4);

    // A value on the command line is not taken, and what is no secret is told before anything is sent.
    world.verge(&["secrets", "put", "KEY", "value"]).await.expect(2);
    put(&["KEY"], "").await.expect(2);
    put(&["1KEY"], "canary").await.expect(5);
    put(&["KEY"], &"canary".repeat(3_000)).await.expect(5);
    put(&["KEY", "--file", "none"], "").await.expect(1);
    let reader = world.verge(&["tokens", "create", "r", "--scope", "read"]).await.expect(0).out;
    world.verge_as(reader.trim(), &["secrets", "list"]).await.expect(0);
    world.verge_as(reader.trim(), &["secrets", "delete", "PEM"]).await.expect(4);
    // Nor does one go over a network that others read.
    let far = ["secrets", "put", "KEY", "--control", "http://control.example", "--token", "vrg_x"];
    let ran = world.verge_bare(&far, "").await.expect(2);
    assert!(ran.err.contains("https"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_key_value_store() {
    let world = World::start().await;
    world.write("verge.toml", &plain_site("shop", "one"));
    world.verge(&["deploy"]).await.expect(0);
    assert!(world.verge(&["kv", "list"]).await.expect(0).out.contains("(none)"));
    let written = world.verge(&["kv", "put", "a/../b", "one", "--json"]).await.expect(0).json();
    assert_eq!((&written["key"], &written["bytes"]), (&json!("a/../b"), &json!(3)));
    assert!(written["revision"].as_u64().unwrap() > 1);
    assert_eq!(world.verge(&["kv", "get", "a/../b"]).await.expect(0).out, "one");

    // From a file and from standard input, byte by byte; the latest counts.
    let bytes: Vec<u8> = (0..=255).collect();
    std::fs::write(world.folder.path().join("value"), &bytes).unwrap();
    world.verge(&["kv", "put", "bytes", "--file", "value"]).await.expect(0);
    let told = world.verge(&["kv", "get", "bytes", "--json"]).await.expect(0).json();
    assert_eq!(told["value_hex"], hex::encode(&bytes));
    let login = ["--control", &world.url, "--token", &world.admin_token];
    let put = [&["kv", "put", "a/../b", "-", "--site", "shop"][..], &login].concat();
    world.verge_bare(&put, "two\n").await.expect(0);
    let told = world.verge(&["kv", "get", "a/../b", "--json"]).await.expect(0).json();
    assert_eq!(told, json!({"site": "shop", "key": "a/../b", "value": "two\n"}));
    world.verge(&["kv", "put", "empty", ""]).await.expect(0);
    assert_eq!(world.verge(&["kv", "get", "empty"]).await.expect(0).out, "");

    let listed = world.verge(&["kv", "list", "--json"]).await.expect(0).json();
    let keys: Vec<_> = listed.as_array().unwrap().iter().map(|entry| &entry["key"]).collect();
    assert_eq!(keys, ["a/../b", "bytes", "empty"]);
    let table = world.verge(&["kv", "list", "--prefix", "by"]).await.expect(0).out;
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["bytes", "256"], "{table}");
    assert_eq!(table.lines().count(), 2, "{table}");

    assert!(world.verge(&["kv", "delete", "bytes"]).await.expect(0).out.contains("deleted"));
    world.verge(&["kv", "delete", "bytes"]).await.expect(4);
    world.verge(&["kv", "get", "bytes"]).await.expect(4);
    world.verge(&["kv", "get", "empty", "--site", "nope"]).await.expect(4);
    world.verge(&["kv", "put", "", "v"]).await.expect(5);
    world.verge(&["kv", "put", "k"]).await.expect(2);
    world.verge(&["kv", "put", "k", "v", "--file", "value"]).await.expect(2);
    let reader = world.verge(&["tokens", "create", "r", "--scope", "read"]).await.expect(0);
    let reader = reader.out.trim().to_owned();
    world.verge_as(&reader, &["kv", "get", "empty"]).await.expect(0);
    world.verge_as(&reader, &["kv", "put", "empty", "v"]).await.expect(4);
}
