//! Real assets from the npm registry through two edges: every file, cold and warm, by both protocols
//! and two kinds of client, must be what the origin has, byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::sync::Arc;
use tokio::task::JoinSet;
use verge_tests::process::repository;
use verge_tests::static_files::{self, File, Files, LAST_MODIFIED};
use verge_tests::{Control, Edge, Http1, Http2, Reply, site};

const HOST: &str = "assets.example";
/// Fewer files than this, and the set-up is not what it should be.
const LEAST_FILES: usize = 2_000;

/// What a client says of itself: curl says next to nothing, a browser a lot.
const CURL: &[(&str, &str)] = &[("User-Agent", "curl/8.5.0"), ("Accept", "*/*")];
const BROWSER: &[(&str, &str)] = &[
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    // Byte by byte what the origin has: what compressing makes of it is tried elsewhere.
    ("Accept-Encoding", "identity"),
    ("Sec-Fetch-Mode", "no-cors"),
    ("Priority", "u=2"),
];

enum Client {
    One(Http1),
    Two(Http2),
}

impl Client {
    async fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
        match self {
            Client::One(client) => client.request(method, HOST, path, fields, b"").await,
            Client::Two(client) => client.request(method, HOST, path, fields, b"").await,
        }
    }
}

fn check_whole(said: &str, reply: &Reply, file: &File) {
    assert_eq!(reply.status, 200, "{said}: {reply:?}");
    assert!(reply.whole, "{said}: cut");
    assert!(reply.body == file.body, "{said}: {} of {} bytes", reply.body.len(), file.body.len());
    check_fields(said, reply, file);
}

fn check_fields(said: &str, reply: &Reply, file: &File) {
    assert_eq!(reply.field("content-type"), file.kind, "{said}: {reply:?}");
    assert_eq!(reply.field("etag"), file.etag, "{said}: {reply:?}");
    assert_eq!(reply.field("last-modified"), LAST_MODIFIED, "{said}: {reply:?}");
    assert_eq!(reply.field("content-encoding"), "", "{said}: the origin has no encoded forms");
    assert_eq!(reply.field("cache-tag"), "", "{said}: {reply:?}");
}

fn with<'a>(fields: &'a [(&'a str, &'a str)], more: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    fields.iter().copied().chain([more]).collect()
}

/// Everything that must hold of one file through one client.
async fn check_file(
    client: &mut Client,
    fields: &[(&str, &str)],
    path: &str,
    file: &File,
    random: &mut StdRng,
) {
    let cold = client.request("GET", path, fields).await;
    check_whole(&format!("cold {path}"), &cold, file);
    let said = format!("warm {path}");
    let warm = client.request("GET", path, fields).await;
    check_whole(&said, &warm, file);
    assert!(warm.is_hit(), "{said}: {warm:?}");

    let said = format!("HEAD {path}");
    let head = client.request("HEAD", path, fields).await;
    assert_eq!(head.status, 200, "{said}: {head:?}");
    check_fields(&said, &head, file);
    for name in ["content-length", "cache-control", "accept-ranges", "vary"] {
        assert_eq!(head.field(name), warm.field(name), "{said}: {name}");
    }
    assert_eq!(head.field("content-length"), file.body.len().to_string(), "{said}");

    if !file.body.is_empty() {
        let first = random.random_range(0..file.body.len());
        let last = random.random_range(first..file.body.len());
        let range = format!("bytes={first}-{last}");
        let said = format!("{range} of {path}");
        let slice = client.request("GET", path, &with(fields, ("Range", &range))).await;
        assert_eq!(slice.status, 206, "{said}: {slice:?}");
        assert!(slice.body == file.body[first..=last], "{said}: {} bytes", slice.body.len());
        let expected = format!("bytes {first}-{last}/{}", file.body.len());
        assert_eq!(slice.field("content-range"), expected, "{said}");
        assert_eq!(slice.field("content-type"), file.kind, "{said}");
    }

    let known = client.request("GET", path, &with(fields, ("If-None-Match", &file.etag))).await;
    assert_eq!(known.status, 304, "If-None-Match {path}: {known:?}");
    assert_eq!(known.field("etag"), file.etag, "{path}");
    assert!(known.body.is_empty(), "{path}");
}

async fn check_all(
    files: Arc<Files>,
    mut client: Client,
    fields: &'static [(&str, &str)],
) -> usize {
    let mut random = StdRng::seed_from_u64(files.len() as u64);
    for (path, file) in files.iter() {
        check_file(&mut client, fields, path, file, &mut random).await;
    }
    files.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_is_what_the_origin_has() {
    let folder = repository().join("tests/site/node_modules");
    assert!(folder.is_dir(), "the assets are missing: run `make site`");
    let files = Arc::new(static_files::read(&folder));
    assert!(files.len() >= LEAST_FILES, "only {} files", files.len());

    let origin = static_files::serve(Arc::clone(&files)).await;
    let control = Control::start().await;
    let edges = [Edge::join(&control, "one").await, Edge::join(&control, "two").await];
    let routes = "[[routes]]\npath = \"/*\"\norigin = \"web\"\n";
    let text = site::for_domains("assets", &[HOST], &origin, routes);
    control.applied(control.deploy("assets", &text).await, &["one", "two"]).await;

    // Each combination begins cold: a purge of everything, receipted by both edges.
    for (protocol, fields) in [(1, CURL), (2, BROWSER), (1, BROWSER), (2, CURL)] {
        let everything = json!({ "site": "assets", "selectors": [{ "everything": true }] });
        let receipt = control.purge("?wait=all&timeout=20s", &everything).await.json();
        assert_eq!(receipt["complete"], true, "{receipt}");
        let before = origin.seen().len();
        let mut runs = JoinSet::new();
        for edge in &edges {
            let client = match protocol {
                1 => Client::One(edge.client().await),
                _ => Client::Two(edge.client2().await),
            };
            runs.spawn(check_all(Arc::clone(&files), client, fields));
        }
        while let Some(checked) = runs.join_next().await {
            assert_eq!(checked.unwrap(), files.len());
        }
        let asked = origin.seen().len() - before;
        assert_eq!(asked, 2 * files.len(), "one request for each file and edge");
    }
}

/// Where a Chromium is installed: the browser itself loads a page through an edge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_loads_a_page_where_there_is_one() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| std::process::Command::new(name).arg("--version").output().is_ok())
    else {
        eprintln!("no Chromium on this machine: nothing to load a page with");
        return;
    };
    let page = "<!doctype html><title>before</title><script src=\"/a.js\"></script>";
    let origin = verge_tests::Origin::start(move |seen| async move {
        let (kind, body) = match seen.path.as_str() {
            "/a.js" => ("text/javascript", "document.title = 'the script ran'"),
            _ => ("text/html", page),
        };
        verge_tests::answer(200, &[("Content-Type", kind), ("Cache-Control", "max-age=60")], body)
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    for round in ["cold", "warm"] {
        let profile = tempfile::TempDir::new().unwrap();
        let output = std::process::Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("http://{}/", edge.http))
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(shown.contains("the script ran"), "{round}: {shown}");
    }
    assert_eq!(origin.count("/a.js"), 1);
}
