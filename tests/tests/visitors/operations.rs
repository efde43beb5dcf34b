//! What operators do and what happens to them: checks before a start, drains, a control plane that is
//! late, frozen or gone.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use verge_tests::process::binary;
use verge_tests::wait::within;
use verge_tests::{Control, Edge, Gate, Http1, Origin, answer, site, until};

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_judges_and_exits() {
    let origin = Origin::always(200, FRESH, "here").await;
    for (text, good) in [(site::plain(&origin), true), ("site = 1\n".to_owned(), false)] {
        let (arguments, folder) = Edge::standalone(text).prepare();
        let output =
            Command::new(binary("verge-edge")).args(arguments).arg("--check").output().unwrap();
        assert_eq!(output.status.success(), good, "{output:?}");
        drop(folder);
    }
    let folder = tempfile::TempDir::new().unwrap();
    let config = folder.path().join("control.toml");
    for (text, good) in
        [("listen = \"127.0.0.1:0\"\ndata_dir = \"d\"\n", true), ("nonsense", false)]
    {
        std::fs::write(&config, text).unwrap();
        let output = Command::new(binary("verge-control"))
            .arg("--config")
            .arg(&config)
            .arg("--check")
            .output()
            .unwrap();
        assert_eq!(output.status.success(), good, "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_open_requests_end() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            answer(200, FRESH, "whole")
        }
    })
    .await;
    let mut edge = Edge::standalone(site::plain(&origin)).start().await;
    let address = edge.http;
    let open =
        tokio::spawn(async move { Http1::connect(address).await.get("a.example", "/a").await });
    gate.reached().await;
    edge.process.terminate().unwrap();
    // It takes no new connections any more; the open request is not cut.
    until("the edge to stop listening", || async {
        tokio::net::TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    gate.open_for_good();
    let reply = within("the open request", open).await.unwrap().expect(200);
    assert_eq!(reply.text(), "whole");
    let code = until("the edge to end", || {
        let code = edge.process.exit_code();
        async move { code }
    })
    .await;
    assert_eq!(code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_comes_before_its_control_plane_waits_for_it() {
    let origin = Origin::always(200, FRESH, "here").await;
    let mut control = Control::start().await;
    let token = control.join_token().await;
    let routes = "[[routes]]\npath = \"/*\"\norigin = \"web\"\n";
    let text = site::for_domains("shop", &["shop.example"], &origin, routes);
    let revision = control.deploy("shop", &text).await;
    control.kill();
    let lines = "allow_private_origins = true\n";
    let edge = Edge::join_at(control.address, &token, "early", lines).await;
    assert_eq!(edge.admin("/healthz").await.status, 200, "it lives");
    assert_eq!(edge.admin("/readyz").await.status, 503, "and says that it has nothing to serve");
    assert!(edge.get("shop.example", "/").await.status >= 400);
    control.resume().await;
    control.applied(revision, &["early"]).await;
    edge.ready().await;
    edge.get("shop.example", "/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_replaced_is_followed_with_one_deployment() {
    let first = Origin::always(200, &[("Cache-Control", "no-store")], "first").await;
    let second = Origin::always(200, &[("Cache-Control", "no-store")], "second").await;
    let control = Control::start().await;
    let edge = Edge::join(&control, "one").await;
    let text = |origin: &Origin| {
        let routes = "[[routes]]\npath = \"/*\"\norigin = \"web\"\n";
        site::for_domains("shop", &["shop.example"], origin, routes)
    };
    control.applied(control.deploy("shop", &text(&first)).await, &["one"]).await;
    // Requests all the while: a deployment fails none of them.
    let stop = Arc::new(AtomicBool::new(false));
    let (address, stopped) = (edge.http, Arc::clone(&stop));
    let visitor = tokio::spawn(async move {
        let mut client = Http1::connect(address).await;
        let mut last = String::new();
        while !stopped.load(Ordering::SeqCst) {
            last = client.get("shop.example", "/").await.expect(200).text();
        }
        last
    });
    control.applied(control.deploy("shop", &text(&second)).await, &["one"]).await;
    assert_eq!(edge.get("shop.example", "/").await.text(), "second");
    stop.store(true, Ordering::SeqCst);
    within("the visitor", visitor).await.unwrap();
    // A site that is removed is not served any more.
    let gone = control.call("DELETE", "/v1/sites/shop", None).await;
    assert!(gone.status < 300, "{gone:?}");
    until("the site to be gone", || async {
        (edge.get("shop.example", "/").await.status == 404).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_not_in_the_logs() {
    let origin = Origin::always(200, FRESH, "here").await;
    let control = Control::start().await;
    let token = control.join_token().await;
    let lines = "allow_private_origins = true\n";
    let edge = Edge::join_at(control.address, &token, "one", lines).await;
    let routes = "[[routes]]\npath = \"/*\"\norigin = \"web\"\n";
    let text = site::for_domains("shop", &["shop.example"], &origin, routes);
    control.applied(control.deploy("shop", &text).await, &["one"]).await;
    control.call_as("vrg_canary-of-a-wrong-token", "GET", "/v1/sites", None).await.expect(401);
    let logs = control.output() + &edge.process.output();
    assert!(!logs.is_empty(), "the control: there are logs to look at");
    for secret in [&control.admin_token, &token, "canary-of-a-wrong-token"] {
        assert!(!logs.contains(secret), "a secret is in the logs");
    }
}
