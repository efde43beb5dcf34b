//! Debug tokens: holders are told why in the response, all others nothing, and the token goes nowhere.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::process::Command;
use verge_tests::process::binary;
use verge_tests::{Edge, Origin, Reply, answer, site};

const TOKEN: &str = "vdbg_canary0123456789";
const HOST: &str = "any.example";

const ROUTES: &str = "
[[routes]]
path = \"/static\"
static = { status = 200, body = \"here\" }

[[routes]]
path = \"/pass/*\"
origin = \"web\"
cache = { mode = \"bypass\" }

[[routes]]
path = \"/*\"
origin = \"web\"
";

/// A site with a token, before an origin whose answers say by their path what they are.
async fn debugged(more: &[&str]) -> (Origin, Edge) {
    let origin = Origin::start(|seen| async move {
        match seen.path.as_str() {
            "/private" => answer(200, &[("Cache-Control", "private")], "yours"),
            "/plain" => answer(200, &[], "plain"),
            _ => {
                let vary = ("Vary", "Accept-Language, Verge-Debug");
                answer(200, &[("Cache-Control", "max-age=60"), ("Cache-Tag", "a, b"), vary], "text")
            }
        }
    })
    .await;
    let hash = hex::encode(Sha256::digest(TOKEN));
    let text =
        format!("debug_tokens = [\"sha256:{hash}\"]\n{}", site::with_routes(&origin, ROUTES));
    let edge = Edge::standalone(text).with(more).start().await;
    (origin, edge)
}

async fn asked(edge: &Edge, path: &str, token: &str) -> Reply {
    edge.client().await.request("GET", HOST, path, &[("Verge-Debug", token)], b"").await
}

/// Members of `Verge-Explain` by name, as they are written.
fn explained(reply: &Reply) -> Vec<(String, String)> {
    let field = reply.field("verge-explain");
    assert!(!field.is_empty(), "{reply:?}");
    let mut members = Vec::new();
    let (mut start, mut quoted) = (0, false);
    for (at, c) in field.char_indices().chain([(field.len(), ',')]) {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                let (name, value) = field[start..at].trim().split_once('=').unwrap();
                members.push((name.to_owned(), value.to_owned()));
                start = at + 1;
            }
            _ => {}
        }
    }
    members
}

#[track_caller]
fn says(reply: &Reply, expected: &[(&str, &str)]) {
    let members = explained(reply);
    for (name, value) in expected {
        let found = members.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        assert_eq!(found, Some(*value), "{name} in {members:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_is_told_why_and_others_nothing() {
    let (origin, edge) = debugged(&[]).await;
    let miss = asked(&edge, "/a?q=1", TOKEN).await.expect(200);
    let key = "\"test http://any.example/a?q=1\"";
    says(
        &miss,
        &[
            ("decision", "miss"),
            ("rule", "2;path=\"/*\";target=\"origin web\""),
            ("key", key),
            ("tier", "none"),
            ("ttl-source", "max-age"),
            ("stored", "?1"),
        ],
    );
    let status = miss.cache_status();
    assert!(status.contains("fwd=uri-miss") && status.contains("; stored"), "{status}");
    assert!(status.contains(&format!("; key={key}")), "{status}");
    assert!(status.contains("; detail=max-age"), "{status}");
    assert!(miss.field("server-timing").contains("source;dur="), "{miss:?}");
    let hit = asked(&edge, "/a?q=1", TOKEN).await.expect(200);
    says(
        &hit,
        &[
            ("decision", "hit"),
            ("tier", "ram"),
            ("ttl-source", "max-age"),
            ("tags", "(\"a\" \"b\")"),
            ("epoch", "0"),
            ("stored", "?1"),
        ],
    );
    assert!(hit.is_hit() && hit.cache_status().contains("; key="), "{hit:?}");
    assert!(!hit.field("server-timing").contains("source;"), "{hit:?}");
    assert_eq!(hit.text(), miss.text());

    // Everybody else: no token, a wrong one, two of which one is right, the hash in the token's place.
    let hash = format!("sha256:{}", hex::encode(Sha256::digest(TOKEN)));
    let both = [("Verge-Debug", TOKEN), ("Verge-Debug", "x")];
    let mut client = edge.client().await;
    for reply in [
        edge.get(HOST, "/a?q=1").await,
        asked(&edge, "/a?q=1", "wrong").await,
        asked(&edge, "/a?q=1", &hash).await,
        client.request("GET", HOST, "/a?q=1", &both, b"").await,
    ] {
        assert!(reply.is_hit(), "the token is no part of the key or of Vary: {reply:?}");
        assert_eq!(reply.field("verge-explain"), "");
        assert_eq!(reply.field("server-timing"), "");
        assert!(!reply.cache_status().contains("key="), "{reply:?}");
    }
    assert_eq!(origin.count("/a?q=1"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_an_answer_says_so() {
    let (_origin, edge) = debugged(&[]).await;
    says(
        &asked(&edge, "/private", TOKEN).await,
        &[("decision", "miss"), ("stored", "?0"), ("why", "private")],
    );
    says(&asked(&edge, "/plain", TOKEN).await, &[("stored", "?0"), ("why", "no-lifetime")]);
    says(&asked(&edge, "/pass/x", TOKEN).await, &[("decision", "bypass"), ("why", "bypass")]);
    says(&asked(&edge, "/static", TOKEN).await, &[("decision", "static"), ("tier", "none")]);
    let mut client = edge.client().await;
    let fields = [("Verge-Debug", TOKEN)];
    let post = client.request("POST", HOST, "/x", &fields, b"body").await;
    says(&post, &[("decision", "bypass"), ("why", "method")]);
    // HTTP/2 is told the same.
    asked(&edge, "/h2", TOKEN).await.expect(200);
    let hit = edge.client2().await.request("GET", HOST, "/h2", &fields, b"").await;
    says(&hit, &[("decision", "hit"), ("tier", "ram")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_the_edges_own_says_what_failed() {
    let (origin, edge) = debugged(&[]).await;
    drop(origin);
    let failed = asked(&edge, "/gone", TOKEN).await;
    assert!(failed.status >= 500, "{failed:?}");
    says(&failed, &[("decision", "failed"), ("stored", "?0")]);
    assert_eq!(asked(&edge, "/gone", "wrong").await.field("verge-explain"), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_goes_nowhere() {
    let (origin, edge) = debugged(&["--access-log"]).await;
    for path in ["/a", "/a", "/private", "/pass/x", "/static"] {
        asked(&edge, path, TOKEN).await;
        asked(&edge, path, "vdbg_canary-that-is-wrong").await;
    }
    let mut client = edge.client().await;
    client.request("POST", HOST, "/x", &[("Verge-Debug", TOKEN)], b"body").await;
    let upgrade = [("Verge-Debug", TOKEN), ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let mut client = edge.client().await;
    let _ = client.try_request("GET", HOST, "/socket", &upgrade, b"").await;
    assert!(origin.count("/a") == 1 && origin.count("/x") == 1 && origin.count("/socket") == 1);
    for seen in origin.seen() {
        assert!(!format!("{:?}", seen.headers).contains("canary"), "{seen:?}");
        assert!(!seen.headers.contains_key("verge-debug"), "{seen:?}");
    }
    let log = edge.process.output();
    assert!(log.contains("/pass/x"), "the access log is on: {log}");
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_makes_a_token_that_works() {
    let made = Command::new(binary("verge")).args(["debug-token", "--json"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let (token, hash) = (made["token"].as_str().unwrap(), made["hash"].as_str().unwrap());
    let origin = Origin::always(200, &[("Cache-Control", "max-age=60")], "text").await;
    let text = format!("debug_tokens = [{hash:?}]\n{}", site::plain(&origin));
    let edge = Edge::standalone(text).start().await;
    says(&asked(&edge, "/a", token).await, &[("decision", "miss")]);
    assert_eq!(asked(&edge, "/a", TOKEN).await.field("verge-explain"), "");
}

/// A visitor's own wishes count by default, and not where the site says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sites_visitors_can_be_kept_from_the_origin() {
    for (line, hits) in [("", false), ("client_cache_control = \"ignore\"\n", true)] {
        let origin = Origin::always(200, &[("Cache-Control", "max-age=60")], "text").await;
        let text = format!("{line}{}", site::plain(&origin));
        let edge = Edge::standalone(text).start().await;
        edge.get(HOST, "/a").await.expect(200);
        for wish in ["no-cache", "max-age=0", "no-store", "min-fresh=3600"] {
            let mut client = edge.client().await;
            let fields = [("Cache-Control", wish)];
            let reply = client.request("GET", HOST, "/a", &fields, b"").await.expect(200);
            assert_eq!(reply.is_hit(), hits, "{line:?} {wish}: {reply:?}");
        }
        let mut client = edge.client().await;
        let reply = client.request("GET", HOST, "/a", &[("Pragma", "no-cache")], b"").await;
        assert_eq!(reply.is_hit(), hits, "{line:?}: {reply:?}");
        assert_eq!(origin.count("/a") > 1, !hits);
        let mut client = edge.client().await;
        let fields = [("Cache-Control", "only-if-cached")];
        let reply = client.request("GET", HOST, "/cold", &fields, b"").await;
        assert_eq!(reply.status, if hits { 200 } else { 504 }, "{line:?}: {reply:?}");
    }
}
