//! The public suite of HTTP caching tests (npm `http-cache-tests`): its origin, its runs, and what it
//! says of each test. It may not know what we expect of them.

use crate::process::{Process, repository};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;

/// The longest that a run may take; one takes about 15 s, most of it asleep.
const RUN_DEADLINE: Duration = Duration::from_secs(180);
/// How often a port is chosen anew when somebody else has taken it in between.
const TRIES: usize = 10;

/// How much a test asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The RFCs require it.
    Required,
    /// A good cache does it.
    Optimal,
    /// A question without a right answer.
    Check,
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As the suite wants it.
    Passed,
    /// Otherwise: in which part of the test (`Assertion`, `Setup`, …), and why.
    Failed(String, String),
}

/// Verdicts by test id.
pub type Verdicts = BTreeMap<String, Verdict>;

/// The suite's origin.
pub struct Suite {
    /// Where it listens.
    pub address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

/// Where the suite and what belongs to it is.
fn folder() -> PathBuf {
    repository().join("tests/conformance")
}

fn package() -> PathBuf {
    let package = folder().join("node_modules/http-cache-tests");
    assert!(package.is_dir(), "{} is missing: run `make site`", package.display());
    package
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Suite {
    /// Starts the suite's origin.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start() -> Suite {
        for _ in 0..TRIES {
            if let Some(suite) = Suite::try_start().await {
                return suite;
            }
        }
        panic!("the suite's origin does not come up");
    }

    /// The suite takes a port by its number only: one that is free now may be taken a moment later.
    async fn try_start() -> Option<Suite> {
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let folder = TempDir::new().unwrap();
        let server = package().join("server/server.mjs").display().to_string();
        let environment = variables(&[
            ("npm_config_protocol", "http"),
            ("npm_config_port", &address.port().to_string()),
            ("npm_config_pidfile", &folder.path().join("pid").display().to_string()),
        ]);
        let node = Path::new("node");
        let mut process = Process::start_in(&environment, "suite", node, &[server], folder.path());
        let listens = crate::until("the suite's origin to listen", || {
            let state = if process.output().contains("Listening on") {
                Some(true)
            } else if process.is_alive() {
                None
            } else {
                Some(false)
            };
            async move { state }
        })
        .await;
        listens.then_some(Suite { address, _process: process, _folder: folder })
    }

    /// A site file that sends everything to it, without a word of caching.
    #[must_use]
    pub fn site(&self, url: &str) -> String {
        format!(
            "site = \"conformance\"\ndomains = [\"*\"]\n\n[origins.web]\nurls = [{url:?}]\n\n\
             [[routes]]\npath = \"/*\"\norigin = \"web\"\n"
        )
    }

    /// Runs all of its tests against what listens there.
    ///
    /// # Panics
    /// When the suite does not come to its end.
    pub async fn run(&self, address: SocketAddr) -> Verdicts {
        let mut command = Command::new("node");
        command
            .arg("--no-warnings")
            .arg(package().join("cli.mjs"))
            .env("npm_config_base", format!("http://{address}"))
            .env("npm_config_id", "")
            .env("npm_package_config_id", "")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(RUN_DEADLINE, command.output())
            .await
            .expect("the suite to end")
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && !said.is_empty(),
            "{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let said: BTreeMap<String, serde_json::Value> = serde_json::from_str(&said).unwrap();
        said.into_iter().map(|(id, value)| (id, verdict(&value))).collect()
    }
}

/// The kind of every test that the suite has.
///
/// # Panics
/// When the suite is not there.
#[must_use]
pub fn kinds() -> BTreeMap<String, Kind> {
    package();
    let output = std::process::Command::new("node").arg(folder().join("kinds.mjs")).output();
    let said: BTreeMap<String, String> = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let kind = |name: &str| match name {
        "required" => Kind::Required,
        "optimal" => Kind::Optimal,
        "check" => Kind::Check,
        other => panic!("a kind of test that nobody knows: {other}"),
    };
    said.into_iter().map(|(id, name)| (id, kind(&name))).collect()
}

fn verdict(value: &serde_json::Value) -> Verdict {
    if value == &serde_json::Value::Bool(true) {
        return Verdict::Passed;
    }
    let part = |index: usize| value[index].as_str().unwrap_or_default().to_owned();
    Verdict::Failed(part(0), part(1))
}
