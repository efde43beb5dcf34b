//! Key-value stores across a fleet: what is written anywhere is read everywhere, and what edges have is
//! read without the control plane.

use serde_json::{Value, json};
use std::process::{Command, Output};
use verge_tests::process::{binary, guest};
use verge_tests::{Control, Edge, Origin, answer, site, until};

const HOST: &str = "shop.example";

struct World {
    origin: Origin,
    control: Control,
    one: Edge,
    two: Edge,
}

/// A handler that may use the store at `/kv/`, and one that may not below `/bare`.
fn document(origin: &Origin, component: &str) -> String {
    let handler = format!("component = {component:?}\nlimits = {{ cpu = \"5s\" }}");
    let rest = format!(
        "[handlers.kv]\n{handler}\ngrants = [\"keyvalue\"]\n\n[handlers.bare]\n{handler}\n\n\
         [[routes]]\npath = \"/kv/*\"\nhandler = \"kv\"\n\n\
         [[routes]]\npath = \"/bare/*\"\nhandler = \"bare\"\n\n\
         [[routes]]\npath = \"/*\"\norigin = \"web\"\n"
    );
    site::for_domains("shop", &[HOST], origin, &rest)
}

async fn origin() -> Origin {
    Origin::start(|seen| async move { answer(200, &[], format!("origin {}", seen.path)) }).await
}

async fn world() -> World {
    let (origin, control) = (origin().await, Control::start().await);
    let component = control.upload(&guest("capabilities-rust")).await;
    let revision = control.deploy("shop", &document(&origin, &component)).await;
    let (one, two) = (Edge::join(&control, "one").await, Edge::join(&control, "two").await);
    control.applied(revision, &["one", "two"]).await;
    World { origin, control, one, two }
}

/// What the handler says of a path.
async fn said(edge: &Edge, path: &str) -> String {
    edge.get(HOST, path).await.expect(200).text().trim_end().to_owned()
}

fn some(value: &str) -> String {
    format!("Ok(Some({value:?}))")
}

impl World {
    async fn verge(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("verge"));
        command
            .args(arguments)
            .args(["--site", "shop", "--control", &format!("http://{}", self.control.address)])
            .args(["--token", &self.control.admin_token]);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Writes by the command line; the revision.
    async fn put(&self, key: &str, value: &str) -> u64 {
        let put = self.verge(&["kv", "put", key, value, "--json"]).await;
        assert!(put.status.success(), "{put:?}");
        let written: Value = serde_json::from_slice(&put.stdout).unwrap();
        written["revision"].as_u64().unwrap()
    }

    async fn get(&self, key: &str) -> String {
        let got = self.verge(&["kv", "get", key]).await;
        assert!(got.status.success(), "{got:?}");
        String::from_utf8(got.stdout).unwrap()
    }

    /// Once both edges are at a revision, both say this, and at once.
    async fn both_say(&self, revision: u64, path: &str, wanted: &str) {
        self.control.applied(revision, &["one", "two"]).await;
        for edge in [&self.one, &self.two] {
            assert_eq!(said(edge, path).await, wanted);
        }
    }

    async fn head(&self) -> u64 {
        let site = self.control.call("GET", "/v1/sites/shop/kv", None).await.expect(200).json();
        let items = site["items"].as_array().unwrap();
        items.iter().filter_map(|item| item["revision"].as_u64()).max().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_anywhere_is_read_everywhere() {
    let world = world().await;
    for edge in [&world.one, &world.two] {
        assert_eq!(said(edge, "/kv/get?key=k").await, "Ok(None)", "and it remembers that");
    }
    let first = world.put("k", "first").await;
    world.both_say(first, "/kv/get?key=k", &some("first")).await;
    // Each has its copy now, and drops it.
    let second = world.put("k", "second").await;
    world.both_say(second, "/kv/get?key=k", &some("second")).await;

    // A handler's write is durable when it returns, read where it was written at once, and by the others
    // once they are told.
    assert_eq!(said(&world.one, "/kv/set?key=k&value=third").await, "Ok(())");
    assert_eq!(world.get("k").await, "third");
    assert_eq!(said(&world.one, "/kv/get?key=k").await, some("third"));
    world.both_say(world.head().await, "/kv/get?key=k", &some("third")).await;
    assert_eq!(said(&world.two, "/kv/set-many?keys=a,b&value=w").await, "Ok(())");
    world.both_say(world.head().await, "/kv/list", "Ok(([\"a\", \"b\", \"k\"], None))").await;
    let many = "Ok([Some((\"b\", \"w\")), None])";
    world.both_say(world.head().await, "/kv/get-many?keys=b,none", many).await;

    // Gone for all; and the new value is not the old one after a restart of everything either.
    let deleted = world.verge(&["kv", "delete", "k"]).await;
    assert!(deleted.status.success(), "{deleted:?}");
    for edge in [&world.one, &world.two] {
        until("the entry to be gone", || async {
            (said(edge, "/kv/exists?key=k").await == "Ok(false)").then_some(())
        })
        .await;
    }
    // Without the grant nothing is told but that, and the log says what to add.
    assert!(said(&world.one, "/bare/kv/get?key=a").await.contains("AccessDenied"));
    until("the handler's log", || async {
        let log = world.one.process.output();
        log.contains("add it to the grants of [handlers.bare]").then_some(())
    })
    .await;
    assert_eq!(world.origin.count("/kv/get"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_without_the_control_plane() {
    let mut world = world().await;
    let written = world.put("held", "v").await;
    world.both_say(written, "/kv/get?key=held", &some("v")).await;
    world.put("not-held", "v").await;
    world.control.kill();
    for edge in [&world.one, &world.two] {
        until("the edge to know that it is alone", || async {
            let said = said(edge, "/kv/get?key=not-held").await;
            said.contains("the control plane is away: this edge has no copy").then_some(())
        })
        .await;
        assert_eq!(said(edge, "/kv/get?key=held").await, some("v"));
        let write = said(edge, "/kv/set?key=held&value=new").await;
        assert!(write.contains("entries can be read, not written"), "{write}");
        let list = said(edge, "/kv/list").await;
        assert!(list.contains("keys cannot be listed"), "{list}");
        assert_eq!(said(edge, "/kv/get?key=held").await, some("v"), "nothing has changed");
    }
    // Back on its store, it has what was acknowledged, and takes writes again.
    world.control.resume().await;
    assert_eq!(world.get("not-held").await, "v");
    until("the edge to be back", || async {
        (said(&world.one, "/kv/set?key=held&value=new").await == "Ok(())").then_some(())
    })
    .await;
    world.both_say(world.head().await, "/kv/get?key=held", &some("new")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_changed_while_the_link_was_down_is_not_read_from_copies() {
    let mut world = world().await;
    let written = world.put("a", "old").await;
    world.both_say(written, "/kv/get?key=a", &some("old")).await;
    // The control plane changes it where no edge is told: they come back to the same history.
    world.control.kill();
    world.control.resume().await;
    world.put("b", "other").await;
    let changed = world.put("a", "new").await;
    world.both_say(changed, "/kv/get?key=a", &some("new")).await;
    let deleted = world.verge(&["kv", "delete", "a"]).await;
    assert!(deleted.status.success(), "{deleted:?}");
    let last = world.put("b", "again").await;
    world.both_say(last, "/kv/get?key=a", "Ok(None)").await;

    // With the site its entries are gone, also for who asks when it is made anew.
    world.both_say(last, "/kv/get?key=b", &some("again")).await;
    world.control.call("DELETE", "/v1/sites/shop", None).await.expect(200);
    let component = world.control.upload(&guest("capabilities-rust")).await;
    let anew = world.control.deploy("shop", &document(&world.origin, &component)).await;
    world.both_say(anew, "/kv/get?key=b", "Ok(None)").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_edge_keeps_entries_in_memory() {
    let origin = origin().await;
    let file = "capabilities-rust.wasm";
    let mut edge = Edge::standalone(document(&origin, file))
        .beside(file, &guest("capabilities-rust"))
        .start()
        .await;
    assert_eq!(said(&edge, "/kv/get?key=k").await, "Ok(None)");
    assert_eq!(said(&edge, "/kv/set?key=k&value=v").await, "Ok(())");
    assert_eq!(said(&edge, "/kv/get?key=k").await, some("v"));
    assert_eq!(said(&edge, "/kv/list").await, "Ok(([\"k\"], None))");
    edge.restart().await;
    assert_eq!(said(&edge, "/kv/get?key=k").await, "Ok(None)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_site_does_not_reach_another_s_entries() {
    let world = world().await;
    world.put("k", "canary").await;
    let component = world.control.upload(&guest("capabilities-rust")).await;
    let other = document(&world.origin, &component)
        .replace("site = \"shop\"", "site = \"blog\"")
        .replace(HOST, "blog.example");
    let revision = world.control.deploy("blog", &other).await;
    world.control.applied(revision, &["one"]).await;
    let of_blog = async |path: &str| world.one.get("blog.example", path).await.expect(200).text();
    assert_eq!(of_blog("/kv/get?key=k").await.trim_end(), "Ok(None)");
    assert_eq!(of_blog("/kv/list").await.trim_end(), "Ok(([], None))");
    for bucket in ["shop", "..%2Fshop"] {
        let said = of_blog(&format!("/kv/get?key=k&bucket={bucket}")).await;
        assert!(said.contains("NoSuchStore"), "{said}");
    }
    assert_eq!(of_blog("/kv/set?key=k&value=own").await.trim_end(), "Ok(())");
    assert_eq!(world.get("k").await, "canary");
    let token = world.control.join_token().await;
    let edges_only = world.control.call_as(&token, "GET", "/v1/edges/self/kv/shop", None).await;
    assert_eq!(edges_only.expect(403).json()["status"], json!(403));
}
