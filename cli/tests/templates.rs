//! What `verge init` writes builds and deploys as it is, in every language.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::World;
use std::path::Path;

/// Makes a site in a language and deploys it, with no step between.
async fn init_and_deploy(world: &World, language: &str) {
    let folder = format!("my-{language}");
    world.verge(&["init", "--lang", language, &folder]).await.expect(0);
    let again = world.verge(&["init", "--lang", language, &folder]).await.expect(2);
    assert!(again.err.contains("nothing was written"), "{again:?}");
    if language == "js" {
        reuse_packages(&world.folder.path().join(&folder));
    }
    let site = format!("{folder}/verge.toml");
    let deployed = world.verge(&["deploy", "--site", &site, "--json"]).await.expect(0).json();
    assert_eq!(deployed["site"], folder);
    assert_eq!(deployed["active"], true);
    assert_eq!(deployed["uploaded"].as_array().unwrap().len(), 1);
}

/// The packages of the example handler are the same by the same lock file; where they are installed
/// already, they need not be again.
fn reuse_packages(folder: &Path) {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-handlers/guests/hello-js");
    let installed = guest.join("node_modules");
    if installed.is_dir() {
        let installed = installed.canonicalize().unwrap();
        std::os::unix::fs::symlink(installed, folder.join("node_modules")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rust() {
    init_and_deploy(&World::start().await, "rust").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript() {
    init_and_deploy(&World::start().await, "js").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_is_told_and_sends_nothing() {
    let world = World::start().await;
    world.verge(&["init", "my-site"]).await.expect(0);
    world.write("my-site/src/lib.rs", "this is no Rust");
    let ran = world.verge(&["deploy", "--site", "my-site/verge.toml"]).await.expect(1);
    assert!(ran.err.contains("cargo build"), "{ran:?}");
    let sites = world.verge(&["sites", "--json"]).await.expect(0).json();
    assert_eq!(sites, serde_json::json!([]));
}
