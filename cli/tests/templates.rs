//! What `verge init` writes builds, tests and deploys as it is, in every language.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{World, reuse_tools};
use tokio::process::Command;

/// Makes a site in a language, deploys it, and runs its own tests, with no step between.
async fn init_deploy_test(language: &str, tests: &[&str]) {
    let world = World::start().await;
    let name = format!("my-{language}");
    world.verge(&["init", "--lang", language, &name]).await.expect(0);
    let again = world.verge(&["init", "--lang", language, &name]).await.expect(2);
    assert!(again.err.contains("nothing was written"), "{again:?}");
    let folder = world.folder.path().join(&name);
    reuse_tools(&folder, language);
    let site = format!("{name}/verge.toml");
    let deployed = world.verge(&["deploy", "--site", &site, "--json"]).await.expect(0).json();
    assert_eq!(deployed["site"], name);
    assert_eq!(deployed["active"], true);
    assert_eq!(deployed["uploaded"].as_array().unwrap().len(), 1);

    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.contains(&tests.join(" ")), "{readme}");
    let ran = Command::new(tests[0]).args(&tests[1..]).current_dir(&folder).output().await.unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rust() {
    init_deploy_test("rust", &["cargo", "test"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript() {
    init_deploy_test("js", &["npm", "test"]).await;
}

/// As the guide says: one line in the world, and the SDK is imported by its path.
#[tokio::test(flavor = "multi_thread")]
async fn javascript_with_the_sdk() {
    let world = World::start().await;
    world.verge(&["init", "--lang", "js", "my-site"]).await.expect(0);
    let folder = world.folder.path().join("my-site");
    reuse_tools(&folder, "js");
    let handler = "import { config } from \"./verge/index.js\";\n\
                   addEventListener(\"fetch\", (event) => \
                   event.respondWith(new Response(config.get(\"greeting\"))));\n";
    world.write("my-site/handler.js", handler);
    let site = ["deploy", "--site", "my-site/verge.toml", "--json"];
    let ran = world.verge(&site).await.expect(1);
    assert!(ran.err.contains("verge:edge/"), "without the line: {ran:?}");

    let wit = std::fs::read_to_string(folder.join("wit/world.wit")).unwrap();
    let line = "world handler {\n  include verge:edge/imports@0.1.0;\n";
    world.write("my-site/wit/world.wit", &wit.replace("world handler {\n", line));
    let deployed = world.verge(&site).await.expect(0).json();
    assert_eq!(deployed["active"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn python() {
    init_deploy_test("python", &["python3", "-m", "unittest"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c() {
    init_deploy_test("c", &[".venv/bin/python", "build.py", "test"]).await;
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
