//! Many visitors on one cold key: one origin request, streamed to all; nobody waits for another's luck.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use verge_tests::wait::within;
use verge_tests::{Edge, Gate, Http1, Origin, Reply, Script, Turn, answer, site, until};

const CLIENTS: usize = 1_000;
/// As many as the product promises; each is a file here and one in the edge.
const MANY_CLIENTS: usize = 10_000;
const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

/// Sends one request on each of `clients` connections, all of them connected first.
async fn crowd(edge: &Edge, clients: usize, path: &'static str) -> JoinSet<Reply> {
    let mut connected = Vec::with_capacity(clients);
    for _ in 0..clients {
        connected.push(Http1::connect(edge.http).await);
    }
    let mut requests = JoinSet::new();
    for mut client in connected {
        requests.spawn(async move { client.get("crowd.example", path).await });
    }
    requests
}

async fn answers(mut requests: JoinSet<Reply>) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some(reply) = within("a client of the crowd", requests.join_next()).await {
        replies.push(reply.unwrap());
    }
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_make_one_origin_request() {
    let gate = Gate::default();
    let held = gate.clone();
    let body = "x".repeat(100_000);
    let sent = body.clone();
    let origin = Origin::start(move |_| {
        let (held, sent) = (held.clone(), sent.clone());
        async move {
            held.pass().await;
            answer(200, FRESH, sent)
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let requests = crowd(&edge, CLIENTS, "/cold").await;
    gate.reached().await;
    gate.open_for_good();
    let replies = answers(requests).await;
    assert_eq!(replies.len(), CLIENTS);
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.text() == body));
    assert_eq!(origin.count("/cold"), 1);
}

/// Takes as many files as this process may have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = MANY_CLIENTS as u64 + 500;
    assert!(now >= needed, "ulimit -Hn is {now}; this test needs {needed} open files");
}

/// Reads one response with little memory: its header section, and how long its content was.
async fn read_small(stream: &mut TcpStream) -> (String, usize) {
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "cut after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
        });
        if body.len() >= length.expect("a Content-Length") {
            return (head.to_owned(), body.len());
        }
    }
}

/// A connection of one of many clients: none of them has more than a client may have.
async fn connect_as(number: usize, edge: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let client = u8::try_from(number / 1_000).expect("fewer than 256 thousand clients");
    socket.bind(SocketAddr::from(([127, 0, 1, client], 0)))?;
    socket.connect(edge).await
}

async fn requests_in_flight(edge: &Edge) -> usize {
    let metrics = edge.admin("/metrics").await.expect(200).text();
    let line = metrics.lines().find_map(|l| l.strip_prefix("verge_front_requests_in_flight "));
    line.expect("the gauge").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_make_one_origin_request() {
    raise_file_limit();
    let gate = Gate::default();
    let script = Script::start().await;
    script.plan("/cold", [Turn::new(200, FRESH, "only once").held(&gate)]);
    // The origin is held until the last client is there, which takes what the machine takes.
    let url = script.origin().url();
    let site = format!(
        "site = \"crowd\"\ndomains = [\"*\"]\n\n[origins.web]\nurls = [{url:?}]\n\
         timeouts = {{ first_byte = \"2m\" }}\n\n[[routes]]\npath = \"/*\"\norigin = \"web\"\n"
    );
    let edge = Edge::standalone(site).start().await;
    let mut clients = Vec::with_capacity(MANY_CLIENTS);
    for number in 0..MANY_CLIENTS {
        let mut stream = within("to connect", connect_as(number, edge.http)).await.unwrap();
        stream.write_all(b"GET /cold HTTP/1.1\r\nHost: crowd.example\r\n\r\n").await.unwrap();
        clients.push(stream);
    }
    // All of them wait for it before it comes.
    until("all requests to be in the edge", || async {
        (requests_in_flight(&edge).await >= MANY_CLIENTS).then_some(())
    })
    .await;
    assert_eq!(script.count("/cold"), 1);
    gate.open_for_good();
    for stream in &mut clients {
        let (head, length) = within("a client of the crowd", read_small(stream)).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(length, "only once".len());
    }
    assert_eq!(script.count("/cold"), 1);
}

/// The control of the guard: what may not be shared is not collapsed into one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_shared_is_fetched_for_each() {
    let next = Arc::new(AtomicUsize::new(0));
    let origin = Origin::start(move |_| {
        let number = next.fetch_add(1, Ordering::SeqCst);
        async move {
            answer(200, &[("Cache-Control", "private, no-store")], format!("for {number} alone"))
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let replies = answers(crowd(&edge, 200, "/mine").await).await;
    let mut bodies: Vec<_> = replies.iter().map(Reply::text).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 200, "no content crosses from one visitor to another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_not_served_one_after_another() {
    let origin = Origin::start(|_| async move {
        // The failure takes its time: in a row, 200 of them would take a minute.
        tokio::time::sleep(Duration::from_millis(300)).await;
        answer(500, &[("Cache-Control", "no-store")], "broken")
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let started = Instant::now();
    let replies = answers(crowd(&edge, 200, "/broken").await).await;
    assert!(replies.iter().all(|reply| reply.status == 500), "{:?}", replies[0]);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// No clock in it: the origin answers the first request badly and holds all others until everybody has
/// been answered or is there. Behind a lock they would come one by one, and it would wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failure_the_others_come_at_once() {
    const CROWD: usize = 60;
    let (settled, _) = watch::channel(0_usize);
    let settled = Arc::new(settled);
    let (arrivals, first) = (Arc::clone(&settled), AtomicUsize::new(0));
    let first = Arc::new(first);
    let origin = Origin::start(move |_| {
        let (arrivals, first) = (Arc::clone(&arrivals), Arc::clone(&first));
        async move {
            arrivals.send_modify(|count| *count += 1);
            if first.fetch_add(1, Ordering::SeqCst) > 0 {
                let mut all = arrivals.subscribe();
                all.wait_for(|count| *count >= CROWD).await.unwrap();
            }
            answer(503, &[("Cache-Control", "no-store")], "broken")
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let replies = answers(crowd(&edge, CROWD, "/broken").await).await;
    assert!(replies.iter().all(|reply| reply.status == 503), "{:?}", replies[0]);
}

/// The origin takes its time and then hangs up: everybody waits about that long, not one after another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_fails_all_at_once() {
    const DELAY: Duration = Duration::from_millis(300);
    let origin = Origin::raw(|mut stream| async move {
        let mut request = [0; 2048];
        let _ = stream.read(&mut request).await;
        tokio::time::sleep(DELAY).await;
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let started = Instant::now();
    let replies = answers(crowd(&edge, 200, "/hung-up").await).await;
    assert!(replies.iter().all(|reply| reply.status == 502), "{:?}", replies[0]);
    assert!(started.elapsed() < DELAY * 20, "{:?}", started.elapsed());
}

/// Requests close behind each other, for what may and what may not be shared: the second one may come
/// while the first one's fill has its last byte and is not over. Everyone gets an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_left_waiting_at_the_end_of_a_fill() {
    for fields in [&[("Cache-Control", "no-store")][..], FRESH] {
        let origin = Origin::always(200, fields, "content").await;
        let edge = Arc::new(Edge::standalone(site::plain(&origin)).start().await);
        let mut lanes = JoinSet::new();
        for lane in 0..16 {
            let edge = Arc::clone(&edge);
            lanes.spawn(async move {
                let mut one = edge.client().await;
                let mut other = edge.client().await;
                for turn in 0..250 {
                    let path = format!("/{lane}/{turn}");
                    for client in [&mut one, &mut other] {
                        let reply = client.get("crowd.example", &path).await.expect(200);
                        assert_eq!(reply.text(), "content");
                    }
                }
            });
        }
        while let Some(lane) = lanes.join_next().await {
            lane.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_outlives_the_visitor_that_began_it() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            answer(200, FRESH, "whole")
        }
    })
    .await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut first = edge.client().await;
    first.send(b"GET /a HTTP/1.1\r\nHost: crowd.example\r\n\r\n").await.unwrap();
    gate.reached().await;
    drop(first);
    gate.open_for_good();
    until("the object to be stored", || async {
        edge.get("crowd.example", "/a").await.is_hit().then_some(())
    })
    .await;
    assert_eq!(origin.count("/a"), 1);
}
