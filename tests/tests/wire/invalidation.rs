//! What unsafe methods make invalid (RFC 9111 section 4.4).

use super::lab::{FRESH, Fields, HOST, Lab};
use verge_tests::Turn;

/// Whether what was stored for a path is still there: the origin would say something new.
async fn is_kept(lab: &Lab, path: &str) -> bool {
    lab.get(path).await.text() == "stored"
}

/// Stores a response for a path.
async fn store(lab: &Lab, path: &str, then: Turn) {
    lab.script.plan(path, [Turn::new(200, FRESH, "stored"), then, Turn::new(200, FRESH, "new")]);
    lab.get(path).await;
}

pub(crate) async fn unsafe_methods(lab: &Lab) {
    target_uris(lab).await;
    locations(lab).await;
    variants_and_neighbours(lab).await;
}

async fn target_uris(lab: &Lab) {
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FOO"] {
        for (status, kept) in
            [(200, false), (201, false), (204, false), (302, false), (400, true), (500, true)]
        {
            let id = format!("invalidate-{method}-{status}");
            let path = format!("/{id}");
            store(lab, &path, Turn::new(status, &[], "")).await;
            lab.ask(method, &path, &[]).await;
            lab.check(&id, is_kept(lab, &path).await == kept, format!("kept: {}", !kept));
        }
    }
    // A safe method makes nothing invalid.
    store(lab, "/options", Turn::new(200, &[], "")).await;
    lab.ask("OPTIONS", "/options", &[]).await;
    lab.check("invalidate-options", is_kept(lab, "/options").await, "gone");
}

/// Location and Content-Location, when they are of the same origin; others MUST NOT be touched.
async fn locations(lab: &Lab) {
    let other = format!("http://other.example/{}", "invalidated");
    let cases: &[(&str, &str, u16, String, bool)] = &[
        ("location", "Location", 201, "/target-location".into(), false),
        ("content-location", "Content-Location", 200, "/target-content-location".into(), false),
        (
            "location-absolute",
            "Location",
            303,
            format!("http://{HOST}/target-location-absolute"),
            false,
        ),
        (
            "location-case",
            "Location",
            201,
            format!("http://{}/target-location-case", HOST.to_uppercase()),
            false,
        ),
        ("location-relative", "Location", 201, "target-location-relative".into(), false),
        ("location-query", "Location", 201, "/target-location-query?a=1".into(), false),
        ("location-failed", "Location", 400, "/target-location-failed".into(), true),
        (
            "location-other-port",
            "Location",
            201,
            format!("http://{HOST}:81/target-location-other-port"),
            true,
        ),
        (
            "location-other-scheme",
            "Location",
            201,
            format!("https://{HOST}/target-location-other-scheme"),
            true,
        ),
    ];
    for (id, field, status, value, kept) in cases {
        let target = value.split_once(&format!("target-{id}")).map_or("", |(_, rest)| rest);
        let target = format!("/target-{id}{target}");
        lab.script.plan(&target, [Turn::new(200, FRESH, "stored"), Turn::new(200, FRESH, "new")]);
        lab.get(&target).await;
        let path = format!("/by-{id}");
        lab.script.plan(&path, [Turn::new(*status, &[(field, value)], "")]);
        lab.ask("POST", &path, &[]).await;
        lab.check(id, is_kept(lab, &target).await == *kept, format!("kept: {}", !kept));
    }
    lab.script
        .plan("/invalidated", [Turn::new(200, FRESH, "stored"), Turn::new(200, FRESH, "new")]);
    lab.ask_host("GET", "other.example", "/invalidated", &[], b"").await;
    lab.script.plan("/by-other", [Turn::new(201, &[("Location", &other)], "")]);
    lab.ask("POST", "/by-other", &[]).await;
    let reply = lab.ask_host("GET", "other.example", "/invalidated", &[], b"").await;
    lab.same("location-other-host", reply.text().as_str(), "stored", &reply);
}

async fn variants_and_neighbours(lab: &Lab) {
    // Every stored response of the URI, whatever it varies on.
    let varied: Fields = &[("Cache-Control", "max-age=3600"), ("Vary", "Foo")];
    lab.script.plan(
        "/variants",
        [
            Turn::new(200, varied, "1"),
            Turn::new(200, varied, "2"),
            Turn::new(204, &[], ""),
            Turn::new(200, varied, "3"),
            Turn::new(200, varied, "4"),
        ],
    );
    lab.ask("GET", "/variants", &[("Foo", "1")]).await;
    lab.ask("GET", "/variants", &[("Foo", "2")]).await;
    lab.ask("PUT", "/variants", &[]).await;
    let first = lab.ask("GET", "/variants", &[("Foo", "1")]).await;
    lab.same("invalidate-variants", first.text().as_str(), "3", &first);
    let second = lab.ask("GET", "/variants", &[("Foo", "2")]).await;
    lab.same("invalidate-variants", second.text().as_str(), "4", &second);

    // A neighbour stays.
    store(lab, "/neighbour", Turn::new(200, FRESH, "new")).await;
    lab.script.plan("/neighbour/below", [Turn::new(204, &[], "")]);
    lab.ask("DELETE", "/neighbour/below", &[]).await;
    lab.check("invalidate-neighbour", is_kept(lab, "/neighbour").await, "gone");
}
