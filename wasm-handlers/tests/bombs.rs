//! Hostile components through the compiler: whatever they are, the child is cut at its limits, nothing
//! of it stays behind, and handlers that run do not notice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "support/odd.rs"]
mod odd;
mod support;
#[path = "support/text.rs"]
mod text;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use odd::{Odd, bombs, handler, odd};
use support::{Recorder, get, roomy, settings, spec};
use text::Acts;
use verge_handlers::{CompileLimits, Handler, LoadError, Sandbox};

/// How many random ones are compiled.
const COUNT: u64 = 520;

fn good() -> Vec<u8> {
    Acts::new(&[("good", "(call $good (local.get $out))")]).component()
}

/// A sandbox whose compiler may use little.
fn limited(folder: &Path, most: CompileLimits) -> Sandbox {
    let mut settings = settings(folder.join("artefacts"));
    settings.max_instances = 16;
    settings.max_compilations = 2;
    settings.compile = most;
    Sandbox::new(settings).unwrap()
}

fn small() -> CompileLimits {
    CompileLimits { cpu: Duration::from_secs(2), wall: Duration::from_secs(6), memory: 256 << 20 }
}

/// The children of this process, zombies too.
fn children() -> Vec<String> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().map(str::to_owned));
    }
    found
}

/// The tests count this process's children, so one runs at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A kind of error by its name.
fn kind(error: &LoadError) -> &'static str {
    match error {
        LoadError::TooLarge(_) => "too large",
        LoadError::Invalid(_) => "invalid",
        LoadError::Module => "module",
        LoadError::TooCostly(_) => "too costly",
        LoadError::Import(_) => "import",
        LoadError::NoHandler(_) => "no handler",
        LoadError::Internal(_) => "internal",
    }
}

/// Asks a handler until it is told to stop; how often, and how long the slowest answer took.
fn neighbour(handler: Handler) -> (Arc<AtomicBool>, tokio::task::JoinHandle<(u32, Duration)>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let (mut count, mut slowest) = (0, Duration::ZERO);
        while !stopped.load(Ordering::SeqCst) {
            let began = Instant::now();
            let answer = handler.call(get("/00"), Recorder::new()).await.unwrap();
            assert_eq!(support::text(answer).await, "good\n");
            slowest = slowest.max(began.elapsed());
            count += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        (count, slowest)
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_random_components_are_refused_with_a_reason_or_run() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let sandbox = limited(folder.path(), small());
    let good = good();
    let component = sandbox.load(good.clone().into()).await.unwrap();
    let (stop, neighbour) = neighbour(Handler::new(component, "site".into(), spec(roomy(), &[])));
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    let load = async |Odd { name, bytes }: Odd| match sandbox.load(bytes.into()).await {
        Ok(component) => {
            let handler = Handler::new(component, "odd".into(), spec(roomy(), &[]));
            let told = handler.call(get("/00"), Recorder::new()).await;
            if let Ok(response) = told {
                let _ = http_body_util::BodyExt::collect(response.into_body()).await;
            }
            "ran"
        }
        Err(error) => {
            assert!(error.is_permanent(), "{name}: {error:?}");
            assert!((10..20_000).contains(&error.to_string().len()), "{name}: {error}");
            kind(&error)
        }
    };
    let began = Instant::now();
    for number in 0..COUNT / 2 {
        // Two at a time, as the compiler is allowed to.
        let pair = tokio::join!(load(odd(number * 2, &good)), load(odd(number * 2 + 1, &good)));
        for outcome in [pair.0, pair.1] {
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    stop.store(true, Ordering::SeqCst);
    let (count, slowest) = neighbour.await.unwrap();
    println!(
        "{COUNT} in {:?}: {outcomes:?}; beside them {count} answers, {slowest:?}",
        began.elapsed()
    );
    // The control: they are no more of one kind than they should be.
    for (kind, least) in [("invalid", 100), ("no handler", 50), ("ran", 2)] {
        assert!(outcomes.get(kind).is_some_and(|count| *count >= least), "{kind}: {outcomes:?}");
    }
    assert!(count > 100 && slowest < Duration::from_secs(2), "{count}, {slowest:?}");
    assert_eq!(children(), Vec::<String>::new(), "children are left");
    drafts_are_gone(folder.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_are_cut_at_each_limit_and_nothing_of_the_child_stays() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let within = |name: &str, change: fn(&mut CompileLimits)| {
        let mut most = CompileLimits::default();
        change(&mut most);
        limited(&folder.path().join(name), most)
    };
    let cpu = within("cpu", |most| most.cpu = Duration::from_secs(1));
    let wall = within("wall", |most| most.wall = Duration::from_millis(200));
    let memory = within("memory", |most| most.memory = 64 << 20);
    let mut cut = BTreeMap::new();
    for Odd { name, bytes } in bombs(60) {
        // By the clock each of them; the other limits take their time on a machine that is busy.
        let costly = matches!(name.as_str(), "many live values" | "many types");
        for (limit, sandbox) in [("longer than", &wall), ("CPU", &cpu), ("MiB", &memory)] {
            if limit != "longer than" && !costly {
                continue;
            }
            let began = Instant::now();
            let Err(error) = sandbox.load(bytes.clone().into()).await else {
                panic!("{name} is no handler")
            };
            println!("{name}, {} KiB: {error} ({:?})", bytes.len() >> 10, began.elapsed());
            assert!(error.is_permanent(), "{name}: {error:?}");
            let told = error.to_string();
            if told.contains("compiling it took") || told.contains("compiling it takes") {
                assert!(told.contains(limit), "{name}: {error}");
                *cut.entry(limit).or_insert(0) += 1;
            }
            let most = Duration::from_secs(if limit == "longer than" { 10 } else { 90 });
            assert!(began.elapsed() < most, "{name}: {:?}", began.elapsed());
        }
    }
    // Each limit has cut some.
    assert!(["CPU", "longer than", "MiB"].iter().all(|limit| cut.contains_key(limit)), "{cut:?}");
    assert_eq!(children(), Vec::<String>::new(), "children are left");
    for name in ["cpu", "wall", "memory"] {
        drafts_are_gone(&folder.path().join(name));
    }
    // The control: what is small compiles within the same limits.
    for sandbox in [&cpu, &memory] {
        sandbox.load(good().into()).await.unwrap();
    }
}

#[tokio::test]
async fn a_compilation_that_nobody_waits_for_any_more_ends() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let sandbox = limited(folder.path(), CompileLimits::default());
    let bomb = bombs(100).into_iter().find(|bomb| bomb.name == "many live values").unwrap();
    let load = sandbox.load(bomb.bytes.into());
    assert!(tokio::time::timeout(Duration::from_millis(300), load).await.is_err());
    // The child is killed, and then collected by the runtime.
    let began = Instant::now();
    while !children().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?} runs on", children());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sandbox.load(good().into()).await.unwrap();
}

#[test]
fn the_same_number_makes_the_same_component() {
    let good = good();
    for number in 0..16 {
        assert_eq!(odd(number, &good).bytes, odd(number, &good).bytes, "{number}");
    }
    assert_ne!(odd(2, &good).bytes, odd(10, &good).bytes);
    assert!(handler(b"\0asm\x01\0\0\0").len() > 20);
}

/// Nothing but artefacts and their key is in the folder.
fn drafts_are_gone(folder: &Path) {
    for entry in std::fs::read_dir(folder.join("artefacts")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(name == "key" || name.ends_with(".cwasm"), "{name} is left");
    }
}
