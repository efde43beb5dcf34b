//! The ledger against a model of the control plane: whatever gets lost on the way, is repeated, comes
//! late or is killed, what was written down is counted once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

fn used(hour: u64, site: &str, version: u64, count: u64) -> UsageItem {
    let sums = Sums { cpu_us: count, ..Sums::default() };
    UsageItem { site: site.to_owned(), handler: "h".to_owned(), version, hour, sums }
}

fn total<'i>(items: impl IntoIterator<Item = &'i UsageItem>) -> u64 {
    items.into_iter().map(|item| item.sums.cpu_us).sum()
}

fn on_disk(ledger: &Ledger) -> Vec<u8> {
    serde_json::to_vec(ledger).unwrap()
}

fn from_disk(bytes: &[u8]) -> Ledger {
    serde_json::from_slice(bytes).unwrap()
}

/// The control plane's side: a batch above the highest number of its epoch counts.
#[derive(Default, Clone)]
struct Control {
    applied: HashMap<String, u64>,
    counted: u64,
}

impl Control {
    fn take(&mut self, report: &UsageReport) -> u64 {
        let applied = self.applied.entry(report.epoch.clone()).or_default();
        if let Some(batch) = &report.batch
            && batch.number > *applied
        {
            *applied = batch.number;
            self.counted += total(&batch.items);
        }
        *applied
    }
}

/// An edge whose reports may get lost, with all that a test wants to know of it.
struct Edge {
    ledger: Ledger,
    disk: Vec<u8>,
    is_saved: bool,
    used: u64,
    unsaved: u64,
    lost: u64,
    epochs: u64,
    /// Reports that are still under way somewhere.
    late: Vec<UsageReport>,
    copies: Vec<Vec<u8>>,
}

impl Edge {
    fn new() -> Edge {
        let ledger = Ledger::new("epoch 0".to_owned());
        let disk = on_disk(&ledger);
        Edge {
            ledger,
            disk,
            is_saved: true,
            used: 0,
            unsaved: 0,
            lost: 0,
            epochs: 0,
            late: Vec::new(),
            copies: Vec::new(),
        }
    }

    fn save(&mut self) {
        self.ledger.seal();
        self.disk = on_disk(&self.ledger);
        (self.is_saved, self.unsaved) = (true, 0);
    }

    fn acknowledged(&mut self, report: &UsageReport, applied: u64) -> bool {
        let epochs = &mut self.epochs;
        let can_be = self.ledger.acknowledged(report, applied, || {
            *epochs += 1;
            format!("epoch {epochs}")
        });
        self.is_saved = false;
        can_be
    }

    /// As the reporter does: nothing is sent that is not on disk.
    fn send(&mut self, control: &mut Control, fate: Fate) {
        let Some(report) = self.ledger.report().filter(|_| self.is_saved) else { return };
        match fate {
            Fate::Lost => self.late.push(report),
            Fate::Unanswered => {
                control.take(&report);
            }
            Fate::Answered => {
                let applied = control.take(&report);
                self.acknowledged(&report, applied);
                self.save();
            }
        }
    }

    fn restart(&mut self, disk: Vec<u8>) {
        self.ledger = from_disk(&disk);
        self.disk = disk;
        self.lost += self.unsaved;
        (self.is_saved, self.unsaved) = (true, 0);
    }
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It does not arrive, or much later.
    Lost,
    /// It arrives, and its answer does not.
    Unanswered,
    Answered,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Use {
        hour: u64,
        site: u8,
        version: u64,
        count: u64,
    },
    Save,
    Send(Fate),
    /// One that was lost arrives after all, maybe once more.
    Arrives {
        index: usize,
        again: bool,
    },
    /// Killed, and started again.
    Kill,
    /// The folder is copied; a copy is put back.
    Copy,
    PutBack(usize),
    /// The control plane's store is put back to what it was once.
    ControlCopy,
    ControlPutBack(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let usual = prop_oneof![
        4 => (0_u64..4, 0_u8..3, 1_u64..3, 1_u64..100)
            .prop_map(|(hour, site, version, count)| Event::Use { hour, site, version, count }),
        3 => Just(Event::Save),
        2 => Just(Event::Send(Fate::Lost)),
        2 => Just(Event::Send(Fate::Unanswered)),
        3 => Just(Event::Send(Fate::Answered)),
        2 => (any::<usize>(), any::<bool>())
            .prop_map(|(index, again)| Event::Arrives { index, again }),
        1 => Just(Event::Kill),
    ];
    let copies = prop_oneof![
        Just(Event::Copy),
        any::<usize>().prop_map(Event::PutBack),
        Just(Event::ControlCopy),
        any::<usize>().prop_map(Event::ControlPutBack),
    ];
    prop_oneof![20 => usual, 1 => copies]
}

/// Runs events; gives the edge, the control plane, and whether a copy was ever put back.
fn run(events: &[Event]) -> (Edge, Control, bool) {
    let (mut edge, mut control, mut was_put_back) = (Edge::new(), Control::default(), false);
    let mut stores: Vec<Control> = Vec::new();
    for event in events {
        match *event {
            Event::Use { hour, site, version, count } => {
                edge.ledger.add([used(hour, &format!("s{site}"), version, count)]);
                edge.used += count;
                edge.unsaved += count;
                edge.is_saved = false;
            }
            Event::Save => edge.save(),
            Event::Send(fate) => edge.send(&mut control, fate),
            Event::Arrives { index, again } if !edge.late.is_empty() => {
                let index = index % edge.late.len();
                let report = edge.late[index].clone();
                control.take(&report);
                if !again {
                    edge.late.remove(index);
                }
            }
            Event::Kill => edge.restart(edge.disk.clone()),
            Event::Copy => edge.copies.push(edge.disk.clone()),
            Event::PutBack(index) if !edge.copies.is_empty() => {
                // What was under way then has long arrived or is gone.
                edge.late.clear();
                edge.restart(edge.copies[index % edge.copies.len()].clone());
                was_put_back = true;
            }
            Event::ControlCopy => stores.push(control.clone()),
            Event::ControlPutBack(index) if !stores.is_empty() => {
                edge.late.clear();
                control = stores[index % stores.len()].clone();
                was_put_back = true;
            }
            _ => {}
        }
        assert!(control.counted <= edge.used, "{} of {}", control.counted, edge.used);
    }
    (edge, control, was_put_back)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_written_down_is_counted_once(events in prop::collection::vec(event(), 0..120)) {
        let (mut edge, mut control, was_put_back) = run(&events);
        // The network is good again.
        edge.save();
        for _ in 0..1_000 {
            if edge.ledger.report().is_none() {
                break;
            }
            edge.send(&mut control, Fate::Answered);
        }
        prop_assert!(edge.ledger.report().is_none(), "there is no end to it");
        prop_assert!(control.counted <= edge.used);
        if !was_put_back {
            prop_assert_eq!(control.counted, edge.used - edge.lost);
        }
        // And what was under way for all this time changes nothing.
        for report in std::mem::take(&mut edge.late) {
            control.take(&report);
        }
        prop_assert!(control.counted <= edge.used);
        if !was_put_back {
            prop_assert_eq!(control.counted, edge.used - edge.lost);
        }
    }
}

#[test]
fn a_lost_acknowledgement_brings_the_same_batch_again() {
    let (mut edge, mut control) = (Edge::new(), Control::default());
    edge.ledger.add([used(1, "s", 1, 5)]);
    edge.save();
    let first = edge.ledger.report().unwrap();
    edge.send(&mut control, Fate::Unanswered);
    edge.ledger.add([used(1, "s", 1, 7)]);
    edge.save();
    assert_eq!(edge.ledger.report().unwrap(), first, "what may have been sent does not change");
    edge.restart(edge.disk.clone());
    assert_eq!(edge.ledger.report().unwrap(), first);
    edge.send(&mut control, Fate::Answered);
    assert_eq!(control.counted, 5);
    edge.send(&mut control, Fate::Answered);
    assert_eq!(control.counted, 12);
    assert_eq!(edge.ledger.report(), None);
}

#[test]
fn a_folder_that_was_put_back_counts_nothing_twice() {
    let (mut edge, mut control) = (Edge::new(), Control::default());
    edge.ledger.add([used(1, "s", 1, 5)]);
    edge.save();
    edge.send(&mut control, Fate::Answered);
    // Not sealed yet when the copy is made; sealed and counted afterwards.
    edge.ledger.add([used(1, "s", 1, 7)]);
    let copy = on_disk(&edge.ledger);
    edge.save();
    edge.send(&mut control, Fate::Answered);
    assert_eq!(control.counted, 12);
    edge.restart(copy);
    edge.ledger.add([used(2, "s", 1, 9)]);
    edge.save();
    for _ in 0..3 {
        edge.send(&mut control, Fate::Answered);
    }
    assert_eq!(control.counted, 21, "what is new is counted, under a new epoch");
    assert_eq!(control.applied.len(), 2);
}

#[test]
fn a_batch_has_no_more_items_than_it_may() {
    let (mut edge, mut control) = (Edge::new(), Control::default());
    let count = MAX_BATCH_ITEMS as u64 * 2 + 1;
    edge.ledger.add((0..count).map(|version| used(1, "s", version, 1)));
    edge.save();
    let mut batches = 0;
    while let Some(report) = edge.ledger.report() {
        assert!(report.batch.unwrap().items.len() <= MAX_BATCH_ITEMS);
        edge.send(&mut control, Fate::Answered);
        batches += 1;
    }
    assert_eq!((batches, control.counted), (3, count));
}

#[test]
fn however_long_nobody_takes_it_the_sums_stay_and_the_room_is_bounded() {
    let sum = |items: &Items| items.values().map(|sums| sums.cpu_us).sum::<u64>();
    let mut items = Items::new();
    for hour in 0..1_000 {
        for version in 0..20 {
            let (key, sums) = entry(used(hour, "s", version, 1));
            items.entry(key).or_default().add(&sums);
        }
        bound(&mut items, 200);
        assert!(items.len() <= 200);
        assert_eq!(sum(&items), (hour + 1) * 20);
    }
    assert_eq!(items.keys().next_back().unwrap().hour, 999, "the newest hour is the last to go");
    // More handlers than there is room for: by site alone.
    let many = (0..300).map(|version| entry(used(1, &format!("s{}", version % 7), version, 1)));
    let mut items: Items = many.collect();
    bound(&mut items, 200);
    assert_eq!((items.len(), sum(&items)), (7, 300));
    assert!(items.keys().all(|key| key.handler.is_empty() && key.version == 0));
}

#[test]
fn a_file_of_a_newer_edge_is_read() {
    let text =
        r#"{"epoch": "e", "next": 3, "sealed": {"number": 2, "items": []}, "open": [], "more": 1}"#;
    let ledger = from_disk(text.as_bytes());
    assert_eq!(ledger.report().unwrap().batch.unwrap().number, 2);
}
