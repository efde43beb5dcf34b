//! How many connections one client may have: as many as the limit says, and no other client pays for it.

use std::net::SocketAddr;
use tokio::net::TcpSocket;
use verge_tests::wait::within;
use verge_tests::{Control, Edge, Http1, Origin, site, until};

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];
/// What an edge allows when it is told nothing.
const DEFAULT: usize = 1_024;

/// A connection from an address of loopback.
async fn from(client: u8, edge: SocketAddr) -> Http1 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 2, client], 0))).unwrap();
    Http1::over(Box::new(within("to connect", socket.connect(edge)).await.unwrap()))
}

/// Whether a connection gets an answer; `false` when it is closed instead.
async fn answers(client: &mut Http1) -> bool {
    client.try_request("GET", "a.example", "/", &[], b"").await.is_ok_and(|reply| reply.whole)
}

async fn metric(edge: &Edge, name: &str) -> usize {
    let text = edge.admin("/metrics").await.expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in:\n{text}")).parse().unwrap()
}

/// One client takes all that it may have; another is served, and so is the first when it lets go of one.
async fn is_capped(edge: &Edge, most: usize) {
    let refused = metric(edge, "verge_listen_connections_refused_total").await;
    let mut held = Vec::new();
    for number in 0..most {
        let mut stream = from(1, edge.http).await;
        assert!(answers(&mut stream).await, "connection {number} of {most}");
        held.push(stream);
    }
    assert_eq!(metric(edge, "verge_listen_connections_refused_total").await, refused);
    assert!(metric(edge, "verge_listen_connections_open").await >= most);
    for _ in 0..10 {
        assert!(!answers(&mut from(1, edge.http).await).await, "one more than {most}");
    }
    assert_eq!(metric(edge, "verge_listen_connections_refused_total").await, refused + 10);
    assert!(answers(&mut from(2, edge.http).await).await, "another client is served");
    for stream in &mut held {
        assert!(answers(stream).await, "what was open stays open");
    }
    held.pop();
    let again = until("a place to be free again", || async {
        let mut stream = from(1, edge.http).await;
        answers(&mut stream).await.then_some(stream)
    })
    .await;
    assert!(!answers(&mut from(1, edge.http).await).await, "only one became free");
    drop((held, again));
    until("all connections to be gone", || async {
        (metric(edge, "verge_listen_connections_open").await == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_has_a_thousand_connections_and_no_more() {
    let origin = Origin::always(200, FRESH, "here").await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    is_capped(&edge, DEFAULT).await;
    is_capped(&edge, DEFAULT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_says_how_many_connections_a_client_has() {
    let control = Control::start().await;
    let lines = "[limits]\nconnections_per_client = 3\n";
    let edge = Edge::join_with(&control, "small", lines).await;
    edge.ready().await;
    is_capped(&edge, 3).await;
}
