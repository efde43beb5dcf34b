//! The guard against requests to where none may go: names, notations, loops, and the allow-list.

use super::support::*;
use http::Request;
use http::header::HeaderValue;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use verge_edge::body;
use verge_edge::origin::{OriginError, OriginSettings, Outside, Resolver};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// How 127.0.0.1 can be written so that the system's resolver understands it.
const LOOPBACK: [&str; 16] = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7F.1",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.0x1",
    "0177.0.0.01",
    "0x7f.0x0.0x0.0x1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "0:0:0:0:0:ffff:127.0.0.1",
    "localhost",
];

/// Other places where nothing of a tenant's may go.
const ELSEWHERE: [&str; 32] = [
    "127.255.255.254",
    "0.0.0.0",
    "0",
    "0x0",
    "10.0.0.1",
    "10.1",
    "167772161",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.257",
    "3232235521",
    "169.254.169.254",
    "2852039166",
    "0xA9FEA9FE",
    "0251.0376.0251.0376",
    "100.64.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "0:0:0:0:0:0:0:1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "fd00::1",
    "fe80::1",
    "ff02::1",
];

fn strict() -> OriginSettings {
    OriginSettings { allow_private: false, ..settings() }
}

fn resolving(addresses: Vec<IpAddr>) -> Arc<Resolver> {
    Arc::new(Resolver::with_lookup(Arc::new(move |_| Ok(addresses.clone()))))
}

#[tokio::test]
async fn no_notation_of_a_private_address_passes() {
    let origin = Scripted::always(HELLO).await;
    for host in LOOPBACK.into_iter().chain(ELSEWHERE) {
        let urls = vec![url(host, origin.address.port())];
        let pool = pool_of(super::support::origin(urls, patient()), strict());
        let error = fetch(&pool).await.unwrap_err();
        assert!(matches!(error, OriginError::AddressForbidden { .. }), "{host}: {error}");
        assert_eq!(
            (error.status().as_u16(), error.proxy_status_error()),
            (502, "destination_ip_prohibited")
        );
        let error = ask_upgrade(&pool).await.unwrap_err();
        assert!(matches!(error, OriginError::AddressForbidden { .. }), "{host}: {error}");
    }
    assert_eq!(origin.connections(), 0);
    // The control: each notation of the loopback address does lead there when it is allowed to.
    for host in LOOPBACK {
        let urls = vec![url(host, origin.address.port())];
        let pool = pool_of(super::support::origin(urls, patient()), settings());
        assert_eq!(fetch(&pool).await.unwrap().1, "hello", "{host}");
    }
}

#[tokio::test]
async fn a_handlers_request_passes_no_notation_either() {
    let origin = Scripted::always(HELLO).await;
    let port = origin.address.port();
    for host in LOOPBACK.into_iter().chain(ELSEWHERE) {
        let shown = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let uri = format!("http://{shown}:{port}/");
        let allow = [format!("{shown}:{port}")];
        let ask = || Request::get(&uri).body(body::empty()).unwrap();
        let outside = Outside::new(Arc::new(strict()));
        let error = outside.send(ask(), &allow, &hop()).await.unwrap_err();
        assert!(matches!(error, OriginError::AddressForbidden { .. }), "{uri}: {error}");
        if LOOPBACK.contains(&host) {
            let outside = Outside::new(Arc::new(settings()));
            let response = outside.send(ask(), &allow, &hop()).await.unwrap();
            assert_eq!(read(response).await.unwrap(), "hello", "{uri}");
        }
    }
    assert!(origin.seen().iter().all(|seen| !seen.contains("192.0.2.33")));
}

#[tokio::test]
async fn a_name_is_judged_by_where_it_leads() {
    let origin = Scripted::always(HELLO).await;
    let port = origin.address.port();
    let private = resolving(vec![IpAddr::from([127, 0, 0, 1])]);
    let pool = |settings| {
        pool_of(super::support::origin(vec![url("innocent.test", port)], quick()), settings)
    };
    let blocked = OriginSettings { resolver: Arc::clone(&private), ..strict() };
    let error = fetch(&pool(blocked)).await.unwrap_err();
    assert!(matches!(error, OriginError::AddressForbidden { .. }), "{error}");
    let allowed = OriginSettings { resolver: private, ..settings() };
    assert_eq!(fetch(&pool(allowed)).await.unwrap().1, "hello");
    // Metadata services answer on link-local addresses: no switch opens them.
    let metadata = resolving(vec![IpAddr::from([169, 254, 169, 254])]);
    let error =
        fetch(&pool(OriginSettings { resolver: metadata, ..settings() })).await.unwrap_err();
    assert!(matches!(error, OriginError::AddressForbidden { .. }), "{error}");
}

#[tokio::test]
async fn of_mixed_addresses_only_those_allowed_are_tried() {
    let origin = Scripted::always(HELLO).await;
    let mixed = resolving(vec![IpAddr::from([169, 254, 169, 254]), IpAddr::from([127, 0, 0, 1])]);
    let urls = vec![url("mixed.test", origin.address.port())];
    let settings = OriginSettings { resolver: mixed, ..settings() };
    let pool = pool_of(super::support::origin(urls, patient()), settings);
    let began = Instant::now();
    assert_eq!(fetch(&pool).await.unwrap().1, "hello");
    assert!(began.elapsed() < Duration::from_secs(2), "the forbidden one was not even tried");
    assert_eq!(ask_upgrade(&pool).await.unwrap(), (200, "hello".to_owned()));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_as_such() {
    let nowhere =
        Arc::new(Resolver::with_lookup(Arc::new(|_| Err(std::io::Error::other("NXDOMAIN")))));
    let urls = vec![url("gone.test", 80)];
    let settings_ = OriginSettings { resolver: nowhere, ..settings() };
    let pool = pool_of(origin(urls, patient()), settings_);
    let error = fetch(&pool).await.unwrap_err();
    assert!(matches!(error, OriginError::DnsFailed { .. }), "{error}");
    assert_eq!((error.status().as_u16(), error.proxy_status_error()), (502, "dns_error"));
    assert!(ask_upgrade(&pool).await.is_err());

    let (release, hold) = std::sync::mpsc::channel::<()>();
    let hold = parking_lot::Mutex::new(hold);
    let hung = Arc::new(Resolver::with_lookup(Arc::new(move |_| {
        let _ = hold.lock().recv();
        Ok(Vec::new())
    })));
    let settings_ = OriginSettings { resolver: hung, ..settings() };
    let pool = pool_of(origin(vec![url("slow.test", 80)], quick()), settings_);
    let error = fetch(&pool).await.unwrap_err();
    assert!(matches!(error, OriginError::DnsTimeout { .. }), "{error}");
    assert_eq!((error.status().as_u16(), error.proxy_status_error()), (504, "dns_timeout"));
    drop(release);
}

#[tokio::test]
async fn the_edge_is_never_its_own_origin() {
    let origin = Scripted::always(HELLO).await;
    let port = origin.address.port();
    for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
        let own = OriginSettings { own: Arc::from([origin.address]), ..settings() };
        let pool = pool_of(super::support::origin(vec![url(host, port)], patient()), own);
        let error = fetch(&pool).await.unwrap_err();
        assert!(matches!(error, OriginError::AddressForbidden { .. }), "{host}: {error}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_loop_is_broken_before_anything_is_sent() {
    let origin = Scripted::always(HELLO).await;
    let pool = pool_to(origin.address, patient());
    let looped = |value: &'static str| {
        let mut hop = hop();
        hop.loops.push(HeaderValue::from_static(value));
        hop
    };
    let error = pool.send(get("/"), &looped("verge;id=edge-test")).await.unwrap_err();
    assert_eq!(error, OriginError::LoopDetected);
    assert_eq!(error.status(), 508);
    assert_eq!(origin.connections(), 0);
    // The control: another edge of this CDN before us is no loop, and is carried on.
    assert!(pool.send(get("/"), &looped("verge;id=other")).await.is_ok());
    assert!(
        origin.seen()[0]
            .contains("\r\ncdn-loop: verge;id=other\r\ncdn-loop: verge;id=edge-test\r\n")
    );
    // A handler that names no loop does not hide the visitor's.
    let outside = Outside::new(Arc::new(settings()));
    let allow = [format!("127.0.0.1:{}", origin.address.port())];
    let uri = format!("http://{}/", origin.address);
    let ask = Request::get(uri).header("cdn-loop", "forged").body(body::empty()).unwrap();
    let error = outside.send(ask, &allow, &looped("verge;id=edge-test")).await.unwrap_err();
    assert_eq!(error, OriginError::LoopDetected);
}

#[tokio::test]
async fn a_handler_reaches_only_the_hosts_on_its_list() {
    let origin = Scripted::always(HELLO).await;
    let port = origin.address.port();
    let settings =
        OriginSettings { resolver: resolving(vec![IpAddr::from([127, 0, 0, 1])]), ..settings() };
    let outside = Outside::new(Arc::new(settings));
    let ask = |uri: String| Request::get(uri).body(body::empty()).unwrap();
    let allow = [format!("*.api.test:{port}")];
    for _ in 0..10 {
        let uri = format!("http://a.api.test:{port}/x?y=1");
        let response = outside.send(ask(uri), &allow, &hop()).await.unwrap();
        assert_eq!(read(response).await.unwrap(), "hello");
    }
    assert!(origin.connections() <= 2, "connections are kept for the next request");
    let seen = origin.seen().remove(0);
    assert!(seen.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("\r\nhost: a.api.test:{port}\r\n")), "{seen}");
    assert!(!seen.contains("x-forwarded") && !seen.contains("shop.example"), "{seen}");
    for uri in [
        format!("http://api.test:{port}/"),
        format!("http://b.test:{port}/"),
        format!("http://a.api.test.evil:{port}/"),
        "http://a.api.test/".to_owned(),
    ] {
        let error = outside.send(ask(uri.clone()), &allow, &hop()).await.unwrap_err();
        assert!(matches!(error, OriginError::HostNotAllowed { .. }), "{uri}: {error}");
    }
    for uri in ["/relative".to_owned(), format!("ftp://a.api.test:{port}/")] {
        let error = outside.send(ask(uri.clone()), &allow, &hop()).await.unwrap_err();
        assert!(matches!(error, OriginError::InvalidRequest { .. }), "{uri}: {error}");
    }
}
