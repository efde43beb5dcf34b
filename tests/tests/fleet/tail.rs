//! Live tails across a fleet: who is told of what, what is never told, and what a slow reader costs.

use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use verge_tests::process::{binary, guest};
use verge_tests::{Control, Edge, Http1, Lines, Origin, site, until};

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

struct Chain {
    _origin: Origin,
    control: Control,
    one: Edge,
    two: Edge,
}

/// Two edges with two handlers and an origin.
async fn chain() -> Chain {
    let origin = Origin::always(200, FRESH, "text").await;
    let control = Control::start().await;
    let (one, two) = (Edge::join(&control, "one").await, Edge::join(&control, "two").await);
    let hello = control.upload(&guest("hello-rust")).await;
    let faulty = control.upload(&guest("faulty-rust")).await;
    let rest = format!(
        "[handlers.hello]\ncomponent = {hello:?}\n\n[handlers.faulty]\ncomponent = {faulty:?}\n\n\
         [[routes]]\npath = \"/plain/*\"\norigin = \"web\"\n\n\
         [[routes]]\npath = \"/hello/*\"\nhandler = \"hello\"\ncache = {{ position = \"before\" }}\n\n\
         [[routes]]\npath = \"/*\"\nhandler = \"faulty\"\n"
    );
    let text = site::for_domains("shop", &["shop.example"], &origin, &rest);
    let revision = control.deploy("shop", &text).await;
    control.applied(revision, &["one", "two"]).await;
    Chain { _origin: origin, control, one, two }
}

/// Asks for a path again and again until it is stopped.
struct Probe {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Probe {
    fn start(edge: &Edge, path: &'static str) -> Probe {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, address) = (Arc::clone(&stop), edge.http);
        let task = tokio::spawn(async move {
            let mut client = Http1::connect(address).await;
            while !stopped.load(Ordering::SeqCst) {
                client.get("shop.example", path).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Probe { stop, task }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
    }
}

/// Opens a tail and waits until these edges tell of requests for a path.
async fn watch(chain: &Chain, query: &str, edges: &[&Edge], path: &'static str) -> Lines {
    let mut lines = Lines::open(&chain.control, &format!("/v1/sites/shop/tail{query}")).await;
    assert_eq!(lines.next().await.unwrap()["type"], "open");
    for edge in edges {
        let probe = Probe::start(edge, path);
        let name = if edge.http == chain.one.http { "one" } else { "two" };
        loop {
            let line = lines.next().await.expect("an open tail");
            if line["edge"] == name {
                break;
            }
        }
        probe.stop().await;
    }
    lines
}

/// The events up to the one of a path, without those of another.
async fn up_to(lines: &mut Lines, last: &str, without: &str) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let line = lines.next().await.expect("an open tail");
        if line["type"] != "request" || line["path"] == without {
            assert_ne!(line["type"], "dropped", "{line}");
            continue;
        }
        let is_last = line["path"] == last;
        events.push(line);
        if is_last {
            return events;
        }
    }
}

fn of<'e>(events: &'e [Value], edge: &str, path: &str) -> &'e Value {
    let found = events.iter().find(|event| event["edge"] == edge && event["path"] == path);
    found.unwrap_or_else(|| panic!("no {path} on {edge} in {events:#?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_tells_of_both_edges_what_their_handlers_did() {
    let chain = chain().await;
    let (one, two) = (&chain.one, &chain.two);
    let mut lines = watch(&chain, "", &[one, two], "/probe").await;
    let canary = [("Authorization", "Bearer canary"), ("Cookie", "a=canary"), ("X-A", "canary")];
    let mut client = one.client().await;
    client.request("GET", "shop.example", "/log-line?canary", &canary, b"").await.expect(200);
    two.get("shop.example", "/trap").await.expect(500);
    for _ in 0..2 {
        two.get("shop.example", "/plain/a").await.expect(200);
        two.get("shop.example", "/hello/a?ttl=60").await.expect(200);
    }
    two.get("shop.example", "/last").await.expect(200);
    let mut events = up_to(&mut lines, "/last", "/probe").await;
    // Each edge's are in order; the other's may come later.
    if !events.iter().any(|event| event["path"] == "/log-line") {
        events.extend(up_to(&mut lines, "/log-line", "/probe").await);
    }

    let logged = of(&events, "one", "/log-line");
    assert_eq!((&logged["status"], &logged["outcome"]), (&json!(200), &json!("responded")));
    assert_eq!((&logged["handler"], &logged["host"]), (&json!("faulty"), &json!("shop.example")));
    assert!(logged["cpu_us"].as_u64().unwrap() > 0 && logged["wall_us"].as_u64().unwrap() > 0);
    let error = json!({"stream": "stderr", "text": "to the other stream"});
    let whole = logged["lines"].as_array().unwrap();
    assert!(whole.contains(&error) || logged["more_lines"].as_u64() > Some(0), "{logged}");
    assert_eq!(whole[0]["stream"], "stdout");

    let trapped = of(&events, "two", "/trap");
    assert_eq!((&trapped["status"], &trapped["outcome"]), (&json!(500), &json!("trapped")));
    assert!(trapped["lines"].to_string().contains("trap"), "the sandbox says why: {trapped}");

    let caches = |path: &str| -> Vec<Value> {
        events.iter().filter(|e| e["path"] == path).map(|e| e["cache"].clone()).collect()
    };
    assert_eq!(caches("/plain/a"), ["miss", "hit"]);
    assert_eq!(caches("/hello/a"), ["miss", "hit"]);
    let outcomes: Vec<_> =
        events.iter().filter(|e| e["path"] == "/hello/a").map(|e| e["outcome"].clone()).collect();
    assert_eq!(outcomes, ["responded", "hit"], "a stored answer ran no handler");
    let hit = events.iter().rev().find(|e| e["path"] == "/hello/a").unwrap();
    assert_eq!((&hit["cpu_us"], &hit["handler"]), (&Value::Null, &json!("hello")));

    let text = serde_json::to_string(&events).unwrap();
    assert!(!text.contains("canary"), "neither queries nor fields are told: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_tells_what_was_asked_for_and_no_more() {
    let chain = chain().await;
    let (one, two) = (&chain.one, &chain.two);
    let both = [one, two];
    // The filter, edges and a path that pass it, what every event must say, and which must come.
    type Case<'a> =
        (&'a str, &'a [&'a Edge], &'static str, &'a str, Value, &'a [(&'a str, &'a str)]);
    let cases: [Case<'_>; 5] = [
        (
            "?status=5xx",
            &both,
            "/trap",
            "status",
            json!(500),
            &[("one", "/no-response"), ("two", "/no-response")],
        ),
        (
            "?handler=hello",
            &both,
            "/hello/x",
            "handler",
            json!("hello"),
            &[("one", "/hello/y"), ("two", "/hello/y")],
        ),
        (
            "?path=%2Fplain%2Fx",
            &both,
            "/plain/x",
            "handler",
            Value::Null,
            &[("one", "/plain/xy"), ("two", "/plain/xy")],
        ),
        ("?edge=two", &both[1..], "/ok", "edge", json!("two"), &[("two", "/no-response")]),
        (
            "?outcome=no_response",
            &both,
            "/no-response",
            "status",
            json!(500),
            &[("one", "/no-response"), ("two", "/no-response")],
        ),
    ];
    for (query, edges, path, field, value, wanted) in cases {
        let mut lines = watch(&chain, query, edges, path).await;
        for edge in both {
            for other in ["/other", "/hello/y", "/trap", "/plain/y", "/plain/xy", "/no-response"] {
                edge.get("shop.example", other).await;
            }
        }
        let mut missing = wanted.to_vec();
        while !missing.is_empty() {
            let event = lines.next().await.expect("an open tail");
            if event["type"] == "request" {
                assert_eq!(event[field], value, "{query}: {event}");
                missing.retain(|(edge, path)| event["edge"] != *edge || event["path"] != *path);
            }
        }
    }
    // Queries are told where they are asked for, and only there.
    let mut lines = watch(&chain, "?query=true", &[one], "/probe").await;
    one.get("shop.example", "/last?a=b").await.expect(200);
    let events = up_to(&mut lines, "/last", "/probe").await;
    assert_eq!(events.last().unwrap()["query"], "a=b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenant_s_site_is_as_if_it_were_not_there() {
    let chain = chain().await;
    let body = json!({ "name": "stranger" });
    chain.control.call("POST", "/v1/tenants", Some(&body)).await.expect(201);
    let body = json!({ "name": "s", "scopes": ["admin"], "tenant": "stranger" });
    let made = chain.control.call("POST", "/v1/tokens", Some(&body)).await.expect(201).json();
    let token = made["token"].as_str().unwrap();
    let foreign = chain.control.call_as(token, "GET", "/v1/sites/shop/tail", None).await;
    let nobodys = chain.control.call_as(token, "GET", "/v1/sites/none/tail", None).await;
    assert_eq!((foreign.status, nobodys.status), (404, 404));
    assert_eq!(foreign.text().replace("shop", "none"), nobodys.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stands_still_loses_requests_and_is_told_how_many() {
    const EACH: usize = 250;
    let chain = chain().await;
    // From here on nothing is read.
    let mut lines = watch(&chain, "", &[&chain.one, &chain.two], "/probe").await;
    let tasks: Vec<_> = [chain.one.http, chain.one.http, chain.two.http, chain.two.http]
        .into_iter()
        .map(|address| {
            tokio::spawn(async move {
                let mut client = Http1::connect(address).await;
                for _ in 0..EACH {
                    client.get("shop.example", "/log-line").await.expect(200);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (mut shown, mut dropped, mut places) = (0, 0, Vec::new());
    let sent = 4 * EACH;
    while shown + dropped < sent {
        let line = lines.next().await.expect("an open tail");
        match line["type"].as_str().unwrap() {
            "request" if line["path"] == "/probe" => {}
            "request" => shown += 1,
            "dropped" => {
                dropped += usize::try_from(line["count"].as_u64().unwrap()).unwrap();
                places.push(line["place"].clone());
            }
            other => assert_eq!(other, "alive"),
        }
    }
    println!("of {sent} requests {shown} were shown and {dropped} counted, at {places:?}");
    assert!(dropped > 0, "the control: with room for all of them nothing would have been tried");
    // It goes on as if nothing had been.
    chain.one.get("shop.example", "/last").await.expect(200);
    let mut after = lines.next().await.unwrap();
    while after["path"] != "/last" {
        after = lines.next().await.unwrap();
    }
}

/// How many batches the control plane has taken.
async fn batches(control: &Control) -> u64 {
    let metrics = control.call("GET", "/metrics", None).await.expect(200).text();
    let of_events = metrics.lines().filter(|line| line.contains("/v1/edges/self/events"));
    let counts = of_events.filter(|line| line.starts_with("verge_api_requests_total"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_watches_and_nothing_is_told() {
    let chain = chain().await;
    let ask = async || {
        for edge in [&chain.one, &chain.two] {
            for path in ["/a", "/plain/a", "/hello/a"] {
                edge.get("shop.example", path).await.expect(200);
            }
        }
    };
    ask().await;
    let lines = watch(&chain, "", &[&chain.one, &chain.two], "/probe").await;
    let watched = batches(&chain.control).await;
    assert!(watched >= 2, "the control: while somebody reads, batches come");
    drop(lines);
    // Each edge hears with its next batch that nobody reads any more, and stops: asking makes no more.
    let last = AtomicU64::new(0);
    until("the edges to stop", || async {
        ask().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = batches(&chain.control).await;
        (last.swap(now, Ordering::SeqCst) == now).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_shows_requests_with_their_logs_beneath() {
    let chain = chain().await;
    let probe = Probe::start(&chain.two, "/log-line");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary("verge"));
        command
            .args(["tail", "shop", "-n", "2", "--handler", "faulty"])
            .args(arguments)
            .args(["--control", &format!("http://{}", chain.control.address)])
            .args(["--token", &chain.control.admin_token])
            .stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let told = run(&[]).await.unwrap();
    assert!(told.status.success(), "{told:?}");
    let text = String::from_utf8(told.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("-- watching shop on one, two"), "{text}");
    assert!(lines[1].contains(" two ") && lines[1].contains("GET shop.example/log-line"), "{text}");
    assert!(lines[1].contains(" responded ") && lines[1].contains("cpu"), "{text}");
    assert!(lines[2].trim_start().starts_with("[faulty stdout] yyy"), "{text}");
    let told =
        run(&["--json", "--status", "2xx", "--path", "/log", "--edge", "two"]).await.unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["type"], "open");
    let paths = events.iter().filter(|event| event["type"] == "request").map(|e| e["path"].clone());
    assert_eq!(paths.collect::<Vec<_>>(), ["/log-line", "/log-line"]);
    probe.stop().await;
}
