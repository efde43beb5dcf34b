//! A guest sees its own request, its site's environment and the time, and nothing else of this
//! machine or of those who ran before it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::io::Write;
use std::net::TcpListener;

use support::{Recorder, component, get, handler, roomy, spec, text};
use verge_config::site::HandlerLimits;
use verge_handlers::{End, Handler};

#[tokio::test]
async fn files_are_refused() {
    let handler = handler("faulty-rust", roomy()).await;
    let told = text(handler.call(get("/fs"), Recorder::new()).await.unwrap()).await;
    assert_eq!(told.lines().count(), 5, "{told}");
    assert!(!told.contains("Ok("), "{told}");
}

#[tokio::test]
async fn sockets_are_refused_though_somebody_listens() {
    // The control: what the guest is refused, this process may do.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::net::TcpStream::connect(address).unwrap().write_all(b"x").unwrap();
    let handler = handler("faulty-rust", roomy()).await;
    let told = text(handler.call(get("/socket"), Recorder::new()).await.unwrap()).await;
    assert_eq!(told.lines().count(), 7, "{told}");
    assert!(!told.contains("Ok("), "{told}");
    println!("{told}");
}

#[tokio::test]
async fn the_environment_is_the_sites_and_nothing_else() {
    let component = component("faulty-rust").await;
    let env = [("GREETING", "hello"), ("EMPTY", "")];
    let handler = Handler::new(component, "site".into(), spec(roomy(), &env));
    let told = text(handler.call(get("/env"), Recorder::new()).await.unwrap()).await;
    assert_eq!(told, "arguments []\nEMPTY=\nGREETING=hello\ninput Ok(0)\n");
    assert!(std::env::var("PATH").is_ok(), "the control: this process has more");
}

#[tokio::test]
async fn two_sites_share_a_component_but_no_environment() {
    let greeting = |word: &'static str| async move {
        let component = component("hello-rust").await;
        let spec = spec(roomy(), &[("GREETING", word)]);
        let handler = Handler::new(component, word.into(), spec);
        text(handler.call(get("/"), Recorder::new()).await.unwrap()).await
    };
    let (one, other) = tokio::join!(greeting("one"), greeting("other"));
    assert_eq!(one, "one\nHello from Verge\n");
    assert_eq!(other, "other\nHello from Verge\n");
}

#[tokio::test]
async fn recycled_memory_is_clean() {
    let handler = handler("faulty-rust", roomy()).await;
    for _ in 0..20 {
        let host = Recorder::new();
        let answer = handler.call(get("/recycled"), host.clone()).await.unwrap();
        assert_eq!(text(answer).await, "found 0\n");
        assert_eq!(host.end().await.0, End::Responded);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_of_every_kind_leave_nothing_behind() {
    let limits = HandlerLimits { cpu: std::time::Duration::from_millis(20), ..roomy() };
    let faulty = handler("faulty-rust", limits).await;
    let paths = ["/", "/trap", "/no-response", "/error", "/exit", "/late-trap", "/leave"];
    let run = async |rounds: usize| {
        for n in 0..rounds {
            let host = Recorder::new();
            let path = paths[n % paths.len()];
            // Half of the answers are read, half dropped unread.
            if let Ok(answer) = faulty.call(get(path), host.clone()).await
                && n % 2 == 0
            {
                let _ = http_body_util::BodyExt::collect(answer.into_body()).await;
            }
            host.end().await;
        }
    };
    run(200).await;
    let before = (open_files(), resident_pages());
    run(3000).await;
    let after = (open_files(), resident_pages());
    assert_eq!(support::sandbox().running(), 0);
    assert!(after.0 <= before.0 + 2, "files: {} then {}", before.0, after.0);
    let grown = after.1.saturating_sub(before.1) * 4096;
    println!("grown by {grown} bytes over 3,000 requests");
    assert!(grown < 16 << 20, "{grown}");
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_pages() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}
