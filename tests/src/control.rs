//! A real control plane on its embedded store, and the API calls that tests make.

use crate::http1::Http1;
use crate::process::{Process, binary};
use crate::reply::Reply;
use crate::wait::until;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A control plane.
pub struct Control {
    /// Where it listens; the same after a restart.
    pub address: SocketAddr,
    /// The token that `init` printed.
    pub admin_token: String,
    process: Option<Process>,
    folder: TempDir,
}

impl Control {
    /// Makes a store and starts a control plane on it.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start() -> Control {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let made =
            Command::new(binary("verge-control")).arg("init").arg("--data").arg(&data).output();
        let made = made.unwrap();
        assert!(made.status.success(), "init: {}", String::from_utf8_lossy(&made.stderr));
        let printed = String::from_utf8(made.stdout).unwrap();
        let admin_token = printed
            .split_whitespace()
            .find(|word| word.starts_with("vrg_"))
            .unwrap_or_else(|| panic!("no token in {printed:?}"))
            .to_owned();
        let address = "127.0.0.1:0".parse().unwrap();
        let mut control = Control { address, admin_token, process: None, folder };
        control.resume().await;
        control
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again where it was, on the store that it had.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn resume(&mut self) {
        let file = self.folder.path().join("port");
        let _ = fs::remove_file(&file);
        let arguments: Vec<String> = vec![
            "--data".into(),
            self.folder.path().join("data").display().to_string(),
            "--listen".into(),
            self.address.to_string(),
            "--port-file".into(),
            file.display().to_string(),
        ];
        let program = binary("verge-control");
        let mut process = Process::start("control", &program, &arguments, self.folder.path());
        self.address = until("the control plane's port file", || {
            assert!(process.is_alive(), "the control plane ended:\n{}", process.tail());
            let text = fs::read_to_string(&file).ok();
            async move { parse_port(&text?) }
        })
        .await;
        self.process = Some(process);
        let address = self.address;
        until("the control plane to be ready", || async move {
            let reply = Http1::connect(address).await.get("localhost", "/readyz").await;
            (reply.status == 200).then_some(())
        })
        .await;
    }

    /// A call with the admin's token.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        self.call_as(&self.admin_token, method, path, body).await
    }

    /// A call with another token.
    pub async fn call_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Reply {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(token, method, path, "application/json", body.as_bytes()).await
    }

    /// A call with any content.
    pub async fn send(
        &self,
        token: &str,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Reply {
        let bearer = format!("Bearer {token}");
        let fields = [("Authorization", bearer.as_str()), ("Content-Type", kind)];
        let host = self.address.to_string();
        Http1::connect(self.address).await.request(method, &host, path, &fields, body).await
    }

    /// A new token that may enrol edges.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn join_token(&self) -> String {
        let body = json!({ "name": "edges", "scopes": ["join"] });
        let reply = self.call("POST", "/v1/tokens", Some(&body)).await.expect(201);
        reply.json()["token"].as_str().unwrap().to_owned()
    }

    /// Uploads a component; its digest as a site file names it.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn upload(&self, component: &Path) -> String {
        let bytes = fs::read(component).unwrap();
        let digest = hex::encode(Sha256::digest(&bytes));
        let path = format!("/v1/blobs/{digest}");
        let reply = self.send(&self.admin_token, "PUT", &path, "application/wasm", &bytes).await;
        assert!((200..300).contains(&reply.status), "{reply:?}");
        format!("sha256:{digest}")
    }

    /// Uploads a version of a site, as TOML; the answer as it is.
    pub async fn upload_site(&self, site: &str, text: &str) -> Reply {
        let path = format!("/v1/sites/{site}/versions");
        self.send(&self.admin_token, "POST", &path, "application/toml", text.as_bytes()).await
    }

    /// Uploads and activates a version of a site; its revision.
    ///
    /// # Panics
    /// When either is refused.
    pub async fn deploy(&self, site: &str, text: &str) -> u64 {
        let uploaded = self.upload_site(site, text).await;
        assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}");
        let body = json!({ "version": uploaded.json()["version"] });
        let path = format!("/v1/sites/{site}/active");
        let active = self.call("PUT", &path, Some(&body)).await.expect(200);
        active.json()["revision"].as_u64().unwrap()
    }

    /// Waits until these edges are connected and have applied a revision.
    ///
    /// # Panics
    /// After the deadline.
    pub async fn applied(&self, revision: u64, edges: &[&str]) {
        until(&format!("{edges:?} to apply revision {revision}"), || async {
            let list = self.call("GET", "/v1/edges", None).await.expect(200).json();
            let items = list["items"].as_array()?.clone();
            let done = |name: &&str| {
                items.iter().any(|edge| {
                    edge["name"] == **name
                        && edge["connected"] == true
                        && edge["applied"].as_u64() >= Some(revision)
                })
            };
            edges.iter().all(done).then_some(())
        })
        .await;
    }

    /// A purge; `query` is what follows the path (`?wait=all&timeout=10s`).
    pub async fn purge(&self, query: &str, body: &Value) -> Reply {
        self.call("POST", &format!("/v1/purges{query}"), Some(body)).await
    }

    /// The folder of its store.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it has written to its log so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }
}

fn parse_port(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    let text = text.rsplit(['=', '/']).next()?;
    text.parse().ok().or_else(|| Some(SocketAddr::from(([127, 0, 0, 1], text.parse().ok()?))))
}
