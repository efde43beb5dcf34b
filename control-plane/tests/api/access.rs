//! Every endpoint × every role × a foreign tenant (attacks P1, P2, P3, P6).

use crate::harness::{Client, Server, component, digest};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ROLES: &[&str] = &[
    "nobody",
    "stranger",
    "expired",
    "revoked",
    "admin",
    "deploy",
    "purge",
    "read",
    "operator",
    "watcher",
    "join",
    "edge",
    "removed-edge",
];

/// Who may use what; written down once more, beside the table in the code, so that a slip there shows.
#[rustfmt::skip]
const ALLOWED: &[(&str, &str, &[&str])] = &[
    ("GET", "/healthz", ROLES),
    ("GET", "/readyz", ROLES),
    ("GET", "/v1/openapi.json", ROLES),
    ("GET", "/metrics", &["operator", "watcher"]),
    ("GET", "/v1/sites", &["admin", "deploy", "read", "operator", "watcher"]),
    ("GET", "/v1/sites/{site}", &["admin", "deploy", "read"]),
    ("GET", "/v1/sites/{site}/versions", &["admin", "deploy", "read"]),
    ("GET", "/v1/sites/{site}/versions/{version}", &["admin", "deploy", "read"]),
    ("POST", "/v1/sites/{site}/versions", &["admin", "deploy"]),
    ("PUT", "/v1/sites/{site}/active", &["admin", "deploy"]),
    ("POST", "/v1/sites/{site}/rollback", &["admin", "deploy"]),
    ("POST", "/v1/sites/{site}/versions/{version}/previews", &["admin", "deploy"]),
    ("GET", "/v1/sites/{site}/previews", &["admin", "deploy", "read"]),
    ("DELETE", "/v1/sites/{site}/previews/{preview}", &["admin", "deploy"]),
    ("PUT", "/v1/sites/{site}/secrets/{secret}", &["admin", "deploy"]),
    ("GET", "/v1/sites/{site}/secrets", &["admin", "deploy", "read"]),
    ("GET", "/v1/edges/self/secrets/{site}", &["edge"]),
    ("DELETE", "/v1/sites/{site}/secrets/{secret}", &["admin", "deploy"]),
    ("PUT", "/v1/sites/{site}/kv/entry", &["admin", "deploy"]),
    ("GET", "/v1/sites/{site}/kv/entry", &["admin", "deploy", "read"]),
    ("GET", "/v1/sites/{site}/kv", &["admin", "deploy", "read"]),
    ("PUT", "/v1/edges/self/kv/{site}/entry", &["edge"]),
    ("GET", "/v1/edges/self/kv/{site}/entry", &["edge"]),
    ("GET", "/v1/edges/self/kv/{site}", &["edge"]),
    ("DELETE", "/v1/edges/self/kv/{site}/entry", &["edge"]),
    ("DELETE", "/v1/sites/{site}/kv/entry", &["admin", "deploy"]),
    ("PUT", "/v1/blobs/{digest}", &["admin", "deploy", "operator"]),
    ("HEAD", "/v1/blobs/{digest}", &["admin", "deploy", "read", "operator", "edge"]),
    ("GET", "/v1/blobs/{digest}", &["admin", "deploy", "read", "operator", "edge"]),
    ("POST", "/v1/purges", &["admin", "purge"]),
    ("GET", "/v1/purges", &["admin", "deploy", "purge", "read", "operator", "watcher"]),
    ("GET", "/v1/purges/{purge}", &["admin", "deploy", "purge", "read"]),
    ("GET", "/v1/explanations", &["admin", "deploy", "read"]),
    ("GET", "/v1/sites/{site}/tail", &["admin", "deploy", "read"]),
    ("GET", "/v1/edges", &["admin", "deploy", "purge", "read", "operator", "watcher"]),
    ("POST", "/v1/edges/self/reports", &["edge"]),
    ("POST", "/v1/edges/self/events", &["edge"]),
    ("POST", "/v1/edges/self/usage", &["edge"]),
    ("GET", "/v1/sites/{site}/usage", &["admin", "deploy", "read"]),
    ("GET", "/v1/feed", &["edge"]),
    ("GET", "/v1/audit", &["admin", "operator"]),
    ("GET", "/v1/tokens", &["admin", "operator"]),
    ("POST", "/v1/tokens", &["admin", "operator"]),
    ("GET", "/v1/tenants", &["operator"]),
    ("POST", "/v1/tenants", &["operator"]),
    ("POST", "/v1/edges", &["operator", "join"]),
    ("DELETE", "/v1/edges/{edge}", &["operator"]),
    ("DELETE", "/v1/tokens/{token}", &["admin", "operator"]),
    ("DELETE", "/v1/sites/{site}", &["admin"]),
];

/// Endpoints on a tenant's own things, which the operator has none of here (but the blob that it has
/// uploaded itself one row before).
const OWN: &[&str] = &["{site}", "{purge}", "{digest}"];

/// Endpoints that name a site elsewhere than in their path.
const OF_A_SITE: &[&str] = &["/v1/purges", "/v1/explanations"];

struct World {
    server: Server,
    site: String,
    purge: String,
    preview: String,
    token: String,
    digest: String,
}

/// Tenant "a" with a site, a blob, a purge and a token.
async fn world() -> World {
    let server = Server::start().await;
    let admin = server.role("a", &["admin"]).await;
    admin.deploy("shop", "one").await;
    admin.deploy("shop", "two").await;
    let blob = component("a");
    let digest = digest(&blob);
    assert_eq!(admin.send("PUT", &format!("/v1/blobs/{digest}"), &[], blob).await.status, 201);
    let purge = admin.purge("shop", "").await.json()["id"].as_str().unwrap().to_owned();
    let preview = admin.post("/v1/sites/shop/versions/1/previews", json!({})).await.json();
    let preview = preview["id"].as_str().unwrap().to_owned();
    let entry = "/v1/sites/shop/kv/entry?key=k";
    assert_eq!(admin.send("PUT", entry, &[], "v").await.status, 201);
    let made = admin.post("/v1/tokens", json!({"name": "spare", "scopes": ["read"]})).await.json();
    let token = made["id"].as_str().unwrap().to_owned();
    let _ = server.edge("spare").await;
    World { server, site: "shop".to_owned(), purge, preview, token, digest }
}

async fn role(server: &Server, role: &str) -> Client {
    match role {
        "nobody" => server.client(""),
        "stranger" => server.client(&format!("vrg_{}", "A".repeat(43))),
        "operator" => server.operator.clone(),
        "watcher" => server.role("operator", &["read"]).await,
        "join" => server.role("operator", &["join"]).await,
        "edge" => server.edge("e1").await.client,
        "removed-edge" => {
            let edge = server.edge("e2").await;
            assert_eq!(server.operator.delete("/v1/edges/e2").await.status, 204);
            edge.client
        }
        "expired" => {
            let body =
                json!({"name": "x", "scopes": ["admin"], "tenant": "a", "expires_in_seconds": 1});
            let token = server.operator.post("/v1/tokens", body).await.json();
            let client = server.client(token["token"].as_str().unwrap());
            assert_eq!(client.get("/v1/sites").await.status, 200);
            crate::harness::eventually("the token ends", async || {
                (client.get("/v1/sites").await.status == 401).then_some(())
            })
            .await;
            client
        }
        "revoked" => {
            let body = json!({"name": "x", "scopes": ["admin"], "tenant": "a"});
            let token = server.operator.post("/v1/tokens", body).await.json();
            let path = format!("/v1/tokens/{}", token["id"].as_str().unwrap());
            assert_eq!(server.operator.delete(&path).await.status, 204);
            server.client(token["token"].as_str().unwrap())
        }
        scope => server.role("a", &[scope]).await,
    }
}

/// What is sent to an endpoint: a request that succeeds for whoever may send it.
fn request(world: &World, method: &str, path: &str) -> (String, Vec<u8>) {
    let blob = component("a");
    let path = path
        .replace("{site}", &world.site)
        .replace("{version}", "1")
        .replace("{purge}", &world.purge)
        .replace("{preview}", &world.preview)
        .replace("{token}", &world.token)
        .replace("{secret}", "KEY")
        .replace("{edge}", "spare")
        .replace("{digest}", &world.digest)
        .replace("explanations", "explanations?url=https%3A%2F%2Fshop.example%2F")
        .replace("/entry", "/entry?key=k");
    let body = match (method, path.as_str()) {
        ("PUT", path) if path.starts_with("/v1/blobs/") => return (path.to_owned(), blob),
        ("POST", "/v1/edges") => json!({"name": "e9"}),
        ("POST", "/v1/edges/self/reports") => json!({"applied": 1}),
        ("POST", "/v1/edges/self/events") => json!({"tail": "tail_none"}),
        ("POST", "/v1/edges/self/usage") => json!({"epoch": "e1"}),
        ("POST", "/v1/tokens") => json!({"name": "n", "scopes": ["read"]}),
        ("POST", "/v1/tenants") => json!({"name": "fresh"}),
        ("POST", "/v1/purges") => json!({"site": world.site, "selectors": [{"tag": "t"}]}),
        ("PUT", path) if path.contains("/secrets/") => json!({"value": "one"}),
        ("PUT", path) if path.contains("/kv/") => return (path.to_owned(), b"v".to_vec()),
        ("PUT", _) => json!({"version": 1}),
        ("POST", path) if path.ends_with("/versions") => {
            crate::harness::document(&world.site, "three")
        }
        _ => Value::Null,
    };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    (path, body.into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_expectations_name_every_endpoint_there_is() {
    let server = Server::start().await;
    let document = server.client("").get("/v1/openapi.json").await.json();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            described.insert((method.to_uppercase(), path.clone()));
        }
    }
    let expected: BTreeSet<(String, String)> =
        ALLOWED.iter().map(|(method, path, _)| ((*method).into(), (*path).into())).collect();
    assert_eq!(described, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_do_what_it_may_and_nothing_else() {
    for name in ROLES {
        let world = world().await;
        let client = role(&world.server, name).await;
        for (method, path, allowed) in ALLOWED {
            let (target, body) = request(&world, method, path);
            let response = client.try_send(method, &target, &[], body).await.unwrap();
            let status = response.status();
            let place = format!("{name}: {method} {path} -> {status}");
            let anonymous =
                ["nobody", "stranger", "expired", "revoked", "removed-edge"].contains(name);
            if allowed.contains(name) {
                assert!(status.is_success(), "{place}");
            } else if anonymous {
                assert!(status == 401 || status == 429, "{place}");
            } else if ["operator", "watcher"].contains(name)
                && (OWN.iter().any(|own| path.contains(own)) || OF_A_SITE.contains(path))
            {
                // It has the scope, and not the thing.
                assert!(status == 404 || status == 403, "{place}");
            } else {
                assert_eq!(status, 403, "{place}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_foreign_is_as_if_it_were_not_there() {
    let world = world().await;
    let foreign = world.server.role("b", &["admin"]).await;
    for (method, path, _) in ALLOWED {
        let own = ["{site}", "{purge}", "{token}", "{digest}"].iter().find(|p| path.contains(*p));
        let is_list = (*method, *path) == ("GET", "/v1/purges");
        let of_a_site = OF_A_SITE.contains(path) && !is_list;
        // What is for edges has no tenants: none of them gets as far as a site.
        let for_edges = path.starts_with("/v1/edges/self/");
        let anyones = for_edges || (*method, *path) == ("PUT", "/v1/blobs/{digest}");
        if (own.is_none() && !of_a_site) || anyones {
            continue;
        }
        let (target, body) = request(&world, method, path);
        let there = foreign.send(method, &target, &[], body.clone()).await;
        assert_eq!(there.status, 404, "{method} {path}: {there:?}");
        if path.ends_with("/versions") && *method == "POST" {
            // A name that is free would be taken; so what is missing has no counterpart here.
            continue;
        }
        // The same for a thing that is nobody's, but for its name.
        let name = |text: &str| {
            text.replace("shop", "none")
                .replace(&world.purge, "prg_none")
                .replace(&world.token, "tok_none")
        };
        let name = |text: &str| name(text).replace(&world.digest, &"0".repeat(64));
        let missing = name(&target);
        let body = name(&String::from_utf8_lossy(&body));
        let missing = foreign.send(method, &missing, &[], body).await;
        assert_eq!(missing.status, 404);
        let (there, missing) =
            (String::from_utf8_lossy(&there.body), String::from_utf8_lossy(&missing.body));
        assert_eq!(name(&there), missing, "{method} {path}");
    }
    // Nothing of it shows in lists, and all of it is still there for its owner.
    assert_eq!(foreign.get("/v1/edges/self/secrets/shop").await.status, 403);
    for list in ["/v1/sites", "/v1/purges", "/v1/audit?limit=500", "/v1/tokens"] {
        let listed = foreign.get(list).await;
        assert_eq!(listed.status, 200);
        let text = String::from_utf8_lossy(&listed.body).into_owned();
        for canary in ["shop", &world.purge, &world.token] {
            assert!(!text.contains(canary), "{list} shows {canary}: {text}");
        }
    }
    let owner = world.server.role("a", &["admin"]).await;
    let site = owner.get("/v1/sites/shop").await.json();
    assert_eq!(site["active"], 2);
    assert_eq!(site["latest"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_admin_cannot_reach_beyond_it() {
    let server = Server::start().await;
    let admin = server.role("a", &["admin"]).await;
    let _ = server.role("b", &["admin"]).await;
    let foreign = json!({"name": "n", "scopes": ["admin"], "tenant": "b"});
    let missing = json!({"name": "n", "scopes": ["admin"], "tenant": "none"});
    assert_eq!(admin.post("/v1/tokens", foreign).await.status, 404);
    assert_eq!(admin.post("/v1/tokens", missing).await.status, 404);
    let operator = json!({"name": "n", "scopes": ["admin"], "tenant": "operator"});
    assert_eq!(admin.post("/v1/tokens", operator).await.status, 404);
    let join = json!({"name": "n", "scopes": ["join"]});
    assert_eq!(admin.post("/v1/tokens", join.clone()).await.status, 403);
    assert_eq!(server.operator.post("/v1/tokens", join).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_operator_cannot_lock_itself_out() {
    let server = Server::start().await;
    let tokens = server.operator.get("/v1/tokens").await.json();
    let first = format!("/v1/tokens/{}", tokens["items"][0]["id"].as_str().unwrap());
    assert_eq!(server.operator.delete(&first).await.status, 409);
    let second = server.role("operator", &["admin"]).await;
    assert_eq!(second.delete(&first).await.status, 204);
    assert_eq!(server.operator.get("/v1/sites").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_and_valid_tokens_are_not() {
    let server = Server::start().await;
    let guesser = server.client("vrg_guess");
    let mut limited = None;
    for _ in 0..200 {
        let reply = guesser.get("/v1/sites").await;
        if reply.status == 429 {
            limited = Some(reply);
            break;
        }
        assert_eq!(reply.status, 401);
        assert!(reply.fields["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
    let limited = limited.expect("a limit");
    assert!(limited.fields["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(server.operator.get("/v1/sites").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_shown_once_and_kept_as_hashes() {
    let server = Server::start().await;
    let made = server.operator.post("/v1/tokens", json!({"name": "ci", "scopes": ["read"]})).await;
    let secret = made.json()["token"].as_str().unwrap().to_owned();
    for list in ["/v1/tokens", "/v1/audit", "/metrics"] {
        let text = server.operator.get(list).await;
        let text = String::from_utf8_lossy(&text.body).into_owned();
        assert!(!text.contains(&secret) && !text.contains(&secret[4..]), "{list}");
    }
    // Neither in the store, in whatever file of it.
    let data = server.config.data_dir.clone();
    let mut read = 0;
    for entry in std::fs::read_dir(&data).unwrap().flatten() {
        if entry.path().is_file() {
            let content = std::fs::read(entry.path()).unwrap();
            read += content.len();
            let holds = |needle: &str| {
                content.windows(needle.len()).any(|window| window == needle.as_bytes())
            };
            assert!(!holds(&secret[4..]), "{:?}", entry.path());
        }
    }
    assert!(read > 0);
    assert_eq!(server.client(&secret).get("/v1/sites").await.status, 200);
}
