//! A guest sees its own request, its site's environment and the time, and nothing else of this
//! machine or of those who ran before it.

use std::io::Write;
use std::net::TcpListener;

use verge_handlers::{End, Handler};

use crate::support::{Recorder, component, get, handler, roomy, spec, text};

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
