//! The protocols towards visitors: HTTP/2 with and without TLS, certificates by SNI, WebSocket,
//! streaming both ways.

use bytes::Bytes;
use std::sync::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use verge_tests::origin::streamed;
use verge_tests::tls::{Certificate, connect};
use verge_tests::wait::within;
use verge_tests::{Edge, Origin, answer, site};

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_with_prior_knowledge_shares_the_cache() {
    let origin = Origin::always(200, FRESH, "content").await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut two = edge.client2().await;
    let miss = two.get("a.example", "/a").await.expect(200);
    assert_eq!(miss.text(), "content");
    let hit = two.get("a.example", "/a").await.expect(200);
    assert!(hit.is_hit(), "{hit:?}");
    assert!(edge.get("a.example", "/a").await.is_hit(), "HTTP/1.1 has the same key");
    let head = two.request("HEAD", "a.example", "/a", &[], b"").await.expect(200);
    assert_eq!(head.field("content-length"), "7");
    let many = (0..50).map(|_| {
        let mut two = two.clone();
        async move { two.get("a.example", "/a").await.is_hit() }
    });
    assert!(futures::future::join_all(many).await.into_iter().all(|hit| hit));
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_chosen_by_sni() {
    let folder = TempDir::new().unwrap();
    let first = Certificate::make(folder.path(), &["a.example", "www.a.example"]);
    let second = Certificate::make(folder.path(), &["b.example"]);
    let both = [&first, &second];
    let origin = Origin::always(200, FRESH, "content").await;
    let edge = Edge::standalone(site::plain(&origin)).tls(&both).start().await;
    let address = edge.https.expect("an https listener");

    let one = connect(address, "a.example", &["http/1.1"], &both).await;
    assert!(first.is(&one.shown));
    assert_eq!(one.protocol.as_deref(), Some(&b"http/1.1"[..]));
    let reply = one.http1().get("a.example", "/a").await.expect(200);
    assert_eq!(reply.text(), "content");

    let two = connect(address, "b.example", &["h2", "http/1.1"], &both).await;
    assert!(second.is(&two.shown));
    assert_eq!(two.protocol.as_deref(), Some(&b"h2"[..]));
    let reply = two.http2().await.get("b.example", "/a").await.expect(200);
    assert_eq!(reply.text(), "content");

    let seen = origin.seen();
    let last = seen.last().unwrap();
    assert_eq!(last.headers["x-forwarded-proto"], "https", "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_the_certificate_does_not_name_is_misdirected() {
    let folder = TempDir::new().unwrap();
    let certificate = Certificate::make(folder.path(), &["a.example"]);
    let origin = Origin::always(200, FRESH, "content").await;
    let edge = Edge::standalone(site::plain(&origin)).tls(&[&certificate]).start().await;
    let address = edge.https.expect("an https listener");
    for protocol in ["http/1.1", "h2"] {
        let tls = connect(address, "a.example", &[protocol], &[&certificate]).await;
        let (right, wrong) = if protocol == "h2" {
            let mut client = tls.http2().await;
            (client.get("a.example", "/").await, client.get("b.example", "/").await)
        } else {
            let mut client = tls.http1();
            (client.get("a.example", "/").await, client.get("b.example", "/").await)
        };
        assert_eq!(right.status, 200, "{protocol}: {right:?}");
        assert_eq!(wrong.status, 421, "{protocol}: {wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes_both_ways() {
    let origin = Origin::raw(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.contains("upgrade: websocket"), "{head}");
        assert!(head.contains("sec-websocket-key: dghlihnhbxbszsbub25jzq=="), "{head}");
        let accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        stream.write_all(accept.as_bytes()).await.unwrap();
        // Whatever comes goes back, backwards: a peer that speaks no HTTP any more.
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            buffer[..count].reverse();
            stream.write_all(&buffer[..count]).await.unwrap();
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut client = edge.client().await;
    let fields = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let reply = client.request("GET", "a.example", "/chat", &fields, b"").await.expect(101);
    assert_eq!(reply.field("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    for (sent, expected) in [(&b"\x81\x02ab"[..], &b"ba\x02\x81"[..]), (b"1234567", b"7654321")] {
        client.send(sent).await.unwrap();
        let back = within("the peer", client.read_exactly(expected.len())).await.unwrap();
        assert_eq!(back, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_streams_to_the_visitor_before_it_is_whole() {
    let pieces = Mutex::new(None);
    let (first, sender) = streamed(200, FRESH);
    *pieces.lock().unwrap() = Some(first);
    let origin = Origin::start(move |_| {
        let answer = pieces.lock().unwrap().take().unwrap_or_else(|| answer(500, &[], "again"));
        async move { answer }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut client = edge.client().await;
    client.send(b"GET /s HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    sender.send(Ok(Bytes::from_static(b"first "))).unwrap();
    let (status, headers) = within("the head", client.read_head()).await.unwrap();
    assert_eq!(status, 200);
    // The origin has not ended yet; what it has sent is here all the same.
    let piece = within("the first piece", client.read_exactly(b"6\r\nfirst ".len())).await.unwrap();
    assert_eq!(&piece[piece.len() - 6..], b"first ", "{headers:?}");
    sender.send(Ok(Bytes::from_static(b"second"))).unwrap();
    drop(sender);
    let mut rest = Vec::new();
    while !rest.ends_with(b"0\r\n\r\n") {
        let more = within("the rest", client.read_some()).await.unwrap();
        assert!(!more.is_empty(), "the connection ended within the content");
        rest.extend(more);
    }
    let hit = edge.get("a.example", "/s").await;
    assert!(hit.is_hit(), "{hit:?}");
    assert_eq!(hit.text(), "first second");
    assert_eq!(hit.field("content-length"), "12", "the length is known once it is whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_reach_the_origin_whole() {
    let origin = Origin::start(|seen| async move {
        let sum: u64 = seen.body.iter().map(|byte| u64::from(*byte)).sum();
        answer(200, &[], format!("{} {} {sum}", seen.method, seen.body.len()))
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
    for method in ["POST", "PUT"] {
        let expected = format!("{method} 3000000 {sum}");
        let mut one = edge.client().await;
        let reply = one.request(method, "a.example", "/up", &[], &body).await.expect(200);
        assert_eq!(reply.text(), expected);
        let mut two = edge.client2().await;
        let reply = two.request(method, "a.example", "/up", &[], &body).await.expect(200);
        assert_eq!(reply.text(), expected);
        // Chunked, with a pause of one byte at its end.
        let mut one = edge.client().await;
        let head = format!(
            "{method} /up HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        one.send(head.as_bytes()).await.unwrap();
        for chunk in body.chunks(65_536) {
            one.send(format!("{:x}\r\n", chunk.len()).as_bytes()).await.unwrap();
            one.send(chunk).await.unwrap();
            one.send(b"\r\n").await.unwrap();
        }
        one.send(b"0\r\n\r\n").await.unwrap();
        let reply = within("a response", one.read_reply(false)).await.unwrap().expect(200);
        assert_eq!(reply.text(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_methods_pass_and_an_unsafe_one_ends_what_is_stored() {
    let origin = Origin::start(|seen| async move {
        answer(200, FRESH, format!("{} {}", seen.method, seen.body.len()))
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut client = edge.client().await;
    client.get("a.example", "/a").await.expect(200);
    assert!(client.get("a.example", "/a").await.is_hit());
    let options = client.request("OPTIONS", "a.example", "/a", &[], b"").await.expect(200);
    assert_eq!(options.text(), "OPTIONS 0");
    assert!(client.get("a.example", "/a").await.is_hit(), "OPTIONS is safe");
    let deleted = client.request("DELETE", "a.example", "/a", &[], b"").await.expect(200);
    assert_eq!(deleted.text(), "DELETE 0");
    let after = client.get("a.example", "/a").await;
    assert!(!after.is_hit(), "RFC 9111 section 4.4: {after:?}");
    assert_eq!(origin.seen().iter().filter(|seen| seen.method == "GET").count(), 2);
}
