//! Previews across a fleet: who reaches the version that is not active, who does not, and that the two
//! never meet in a cache.

use serde_json::{Value, json};
use std::process::Command;
use verge_tests::process::{binary, guest};
use verge_tests::{Control, Edge, Origin, Reply, answer, site, until};

struct Chain {
    origin: Origin,
    control: Control,
    one: Edge,
    two: Edge,
    hello: String,
}

/// A version whose handler and whose origin both say which one it is.
fn version(origin: &Origin, hello: &str, marker: &str) -> String {
    let rest = format!(
        "[handlers.hello]\ncomponent = {hello:?}\nenv = {{ GREETING = {marker:?} }}\n\n\
         [[routes]]\npath = \"/page\"\norigin = \"web\"\n\n\
         [[routes]]\npath = \"/{marker}\"\nstatic = {{ body = {marker:?} }}\n\n\
         [[routes]]\npath = \"/*\"\nhandler = \"hello\"\ncache = {{ position = \"before\" }}\n"
    );
    site::for_domains("shop", &["shop.example"], origin, &rest)
}

/// Two edges that serve version 1; version 2 is uploaded.
async fn chain() -> Chain {
    let fresh: &[(&str, &str)] = &[("Cache-Control", "max-age=3600"), ("Cache-Tag", "page")];
    let origin = Origin::start(move |seen| async move {
        let fields: Vec<_> = ["verge-preview", "cookie"]
            .iter()
            .map(|name| seen.headers.get(*name).map(|value| value.to_str().unwrap().to_owned()))
            .collect();
        answer(200, fresh, format!("{} {fields:?}", seen.path))
    })
    .await;
    let control = Control::start().await;
    let (one, two) = (Edge::join(&control, "one").await, Edge::join(&control, "two").await);
    let hello = control.upload(&guest("hello-rust")).await;
    let revision = control.deploy("shop", &version(&origin, &hello, "old")).await;
    control.applied(revision, &["one", "two"]).await;
    let uploaded = control.upload_site("shop", &version(&origin, &hello, "new")).await;
    assert_eq!(uploaded.expect(201).json()["version"], 2);
    Chain { origin, control, one, two, hello }
}

impl Chain {
    async fn preview(&self, version: u64, seconds: u64) -> Value {
        let path = format!("/v1/sites/shop/versions/{version}/previews");
        let body = json!({ "ttl_seconds": seconds });
        let made = self.control.call("POST", &path, Some(&body)).await.expect(201).json();
        self.control.applied(made["revision"].as_u64().unwrap(), &["one", "two"]).await;
        made
    }
}

async fn get(edge: &Edge, path: &str, fields: &[(&str, &str)]) -> Reply {
    edge.client().await.request("GET", "shop.example", path, fields, b"").await
}

async fn with(edge: &Edge, path: &str, token: &str) -> Reply {
    get(edge, path, &[("Verge-Preview", token)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_holder_of_a_token_reaches_the_version_and_nobody_else_does() {
    let chain = chain().await;
    let edges = [&chain.one, &chain.two];
    for edge in edges {
        // Stored for everybody before there is a preview.
        for path in ["/page", "/greet?ttl=60"] {
            get(edge, path, &[]).await.expect(200);
            assert!(get(edge, path, &[]).await.is_hit(), "{path}");
        }
    }
    let made = chain.preview(2, 3600).await;
    let token = made["token"].as_str().unwrap();
    for edge in edges {
        let greeting = with(edge, "/greet?ttl=60", token).await.expect(200);
        assert!(greeting.text().starts_with("new\n"), "{greeting:?}");
        assert_eq!(
            (greeting.field("verge-preview"), greeting.field("cache-control")),
            ("2", "private, no-store")
        );
        assert!(!greeting.is_hit(), "the other version's answer is not its own");
        assert_eq!(with(edge, "/new", token).await.expect(200).text(), "new");
        // Its own answers are stored, and only its own.
        assert!(with(edge, "/greet?ttl=60", token).await.is_hit());
        let active = get(edge, "/greet?ttl=60", &[]).await.expect(200);
        assert!(active.text().starts_with("old\n") && active.is_hit(), "{active:?}");
        assert_eq!(active.field("verge-preview"), "");
        // A stranger's token is as none, and is not passed on.
        for wrong in ["vpv_wrong", "", &token[..40]] {
            assert!(with(edge, "/greet", wrong).await.text().starts_with("old\n"), "{wrong}");
        }
        // With a token in the URL, a browser gets a cookie; with a wrong one, what it would get anyway.
        let strange = get(edge, "/__verge/preview?token=vpv_wrong", &[]).await;
        let plain = get(edge, "/__verge/other?token=vpv_wrong", &[]).await;
        assert_eq!((strange.status, strange.text()), (plain.status, plain.text()));
        let welcome = get(edge, &format!("/__verge/preview?token={token}"), &[]).await.expect(303);
        assert_eq!(
            (welcome.field("location"), welcome.field("cache-control")),
            ("/", "private, no-store")
        );
        let cookie = welcome.field("set-cookie").to_owned();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        let both = format!("a=1; {pair}; b=2");
        let page = get(edge, "/page", &[("Cookie", &both)]).await.expect(200);
        assert_eq!(page.field("verge-preview"), "2");
        // No origin sees the token, in whichever field it came.
        assert_eq!(page.text(), "/page [None, Some(\"a=1; b=2\")]");
    }
    for seen in chain.origin.seen() {
        let all: String = seen.headers.iter().map(|(_, value)| value.to_str().unwrap()).collect();
        assert!(!all.contains("vpv_"), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_ends_by_itself_and_by_hand() {
    let chain = chain().await;
    let (short, long) = (chain.preview(2, 2).await, chain.preview(2, 3600).await);
    let (brief, token) = (short["token"].as_str().unwrap(), long["token"].as_str().unwrap());
    for edge in [&chain.one, &chain.two] {
        assert_eq!(with(edge, "/new", token).await.expect(200).text(), "new");
        until("the short preview to end", || async {
            let reply = with(edge, "/new", brief).await;
            reply.text().starts_with("old\n").then_some(())
        })
        .await;
    }
    let path = format!("/v1/sites/shop/previews/{}", long["id"].as_str().unwrap());
    chain.control.call("DELETE", &path, None).await.expect(204);
    for edge in [&chain.one, &chain.two] {
        until("the preview to be gone", || async {
            with(edge, "/new", token).await.text().starts_with("old\n").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_reach_a_preview_and_a_slot_is_empty_for_the_next() {
    let chain = chain().await;
    let edge = &chain.one;
    let first = chain.preview(2, 3600).await;
    let token = first["token"].as_str().unwrap();
    for _ in 0..2 {
        with(edge, "/page", token).await.expect(200);
    }
    assert!(with(edge, "/page", token).await.is_hit(), "the control: it is stored");
    get(edge, "/page", &[]).await.expect(200);
    let asked = chain.origin.count("/page");
    let body = json!({ "site": "shop", "selectors": [{ "tag": "page" }] });
    let receipt = chain.control.purge("?wait=all&timeout=20s", &body).await.expect(201).json();
    let one = receipt["edges"].as_array().unwrap().iter().find(|edge| edge["edge"] == "one");
    assert_eq!(one.unwrap()["matched"], 2, "{receipt}");
    assert!(!with(edge, "/page", token).await.is_hit());
    assert_eq!(chain.origin.count("/page"), asked + 1);

    // The next one in the same place finds nothing of the one before.
    let path = format!("/v1/sites/shop/previews/{}", first["id"].as_str().unwrap());
    chain.control.call("DELETE", &path, None).await.expect(204);
    let second = chain.preview(1, 3600).await;
    let token = second["token"].as_str().unwrap();
    assert!(!with(edge, "/page", token).await.expect(200).is_hit());
    assert!(with(edge, "/page", token).await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_alone_keeps_its_previews() {
    let mut chain = chain().await;
    let made = chain.preview(2, 3600).await;
    let token = made["token"].as_str().unwrap();
    let mut other = chain.preview(2, 3600).await;
    let path = format!("/v1/sites/shop/previews/{}", other["id"].as_str().unwrap());
    chain.control.call("DELETE", &path, None).await.expect(204);
    let ended = other["revision"].as_u64().unwrap() + 1;
    let other = other["token"].take();
    chain.control.applied(ended, &["one"]).await;
    chain.control.kill();
    chain.one.restart().await;
    chain.one.ready().await;
    let reply = with(&chain.one, "/greet", token).await.expect(200);
    assert!(reply.text().starts_with("new\n"), "{reply:?}");
    let gone = with(&chain.one, "/new", other.as_str().unwrap()).await;
    assert!(gone.text().starts_with("old\n"), "what had ended does not come back: {gone:?}");
    assert!(get(&chain.one, "/greet", &[]).await.text().starts_with("old\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_makes_lists_and_ends_previews() {
    let chain = chain().await;
    let verge = |arguments: &[&str]| {
        let mut command = Command::new(binary("verge"));
        command
            .args(arguments)
            .args(["--control", &format!("http://{}", chain.control.address)])
            .args(["--token", &chain.control.admin_token]);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let made = verge(&["preview", "shop", "--ttl", "1h", "--json"]).await.unwrap();
    assert!(made.status.success(), "{made:?}");
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(made["version"], 2, "the newest");
    let token = made["token"].as_str().unwrap();
    chain.control.applied(made["revision"].as_u64().unwrap(), &["one"]).await;
    assert_eq!(with(&chain.one, "/new", token).await.expect(200).text(), "new");
    let listed = verge(&["preview", "shop", "--list"]).await.unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(made["id"].as_str().unwrap()) && !listed.contains(token), "{listed}");
    let ended = verge(&["preview", "shop", "--end", made["id"].as_str().unwrap()]).await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let listed = verge(&["preview", "shop", "--list", "--json"]).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&listed.stdout).unwrap(), json!([]));

    // A deployment that shows what would be, and changes nothing for visitors.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("verge.toml");
    std::fs::write(&file, version(&chain.origin, &chain.hello, "third")).unwrap();
    let file = file.display().to_string();
    let told = verge(&["deploy", "--site", &file, "--preview"]).await.unwrap();
    assert!(told.status.success(), "{told:?}");
    let text = String::from_utf8(told.stdout).unwrap();
    let url =
        text.split_whitespace().find(|word| word.contains("/__verge/preview?token=")).unwrap();
    let token = url.rsplit('=').next().unwrap();
    until("the new version to be seen", || async {
        (with(&chain.two, "/third", token).await.text() == "third").then_some(())
    })
    .await;
    assert!(get(&chain.two, "/greet", &[]).await.text().starts_with("old\n"));
}
