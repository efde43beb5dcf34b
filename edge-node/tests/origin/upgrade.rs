//! Upgrades: what an origin may answer to the wish for another protocol, and what is refused.

use super::support::*;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use verge_edge::origin::OriginError;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n";

#[tokio::test]
async fn what_comes_behind_a_101_is_not_lost() {
    let said = format!("{SWITCH}Upgrade: WebSocket\r\n\r\nhello");
    let origin = Scripted::start(move |_, _| Act::SayAndClose(said.clone().into_bytes())).await;
    let pool = pool_to(origin.address, patient());
    assert_eq!(ask_upgrade(&pool).await.unwrap(), (101, "hello".to_owned()));
    let seen = origin.seen().join("");
    for line in ["GET /chat HTTP/1.1\r\n", "connection: upgrade\r\n", "upgrade: websocket\r\n"] {
        assert!(seen.contains(line), "{seen}");
    }
    // Nothing of it is used again, whatever the origin answers.
    assert_eq!(ask_upgrade(&pool).await.unwrap().0, 101);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_was_asked_to_change_serves_nothing_else() {
    let origin = Scripted::always(HELLO).await;
    let pool = pool_to(origin.address, patient());
    assert_eq!(ask_upgrade(&pool).await.unwrap(), (200, "hello".to_owned()));
    assert_eq!(ask_upgrade(&pool).await.unwrap(), (200, "hello".to_owned()));
    assert_eq!(fetch(&pool).await.unwrap().1, "hello");
    assert_eq!(origin.connections(), 3);
    // The control: requests do share one.
    assert_eq!(fetch(&pool).await.unwrap().1, "hello");
    assert_eq!(origin.connections(), 3);
}

#[tokio::test]
async fn a_101_to_something_else_is_refused() {
    for fields in ["", "Upgrade: \r\n", "Upgrade: h2c\r\n", "Upgrade: websocket, other\r\n"] {
        let origin = Scripted::always(&format!("{SWITCH}{fields}\r\n")).await;
        let error = ask_upgrade(&pool_to(origin.address, patient())).await.unwrap_err();
        assert!(matches!(error, OriginError::Protocol { .. }), "{fields:?}: {error}");
        assert_eq!(error.status().as_u16(), 502);
    }
    // Nobody asked here.
    let origin = Scripted::always(&format!("{SWITCH}Upgrade: websocket\r\n\r\n")).await;
    let error = fetch(&pool_to(origin.address, patient())).await.unwrap_err();
    assert_eq!(error.status().as_u16(), 502, "{error}");
}

#[tokio::test]
async fn an_address_that_cannot_be_reached_gives_way() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let origin = Scripted::always(HELLO).await;
    let urls = vec![url("127.0.0.1", port), url("127.0.0.1", origin.address.port())];
    let pool = pool_of(super::support::origin(urls, patient()), settings());
    for _ in 0..10 {
        assert_eq!(ask_upgrade(&pool).await.unwrap().0, 200);
    }
    assert_eq!(origin.connections(), 10);
}

#[tokio::test]
async fn what_is_no_answer_is_told_as_such() {
    let silent = Scripted::start(|_, _| Act::SayAndHang(Vec::new())).await;
    let began = Instant::now();
    let error = ask_upgrade(&pool_to(silent.address, quick())).await.unwrap_err();
    assert!(matches!(error, OriginError::FirstByteTimeout { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30));
    let garbage = Scripted::always("220 mail.example ESMTP\r\n\r\n").await;
    let error = ask_upgrade(&pool_to(garbage.address, patient())).await.unwrap_err();
    assert!(matches!(error, OriginError::Protocol { .. }), "{error}");
    let gone = Scripted::start(|_, _| Act::SayAndClose(Vec::new())).await;
    let error = ask_upgrade(&pool_to(gone.address, patient())).await.unwrap_err();
    assert!(matches!(error, OriginError::ClosedEarly { .. }), "{error}");
    assert_eq!(gone.connections(), 1, "what was sent is never sent again");
}
