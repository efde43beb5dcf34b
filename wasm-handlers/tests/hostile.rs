//! Handlers that attack the sandbox: each way in has its named end, the process lives, and a neighbour
//! is answered all the while. The controls are the same deeds within their limits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "support/acts.rs"]
mod acts;
mod support;
#[path = "support/text.rs"]
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use acts::{
    CASES,
    Comes::{Breaks, Ends, Good, Then},
};
use http_body_util::BodyExt;
use support::{Recorder, get, roomy, spec};
use text::Acts;
use tokio::sync::OnceCell;
use verge_config::site::HandlerLimits;
use verge_handlers::{Component, End, Ended, Handler, LogStream};

fn limits() -> HandlerLimits {
    HandlerLimits {
        cpu: Duration::from_millis(acts::CPU),
        wall: Duration::from_millis(acts::WALL),
        memory: 128 << 20,
        fetches: 4,
        ..HandlerLimits::default()
    }
}

async fn load(component: Vec<u8>) -> Arc<Component> {
    support::sandbox().load(component.into()).await.unwrap()
}

fn with(component: &Arc<Component>, limits: HandlerLimits) -> Handler {
    Handler::new(Arc::clone(component), "site".into(), spec(limits, &[]))
}

/// The guest of all acts.
async fn hostile() -> &'static (Acts, Arc<Component>) {
    static READY: OnceCell<(Acts, Arc<Component>)> = OnceCell::const_new();
    let make = async || {
        let acts = acts::hostile();
        let component = load(acts.component()).await;
        (acts, component)
    };
    READY.get_or_init(make).await
}

/// A good handler that is asked again and again, and must be answered each time.
struct Neighbour {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<Duration>,
}

impl Neighbour {
    async fn start() -> Neighbour {
        let acts = Acts::new(&[("good", "(call $good (local.get $out))")]);
        let handler = with(&load(acts.component()).await, roomy());
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&answered));
        let task = tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            while !stopped.load(Ordering::SeqCst) {
                let began = Instant::now();
                let answer = handler.call(get("/00"), Recorder::new()).await.unwrap();
                assert_eq!(support::text(answer).await, "good\n");
                slowest = slowest.max(began.elapsed());
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
            slowest
        });
        Neighbour { stop, answered, task }
    }

    /// Waits for one more answer.
    async fn answers(&self) {
        let before = self.answered.load(Ordering::SeqCst);
        while self.answered.load(Ordering::SeqCst) == before {
            assert!(!self.task.is_finished(), "the neighbour failed");
            tokio::task::yield_now().await;
        }
    }

    /// How many answers it got, and how long the slowest took.
    async fn stop(self) -> (u32, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        let slowest = self.task.await.unwrap();
        (self.answered.load(Ordering::SeqCst), slowest)
    }
}

/// Reads content to its end; the error that it ends with, if it does.
async fn read(response: http::Response<verge_handlers::Body>) -> Result<Vec<u8>, Ended> {
    let mut body = response.into_body();
    let mut content = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => content.extend(frame.into_data().unwrap_or_default()),
            Err(error) => return Err(error.downcast_ref::<Ended>().unwrap().clone()),
        }
    }
    Ok(content)
}

/// Calls a path; what came of it, and the end that the host heard of.
async fn outcome(handler: &Handler, path: &str, host: &Arc<Recorder>) -> Result<Vec<u8>, Ended> {
    let told = match handler.call(get(path), host.clone()).await {
        Ok(response) => read(response).await,
        Err(ended) => Err(ended),
    };
    let heard = match &told {
        Ok(_) => End::Responded,
        Err(ended) => End::Failed(ended.clone()),
    };
    assert_eq!(host.end().await.0, heard, "{path}");
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_act_has_its_named_end_beside_a_neighbour() {
    let (acts, component) = hostile().await;
    let known: Vec<_> = CASES.iter().map(|(name, _)| *name).collect();
    for name in acts.names() {
        assert!(known.contains(name) || *name == "hoard", "{name} has no expectation");
    }
    let handler = with(component, limits());
    let neighbour = Neighbour::start().await;
    for (name, comes) in CASES {
        let host = Recorder::new();
        let path = acts.path(name);
        let began = Instant::now();
        let answer = handler.call(get(&path), host.clone()).await;
        let (content, told, kind, reason) = match (answer, comes) {
            (Ok(response), Good) => (read(response).await, None, "responded", ""),
            (Ok(response), Then(kind)) => (read(response).await, None, *kind, ""),
            (Ok(response), Breaks(kind)) => {
                (Ok(Vec::new()), Some(read(response).await.expect_err(name)), *kind, "")
            }
            (Err(ended), Ends(kind, reason)) => (Ok(Vec::new()), Some(ended), *kind, *reason),
            (told, _) => panic!("{name}: {told:?}"),
        };
        let good = matches!(comes, Good);
        assert_eq!(content.unwrap(), if good { b"good\n" } else { &b""[..] }, "{name}");
        let (end, usage) = host.end().await;
        let kind = if kind.is_empty() { end.name() } else { kind };
        assert_eq!(end.name(), kind, "{name}: {end:?}");
        if let End::Failed(ended) = &end {
            assert!(ended.to_string().contains(reason), "{name}: {ended}");
            assert!(ended.to_string().len() < 4096, "{name}: a reason is no place for content");
            assert!(told.is_none_or(|told| told == *ended), "{name}: one end for both");
        }
        println!("{name}: {} after {:?}, {:?} of CPU", end.name(), began.elapsed(), usage.cpu);
        assert!(began.elapsed() < Duration::from_secs(5), "{name}: {:?}", began.elapsed());
        neighbour.answers().await;
    }
    let (answered, slowest) = neighbour.stop().await;
    println!("the neighbour had {answered} answers, the slowest after {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

#[tokio::test]
async fn the_same_deeds_within_their_limits_are_answered() {
    let good = |deed: &'static str| format!("{deed} (call $good (local.get $out))");
    let deeds = [
        ("fill", "(memory.fill (i32.const 65536) (i32.const 7) (i32.const 65536))"),
        ("copy", "(memory.copy (i32.const 65536) (i32.const 70000) (i32.const 60000))"),
        ("fields", "(loop $m (drop (call $fields)) (local.set $a (i32.add (local.get $a) (i32.const 1)))
                      (br_if $m (i32.lt_u (local.get $a) (i32.const 900))))"),
        ("poll", "(i32.store (i32.const 2048) (call $after (i64.const 0)))
                  (i32.store (i32.const 2052) (i32.load (i32.const 2048)))
                  (call $poll (i32.const 2048) (i32.const 2) (i32.const 256))"),
        ("random", "(call $random (i64.const 1000) (i32.const 256))"),
        ("wait", "(call $wait (i64.const 1000000))"),
        ("length", "(call $append (call $fields) (i32.const 1040) (i32.const 14) (i32.const 1168) (i32.const 3) (i32.const 256))
                    (if (i32.load8_u (i32.const 256)) (then unreachable))"),
        ("drop", "(local.set $a (call $fields)) (call $drop-fields (local.get $a))"),
    ];
    let texts: Vec<_> = deeds.iter().map(|(name, deed)| (*name, good(deed))).collect();
    let list: Vec<_> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let acts = Acts::new(&list);
    let handler = with(&load(acts.component()).await, roomy());
    for (name, _) in deeds {
        let told = outcome(&handler, &acts.path(name), &Recorder::new()).await;
        assert_eq!(told.unwrap(), b"good\n", "{name}");
    }
}

/// What shows that it is the limit that ends an act: another limit, another end.
#[tokio::test]
async fn without_its_limit_an_act_ends_otherwise() {
    let (acts, component) = hostile().await;
    let wall = Duration::from_millis(150);
    for (name, kind) in [("spin", "timed_out"), ("fill", "timed_out"), ("drip", "timed_out")] {
        let unhurried = HandlerLimits { cpu: Duration::from_secs(60), wall, ..limits() };
        let told = outcome(&with(component, unhurried), &acts.path(name), &Recorder::new()).await;
        assert_eq!(told.unwrap_err().name(), kind, "{name}");
    }
    // A small memory is full at once, a large one takes what a small one refuses.
    let host = Recorder::new();
    let small = HandlerLimits { memory: 4 << 20, ..roomy() };
    outcome(&with(component, small), &acts.path("grow-kept"), &host).await.unwrap();
    let less = host.end().await.1.peak_memory;
    let host = Recorder::new();
    outcome(&with(component, roomy()), &acts.path("grow-kept"), &host).await.unwrap();
    let more = host.end().await.1.peak_memory;
    assert!(less <= 4 << 20 && more > 100 << 20, "{less} and {more}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_on_holds_no_instance_beyond_the_clock() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = support::settings(folder.path());
    settings.max_instances = 4;
    let sandbox = verge_handlers::Sandbox::new(settings).unwrap();
    let acts = acts::hostile();
    let component = sandbox.load(acts.component().into()).await.unwrap();
    let handler = with(&component, limits());
    for path in ["flood", "drip", "late-trap"].map(|name| acts.path(name)) {
        let host = Recorder::new();
        let mut body = handler.call(get(&path), host.clone()).await.unwrap().into_body();
        if path != acts.path("drip") {
            body.frame().await.unwrap().unwrap();
        }
        assert_eq!(sandbox.running(), 1, "the control: it is held while it may run");
        // Nobody reads on, and nobody lets go.
        let (end, usage) = host.end().await;
        assert_eq!(end, End::Failed(Ended::TimedOut(limits().wall)), "{path}");
        assert!(usage.wall < limits().wall * 10, "{usage:?}");
        while sandbox.running() > 0 {
            tokio::task::yield_now().await;
        }
        // Who reads on after all is told; the content never looks whole.
        let last = loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        };
        assert!(last.is_some_and(|last| last.is_err()), "{path}");
        assert!(body.frame().await.is_none(), "{path}");
    }
}

#[tokio::test]
async fn a_component_that_takes_the_place_of_many_counts_as_many() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = support::settings(folder.path());
    settings.max_instances = 5;
    let sandbox = verge_handlers::Sandbox::new(settings).unwrap();
    let greedy = "(memory 1)".repeat(3);
    let acts = Acts::with(&greedy, &[("hang", "(call $wait (i64.const 3600000000000))")]);
    let heavy = with(&sandbox.load(acts.component().into()).await.unwrap(), roomy());
    let acts = Acts::new(&[
        ("good", "(call $good (local.get $out))"),
        ("drip", "(drop (call $begin (local.get $out))) (call $wait (i64.const 3600000000000))"),
    ]);
    let light = with(&sandbox.load(acts.component().into()).await.unwrap(), roomy());
    let (good, drip) = (acts.path("good"), acts.path("drip"));
    let mut hanging = Box::pin(heavy.call(get("/00"), Recorder::new()));
    assert!(futures::future::poll_immediate(&mut hanging).await.is_none());
    assert_eq!(sandbox.running(), 4, "four memories are four instances' share");
    // What is let in finds its place; what does not is refused by name.
    let answer = light.call(get(&good), Recorder::new()).await.unwrap();
    assert_eq!(support::text(answer).await, "good\n");
    let held = light.call(get(&drip), Recorder::new()).await.unwrap();
    let refused = light.call(get(&good), Recorder::new()).await.unwrap_err();
    assert_eq!(refused, Ended::InstanceLimit(5));
    let refused = heavy.call(get("/00"), Recorder::new()).await.unwrap_err();
    assert_eq!(refused, Ended::InstanceLimit(5));
    drop(hanging);
    assert_eq!(sandbox.running(), 1);
    drop(held);
    // Four more than there are instances for: none is half made.
    let folder = tempfile::tempdir().unwrap();
    let mut settings = support::settings(folder.path());
    settings.max_instances = 3;
    let sandbox = verge_handlers::Sandbox::new(settings).unwrap();
    let error = sandbox.load(Acts::with(&greedy, &[("good", "")]).component().into()).await;
    assert!(error.unwrap_err().to_string().contains('4'));
}

#[tokio::test]
async fn no_text_of_a_guests_floods_the_log() {
    let (acts, component) = hostile().await;
    let host = Recorder::new();
    let told = outcome(&with(component, roomy()), &acts.path("long-error"), &host).await;
    assert!(told.unwrap_err().to_string().contains("xxxx"), "the control: its reason is told");
    let said: usize = host.lines(LogStream::Host).iter().map(String::len).sum();
    assert!((100..=8192).contains(&said), "an error of 4 MiB is told in {said} bytes");

    // Names of functions are the guest's, too.
    let name = "n".repeat(1 << 20);
    let fields = format!("(func ${name} unreachable)");
    let deep = Acts::with(&fields, &[("named", &format!("(call ${name})"))]);
    let host = Recorder::new();
    let told = outcome(&with(&load(deep.component()).await, roomy()), "/00", &host).await;
    assert_eq!(told.unwrap_err().name(), "trapped");
    let said: usize = host.lines(LogStream::Host).iter().map(String::len).sum();
    assert!((100..=8192).contains(&said), "a name of 1 MiB is told in {said} bytes");

    // Lines cost more than their bytes.
    let host = Recorder::new();
    outcome(&with(component, roomy()), &acts.path("blank-lines"), &host).await.unwrap();
    let lines = host.lines(LogStream::Stdout).len();
    assert!((10..=1024).contains(&lines), "60,000 lines are told as {lines}");
    assert!(host.lines(LogStream::Host).iter().any(|line| line.contains("truncated")));
    assert_eq!(host.end().await.1.log_bytes, 60_000, "what was cut is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_before_the_handler_is_held_to_the_same_limits() {
    let neighbour = Neighbour::start().await;
    for (fields, kind, reason) in [
        ("(start $s) (func $s (loop $l (br $l)))", "out_of_cpu", ""),
        ("(start $s) (func $s unreachable)", "trapped", "unreachable"),
        ("(start $s) (func $s (call $grow-all) unreachable)", "out_of_memory", ""),
        (
            "(start $s) (func $s (drop (call $deep))) (func $deep (result i32) (i32.add (call $deep) (i32.const 1)))",
            "trapped",
            "stack",
        ),
        (
            "(data (i32.const 131000) \"more than one page of memory has room for, at the very end of it, and it goes beyond its edge by a few bytes only\")",
            "trapped",
            "out of bounds",
        ),
        (
            "(table $t 1 funcref) (elem (table $t) (i32.const 1) func $grow-all)",
            "trapped",
            "out of bounds",
        ),
    ] {
        let acts = Acts::with(fields, &[("good", "(call $good (local.get $out))")]);
        let handler = with(&load(acts.component()).await, limits());
        for _ in 0..3 {
            let ended = outcome(&handler, "/00", &Recorder::new()).await.expect_err(fields);
            assert_eq!(ended.name(), kind, "{fields}: {ended:?}");
            assert!(ended.to_string().contains(reason), "{fields}: {ended}");
        }
        neighbour.answers().await;
    }
    neighbour.stop().await;
    // The control: what runs before it and ends is no fault.
    let acts = Acts::with("(start $s) (func $s)", &[("good", "(call $good (local.get $out))")]);
    let handler = with(&load(acts.component()).await, limits());
    assert_eq!(outcome(&handler, "/00", &Recorder::new()).await.unwrap(), b"good\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allocator_may_do_as_it_likes_and_harms_itself_alone() {
    let neighbour = Neighbour::start().await;
    for (allocator, kind) in [
        ("(loop $l (br $l)) (i32.const 0)", "out_of_cpu"),
        ("unreachable", "trapped"),
        ("(i32.const -16)", "trapped"),
        ("(i32.const 0x7fffffff)", "trapped"),
        // Back into the host, which waits for this very call.
        ("(call $wait (i64.const 1000)) (i32.const 4096)", "trapped"),
        ("(drop (call $fields)) (i32.const 4096)", "trapped"),
        // Grows while the host is about to write.
        (
            "(loop $m (br_if $m (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0)))) (i32.const 4096)",
            "responded",
        ),
        ("(i32.const 4096)", "responded"),
    ] {
        let handler = with(&load(text::component(&allocating(allocator))).await, limits());
        let ended = match outcome(&handler, "/00/some/path", &Recorder::new()).await {
            Ok(content) => {
                assert_eq!(content, b"good\n", "{allocator}");
                "responded"
            }
            Err(ended) => ended.name(),
        };
        assert_eq!(ended, kind, "{allocator}");
        neighbour.answers().await;
    }
    neighbour.stop().await;
}

/// A good guest but for its allocator.
fn allocating(allocator: &str) -> String {
    let acts = Acts::new(&[("good", "(call $good (local.get $out))")]);
    acts.text_with_allocator(allocator)
}

#[tokio::test]
async fn what_no_instance_can_have_is_refused_when_it_is_loaded() {
    let (memories, tables) = ("(memory 1)".repeat(5), "(table 1 funcref)".repeat(21));
    for fields in [
        memories.as_str(),
        tables.as_str(),
        "(memory $m 65536)",
        "(table $t 0x7fffffff funcref)",
        "(memory $m 8192)",
    ] {
        let acts = Acts::with(fields, &[("good", "(call $good (local.get $out))")]);
        let error = support::sandbox().load(acts.component().into()).await.expect_err(fields);
        assert!(error.is_permanent(), "{fields}: {error:?}");
        assert!(error.to_string().contains("no instance has"), "{fields}: {error}");
    }
    // The control: as many as there may be.
    let fields = "(memory 1)".repeat(3) + &"(table 1 funcref)".repeat(10);
    let acts = Acts::with(&fields, &[("good", "(call $good (local.get $out))")]);
    let handler = with(&load(acts.component()).await, limits());
    assert_eq!(outcome(&handler, "/00", &Recorder::new()).await.unwrap(), b"good\n");
}
