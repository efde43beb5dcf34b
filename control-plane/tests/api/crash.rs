//! The control plane is killed at random moments, again and again, while clients upload, activate,
//! purge and make tokens; a ledger outside of it holds every acknowledgement. After each restart all
//! that was acknowledged is there. (A kill leaves the page cache alone: what power loss takes is
//! tested elsewhere.)

use crate::harness::{Client, component, digest, document};
use rand::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CYCLES: usize = 110;
/// Below what one tenant may have, with room for what is made and never acknowledged.
const MAX_TOKENS: usize = 700;
const BINARY: &str = env!("CARGO_BIN_EXE_verge-control");

/// What was acknowledged, kept outside of the process that acknowledged it.
#[derive(Default, Clone)]
struct Ledger {
    /// Site and version to the marker in its document.
    versions: BTreeMap<(String, u64), String>,
    /// Site to the highest revision at which an activation was acknowledged, with its version.
    active: BTreeMap<String, (u64, u64)>,
    /// Purge id to revision.
    purges: BTreeMap<String, u64>,
    blobs: BTreeMap<String, Vec<u8>>,
    tokens: Vec<String>,
    revision: u64,
}

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start(folder: &Path) -> Process {
    let port_file = folder.join("port");
    let _ = std::fs::remove_file(&port_file);
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut child = Command::new(BINARY)
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(folder.join("data"))
        .arg("--port-file")
        .arg(&port_file)
        .env("VERGE_LOG", "warn")
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap();
    let port: u16 = crate::harness::eventually("the port file", async || {
        if let Some(status) = child.try_wait().unwrap() {
            let log = std::fs::read_to_string(folder.join("log")).unwrap();
            panic!("the control plane ended with {status}:\n{log}");
        }
        std::fs::read_to_string(&port_file).ok()?.trim().parse().ok()
    })
    .await;
    Process { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
}

/// One answer, when there was one; a killed server gives none, and what it did is unknown.
async fn ask(client: &Client, method: &str, path: &str, body: Vec<u8>) -> Option<Value> {
    use http_body_util::BodyExt;
    let response = client.try_send(method, path, &[], body).await.ok()?;
    let status = response.status();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    assert!(status.is_success(), "{method} {path}: {status} {body:?}");
    serde_json::from_slice(&body).ok()
}

/// Uploads, activates, purges and makes tokens until the server is gone.
async fn work(client: Client, ledger: Arc<Mutex<Ledger>>, worker: usize, cycle: usize) {
    // Not so many versions of one site that the oldest would make room for the newest.
    let site = format!("s{worker}-{}", cycle / 10);
    for step in 0.. {
        let marker = format!("{cycle}-{step}");
        let body = document(&site, &marker).to_string().into_bytes();
        let path = format!("/v1/sites/{site}/versions");
        let Some(info) = ask(&client, "POST", &path, body).await else { return };
        let version = info["version"].as_u64().unwrap();
        ledger.lock().unwrap().versions.insert((site.clone(), version), marker.clone());

        let body = json!({"version": version}).to_string().into_bytes();
        let path = format!("/v1/sites/{site}/active");
        let Some(active) = ask(&client, "PUT", &path, body).await else { return };
        let revision = active["revision"].as_u64().unwrap();
        {
            let mut ledger = ledger.lock().unwrap();
            ledger.active.insert(site.clone(), (revision, version));
            ledger.revision = ledger.revision.max(revision);
        }

        let body = json!({"site": site, "selectors": [{"tag": marker}]}).to_string().into_bytes();
        let Some(receipt) = ask(&client, "POST", "/v1/purges", body).await else { return };
        let revision = receipt["revision"].as_u64().unwrap();
        {
            let mut ledger = ledger.lock().unwrap();
            ledger.purges.insert(receipt["id"].as_str().unwrap().to_owned(), revision);
            ledger.revision = ledger.revision.max(revision);
        }

        if step % 3 == 0 {
            let blob = component(&format!("{worker}-{marker}"));
            let path = format!("/v1/blobs/{}", digest(&blob));
            let Some(_) = ask(&client, "PUT", &path, blob.clone()).await else { return };
            ledger.lock().unwrap().blobs.insert(digest(&blob), blob);
        }
        if step % 5 == 0 && ledger.lock().unwrap().tokens.len() < MAX_TOKENS {
            let body = json!({"name": marker, "scopes": ["read"], "expires_in_seconds": 3600});
            let body = body.to_string().into_bytes();
            let Some(made) = ask(&client, "POST", "/v1/tokens", body).await else { return };
            ledger.lock().unwrap().tokens.push(made["token"].as_str().unwrap().to_owned());
        }
    }
}

/// Everything in the ledger is there.
async fn check(client: &Client, ledger: &Ledger, thorough: bool) {
    for (site, (revision, version)) in &ledger.active {
        let info = client.get(&format!("/v1/sites/{site}")).await.json();
        // A later activation may have been made without its answer arriving.
        assert!(info["revision"].as_u64().unwrap() >= *revision, "{info}, told {revision}");
        assert!(info["active"].as_u64().unwrap() >= *version, "{info}, told {version}");
    }
    let step = if thorough { 1 } else { ledger.versions.len() / 8 + 1 };
    for ((site, version), marker) in ledger.versions.iter().rev().step_by(step) {
        let stored = client.get(&format!("/v1/sites/{site}/versions/{version}")).await;
        assert_eq!(stored.status, 200, "{site}/{version}");
        assert_eq!(stored.json()["routes"][0]["static"]["body"], *marker);
    }
    let step = if thorough { 1 } else { ledger.purges.len() / 8 + 1 };
    for (id, revision) in ledger.purges.iter().step_by(step) {
        let receipt = client.get(&format!("/v1/purges/{id}")).await;
        assert_eq!(receipt.status, 200, "{id}");
        assert_eq!(receipt.json()["revision"], *revision);
    }
    let step = if thorough { 1 } else { ledger.blobs.len() / 8 + 1 };
    for (digest, blob) in ledger.blobs.iter().step_by(step) {
        assert_eq!(client.get(&format!("/v1/blobs/{digest}")).await.body, *blob);
    }
    let step = if thorough { 1 } else { ledger.tokens.len() / 8 + 1 };
    for token in ledger.tokens.iter().rev().step_by(step) {
        let reader = Client::new(client.address, token);
        assert_eq!(reader.get("/v1/sites").await.status, 200);
    }
}

/// The positive control: the check finds what is not there.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_sees_a_loss() {
    let server = crate::harness::Server::start().await;
    let client = server.operator.clone();
    client.deploy("shop", "one").await;
    let mut ledger = Ledger::default();
    ledger.versions.insert(("shop".to_owned(), 1), "one".to_owned());
    ledger.active.insert("shop".to_owned(), (1, 1));
    check(&client, &ledger, true).await;
    let mut lost = Vec::new();
    for part in 0..5 {
        let mut forged = ledger.clone();
        match part {
            0 => drop(forged.versions.insert(("shop".to_owned(), 2), "two".to_owned())),
            1 => drop(forged.active.insert("shop".to_owned(), (2, 1))),
            2 => drop(forged.purges.insert("prg_x".to_owned(), 2)),
            3 => drop(forged.blobs.insert("0".repeat(64), component("x"))),
            _ => forged.tokens.push("vrg_x".to_owned()),
        }
        let client = client.clone();
        let checking = tokio::spawn(async move { check(&client, &forged, true).await });
        lost.push(checking.await.is_err());
    }
    assert_eq!(lost, [true; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_to_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data: PathBuf = folder.path().join("data");
    let made = Command::new(BINARY).args(["init", "--data"]).arg(&data).output().unwrap();
    assert!(made.status.success());
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert!(token.starts_with("vrg_") && !token.contains('\n'));
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    for cycle in 0..CYCLES {
        let mut process = start(folder.path()).await;
        let client = Client::new(process.address, &token);
        let known = ledger.lock().unwrap().clone();
        check(&client, &known, false).await;
        let workers: Vec<_> = (0..4)
            .map(|worker| tokio::spawn(work(client.clone(), ledger.clone(), worker, cycle)))
            .collect();
        let moment = rand::rng().random_range(5..250);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        for worker in workers {
            worker.await.unwrap();
        }
    }
    let process = start(folder.path()).await;
    let client = Client::new(process.address, &token);
    let ledger = ledger.lock().unwrap().clone();
    check(&client, &ledger, true).await;
    assert!(ledger.purges.len() > CYCLES && ledger.blobs.len() > CYCLES / 2);
    // The purges that were acknowledged have one revision each, and none went backwards.
    let mut revisions: Vec<u64> = ledger.purges.values().copied().collect();
    let count = revisions.len();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), count);
    println!(
        "{CYCLES} kills; {} versions, {} purges, {} blobs, {} tokens acknowledged and there; \
         revision {}",
        ledger.versions.len(),
        ledger.purges.len(),
        ledger.blobs.len(),
        ledger.tokens.len(),
        ledger.revision
    );
}
