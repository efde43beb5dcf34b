//! An object far longer than the edge's memory, and longer than its disk: it streams through within
//! 64 MiB, whole or in slices, and no byte of it is wrong. `VERGE_LARGE=10` makes it 10 GiB long; over
//! HTTP/2 it is 256 MiB long otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;
use verge_tests::generated::Generated;
use verge_tests::tls::{Certificate, connect};
use verge_tests::wait::within;
use verge_tests::{Edge, site, until};

const MIB: u64 = 1024 * 1024;
/// What the edge may grow by, in bytes.
const MAY_GROW: u64 = 64 * MIB;
/// What an HTTP/2 client takes of a stream before it is read, in bytes.
const WINDOW: u32 = 256 * 1024;
const HOST: &str = "large.example";
/// A RAM tier that holds a few slices.
const SMALL_RAM: u64 = 16 * MIB;
/// A disk tier that is shorter than the object.
const SMALL_DISK: u64 = 256 * MIB;

/// How long the object is: 1 GiB, or as many as asked for.
fn length() -> u64 {
    length_or(1024 * MIB)
}

/// As many GiB as asked for, or else so many bytes; not a whole number of slices, blocks or pages.
fn length_or(bytes: u64) -> u64 {
    let asked = std::env::var("VERGE_LARGE").ok();
    let gib = asked.map(|text| text.parse::<u64>().expect("a number of GiB"));
    gib.map_or(bytes, |gib| gib * 1024 * MIB) + 12_345
}

/// An edge before such an origin; what every edge takes with its first requests is taken already.
async fn warmed(large: &Generated, arguments: &[&str]) -> Edge {
    let edge = Edge::standalone(site::plain(&large.origin)).with(arguments).start().await;
    for path in ["/warm/1", "/warm/2"] {
        let range = Some((0, MIB - 1));
        large.get(edge.http, path, range).await.finish().await;
    }
    edge
}

/// What it grew by at most while the work was done.
async fn growth(what: &str, edge: &Edge, bytes: u64, work: impl Future<Output = ()>) -> u64 {
    let before = edge.process.resident();
    edge.process.forget_peak();
    let started = Instant::now();
    work.await;
    let grown = edge.process.peak().saturating_sub(before) as u64 + edge.process.memory_files();
    let seconds = started.elapsed().as_secs_f64();
    let rate = bytes as f64 / seconds / MIB as f64;
    eprintln!("{what}: {bytes} bytes, {seconds:.1} s, {rate:.0} MiB/s, grown by {grown} bytes");
    grown
}

/// Bytes of all files below a folder.
fn on_disk(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => on_disk(&entry.path()),
            Ok(data) => data.len(),
            // It went away just now.
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_streams_through_memory_alone() {
    let large = Generated::start(length()).await;
    for path in ["/whole", "/chunked"] {
        let edge = warmed(&large, &[]).await;
        let work = async {
            let download = large.get(edge.http, path, None).await;
            assert_eq!(download.status, 200);
            download.finish().await;
        };
        let grown = growth(path, &edge, length(), work).await;
        assert!(grown <= MAY_GROW, "{path}: grown by {grown} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_fill_a_disk_that_is_shorter() {
    let large = Generated::start(length()).await;
    for path in ["/whole", "/chunked"] {
        let folder = TempDir::new().unwrap();
        let dir = folder.path().display().to_string();
        let disk = SMALL_DISK.to_string();
        let edge = warmed(&large, &["--cache-dir", &dir, "--disk", &disk]).await;
        let mut most = 0;
        let work = async {
            let mut download = large.get(edge.http, path, None).await;
            while download.read(16 * MIB).await > 0 {
                most = on_disk(folder.path()).max(most);
            }
            download.finish().await;
        };
        let grown = growth(&format!("{path} beside a disk"), &edge, length(), work).await;
        assert!(grown <= MAY_GROW, "{path}: grown by {grown} bytes");
        assert!(most <= SMALL_DISK, "{path}: {most} bytes on the disk");
        // Nothing stays of what could not be kept.
        until("its file to be gone", || async {
            (on_disk(folder.path()) < 16 * MIB).then_some(())
        })
        .await;
    }
}

/// The control of the disk's measure, and what a disk tier is for: an object that fits is written while
/// it streams, and is a hit after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fits_is_written_while_it_streams() {
    let long = 512 * MIB + 777;
    let large = Generated::start(long).await;
    let folder = TempDir::new().unwrap();
    let dir = folder.path().display().to_string();
    for path in ["/whole", "/chunked"] {
        let edge = warmed(&large, &["--cache-dir", &dir, "--disk", "8GiB"]).await;
        let work = async { large.get(edge.http, path, None).await.finish().await };
        let grown = growth(&format!("{path} onto the disk"), &edge, long, work).await;
        assert!(grown <= MAY_GROW, "{path}: grown by {grown} bytes");
        assert!(on_disk(folder.path()) >= long, "{path}: it is on the disk");
        let asked = large.asked();
        let work = async {
            let hit = large.get(edge.http, path, None).await;
            let status = hit.headers["cache-status"].to_str().unwrap().to_owned();
            assert!(status.contains("; hit"), "{status}");
            hit.finish().await;
        };
        let grown = growth(&format!("{path} from the disk"), &edge, long, work).await;
        assert!(grown <= MAY_GROW, "{path}: grown by {grown} bytes");
        assert_eq!(large.asked(), asked, "{path}: the origin is not asked");
    }
}

/// A range of all of it, cold: slice by slice, then ranges here and there. `look` is called now and then.
async fn in_slices(large: &Generated, edge: &Edge, mut look: impl FnMut()) {
    let length = length();
    let mut download = large.get(edge.http, "/slices", Some((5, length - 6))).await;
    assert_eq!(download.status, 206, "{:?}", download.headers);
    let expected = format!("bytes 5-{}/{length}", length - 6);
    assert_eq!(download.headers["content-range"], expected.as_str());
    while download.read(16 * MIB).await > 0 {
        look();
    }
    for place in 1..64 {
        let first = length / 64 * place + 17 * place;
        let last = (first + 3 * MIB).min(length - 1);
        let download = large.get(edge.http, "/slices", Some((first, last))).await;
        assert_eq!(download.status, 206, "{:?}", download.headers);
        download.finish().await;
        look();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_ranges_are_slices_within_memory() {
    let large = Generated::start(length()).await;
    let edge = warmed(&large, &["--ram", &SMALL_RAM.to_string()]).await;
    let asked = large.asked();
    let grown = growth("slices", &edge, length(), in_slices(&large, &edge, || ())).await;
    // What is stored in memory is stored in memory.
    assert!(grown <= MAY_GROW + SMALL_RAM, "grown by {grown} bytes");
    let slices = usize::try_from(length() / MIB).unwrap();
    assert!(large.asked() - asked >= slices, "{} requests for slices", large.asked() - asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_ranges_are_slices_within_a_disk() {
    let large = Generated::start(length()).await;
    let folder = TempDir::new().unwrap();
    let dir = folder.path().display().to_string();
    let disk = SMALL_DISK.to_string();
    let (ram, mut most) = (SMALL_RAM.to_string(), 0);
    let arguments = ["--cache-dir", &dir, "--disk", &disk, "--ram", &ram];
    let edge = warmed(&large, &arguments).await;
    let work = in_slices(&large, &edge, || most = on_disk(folder.path()).max(most));
    let grown = growth("slices on a disk", &edge, length(), work).await;
    assert!(grown <= MAY_GROW, "grown by {grown} bytes");
    // Files go after what takes their place has come.
    eprintln!("at most {most} bytes of {SMALL_DISK} on the disk");
    assert!(most <= SMALL_DISK + 64 * MIB, "{most} bytes on the disk");
    // Beside objects there are the log of purges and the folder's state, of a few bytes each.
    until("the disk tier to be within its bounds", || async {
        (on_disk(folder.path()) <= SMALL_DISK + MIB).then_some(())
    })
    .await;
    assert!(on_disk(folder.path()) > SMALL_DISK / 2, "and it is used");
}

/// The control of the measure: slices that may be kept in memory do show in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_in_memory_shows() {
    let large = Generated::start(length()).await;
    let edge = warmed(&large, &["--ram", "256MiB"]).await;
    let work = async {
        let range = Some((0, 160 * MIB));
        large.get(edge.http, "/slices", range).await.finish().await;
    };
    let grown = growth("slices in memory", &edge, 160 * MIB, work).await;
    assert!(grown > MAY_GROW, "grown by {grown} bytes only");
}

/// A visitor that takes nothing for a while: the origin has to wait, and memory does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_that_stops_stops_the_origin() {
    let large = Generated::start(length()).await;
    let edge = warmed(&large, &[]).await;
    let work = async {
        let warm = large.sent();
        let mut download = large.get(edge.http, "/whole", None).await;
        download.read(MIB).await;
        let mut last = (large.sent(), 0);
        until("the origin to stand still", || {
            let sent = large.sent();
            last = if sent == last.0 { (sent, last.1 + 1) } else { (sent, 0) };
            let is_still = last.1 >= 60;
            async move { is_still.then_some(()) }
        })
        .await;
        let ahead = large.sent() - warm - MIB;
        assert!(ahead <= MAY_GROW, "the origin is {ahead} bytes ahead");
        download.finish().await;
    };
    let grown = growth("a slow visitor", &edge, length(), work).await;
    assert!(grown <= MAY_GROW, "grown by {grown} bytes");
}

/// A connection by HTTP/2 over TLS, of a client that takes little before it is read.
async fn by_http2(edge: &Edge, certificate: &Certificate) -> SendRequest<Empty<Bytes>> {
    let address = edge.https.expect("an https listener");
    let tls = connect(address, HOST, &["h2"], &[certificate]).await;
    assert_eq!(tls.protocol.as_deref(), Some(&b"h2"[..]));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(WINDOW).initial_connection_window_size(4 * WINDOW);
    let (sender, connection) = builder.handshake(TokioIo::new(tls.stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Content that comes by HTTP/2, and how far it is read.
struct Stream {
    content: Incoming,
    place: u64,
}

impl Stream {
    async fn of(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Stream {
        let request = Request::get(format!("https://{HOST}{path}")).body(Empty::new()).unwrap();
        let response = within("a response", sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200, "{:?}", response.headers());
        Stream { content: response.into_body(), place: 0 }
    }

    /// Reads and checks at least so many bytes more; whether there may be more still.
    async fn read(&mut self, large: &Generated, least: u64) -> bool {
        let until = self.place.saturating_add(least);
        while self.place < until {
            let Some(frame) = within("content", self.content.frame()).await else { return false };
            let data = frame.expect("content in order").into_data().expect("no trailers");
            assert!(large.bytes.are(self.place, &data), "wrong bytes from {}", self.place);
            self.place += data.len() as u64;
        }
        true
    }
}

/// Three streams, each an object of its own: one is read at full speed, one beside it on the same
/// connection and one on another connection a little at a time. Theirs have a length: what has none is
/// kept until it is too long to store, and that is for one at a time to show.
async fn three_streams(large: &Generated, edge: &Edge, certificate: &Certificate, path: &str) {
    let mut first = by_http2(edge, certificate).await;
    let mut second = by_http2(edge, certificate).await;
    let mut fast = Stream::of(&mut first, path).await;
    let mut slow = [
        Stream::of(&mut first, &format!("/slow/1{path}")).await,
        Stream::of(&mut second, &format!("/slow/2{path}")).await,
    ];
    while fast.read(large, 16 * MIB).await {
        for slow in &mut slow {
            assert!(slow.read(large, 64 * 1024).await, "a slow visitor goes on");
        }
    }
    assert_eq!(fast.place, large.length(), "all of it came");
    for slow in &mut slow {
        assert!(slow.place < large.length() / 8, "for control: it was slow, {}", slow.place);
        assert!(slow.read(large, 8 * MIB).await, "and is served still");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_streams_by_http2_over_tls_beside_slow_visitors() {
    let folder = TempDir::new().unwrap();
    let certificate = Certificate::make(folder.path(), &[HOST]);
    let large = Generated::start(length_or(256 * MIB)).await;
    let dir = folder.path().join("cache").display().to_string();
    let disk = SMALL_DISK.to_string();
    let on_a_disk = ["--cache-dir", dir.as_str(), "--disk", disk.as_str()];
    for arguments in [&[][..], &on_a_disk] {
        let edge = Edge::standalone(site::plain(&large.origin)).tls(&[&certificate]);
        let edge = edge.with(arguments).start().await;
        for path in ["/warm/1", "/warm/2"] {
            let mut client = by_http2(&edge, &certificate).await;
            Stream::of(&mut client, path).await.read(&large, MIB).await;
        }
        for path in ["/whole", "/chunked"] {
            let what = format!("{path} by HTTP/2 {arguments:?}");
            let work = three_streams(&large, &edge, &certificate, path);
            let grown = growth(&what, &edge, large.length(), work).await;
            assert!(grown <= MAY_GROW, "{what}: grown by {grown} bytes");
        }
    }
}
