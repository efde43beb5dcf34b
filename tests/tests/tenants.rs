//! Tenants that attack, over HTTP and on a fleet's edge: only their own request fails, the process lives,
//! and no neighbour is kept from its answer or gives one away. Each with the control that shows that the
//! test would see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "../../wasm-handlers/tests/support/acts.rs"]
mod acts;
#[path = "../../wasm-handlers/tests/support/text.rs"]
mod text;

use acts::Comes::{Breaks, Ends, Good, Then};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use text::Acts;
use verge_tests::wait::within;
use verge_tests::{Control, Edge, Http1, Origin, Reply, answer, site, until};

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

/// An edge's switch that test origins need, with fewer instances than it has by default: the few are
/// counted, not the machine's memory.
const OPEN: &str = "allow_private_origins = true\n[handlers]\ninstances = 64\n";

/// Uploads a guest; its digest as a site file names it.
async fn upload(control: &Control, acts: &Acts) -> String {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("guest.wasm");
    std::fs::write(&path, acts.component()).unwrap();
    control.upload(&path).await
}

/// What a tenant's site says of its only handler.
struct Tenant<'a> {
    name: &'a str,
    domain: &'a str,
    digest: &'a str,
    more: String,
}

impl Tenant<'_> {
    fn text(&self, origin: &Origin) -> String {
        let Tenant { name, domain, digest, more } = self;
        let rest = format!(
            "[handlers.guest]\ncomponent = {digest:?}\nbreaker = {{ failures = 100000 }}\n{more}\n\n\
             [[routes]]\npath = \"/plain/*\"\norigin = \"web\"\n\n\
             [[routes]]\npath = \"/*\"\nhandler = \"guest\"\norigin = \"web\"\n"
        );
        site::for_domains(name, &[domain], origin, &rest)
    }
}

async fn origin() -> Origin {
    Origin::start(|seen| async move { answer(200, FRESH, format!("origin {}", seen.path)) }).await
}

/// The acts' limits, as a site file has them.
fn limits() -> String {
    format!("limits = {{ cpu = \"{}ms\", wall = \"{}ms\", fetches = 4 }}", acts::CPU, acts::WALL)
}

/// A fleet of one edge, with a tenant of all hostile acts and a good one.
async fn two_tenants(lines: &str) -> (Origin, Control, Edge, Acts) {
    let (origin, control) = (origin().await, Control::start().await);
    let edge = Edge::join_with(&control, "one", lines).await;
    let hostile = acts::hostile();
    let digest = upload(&control, &hostile).await;
    let bad = Tenant { name: "bad", domain: "bad.example", digest: &digest, more: limits() };
    control.deploy("bad", &bad.text(&origin)).await;
    let digest = upload(&control, &good_guest()).await;
    let good =
        Tenant { name: "good", domain: "good.example", digest: &digest, more: String::new() };
    let revision = control.deploy("good", &good.text(&origin)).await;
    control.applied(revision, &["one"]).await;
    (origin, control, edge, hostile)
}

fn good_guest() -> Acts {
    Acts::new(&[("good", "(call $good (local.get $out))")])
}

/// A neighbour that asks again and again, and must be answered well each time.
struct Neighbour {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(u32, Duration)>,
}

impl Neighbour {
    fn start(edge: &Edge, path: &'static str) -> Neighbour {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), edge.http);
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut client = Http1::connect(address).await;
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::SeqCst) {
                let began = Instant::now();
                let reply = client.get("good.example", path).await.expect(200);
                assert!(reply.whole, "{reply:?}");
                slowest = slowest.max(began.elapsed());
                count += 1;
            }
            (count, slowest)
        });
        Neighbour { stop, task }
    }

    async fn stop(self) -> (u32, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

/// How many runs of handlers ended, in all or in one way, as the edge counts them.
async fn runs(edge: &Edge, end: &str) -> u64 {
    let text = edge.admin("/metrics").await.expect(200).text();
    let line = |line: &str| {
        let rest = line.strip_prefix("verge_handlers_runs_total{end=\"")?;
        let (name, count) = rest.split_once("\"} ")?;
        (end.is_empty() || name == end).then(|| count.parse::<u64>().unwrap())
    };
    text.lines().filter_map(line).sum()
}

/// The runs of each edge, once there are so many in all.
async fn counted(edges: &[&Edge], least: u64) -> Vec<u64> {
    until("the runs to be counted", || async {
        let mut counts = Vec::new();
        for edge in edges {
            counts.push(runs(edge, "").await);
        }
        (counts.iter().sum::<u64>() >= least).then_some(counts)
    })
    .await
}

async fn gauge(edge: &Edge, name: &str) -> i64 {
    let text = edge.admin("/metrics").await.expect(200).text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    value.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_act_is_one_requests_alone_and_is_counted() {
    let (_origin, _control, edge, acts) = two_tenants(OPEN).await;
    let neighbours = ["/plain/a", "/00"].map(|path| Neighbour::start(&edge, path));
    for (name, comes) in acts::CASES {
        let path = acts.path(name);
        let mut client = edge.client().await;
        let asked = client.try_request("GET", "bad.example", &path, &[], b"");
        let told = within(name, asked).await;
        match comes {
            Good => assert_eq!(told.unwrap().expect(200).text(), "good\n", "{name}"),
            Then(_) => assert_eq!(told.unwrap().expect(200).text(), "", "{name}"),
            Ends(kind, _) => {
                let reply = told.unwrap();
                assert_eq!(reply.status, acts::status(kind), "{name}: {reply:?}");
                assert!(reply.whole && !reply.text().contains("xxxx"), "{name}: {reply:?}");
                assert!(reply.field("proxy-status").contains("verge; error="), "{name}: {reply:?}");
            }
            Breaks(_) => assert!(told.is_err() || told.is_ok_and(|reply| !reply.whole), "{name}"),
        }
    }
    for neighbour in neighbours {
        let (count, slowest) = neighbour.stop().await;
        println!("a neighbour had {count} answers, the slowest after {slowest:?}");
        assert!(count > 100 && slowest < Duration::from_secs(3), "{count}, {slowest:?}");
    }
    for (end, least) in [("trapped", 20), ("out_of_cpu", 6), ("timed_out", 3), ("out_of_memory", 2)]
    {
        assert!(runs(&edge, end).await >= least, "{end}: {}", runs(&edge, end).await);
    }
    until("nothing to be under way", || async {
        (gauge(&edge, "verge_front_requests_in_flight ").await <= 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_that_spin_take_no_answer_from_another_tenant() {
    let (_origin, _control, edge, acts) = two_tenants(OPEN).await;
    let stop = Arc::new(AtomicBool::new(false));
    let spinning: Vec<_> = (0..50)
        .map(|_| {
            let (stop, address, path) = (Arc::clone(&stop), edge.http, acts.path("spin"));
            tokio::spawn(async move {
                let mut client = Http1::connect(address).await;
                let mut cut = 0;
                while !stop.load(Ordering::SeqCst) {
                    // Out of CPU time, or by the clock where there is too little CPU for all of them.
                    let status = client.get("bad.example", &path).await.status;
                    assert!(matches!(status, 503 | 504), "{status}");
                    cut += 1;
                }
                cut
            })
        })
        .collect();
    let mut client = edge.client().await;
    let mut slowest = Duration::ZERO;
    for n in 0..200 {
        let path = ["/00", "/plain/a"][n % 2];
        let began = Instant::now();
        client.get("good.example", path).await.expect(200);
        slowest = slowest.max(began.elapsed());
    }
    stop.store(true, Ordering::SeqCst);
    let mut cut = 0;
    for task in spinning {
        cut += task.await.unwrap();
    }
    println!("200 answers beside {cut} spins, the slowest after {slowest:?}");
    assert!(cut >= 50, "{cut}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_are_cut_and_counted() {
    let (_origin, _control, edge, acts) = two_tenants(OPEN).await;
    let before = edge.process.output().len();
    for _ in 0..20 {
        edge.get("bad.example", &acts.path("blank-lines")).await.expect(200);
        edge.get("bad.example", &acts.path("long-error")).await.expect(500);
    }
    let said = edge.process.output().len() - before;
    println!("40 requests that would log 80 MiB logged {} KiB", said >> 10);
    assert!((1_000..20 << 20).contains(&said), "{said}");
    assert!(edge.process.output().contains("log truncated"), "it is told");

    // An endless body that is read as fast as it comes is cut when its time is up.
    let began = Instant::now();
    let mut client = edge.client().await;
    let path = acts.path("endless");
    let endless = client.try_request("GET", "bad.example", &path, &[], b"");
    let endless = within("an endless body to be cut", endless).await;
    assert!(endless.is_err() || endless.is_ok_and(|reply| !reply.whole));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // Fields that are too many for a guest never come to it; those of a moderate request do.
    let large = "x".repeat(100_000);
    let runs_before = runs(&edge, "").await;
    let fields = [("X-Large", large.as_str())];
    let reply = edge.client().await.request("GET", "good.example", "/00", &fields, b"").await;
    assert_eq!(reply.status, 431, "{reply:?}");
    assert_eq!(runs(&edge, "").await, runs_before, "no guest ran for it");
    let fields = [("X-Large", &large[..30_000])];
    edge.client().await.request("GET", "good.example", "/00", &fields, b"").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_that_do_not_read_hold_no_instances() {
    let lines = "allow_private_origins = true\n[handlers]\ninstances = 8\n";
    let (_origin, _control, edge, acts) = two_tenants(lines).await;
    let request = format!("GET {} HTTP/1.1\r\nHost: bad.example\r\n\r\n", acts.path("flood"));
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let mut client = edge.client().await;
        client.send(request.as_bytes()).await.unwrap();
        // The head is there: the guest runs, and fills whatever lies between it and us.
        assert_eq!(within("a head", client.read_head()).await.unwrap().0, 200);
        stuck.push(client);
    }
    // None of them reads on, and none goes; the guests' own clocks run all the same.
    until("the guests to be cut", || async { (runs(&edge, "timed_out").await >= 8).then_some(()) })
        .await;
    for _ in 0..8 {
        edge.get("good.example", "/00").await.expect(200);
    }
    for mut client in stuck {
        assert!(client.is_closed().await, "what was cut does not look whole");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_that_go_and_guests_that_fail_leave_nothing_behind() {
    let lines = "allow_private_origins = true\n[handlers]\ninstances = 16\n";
    let (_origin, _control, edge, acts) = two_tenants(lines).await;
    let names = [
        "good",
        "trap",
        "silent",
        "head-trap",
        "late-trap",
        "endless",
        "hang",
        "drip",
        "set-twice",
        "unflushed",
    ];
    let paths: Arc<Vec<_>> = Arc::new(names.iter().map(|name| acts.path(name)).collect());
    let run = async |rounds: usize| {
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let (paths, address) = (Arc::clone(&paths), edge.http);
                tokio::spawn(async move {
                    for n in 0..rounds / 8 {
                        let mut client = Http1::connect(address).await;
                        let path = &paths[(n + worker) % paths.len()];
                        let request = format!("GET {path} HTTP/1.1\r\nHost: bad.example\r\n\r\n");
                        client.send(request.as_bytes()).await.unwrap();
                        // Gone at once, after a piece, or when all is there that comes soon.
                        if n % 3 > 0 {
                            let _ = tokio::time::timeout(BRIEFLY, client.read_some()).await;
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        until("nothing to be under way", || async {
            (gauge(&edge, "verge_front_requests_in_flight ").await <= 1).then_some(())
        })
        .await;
    };
    run(800).await;
    let before = (open_files(&edge), edge.process.resident());
    let count = rounds(4_000);
    let began = Instant::now();
    run(count).await;
    let after = (open_files(&edge), edge.process.resident());
    let grown = after.1.saturating_sub(before.1);
    println!("{count} requests in {:?}: grown by {} KiB", began.elapsed(), grown >> 10);
    assert!(after.0 <= before.0 + 8, "files: {} then {}", before.0, after.0);
    assert!(grown < 48 << 20, "{grown}");
    // As many instances as there are can run at once: none was lost. Over HTTP/1 a visitor that goes while
    // its guest waits is noticed once the guest's time is up, so each try begins that much later.
    let request = format!("GET {} HTTP/1.1\r\nHost: bad.example\r\n\r\n", acts.path("drip"));
    until("sixteen instances to be free", || async {
        tokio::time::sleep(Duration::from_millis(acts::WALL * 3 / 2)).await;
        let mut held = Vec::new();
        for _ in 0..16 {
            let mut client = edge.client().await;
            client.send(request.as_bytes()).await.unwrap();
            held.push(client);
        }
        for client in &mut held {
            let status = within("a head", client.read_head()).await.unwrap().0;
            if status != 200 {
                assert_eq!(status, 503);
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// How long the soak's visitors stay.
const BRIEFLY: Duration = Duration::from_millis(5);

/// How many requests the soak makes; a million says what hours of attack would.
fn rounds(otherwise: usize) -> usize {
    std::env::var("VERGE_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn open_files(edge: &Edge) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", edge.process.pid())).unwrap().count()
}

/// A guest that fetches from where a field says, and tells what came of it by its status.
fn asking() -> Acts {
    Acts::new(&[
        (
            "ask",
            "(if (i32.eqz (call $field (local.get $request) (i32.const 1056) (i32.const 4)))
               (then unreachable))
             (call $say (local.get $out)
               (call $ask (i32.load (i32.const 256)) (i32.load (i32.const 260)) (call $fields)))",
        ),
        // The same with a CDN-Loop of its own making.
        (
            "forge",
            "(if (i32.eqz (call $field (local.get $request) (i32.const 1056) (i32.const 4)))
               (then unreachable))
             (local.set $a (i32.load (i32.const 256))) (local.set $b (i32.load (i32.const 260)))
             (local.set $c (call $fields))
             (call $append (local.get $c) (i32.const 1072) (i32.const 8) (i32.const 1104) (i32.const 3) (i32.const 256))
             (call $say (local.get $out) (call $ask (local.get $a) (local.get $b) (local.get $c)))",
        ),
    ])
}

/// What the guest tells of an error: 700 and its place in wasi:http's `error-code`.
const DENIED: u16 = 715;
/// The host that it was to fetch from is none.
const NO_HOST: u16 = 791;

async fn ask(edge: &Edge, domain: &str, path: &str, to: &str) -> Reply {
    let fields = [("X-To", to)];
    within("a guest's answer", async {
        edge.client().await.request("GET", domain, path, &fields, b"").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_reaches_nothing_private_however_it_is_written_and_listed() {
    let (inside, control) = (origin().await, Control::start().await);
    let shut = Edge::join_with(&control, "shut", "").await;
    let open = Edge::join_with(&control, "open", OPEN).await;
    let digest = upload(&control, &asking()).await;
    let port = inside.address.port();
    let forms = include_str!("../../edge-node/tests/origin/forms.txt");
    let forms: Vec<_> = forms.lines().filter_map(|line| line.split_once(' ')).collect();
    let listed: Vec<_> = forms
        .iter()
        .filter(|(kind, _)| !kind.starts_with('#'))
        .map(|(_, host)| format!("{host}:{port}"))
        .collect();
    let own = [shut.http, shut.admin, open.http, open.admin, control.address];
    let mut allow = listed.clone();
    allow.extend(own.map(|address| address.to_string()));
    let text = |allow: &[String]| {
        let more = format!("limits = {{ wall = \"10s\" }}\nfetch = {allow:?}");
        let tenant = Tenant { name: "inside", domain: "inside.example", digest: &digest, more };
        // No origin of its own, since the edge that is shut would refuse the site for it.
        let text = tenant.text(&inside);
        text.replace(&inside.url(), "http://nowhere.invalid")
    };
    // What the site file's own rules refuse is refused already; the rest must be by its address.
    let faults = control.upload_site("inside", &text(&allow)).await;
    if faults.status == 422 {
        let faults = faults.text();
        let refused = |index: usize| faults.contains(&format!("fetch[{index}]"));
        let kept = allow.iter().enumerate().filter(|(index, _)| !refused(*index));
        allow = kept.map(|(_, host)| host.clone()).collect();
    }
    let revision = control.deploy("inside", &text(&allow)).await;
    control.applied(revision, &["shut", "open"]).await;
    let mut count = 0;
    for host in listed.iter().filter(|host| allow.contains(host)) {
        let told = ask(&shut, "inside.example", "/00", host).await.status;
        assert!(matches!(told, DENIED | NO_HOST), "{host}: {told}");
        count += usize::from(told == DENIED);
    }
    println!("{count} forms were refused by address");
    assert!(count >= 100, "{count}");
    assert_eq!(inside.connections(), 0);
    // The control: on the edge whose operator allows it, the plain form is reached.
    let plain = format!("127.0.0.1:{port}");
    assert_eq!(ask(&open, "inside.example", "/00", &plain).await.status, 200);
    assert_eq!(inside.connections(), 1);
    // But not that edge's own ports, nor the control plane's, which are private addresses like it.
    for address in [open.http, open.admin, control.address] {
        let told = ask(&open, "inside.example", "/00", &address.to_string()).await.status;
        assert_eq!(told, DENIED, "{address}");
    }
    assert!(allow.contains(&plain) && allow.contains(&control.address.to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_to_an_outside_host_is_one_tenants_alone() {
    // Without content: the guest reads none, and what is left unread ends its connection.
    let outside = Origin::always(204, &[], "").await;
    let control = Control::start().await;
    let edge = Edge::join_with(&control, "one", OPEN).await;
    let digest = upload(&control, &asking()).await;
    let to = outside.address.to_string();
    let mut revision = 0;
    for (name, domain) in [("a", "a.example"), ("b", "b.example")] {
        let more = format!("limits = {{ wall = \"10s\" }}\nfetch = [{to:?}]");
        let tenant = Tenant { name, domain, digest: &digest, more };
        revision = control.deploy(name, &tenant.text(&outside)).await;
    }
    control.applied(revision, &["one"]).await;
    for (domain, connections) in [("a.example", 1), ("b.example", 2)] {
        for _ in 0..5 {
            assert_eq!(ask(&edge, domain, "/00", &to).await.status, 204, "{domain}");
        }
        // The control: its own it does use again.
        assert_eq!(outside.connections(), connections, "{domain}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_over_two_sites_and_two_edges_is_cut_whatever_the_guests_forge() {
    let (outside, control) = (origin().await, Control::start().await);
    let one = Edge::join_with(&control, "one", OPEN).await;
    let two = Edge::join_with(&control, "two", OPEN).await;
    let digest = upload(&control, &calling()).await;
    // Site a is at the first edge's address, site b at the second's name: each calls the other.
    let (to_a, to_b) = (one.http.to_string(), format!("localhost:{}", two.http.port()));
    let other = outside.address.to_string();
    let mut revision = 0;
    for (name, domain, to) in [("a", "127.0.0.1", &to_b), ("b", "localhost", &to_a)] {
        let more = format!(
            "limits = {{ wall = \"10s\" }}\nfetch = [{to:?}, {other:?}]\nenv = {{ TO = {to:?} }}"
        );
        let tenant = Tenant { name, domain, digest: &digest, more };
        revision = control.deploy(name, &tenant.text(&outside)).await;
    }
    control.applied(revision, &["one", "two"]).await;
    let host = one.http.to_string();
    let path = calling().path("call");
    let told = one.client().await.get(&host, &path).await;
    assert_eq!(told.status, 508, "{told:?}");
    assert_eq!(counted(&[&one, &two], 2).await, [1, 1], "one run at each, and no more");
    // The control: the same guest of the same site reaches what is no loop. What it says of its own
    // passage does not get there, what the visitor came with does.
    let fields = [("X-To", other.as_str()), ("CDN-Loop", "elsewhere; x=1")];
    let path = calling().path("forge");
    let told = one.client().await.request("GET", &host, &path, &fields, b"").await;
    assert_eq!(told.status, 200, "{told:?}");
    let seen = outside.seen().pop().unwrap();
    let loops: Vec<_> =
        seen.headers.get_all("cdn-loop").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(loops, ["elsewhere; x=1", "verge;id=one"]);
    // A visitor's own claims end in a refusal, never in a run that they could make longer.
    let before = counted(&[&one], 2).await;
    for claim in ["verge;id=one", "verge;id=x, verge;id=y, verge;id=z", "VERGE ; id=\"one\""] {
        let fields = [("CDN-Loop", claim)];
        let told = one.client().await.request("GET", &host, &path, &fields, b"").await;
        assert_eq!(told.status, 508, "{claim}: {told:?}");
    }
    assert_eq!(counted(&[&one], 2).await, before);
}

/// A guest that calls every place in its environment and tells what came of the last one.
fn calling() -> Acts {
    Acts::new(&[
        (
            "call",
            "(call $environment (i32.const 256))
             (local.set $a (i32.load (i32.const 256)))
             (local.set $b (i32.load (i32.const 260)))
             (loop $next
               (local.set $c (call $ask (i32.load offset=8 (local.get $a)) (i32.load offset=12 (local.get $a)) (call $fields)))
               (local.set $a (i32.add (local.get $a) (i32.const 16)))
               (local.set $b (i32.sub (local.get $b) (i32.const 1)))
               (br_if $next (local.get $b)))
             (call $say (local.get $out) (local.get $c))",
        ),
        (
            "forge",
            "(if (i32.eqz (call $field (local.get $request) (i32.const 1056) (i32.const 4)))
               (then unreachable))
             (local.set $a (i32.load (i32.const 256))) (local.set $b (i32.load (i32.const 260)))
             (local.set $c (call $fields))
             (call $append (local.get $c) (i32.const 1072) (i32.const 8) (i32.const 1104) (i32.const 3) (i32.const 256))
             (call $say (local.get $out) (call $ask (local.get $a) (local.get $b) (local.get $c)))",
        ),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_over_many_edges_is_bounded_in_depth_and_count() {
    let (outside, control) = (origin().await, Control::start().await);
    let mut edges = Vec::new();
    let names = ["e1", "e2", "e3", "e4", "e5"];
    for name in names {
        edges.push(Edge::join_with(&control, name, OPEN).await);
    }
    let digest = upload(&control, &calling()).await;
    let places: Vec<_> = edges.iter().map(|edge| edge.http.to_string()).collect();
    let env: Vec<_> =
        places.iter().enumerate().map(|(n, place)| format!("TO{n} = {place:?}")).collect();
    let more = format!(
        "limits = {{ cpu = \"1s\", wall = \"30s\" }}\nfetch = {places:?}\nenv = {{ {} }}",
        env.join(", ")
    );
    let tenant = Tenant { name: "fan", domain: "127.0.0.1", digest: &digest, more };
    let revision = control.deploy("fan", &tenant.text(&outside)).await;
    control.applied(revision, &names).await;
    // Every run calls every edge. Its own listener it never reaches; of the others each may have been
    // passed already; and from the third edge on no handler is run any more.
    let host = edges[0].http.to_string();
    let told = within("the fan to end", async { edges[0].client().await.get(&host, "/00").await });
    let told = told.await;
    println!("the visitor got {}", told.status);
    // 1 at the first, 4 behind it, 3 behind each of those; without the cap it would be 65.
    let expected = 1 + 4 + 4 * 3;
    let counts = counted(&edges.iter().collect::<Vec<_>>(), expected).await;
    println!("one request made {expected} runs: {counts:?}");
    assert_eq!(counts.iter().sum::<u64>(), expected, "{counts:?}");
    for edge in &mut edges {
        assert!(edge.process.is_alive());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_reads_anothers_cache_or_names_anothers_things() {
    let (_origin, control, edge, _) = two_tenants(OPEN).await;
    // A stored object of the neighbour's, and a guest that asks for it by the neighbour's name.
    let secret = edge.get("good.example", "/plain/secret").await.expect(200);
    assert!(edge.get("good.example", "/plain/secret").await.is_hit(), "{secret:?}");
    let spy = upload(&control, &asking()).await;
    let origin = origin().await;
    for fetch in ["[]", "[\"good.example\", \"good.example:80\"]"] {
        let more = format!("limits = {{ wall = \"5s\" }}\nfetch = {fetch}");
        let tenant = Tenant { name: "spy", domain: "spy.example", digest: &spy, more };
        let revision = control.deploy("spy", &tenant.text(&origin)).await;
        control.applied(revision, &["one"]).await;
        if fetch == "[]" {
            let told = ask(&edge, "spy.example", "/00", "good.example").await;
            assert_eq!(told.status, DENIED, "{told:?}");
        }
        // Its own name leads to its own origin and its own entries.
        let told = ask(&edge, "spy.example", "/00", "spy.example").await;
        assert_eq!(told.status, 200, "{told:?}");
        let path = edge.get("spy.example", "/plain/secret").await.expect(200);
        assert_eq!(path.text(), "origin /plain/secret");
    }
    assert_eq!(
        origin.count("/plain/secret"),
        1,
        "asked of its own origin, not of the neighbour's entry"
    );
    // Names and digests that would lead elsewhere in a folder or a list.
    let foreign = "sha256:".to_owned() + &"0".repeat(64);
    for name in [
        "../bad",
        "bad/../good",
        "..",
        ".",
        "",
        "bad%2f..%2fgood",
        "good\u{0}",
        "GOOD",
        "a/b",
        "\\..\\x",
    ] {
        let tenant = Tenant { name, domain: "x.example", digest: &spy, more: String::new() };
        let reply = control.upload_site("good", &tenant.text(&origin)).await;
        assert_eq!(reply.status, 422, "{name:?}: {reply:?}");
    }
    for digest in [
        "../../etc/passwd",
        "sha256:../../etc/passwd",
        "sha256:",
        &foreign,
        "sha256:%2e%2e",
        "/etc/passwd",
    ] {
        let tenant = Tenant { name: "good", domain: "x.example", digest, more: String::new() };
        let reply = control.upload_site("good", &tenant.text(&origin)).await;
        assert_eq!(reply.status, 422, "{digest:?}: {reply:?}");
    }
    for path in [
        "/v1/blobs/..%2f..%2fstate.db",
        "/v1/blobs/../state.db",
        "/v1/blobs/%00",
        "/v1/blobs/.",
        "/v1/sites/..%2fgood",
        "/v1/sites/good/..%2fbad",
        "/v1/sites/%2e%2e/versions",
    ] {
        let reply = control.call("GET", path, None).await;
        assert!((400..500).contains(&reply.status), "{path}: {reply:?}");
    }
    // The control: the plain name is found.
    control.call("GET", "/v1/sites/good", None).await.expect(200);
}
