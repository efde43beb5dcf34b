//! Every way for a guest to fail has its named end, and a neighbour's request succeeds meanwhile.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use verge_config::site::HandlerLimits;
use verge_handlers::{End, Ended, LogStream};

use crate::support::{
    Recorder, failure, get, guest, handler, lasting, roomy, settings, spec, text,
};

/// Runs a faulty path while a neighbour is asked again and again; gives the end, and how often the
/// neighbour answered meanwhile.
async fn beside_a_neighbour(path: &str, limits: HandlerLimits) -> Ended {
    let neighbour = handler("hello-rust", roomy()).await;
    let faulty = handler("faulty-rust", limits).await;
    let mut fault = tokio::spawn({
        let path = path.to_owned();
        async move { failure(&faulty, &path).await.0 }
    });
    loop {
        let answer = neighbour.call(get("/"), Recorder::new()).await.unwrap();
        assert_eq!(text(answer).await, "Hello from Verge\n");
        if fault.is_finished() {
            return (&mut fault).await.unwrap();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_request_is_the_control() {
    let host = Recorder::new();
    let handler = handler("faulty-rust", HandlerLimits::default()).await;
    let answer = handler.call(get("/"), host.clone()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(text(answer).await, "a good answer\n");
    let (end, usage) = host.end().await;
    assert_eq!(end, End::Responded);
    assert!(usage.cpu > Duration::ZERO && usage.cpu < Duration::from_millis(50), "{usage:?}");
    assert!(usage.peak_memory >= 64 * 1024, "{usage:?}");
    assert!(host.lines(LogStream::Host).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_is_500_with_its_reason_and_frames() {
    let ended = beside_a_neighbour("/trap", HandlerLimits::default()).await;
    let Ended::Trapped { reason, backtrace } = &ended else { panic!("{ended:?}") };
    assert!(reason.contains("unreachable"), "{reason}");
    assert!(backtrace.contains("handle"), "{backtrace}");
    assert_eq!((ended.status().as_u16(), ended.name()), (500, "trapped"));
}

#[tokio::test]
async fn a_panic_says_where_in_the_log() {
    let handler = handler("faulty-rust", roomy()).await;
    let (ended, host) = failure(&handler, "/panic").await;
    assert_eq!(ended.name(), "trapped");
    let said = host.lines(LogStream::Stderr).join("\n");
    assert!(said.contains("as the path says"), "{said}");
    assert_eq!(host.lines(LogStream::Host).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spin_is_503_soon_after_its_budget() {
    let budget = Duration::from_millis(50);
    let limits = HandlerLimits { cpu: budget, ..HandlerLimits::default() };
    assert_eq!(beside_a_neighbour("/spin", limits).await, Ended::OutOfCpu(budget));
    assert_eq!(Ended::OutOfCpu(budget).status(), 503);
    let handler = handler("faulty-rust", limits).await;
    let mut over = Vec::new();
    for _ in 0..20 {
        let (ended, host) = failure(&handler, "/spin").await;
        assert_eq!(ended, Ended::OutOfCpu(budget));
        let used = host.end().await.1.cpu;
        assert!(used >= budget, "killed before its budget: {used:?}");
        over.push(used - budget);
    }
    over.sort();
    println!("over the budget of 50 ms: p50 {:?}, worst {:?}", over[10], over[19]);
    assert!(over[10] <= Duration::from_millis(5), "{over:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_bomb_is_named_so() {
    let limits = HandlerLimits { memory: 32 << 20, ..roomy() };
    let ended = beside_a_neighbour("/memory", limits).await;
    assert_eq!(ended, Ended::OutOfMemory(32 << 20));
    assert_eq!(ended.status(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_by_the_operators_ceiling_too() {
    let limits = HandlerLimits { memory: 1 << 40, ..roomy() };
    assert_eq!(beside_a_neighbour("/memory", limits).await, Ended::OutOfMemory(256 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_recursion_is_a_trap() {
    let ended = beside_a_neighbour("/deep", roomy()).await;
    let Ended::Trapped { reason, .. } = &ended else { panic!("{ended:?}") };
    assert!(reason.contains("stack"), "{reason}");
    // The same recursion to a depth that fits is fine.
    let handler = handler("faulty-rust", roomy()).await;
    let answer = handler.call(get("/deep?n=100"), Recorder::new()).await.unwrap();
    assert_eq!(text(answer).await, "100");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_is_named_so() {
    assert_eq!(beside_a_neighbour("/exit?code=3", roomy()).await, Ended::Exited(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_is_504_when_the_clock_runs_out() {
    let limits = HandlerLimits { wall: Duration::from_millis(300), ..roomy() };
    let began = Instant::now();
    let ended = beside_a_neighbour("/hang", limits).await;
    assert_eq!(ended, Ended::TimedOut(limits.wall));
    assert_eq!(ended.status(), 504);
    assert!(began.elapsed() >= limits.wall);
    let handler = handler("faulty-rust", limits).await;
    let usage = failure(&handler, "/hang").await.1.end().await.1;
    assert!(usage.cpu < Duration::from_millis(50), "waiting is no CPU time: {usage:?}");
}

#[tokio::test]
async fn no_response_and_an_error_are_told_apart() {
    let handler = handler("faulty-rust", roomy()).await;
    assert_eq!(failure(&handler, "/no-response").await.0, Ended::NoResponse);
    assert_eq!(failure(&handler, "/error").await.0, Ended::GuestError("as the path says".into()));
}

#[tokio::test]
async fn header_sections_over_the_limits_are_refused_and_those_below_are_not() {
    let handler = handler("faulty-rust", roomy()).await;
    for path in ["/big-headers?n=70000", "/big-headers?n=10000000", "/many-headers?n=300"] {
        let (ended, _) = failure(&handler, path).await;
        assert!(matches!(ended, Ended::HeadTooLarge(_)), "{path}: {ended:?}");
    }
    for path in ["/big-headers?n=50000", "/many-headers?n=200"] {
        let answer = handler.call(get(path), Recorder::new()).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_log_flood_is_cut_and_says_so_once() {
    let handler = handler("faulty-rust", roomy()).await;
    let host = Recorder::new();
    let answer = handler.call(get("/log-flood"), host.clone()).await.unwrap();
    assert_eq!(text(answer).await, "logged\n");
    let usage = host.end().await.1;
    assert!(usage.log_bytes > 800_000, "{usage:?}");
    let kept: usize = host.lines(LogStream::Stdout).iter().map(|line| line.len() + 1).sum();
    assert!((60 * 1024..=64 * 1024 + 1).contains(&kept), "{kept}");
    let said = host.lines(LogStream::Host);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("truncated"), "{said:?}");
}

#[tokio::test]
async fn long_and_unfinished_lines_arrive() {
    let handler = handler("faulty-rust", roomy()).await;
    let host = Recorder::new();
    let answer = handler.call(get("/log-line"), host.clone()).await.unwrap();
    assert_eq!(text(answer).await, "logged\n");
    host.end().await;
    assert_eq!(host.lines(LogStream::Stderr), ["to the other stream"]);
    let out = host.lines(LogStream::Stdout);
    let lengths: Vec<_> = out.iter().map(String::len).collect();
    assert_eq!(lengths, [8192, 8192, 20_000 - 2 * 8192, "without an end".len()]);
}

#[tokio::test]
async fn hostile_host_calls_end_the_guest_and_nothing_else() {
    let handler = handler("faulty-rust", roomy()).await;
    for path in ["/random", "/resources"] {
        let (ended, _) = failure(&handler, path).await;
        assert!(matches!(ended, Ended::Trapped { .. }), "{path}: {ended:?}");
    }
    let answer = handler.call(get("/random?n=1000"), Recorder::new()).await.unwrap();
    assert_eq!(text(answer).await, "1000\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_spinning_requests_leave_a_neighbour_unharmed() {
    let faulty = handler("faulty-rust", HandlerLimits::default()).await;
    let neighbour = handler("hello-rust", roomy()).await;
    let spins: Vec<_> = (0..50)
        .map(|_| {
            let faulty = faulty.clone();
            tokio::spawn(async move { failure(&faulty, "/spin").await.0 })
        })
        .collect();
    let mut answered = 0;
    while !spins.iter().all(tokio::task::JoinHandle::is_finished) {
        let answer = neighbour.call(get("/"), Recorder::new()).await.unwrap();
        assert_eq!(text(answer).await, "Hello from Verge\n");
        answered += 1;
        tokio::task::yield_now().await;
    }
    for spin in spins {
        assert!(matches!(spin.await.unwrap(), Ended::OutOfCpu(_)));
    }
    println!("the neighbour answered {answered} requests beside 50 that spun");
    assert!(answered >= 10, "{answered}");
}

/// How long a thread that runs forty guests that spin keeps others waiting, as a rule, when so many of the
/// guests may take their turns before it looks.
async fn wait_beside_forty(turns: usize) -> Duration {
    const SPINNING: usize = 40;
    let mut settings = lasting();
    settings.long_turns = turns;
    let sandbox = verge_handlers::Sandbox::new(settings).unwrap();
    let component = sandbox.load(guest("faulty-rust")).await.unwrap();
    let ample = Duration::from_secs(60);
    let limits = HandlerLimits { cpu: ample, wall: ample, ..HandlerLimits::default() };
    let handler = verge_handlers::Handler::new(component, "site".into(), spec(limits, &[]));
    let mut spins = tokio::task::JoinSet::new();
    for _ in 0..SPINNING {
        let handler = handler.clone();
        spins.spawn(async move { failure(&handler, "/spin").await.0 });
    }
    // As from a socket: whoever comes does not know what this thread is at.
    let (sender, mut due) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while sender.send(Instant::now()).is_ok() {
            std::thread::sleep(Duration::from_micros(3_700));
        }
    });
    let mut waits = Vec::new();
    // The first ones come while not all of them have run for long yet.
    for n in 0..150 {
        let since = due.recv().await.unwrap();
        if n >= 50 {
            waits.push(since.elapsed());
        }
    }
    assert_eq!(sandbox.running() as usize, SPINNING);
    waits.sort();
    waits[waits.len() / 2]
}

#[tokio::test]
async fn many_guests_that_spin_keep_others_waiting_for_no_longer_than_one() {
    let (all, one) = (wait_beside_forty(64).await, wait_beside_forty(1).await);
    println!("others wait for {one:?}, and for {all:?} where all take their turns first");
    assert!(one * 3 < all, "{one:?} and {all:?}");
}

#[tokio::test]
async fn more_than_the_instances_is_503_and_they_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut few = settings(folder.path());
    few.max_instances = 2;
    let sandbox = verge_handlers::Sandbox::new(few).unwrap();
    let component = sandbox.load(guest("faulty-rust")).await.unwrap();
    let limits = roomy();
    let handler = verge_handlers::Handler::new(component, "site".into(), spec(limits, &[]));
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(handler.call(get("/endless"), Recorder::new()).await.unwrap());
    }
    assert_eq!(sandbox.running(), 2);
    let (ended, _) = failure(&handler, "/").await;
    assert_eq!(ended, Ended::InstanceLimit(2));
    assert_eq!(ended.status(), 503);
    drop(held.pop());
    let answer = handler.call(get("/"), Recorder::new()).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "a good answer\n");
    drop(held);
    assert_eq!(sandbox.running(), 0);
}
