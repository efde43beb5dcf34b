//! Tunnels: what passes once an origin has changed the protocol, and what a visitor is told when it
//! does not.

use std::future::Future;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use verge_tests::wait::{until, within};
use verge_tests::{Edge, Origin, site};

const ASK: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\n\
                     Upgrade: websocket\r\n\r\n";
const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                        Upgrade: websocket\r\nX-Origin: yes\r\n\r\n";
const LARGE: usize = 8 << 20;

/// A header section, and nothing of what follows.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a header section", stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

/// An origin that answers an upgrade with `first` in one write, and then does as `then` says.
async fn switching<F, A>(first: Vec<u8>, then: F) -> Origin
where
    F: Fn(TcpStream) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    Origin::raw(move |mut stream| {
        let (first, then) = (first.clone(), then.clone());
        async move {
            head(&mut stream).await;
            stream.write_all(&first).await.unwrap();
            then(stream).await;
        }
    })
    .await
}

/// A tunnel through `edge`, its header section read.
async fn tunnel(edge: &Edge) -> TcpStream {
    let mut visitor = TcpStream::connect(edge.http).await.unwrap();
    visitor.write_all(ASK).await.unwrap();
    let told = head(&mut visitor).await;
    assert!(told.starts_with("http/1.1 101 "), "{told}");
    for field in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "x-origin: yes\r\n"] {
        assert!(told.contains(field), "{told}");
    }
    visitor
}

async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    within("the end", stream.read_to_end(&mut rest)).await.unwrap();
    rest
}

fn large(seed: usize) -> Vec<u8> {
    (0..LARGE).map(|at| ((at / 4099 + at * seed) % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_101_that_comes_at_once_is_no_end() {
    let first = [SWITCH, b"welcome"].concat();
    let origin = switching(first, |mut stream| async move {
        let mut byte = [0; 1];
        while let Ok(1) = stream.read(&mut byte).await {
            stream.write_all(&byte).await.unwrap();
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    for turn in 0..300_u32 {
        let mut visitor = tunnel(&edge).await;
        let mut welcome = [0; 7];
        within("what came with it", visitor.read_exact(&mut welcome)).await.unwrap();
        assert_eq!(&welcome, b"welcome", "{turn}");
        visitor.write_all(&turn.to_be_bytes()).await.unwrap();
        let back = within("the echo", visitor.read_u32()).await.unwrap();
        assert_eq!(back, turn);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_visitor_sends_early_reaches_the_origin() {
    let origin = switching(SWITCH.to_vec(), |mut stream| async move {
        let mut seen = [0; 11];
        stream.read_exact(&mut seen).await.unwrap();
        stream.write_all(&seen).await.unwrap();
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut visitor = TcpStream::connect(edge.http).await.unwrap();
    visitor.write_all(&[ASK, b"early "].concat()).await.unwrap();
    assert!(head(&mut visitor).await.starts_with("http/1.1 101 "));
    visitor.write_all(b"later").await.unwrap();
    assert_eq!(rest(&mut visitor).await, b"early later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_passes_both_ways_at_once() {
    let (there, here) = (large(7), large(13));
    let (wanted, sent) = (there.clone(), here.clone());
    let origin = switching(SWITCH.to_vec(), move |mut stream| {
        let (wanted, sent) = (wanted.clone(), sent.clone());
        async move {
            let (mut reader, mut writer) = stream.split();
            let mut seen = vec![0; LARGE];
            let (read, written) =
                tokio::join!(reader.read_exact(&mut seen), writer.write_all(&sent));
            written.unwrap();
            read.unwrap();
            assert!(seen == wanted, "what reached the origin");
            writer.write_all(b"all").await.unwrap();
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut visitor = tunnel(&edge).await;
    let (mut reader, mut writer) = visitor.split();
    let (seen, written) = tokio::join!(rest(&mut reader), writer.write_all(&there));
    written.unwrap();
    assert_eq!(seen.len(), LARGE + 3);
    assert!(seen.starts_with(&here), "what reached the visitor");
    assert!(seen.ends_with(b"all"), "the origin had everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_one_direction_is_not_the_end_of_the_other() {
    let origin = switching(SWITCH.to_vec(), |mut stream| async move {
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).await.unwrap();
        seen.reverse();
        stream.write_all(&seen).await.unwrap();
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).with(&["--access-log"]).start().await;
    let mut visitor = tunnel(&edge).await;
    visitor.write_all(b"forwards").await.unwrap();
    visitor.shutdown().await.unwrap();
    assert_eq!(rest(&mut visitor).await, b"sdrawrof");
    // Its line says so once it has ended.
    until("the access log's line", || async {
        let log = edge.process.output();
        let line = log.lines().find(|line| line.contains("/chat"))?.replace('"', "");
        let told = ["status:101", "bytes:8", "route:0"].map(|part| line.contains(part));
        assert_eq!(told, [true; 3], "{line}");
        Some(())
    })
    .await;

    let origin = switching(SWITCH.to_vec(), |mut stream| async move {
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, b"still here");
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut visitor = tunnel(&edge).await;
    assert_eq!(rest(&mut visitor).await, b"bye");
    visitor.write_all(b"still here").await.unwrap();
    visitor.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_declines_is_passed_on() {
    let body = "x".repeat(300_000);
    for (status, length) in [(426, 300_000), (200, 300_000), (404, 0)] {
        let answer = format!(
            "HTTP/1.1 {status} So\r\nContent-Length: {length}\r\nX-Origin: yes\r\n\r\n{}",
            &body[..length]
        );
        let origin = switching(answer.into_bytes(), |stream| async move { drop(stream) }).await;
        let edge = Edge::standalone(site::plain(&origin)).start().await;
        let mut visitor = TcpStream::connect(edge.http).await.unwrap();
        // What follows is in the protocol that was asked for, and no request.
        let smuggled = b"GET /other HTTP/1.1\r\nHost: a.example\r\n\r\n";
        visitor.write_all(&[ASK, smuggled].concat()).await.unwrap();
        let told = head(&mut visitor).await;
        assert!(told.starts_with(&format!("http/1.1 {status} ")), "{told}");
        assert!(told.contains("x-origin: yes\r\n"), "{told}");
        assert!(told.contains("connection: close\r\n"), "{told}");
        assert_eq!(rest(&mut visitor).await.len(), length);
        assert_eq!(origin.connections(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_fails_is_told_as_elsewhere() {
    let other = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    for (first, hang, status, kind) in [
        (&b"220 mail.example ESMTP\r\n\r\n"[..], false, 502, "http_protocol_error"),
        (b"", false, 502, "connection_terminated"),
        (b"", true, 504, "http_response_timeout"),
        (other, true, 502, "http_protocol_error"),
    ] {
        let origin = switching(first.to_vec(), move |mut stream| async move {
            if hang {
                let _ = stream.read(&mut [0; 1]).await;
            }
        })
        .await;
        let text = format!(
            "site = \"t\"\ndomains = [\"*\"]\n[origins.web]\nurls = [\"{}\"]\n\
             timeouts = {{ first_byte = \"300ms\" }}\n[[routes]]\npath = \"/*\"\norigin = \"web\"\n",
            origin.url()
        );
        let edge = Edge::standalone(text).start().await;
        let mut visitor = TcpStream::connect(edge.http).await.unwrap();
        visitor.write_all(ASK).await.unwrap();
        let told = head(&mut visitor).await;
        assert!(told.starts_with(&format!("http/1.1 {status} ")), "{first:?}: {told}");
        assert!(told.contains(&format!("proxy-status: verge; error={kind}\r\n")), "{told}");
        assert!(!rest(&mut visitor).await.is_empty(), "a page");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_http_is_no_tunnel() {
    let origin = Origin::always(200, &[("Cache-Control", "max-age=60")], "content").await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut client = edge.client().await;
    let fields = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c")];
    for hit in [false, true] {
        let reply = client.request("GET", "a.example", "/", &fields, b"").await.expect(200);
        assert_eq!((reply.text().as_str(), reply.is_hit()), ("content", hit));
    }
    assert!(!origin.seen()[0].headers.contains_key("upgrade"));
}
