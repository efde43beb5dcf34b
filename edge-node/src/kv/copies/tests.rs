//! Copies against a keeper that tells of changes late, in jumps, or not of all.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use proptest::prelude::*;

const SITE: &str = "shop";

fn change(revision: u64, key: Option<&str>, after: u64) -> EntryChanged {
    EntryChanged {
        revision: Revision(revision),
        site: SITE.to_owned(),
        key: key.map(str::to_owned),
        after: Revision(after),
    }
}

fn value(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn keep(copies: &Copies, key: &str, text: &str, as_of: u64) {
    copies.keep(copies.mark(), SITE, key, value(text), Revision(as_of), Instant::now());
}

fn find(copies: &Copies, key: &str) -> Found {
    copies.find(SITE, key, Instant::now())
}

#[test]
fn a_change_drops_its_key_and_one_that_was_missed_drops_the_site() {
    let copies = Copies::new(1 << 20);
    keep(&copies, "a", "1", 5);
    keep(&copies, "b", "1", 5);
    copies.changed(&change(6, Some("a"), 5));
    assert_eq!(find(&copies, "a"), Found::Unknown);
    assert_eq!(find(&copies, "b"), Found::Copy(value("1")));
    // What was told already changes nothing.
    keep(&copies, "a", "2", 6);
    copies.changed(&change(6, Some("a"), 5));
    assert_eq!(find(&copies, "a"), Found::Copy(value("2")));
    // The one before it, 8, was not told: it may have been of any key.
    copies.changed(&change(9, Some("a"), 8));
    assert_eq!((find(&copies, "a"), find(&copies, "b")), (Found::Unknown, Found::Unknown));
    // Other sites are not concerned.
    let other = |copies: &Copies| copies.find("blog", "b", Instant::now());
    copies.keep(copies.mark(), "blog", "b", value("x"), Revision(2), Instant::now());
    keep(&copies, "b", "3", 9);
    copies.changed(&change(12, None, 0));
    assert_eq!(find(&copies, "b"), Found::Unknown);
    assert_eq!(other(&copies), Found::Copy(value("x")));
    copies.clear();
    assert_eq!(other(&copies), Found::Unknown);
}

#[test]
fn what_was_asked_before_a_change_or_a_write_is_not_kept_after_it() {
    let copies = Copies::new(1 << 20);
    copies.changed(&change(5, None, 0));
    let mark = copies.mark();
    copies.changed(&change(6, Some("a"), 5));
    copies.keep(mark, SITE, "a", value("old"), Revision(5), Instant::now());
    assert_eq!(find(&copies, "a"), Found::Unknown);
    copies.wrote(mark, SITE, "a", value("own"), Revision(7), Instant::now());
    copies.keep(mark, SITE, "a", value("old"), Revision(6), Instant::now());
    assert_eq!(find(&copies, "a"), Found::Copy(value("own")));
    // The line of the own write drops nothing; a newer one does.
    copies.changed(&change(7, Some("a"), 6));
    assert_eq!(find(&copies, "a"), Found::Copy(value("own")));
    copies.changed(&change(8, Some("a"), 7));
    assert_eq!(find(&copies, "a"), Found::Unknown);
    // An answer from before another history.
    let mark = copies.mark();
    copies.clear();
    copies.keep(mark, SITE, "a", value("old"), Revision(99), Instant::now());
    copies.wrote(mark, SITE, "b", value("old"), Revision(99), Instant::now());
    assert_eq!((find(&copies, "a"), find(&copies, "b")), (Found::Unknown, Found::Unknown));
}

#[test]
fn absence_is_forgotten_and_room_is_bounded() {
    let copies = Copies::new(64 * 1024);
    let now = Instant::now();
    copies.keep(copies.mark(), SITE, "none", None, Revision(1), now);
    assert_eq!(copies.find(SITE, "none", now), Found::Copy(None));
    assert_eq!(copies.find(SITE, "none", now + ABSENCE), Found::Unknown);
    for number in 0..1_000 {
        keep(&copies, &number.to_string(), &"v".repeat(1_000), 1);
    }
    copies.copies.run_pending_tasks();
    assert!(copies.copies.weighted_size() <= 64 * 1024);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Somebody writes.
    Write(u8),
    /// The edge asks for a key and is answered; the answer is on its way.
    Ask(u8),
    /// A handler of the edge writes; the answer is on its way.
    WriteHere(u8),
    /// One of the answers arrives.
    Arrive(u8),
    /// The feed tells the next change.
    Tell,
    /// The feed tells that some of the site's have changed, up to the newest.
    TellAll,
    /// Changes are not told.
    Lose(u8),
    /// Another history, with everything on its way from the one before.
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8).prop_map(Step::Write),
        5 => (0..3_u8).prop_map(Step::Ask),
        2 => (0..3_u8).prop_map(Step::WriteHere),
        7 => any::<u8>().prop_map(Step::Arrive),
        5 => Just(Step::Tell),
        1 => Just(Step::TellAll),
        1 => (1..4_u8).prop_map(Step::Lose),
        1 => Just(Step::Clear),
    ]
}

struct Answer {
    mark: Mark,
    key: u8,
    as_of: u64,
    /// The revision of the value, as its text.
    value: u64,
    written: bool,
}

proptest! {
    /// Whatever is late or lost: once a change is told, nothing older than it is found, nor anything
    /// older than what was written here.
    #[test]
    fn nothing_older_than_what_was_told_is_found(steps in prop::collection::vec(step(), 1..120)) {
        let copies = Copies::new(1 << 20);
        let mut changes: Vec<(u64, u8)> = Vec::new();
        let mut newest = [0_u64; 3];
        let (mut told, mut next) = (0, 0);
        let mut own = [0_u64; 3];
        let mut answers: Vec<Answer> = Vec::new();
        for step in steps {
            let head = changes.len() as u64;
            match step {
                Step::Write(key) => {
                    changes.push((head + 1, key));
                    newest[usize::from(key)] = head + 1;
                }
                Step::Ask(key) => {
                    let (mark, value) = (copies.mark(), newest[usize::from(key)]);
                    answers.push(Answer { mark, key, as_of: head, value, written: false });
                }
                Step::WriteHere(key) => {
                    let value = head + 1;
                    changes.push((value, key));
                    newest[usize::from(key)] = value;
                    let mark = copies.mark();
                    answers.push(Answer { mark, key, as_of: value, value, written: true });
                }
                Step::Arrive(which) if !answers.is_empty() => {
                    let Answer { mark, key, as_of, value, written } =
                        answers.remove(usize::from(which) % answers.len());
                    let (name, now) = (key.to_string(), Instant::now());
                    let text = Some(Bytes::from(value.to_string()));
                    if written {
                        copies.wrote(mark, SITE, &name, text, Revision(as_of), now);
                        own[usize::from(key)] = own[usize::from(key)].max(value);
                    } else {
                        copies.keep(mark, SITE, &name, text, Revision(as_of), now);
                    }
                }
                Step::Tell if next < changes.len() => {
                    let (revision, key) = changes[next];
                    copies.changed(&change(revision, Some(&key.to_string()), revision - 1));
                    next += 1;
                    told = revision;
                }
                Step::TellAll if head > 0 => {
                    copies.changed(&change(head, None, 0));
                    next = changes.len();
                    told = head;
                }
                Step::Lose(count) => next = changes.len().min(next + usize::from(count)),
                Step::Clear => copies.clear(),
                _ => {}
            }
            for key in 0..3_u8 {
                let Found::Copy(found) = find(&copies, &key.to_string()) else { continue };
                let found: u64 = std::str::from_utf8(&found.unwrap()).unwrap().parse().unwrap();
                let of_key = changes.iter().filter(|(_, of)| *of == key).map(|(at, _)| *at);
                let least = of_key.filter(|at| *at <= told).max().unwrap_or(0);
                prop_assert!(found >= least.max(own[usize::from(key)]), "{key}: {found} < {least}");
            }
        }
    }
}
