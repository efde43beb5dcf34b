//! HTTP/1.1 to visitors, byte by byte over real sockets, in front of an origin that counts.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use verge_edge::listen::Limits;

use crate::common::{Origin, raw, serve, serve_with};

const OK: &str = "HTTP/1.1 200 OK\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\nCache-Control: max-age=3000000\r\nContent-Length: 5\r\n\r\nhello";

fn site(origin: &Origin) -> String {
    format!(
        "site = \"t\"\ndomains = [\"*\"]\n[origins.web]\nurls = [\"http://{}\"]\n[[routes]]\npath = \"/*\"\norigin = \"web\"\n",
        origin.addr
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_keeps_the_stored_date_and_tells_its_age() {
    let origin = Origin::start(|_| OK.to_owned()).await;
    let edge = serve(&site(&origin)).await;
    let request = b"GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    let miss = raw(edge.addr, request).await;
    let hit = raw(edge.addr, request).await;
    assert!(miss.starts_with("HTTP/1.1 200 OK\r\n") && miss.ends_with("\r\n\r\nhello"), "{miss}");
    assert!(miss.contains("fwd=uri-miss") && miss.contains("stored"), "{miss}");
    assert!(hit.starts_with("HTTP/1.1 200 OK\r\n") && hit.ends_with("\r\n\r\nhello"), "{hit}");
    assert!(hit.contains("date: Mon, 02 Nov 2026 10:00:00 GMT"), "{hit}");
    assert!(hit.contains("cache-status: Verge; hit; ttl="), "{hit}");
    assert!(hit.to_ascii_lowercase().contains("\r\nage: "), "{hit}");
    assert_eq!(hit.to_ascii_lowercase().matches("content-length: 5").count(), 1, "{hit}");
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(|head| {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n{path}",
            path.len()
        )
    })
    .await;
    let edge = serve(&site(&origin)).await;
    let mut bytes = Vec::new();
    for path in ["/1", "/2", "/1", "/3"] {
        bytes.extend_from_slice(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"HEAD /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = raw(edge.addr, &bytes).await;
    let bodies: Vec<_> = answer.split("\r\n\r\n").skip(1).map(|s| &s[..s.len().min(2)]).collect();
    assert_eq!(bodies, ["/1", "/2", "/1", "/3", ""], "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 5);
    assert_eq!(origin.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_never_reach_the_origin() {
    let origin = Origin::start(|_| OK.to_owned()).await;
    let edge = serve(&site(&origin)).await;
    for (request, status) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("nonsense\r\n\r\n", "400"),
        ("GET / HTTP/4.0\r\nHost: a\r\n\r\n", "505"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", "417"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "400"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "405"),
    ] {
        let answer = raw(edge.addr, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}\n{answer}");
        assert!(answer.contains("connection: close"), "{request:?}\n{answer}");
    }
    assert_eq!(origin.count(), 0);
    // The control: the same origin hears of a request that is not ambiguous.
    raw(edge.addr, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn header_sections_have_a_size_and_a_deadline() {
    let origin = Origin::start(|_| OK.to_owned()).await;
    let limits = Limits { header: Duration::from_millis(300), ..Limits::default() };
    let edge = serve_with(&site(&origin), limits).await;
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    assert!(raw(edge.addr, large.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101));
    assert!(raw(edge.addr, many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let slow = raw(edge.addr, b"GET / HTTP/1.1\r\nHost: a\r\n").await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_stream_and_leave_the_connection_usable() {
    let origin = Origin::start(|request| {
        let content = request.split("\r\n\r\n").nth(1).unwrap_or_default().replace("\r\n", "|");
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len())
    })
    .await;
    let edge = serve(&site(&origin)).await;
    let mut stream = TcpStream::connect(edge.addr).await.unwrap();
    stream
        .write_all(
            b"POST /u HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n",
        )
        .await
        .unwrap();
    let mut interim = [0u8; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").await.unwrap();
    stream.write_all(b"def").await.unwrap();
    let request = b"POST /u HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nxyz\r\n0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\r\n\r\nabcdef"), "{answer}");
    assert!(answer.contains("xyz"), "{answer}");
    assert!(answer.contains("cache-status: Verge; fwd=method; fwd-status=200"), "{answer}");
    assert_eq!(origin.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_is_seen_to() {
    let origin = Origin::start(|head| {
        if head.contains("/short") {
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhello".to_owned()
        } else {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n".to_owned()
        }
    })
    .await;
    let edge = serve(&site(&origin)).await;
    for path in ["/chunked", "/chunked"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = raw(edge.addr, request.as_bytes()).await;
        let whole = answer.ends_with("0\r\n\r\n");
        assert!(!whole, "a broken response looks whole: {answer}");
    }
    assert!(origin.count() >= 2, "a broken response was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_of_a_static_route_says_what_get_says() {
    let origin = Origin::start(|_| OK.to_owned()).await;
    let file = format!(
        "{}\n[[routes]]\npath = \"/s\"\nstatic = {{ status = 200, body = \"fine\" }}\n",
        site(&origin).replace("\"/*\"", "\"/x/*\"")
    );
    let edge = serve(&file).await;
    let ask = |method| format!("{method} /s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let get = raw(edge.addr, ask("GET").as_bytes()).await;
    let head = raw(edge.addr, ask("HEAD").as_bytes()).await;
    assert!(get.contains("content-length: 4\r\n") && get.ends_with("\r\n\r\nfine"), "{get}");
    assert!(head.contains("content-length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_hosts_and_paths_are_404() {
    let origin = Origin::start(|_| OK.to_owned()).await;
    let file = site(&origin).replace("\"*\"]", "\"a.example\"]").replace("\"/*\"", "\"/x/*\"");
    let edge = serve(&file).await;
    for (host, path, status) in
        [("b.example", "/x/1", 404), ("a.example", "/y", 404), ("A.Example:8080", "/x/1", 200)]
    {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = raw(edge.addr, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host} {path}: {answer}");
    }
}
