//! What comes in wrong, from visitors, origins, developers: each gets its named answer, and the edge
//! goes on.

use serde_json::json;
use std::io::Write;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use verge_tests::http1::exchange;
use verge_tests::process::guest;
use verge_tests::wait::within;
use verge_tests::{Control, Edge, Http1, Origin, site};

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

/// A site that answers two hosts and one folder.
fn narrow(origin: &Origin) -> String {
    let routes = "[[routes]]\npath = \"/shop/*\"\norigin = \"web\"\n";
    site::for_domains("narrow", &["shop.example", "*.shop.example"], origin, routes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_hosts_and_paths_are_not_found() {
    let origin = Origin::always(200, FRESH, "here").await;
    let edge = Edge::standalone(narrow(&origin)).start().await;
    for (host, path, status) in [
        ("shop.example", "/shop/a", 200),
        ("SHOP.example.", "/shop/a", 200),
        ("www.shop.example:80", "/shop/a", 200),
        ("other.example", "/shop/a", 404),
        ("shop.example.evil", "/shop/a", 404),
        ("shop.example", "/else", 404),
    ] {
        for reply in [edge.get(host, path).await, edge.client2().await.get(host, path).await] {
            assert_eq!(reply.status, status, "{host}{path}: {reply:?}");
        }
    }
    assert!(origin.seen().iter().all(|seen| seen.path == "/shop/a"), "{:?}", origin.seen());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused_and_the_connection_ends() {
    let origin = Origin::always(200, FRESH, "here").await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let cases: &[&[u8]] = &[
        b"GET\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nName : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for case in cases {
        let shown = String::from_utf8_lossy(case);
        let mut client = Http1::connect(edge.http).await;
        client.send(case).await.unwrap();
        let reply = within(&format!("an answer to {shown:?}"), client.read_reply(false)).await;
        // A peer whose bytes are not HTTP at all may also just be cut off.
        if let Ok(reply) = reply {
            assert!(matches!(reply.status, 400 | 505), "{shown:?}: {reply:?}");
        }
        assert!(client.is_closed().await, "{shown:?}");
    }
    assert!(origin.seen().is_empty(), "nothing of it reached the origin: {:?}", origin.seen());
    // The control: the same client gets a plain request through.
    let good = exchange(edge.http, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(good.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversize_header_sections_get_431() {
    let origin = Origin::always(200, FRESH, "here").await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let large = "x".repeat(200_000);
    let mut one = edge.client().await;
    let fields = [("X-Large", large.as_str())];
    let reply = one.request("GET", "a.example", "/", &fields, b"").await;
    assert_eq!(reply.status, 431, "{reply:?}");
    let path = format!("/?{large}");
    let reply = edge.client().await.get("a.example", &path).await;
    assert!(matches!(reply.status, 414 | 431), "{reply:?}");
    let many: Vec<_> = (0..1_000).map(|index| (format!("X-{index}"), "y")).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let reply = edge.client().await.request("GET", "a.example", "/", &many, b"").await;
    assert_eq!(reply.status, 431, "{reply:?}");
    // HTTP/2: a status, or a stream refused; never a request at the origin.
    let mut two = edge.client2().await;
    if let Ok(reply) = two.try_request("GET", "a.example", "/", &fields, b"").await {
        assert_eq!(reply.status, 431, "{reply:?}");
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen().len());
    // The control: 30 KB of fields are no fault.
    let moderate = "x".repeat(30_000);
    let fields = [("X-Large", moderate.as_str())];
    edge.client().await.request("GET", "a.example", "/", &fields, b"").await.expect(200);
}

fn quick(origin: &Origin) -> String {
    let url = origin.url();
    format!(
        "site = \"test\"\ndomains = [\"*\"]\n\n[origins.web]\nurls = [{url:?}]\n\
         timeouts = {{ connect = \"500ms\", first_byte = \"500ms\", between_bytes = \"500ms\" }}\n\n\
         [[routes]]\npath = \"/*\"\norigin = \"web\"\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_not_there_is_a_502() {
    // A port that was free a moment ago, and that nobody listens on.
    let origin = Origin::always(200, FRESH, "here").await;
    let text = quick(&origin);
    drop(origin);
    let edge = Edge::standalone(text).start().await;
    for reply in [
        edge.get("a.example", "/a").await,
        edge.client2().await.get("a.example", "/a").await,
        edge.client().await.request("POST", "a.example", "/a", &[], b"body").await,
    ] {
        assert_eq!(reply.status, 502, "{reply:?}");
        assert!(reply.field("proxy-status").contains("connection_refused"), "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_says_nothing_is_a_504() {
    let origin = Origin::raw(|mut stream| async move {
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await;
    let edge = Edge::standalone(quick(&origin)).start().await;
    let reply = edge.get("a.example", "/a").await;
    assert_eq!(reply.status, 504, "{reply:?}");
    assert!(reply.field("proxy-status").contains("timeout"), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_talks_garbage_is_a_502() {
    for garbage in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"",
    ] {
        let origin = Origin::raw(move |mut stream| async move {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(garbage).await;
        })
        .await;
        let edge = Edge::standalone(quick(&origin)).start().await;
        let reply = edge.get("a.example", "/a").await;
        let shown = String::from_utf8_lossy(garbage);
        assert_eq!(reply.status, 502, "{shown:?}: {reply:?}");
        assert!(!reply.field("proxy-status").is_empty(), "{shown:?}: {reply:?}");
        assert!(reply.field("cache-control").contains("no-store"), "{shown:?}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_response_is_never_stored_nor_called_whole() {
    for cut in [
        &b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\nonly this"[..],
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    ] {
        let origin = Origin::raw(move |mut stream| async move {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(cut).await;
        })
        .await;
        let edge = Edge::standalone(quick(&origin)).start().await;
        for round in 0..3 {
            let mut client = edge.client().await;
            let reply = client.try_request("GET", "a.example", "/a", &[], b"").await;
            let shown = String::from_utf8_lossy(cut);
            if let Ok(reply) = reply {
                let told = reply.status >= 500 || !reply.whole;
                assert!(told, "round {round}: {shown:?} came out as whole: {reply:?}");
                assert!(!reply.is_hit(), "round {round}: {shown:?} was stored: {reply:?}");
            }
        }
        assert!(origin.connections() >= 3, "each one asked the origin again");
    }
}

/// An address that takes connections into its backlog and never answers: not even TCP is accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_behind_a_full_backlog_times_out() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let text = format!(
        "site = \"test\"\ndomains = [\"*\"]\n\n[origins.web]\nurls = [\"http://{address}\"]\n\
         timeouts = {{ connect = \"300ms\", first_byte = \"300ms\" }}\n\n\
         [[routes]]\npath = \"/*\"\norigin = \"web\"\n"
    );
    let edge = Edge::standalone(text).start().await;
    let reply = edge.get("a.example", "/a").await;
    assert_eq!(reply.status, 504, "{reply:?}");
    drop(socket);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_survives_half_requests_and_sudden_ends() {
    let origin = Origin::always(200, FRESH, "here").await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    for part in [
        "",
        "G",
        "GET / HTTP/1.1\r\nHo",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx",
    ] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(edge.http).await.unwrap();
            stream.write_all(part.as_bytes()).await.unwrap();
        }
    }
    edge.get("a.example", "/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faulty_sites_components_and_digests_are_refused_before_anything_is_stored() {
    let origin = Origin::always(200, FRESH, "here").await;
    let control = Control::start().await;

    let faulty = "site = \"shop\"\ndomains = [\"*\"]\ncolour = \"red\"\n\n[origins.web]\n\
                  urls = [\"ftp://x/\"]\n\n[[routes]]\npath = \"a\"\norigin = \"wb\"\n";
    let reply = control.upload_site("shop", faulty).await;
    assert_eq!(reply.status, 422, "{reply:?}");
    assert_eq!(reply.field("content-type"), "application/problem+json");
    let faults = reply.json()["faults"].as_array().unwrap().clone();
    for part in ["colour", "domains", "origins.web.urls", "routes[0].path", "routes[0].origin"] {
        let named = |fault: &serde_json::Value| fault.to_string().contains(part);
        assert!(faults.iter().any(named), "{part} is missing in {faults:?}");
    }
    control.call("GET", "/v1/sites/shop", None).await.expect(404);

    let token = control.admin_token.clone();
    let put = async |digest: &str, bytes: &[u8]| {
        control.send(&token, "PUT", &format!("/v1/blobs/{digest}"), "application/wasm", bytes).await
    };
    let digest_of = |bytes: &[u8]| {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest(bytes))
    };
    let component = std::fs::read(guest("hello-rust")).unwrap();
    let wrong = put(&"0".repeat(64), &component).await;
    assert_eq!(wrong.status, 400, "{wrong:?}");
    let module = b"\0asm\x01\0\0\0";
    for invalid in [&b"not wasm"[..], module, &component[..component.len() / 2], b""] {
        let digest = digest_of(invalid);
        let reply = put(&digest, invalid).await;
        assert_eq!(reply.status, 422, "{reply:?}");
        let head = control.call("HEAD", &format!("/v1/blobs/{digest}"), None).await;
        assert_eq!(head.status, 404, "an invalid component was stored");
    }
    // The control: the real one is taken, and a site that names it.
    let digest = digest_of(&component);
    assert!(put(&digest, &component).await.status < 300);
    control.call("HEAD", &format!("/v1/blobs/{digest}"), None).await.expect(200);
    let unknown = format!(
        "[handlers.greet]\ncomponent = \"sha256:{}\"\n\n\
         [[routes]]\npath = \"/*\"\nhandler = \"greet\"\n",
        "0".repeat(64)
    );
    let text = site::for_domains("shop", &["shop.example"], &origin, &unknown);
    let reply = control.upload_site("shop", &text).await;
    assert_eq!(reply.status, 422, "{reply:?}");
    let known = text.replace(&"0".repeat(64), &digest);
    assert_eq!(control.upload_site("shop", &known).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_and_missing_are_the_same_404() {
    let origin = Origin::always(200, FRESH, "here").await;
    let control = Control::start().await;
    control.deploy("shop", &narrow(&origin).replace("narrow", "shop")).await;
    let made = control.call("POST", "/v1/tenants", Some(&json!({ "name": "other" }))).await;
    assert!(made.status < 300, "{made:?}");
    let body = json!({ "name": "foreign", "scopes": ["admin"], "tenant": "other" });
    let foreign = control.call("POST", "/v1/tokens", Some(&body)).await.expect(201).json();
    let foreign = foreign["token"].as_str().unwrap();
    for (method, path, body) in [
        ("GET", "/v1/sites/NAME", None),
        ("GET", "/v1/sites/NAME/versions", None),
        ("GET", "/v1/sites/NAME/versions/1", None),
        ("PUT", "/v1/sites/NAME/active", Some(json!({ "version": 1 }))),
        ("POST", "/v1/sites/NAME/rollback", None),
        ("DELETE", "/v1/sites/NAME", None),
        ("POST", "/v1/purges", Some(json!({ "site": "NAME", "selectors": [{ "tag": "a" }] }))),
    ] {
        let ask = async |name: &str| {
            let body = body
                .clone()
                .map(|b| serde_json::from_str(&b.to_string().replace("NAME", name)).unwrap());
            let path = path.replace("NAME", name);
            let reply = control.call_as(foreign, method, &path, body.as_ref()).await;
            (reply.status, reply.text().replace(name, "NAME"))
        };
        let (theirs, missing) = (ask("shop").await, ask("nope").await);
        assert_eq!(theirs.0, 404, "{method} {path}: {theirs:?}");
        assert_eq!(theirs, missing, "{method} {path}");
    }
    // The control: its owner sees it.
    control.call("GET", "/v1/sites/shop", None).await.expect(200);
}

#[test]
fn problems_are_printed_whole_by_the_command_line() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("verge.toml");
    let mut text = std::fs::File::create(&file).unwrap();
    write!(text, "site = \"S\"\ndomains = []\n[[routes]]\npath = \"x\"\norigin = \"y\"\n").unwrap();
    let output = std::process::Command::new(verge_tests::process::binary("verge"))
        .args(["deploy", "--site"])
        .arg(&file)
        .env("VERGE_CONTROL", "http://127.0.0.1:9")
        .env("VERGE_TOKEN", "vrg_none")
        .env("XDG_CONFIG_HOME", folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["site", "domains", "routes[0].path", "routes[0].origin"] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
}
