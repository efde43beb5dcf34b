//! The admin listener over a socket, before an edge that is scripted.

use super::*;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

#[derive(Default)]
struct Edge {
    ready: AtomicBool,
    fleet: bool,
}

impl AdminHooks for Edge {
    fn edge_name(&self) -> String {
        "edge-1".to_owned()
    }

    fn readiness(&self) -> Readiness {
        if self.ready.load(Ordering::SeqCst) {
            Readiness::Ready { revision: Revision(7) }
        } else {
            Readiness::NotReady("no configuration yet")
        }
    }

    fn explain(&self, url: &str, fields: &[(String, String)]) -> Result<Value, String> {
        if url.starts_with("http") {
            Ok(json!({ "url": url, "fields": fields }))
        } else {
            Err("not a URL".to_owned())
        }
    }

    fn purge(&self, request: PurgeRequest) -> BoxFuture<'_, Result<PurgeDone, PurgeRefused>> {
        Box::pin(async move {
            if self.fleet {
                let control_plane = "https://control.test".to_owned();
                return Err(PurgeRefused::Fleet { control_plane });
            }
            match request.site.as_deref() {
                None | Some("shop") => {
                    let samples = if request.dry_run { vec!["https://s/".into()] } else { vec![] };
                    let (site, revision) = ("shop".into(), Revision(8));
                    Ok(PurgeDone { site, revision, matched: 3, samples })
                }
                Some(other) => Err(PurgeRefused::UnknownSite(other.to_owned())),
            }
        })
    }
}

struct Running {
    address: SocketAddr,
    edge: Arc<Edge>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<io::Result<()>>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The kind of the problem; fails when the answer is no problem document.
    fn problem(&self) -> String {
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let document = self.json();
        assert_eq!(document["status"], self.status);
        document["type"].as_str().unwrap().to_owned()
    }
}

impl Running {
    async fn start(edge: Edge) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let edge = Arc::new(edge);
        let (stop, stopped) = oneshot::channel::<()>();
        let hooks: Arc<dyn AdminHooks> = edge.clone();
        let served = tokio::spawn(serve(listener, hooks, async move {
            let _ = stopped.await;
        }));
        Running { address, edge, stop: Some(stop), served }
    }

    async fn raw(&self, text: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> Answer {
        let kind =
            if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}Content-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        ))
        .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "").await
    }

    async fn purge(&self, body: &str) -> Answer {
        self.ask("POST", "/purges", "application/json", body).await
    }
}

#[tokio::test]
async fn readiness_follows_the_configuration() {
    let admin = Running::start(Edge::default()).await;
    assert_eq!(admin.get("/healthz").await.status, 200);
    let answer = admin.get("/readyz").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "/problems/not-ready"));
    admin.edge.ready.store(true, Ordering::SeqCst);
    let answer = admin.get("/readyz").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["revision"], 7);
    let metrics = admin.get("/metrics").await;
    assert!(metrics.body.contains("verge_front_requests_in_flight"), "{}", metrics.body);
}

#[tokio::test]
async fn a_purge_is_answered_with_a_receipt_that_can_be_read_again() {
    let admin = Running::start(Edge::default()).await;
    let answer = admin.purge(r#"{"selectors": [{"tag": "assets"}], "mode": "soft"}"#).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let receipt: verge_config::api::Receipt = serde_json::from_str(&answer.body).unwrap();
    assert!(receipt.complete);
    assert_eq!((receipt.applied, receipt.pending, receipt.offline), (1, 0, 0));
    assert_eq!(
        (receipt.site.as_str(), receipt.revision, receipt.matched),
        ("shop", Revision(8), 3)
    );
    assert_eq!(receipt.edges.len(), 1);
    assert_eq!(receipt.edges[0].edge, "edge-1");
    let location = format!("location: /purges/{}", receipt.id);
    assert!(answer.head.contains(&location), "{}", answer.head);
    let again = admin.get(&format!("/purges/{}", receipt.id)).await;
    assert_eq!(serde_json::from_str::<verge_config::api::Receipt>(&again.body).unwrap(), receipt);
    let missing = admin.get("/purges/p0").await;
    assert_eq!((missing.status, missing.problem().as_str()), (404, "/problems/purge-not-found"));
}

#[tokio::test]
async fn what_is_wrong_with_a_purge_is_told_whole() {
    let admin = Running::start(Edge::default()).await;
    let answer = admin.purge(r#"{"mode": "x", "selectors": [{"tga": "a"}, {"tag": ""}]}"#).await;
    assert_eq!((answer.status, answer.problem().as_str()), (422, "/problems/invalid-purge"));
    let faults = answer.json()["faults"].as_array().unwrap().clone();
    let places: Vec<_> = faults.iter().map(|fault| fault["path"].as_str().unwrap()).collect();
    assert_eq!(places, ["selectors[0]", "selectors[1].tag", "mode"]);
    let answer = admin.purge("{").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "/problems/malformed-json"));
    let answer = admin.purge(r#"{"site": "other", "selectors": [{"tag": "a"}]}"#).await;
    assert_eq!((answer.status, answer.problem().as_str()), (404, "/problems/not-found"));
    let valid = r#"{"selectors": [{"everything": true}]}"#;
    let answer = admin.ask("POST", "/purges", "text/plain", valid).await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (415, "/problems/unsupported-media-type")
    );
    assert_eq!(admin.purge(valid).await.status, 201);
    let fleet = Running::start(Edge { fleet: true, ..Edge::default() }).await;
    let answer = fleet.purge(valid).await;
    assert_eq!((answer.status, answer.problem().as_str()), (409, "/problems/edge-of-a-fleet"));
    assert!(answer.body.contains("https://control.test/v1/purges"), "{}", answer.body);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let admin = Running::start(Edge::default()).await;
    let head = "POST /purges HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 99999999\r\nConnection: close\r\n\r\n";
    let answer = admin.raw(head).await;
    assert_eq!((answer.status, answer.problem().as_str()), (413, "/problems/body-too-large"));
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_document() {
    let admin = Running::start(Edge::default()).await;
    let answer = admin.get("/nothing").await;
    assert_eq!((answer.status, answer.problem().as_str()), (404, "/problems/not-found"));
    let answer = admin.get("/purges").await;
    assert_eq!((answer.status, answer.problem().as_str()), (405, "/problems/method-not-allowed"));
    assert!(answer.head.contains("allow: post"), "{}", answer.head);
    let answer = admin.ask("DELETE", "/metrics", "", "").await;
    assert_eq!((answer.status, answer.problem().as_str()), (405, "/problems/method-not-allowed"));
    let answer = admin.get("/explain").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "/problems/invalid-url"));
    let answer = admin.get("/explain?url=nonsense").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "/problems/invalid-url"));
    let answer = admin.get("/explain?url=https%3A%2F%2Fshop.example%2Fa%3Fb").await;
    assert_eq!(answer.json()["url"], "https://shop.example/a?b");
}

#[tokio::test]
async fn a_page_under_a_foreign_name_is_kept_out() {
    let admin = Running::start(Edge::default()).await;
    for host in ["evil.example", "evil.example:9090", "localhost.evil.example"] {
        let text = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = admin.raw(&text).await;
        assert_eq!((answer.status, answer.problem().as_str()), (421, "/problems/foreign-host"));
    }
    let text = "GET /healthz HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n";
    assert_eq!(admin.raw(text).await.status, 200);
}

#[tokio::test]
async fn it_stops_when_it_is_told_to() {
    let mut admin = Running::start(Edge::default()).await;
    assert_eq!(admin.get("/healthz").await.status, 200);
    admin.stop.take().unwrap().send(()).unwrap();
    admin.served.await.unwrap().unwrap();
    assert!(TcpStream::connect(admin.address).await.is_err());
}
