//! What the tests of the command line share: a real control plane on port 0 with a real store, and the
//! `verge` program with an environment of its own.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use verge_control::{Control, ControlConfig};

/// A control plane with one user of the command line.
pub struct World {
    pub url: String,
    pub admin_token: String,
    pub folder: TempDir,
    shutdown: CancellationToken,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl World {
    pub async fn start() -> World {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let made = verge_control::init(&data).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Control::open(ControlConfig::new(&data, address)).await.unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(control.serve(listener, shutdown.clone()));
        World { url: format!("http://{address}"), admin_token: made.admin_token, folder, shutdown }
    }

    /// Runs `verge` as the admin.
    pub async fn verge<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        self.verge_as(&self.admin_token, arguments).await
    }

    /// Runs `verge` with another token.
    pub async fn verge_as<S: AsRef<OsStr>>(&self, token: &str, arguments: &[S]) -> Ran {
        let mut command = self.command(arguments);
        command.env("VERGE_CONTROL", &self.url).env("VERGE_TOKEN", token);
        finish(command, "").await
    }

    /// Runs `verge` with what is stored only.
    pub async fn verge_bare<S: AsRef<OsStr>>(&self, arguments: &[S], input: &str) -> Ran {
        finish(self.command(arguments), input).await
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verge"));
        command
            .args(arguments)
            .env_remove("VERGE_CONTROL")
            .env_remove("VERGE_TOKEN")
            .env("XDG_CONFIG_HOME", self.folder.path().join("config"))
            .current_dir(self.folder.path());
        command
    }

    pub fn credentials(&self) -> PathBuf {
        self.folder.path().join("config/verge/credentials.toml")
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Ran {
    /// It ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

async fn finish(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A built example handler.
pub fn guest(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../wasm-handlers/guests/build")
        .join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `make guests`", path.display());
    path
}

/// The tools of the example handler in a language are those that a new site pins; where they are installed
/// already, they need not be again.
pub fn reuse_tools(folder: &Path, language: &str) {
    let tools = match language {
        "js" => "hello-js/node_modules",
        "python" => "hello-python/.venv",
        "c" => "hello-c/.venv",
        _ => return,
    };
    let installed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-handlers/guests").join(tools);
    if let Ok(installed) = installed.canonicalize() {
        let name = installed.file_name().unwrap();
        std::os::unix::fs::symlink(&installed, folder.join(name)).unwrap();
    }
}

/// A site without handlers.
pub fn plain_site(name: &str, body: &str) -> String {
    format!(
        "site = '{name}'\ndomains = ['{name}.example']\n\
         [[routes]]\npath = '/*'\nstatic = {{ body = '{body}' }}\n"
    )
}
