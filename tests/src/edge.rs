//! A real edge: alone with a site file, or joined to a control plane.

use crate::control::Control;
use crate::http1::Http1;
use crate::http2::Http2;
use crate::process::{Process, binary};
use crate::reply::Reply;
use crate::tls::Certificate;
use crate::wait::{until, until_for};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The longest that an edge may take to its first port.
const COMPILE_DEADLINE: Duration = Duration::from_secs(120);

/// A running edge. Its files live in a folder of its own that goes with it.
pub struct Edge {
    /// Its process.
    pub process: Process,
    /// Where it takes HTTP.
    pub http: SocketAddr,
    /// Where it takes HTTPS, when it does.
    pub https: Option<SocketAddr>,
    /// Its admin listener.
    pub admin: SocketAddr,
    name: String,
    launch: Launch,
    folder: TempDir,
}

/// How its process is started, each time.
struct Launch {
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
}

/// What a standalone edge is started with.
pub struct Standalone {
    site: String,
    arguments: Vec<String>,
    files: Vec<(String, PathBuf)>,
    tls: Vec<(PathBuf, PathBuf)>,
    environment: Vec<(String, String)>,
}

impl Edge {
    /// An edge that serves one site file, given as text.
    #[must_use]
    pub fn standalone(site: impl Into<String>) -> Standalone {
        Standalone {
            site: site.into(),
            arguments: Vec::new(),
            files: Vec::new(),
            tls: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// An edge of a control plane, enrolled under a name with a fresh join token; it may reach the
    /// private addresses that test origins have.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn join(control: &Control, name: &str) -> Edge {
        Edge::join_with(control, name, "allow_private_origins = true\n").await
    }

    /// An edge of a control plane, with these lines in its `edge.toml`.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn join_with(control: &Control, name: &str, lines: &str) -> Edge {
        Edge::join_at(control.address, &control.join_token().await, name, lines).await
    }

    /// An edge of a control plane that need not be there yet.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn join_at(control: SocketAddr, token: &str, name: &str, lines: &str) -> Edge {
        let folder = TempDir::new().unwrap();
        let state = folder.path().join("state");
        let config = format!(
            "name = {name:?}\ncontrol = \"http://{control}\"\njoin_token = {token:?}\n\
             state_dir = {state:?}\nadmin = \"127.0.0.1:0\"\n{lines}\n\
             [listen]\nhttp = [\"127.0.0.1:0\"]\n"
        );
        let path = folder.path().join("edge.toml");
        fs::write(&path, config).unwrap();
        let arguments = vec!["--config".to_owned(), path.display().to_string()];
        Edge::start(name, Launch { environment: Vec::new(), arguments }, folder).await
    }

    async fn start(name: &str, launch: Launch, folder: TempDir) -> Edge {
        let (process, ports) = launch.start(name, folder.path()).await;
        let name = name.to_owned();
        let Ports { http, https, admin } = ports;
        Edge { process, http, https, admin, name, launch, folder }
    }

    /// Kills it and starts it again on its own files; its ports change.
    ///
    /// # Panics
    /// When it does not come up again.
    pub async fn restart(&mut self) {
        self.process.kill();
        let (process, ports) = self.launch.start(&self.name, self.folder.path()).await;
        self.process = process;
        Ports { http: self.http, https: self.https, admin: self.admin } = ports;
    }

    /// A new HTTP/1.1 connection to it.
    pub async fn client(&self) -> Http1 {
        Http1::connect(self.http).await
    }

    /// A new HTTP/2 connection to it, with prior knowledge.
    pub async fn client2(&self) -> Http2 {
        Http2::connect(self.http).await
    }

    /// GET on a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Reply {
        self.client().await.get(host, path).await
    }

    /// GET at its admin listener.
    pub async fn admin(&self, path: &str) -> Reply {
        Http1::connect(self.admin).await.get("localhost", path).await
    }

    /// A purge at a standalone edge's admin listener; the body is the API's.
    pub async fn purge(&self, body: &serde_json::Value) -> Reply {
        let fields = [("Content-Type", "application/json")];
        let body = body.to_string();
        let mut client = Http1::connect(self.admin).await;
        client.request("POST", "localhost", "/purges", &fields, body.as_bytes()).await
    }

    /// The path of a file in its folder: `verge.toml` is a standalone edge's site file.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until its `/readyz` says so.
    ///
    /// # Panics
    /// After the deadline.
    pub async fn ready(&self) {
        until("the edge to be ready", || async {
            let reply = self.admin("/readyz").await;
            (reply.status == 200).then_some(())
        })
        .await;
    }
}

impl Standalone {
    /// Adds arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Standalone {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Puts a copy of a file beside the site file, under a name.
    #[must_use]
    pub fn beside(mut self, name: &str, source: &Path) -> Standalone {
        self.files.push((name.to_owned(), source.to_path_buf()));
        self
    }

    /// Lets it trust origins that show this certificate.
    #[must_use]
    pub fn trusting(mut self, certificate: &Certificate) -> Standalone {
        let file = certificate.cert.display().to_string();
        self.environment.push(("SSL_CERT_FILE".to_owned(), file));
        self
    }

    /// Takes HTTPS too, with these certificates.
    #[must_use]
    pub fn tls(mut self, certificates: &[&Certificate]) -> Standalone {
        self.tls.extend(certificates.iter().map(|c| (c.cert.clone(), c.key.clone())));
        self
    }

    /// Its arguments and its folder, with everything written.
    ///
    /// # Panics
    /// When the folder cannot be written.
    #[must_use]
    pub fn prepare(self) -> (Vec<String>, TempDir) {
        let folder = TempDir::new().unwrap();
        for (name, source) in &self.files {
            fs::copy(source, folder.path().join(name)).unwrap();
        }
        let site = folder.path().join("verge.toml");
        fs::write(&site, &self.site).unwrap();
        let mut arguments: Vec<String> = [
            "--site",
            &site.display().to_string(),
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]
        .map(str::to_owned)
        .to_vec();
        if !self.tls.is_empty() {
            arguments.extend(["--tls-listen", "127.0.0.1:0"].map(str::to_owned));
        }
        for (cert, key) in &self.tls {
            let (cert, key) = (cert.display().to_string(), key.display().to_string());
            arguments.extend(["--cert".to_owned(), cert, "--key".to_owned(), key]);
        }
        arguments.extend(self.arguments);
        (arguments, folder)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(self) -> Edge {
        let environment = self.environment.clone();
        let (arguments, folder) = self.prepare();
        let edge = Edge::start("edge", Launch { environment, arguments }, folder).await;
        edge.ready().await;
        edge
    }
}

struct Ports {
    http: SocketAddr,
    https: Option<SocketAddr>,
    admin: SocketAddr,
}

impl Launch {
    /// Starts the binary and waits until it has told its ports.
    async fn start(&self, name: &str, folder: &Path) -> (Process, Ports) {
        let file = folder.join("ports");
        let _ = fs::remove_file(&file);
        let mut arguments = self.arguments.clone();
        arguments.extend(["--port-file".to_owned(), file.display().to_string()]);
        let program = binary("verge-edge");
        let mut process = Process::start_in(&self.environment, name, &program, &arguments, folder);
        // A component may have to be compiled first; JavaScript's engine takes seconds of a free core.
        let ports = until_for(COMPILE_DEADLINE, "the edge's port file", || {
            assert!(process.is_alive(), "the edge ended at once:\n{}", process.tail());
            let text = fs::read_to_string(&file).ok();
            async move { parse_ports(&text?) }
        })
        .await;
        (process, ports)
    }
}

fn parse_ports(text: &str) -> Option<Ports> {
    let find = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    Some(Ports { http: find("http")?, https: find("https"), admin: find("admin")? })
}
