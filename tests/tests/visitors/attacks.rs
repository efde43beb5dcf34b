//! What visitors and tenants try on purpose: poisoned keys, other people's content, forbidden
//! addresses, loops. Each with the control that shows that the test would see it.

use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use verge_tests::{Control, Edge, Origin, answer, site, until};

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

/// An origin that says back what a careless application builds its links from.
async fn careless() -> Origin {
    Origin::start(|seen| async move {
        let field = |name: &str| {
            seen.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
        };
        let told = json!({
            "path": seen.path,
            "host": field("x-forwarded-host"),
            "for": field("x-forwarded-for"),
            "original": field("x-original-url") + &field("x-rewrite-url"),
            "method": field("x-http-method-override"),
            "hop": field("x-hop"),
            "mark": field("x-mark"),
        });
        answer(200, FRESH, told.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_are_not_in_the_key_do_not_reach_the_origin_as_sent() {
    let origin = careless().await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let poison = [
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Original-URL", "/admin"),
        ("X-Rewrite-URL", "/admin"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Connection", "x-hop"),
        ("X-Hop", "evil"),
        ("X-Mark", "seen"),
    ];
    let mut client = edge.client().await;
    let reply = client.request("GET", "a.example", "/a", &poison, b"").await.expect(200).json();
    assert_eq!(reply["mark"], "seen", "the control: an ordinary field passes");
    let text = reply.to_string();
    for word in ["evil", "6.6.6.6", "/admin", "DELETE"] {
        assert!(!text.contains(word), "{word} came through: {reply}");
    }
    let seen = origin.seen();
    assert!(seen[0].headers.contains_key("via"), "{seen:?}");
    assert!(seen[0].headers.contains_key("cdn-loop"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_keyed_is_what_is_forwarded() {
    let origin = careless().await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let paths =
        ["/a", "//a", "/a/", "/./a", "/x/../a", "/%61", "/a%2f", "/a;x", "/a?x=1", "/a?x=1&x=1"];
    for path in paths {
        let first = edge.get("a.example", path).await.expect(200).json();
        let again = edge.get("a.example", path).await.expect(200).json();
        assert_eq!(first["path"], again["path"], "{path}");
        let forwarded = first["path"].as_str().unwrap();
        assert_eq!(origin.count(forwarded), 1, "{path} was sent on as {forwarded}");
    }
    for host in ["a.example", "A.EXAMPLE", "a.example.", "a.example:80"] {
        assert!(edge.get(host, "/a").await.is_hit(), "{host} is the same host");
    }
    assert!(!edge.get("b.example", "/a").await.is_hit(), "another host is another key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_never_crosses_users() {
    let next = Arc::new(AtomicUsize::new(0));
    let origin = Origin::start(move |seen| {
        let number = next.fetch_add(1, Ordering::SeqCst).to_string();
        async move {
            let cache = match seen.path.as_str() {
                "/private" => "private, max-age=3600",
                "/public" => "public, max-age=3600",
                _ => "max-age=3600",
            };
            let mut fields = vec![("Cache-Control", cache)];
            if seen.path == "/cookie" {
                fields.push(("Set-Cookie", "id=1"));
            }
            answer(200, &fields, number)
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let ask = async |path: &str, user: &str| {
        let fields = [("Authorization", user)];
        let mut client = edge.client().await;
        client.request("GET", "a.example", path, &fields, b"").await.expect(200)
    };
    for path in ["/account", "/private", "/cookie", "/style.css"] {
        let (one, two) = (ask(path, "Basic b25l").await, ask(path, "Basic dHdv").await);
        assert_ne!(one.text(), two.text(), "{path} crossed from one user to another");
    }
    let cookie = edge.get("a.example", "/cookie?x").await;
    assert_eq!(cookie.field("set-cookie"), "", "the control: only /cookie sets one");
    // The control: what the origin calls public is shared.
    let (one, two) = (ask("/public", "Basic b25l").await, ask("/public", "Basic dHdv").await);
    assert_eq!(one.text(), two.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_addresses_need_the_operators_switch() {
    let origin = Origin::always(200, FRESH, "inside").await;
    let control = Control::start().await;
    let open = Edge::join(&control, "open").await;
    let shut = Edge::join_with(&control, "shut", "").await;
    let port = origin.address.port();
    let notations = [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "0.0.0.0",
    ];
    let mut tried = 0;
    for (index, notation) in notations.iter().enumerate() {
        let text = site::for_domains(
            "inside",
            &["inside.example"],
            &origin,
            &format!("[[routes]]\npath = \"/{index}\"\norigin = \"web\"\n"),
        )
        .replace("127.0.0.1", notation);
        let uploaded = control.upload_site("inside", &text).await;
        if uploaded.status == 422 {
            continue;
        }
        tried += 1;
        let revision = control.deploy("inside", &text).await;
        control.applied(revision, &["open", "shut"]).await;
        let reply = shut.get("inside.example", &format!("/{index}")).await;
        assert!(reply.status >= 400, "{notation}: {reply:?}");
        assert_ne!(reply.text(), "inside", "{notation}:{port}");
        if index == 0 {
            // The control: with the switch it is reached, so the guard is what stops it.
            assert_eq!(open.get("inside.example", "/0").await.expect(200).text(), "inside");
        }
    }
    assert!(tried >= 1, "no notation was valid at all");
    let before = origin.seen().len();
    assert_eq!(before, 1, "only the open edge has reached it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_edges_that_point_at_each_other_are_a_loop() {
    let origin = Origin::always(200, FRESH, "here").await;
    let one = Edge::standalone(site::plain(&origin)).start().await;
    let two = Edge::standalone(site::plain(&origin)).start().await;
    let toward =
        |edge: &Edge| site::plain(&origin).replace(&origin.url(), &format!("http://{}", edge.http));
    std::fs::write(one.file("verge.toml"), toward(&two)).unwrap();
    std::fs::write(two.file("verge.toml"), toward(&one)).unwrap();
    // Each time another path: what was stored before the loop is no proof.
    let round = AtomicUsize::new(0);
    let reply = until("the loop to be told", || async {
        let path = format!("/round/{}", round.fetch_add(1, Ordering::SeqCst));
        let reply = one.get("a.example", &path).await;
        (reply.status >= 500).then_some(reply)
    })
    .await;
    assert!(matches!(reply.status, 502 | 508), "{reply:?}");
}
