//! `verge dev` as a developer meets it: the real program, a real browser's host name, saves on disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{guest, reuse_tools};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// A first build of the C library included.
const SOON: Duration = Duration::from_secs(180);

/// A running `verge dev`.
struct Dev {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    folder: TempDir,
    address: String,
    admin: String,
}

impl Dev {
    async fn start(site: &str) -> Dev {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("verge.toml"), site).unwrap();
        Dev::start_in(folder).await
    }

    /// One on the site in this folder.
    async fn start_in(folder: TempDir) -> Dev {
        let ports = folder.path().join(".ports");
        let mut child = Command::new(env!("CARGO_BIN_EXE_verge"))
            .args(["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--port-file"])
            .arg(&ports)
            .current_dir(folder.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (send, lines) = mpsc::unbounded_channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        forward(out, send.clone());
        forward(err, send);
        let (address, admin) = addresses(&ports).await;
        Dev { child, lines, folder, address, admin }
    }

    /// Waits for a line with these words in it.
    async fn line(&mut self, words: &[&str]) -> String {
        let mut seen = Vec::new();
        let found = tokio::time::timeout(SOON, async {
            while let Some(line) = self.lines.recv().await {
                if words.iter().all(|word| line.contains(word)) {
                    return Some(line);
                }
                seen.push(line);
            }
            None
        });
        let found = found.await.ok().flatten();
        found.unwrap_or_else(|| panic!("no line with {words:?} in {seen:#?}"))
    }

    async fn get(&self, path: &str) -> String {
        get(&self.address, "localhost", path).await
    }

    fn save(&self, text: &str) {
        self.save_as("verge.toml", text);
    }

    fn save_as(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }
}

fn forward(
    reader: impl tokio::io::AsyncBufRead + Unpin + Send + 'static,
    send: mpsc::UnboundedSender<String>,
) {
    tokio::spawn(async move {
        let mut lines = reader.lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if send.send(line).is_err() {
                break;
            }
        }
    });
}

async fn addresses(ports: &Path) -> (String, String) {
    let started = Instant::now();
    while started.elapsed() < SOON {
        if let Ok(text) = std::fs::read_to_string(ports) {
            let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            return (of("http=").unwrap().to_owned(), of("admin=").unwrap().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no port file");
}

/// A whole response, head and content.
async fn get(address: &str, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn fixed(body: &str) -> String {
    format!(
        "site = 'shop'\ndomains = ['*']\n[[routes]]\npath = '/*'\nstatic = {{ body = '{body}' }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_is_in_force_and_a_fault_leaves_the_last_good_version() {
    let mut dev = Dev::start(&fixed("one")).await;
    dev.line(&["version 1 is in force"]).await;
    assert!(dev.get("/a").await.ends_with("one"));
    dev.line(&["200", "GET", "localhost/a"]).await;

    dev.save(&fixed("two"));
    dev.line(&["version 2 is in force"]).await;
    assert!(dev.get("/a").await.ends_with("two"));

    dev.save(&fixed("three").replace("static", "statik"));
    dev.line(&["statik: unknown field; did you mean \"static\"?"]).await;
    assert!(dev.get("/a").await.ends_with("two"));

    dev.save(&fixed("four"));
    dev.line(&["version 3 is in force"]).await;
    assert!(dev.get("/a").await.ends_with("four"));

    let explained = Command::new(env!("CARGO_BIN_EXE_verge"))
        .args(["explain", "http://localhost/a", "--admin"])
        .arg(format!("http://{}", dev.admin))
        .output();
    let explained = explained.await.unwrap();
    assert!(explained.status.success(), "{explained:?}");
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.contains("route: routes[0]"), "{explained}");

    // It ends by itself when it is told to, and well.
    let pid = dev.child.id().unwrap().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
    assert!(killed.success());
    let ended = tokio::time::timeout(Duration::from_secs(15), dev.child.wait()).await;
    assert_eq!(ended.expect("it ends in time").unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_runs_and_its_answers_are_cached() {
    let component: PathBuf = guest("hello-rust");
    let site = format!(
        "site = 'fn'\ndomains = ['fn.example']\n[handlers.h]\ncomponent = '{}'\n\
         env = {{ GREETING = 'good day' }}\n\
         [[routes]]\npath = '/*'\nhandler = 'h'\ncache = {{ position = 'before' }}\n",
        component.display()
    );
    let mut dev = Dev::start(&site).await;
    dev.line(&["version 1 is in force"]).await;
    let first = dev.get("/?ttl=60").await;
    assert!(first.contains("good day"), "{first}");
    dev.line(&["200", "miss"]).await;
    assert!(dev.get("/?ttl=60").await.contains("good day"));
    dev.line(&["200", "hit"]).await;
}

/// The kind of project that has its tools from Python's registry: C is built in no time.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_built_and_again_on_every_save() {
    let folder = TempDir::new().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_verge"))
        .args(["init", "--lang", "c", "--name", "my-site"])
        .current_dir(folder.path())
        .output();
    assert!(made.await.unwrap().status.success());
    reuse_tools(folder.path(), "c");
    let mut dev = Dev::start_in(folder).await;
    dev.line(&["version 1 is in force"]).await;
    assert!(dev.get("/a").await.ends_with("Hello from /a\n"));

    let source = std::fs::read_to_string(dev.folder.path().join("greet.c")).unwrap();
    dev.save_as("greet.c", "this is no C");
    dev.line(&["build.py", "failed"]).await;
    assert!(dev.get("/a").await.ends_with("Hello from /a\n"), "the last good one stays");

    dev.save_as("greet.c", &source.replace("from", "again from"));
    dev.line(&["version 2 is in force"]).await;
    assert!(dev.get("/a").await.ends_with("Hello again from /a\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_beside_the_site_file_are_the_handlers() {
    let folder = TempDir::new().unwrap();
    let secrets = folder.path().join(".secrets.toml");
    std::fs::write(&secrets, "KEY = 'canary'\n").unwrap();
    std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o600)).unwrap();
    let component: PathBuf = guest("capabilities-rust");
    let site = format!(
        "site = 'fn'\ndomains = ['fn.example']\n[handlers.h]\ncomponent = '{}'\n\
         grants = ['secrets']\n[[routes]]\npath = '/*'\nhandler = 'h'\n",
        component.display()
    );
    std::fs::write(folder.path().join("verge.toml"), site).unwrap();
    let mut dev = Dev::start_in(folder).await;
    dev.line(&["version 1 is in force"]).await;
    assert!(dev.get("/secrets?name=KEY").await.contains(" is canary\n"));
    assert!(dev.get("/log?context=cart&message=full").await.contains("logged\n"));
    dev.line(&["[h warn] cart: full"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_shown_with_what_its_handler_logged() {
    let site = format!(
        "site = 'fn'\ndomains = ['fn.example']\n[handlers.h]\ncomponent = '{}'\n\
         [[routes]]\npath = '/*'\nhandler = 'h'\n",
        guest("faulty-rust").display()
    );
    let mut dev = Dev::start(&site).await;
    dev.line(&["version 1 is in force"]).await;
    assert!(dev.get("/log-line").await.contains("logged"));
    let line = dev.line(&["200", "responded", "GET localhost/log-line"]).await;
    let cpu = line.split("cpu").nth(1).unwrap().split("ms").next().unwrap().trim();
    assert!(cpu.parse::<f64>().is_ok(), "{line}");
    // Beneath: the next line is the first that it logged.
    let next = dev.lines.recv().await.unwrap();
    assert!(next.trim_start().starts_with("[h stdout] yyy"), "{next}");
    assert!(dev.get("/trap").await.contains("500"));
    dev.line(&["500", "trapped", "GET localhost/trap"]).await;
    dev.line(&["[h host]", "trap"]).await;
    // Nobody's host is shown, too: a typo in it should not look like silence.
    let nobody = get(&dev.address, "typo.example", "/x?a=b").await;
    assert!(nobody.contains("404"));
    dev.line(&["404", "failed", "GET typo.example/x?a=b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_component_is_soon_in_force() {
    let site = "site = 'shop'\ndomains = ['*']\n[handlers.h]\ncomponent = 'h.wasm'\n\
                [[routes]]\npath = '/*'\nhandler = 'h'\n";
    let component = std::fs::read(guest("hello-rust")).unwrap();
    let mut dev = Dev::start(&fixed("one")).await;
    dev.line(&["version 1 is in force"]).await;
    for version in 2_u8..=4 {
        // The same code with a custom section of its own: another component to every part.
        let mut component = component.clone();
        component.extend_from_slice(&[0, 3, 1, b'n', version]);
        let saved = Instant::now();
        std::fs::write(dev.folder.path().join("h.wasm"), component).unwrap();
        dev.save(site);
        let line = dev.line(&[&format!("version {version} is in force")]).await;
        println!("from the save to a component in force: {:?} ({line})", saved.elapsed());
        assert!(dev.get("/").await.contains("Hello from Verge"));
        assert!(saved.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_told() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("verge.toml"), fixed("one")).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_verge"))
        .args(["dev", "--listen", &address, "--admin", "127.0.0.1:0"])
        .current_dir(folder.path())
        .output();
    let ran = tokio::time::timeout(SOON, run).await.unwrap().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    let err = String::from_utf8_lossy(&ran.stderr);
    assert!(err.contains("cannot listen on"), "{err}");
}
