//! Every form of an address that leads to where no tenant may go: each is on the handler's own list of
//! hosts, and is refused by address all the same, before any packet. The controls are the operator's
//! switch, and a guard that reads the text of a host.

use super::support::*;
use http::Request;
use http::uri::Uri;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use verge_edge::body;
use verge_edge::origin::{OriginError, OriginSettings, Outside, Resolver};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Hosts by kind; what the kinds are stands in the file.
const FORMS: &str = include_str!("forms.txt");

fn forms(kinds: &[&str]) -> Vec<&'static str> {
    let lines = FORMS.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(kind, _)| kinds.contains(kind)).map(|(_, host)| host).collect()
}

const ALL: [&str; 3] = ["loopback", "private", "never"];

/// Names whose owner answers as he likes: here, the loopback address or the metadata service's.
const NAMES: &[&str] = &[
    "rebound.test",
    "127.0.0.1.any.test",
    "7f000001.rbndr.test",
    "xn--localhost-9v6d.test",
    "a.b.c.d.e.test",
    "localhost.localdomain.test",
    "metadata.internal.test",
    "METADATA.internal.test.",
];

/// What is no host at all, or is another than it seems.
const TRICKS: &[&str] = &[
    "user@127.0.0.1",
    "user:word@127.0.0.1",
    "good.test@127.0.0.1",
    "good.test:80@127.0.0.1",
    "good.test%2f@127.0.0.1",
    "127.0.0.1@good.test",
    "127.0.0.1:80@good.test",
    "@127.0.0.1",
    "127.0.0.1#@good.test",
    "127.0.0.1\\@good.test",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "127.0.0.1%00",
    "127.0.0.1%20",
    "127.0.0.1%2f",
    "①②⑦.⓪.⓪.①",
    "１２７.０.０.１",
    "127。0。0。1",
    "127．0．0．1",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "127.0.0.1 ",
    " 127.0.0.1",
    "127.0.0.1\t",
    "127.0.0.1\0",
    "127.0.0.1\r\nhost: good.test",
    "[127.0.0.1]",
    "[::1%25lo]",
    "[::1%lo]",
    "[fe80::1%25lo]",
    "[fe80::1%lo]",
    "[::ffff:127.0.0.1%25lo]",
    "[::1",
    "::1]",
    "::1",
    "[[::1]]",
    "[]",
    "",
    ".",
    "..",
    "127.0.0.1..",
    "...127.0.0.1",
    "127..0.1",
    "256.0.0.1",
    "0x100000000",
    "127.0.0.1.5",
    "0x7f.0.0.0.1",
    "-1",
    "+127.0.0.1",
    "1e3",
];

/// Reads numbers as the system does, which asks nobody for them; every name is its tenant's own.
fn resolver() -> Arc<Resolver> {
    Arc::new(Resolver::with_lookup(Arc::new(|host: &str| {
        let listed = |form: &&str| form.trim_end_matches('.').eq_ignore_ascii_case(host);
        let is_number = host.starts_with(|c: char| c.is_ascii_digit());
        if is_number && forms(&ALL).iter().any(listed) {
            let found = (host, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
            return Ok(found);
        }
        let metadata = host.starts_with("metadata");
        Ok(vec![IpAddr::from(if metadata { [169, 254, 169, 254] } else { [127, 0, 0, 1] })])
    })))
}

fn shut() -> OriginSettings {
    OriginSettings { allow_private: false, resolver: resolver(), ..settings() }
}

fn open() -> OriginSettings {
    OriginSettings { resolver: resolver(), ..settings() }
}

/// What comes of a handler's request to a host that is on its own list in every way it can be written.
async fn ask(settings: OriginSettings, host: &str, port: u16) -> Result<u16, String> {
    let uri: Uri = format!("http://{host}:{port}/").parse().map_err(|e| format!("no URI: {e}"))?;
    let allow =
        [format!("{host}:{port}"), format!("good.test:{port}"), format!("127.0.0.1:{port}")];
    let request = Request::get(uri).body(body::empty()).unwrap();
    let outside = Outside::new(Arc::new(settings));
    match outside.send(request, &allow, &hop()).await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(OriginError::AddressForbidden { .. }) => Err("forbidden".to_owned()),
        Err(error @ OriginError::InvalidRequest { .. }) => Err(format!("no URI: {error}")),
        Err(error @ OriginError::HostNotAllowed { .. }) => Err(format!("not listed: {error}")),
        Err(error) => Err(format!("after all: {error}")),
    }
}

#[tokio::test]
async fn every_form_is_refused_by_address_though_it_is_listed_by_name() {
    let trap = Scripted::always(HELLO).await;
    let port = trap.address.port();
    let mut count = 0;
    for host in [forms(&ALL).as_slice(), NAMES].concat() {
        assert_eq!(ask(shut(), host, port).await, Err("forbidden".to_owned()), "{host}");
        count += 1;
    }
    assert!(count >= 150, "{count} forms");
    assert_eq!(trap.connections(), 0);
    println!("{count} forms were refused");
}

/// A guard as one would write it first: it reads what it can of a host's text.
fn naive_refuses(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        Ok(IpAddr::V6(v6)) => v6.is_loopback() || v6.is_unique_local(),
        Err(_) => host == "localhost",
    }
}

#[test]
fn a_guard_that_reads_the_text_is_passed_by_most_forms() {
    let all = forms(&ALL);
    let passed = all.iter().filter(|host| !naive_refuses(host)).count();
    assert!(passed > 80, "{passed} of {} pass the stand-in", all.len());
    assert!(naive_refuses("127.0.0.1") && naive_refuses("[::1]"), "though it knows the plain ones");
}

#[tokio::test]
async fn what_is_no_host_is_refused_before_it_is_resolved() {
    let trap = Scripted::always(HELLO).await;
    let port = trap.address.port();
    for host in TRICKS {
        let told = ask(shut(), host, port).await.expect_err(host);
        assert!(!told.starts_with("after all"), "{host:?}: {told}");
    }
    assert_eq!(trap.connections(), 0);
}

/// The control: with the operator's switch on the same forms lead to the listener, so that it is the
/// guard and nothing else that stopped them.
#[tokio::test]
async fn the_operators_switch_opens_what_is_private_and_nothing_more() {
    let origin = Scripted::always(HELLO).await;
    let port = origin.address.port();
    let loopback = forms(&["loopback"]);
    for host in &loopback {
        assert_eq!(ask(open(), host, port).await, Ok(200), "{host}");
    }
    let reached = origin.connections();
    assert!(reached >= loopback.len(), "{reached}");
    for host in forms(&["never"]) {
        assert_eq!(ask(open(), host, port).await, Err("forbidden".to_owned()), "{host}");
    }
    for (host, fate) in [("rebound.test", Ok(200)), ("metadata.internal.test", Err("forbidden"))] {
        assert_eq!(ask(open(), host, port).await, fate.map_err(str::to_owned), "{host}");
    }
    assert_eq!(origin.connections(), reached + 1);
}

/// An origin that a site names is judged like a host that a handler names.
#[tokio::test]
async fn no_form_passes_as_an_origin_either() {
    let trap = Scripted::always(HELLO).await;
    let port = trap.address.port();
    for host in [forms(&ALL).as_slice(), NAMES].concat() {
        let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let pool = pool_of(origin(vec![url(bare, port)], patient()), shut());
        let error = fetch(&pool).await.unwrap_err();
        assert!(matches!(error, OriginError::AddressForbidden { .. }), "{host}: {error}");
    }
    assert_eq!(trap.connections(), 0);
}

/// A resolver that gives another answer each time it is asked.
fn fickle(answers: &'static [[u8; 4]]) -> (Arc<Resolver>, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let resolver = Resolver::with_lookup(Arc::new(move |_| {
        let turn = counted.fetch_add(1, Ordering::SeqCst);
        Ok(vec![IpAddr::V4(Ipv4Addr::from(answers[turn.min(answers.len() - 1)]))])
    }));
    (Arc::new(resolver), asked)
}

#[tokio::test]
async fn a_name_is_resolved_once_and_that_very_address_is_used() {
    let origin = Scripted::always(HELLO).await;
    let port = origin.address.port();
    let ask = async |resolver: Arc<Resolver>, allow_private: bool| {
        let settings = OriginSettings { resolver, allow_private, ..settings() };
        self::ask(settings, "rebound.test", port).await
    };
    // Good when it is judged, the metadata service's when it would be resolved again.
    let (resolver, asked) = fickle(&[[127, 0, 0, 1], [169, 254, 169, 254]]);
    assert_eq!(ask(resolver, true).await, Ok(200));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Bad when it is judged: that a second answer would be good helps nobody.
    let (resolver, asked) = fickle(&[[10, 0, 0, 1], [8, 8, 8, 8]]);
    assert_eq!(ask(resolver, false).await, Err("forbidden".to_owned()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_redirect_is_followed_by_nobody_but_the_handler_and_judged_again() {
    for target in ["http://169.254.169.254/latest/", "http://[fd00:ec2::254]/", "//127.1/", "/self"]
    {
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
        let origin = Scripted::always(&head).await;
        let port = origin.address.port();
        assert_eq!(ask(open(), "rebound.test", port).await, Ok(302), "{target}");
        let pool = pool_to(origin.address, patient());
        assert_eq!(fetch(&pool).await.unwrap().0, 302, "{target}");
        assert_eq!(origin.seen().len(), 2, "{target}: nobody but the one who asked may follow");
    }
    for host in ["169.254.169.254", "[fd00:ec2::254]"] {
        assert_eq!(ask(open(), host, 80).await, Err("forbidden".to_owned()), "{host}");
    }
}
