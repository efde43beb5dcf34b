//! Secrets across a fleet: from the command line to the handlers of every edge, in its turn and after a
//! restart without the control plane; and in no file and no log as they are.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use verge_tests::process::{binary, guest};
use verge_tests::{Control, Edge, Origin, answer, site, until};

const CANARY: &str = "canary-of-a-secret";

struct Chain {
    origin: Origin,
    control: Control,
    one: Edge,
    two: Edge,
    component: String,
}

/// A site whose handler shows its secrets; the greeting tells its versions apart.
fn version(origin: &Origin, component: &str, greeting: &str) -> String {
    let rest = format!(
        "[handlers.all]\ncomponent = {component:?}\nlimits = {{ cpu = \"5s\" }}\n\
         grants = [\"secrets\"]\nconfig = {{ greeting = {greeting:?} }}\n\n\
         [[routes]]\npath = \"/*\"\nhandler = \"all\"\n"
    );
    site::for_domains("shop", &["shop.example"], origin, &rest)
}

async fn chain() -> Chain {
    let origin = Origin::start(|_| async { answer(200, &[], "origin") }).await;
    let control = Control::start().await;
    let (one, two) = (Edge::join(&control, "one").await, Edge::join(&control, "two").await);
    let component = control.upload(&guest("capabilities-rust")).await;
    let revision = control.deploy("shop", &version(&origin, &component, "first")).await;
    control.applied(revision, &["one", "two"]).await;
    Chain { origin, control, one, two, component }
}

impl Chain {
    /// Runs `verge`, with this on its standard input.
    fn verge(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = Command::new(binary("verge"))
            .args(arguments)
            .env("VERGE_CONTROL", format!("http://{}", self.control.address))
            .env("VERGE_TOKEN", &self.control.admin_token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let shown = [output.stdout.as_slice(), &output.stderr].concat();
        assert!(!String::from_utf8(shown).unwrap().contains(CANARY));
        output
    }

    /// Sets a secret; waits until both edges have it.
    async fn put(&self, name: &str, value: &str) {
        let put = ["secrets", "put", name, "--site", "shop", "--json"];
        let set = self.verge(&put, value);
        let set: Value = serde_json::from_slice(&set.stdout).unwrap();
        self.control.applied(set["revision"].as_u64().unwrap(), &["one", "two"]).await;
    }

    fn edges(&self) -> [&Edge; 2] {
        [&self.one, &self.two]
    }
}

/// What the handler says of a path.
async fn said(edge: &Edge, path: &str) -> String {
    edge.get("shop.example", path).await.expect(200).text().trim_end().to_owned()
}

async fn told(edge: &Edge, name: &str) -> String {
    let said = said(edge, &format!("/secrets?name={name}")).await;
    said.rsplit(" is ").next().unwrap().to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// The files of a folder that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut all = files(folder);
    assert!(!all.is_empty(), "the control: there are files to look at");
    all.retain(|path| {
        let content = std::fs::read(path).unwrap_or_default();
        content.windows(text.len()).any(|window| window == text.as_bytes())
    });
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_the_handlers_of_every_edge_within_seconds() {
    let mut chain = chain().await;
    for edge in chain.edges() {
        assert_eq!(told(edge, "KEY").await, "Ok(None)");
    }
    // As `echo` writes it, and as a file has it.
    chain.put("KEY", &format!("{CANARY}-1\n")).await;
    chain.put("PEM", &format!("{CANARY}-a\n{CANARY}-b\n")).await;
    for edge in chain.edges() {
        assert_eq!(told(edge, "KEY").await, format!("{CANARY}-1"));
        let pem = said(edge, "/secrets?name=PEM").await;
        assert!(pem.ends_with(&format!("{CANARY}-a\n{CANARY}-b")), "{pem}");
    }
    // Another value, and a version that comes after it: nobody is served the version with the old one.
    chain.put("KEY", &format!("{CANARY}-2")).await;
    for edge in chain.edges() {
        assert_eq!(told(edge, "KEY").await, format!("{CANARY}-2"));
    }
    let listed = chain.verge(&["secrets", "list", "--site", "shop"], "");
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("KEY") && listed.contains("first admin"), "{listed}");
    assert!(!listed.contains("canary"), "{listed}");

    let deleted = chain.verge(&["secrets", "delete", "PEM", "--site", "shop"], "");
    assert!(String::from_utf8(deleted.stdout).unwrap().contains("PEM is deleted"));
    for edge in chain.edges() {
        until("the secret to be gone", || async {
            (told(edge, "PEM").await == "Ok(None)").then_some(())
        })
        .await;
        assert_eq!(told(edge, "KEY").await, format!("{CANARY}-2"));
        // A careless handler, too.
        edge.get("shop.example", "/secrets/leak?name=KEY").await.expect(500);
    }

    // Alone, the edge starts with what it had.
    let control_log = chain.control.output();
    chain.control.kill();
    chain.one.restart().await;
    chain.one.ready().await;
    assert_eq!(told(&chain.one, "KEY").await, format!("{CANARY}-2"));
    assert_eq!(told(&chain.one, "PEM").await, "Ok(None)");

    // Nothing of it lies about, neither here nor there.
    for folder in [chain.control.data(), chain.one.file("state"), chain.two.file("state")] {
        let found = holding(&folder, CANARY);
        assert!(found.is_empty(), "{found:?}");
    }
    let logs = [control_log, chain.one.process.output(), chain.two.process.output()];
    for log in &logs {
        assert!(!log.contains(CANARY), "{log}");
    }
    assert!(logs[0].contains("/v1/sites/{site}/secrets/{secret}"), "the control: there are logs");
    assert!(logs[1].contains("secrets applied"), "the control: there are logs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_comes_after_a_secret_is_served_with_it() {
    let chain = chain().await;
    for round in 0..5 {
        let (value, greeting) = (format!("value-{round}"), format!("greeting-{round}"));
        let path = "/v1/sites/shop/secrets/KEY";
        let put = chain.control.call("PUT", path, Some(&json!({ "value": value }))).await;
        assert!(matches!(put.status, 200 | 201), "{put:?}");
        let text = version(&chain.origin, &chain.component, &greeting);
        chain.control.deploy("shop", &text).await;
        for edge in chain.edges() {
            until("the version to be in force", || async {
                said(edge, "/config?key=greeting").await.contains(&greeting).then_some(())
            })
            .await;
            assert_eq!(told(edge, "KEY").await, value);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_has_the_secrets_of_its_site() {
    let mut chain = chain().await;
    chain.put("KEY", "before").await;
    let text = version(&chain.origin, &chain.component, "second");
    assert_eq!(chain.control.upload_site("shop", &text).await.expect(201).json()["version"], 2);
    let path = "/v1/sites/shop/versions/2/previews";
    let made = chain.control.call("POST", path, Some(&json!({}))).await.expect(201).json();
    chain.control.applied(made["revision"].as_u64().unwrap(), &["one", "two"]).await;
    let token = made["token"].as_str().unwrap();
    let previewed = async |edge: &Edge, path: &str| {
        let fields = [("Verge-Preview", token)];
        let mut client = edge.client().await;
        client.request("GET", "shop.example", path, &fields, b"").await.expect(200).text()
    };
    let config = previewed(&chain.one, "/config?key=greeting").await;
    assert!(config.contains("second"), "the control: it is the preview: {config}");
    assert!(previewed(&chain.one, "/secrets?name=KEY").await.ends_with(" is before\n"));
    chain.put("KEY", "after").await;
    assert!(previewed(&chain.one, "/secrets?name=KEY").await.ends_with(" is after\n"));
    assert_eq!(told(&chain.one, "KEY").await, "after");
    chain.control.kill();
    chain.one.restart().await;
    chain.one.ready().await;
    assert!(previewed(&chain.one, "/secrets?name=KEY").await.ends_with(" is after\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_site_has_another_s_secrets() {
    let chain = chain().await;
    chain.put("KEY", CANARY).await;
    let text = version(&chain.origin, &chain.component, "other")
        .replace("site = \"shop\"", "site = \"other\"")
        .replace("shop.example", "other.example");
    let revision = chain.control.deploy("other", &text).await;
    chain.control.applied(revision, &["one", "two"]).await;
    for edge in chain.edges() {
        let reply = edge.get("other.example", "/secrets?name=KEY").await.expect(200);
        assert_eq!(reply.text(), "Ok(None)\n");
        assert_eq!(told(edge, "KEY").await, CANARY);
    }
}
