//! Responses whose content is in a file, over real sockets: every byte, slow visitors, files that give
//! less than they should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::reply::{SMALL_FILE, Sent};
use super::write::Asked;
use super::{Http1, Incoming, head};
use crate::front::deadline::Deadline;
use crate::front::testing::{Stored, context, pair, tls_pair};
use crate::listen::{Io, Limits};
use bytes::BytesMut;
use http::Method;
use std::io::{ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// Answers each request of a connection with the file, until the visitor leaves or a response is cut.
fn answer(io: Io, stored: &Arc<Stored>, limits: Limits) -> JoinHandle<Result<Option<Sent>>> {
    let context = context(limits);
    let stored = Arc::clone(stored);
    tokio::spawn(async move {
        let mut connection = Http1 {
            io,
            buffer: BytesMut::new(),
            clock: Deadline::new(limits.idle),
            draining: Box::pin(context.shutdown.clone().cancelled_owned()),
            context,
        };
        let mut last = None;
        while let Incoming::Head(raw) = connection.read_head().await? {
            let head = head::parse(&raw, 100, 1000).unwrap();
            let asked = Asked { head: head.method == Method::HEAD, http11: true, keep_alive: true };
            let sent = connection.write_reply(stored.reply(), asked, &mut None, false).await?;
            last = Some(sent);
            if sent != Sent::Whole {
                break;
            }
        }
        Ok(last)
    })
}

/// A response's header section, and its content as far as it came.
async fn response(stream: &mut (impl AsyncRead + Unpin), length: usize) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let mut content = Vec::new();
    stream.take(length as u64).read_to_end(&mut content).await.unwrap();
    (String::from_utf8(head).unwrap(), content)
}

async fn check(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), stored: &Stored) {
    for _ in 0..2 {
        stream.write_all(GET).await.unwrap();
        let (head, content) = response(stream, stored.bytes.len()).await;
        assert!(head.contains(&format!("content-length: {}\r\n", stored.bytes.len())), "{head}");
        assert!(content == stored.bytes, "{} of {} bytes", content.len(), stored.bytes.len());
    }
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (head, _) = response(stream, 0).await;
    assert!(head.contains(&format!("content-length: {}\r\n", stored.bytes.len())), "{head}");
}

fn sizes() -> Vec<usize> {
    let small = usize::try_from(SMALL_FILE).unwrap();
    vec![0, 1, small, small + 1, 100_000, (3 << 20) + 7]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_sent_whole_in_the_clear() {
    for size in sizes() {
        let stored = Arc::new(Stored::new(size));
        let (edge, mut visitor) = pair().await;
        let sent = answer(Io::plain(edge), &stored, Limits::default());
        check(&mut visitor, &stored).await;
        drop(visitor);
        assert_eq!(sent.await.unwrap().unwrap(), Some(Sent::Whole));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_sent_whole_encrypted() {
    for size in sizes() {
        let stored = Arc::new(Stored::new(size));
        let (edge, mut visitor) = tls_pair().await;
        let sent = answer(edge, &stored, Limits::default());
        check(&mut visitor, &stored).await;
        visitor.shutdown().await.unwrap();
        assert_eq!(sent.await.unwrap().unwrap(), Some(Sent::Whole));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_that_takes_little_at_a_time_gets_all() {
    let stored = Arc::new(Stored::new(12 << 20));
    let (edge, mut visitor) = pair().await;
    let sent = answer(Io::plain(edge), &stored, Limits::default());
    visitor.write_all(GET).await.unwrap();
    let (_, mut content) = response(&mut visitor, 10_000).await;
    let mut piece = vec![0; 50_000];
    while content.len() < stored.bytes.len() {
        let read = visitor.read(&mut piece).await.unwrap();
        assert_ne!(read, 0, "ended at {}", content.len());
        content.extend_from_slice(&piece[..read]);
        tokio::task::yield_now().await;
    }
    assert!(content == stored.bytes);
    drop(visitor);
    assert_eq!(sent.await.unwrap().unwrap(), Some(Sent::Whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_that_takes_nothing_is_late() {
    let stored = Arc::new(Stored::new(32 << 20));
    let limits = Limits { stall: Duration::from_millis(200), ..Limits::default() };
    let (edge, mut visitor) = pair().await;
    let sent = answer(Io::plain(edge), &stored, limits);
    visitor.write_all(GET).await.unwrap();
    assert_eq!(sent.await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_short_breaks_the_response_off() {
    for (size, kept) in [(100_000, 60_000), (100_000, 0), (9000, 8999), (5 << 20, 3 << 20)] {
        let stored = Arc::new(Stored::new(size));
        stored.cut(kept);
        for encrypted in [false, true] {
            let (head, content, sent) = if encrypted {
                let (edge, mut visitor) = tls_pair().await;
                let sent = answer(edge, &stored, Limits::default());
                visitor.write_all(GET).await.unwrap();
                let (head, content) = broken(&mut visitor).await;
                (head, content, sent)
            } else {
                let (edge, mut visitor) = pair().await;
                let sent = answer(Io::plain(edge), &stored, Limits::default());
                visitor.write_all(GET).await.unwrap();
                let (head, content) = broken(&mut visitor).await;
                (head, content, sent)
            };
            assert!(head.contains(&format!("content-length: {size}\r\n")), "{head}");
            assert!(content.len() as u64 <= kept, "{} of {kept}", content.len());
            assert!(stored.bytes.starts_with(&content));
            assert_eq!(sent.await.unwrap().unwrap(), Some(Sent::Cut), "{size} {kept} {encrypted}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_while_it_is_sent_breaks_the_response_off() {
    let stored = Arc::new(Stored::new(32 << 20));
    let (edge, mut visitor) = pair().await;
    let sent = answer(Io::plain(edge), &stored, Limits::default());
    visitor.write_all(GET).await.unwrap();
    let (_, mut content) = response(&mut visitor, 1000).await;
    stored.cut(20 << 20);
    visitor.read_to_end(&mut content).await.unwrap();
    assert!(content.len() <= 20 << 20, "{}", content.len());
    assert!(content.len() >= 1000 && stored.bytes.starts_with(&content));
    assert_eq!(sent.await.unwrap().unwrap(), Some(Sent::Cut));
}

/// A response up to the end of its connection, which may be untidy.
async fn broken(stream: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("a header section") + 4;
    let content = all.split_off(end);
    (String::from_utf8(all).unwrap(), content)
}

/// Nothing of a response may wait in the kernel for more that never comes.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_does_not_hold_the_header_section_back() {
    let stored = Arc::new(Stored::new(0));
    let (edge, mut visitor): (TcpStream, TcpStream) = pair().await;
    let _sent = answer(Io::plain(edge), &stored, Limits::default());
    visitor.write_all(GET).await.unwrap();
    let (head, _) = response(&mut visitor, 0).await;
    assert!(head.contains("content-length: 0\r\n"), "{head}");
}
