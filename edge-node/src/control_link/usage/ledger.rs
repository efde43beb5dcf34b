//! The usage that the control plane has not counted yet, and the numbers of its batches. Pure; what is
//! on disk and what is sent are the parent's affair.
//!
//! One batch at a time is **sealed**: it has a number, may have been sent, and never changes until it
//! is acknowledged. All else is **open**: it has no number, and what is added is summed into it. So
//! however long the control plane is away, two pieces are kept, and a repeat is the same batch again.
//!
//! What is read from disk is **suspect** until the control plane has told how far it is: a state folder
//! that was put back from a copy holds what may have been counted since the copy was made. If the
//! control plane knows of higher numbers than were ever given here, all that is suspect is dropped and
//! a new epoch begins: rather some is lost than any counted twice.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use verge_config::usage::{MAX_BATCH_ITEMS, Sums, UsageBatch, UsageItem, UsageReport};

/// The most items that are open, unless more sites than this are at work. Beyond it the oldest hours
/// are summed up, then the handlers and versions of each site.
const MAX_OPEN: usize = 20_000;

/// Usage by hour, site, handler and version.
type Items = BTreeMap<Key, Sums>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    hour: u64,
    site: String,
    handler: String,
    version: u64,
}

/// See the room's text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(in crate::control_link) struct Ledger {
    epoch: String,
    /// The number of the next batch.
    next: u64,
    sealed: Option<UsageBatch>,
    open: Items,
    suspect: Items,
    /// The control plane has told how far it is with this epoch.
    is_confirmed: bool,
}

/// A ledger on disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    epoch: String,
    next: u64,
    #[serde(default)]
    sealed: Option<UsageBatch>,
    #[serde(default)]
    open: Vec<UsageItem>,
}

// === impl Ledger ===

impl Ledger {
    /// An empty one; nobody else has ever counted under its epoch.
    pub(in crate::control_link) fn new(epoch: String) -> Ledger {
        let (open, suspect) = (Items::new(), Items::new());
        Ledger { epoch, next: 1, sealed: None, open, suspect, is_confirmed: true }
    }

    /// Adds what was used.
    pub(super) fn add(&mut self, used: impl IntoIterator<Item = UsageItem>) {
        for item in used {
            let (key, sums) = entry(item);
            self.open.entry(key).or_default().add(&sums);
        }
        bound(&mut self.open, MAX_OPEN);
    }

    /// Seals the oldest of what is open, if nothing is sealed and that may be. Says whether it did.
    pub(super) fn seal(&mut self) -> bool {
        if !self.is_confirmed || self.sealed.is_some() || self.open.is_empty() {
            return false;
        }
        let mut items = Vec::new();
        while items.len() < MAX_BATCH_ITEMS
            && let Some(first) = self.open.pop_first()
        {
            items.push(item(first));
        }
        self.sealed = Some(UsageBatch { number: self.next, items });
        self.next += 1;
        true
    }

    /// What is to be sent: the sealed batch, or the question how far the control plane is.
    pub(super) fn report(&self) -> Option<UsageReport> {
        let has_more = !self.open.is_empty() || !self.suspect.is_empty();
        (self.sealed.is_some() || (has_more && !self.is_confirmed))
            .then(|| UsageReport { epoch: self.epoch.clone(), batch: self.sealed.clone() })
    }

    /// The control plane has answered that everything up to `applied` is counted. Says whether that
    /// can be; if not, a new epoch has begun.
    pub(super) fn acknowledged(
        &mut self,
        report: &UsageReport,
        applied: u64,
        new_epoch: impl FnOnce() -> String,
    ) -> bool {
        if report.epoch != self.epoch {
            return true;
        }
        let suspect = std::mem::take(&mut self.suspect);
        if applied >= self.next {
            let open = std::mem::take(&mut self.open);
            *self = Ledger { open, ..Ledger::new(new_epoch()) };
            return false;
        }
        if self.sealed.as_ref().is_some_and(|sealed| sealed.number <= applied) {
            self.sealed = None;
        }
        self.is_confirmed = true;
        for (key, sums) in suspect {
            self.open.entry(key).or_default().add(&sums);
        }
        bound(&mut self.open, MAX_OPEN);
        true
    }
}

impl From<Stored> for Ledger {
    fn from(stored: Stored) -> Ledger {
        let mut suspect = Items::new();
        for item in stored.open {
            let (key, sums) = entry(item);
            suspect.entry(key).or_default().add(&sums);
        }
        let Stored { epoch, next, sealed, .. } = stored;
        Ledger { epoch, next, sealed, open: Items::new(), suspect, is_confirmed: false }
    }
}

impl From<Ledger> for Stored {
    fn from(ledger: Ledger) -> Stored {
        let Ledger { epoch, next, sealed, open, suspect, .. } = ledger;
        Stored { epoch, next, sealed, open: suspect.into_iter().chain(open).map(item).collect() }
    }
}

fn entry(item: UsageItem) -> (Key, Sums) {
    let UsageItem { site, handler, version, hour, sums } = item;
    (Key { hour, site, handler, version }, sums)
}

fn item((key, sums): (Key, Sums)) -> UsageItem {
    let Key { hour, site, handler, version } = key;
    UsageItem { site, handler, version, hour, sums }
}

/// Sums items up until there are at most `most`, or one for each site: nothing is lost but when, by
/// which handler and by which version.
fn bound(items: &mut Items, most: usize) {
    if items.len() <= most {
        return;
    }
    let hours: BTreeSet<u64> = items.keys().map(|key| key.hour).collect();
    for (oldest, next) in hours.iter().zip(hours.iter().skip(1)) {
        if items.len() <= most {
            return;
        }
        let oldest: Vec<_> = items.extract_if(.., |key, _| key.hour <= *oldest).collect();
        for (key, sums) in oldest {
            items.entry(Key { hour: *next, ..key }).or_default().add(&sums);
        }
    }
    if items.len() > most {
        for (key, sums) in std::mem::take(items) {
            let key = Key { handler: String::new(), version: 0, ..key };
            items.entry(key).or_default().add(&sums);
        }
    }
}

#[cfg(test)]
mod tests;
