//! Dry runs: the count of the purge itself without the purge, on one edge alone and across a fleet.

use serde_json::{Value, json};
use std::process::{Command, Output};
use verge_tests::process::binary;
use verge_tests::{Control, Edge, Origin, site, until};

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600"), ("Cache-Tag", "page")];
const ROUTES: &str = "[[routes]]\npath = \"/*\"\norigin = \"web\"\n";
const TWO: &[&str] = &["one", "two"];

/// What `verge` says, at this control plane.
async fn verge(control: &Control, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("verge"));
    command
        .args(arguments)
        .args(["--control", &format!("http://{}", control.address)])
        .args(["--token", &control.admin_token])
        .env_remove("VERGE_ADMIN");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn chain() -> (Origin, Control, Edge, Edge) {
    let origin = Origin::always(200, FRESH, "text").await;
    let control = Control::start().await;
    let (one, two) = (Edge::join(&control, "one").await, Edge::join(&control, "two").await);
    let text = site::for_domains("shop", &["shop.example"], &origin, ROUTES);
    let revision = control.deploy("shop", &text).await;
    control.applied(revision, TWO).await;
    (origin, control, one, two)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_edge_counts_and_keeps_everything() {
    let origin = Origin::always(200, FRESH, "text").await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    for path in ["/a", "/b?x=1"] {
        edge.get("any.example", path).await.expect(200);
    }
    let body = |dry: bool| json!({"selectors": [{"tag": "page"}], "dry_run": dry});
    let receipt = edge.purge(&body(true)).await.expect(200).json();
    assert_eq!((receipt["dry_run"].clone(), receipt["matched"].clone()), (json!(true), json!(2)));
    let counted = &receipt["edges"][0];
    assert_eq!(counted["state"], "counted");
    assert_eq!(counted["samples"], json!(["http://any.example/a", "http://any.example/b?x=1"]));
    let id = receipt["id"].as_str().unwrap();
    assert_eq!(edge.admin(&format!("/purges/{id}")).await.status, 404, "it is not kept");
    for path in ["/a", "/b?x=1"] {
        assert!(edge.get("any.example", path).await.expect(200).is_hit());
    }
    let again = edge.purge(&body(true)).await.expect(200).json();
    assert_eq!(again["revision"], receipt["revision"], "no revision was used up");
    // The control: the same without dry_run purges as many.
    let purged = edge.purge(&body(false)).await.expect(201).json();
    assert_eq!(purged["matched"], 2);
    assert!(!edge.get("any.example", "/a").await.expect(200).is_hit());
    let wrong = edge.purge(&json!({"selectors": [{"tag": "page"}], "dry_run": "yes"})).await;
    assert_eq!(wrong.status, 422, "{wrong:?}");
    assert_eq!(edge.purge(&json!({"selectors": [], "dry_run": true})).await.status, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_counts_edge_by_edge_and_names_those_away() {
    let (origin, control, one, mut two) = chain().await;
    for path in ["/a", "/b", "/c"] {
        one.get("shop.example", path).await.expect(200);
    }
    two.get("shop.example", "/a").await.expect(200);
    let body = |dry: bool| json!({"site": "shop", "selectors": [{"prefix": "/"}], "dry_run": dry});
    let receipt = control.purge("?timeout=20s", &body(true)).await.expect(200).json();
    assert_eq!(receipt["matched"], 4, "{receipt}");
    assert_eq!((receipt["complete"].clone(), receipt["applied"].clone()), (json!(true), json!(2)));
    assert_eq!(receipt["edges"][0]["matched"], 3);
    let samples = receipt["edges"][0]["samples"].as_array().unwrap().len();
    assert_eq!((samples, &receipt["edges"][1]["samples"]), (3, &json!(["http://shop.example/a"])));
    for path in ["/a", "/b", "/c"] {
        assert!(one.get("shop.example", path).await.expect(200).is_hit());
    }
    assert_eq!(origin.seen().len(), 4);

    // The command line shows the same, for people and for programs.
    let dry = ["purge", "--site", "shop", "--prefix", "/", "--dry-run", "--wait"];
    let told = verge(&control, &[&dry[..], &["--json"]].concat()).await;
    assert!(told.status.success(), "{told:?}");
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((told["dry_run"].clone(), told["matched"].clone()), (json!(true), json!(4)));
    let told = verge(&control, &dry).await;
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(text.contains("nothing is purged"), "{text}");
    assert!(text.contains("http://shop.example/c"), "{text}");

    two.process.kill();
    until("the control plane to notice that an edge is away", || async {
        let list = control.call("GET", "/v1/edges", None).await.json();
        let away = |edge: &Value| edge["name"] == "two" && edge["connected"] == false;
        list["items"].as_array()?.iter().any(away).then_some(())
    })
    .await;
    let receipt = control.purge("?timeout=20s", &body(true)).await.expect(200).json();
    assert_eq!((receipt["matched"].clone(), receipt["offline"].clone()), (json!(3), json!(1)));
    assert!(receipt["notes"].to_string().contains("edge two is offline"), "{receipt}");
    let told = verge(&control, &[&dry[..], &["--timeout", "100ms"]].concat()).await;
    assert_eq!(told.status.code(), Some(3), "not all have answered: {told:?}");

    // The control: a purge in earnest takes the next revision and leaves nothing.
    let purged = control.purge("?wait=quorum&timeout=1s", &body(false)).await.json();
    assert_eq!(purged["revision"].as_u64(), receipt["revision"].as_u64().map(|r| r + 1));
    until("the purge to reach the edge", || async {
        (!one.get("shop.example", "/a").await.is_hit()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_column_for_each_edge_of_an_explanation() {
    let (_origin, control, one, _two) = chain().await;
    one.get("shop.example", "/a").await.expect(200);
    let body = json!({"site": "shop", "selectors": [{"tag": "other"}, {"url": "/a"}]});
    control.purge("?wait=all&timeout=20s", &body).await.expect(201);
    one.get("shop.example", "/a").await.expect(200);
    let path = "/v1/explanations?url=http%3A%2F%2Fshop.example%2Fa&timeout=20s";
    let explained = control.call("GET", path, None).await.expect(200).json();
    assert_eq!(
        (explained["complete"].clone(), explained["site"].clone()),
        (json!(true), json!("shop"))
    );
    let [first, second] = [0, 1].map(|at| explained["edges"][at]["explanation"].clone());
    assert_eq!(
        (first["cache"]["state"].clone(), first["cache"]["tier"].clone()),
        (json!("fresh"), json!("ram"))
    );
    assert_eq!(first["cache"]["ttl_source"], "max_age");
    assert_eq!(first["cache"]["tags"], json!(["page"]));
    assert_eq!(first["rule"]["route"], "routes[0]");
    assert!(first["cache"]["why"].as_str().unwrap().contains("stored and fresh"), "{first}");
    assert_eq!(first["cache"]["last_purge"]["selector"], json!({"url": "/a"}));
    assert_eq!(
        (second["cache"]["state"].clone(), second["cache"]["tier"].clone()),
        (json!("absent"), json!("none"))
    );
    let told = verge(&control, &["explain", "http://shop.example/a", "--timeout", "20s"]).await;
    assert!(told.status.success(), "{told:?}");
    let text = String::from_utf8(told.stdout).unwrap();
    let rows: Vec<String> =
        text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(rows.contains(&"FIELD one two".to_owned()), "{text}");
    assert!(rows.contains(&"cache.state fresh absent".to_owned()), "{text}");

    // Another tenant's token learns nothing, not even that the host is known.
    control.call("POST", "/v1/tenants", Some(&json!({"name": "rival"}))).await.expect(201);
    let token = json!({"name": "r", "scopes": ["read"], "tenant": "rival"});
    let token = control.call("POST", "/v1/tokens", Some(&token)).await.expect(201).json();
    let token = token["token"].as_str().unwrap();
    assert_eq!(control.call_as(token, "GET", path, None).await.status, 404);
    let nobody = path.replace("shop.example", "nobody.example");
    assert_eq!(control.call_as(token, "GET", &nobody, None).await.status, 404);
}
