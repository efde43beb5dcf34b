//! HTTP/2 to visitors, frame by frame over real sockets: what floods of frames come to, and that the
//! same frames in moderation are served.

use std::io::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use verge_edge::listen::Limits;

use crate::common::{Origin, Served, serve_with};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;
/// What a flood may come to before it is stopped, in bytes.
const FLOOD: usize = 64 << 20;

fn site(origin: &Origin) -> String {
    format!(
        "site = \"t\"\ndomains = [\"*\"]\n[origins.web]\nurls = [\"http://{}\"]\n[[routes]]\npath = \"/*\"\norigin = \"web\"\n",
        origin.addr
    )
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A literal field without indexing (RFC 7541 section 6.2.2), its name written out.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        out.push(u8::try_from(text.len()).unwrap());
        out.extend_from_slice(text.as_bytes());
    }
    out
}

fn get(path: &str) -> Vec<u8> {
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

struct Raw {
    stream: TcpStream,
}

impl Raw {
    async fn connect(served: &Served) -> Raw {
        Raw::over(TcpSocket::new_v4().unwrap(), served).await
    }

    /// A connection whose visitor has small buffers, so that what it does not read is soon felt.
    async fn narrow(served: &Served) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8192).unwrap();
        socket.set_send_buffer_size(8192).unwrap();
        Raw::over(socket, served).await
    }

    async fn over(socket: TcpSocket, served: &Served) -> Raw {
        let mut stream = socket.connect(served.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Raw { stream }
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<()> {
        self.stream.write_all(&frame(kind, flags, stream, payload)).await
    }

    /// The next frame: kind, flags, stream, payload.
    async fn next(&mut self) -> Result<(u8, u8, u32, Vec<u8>)> {
        let reading = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await?;
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await?;
            let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
            Ok((head[3], head[4], stream, payload))
        };
        match tokio::time::timeout(Duration::from_secs(10), reading).await {
            Ok(frame) => frame,
            Err(_) => Err(Error::from(ErrorKind::TimedOut)),
        }
    }

    /// Reads to the end of the connection; the reason of its GOAWAY, where it has one.
    async fn goaway(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Ok((kind, _, _, payload)) = self.next().await {
            if kind == GOAWAY {
                reason = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        reason
    }

    /// Asks for a path and waits until the response's end.
    async fn fetch(&mut self, stream: u32, path: &str) {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &get(path)).await.unwrap();
        self.until_end(stream).await;
    }

    async fn until_end(&mut self, stream: u32) {
        loop {
            let (kind, flags, of, _) = self.next().await.expect("a response");
            assert_ne!((kind, of), (RST_STREAM, stream));
            assert_ne!(kind, GOAWAY);
            if of == stream && flags & END_STREAM != 0 && (kind == DATA || kind == HEADERS) {
                return;
            }
        }
    }

    /// Sends the same bytes again and again without reading; whether the edge ended it, by taking no
    /// more and closing, before `FLOOD` bytes.
    async fn flood(&mut self, bytes: &[u8]) -> bool {
        let mut sent = 0;
        while sent < FLOOD {
            let writing = self.stream.write_all(bytes);
            match tokio::time::timeout(Duration::from_secs(10), writing).await {
                Ok(Ok(())) => sent += bytes.len(),
                Ok(Err(_)) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

async fn start(limits: Limits) -> (Origin, Served) {
    let origin = Origin::start(|_| {
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhello".to_owned()
    })
    .await;
    let served = serve_with(&site(&origin), limits).await;
    (origin, served)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_as_fast_as_they_open_end_the_connection() {
    let (origin, served) = start(Limits::default()).await;
    // The control: as many requests that are not reset.
    let mut good = Raw::connect(&served).await;
    for at in 0..300 {
        good.fetch(2 * at + 1, &format!("/good{at}")).await;
    }
    let before = origin.count();
    let mut raw = Raw::connect(&served).await;
    let burst = |from: u32| {
        (from..from + 100).flat_map(|at| {
            let mut bytes =
                frame(HEADERS, END_STREAM | END_HEADERS, 2 * at + 1, &get(&format!("/bad{at}")));
            bytes.extend(frame(RST_STREAM, 0, 2 * at + 1, &8u32.to_be_bytes()));
            bytes
        })
    };
    for from in (0..10_000).step_by(100) {
        let bytes: Vec<u8> = burst(from).collect();
        if raw.stream.write_all(&bytes).await.is_err() {
            break;
        }
    }
    assert_eq!(raw.goaway().await, Some(ENHANCE_YOUR_CALM));
    assert!(origin.count() - before < 500, "{}", origin.count() - before);
}

/// Paced, so that each stream is under way when it is reset: the library's own count, of streams that
/// were reset before they were seen, does not rise.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_while_they_are_served_end_the_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!(
        "site = \"t\"\ndomains = [\"*\"]\n[origins.web]\nurls = [\"http://{}\"]\n[[routes]]\npath = \"/*\"\norigin = \"web\"\ncache = {{ mode = \"bypass\" }}\n",
        listener.local_addr().unwrap()
    );
    // An origin that takes requests and answers none.
    let accepting = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            kept.push(accepted);
        }
    });
    let served = serve_with(&site, Limits::default()).await;
    let mut raw = Raw::connect(&served).await;
    let mut last = 0;
    'attack: for at in 0..2000u32 {
        let stream = 2 * at + 1;
        let open = raw.send(HEADERS, END_STREAM | END_HEADERS, stream, &get("/")).await;
        let reset = raw.send(RST_STREAM, 0, stream, &8u32.to_be_bytes()).await;
        let ping = raw.send(PING, 0, 0, &[7; 8]).await;
        if open.and(reset).and(ping).is_err() {
            break;
        }
        last = at;
        // The ping's answer: what was sent before it has been read.
        loop {
            match raw.next().await {
                Ok((PING, ACK, ..)) => break,
                Ok((GOAWAY, _, _, payload)) => {
                    assert_eq!(
                        u32::from_be_bytes(payload[4..8].try_into().unwrap()),
                        ENHANCE_YOUR_CALM
                    );
                    break 'attack;
                }
                Ok(_) => {}
                Err(_) => break 'attack,
            }
        }
    }
    assert!((50..1000).contains(&last), "{last}");
    accepting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_make_the_edge_reset_them_end_the_connection() {
    let (_origin, served) = start(Limits::default()).await;
    let mut raw = Raw::connect(&served).await;
    for at in 0..1000u32 {
        let stream = 2 * at + 1;
        // Open, and then a window past its limit: a fault of the stream (RFC 9113 section 6.9.1).
        let open = raw.send(HEADERS, END_HEADERS, stream, &get("/made")).await;
        if open.and(raw.send(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]).await).is_err() {
            break;
        }
    }
    assert_eq!(raw.goaway().await, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_section_without_an_end_is_cut() {
    let (origin, served) = start(Limits::default()).await;
    // The control: a header section in a few parts.
    let mut good = Raw::connect(&served).await;
    let section = get("/parts");
    let (first, rest) = section.split_at(9);
    let (second, third) = rest.split_at(9);
    good.send(HEADERS, END_STREAM, 1, first).await.unwrap();
    good.send(CONTINUATION, 0, 1, second).await.unwrap();
    good.send(CONTINUATION, END_HEADERS, 1, third).await.unwrap();
    good.until_end(1).await;
    assert_eq!(origin.count(), 1);
    for filler in [0, 1, 16_000] {
        let mut raw = Raw::connect(&served).await;
        raw.send(HEADERS, END_STREAM, 1, &get("/flood")).await.unwrap();
        let padding: Vec<u8> = field("x", &"y".repeat(100)).repeat(filler / 100);
        let bytes = frame(CONTINUATION, 0, 1, &padding).repeat(10);
        assert!(raw.flood(&bytes).await, "{filler}");
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_whose_answers_nobody_reads_are_not_answered_for_ever() {
    let limits = Limits { idle: Duration::from_millis(500), ..Limits::default() };
    let (_origin, served) = start(limits).await;
    for (kind, payload) in [(PING, &[7; 8][..]), (SETTINGS, &[0, 3, 0, 0, 0, 100][..])] {
        let mut raw = Raw::narrow(&served).await;
        raw.send(kind, 0, 0, payload).await.unwrap();
        loop {
            let (answer, flags, ..) = raw.next().await.unwrap();
            if answer == kind && flags == ACK {
                break;
            }
        }
        let started = Instant::now();
        assert!(raw.flood(&frame(kind, 0, 0, payload).repeat(1000)).await, "kind {kind}");
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    }
}

/// One table entry of 3,000 bytes, referred to by one byte each (RFC 7541 section 6.1).
#[tokio::test(flavor = "multi_thread")]
async fn a_header_section_that_unpacks_to_much_is_refused() {
    let (origin, served) = start(Limits::default()).await;
    let bomb = |references: usize| {
        let mut section = get("/bomb");
        section.extend_from_slice(&[0x40, 1, b'x', 0x7f]);
        // 3,000 as an integer with a prefix of seven bits: 127, and then 2,873.
        section.extend_from_slice(&[0x80 | (2873 & 0x7f) as u8, (2873 >> 7) as u8]);
        section.extend(std::iter::repeat_n(b'y', 3000));
        section.extend(std::iter::repeat_n(0xbe, references));
        section
    };
    let mut raw = Raw::connect(&served).await;
    raw.send(HEADERS, END_STREAM | END_HEADERS, 1, &bomb(3)).await.unwrap();
    raw.until_end(1).await;
    assert_eq!(origin.count(), 1, "the control");
    raw.send(HEADERS, END_STREAM | END_HEADERS, 3, &bomb(12_000)).await.unwrap();
    loop {
        match raw.next().await {
            Ok((HEADERS, _, 3, section)) => {
                // Not a 200, which is the static table's entry 8.
                assert_ne!(section[0], 0x88);
                break;
            }
            Ok((RST_STREAM, _, 3, _) | (GOAWAY, ..)) | Err(_) => break,
            Ok(_) => {}
        }
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_told_to_go() {
    let limits = Limits { idle: Duration::from_millis(200), ..Limits::default() };
    let (_origin, served) = start(limits).await;
    let mut raw = Raw::connect(&served).await;
    raw.fetch(1, "/").await;
    assert_eq!(raw.goaway().await, Some(0));
}
