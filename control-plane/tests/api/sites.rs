//! Sites: upload, list, activate, roll back, remove; faults all at once; clashes of domains.

use crate::harness::{Server, component, digest, document};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_immutable_and_the_pointer_moves() {
    let server = Server::start().await;
    let client = &server.operator;
    let first = client.post("/v1/sites/shop/versions", document("shop", "one")).await;
    assert_eq!(first.status, 201);
    assert_eq!(first.fields["location"], "/v1/sites/shop/versions/1");
    assert_eq!(first.json()["active"], false);
    let again = client.post("/v1/sites/shop/versions", document("shop", "one")).await;
    assert_eq!((again.status.as_u16(), again.json()["version"].clone()), (200, json!(1)));
    let second = client.post("/v1/sites/shop/versions", document("shop", "two")).await;
    assert_eq!(second.json()["version"], 2);

    let active = client.put("/v1/sites/shop/active", json!({"version": 1})).await.json();
    assert_eq!(active, json!({"site": "shop", "version": 1, "previous": null, "revision": 1}));
    let active = client.put("/v1/sites/shop/active", json!({"version": 2})).await.json();
    assert_eq!(active, json!({"site": "shop", "version": 2, "previous": 1, "revision": 2}));
    let same = client.put("/v1/sites/shop/active", json!({"version": 2})).await.json();
    assert_eq!(same["revision"], 2);
    let back = client.post("/v1/sites/shop/rollback", Value::Null).await.json();
    assert_eq!(back, json!({"site": "shop", "version": 1, "previous": 2, "revision": 3}));

    let stored = client.get("/v1/sites/shop/versions/2").await;
    assert_eq!(stored.json()["routes"][0]["static"]["body"], "two");
    let digest_of = second.json()["digest"].as_str().unwrap().to_owned();
    assert_eq!(digest(&stored.body), digest_of);
    let site = client.get("/v1/sites/shop").await.json();
    assert_eq!((site["active"].clone(), site["latest"].clone()), (json!(1), json!(2)));
    assert_eq!(site["domains"], json!(["shop.example"]));
    for missing in ["/v1/sites/none", "/v1/sites/shop/versions/3", "/v1/sites/shop/versions/x"] {
        assert_eq!(client.get(missing).await.status, 404, "{missing}");
    }
    assert_eq!(client.put("/v1/sites/shop/active", json!({"version": 9})).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn toml_is_taken_as_json_is() {
    let server = Server::start().await;
    let text = "site = 'shop'\ndomains = ['shop.example']\n[[routes]]\npath = '/*'\n\
                static = { status = 200, body = 'one' }\n";
    let toml = [("content-type", "application/toml; charset=utf-8")];
    let first = server.operator.send("POST", "/v1/sites/shop/versions", &toml, text).await;
    assert_eq!(first.status, 201, "{first:?}");
    let same = server.operator.post("/v1/sites/shop/versions", document("shop", "one")).await;
    assert_eq!(same.status, 200, "the same document in another notation");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_named_at_once() {
    let server = Server::start().await;
    let absent = "0".repeat(64);
    let body = json!({
        "site": "other",
        "domains": ["*", "a b"],
        "origins": {"web": {"urls": ["ftp://x"]}},
        "handlers": {"greet": {"component": format!("sha256:{absent}")}, "file": {"component": "x.wasm"}},
        "routes": [{"path": "/*", "origin": "wb"}],
    });
    let reply = server.operator.post("/v1/sites/shop/versions", body).await;
    assert_eq!(reply.status, 422);
    let faults = reply.faults().join("\n");
    for place in [
        "site: ",
        "domains[0]",
        "domains[1]",
        "origins.web.urls[0]",
        "handlers.greet.component: no blob sha256:0",
        "handlers.file.component",
        "routes[0].origin",
    ] {
        assert!(faults.contains(place), "{place} in {faults}");
    }
    let unknown = json!({"site": "shop", "domains": ["shop.example"], "rotes": []});
    let reply = server.operator.post("/v1/sites/shop/versions", unknown).await;
    assert_eq!(reply.status, 422);
    assert!(reply.faults().join("\n").contains("rotes"));
    let reply = server.operator.send("POST", "/v1/sites/shop/versions", &[], "{").await;
    assert_eq!(reply.status, 422);
    assert_eq!(server.operator.get("/v1/sites/shop").await.status, 404, "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn components_must_be_the_tenants_own() {
    let server = Server::start().await;
    let (a, b) = (server.role("a", &["admin"]).await, server.role("b", &["admin"]).await);
    let blob = component("x");
    let digest = digest(&blob);
    let path = format!("/v1/blobs/{digest}");
    assert_eq!(a.send("PUT", &path, &[], blob.clone()).await.status, 201);
    let body = |site: &str| {
        json!({
            "site": site,
            "domains": [format!("{site}.example")],
            "handlers": {"greet": {"component": format!("sha256:{digest}")}},
            "routes": [{"path": "/*", "handler": "greet"}],
        })
    };
    assert_eq!(a.post("/v1/sites/sa/versions", body("sa")).await.status, 201);
    let refused = b.post("/v1/sites/sb/versions", body("sb")).await;
    assert_eq!(refused.status, 422);
    assert!(refused.faults()[0].starts_with("handlers.greet.component: no blob"));
    assert_eq!(b.get(&path).await.status, 404);
    assert_eq!(b.send("PUT", &path, &[], blob).await.status, 201);
    assert_eq!(b.post("/v1/sites/sb/versions", body("sb")).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_guards_against_what_happened_meanwhile() {
    let server = Server::start().await;
    let client = &server.operator;
    client.deploy("shop", "one").await;
    client.post("/v1/sites/shop/versions", document("shop", "two")).await;
    let seen = client.get("/v1/sites/shop").await;
    let tag = seen.fields["etag"].to_str().unwrap().to_owned();
    let body = json!({"version": 2}).to_string();
    let path = "/v1/sites/shop/active";
    let stale = client.send("PUT", path, &[("if-match", "\"0\"")], body.clone()).await;
    assert_eq!(stale.status, 412);
    let fresh = client.send("PUT", path, &[("if-match", &tag)], body.clone()).await;
    assert_eq!(fresh.status, 200);
    let late = client.send("DELETE", "/v1/sites/shop", &[("if-match", &tag)], "").await;
    assert_eq!(late.status, 412);
    let any = client.send("PUT", path, &[("if-match", "*")], body).await;
    assert_eq!(any.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_belongs_to_one_site() {
    let server = Server::start().await;
    let (a, b) = (server.role("a", &["deploy"]).await, server.role("b", &["deploy"]).await);
    a.deploy("shop", "one").await;
    let mut other = document("rival", "x");
    other["domains"] = json!(["shop.example"]);
    assert_eq!(b.post("/v1/sites/rival/versions", other).await.status, 201);
    let clash = b.put("/v1/sites/rival/active", json!({"version": 1})).await;
    assert_eq!(clash.status, 409);
    assert!(clash.json()["detail"].as_str().unwrap().contains("shop.example"));
    let free = document("rival", "x");
    assert_eq!(b.post("/v1/sites/rival/versions", free).await.json()["version"], 2);
    assert_eq!(b.put("/v1/sites/rival/active", json!({"version": 2})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_site_frees_its_domains_and_keeps_its_name() {
    let server = Server::start().await;
    let (a, b) = (server.role("a", &["admin"]).await, server.role("b", &["admin"]).await);
    a.deploy("shop", "one").await;
    let removed = a.delete("/v1/sites/shop").await;
    assert_eq!(removed.status, 200);
    assert_eq!(removed.json()["previous"], 1);
    assert_eq!(a.get("/v1/sites/shop").await.status, 404);
    assert_eq!(a.delete("/v1/sites/shop").await.status, 404);
    assert_eq!(b.post("/v1/sites/shop/versions", document("shop", "x")).await.status, 404);
    let mut heir = document("heir", "x");
    heir["domains"] = json!(["shop.example"]);
    assert_eq!(b.post("/v1/sites/heir/versions", heir).await.status, 201);
    assert_eq!(b.put("/v1/sites/heir/active", json!({"version": 1})).await.status, 200);
    let anew = a.post("/v1/sites/shop/versions", document("shop", "one")).await;
    assert_eq!((anew.status.as_u16(), anew.json()["version"].clone()), (201, json!(2)));
    assert_eq!(a.put("/v1/sites/shop/active", json!({"version": 2})).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let server = Server::start().await;
    let client = &server.operator;
    for number in 0..5 {
        let marker = number.to_string();
        client.post("/v1/sites/shop/versions", document("shop", &marker)).await;
        client
            .post(&format!("/v1/sites/s{number}/versions"), document(&format!("s{number}"), ""))
            .await;
    }
    let mut versions = Vec::new();
    let mut path = "/v1/sites/shop/versions?limit=2".to_owned();
    loop {
        let page = client.get(&path).await.json();
        let items = page["items"].as_array().unwrap().clone();
        assert!(items.len() <= 2);
        versions.extend(items.iter().map(|item| item["version"].as_u64().unwrap()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/sites/shop/versions?limit=2&cursor={next}");
    }
    assert_eq!(versions, [5, 4, 3, 2, 1]);
    let page = client.get("/v1/sites?limit=4").await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 4);
    let rest = client.get(&format!("/v1/sites?cursor={}", page["next"].as_str().unwrap())).await;
    assert_eq!(rest.json()["items"].as_array().unwrap().len(), 2);
    assert_eq!(client.get("/v1/sites/shop/versions?cursor=x").await.status, 400);
}
