//! The whole chain, as a newcomer meets it: control plane, two edges, an origin, a handler, a purge.

use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use verge_tests::process::guest;
use verge_tests::{Control, Edge, Origin, answer, site, until};

const TWO: &[&str] = &["one", "two"];

/// An origin whose answers carry a number that a test can raise, and the tag `page`.
async fn numbered() -> (Origin, Arc<AtomicU64>) {
    let number = Arc::new(AtomicU64::new(1));
    let shown = Arc::clone(&number);
    let origin = Origin::start(move |_| {
        let body = format!("number {}", shown.load(Ordering::SeqCst));
        let fields = [("Cache-Control", "max-age=3600"), ("Cache-Tag", "page")];
        let answer = answer(200, &fields, body);
        async move { answer }
    })
    .await;
    (origin, number)
}

async fn chain() -> (Control, Edge, Edge) {
    let control = Control::start().await;
    let one = Edge::join(&control, "one").await;
    let two = Edge::join(&control, "two").await;
    (control, one, two)
}

fn shop(origin: &Origin, rest: &str) -> String {
    let routes = "[[routes]]\npath = \"/*\"\norigin = \"web\"\n";
    site::for_domains("shop", &["shop.example"], origin, &format!("{rest}{routes}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_is_deployed_cached_computed_and_purged() {
    let (origin, number) = numbered().await;
    let (control, one, two) = chain().await;
    let component = control.upload(&guest("hello-rust")).await;
    let handler = format!(
        "[handlers.greet]\ncomponent = {component:?}\nenv = {{ GREETING = \"good day\" }}\n\n\
         [[routes]]\npath = \"/api/*\"\nhandler = \"greet\"\norigin = \"web\"\n\n"
    );
    let revision = control.deploy("shop", &shop(&origin, &handler)).await;
    control.applied(revision, TWO).await;

    // Each edge fetches once and then answers by itself.
    for edge in [&one, &two] {
        let miss = edge.get("shop.example", "/page").await.expect(200);
        assert!(!miss.is_hit(), "{miss:?}");
        assert_eq!(miss.text(), "number 1");
        let hit = edge.get("shop.example", "/page").await.expect(200);
        assert!(hit.is_hit(), "{hit:?}");
        assert_eq!(hit.text(), "number 1");
        assert!(!hit.field("age").is_empty(), "{hit:?}");
        assert_eq!(hit.field("cache-tag"), "", "tags are not for visitors");
    }
    assert_eq!(origin.count("/page"), 2);

    // The handler answers, with the environment that the site gives it.
    let greeting = one.get("shop.example", "/api/").await.expect(200);
    assert!(greeting.text().contains("good day"), "{greeting:?}");

    // A purge by tag: its receipt names both edges, and nothing older is served after it.
    number.store(2, Ordering::SeqCst);
    let old = one.get("shop.example", "/page").await;
    assert_eq!(old.text(), "number 1", "without a purge the old content stays");
    let body = json!({ "site": "shop", "selectors": [{ "tag": "page" }] });
    let receipt = control.purge("?wait=all&timeout=20s", &body).await;
    assert_eq!(receipt.status, 201, "{receipt:?}");
    let receipt = receipt.json();
    assert_eq!(receipt["complete"], true, "{receipt}");
    assert_eq!(receipt["applied"], 2, "{receipt}");
    assert!(receipt["matched"].as_u64() >= Some(2), "{receipt}");
    for edge in receipt["edges"].as_array().unwrap() {
        assert_eq!(edge["state"], "applied", "{receipt}");
        assert!(edge["latency_ms"].is_u64(), "{receipt}");
        assert!(edge["matched"].as_u64() >= Some(1), "{receipt}");
    }
    for edge in [&one, &two] {
        let fresh = edge.get("shop.example", "/page").await;
        assert_eq!(fresh.text(), "number 2", "{fresh:?}");
        assert!(edge.get("shop.example", "/page").await.is_hit());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_serve_without_the_control_plane_and_follow_it_again() {
    let (origin, number) = numbered().await;
    let (mut control, one, mut two) = chain().await;
    let revision = control.deploy("shop", &shop(&origin, "")).await;
    control.applied(revision, TWO).await;
    one.get("shop.example", "/page").await.expect(200);

    control.kill();
    assert!(one.get("shop.example", "/page").await.expect(200).is_hit());
    one.get("shop.example", "/other").await.expect(200);

    // An edge that is killed and starts while the control plane is away serves its last good state.
    two.restart().await;
    two.ready().await;
    two.get("shop.example", "/page").await.expect(200);

    // Back again, both reconnect by themselves and hear what comes next.
    control.resume().await;
    control.applied(revision, TWO).await;
    number.store(2, Ordering::SeqCst);
    let body = json!({ "site": "shop", "selectors": [{ "everything": true }] });
    let receipt = control.purge("?wait=all&timeout=20s", &body).await;
    assert_eq!(receipt.json()["complete"], true, "{receipt:?}");
    for edge in [&one, &two] {
        assert_eq!(edge.get("shop.example", "/page").await.text(), "number 2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_missed_while_away_is_replayed() {
    let (origin, number) = numbered().await;
    let (control, one, mut two) = chain().await;
    let revision = control.deploy("shop", &shop(&origin, "")).await;
    control.applied(revision, TWO).await;
    for edge in [&one, &two] {
        assert_eq!(edge.get("shop.example", "/page").await.text(), "number 1");
    }

    // Two goes silent without losing what it has stored; its connection breaks in the end.
    two.process.kill();
    number.store(2, Ordering::SeqCst);
    until("the control plane to notice that an edge is away", || async {
        let list = control.call("GET", "/v1/edges", None).await.json();
        let away = |edge: &serde_json::Value| edge["name"] == "two" && edge["connected"] == false;
        list["items"].as_array()?.iter().any(away).then_some(())
    })
    .await;
    let body = json!({ "site": "shop", "selectors": [{ "url": "/page" }] });
    let receipt = control.purge("?wait=all&timeout=300ms", &body).await;
    let told = receipt.json();
    assert_eq!(told["complete"], false, "{told}");
    assert_eq!((&told["applied"], &told["offline"]), (&json!(1), &json!(1)), "{told}");
    assert!(!told["notes"].as_array().unwrap().is_empty(), "an admin is told in words: {told}");
    assert_eq!(one.get("shop.example", "/page").await.text(), "number 2");

    two.restart().await;
    let path = format!("/v1/purges/{}?wait=all&timeout=20s", told["id"].as_str().unwrap());
    let receipt = control.call("GET", &path, None).await.expect(200).json();
    assert_eq!(receipt["complete"], true, "{receipt}");
    assert_eq!(two.get("shop.example", "/page").await.text(), "number 2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_activated_and_rolled_back() {
    let (first, _) = numbered().await;
    let second = Origin::always(200, &[("Cache-Control", "no-store")], "second").await;
    let (control, one, _two) = chain().await;
    control.applied(control.deploy("shop", &shop(&first, "")).await, &["one"]).await;
    assert_eq!(one.get("shop.example", "/page").await.text(), "number 1");

    control.applied(control.deploy("shop", &shop(&second, "")).await, &["one"]).await;
    assert_eq!(one.get("shop.example", "/unseen").await.text(), "second");

    let back = control.call("POST", "/v1/sites/shop/rollback", None).await.expect(200).json();
    assert_eq!((&back["version"], &back["previous"]), (&json!(1), &json!(2)), "{back}");
    control.applied(back["revision"].as_u64().unwrap(), &["one"]).await;
    assert_eq!(one.get("shop.example", "/unseen-too").await.text(), "number 1");

    let versions = control.call("GET", "/v1/sites/shop/versions", None).await.expect(200).json();
    assert_eq!(versions["items"].as_array().unwrap().len(), 2, "{versions}");
}
