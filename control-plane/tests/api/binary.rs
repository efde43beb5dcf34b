//! The binary as an operator runs it: `init`, `--check`, the log, signals (attack P3).

use crate::harness::{Client, component, digest};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_verge-control");

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn init(folder: &Path) -> String {
    let data = folder.join("data");
    let made = run(&["init", "--data", data.to_str().unwrap()]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    text(&made.stdout)
}

async fn address(port_file: &Path) -> SocketAddr {
    let port: u16 = crate::harness::eventually("the port file", async || {
        std::fs::read_to_string(port_file).ok()?.trim().parse().ok()
    })
    .await;
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn init_prints_one_token_and_refuses_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let printed = init(folder.path());
    let token = printed.strip_suffix('\n').unwrap();
    assert!(token.starts_with("vrg_") && !token.contains(char::is_whitespace));
    let data = folder.path().join("data");
    let again = run(&["init", "--data", data.to_str().unwrap()]);
    assert!(!again.status.success());
    assert_eq!(text(&again.stdout), "");
    assert!(text(&again.stderr).contains("already"));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else may read the store");
}

#[test]
fn check_names_every_fault_and_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("control.toml");
    std::fs::write(&file, "listen = 'here'\nsurprise = 1\n").unwrap();
    let bad = run(&["--config", file.to_str().unwrap(), "--check"]);
    assert!(!bad.status.success());
    let faults = text(&bad.stderr);
    for place in ["listen", "surprise", "data_dir"] {
        assert!(faults.contains(place), "{place} in {faults}");
    }
    std::fs::write(&file, "data_dir = '/nowhere'\n").unwrap();
    assert!(run(&["--config", file.to_str().unwrap(), "--check"]).status.success());
    assert!(!run(&["--config", "/nowhere/control.toml", "--check"]).status.success());
    let missing = run(&["--data", folder.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert!(text(&missing.stderr).contains("verge-control init"), "{}", text(&missing.stderr));
}

/// Puts a secret, also in wrong ways, and lets an edge fetch it.
async fn secrets(client: &Client, edge: &Client, value: &str) {
    let path = "/v1/sites/shop/secrets/KEY";
    assert_eq!(client.put(path, json!({"value": value})).await.status, 201);
    let given = edge.get("/v1/edges/self/secrets/shop").await.json();
    assert_eq!(given["secrets"]["KEY"], value);
    for wrong in [json!({"value": [value]}), json!({value: value}), json!(value)] {
        assert_eq!(client.put(path, wrong).await.status, 422);
    }
    let misnamed = format!("/v1/sites/shop/secrets/-{value}");
    assert_eq!(client.put(&misnamed, json!({"value": value})).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_holds_no_secret_and_a_signal_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let token = init(folder.path()).trim().to_owned();
    let (port_file, log) = (folder.path().join("port"), folder.path().join("log"));
    let file = folder.path().join("control.toml");
    let data = folder.path().join("data");
    std::fs::write(&file, format!("listen = '127.0.0.1:0'\ndata_dir = '{}'\n", data.display()))
        .unwrap();
    let mut child = Command::new(BINARY)
        .args(["--log-format", "json", "--config"])
        .arg(&file)
        .arg("--port-file")
        .arg(&port_file)
        .env("VERGE_LOG", "debug")
        .stderr(Stdio::from(std::fs::File::create(&log).unwrap()))
        .spawn()
        .unwrap();
    let address = address(&port_file).await;
    let client = Client::new(address, &token);
    // Canaries wherever a request can hold one.
    let canary = "vrg_canary0123456789";
    assert_eq!(Client::new(address, canary).get("/v1/sites").await.status, 401);
    client.get(&format!("/v1/sites/{canary}?token={canary}")).await;
    client.send("POST", &format!("/{canary}"), &[("x-token", canary)], canary).await;
    client.send("GET", "/v1/sites", &[("authorization", canary)], "").await;
    let over_http2 = Client::new(address, canary).over_http2();
    assert_eq!(over_http2.get("/v1/sites").await.status, 401);
    assert_eq!(client.over_http2().get("/v1/sites").await.status, 200);
    let made = client.post("/v1/tokens", json!({"name": "n", "scopes": ["read"]})).await.json();
    let made = made["token"].as_str().unwrap().to_owned();
    assert_eq!(Client::new(address, &made).get("/v1/sites").await.status, 200);
    client.deploy("shop", "one").await;
    let blob = component("x");
    client.send("PUT", &format!("/v1/blobs/{}", digest(&blob)), &[], blob).await;
    let edge = client.post("/v1/edges", json!({"name": "e"})).await.json();
    let secret = edge["token"].as_str().unwrap().to_owned();
    let edge = crate::harness::Edge { client: Client::new(address, &secret), id: String::new() };
    let value = "canary-of-a-secret";
    secrets(&client, &edge.client, value).await;
    let mut feed = edge.feed("?since=0").await;
    feed.until_head().await;
    let metrics = text(&client.get("/metrics").await.body);

    let started = Instant::now();
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).unwrap();
    let status = crate::harness::eventually("the end", async || child.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
    assert!(started.elapsed() < Duration::from_secs(10), "an open feed does not hold it up");
    while feed.next().await.is_some() {}

    let log = std::fs::read_to_string(&log).unwrap();
    let mut listening = false;
    for line in log.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let message = line["fields"]["message"].as_str().unwrap_or_default();
        listening |= message == format!("listening on http://{address}");
    }
    assert!(listening);
    assert!(log.contains("/v1/sites"), "requests are logged");
    for held in [&log, &metrics] {
        for secret in [token.as_str(), made.as_str(), secret.as_str(), canary, value] {
            assert!(!held.contains(secret), "a secret shows");
        }
    }
}

/// What a kill cannot show (the page cache survives it): that the disk has it before the caller does
/// (attack F6). Needs `strace`; without it there is nothing to see.
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_has_it_before_the_caller_does() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: there is no strace here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let token = init(folder.path()).trim().to_owned();
    let (port_file, trace) = (folder.path().join("port"), folder.path().join("trace"));
    let traced = Command::new("strace")
        // -D: the process started is the control plane itself, and the signal reaches it.
        .args(["-D", "-f", "-e", "trace=fsync,fdatasync,write,writev,sendto", "-o"])
        .arg(&trace)
        .arg(BINARY)
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path().join("data"))
        .arg("--port-file")
        .arg(&port_file)
        .stderr(Stdio::null())
        .spawn();
    let mut traced = traced.unwrap();
    let client = Client::new(address(&port_file).await, &token);
    client.deploy("shop", "one").await;
    client.purge("shop", "").await;
    let blob = component("x");
    client.send("PUT", &format!("/v1/blobs/{}", digest(&blob)), &[], blob).await;
    client.post("/v1/tokens", json!({"name": "n", "scopes": ["read"]})).await;
    client.get("/v1/sites").await;
    kill_process(Pid::from_child(&traced), Signal::TERM).unwrap();
    traced.wait().unwrap();
    let lines = crate::harness::eventually("the whole trace", async || {
        let lines = std::fs::read_to_string(&trace).ok()?;
        lines.trim_end().ends_with("+++ exited with 0 +++").then_some(lines)
    })
    .await;
    let (mut synced, mut replies) = (0, Vec::new());
    for line in lines.lines() {
        if line.contains("sync(") {
            synced += 1;
        } else if line.contains("HTTP/1.1 20") {
            replies.push(std::mem::take(&mut synced));
        }
    }
    // Upload, activation, purge, blob (its file and folder too), token; and a read, which needs none.
    assert_eq!(replies.len(), 6, "{replies:?}");
    assert!(replies[..5].iter().all(|syncs| *syncs >= 1), "{replies:?}");
    assert!(replies[3] >= 3, "{replies:?}");
    assert_eq!(replies[5], 0, "{replies:?}");
}
