//! The key-value stores of sites: for tenants, for edges, and what edges are told of changes.

use crate::harness::{Client, Reply, Server};
use serde_json::{Value, json};

fn path(key: &str) -> String {
    format!("/v1/sites/shop/kv/entry?key={key}")
}

fn of_edges(site: &str, key: &str) -> String {
    format!("/v1/edges/self/kv/{site}/entry?key={key}")
}

async fn put(client: &Client, key: &str, value: impl Into<bytes::Bytes>) -> Reply {
    client.send("PUT", &path(key), &[], value).await
}

async fn keys(client: &Client, query: &str) -> (Vec<String>, Value) {
    let page = client.get(&format!("/v1/sites/shop/kv{query}")).await;
    assert_eq!(page.status, 200, "{page:?}");
    let page = page.json();
    let items = page["items"].as_array().unwrap();
    (items.iter().map(|i| i["key"].as_str().unwrap().to_owned()).collect(), page["next"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_written_read_listed_and_removed() {
    let server = Server::start().await;
    let client = &server.operator;
    client.deploy("shop", "one").await;
    let bytes: Vec<u8> = (0..=255).collect();
    // Whatever the key is, it is one key.
    for key in ["a%2F..%2Fb", ".", "..", "%C3%A9+x%26y%3Dz", "a%0Ab"] {
        let made = put(client, key, bytes.clone()).await;
        assert_eq!((made.status.as_u16(), &made.json()["bytes"]), (201, &json!(256)), "{key}");
        let again = put(client, key, "second").await;
        assert_eq!((again.status.as_u16(), &again.json()["bytes"]), (200, &json!(6)), "{key}");
        assert!(again.json()["revision"].as_u64() > made.json()["revision"].as_u64());
        let read = client.get(&path(key)).await;
        assert_eq!((read.status.as_u16(), &read.body[..]), (200, &b"second"[..]));
        assert_eq!(read.fields["content-type"], "application/octet-stream");
        assert_eq!(read.fields["etag"], format!("\"{}\"", again.json()["revision"]));
    }
    assert_eq!(put(client, "empty", "").await.status, 201);
    assert_eq!(client.get(&path("empty")).await.body.len(), 0);
    let (all, next) = keys(client, "").await;
    assert_eq!(all, [".", "..", "a\nb", "a/../b", "empty", "é x&y=z"]);
    assert_eq!(next, Value::Null);
    assert_eq!(keys(client, "?prefix=a").await.0, ["a\nb", "a/../b"]);
    assert_eq!(keys(client, "?prefix=b").await.0, [""; 0]);
    let (first, next) = keys(client, "?prefix=a&limit=1").await;
    assert_eq!((first, &next), (vec!["a\nb".to_owned()], &json!("a\nb")));
    assert_eq!(keys(client, "?prefix=a&limit=1&cursor=a%0Ab").await.0, ["a/../b"]);
    assert_eq!(client.delete(&path("empty")).await.status, 204);
    assert_eq!(client.delete(&path("empty")).await.status, 404);
    assert_eq!(client.get(&path("empty")).await.status, 404);

    // What was answered is there after a restart, values and sums.
    let server = server.restart().await;
    let client = &server.operator;
    assert_eq!(&client.get(&path(".")).await.body[..], b"second");
    assert_eq!(keys(client, "").await.0.len(), 5);
    let log = client.get("/v1/audit?limit=500").await.json();
    let acts: Vec<_> = log["items"].as_array().unwrap().iter().collect();
    let is = |act: &&&Value, what: &str| act["action"] == what;
    assert_eq!(acts.iter().filter(|act| is(act, "kv.put")).count(), 11);
    assert_eq!(acts.iter().filter(|act| is(act, "kv.delete")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_and_nothing_is_stored_beyond_them() {
    let server = Server::start_with(|config| {
        config.kv_rate.per_second = 100_000;
        config.kv_rate.burst = 1_000_000;
    })
    .await;
    let client = &server.operator;
    client.deploy("shop", "one").await;
    let mib = vec![b'v'; 1 << 20];
    let mut longer = mib.clone();
    longer.push(b'v');
    let refused = put(client, "k", longer).await;
    assert_eq!(refused.status, 413);
    assert!(refused.json()["detail"].as_str().unwrap().contains("1048576"), "{refused:?}");
    for key in ["", &"k".repeat(513)] {
        let odd = put(client, key, "v").await;
        assert_eq!(odd.status, 422, "{odd:?}");
        assert!(odd.faults()[0].contains("out of bounds: 1 to 512"), "{odd:?}");
    }
    assert_eq!(put(client, &"k".repeat(512), "v").await.status, 201);
    // Keys count as well: 63 MiB of values fit, and one more does not.
    for number in 0..63 {
        let made = put(client, &format!("{number:02}"), mib.clone()).await;
        assert_eq!(made.status, 201, "{number}: {made:?}");
    }
    let full = put(client, "63", mib.clone()).await;
    assert_eq!(full.status, 409, "{full:?}");
    let detail = full.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("bytes of the keys and values of this site's key-value store"));
    assert!(detail.contains("67108864"), "{detail}");
    assert_eq!(client.get(&path("63")).await.status, 404);
    // What is replaced or removed makes room, and a restart has not forgotten how much there is.
    let server = server.restart().await;
    let client = &server.operator;
    assert_eq!(put(client, "63", mib.clone()).await.status, 409);
    assert_eq!(put(client, "00", mib.clone()).await.status, 200);
    assert_eq!(client.delete(&path("00")).await.status, 204);
    assert_eq!(put(client, "63", mib).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_writes_much_is_slowed_and_others_are_not() {
    let server = Server::start_with(|config| {
        config.kv_rate.per_second = 1;
        config.kv_rate.burst = 3;
    })
    .await;
    let (a, b) = (server.role("a", &["admin"]).await, server.role("b", &["admin"]).await);
    a.deploy("shop", "one").await;
    b.deploy("blog", "one").await;
    let edge = server.edge("e").await.client;
    // Its own writes and those of its handlers count together.
    let mut slowed = None;
    for number in 0..8 {
        let reply = match number % 2 {
            0 => put(&a, "k", "v").await,
            _ => edge.send("PUT", &of_edges("shop", "k"), &[], "v").await,
        };
        if reply.status == 429 {
            slowed = Some(reply);
            break;
        }
        assert!(reply.status.is_success(), "{reply:?}");
    }
    let slowed = slowed.expect("a limit");
    assert!(slowed.fields.contains_key("retry-after"), "{slowed:?}");
    assert_eq!(edge.send("PUT", &of_edges("blog", "k"), &[], "v").await.status, 200);
    assert_eq!(edge.get(&of_edges("shop", "k")).await.status, 200, "reading goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_read_and_write_for_the_sites_that_they_serve() {
    let server = Server::start().await;
    let admin = server.role("a", &["admin"]).await;
    admin.deploy("shop", "one").await;
    let edge = server.edge("e").await.client;
    let at = of_edges("shop", "k");
    let absent = edge.get(&at).await;
    assert_eq!(
        (absent.status.as_u16(), &absent.fields["verge-kv-revision"]),
        (204, &"0".parse().unwrap())
    );
    let written = edge.send("PUT", &at, &[], "from the edge").await;
    assert_eq!(written.status, 200, "{written:?}");
    let revision = written.json()["revision"].as_u64().unwrap();
    assert_eq!(&admin.get(&path("k")).await.body[..], b"from the edge");
    let later = put(&admin, "other", "v").await.json()["revision"].as_u64().unwrap();
    assert!(later > revision);
    let read = edge.get(&at).await;
    assert_eq!(&read.body[..], b"from the edge");
    // As new as the site's last change, not as old as the entry.
    assert_eq!(read.fields["verge-kv-revision"], later.to_string());
    assert_eq!(edge.get("/v1/edges/self/kv/shop").await.json(), json!({"keys": ["k", "other"]}));
    let rest = edge.get("/v1/edges/self/kv/shop?skip=1").await.json();
    assert_eq!(rest, json!({"keys": ["other"]}));
    assert_eq!(edge.delete(&at).await.status, 200);
    let again = edge.delete(&at).await;
    assert_eq!((again.status.as_u16(), &again.json()["revision"]), (200, &json!(later + 1)));
    assert_eq!(edge.get(&at).await.status, 204);
    // A handler's writes are no acts of people.
    let log = admin.get("/v1/audit").await.json().to_string();
    assert!(log.contains("shop/other") && !log.contains("shop/k"), "{log}");

    // What is not served is not there: a site without an active version, and one of nobody.
    let uploaded = crate::harness::document("draft", "one");
    assert_eq!(admin.post("/v1/sites/draft/versions", uploaded).await.status, 201);
    for site in ["draft", "none"] {
        for (method, path) in [
            ("GET", of_edges(site, "k")),
            ("PUT", of_edges(site, "k")),
            ("DELETE", of_edges(site, "k")),
            ("GET", format!("/v1/edges/self/kv/{site}")),
        ] {
            assert_eq!(edge.send(method, &path, &[], "").await.status, 404, "{method} {path}");
        }
    }
    // Its tenant may fill it before.
    let early = admin.send("PUT", "/v1/sites/draft/kv/entry?key=k", &[], "v").await;
    assert_eq!(early.status, 201, "{early:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_are_told_of_changes_without_values() {
    let server = Server::start().await;
    let client = &server.operator;
    client.deploy("shop", "one").await;
    client.deploy("blog", "one").await;
    let edge = server.edge("e").await;
    let mut feed = edge.feed("?since=0").await;
    feed.until_head().await;
    put(client, "a%2Fb", "canary").await;
    let blog = "/v1/sites/blog/kv/entry?key=k";
    assert_eq!(client.send("PUT", blog, &[], "canary").await.status, 201);
    edge.client.delete(&of_edges("shop", "a%2Fb")).await;
    // What changes nothing is told to nobody.
    edge.client.delete(&of_edges("shop", "a%2Fb")).await;
    put(client, "c", "canary").await;
    let line = |revision: u64, site: &str, key: &str, after: u64| json!({"type": "entry", "revision": revision, "site": site, "key": key, "after": after});
    for expected in [
        line(3, "shop", "a/b", 0),
        line(4, "blog", "k", 0),
        line(5, "shop", "a/b", 3),
        line(6, "shop", "c", 5),
    ] {
        assert_eq!(feed.change().await, expected);
    }

    // Who was away is told of the sites, each once; with a site its entries go.
    assert_eq!(client.delete("/v1/sites/shop").await.status, 200);
    let server = server.restart().await;
    let client = &server.operator;
    let lines = server.edge("late").await.feed("?since=2").await.until_head().await;
    let whole = |revision: u64, site: &str| json!({"type": "entry", "revision": revision, "site": site, "after": 0});
    let entries: Vec<_> = lines.iter().filter(|line| line["type"] == "entry").collect();
    assert_eq!(entries, [&whole(4, "blog"), &whole(9, "shop")]);
    client.deploy("shop", "again").await;
    assert_eq!(keys(client, "").await.0, [""; 0], "made anew, it is empty");
    assert_eq!(client.get(&path("c")).await.status, 404);
    assert_eq!(put(client, "c", "v").await.status, 201);
}
