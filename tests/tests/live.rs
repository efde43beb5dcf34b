//! How long it takes from a component on a developer's disk to every edge, and back. The figures are
//! printed, not asserted tightly: a busy machine is no fault of the code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use verge_tests::process::{binary, guest};
use verge_tests::{Control, Edge, until};

/// What nobody would wait for.
const ENDLESS: Duration = Duration::from_secs(30);

async fn verge(control: &Control, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("verge"));
    command
        .args(arguments)
        .args(["--control", &format!("http://{}", control.address)])
        .args(["--token", &control.admin_token])
        .current_dir(folder);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// A site with one handler, whose greeting and component no edge has seen before.
fn write_version(folder: &Path, number: u8) {
    let mut component = fs::read(guest("hello-rust")).unwrap();
    // A custom section: another digest, the same code, and all of it to be compiled anew.
    component.extend_from_slice(&[0, 3, 1, b'n', number]);
    fs::write(folder.join("hello.wasm"), component).unwrap();
    let text = format!(
        "site = \"shop\"\ndomains = [\"shop.example\"]\n[handlers.hello]\n\
         component = \"hello.wasm\"\nenv = {{ GREETING = \"version {number}\" }}\n\
         [[routes]]\npath = \"/*\"\nhandler = \"hello\"\n"
    );
    fs::write(folder.join("verge.toml"), text).unwrap();
}

/// Waits until every edge answers with a version.
async fn answered_by(edges: &[&Edge], number: u8) {
    for edge in edges {
        until("the version to be live", || async {
            let reply = edge.get("shop.example", "/").await;
            reply.text().contains(&format!("version {number}\n")).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_is_soon_live_on_every_edge_and_gone_again() {
    let control = Control::start().await;
    let (one, two) = (Edge::join(&control, "one").await, Edge::join(&control, "two").await);
    let edges = [&one, &two];
    let folder = tempfile::tempdir().unwrap();
    let deploy = ["deploy", "--no-build", "--wait"];
    for number in 1..=3 {
        write_version(folder.path(), number);
        let started = Instant::now();
        let told = verge(&control, folder.path(), &deploy).await;
        assert!(told.status.success(), "{told:?}");
        let waited = started.elapsed();
        answered_by(&edges, number).await;
        let live = started.elapsed();
        println!("version {number}: live on both edges after {live:?}, known after {waited:?}");
        assert!(live < ENDLESS, "{live:?}");
    }
    let started = Instant::now();
    let told = verge(&control, folder.path(), &["rollback", "shop"]).await;
    assert!(told.status.success(), "{told:?}");
    answered_by(&edges, 2).await;
    println!("the rollback: live on both edges after {:?}", started.elapsed());
    assert!(started.elapsed() < ENDLESS);
}
