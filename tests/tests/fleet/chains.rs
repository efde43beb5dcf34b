//! Several handlers on a route: who gets what, in which order, what one that fails is to the one before
//! it, and how much a request may start. And origins that handlers call by their names.

use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use verge_tests::origin::streamed;
use verge_tests::process::guest;
use verge_tests::wait::within;
use verge_tests::{Control, Edge, Gate, Lines, Origin, Reply, answer, site, until};

const HOST: &str = "a.example";
const GUESTS: [&str; 4] = ["middleware-rust", "hello-rust", "hello-p3-rust", "faulty-rust"];
const PLAIN: &str = "[[routes]]\npath = \"/*\"\norigin = \"web\"\n";

/// A handler of a guest that is beside the site file, with these lines.
fn handler(name: &str, guest: &str, lines: &str) -> String {
    format!("[handlers.{name}]\ncomponent = \"{guest}.wasm\"\n{lines}\n\n")
}

/// One that passes requests on and says so, with this in its environment besides.
fn middleware(name: &str, env: &str) -> String {
    let lines =
        format!("limits = {{ cpu = \"5s\", wall = \"60s\" }}\nenv = {{ NAME = {name:?}{env} }}");
    handler(name, "middleware-rust", &lines)
}

/// One that passes everything on as it comes, by the newer contract.
fn passing(name: &str) -> String {
    let lines = format!("limits = {{ cpu = \"5s\" }}\nenv = {{ PASS = {name:?} }}");
    handler(name, "hello-p3-rust", &lines)
}

fn route(path: &str, handlers: &[&str], lines: &str) -> String {
    format!("[[routes]]\npath = {path:?}\nhandlers = {handlers:?}\norigin = \"web\"\n{lines}\n\n")
}

/// An edge alone with a site; these lines come first in its file.
async fn edge_with(first: &str, origin: &Origin, rest: &str) -> Edge {
    let text = format!("{first}{}", site::with_routes(origin, rest));
    let with = |edge: verge_tests::edge::Standalone, name: &&str| {
        edge.beside(&format!("{name}.wasm"), &guest(name))
    };
    GUESTS.iter().fold(Edge::standalone(text), with).start().await
}

async fn edge(origin: &Origin, rest: &str) -> Edge {
    edge_with("", origin, rest).await
}

/// An origin that says what it was sent: method, path, who passed it on, and the length of the content.
async fn telling(fields: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::start(move |seen| async move {
        let passed: Vec<_> =
            seen.headers.get_all("x-passed").iter().map(|v| v.to_str().unwrap()).collect();
        let passed = passed.join(",");
        answer(200, fields, format!("{} {} {passed} {}", seen.method, seen.path, seen.body.len()))
    })
    .await
}

/// Who wrote into the response, the one nearest to the origin first.
fn by(reply: &Reply) -> Vec<&str> {
    reply.headers.get_all("x-by").iter().map(|value| value.to_str().unwrap()).collect()
}

async fn ended(edge: &Edge, end: &str) -> u64 {
    let text = edge.admin("/metrics").await.expect(200).text();
    let name = format!("verge_handlers_runs_total{{end=\"{end}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

async fn logged(edge: &Edge, text: &str) {
    until(text, || async { edge.process.output().contains(text).then_some(()) }).await;
}

async fn ended_so_often(edge: &Edge, end: &str, count: u64) {
    until(&format!("{count} runs to be {end}"), || async {
        (ended(edge, end).await >= count).then_some(())
    })
    .await;
    assert_eq!(ended(edge, end).await, count, "{end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_from_one_to_the_next_and_then_to_the_origin() {
    let origin = telling(&[]).await;
    let rest = middleware("auth", ", TOKEN = \"secret\"")
        + &middleware("rewrite", ", FROM = \"/in/\", TO = \"/pages/\"")
        + &middleware("back", ", FROM = \"/back/\", TO = \"/pages/\"")
        + &route("/in/*", &["auth", "rewrite"], "")
        + &route("/back/*", &["back", "auth"], "")
        + PLAIN;
    let edge = edge(&origin, &rest).await;
    let token = [("X-Token", "secret"), ("X-Own", "kept")];
    let ask = async |method: &str, path: &str, body: &[u8]| {
        edge.client().await.request(method, HOST, path, &token, body).await
    };
    let told = ask("GET", "/in/x?q=1", b"").await.expect(200);
    assert_eq!(told.text(), "GET /pages/x?q=1 auth,rewrite 0");
    assert_eq!(by(&told), ["rewrite", "auth"]);
    // What one takes out, those behind it do not see; everything else they do.
    let seen = origin.seen().pop().unwrap();
    assert_eq!(
        (seen.headers.get("x-token"), &seen.headers["x-own"]),
        (None, &"kept".parse().unwrap())
    );
    assert_eq!(
        ask("POST", "/in/x", b"01234").await.expect(200).text(),
        "POST /pages/x auth,rewrite 5"
    );
    let head = ask("HEAD", "/in/x", b"").await.expect(200);
    assert_eq!((head.body.len(), by(&head)), (0, vec!["rewrite", "auth"]));
    assert_eq!(
        ask("DELETE", "/in/x", b"").await.expect(200).text(),
        "DELETE /pages/x auth,rewrite 0"
    );
    ended_so_often(&edge, "responded", 8).await;

    // The first refuses, and nobody behind it runs.
    let before = origin.seen().len();
    let refused = edge.get(HOST, "/in/x").await.expect(401);
    assert_eq!((refused.text().as_str(), by(&refused)), ("a token is needed\n", vec![]));
    ended_so_often(&edge, "responded", 9).await;
    // It is the place in the order that counts, and not the path: what was rewritten comes to the next.
    assert_eq!(ask("GET", "/back/x", b"").await.expect(200).text(), "GET /pages/x back,auth 0");
    let refused = edge.get(HOST, "/back/x").await.expect(401);
    assert_eq!(by(&refused), ["back"]);
    assert_eq!(origin.seen().len(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_is_an_error_s_response_to_the_one_before() {
    let origin = telling(&[]).await;
    let faulty = "limits = { cpu = \"50ms\", memory = \"32MiB\", wall = \"2s\" }\n\
                  breaker = { failures = 1000 }";
    let rest = middleware("pass", "")
        + &handler("faulty", "faulty-rust", faulty)
        + &route("/*", &["pass", "faulty"], "");
    let edge = edge(&origin, &rest).await;
    assert_eq!(edge.get(HOST, "/good").await.expect(200).text(), "a good answer\n");
    for (path, statuses) in [
        ("/trap", &[500][..]),
        ("/spin", &[503, 504]),
        ("/memory", &[500, 503]),
        ("/exit", &[500]),
        ("/no-response", &[500]),
        ("/error", &[500]),
        ("/hang", &[504]),
    ] {
        let reply = edge.get(HOST, path).await;
        assert!(statuses.contains(&reply.status), "{path}: {reply:?}");
        // What a visitor would be told, and the one before had its say.
        assert!(reply.text().contains("did not answer"), "{path}: {reply:?}");
        assert_eq!(
            (by(&reply), reply.field("cache-control")),
            (vec!["pass"], "no-store"),
            "{path}"
        );
        assert_eq!(reply.status == 503, reply.field("retry-after") == "1", "{path}: {reply:?}");
    }
    // What has begun breaks off for all.
    for path in ["/late-trap", "/leave"] {
        let late = edge.client().await.try_request("GET", HOST, path, &[], b"").await;
        assert!(late.is_err() || late.is_ok_and(|reply| !reply.whole), "{path}");
    }
    // Each has its own breaker.
    let told =
        edge.admin(&format!("/explain?url=http%3A%2F%2F{HOST}%2Fx")).await.expect(200).json();
    assert_eq!(told["rule"]["target"], json!({"handlers": ["pass", "faulty"], "origin": "web"}));
    let now = &told["handler"];
    assert_eq!(now["breakers"], json!({"pass": "closed", "faulty": "closed"}), "{told}");
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_streams_through_all_of_them_both_ways() {
    let long = "0123456789abcdef".repeat(256 * 1024);
    let (held, mut senders) = mpsc::unbounded_channel();
    let content = Bytes::from(long.clone());
    let origin = Origin::start(move |seen| {
        let answer = match seen.path.as_str() {
            "/long" => answer(200, &[], content.clone()),
            "/held" => {
                let (answer, sender) = streamed(200, &[]);
                held.send(sender).unwrap();
                answer
            }
            _ => answer(200, &[], seen.body.len().to_string()),
        };
        async move { answer }
    })
    .await;
    let rest = passing("one")
        + &passing("two")
        + &middleware("three", "")
        + &handler("echo", "hello-rust", "limits = { cpu = \"5s\" }")
        + &route("/echo", &["one", "two", "echo"], "")
        + &route("/*", &["one", "three"], "");
    let edge = edge(&origin, &rest).await;

    let told = edge.get(HOST, "/long").await.expect(200);
    assert!(told.whole && told.text() == long, "{} bytes", told.body.len());
    assert_eq!((told.field("x-handler"), by(&told)), ("one", vec!["three"]));
    let mut client = edge.client().await;
    let told = client.request("POST", HOST, "/length", &[], long.as_bytes()).await.expect(200);
    assert_eq!(told.text(), long.len().to_string());
    // Content comes back while it is still on its way there.
    let mut client = edge.client2().await;
    let told = client.request("POST", HOST, "/echo", &[], long.as_bytes()).await.expect(200);
    assert!(told.whole && told.text() == long, "{} bytes", told.body.len());
    assert_eq!(told.headers.get_all("x-handler").iter().count(), 2);

    // A piece is there before the next one exists.
    let mut client = edge.client().await;
    client.send(format!("GET /held HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
    let sender = within("the origin to be asked", senders.recv()).await.unwrap();
    sender.send(Ok(Bytes::from_static(b"one"))).unwrap();
    assert_eq!(within("a head", client.read_head()).await.unwrap().0, 200);
    let mut body = Vec::new();
    within("the first piece", client.read_chunk(&mut body)).await.unwrap();
    assert_eq!(body, b"one");
    sender.send(Ok(Bytes::from_static(b"two"))).unwrap();
    drop(sender);
    while within("the rest", client.read_chunk(&mut body)).await.unwrap() {}
    assert_eq!(body, b"onetwo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_come_through() {
    let origin = telling(&[]).await;
    let rest = passing("one")
        + &passing("two")
        + &handler("last", "hello-p3-rust", "limits = { cpu = \"5s\" }")
        + &route("/*", &["one", "two", "last"], "");
    let edge = edge(&origin, &rest).await;
    let mut client = edge.client().await;
    let request = format!("GET /trailers HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\n\r\n");
    client.send(request.as_bytes()).await.unwrap();
    assert_eq!(within("a head", client.read_head()).await.unwrap().0, 200);
    let mut rest = Vec::new();
    while !rest.ends_with(b"\r\n\r\n") {
        let some = within("the rest", client.read_some()).await.unwrap();
        assert!(!some.is_empty(), "closed after {:?}", String::from_utf8_lossy(&rest));
        rest.extend(some);
    }
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains("content\n") && rest.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_stands_before_the_first_and_behind_the_last() {
    let origin = telling(&[("Cache-Control", "max-age=3600")]).await;
    let rest = middleware("pass", "")
        + &middleware("other", "")
        + &handler("hello", "hello-rust", "limits = { cpu = \"5s\" }")
        + &route("/before/*", &["pass", "hello"], "cache = { position = \"before\" }")
        + &route("/*", &["pass", "other"], "");
    let edge = edge(&origin, &rest).await;
    for round in 0..3 {
        let told = edge.get(HOST, "/before/x?ttl=60").await.expect(200);
        assert_eq!((told.is_hit(), by(&told)), (round > 0, vec!["pass"]));
        assert_eq!(edge.get(HOST, "/behind").await.expect(200).text(), "GET /behind pass,other 0");
    }
    assert_eq!(origin.count("/behind"), 1);
    // Twice for what was stored before the first, each time for the other.
    ended_so_often(&edge, "responded", 2 + 3 * 2).await;
}

/// Trips the breaker of the handler that traps, and again with each probe, until it stays open for this
/// many seconds.
async fn trip(edge: &Edge, seconds: u64) {
    for _ in 0..3 {
        edge.get(HOST, "/trap").await.expect(500);
    }
    let mut open = 1;
    while open < seconds {
        until("a probe that fails", || async {
            (edge.get(HOST, "/trap").await.status == 500).then_some(())
        })
        .await;
        open *= 2;
    }
}

/// A handler that is left alone after three failures.
fn failing(on_failure: &str) -> String {
    let lines = format!(
        "limits = {{ cpu = \"5s\" }}\non_failure = {on_failure:?}\n\
         breaker = {{ failures = 3, window = \"60s\" }}"
    );
    handler("faulty", "faulty-rust", &lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_one_takes_the_place_of_one_that_is_left_alone_and_the_origin_that_of_the_last() {
    for (chain, position) in [
        (["pass", "faulty"], "behind"),
        (["pass", "faulty"], "before"),
        (["faulty", "pass"], "behind"),
        (["faulty", "pass"], "before"),
    ] {
        let origin = telling(&[]).await;
        let cache =
            format!("cache = {{ position = {position:?}, mode = \"override\", ttl = \"1h\" }}");
        let rest = middleware("pass", "") + &failing("bypass") + &route("/*", &chain, &cache);
        let edge = edge(&origin, &rest).await;
        assert_eq!(edge.get(HOST, "/own").await.expect(200).text(), "a good answer\n");
        trip(&edge, 4).await;
        for _ in 0..2 {
            let told = edge.get(HOST, "/new").await.expect(200);
            assert_eq!((told.text().as_str(), by(&told)), ("GET /new pass 0", vec!["pass"]));
        }
        // Kept by the cache behind the last as ever, and by the one before the first as nobody's.
        let asked = if position == "behind" { 1 } else { 2 };
        assert_eq!(origin.count("/new"), asked, "{chain:?} {position}");
        until("the handler to be tried again", || async {
            (edge.get(HOST, "/new").await.text() == "a good answer\n").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_left_alone_refuses_the_one_before_it() {
    let origin = telling(&[]).await;
    let rest = middleware("pass", "") + &failing("error") + &route("/*", &["pass", "faulty"], "");
    let edge = edge(&origin, &rest).await;
    trip(&edge, 4).await;
    let refused = edge.get(HOST, "/good").await.expect(503);
    assert!(refused.text().contains("out of order"), "{refused:?}");
    assert!(refused.field("retry-after").parse::<u64>().unwrap() <= 4, "{refused:?}");
    assert_eq!(by(&refused), ["pass"]);
    let told =
        edge.admin(&format!("/explain?url=http%3A%2F%2F{HOST}%2Fx")).await.expect(200).json();
    let breakers = &told["handler"]["breakers"];
    assert_eq!(breakers, &json!({"pass": "closed", "faulty": "open"}), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_so_many_runs_in_all() {
    let origin = telling(&[]).await;
    let rest = handler("many", "faulty-rust", "limits = { cpu = \"5s\", fetches = 100 }")
        + &handler("hello", "hello-rust", "limits = { cpu = \"5s\" }")
        + &route("/*", &["many", "hello"], "");
    let edge = edge(&origin, &rest).await;
    for round in 1..=2 {
        // Its own run is the first of 32.
        let told = edge.get(HOST, "/fetch-many?n=40").await.expect(200).text();
        assert!(told.starts_with("good 31, bad 9"), "{told}");
        ended_so_often(&edge, "responded", 32 * round).await;
    }
    let told = edge.get(HOST, "/fetch-many?n=31").await.expect(200).text();
    assert!(told.starts_with("good 31, bad 0"), "{told}");
    logged(&edge, "have run 32 times for this request").await;
}

/// An origin that holds `/slow` at a gate.
async fn holding(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |seen| {
        let gate = gate.clone();
        async move {
            if seen.path.starts_with("/slow") {
                gate.pass().await;
            }
            answer(200, &[], seen.path)
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_them_have_one_place() {
    let gate = Gate::default();
    let origin = holding(&gate).await;
    let rest = middleware("a", "")
        + &middleware("b", "")
        + &middleware("c", "")
        + &route("/*", &["a", "b", "c"], "cache = { position = \"off\" }");
    let edge = edge_with("handler_concurrency = 1\n", &origin, &rest).await;
    for _ in 0..5 {
        assert_eq!(by(&edge.get(HOST, "/x").await.expect(200)), ["c", "b", "a"]);
    }
    let address = edge.http;
    let held = tokio::spawn(async move { verge_tests::http1::get(address, HOST, "/slow").await });
    gate.reached().await;
    edge.get(HOST, "/x").await.expect(503);
    gate.open_for_good();
    within("what was held", held).await.unwrap().expect(200);
    until("the place to be free", || async {
        (edge.get(HOST, "/x").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_site_takes_all_of_the_edge_by_what_each_request_starts() {
    let gate = Gate::default();
    let (control, origin) = (Control::start().await, holding(&gate).await);
    let component = control.upload(&guest("middleware-rust")).await;
    let mut revision = 0;
    for (name, chain) in [("a", &["x", "y", "z"][..]), ("b", &["x"])] {
        let handlers: String = ["x", "y", "z"].map(|name| middleware(name, "")).concat();
        let handlers = handlers.replace("middleware-rust.wasm", &component);
        let rest = handlers + &route("/*", chain, "cache = { position = \"off\" }");
        let text = site::for_domains(name, &[&format!("{name}.example")], &origin, &rest);
        revision = control.deploy(name, &text).await;
    }
    let lines = "allow_private_origins = true\n[handlers]\ninstances = 8\n";
    let edge = Edge::join_with(&control, "e", lines).await;
    control.applied(revision, &["e"]).await;
    let address = edge.http;
    let held = [(); 2].map(|()| {
        tokio::spawn(async move { verge_tests::http1::get(address, "a.example", "/slow").await })
    });
    gate.reached().await;
    gate.reached().await;
    // Four of eight run behind the firsts; one more first runs, and nobody behind it.
    let refused = edge.get("a.example", "/x").await.expect(503);
    assert_eq!((by(&refused), refused.field("retry-after")), (vec!["x"], "1"));
    assert_eq!(ended(&edge, "instance_limit").await, 1);
    edge.get("b.example", "/x").await.expect(200);
    gate.open_for_good();
    for reply in held {
        within("what was held", reply).await.unwrap().expect(200);
    }
    until("them to be gone", || async {
        (edge.get("a.example", "/x").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_that_goes_takes_all_of_them_along() {
    let gate = Gate::default();
    let origin = holding(&gate).await;
    let rest = middleware("a", "")
        + &middleware("b", "")
        + &passing("c")
        + &route("/*", &["a", "b", "c"], "cache = { position = \"off\" }");
    let edge = edge_with("handler_concurrency = 1\n", &origin, &rest).await;
    let mut client = edge.client2().await;
    let asked = tokio::spawn(async move { client.get(HOST, "/slow").await });
    gate.reached().await;
    asked.abort();
    ended_so_often(&edge, "cancelled", 3).await;
    edge.get(HOST, "/x").await.expect(200);
    gate.open_for_good();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_is_called_by_its_name_and_by_nobody_else() {
    let fields: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];
    let (allows, web) = (Arc::new(AtomicBool::new(true)), telling(fields).await);
    let says = Arc::clone(&allows);
    let sessions = Origin::start(move |_| {
        let status = if says.load(Ordering::SeqCst) { 200 } else { 404 };
        async move { answer(status, fields, "") }
    })
    .await;
    let ask = |host: &str| format!(", ASK = \"http://{host}/check?x=1\"");
    let rest = format!("[origins.sessions]\nurls = [{:?}]\n\n", sessions.url())
        + &middleware("auth", &ask("Sessions.origin.alt"))
        + &middleware("second", &ask("sessions.origin.alt"))
        + &middleware("lost", &ask("session.origin.alt"))
        + &middleware("odd", &ask("sessions.origin.alt:8080"))
        + &middleware("bare", &ask("origin.alt"))
        + &route("/in/*", &["auth", "second"], "")
        + &route("/lost", &["lost"], "")
        + &route("/odd", &["odd"], "")
        + &route("/bare", &["bare"], "")
        + PLAIN;
    let edge = edge(&web, &rest).await;
    for round in 1..=2 {
        assert_eq!(edge.get(HOST, "/in/x").await.expect(200).text(), "GET /in/x auth,second 0");
        // Past the cache, and past the handlers behind.
        assert_eq!(sessions.count("/check?x=1"), 2 * round);
    }
    let seen = sessions.seen().pop().unwrap();
    assert_eq!(seen.headers["host"], HOST, "as a visitor's request would come");
    assert!(seen.headers["cdn-loop"].to_str().unwrap().contains("verge"), "{seen:?}");
    allows.store(false, Ordering::SeqCst);
    assert_eq!(edge.get(HOST, "/in/x").await.expect(403).text(), "that is not allowed\n");
    assert_eq!(web.count("/check?x=1"), 0);

    for path in ["/lost", "/odd", "/bare"] {
        edge.get(HOST, path).await.expect(500);
    }
    logged(&edge, "no origin named \"session\"; did you mean \"sessions\"?").await;
    logged(&edge, "has no port").await;
    // No visitor chooses an origin by the host, though the site answers any.
    let before = sessions.seen().len();
    for host in ["sessions.origin.alt", "SESSIONS.origin.ALT.", "web.origin.alt:80", "origin.alt"] {
        edge.get(host, "/in/x").await.expect(404);
        edge.get(host, "/plain").await.expect(404);
    }
    assert_eq!((sessions.seen().len(), web.count("/plain")), (before, 0));
    edge.get("origin.alt.example", "/plain").await.expect(200);
}

/// An edge of a fleet whose site has a chain, and a version that is not active with another one.
async fn fleet() -> (Control, Origin, Edge) {
    let (control, origin) = (Control::start().await, telling(&[]).await);
    let middle = control.upload(&guest("middleware-rust")).await;
    let hello = control.upload(&guest("hello-rust")).await;
    let text = |first: &str| {
        let first_handler = middleware(first, "").replace("middleware-rust.wasm", &middle);
        let greet = handler("greet", "hello-rust", "limits = { cpu = \"5s\" }");
        let rest = first_handler
            + &greet.replace("hello-rust.wasm", &hello)
            + &route("/*", &[first, "greet"], "");
        site::for_domains("shop", &["shop.example"], &origin, &rest)
    };
    let lines = "allow_private_origins = true\n[handlers]\nusage_every = \"1s\"\n";
    let edge = Edge::join_with(&control, "e", lines).await;
    let revision = control.deploy("shop", &text("auth")).await;
    control.applied(revision, &["e"]).await;
    control.upload_site("shop", &text("fresh")).await.expect(201);
    (control, origin, edge)
}

async fn requests(control: &Control, handler: &str) -> u64 {
    let told = control.call("GET", "/v1/sites/shop/usage?by=total", None).await.expect(200).json();
    let rows = told["items"].as_array().unwrap();
    let own = rows.iter().filter(|row| row["handler"] == handler);
    own.filter_map(|row| row["requests"].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_metered_and_a_tail_and_a_preview_have_them_all() {
    let (control, _origin, edge) = fleet().await;
    let mut lines = Lines::open(&control, "/v1/sites/shop/tail?handler=greet").await;
    assert_eq!(lines.next().await.unwrap()["type"], "open");
    let (asked, address) = (Arc::new(AtomicUsize::new(0)), edge.http);
    let count = Arc::clone(&asked);
    let asking = tokio::spawn(async move {
        loop {
            count.fetch_add(1, Ordering::SeqCst);
            verge_tests::http1::get(address, "shop.example", "/x").await.expect(200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let event = loop {
        let line: Value = lines.next().await.expect("an open tail");
        if line["type"] == "request" {
            break line;
        }
    };
    asking.abort();
    assert_eq!(
        (&event["handler"], &event["outcome"]),
        (&json!("auth>greet"), &json!("responded")),
        "{event}"
    );
    let line = json!({"stream": "stdout", "handler": "auth", "text": "GET /x"});
    assert_eq!(event["lines"], json!([line]), "{event}");

    let body = json!({ "ttl_seconds": 600 });
    let path = "/v1/sites/shop/versions/2/previews";
    let made = control.call("POST", path, Some(&body)).await.expect(201).json();
    control.applied(made["revision"].as_u64().unwrap(), &["e"]).await;
    let token = [("Verge-Preview", made["token"].as_str().unwrap())];
    let told = edge.client().await.request("GET", "shop.example", "/x", &token, b"").await;
    assert_eq!(by(&told.expect(200)), ["fresh"]);
    assert_eq!(by(&edge.get("shop.example", "/x").await.expect(200)), ["auth"]);

    let most = asked.load(Ordering::SeqCst) as u64 + 1;
    until("the usage of all to be told", || async {
        let (auth, greet) = (requests(&control, "auth").await, requests(&control, "greet").await);
        let fresh = requests(&control, "fresh").await;
        // The last of those that were asked may have been given up, and its handlers with it.
        (fresh == 1 && auth + 1 >= most && greet >= auth).then_some(())
    })
    .await;
}
