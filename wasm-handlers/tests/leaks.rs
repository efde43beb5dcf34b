//! What hostile handlers leave behind: nothing, and while they run no more than is written down. Alone in
//! its binary, one test at a time, since it looks at the memory of the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "support/acts.rs"]
mod acts;
mod support;
#[path = "support/text.rs"]
mod text;

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use support::{Recorder, get, handler, roomy, spec};
use text::Acts;
use verge_config::site::HandlerLimits;
use verge_handlers::{End, Handler};

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The guest of all acts, within these limits.
async fn hostile(limits: HandlerLimits) -> (Acts, Handler) {
    let acts = acts::hostile();
    let component = support::sandbox().load(acts.component().into()).await.unwrap();
    (acts, Handler::new(component, "site".into(), spec(limits, &[])))
}

/// How many requests the soak makes; a million says what hours of attack would.
fn rounds(otherwise: usize) -> usize {
    std::env::var("VERGE_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test]
async fn what_a_guest_makes_the_host_hold_is_bounded() {
    let _turn = TURN.lock().await;
    let ample = Duration::from_secs(20);
    let limits = HandlerLimits { cpu: ample, wall: ample, ..HandlerLimits::default() };
    let (acts, handler) = hostile(limits).await;
    let mut most = 0;
    for _ in 0..2 {
        let before = resident();
        let host = Recorder::new();
        let call = handler.call(get(&acts.path("hoard")), host.clone());
        // It waits once it holds all that it can; then its caller goes.
        assert!(tokio::time::timeout(Duration::from_millis(1500), call).await.is_err());
        most = most.max(resident().saturating_sub(before));
        assert_eq!(host.end().await.0, End::Cancelled);
    }
    println!("held for one request: {} MiB", most >> 20);
    // 1,024 resources of 128 KiB, and half as much again.
    assert!(most > 16 << 20, "the control: it does hold something ({most})");
    assert!(most < 200 << 20, "{most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_thousands_of_hostile_requests_leave_nothing_behind() {
    let _turn = TURN.lock().await;
    let limits = HandlerLimits { cpu: Duration::from_millis(2), ..HandlerLimits::default() };
    let (acts, handler) = hostile(limits).await;
    // Cheap ones many times, and every one whose reader goes away in the middle.
    let paths: Vec<_> = [
        "good",
        "trap",
        "divide",
        "deep",
        "silent",
        "set-twice",
        "head-trap",
        "out-dropped",
        "unflushed",
        "bad-handle",
        "parent-first",
        "exit",
        "bad-pointer",
        "switching",
        "endless",
        "hang",
        "drip",
        "poll-nothing",
        "length-untrue",
        "injected",
    ]
    .map(|name| acts.path(name))
    .to_vec();
    let run = async |rounds: usize| {
        for n in 0..rounds {
            let host = Recorder::new();
            let call = handler.call(get(&paths[n % paths.len()]), host.clone());
            // A caller that looks once and goes, or one that reads a piece and goes.
            if n % 3 == 0 {
                let _ = futures::future::poll_immediate(call).await;
            } else if let Ok(Ok(response)) = tokio::time::timeout(PATIENCE, call).await {
                let mut body = response.into_body();
                let _ = tokio::time::timeout(PATIENCE, body.frame()).await;
            }
            host.end().await;
        }
    };
    run(2_000).await;
    let before = (open_files(), resident());
    let count = rounds(20_000);
    let began = Instant::now();
    run(count).await;
    let after = (open_files(), resident());
    let grown = after.1.saturating_sub(before.1);
    println!("{count} requests in {:?}: grown by {} KiB", began.elapsed(), grown >> 10);
    while support::sandbox().running() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(after.0 <= before.0 + 2, "files: {} then {}", before.0, after.0);
    assert!(grown < 24 << 20, "{grown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_of_every_kind_leave_nothing_behind() {
    let _turn = TURN.lock().await;
    let limits = HandlerLimits { cpu: Duration::from_millis(20), ..roomy() };
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
                let _ = answer.into_body().collect().await;
            }
            host.end().await;
        }
    };
    run(200).await;
    let before = (open_files(), resident());
    run(3000).await;
    let after = (open_files(), resident());
    assert_eq!(support::sandbox().running(), 0);
    assert!(after.0 <= before.0 + 2, "files: {} then {}", before.0, after.0);
    let grown = after.1.saturating_sub(before.1);
    println!("grown by {grown} bytes over 3,000 requests");
    assert!(grown < 16 << 20, "{grown}");
}

/// How long the soak's callers wait.
const PATIENCE: Duration = Duration::from_millis(1);

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
