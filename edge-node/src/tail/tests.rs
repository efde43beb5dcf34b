//! Who is told of what, and what it costs whom.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use http::Method;
use http::uri::PathAndQuery;
use verge_config::tail::{LEASE_SECONDS, Line, MAX_LINES, MAX_WAITING, Statuses};

fn tails() -> Arc<Tails> {
    Arc::new(Tails::new(Arc::from("one"), None))
}

fn tail(id: &str, filter: Filter) -> Tail {
    Tail { id: id.to_owned(), site: "shop".to_owned(), filter, lease_seconds: LEASE_SECONDS }
}

fn passed(site: &str, target: &'static str, status: u16) -> Passed {
    Passed {
        site: Some(Arc::from(site)),
        host: "shop.example".to_owned(),
        method: Method::GET,
        target: PathAndQuery::from_static(target),
        handler: None,
        status,
        bytes: 5,
        cache: Some("hit"),
        failed: false,
        wall: Duration::from_millis(3),
    }
}

fn events(tails: &Tails) -> Vec<Event> {
    tails.batches().into_iter().flat_map(|batch| batch.events).collect()
}

#[test]
fn nothing_is_gathered_unless_somebody_watches() {
    let (tails, now) = (tails(), Instant::now());
    assert!(tails.listening().is_none());
    tails.tell(&passed("shop", "/a", 200));
    assert!(tails.batches().is_empty());
    assert!(tails.open(tail("t", Filter::default()), now));
    assert!(tails.listening().is_some() && tails.wants("shop") && !tails.wants("other"));
    tails.tell(&passed("other", "/a", 200));
    assert!(tails.batches().is_empty(), "another site's requests are nobody's affair");
    tails.tell(&passed("shop", "/a?token=secret", 200));
    let told = events(&tails);
    assert_eq!((told.len(), told[0].path.as_str(), told[0].query.as_deref()), (1, "/a", None));
    assert_eq!((told[0].outcome.as_str(), told[0].edge.as_str()), ("hit", "one"));
    tails.close("t");
    assert!(tails.listening().is_none());
}

#[test]
fn each_is_told_what_it_asked_for() {
    let (tails, now) = (tails(), Instant::now());
    let failures = Filter { status: Some(Statuses::Class(5)), query: true, ..Filter::default() };
    assert!(tails.open(tail("failures", failures), now));
    let elsewhere = Filter { edges: vec!["two".into()], ..Filter::default() };
    assert!(tails.open(tail("elsewhere", elsewhere), now));
    let none = Filter { sample: 0, ..Filter::default() };
    assert!(tails.open(tail("none", none), now));
    tails.tell(&passed("shop", "/a?q", 200));
    tails.tell(&passed("shop", "/b?q", 503));
    let batches = tails.batches();
    assert_eq!((batches.len(), batches[0].tail.as_str()), (1, "failures"));
    assert_eq!(batches[0].events[0].query.as_deref(), Some("q"));
    let half = Filter { sample: WHOLE / 2, ..Filter::default() };
    assert!(tails.open(tail("half", half), now));
    for _ in 0..400 {
        tails.tell(&passed("shop", "/c", 200));
    }
    let count = events(&tails).len();
    assert!((100..300).contains(&count), "{count} of 400 at a half");
}

#[test]
fn a_tail_that_nobody_renews_ends() {
    let (tails, start) = (tails(), Instant::now());
    // The lease began so long ago that it is over in a moment; what is asked again goes on.
    let old = start.checked_sub(Duration::from_secs(LEASE_SECONDS)).unwrap();
    assert!(tails.open(tail("ended", Filter::default()), old));
    assert!(tails.open(tail("renewed", Filter::default()), start));
    tails.tell(&passed("shop", "/a", 200));
    let told: Vec<_> = tails.batches().into_iter().map(|batch| batch.tail).collect();
    assert_eq!(told, ["renewed"]);
    assert!(tails.open(tail("renewed", Filter::default()), start + Duration::from_secs(20)));
    tails.keep(|reader| reader.is_open(start + Duration::from_secs(40)));
    assert!(tails.listening().is_some());
    tails.keep(|reader| reader.is_open(start + Duration::from_secs(51)));
    assert!(tails.listening().is_none());
}

#[test]
fn there_are_only_so_many_and_what_does_not_fit_is_counted() {
    let (tails, now) = (tails(), Instant::now());
    for n in 0..MAX_TAILS {
        assert!(tails.open(tail(&n.to_string(), Filter::default()), now));
    }
    assert!(!tails.open(tail("more", Filter::default()), now));
    assert!(tails.open(tail("0", Filter::default()), now), "one that is there goes on");
    for n in 1..MAX_TAILS {
        tails.close(&n.to_string());
    }
    for _ in 0..MAX_WAITING + 7 {
        tails.tell(&passed("shop", "/a", 200));
    }
    let first = tails.batches().remove(0);
    assert_eq!(first.dropped, 7);
    assert!(tails.has_more());
    tails.lost(&first);
    let second = tails.batches().remove(0);
    assert_eq!(second.dropped, 7 + first.events.len() as u64, "a lost batch is counted whole");
}

#[test]
fn a_run_is_told_of_once_both_sides_are_done() {
    for guest_first in [true, false] {
        let tails = tails();
        assert!(tails.open(tail("t", Filter::default()), Instant::now()));
        let run = Arc::new(Run::default());
        let guest = Arc::clone(&run);
        let request =
            Passed { handler: Some(Arc::from("h")), cache: None, ..passed("shop", "/", 500) };
        let line = |stream: &str, text: &str| Line {
            stream: stream.to_owned(),
            text: text.to_owned(),
            ..Line::default()
        };
        guest.line(line("stdout", "hello"));
        for n in 0..MAX_LINES + 4 {
            guest.line(line("stderr", &n.to_string()));
        }
        let end = |guest: Arc<Run>| guest.ended("trapped", Duration::from_millis(2));
        if guest_first {
            end(guest);
            assert!(tails.batches().is_empty());
            run.passed(Arc::clone(&tails), request);
            drop(run);
        } else {
            run.passed(Arc::clone(&tails), request);
            drop(run);
            assert!(tails.batches().is_empty());
            end(guest);
        }
        let told = events(&tails).remove(0);
        assert_eq!((told.outcome.as_str(), told.cpu_us), ("trapped", Some(2_000)));
        assert_eq!((told.lines[0].text.as_str(), told.lines.len()), ("hello", MAX_LINES));
        assert_eq!(told.more_lines, 5);
    }
}

#[tokio::test]
async fn a_watcher_in_the_process_is_told_of_everything_it_takes() {
    let (send, mut lines) = mpsc::channel(2);
    let tails = Arc::new(Tails::new(Arc::from("dev"), Some(send)));
    assert!(tails.listening().is_some() && tails.wants("any"));
    let nobody = Passed { site: None, ..passed("", "/a?q=1", 404) };
    for _ in 0..4 {
        tails.tell(&nobody);
    }
    let Some(TailLine::Request(event)) = lines.recv().await else { panic!() };
    assert_eq!((&event.site, event.query.as_deref()), (&None, Some("q=1")));
    lines.recv().await.unwrap();
    tails.tell(&nobody);
    let Some(TailLine::Dropped { count, .. }) = lines.recv().await else { panic!() };
    assert_eq!(count, 2);
    assert!(matches!(lines.recv().await, Some(TailLine::Request(_))));
}
