//! Usage from the handler to the control plane: every request once, whatever is killed on the way and
//! whichever answer is lost.

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use verge_tests::process::guest;
use verge_tests::{Control, Edge, Origin, answer, site, until};

const HOST: &str = "shop.example";
/// Long enough for a few reports, where a report comes every second.
const SETTLED: Duration = Duration::from_secs(3);

async fn origin() -> Origin {
    Origin::start(|seen| async move { answer(200, &[], format!("origin {}", seen.path)) }).await
}

/// A site with a handler that answers, echoes and fetches, and one that fails.
async fn deploy(control: &Control, origin: &Origin) -> u64 {
    let hello = control.upload(&guest("hello-rust")).await;
    let faulty = control.upload(&guest("faulty-rust")).await;
    let rest = format!(
        "[handlers.hello]\ncomponent = {hello:?}\nlimits = {{ cpu = \"5s\" }}\n\n\
         [handlers.faulty]\ncomponent = {faulty:?}\nlimits = {{ cpu = \"5s\" }}\n\n\
         [[routes]]\npath = \"/plain/*\"\norigin = \"web\"\ncache = {{ mode = \"bypass\" }}\n\n\
         [[routes]]\npath = \"/faulty/*\"\nhandler = \"faulty\"\n\n\
         [[routes]]\npath = \"/trap\"\nhandler = \"faulty\"\n\n\
         [[routes]]\npath = \"/*\"\nhandler = \"hello\"\norigin = \"web\"\n"
    );
    control.deploy("shop", &site::for_domains("shop", &[HOST], origin, &rest)).await
}

fn lines(every: &str) -> String {
    format!("allow_private_origins = true\n[handlers]\nusage_every = {every:?}\n")
}

/// A control plane, an origin, and an edge that reports so often.
async fn world(every: &str) -> (Control, Origin, Edge) {
    let (control, origin) = (Control::start().await, origin().await);
    let revision = deploy(&control, &origin).await;
    let edge = Edge::join_with(&control, "e", &lines(every)).await;
    control.applied(revision, &["e"]).await;
    (control, origin, edge)
}

/// What the control plane tells, by handler.
async fn told(control: &Control, handler: &str) -> Value {
    let rows = control.call("GET", "/v1/sites/shop/usage?by=total", None).await.expect(200).json();
    let rows = rows["items"].as_array().unwrap().clone();
    rows.into_iter().find(|row| row["handler"] == handler).unwrap_or(Value::Null)
}

async fn requests(control: &Control, handler: &str) -> u64 {
    told(control, handler).await["requests"].as_u64().unwrap_or(0)
}

async fn until_told(control: &Control, handler: &str, count: u64) {
    until(&format!("{count} requests of {handler} to be told"), || async {
        (requests(control, handler).await >= count).then_some(())
    })
    .await;
    assert_eq!(requests(control, handler).await, count);
}

async fn greet(edge: &Edge, count: u64) {
    let mut client = edge.client().await;
    for _ in 0..count {
        client.get(HOST, "/").await.expect(200);
    }
}

/// How many requests an edge has written down and not told yet.
fn written_down(edge: &Edge) -> u64 {
    let Ok(text) = std::fs::read_to_string(edge.file("state/usage")) else { return 0 };
    let Some((_, text)) = text.split_once('\n') else { return 0 };
    let Ok(ledger) = serde_json::from_str::<Value>(text) else { return 0 };
    let sealed = ledger["sealed"]["items"].as_array().cloned().unwrap_or_default();
    let open = ledger["open"].as_array().cloned().unwrap_or_default();
    let outcomes = sealed.iter().chain(&open).map(|item| item["sums"]["outcomes"].clone());
    outcomes
        .map(|counts| counts.as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_told_with_what_it_used() {
    let (control, _origin, edge) = world("1s").await;
    greet(&edge, 7).await;
    let body = vec![b'x'; 10_000];
    let mut client = edge.client().await;
    for _ in 0..3 {
        client.request("POST", HOST, "/echo", &[], &body).await.expect(200);
    }
    let greeting = edge.get(HOST, "/").await.expect(200).body.len() as u64;
    let mut fetched = 0;
    for _ in 0..4 {
        fetched += edge.get(HOST, "/fetch?path=/plain/x").await.expect(200).body.len() as u64;
    }
    for _ in 0..5 {
        edge.get(HOST, "/trap").await.expect(500);
    }
    edge.get(HOST, "/faulty/busy").await.expect(200);
    until_told(&control, "hello", 15).await;
    until_told(&control, "faulty", 6).await;
    let hello = told(&control, "hello").await;
    assert_eq!(hello["outcomes"], json!({"responded": 15}), "{hello}");
    assert_eq!((hello["version"].as_u64(), hello["fetches"].as_u64()), (Some(1), Some(4)));
    assert_eq!(hello["bytes_in"].as_u64(), Some(30_000));
    assert_eq!(hello["bytes_out"].as_u64(), Some(30_000 + 8 * greeting + fetched), "{hello}");
    let faulty = told(&control, "faulty").await;
    assert_eq!(faulty["outcomes"], json!({"responded": 1, "trapped": 5}), "{faulty}");
    for row in [&hello, &faulty] {
        for what in ["cpu_us", "wall_us", "memory_kib_ms"] {
            assert!(row[what].as_u64().unwrap() > 0, "{what}: {row}");
        }
        assert!(row["cpu_us"].as_u64() <= row["wall_us"].as_u64(), "{row}");
    }
    // What is no handler's is no usage.
    edge.get(HOST, "/plain/y").await.expect(200);
    tokio::time::sleep(SETTLED).await;
    assert_eq!((requests(&control, "hello").await, requests(&control, "faulty").await), (15, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_down_survives_a_kill_and_counts_once() {
    let (mut control, _origin, mut edge) = world("1s").await;
    greet(&edge, 10).await;
    until_told(&control, "hello", 10).await;
    for round in 1..=2 {
        control.kill();
        greet(&edge, 20).await;
        until("the edge to write it down", || async { (written_down(&edge) == 20).then_some(()) })
            .await;
        // The edge comes back without its control plane, and serves from its last good state.
        edge.restart().await;
        greet(&edge, 5).await;
        control.resume().await;
        until_told(&control, "hello", 10 + round * 25).await;
    }
    // Killed at any moment after it was told, it tells nothing again.
    edge.restart().await;
    greet(&edge, 1).await;
    until_told(&control, "hello", 61).await;
    tokio::time::sleep(SETTLED).await;
    assert_eq!(requests(&control, "hello").await, 61);
    assert_eq!(written_down(&edge), 0);
}

/// The control of the test above: what is not written down yet is what a kill may lose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_what_was_not_written_down_and_no_more() {
    let (control, _origin, mut edge) = world("1h").await;
    greet(&edge, 10).await;
    edge.restart().await;
    greet(&edge, 4).await;
    // An orderly end writes down and tells what is left.
    edge.process.terminate().unwrap();
    until("the edge to end", || std::future::ready(edge.process.exit_code().map(drop))).await;
    assert!(requests(&control, "hello").await + written_down(&edge) == 4);
    edge.restart().await;
    greet(&edge, 1).await;
    edge.process.terminate().unwrap();
    until("the edge to end", || std::future::ready(edge.process.exit_code().map(drop))).await;
    assert_eq!(requests(&control, "hello").await + written_down(&edge), 5);
}

/// A way to the control plane on which answers can get lost.
struct Way {
    origin: Origin,
    is_deaf: watch::Sender<bool>,
}

impl Way {
    async fn to(target: SocketAddr) -> Way {
        let is_deaf = watch::Sender::new(false);
        let hears = is_deaf.clone();
        let origin = Origin::raw(move |stream| {
            let hears = hears.subscribe();
            async move {
                if let Ok(control) = TcpStream::connect(target).await {
                    carry(stream, control, hears).await;
                }
            }
        })
        .await;
        Way { origin, is_deaf }
    }
}

/// Carries bytes both ways; those of answers are dropped while the way is deaf. Once one was dropped,
/// the connection ends with the deafness.
async fn carry(edge: TcpStream, control: TcpStream, mut deaf: watch::Receiver<bool>) {
    let (mut from_edge, mut to_edge) = edge.into_split();
    let (mut from_control, mut to_control) = control.into_split();
    let asking = async move {
        let _ = tokio::io::copy(&mut from_edge, &mut to_control).await;
    };
    let answering = async move {
        let mut buffer = vec![0; 64 * 1024];
        let mut has_dropped = false;
        loop {
            let read = tokio::select! {
                read = from_control.read(&mut buffer) => read,
                changed = deaf.changed() => {
                    if changed.is_err() || has_dropped && !*deaf.borrow() {
                        return;
                    }
                    continue;
                }
            };
            let Ok(count @ 1..) = read else { return };
            if *deaf.borrow() {
                has_dropped = true;
            } else if has_dropped || to_edge.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        () = answering => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_acknowledgement_counts_nothing_twice() {
    let (control, origin) = (Control::start().await, origin().await);
    let revision = deploy(&control, &origin).await;
    let way = Arc::new(Way::to(control.address).await);
    let token = control.join_token().await;
    let edge = Edge::join_at(way.origin.address, &token, "e", &lines("1s")).await;
    control.applied(revision, &["e"]).await;
    greet(&edge, 3).await;
    until_told(&control, "hello", 3).await;
    let mut count = 3;
    for _ in 0..2 {
        way.is_deaf.send_replace(true);
        greet(&edge, 8).await;
        until("a batch to arrive", || async {
            (requests(&control, "hello").await > count).then_some(())
        })
        .await;
        until("the edge to have all of it still", || async {
            (written_down(&edge) == 8).then_some(())
        })
        .await;
        count += 8;
        greet(&edge, 2).await;
        count += 2;
        way.is_deaf.send_replace(false);
        until_told(&control, "hello", count).await;
    }
    until("the edge to know that all is told", || async {
        (written_down(&edge) == 0).then_some(())
    })
    .await;
    tokio::time::sleep(SETTLED).await;
    assert_eq!(requests(&control, "hello").await, count);
    let metrics = edge.admin("/metrics").await.expect(200).text();
    let unsent = metrics
        .lines()
        .find_map(|line| line.strip_prefix("verge_control_link_usage_unsent_total "));
    assert!(unsent.unwrap().parse::<u64>().unwrap() >= 2, "{unsent:?}: the answers were lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_edge_of_the_same_name_begins_anew_and_is_counted() {
    let (control, _origin, edge) = world("1s").await;
    greet(&edge, 4).await;
    until_told(&control, "hello", 4).await;
    drop(edge);
    // The same name, an empty folder: its first batch is number 1 again.
    let again = Edge::join_with(&control, "e", &lines("1s")).await;
    again.ready().await;
    until("the site to be served", || async {
        (again.get(HOST, "/plain/x").await.status == 200).then_some(())
    })
    .await;
    greet(&again, 6).await;
    until_told(&control, "hello", 10).await;
}
