//! Live tails of sites' requests: who reads, and what waits for them. In memory only and no part of
//! history. A slow reader loses events, is told how many, and holds nobody up. May not touch the store.

use crate::auth::{NoRandomness, random_id};
use crate::questions::{Asking, NotAsked, Questions};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::Notify;
use verge_config::feed::{Asked, Told};
use verge_config::tail::{Backlog, Batch, Filter, LEASE_SECONDS, Place, Tail, TailLine};

/// Open tails of all tenants and of one: each costs every edge something.
const MAX_OPEN: usize = 32;
const MAX_OPEN_OF_TENANT: usize = 4;
/// About the most bytes handed to a reader at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why a tail is not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotOpened {
    /// The tenant has as many open as it may, or all tenants have.
    #[error("too many tails are open; close one")]
    TooMany,
    /// It cannot be named.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The edges cannot be asked.
    #[error(transparent)]
    NotAsked(#[from] NotAsked),
}

/// The open tails, by id.
#[derive(Default)]
pub(crate) struct Tails {
    open: Mutex<HashMap<String, Arc<Waiting>>>,
}

/// What waits for one reader.
struct Waiting {
    tenant: String,
    backlog: Mutex<Backlog<Bytes>>,
    /// What the edges say went away there, by their names; at most as many as there are edges.
    dropped: Mutex<BTreeMap<String, u64>>,
    wake: Notify,
}

/// An open tail; it is closed when this is dropped, and the edges learn of it with their next batch, or
/// when their lease is over.
pub(crate) struct Open {
    tails: Arc<Tails>,
    id: String,
    waiting: Arc<Waiting>,
    asking: Asking,
}

// === impl Tails ===

impl Tails {
    /// Opens a tail: every edge is asked whose feed is open, or opens while the tail is.
    ///
    /// # Errors
    /// When too many are open.
    pub(crate) fn open(
        self: &Arc<Self>,
        questions: &Arc<Questions>,
        tenant: &str,
        site: &str,
        filter: Filter,
    ) -> Result<Open, NotOpened> {
        let id = random_id("tail")?;
        let waiting = Arc::new(Waiting {
            tenant: tenant.to_owned(),
            backlog: Mutex::default(),
            dropped: Mutex::default(),
            wake: Notify::new(),
        });
        {
            let mut open = self.open.lock();
            let own = open.values().filter(|waiting| waiting.tenant == tenant).count();
            if open.len() >= MAX_OPEN || own >= MAX_OPEN_OF_TENANT {
                return Err(NotOpened::TooMany);
            }
            open.insert(id.clone(), Arc::clone(&waiting));
        }
        let tail =
            Tail { id: id.clone(), site: site.to_owned(), filter, lease_seconds: LEASE_SECONDS };
        match questions.ask(tenant, "qst", Asked::Tail(tail)) {
            Ok(asking) => Ok(Open { tails: Arc::clone(self), id, waiting, asking }),
            Err(error) => {
                self.open.lock().remove(&id);
                Err(error.into())
            }
        }
    }

    /// Takes what an edge tells; says whether anybody still reads.
    pub(crate) fn take(&self, edge: &str, batch: Batch) -> bool {
        let Some(waiting) = self.open.lock().get(&batch.tail).map(Arc::clone) else { return false };
        if batch.dropped > 0 {
            let mut dropped = waiting.dropped.lock();
            let count = dropped.entry(edge.to_owned()).or_default();
            *count = count.saturating_add(batch.dropped);
        }
        for mut event in batch.events {
            edge.clone_into(&mut event.edge);
            let line = encode(&TailLine::Request(Box::new(event)));
            let bytes = line.len();
            waiting.backlog.lock().push(line, bytes);
        }
        waiting.wake.notify_one();
        true
    }
}

// === impl Open ===

impl Open {
    /// The next lines, as soon as there are any. Nothing is lost when this is dropped before it is
    /// ready.
    pub(crate) async fn next(&self) -> Bytes {
        loop {
            let lines = self.lines();
            if !lines.is_empty() {
                return lines;
            }
            self.waiting.wake.notified().await;
        }
    }

    fn lines(&self) -> Bytes {
        let (lines, unread) = self.waiting.backlog.lock().take(CHUNK_BYTES);
        let mut text = lines.concat();
        let lost = std::mem::take(&mut *self.waiting.dropped.lock()).into_iter();
        let lost = lost.map(|(edge, count)| (Place::Edge, Some(edge), count));
        let unread = (unread > 0).then_some((Place::Reader, None, unread));
        for (place, edge, count) in lost.chain(unread) {
            text.extend_from_slice(&encode(&TailLine::Dropped { place, edge, count }));
        }
        text.into()
    }

    /// Asks the edges to go on.
    pub(crate) fn renew(&mut self) {
        self.asking.repeat();
    }

    /// The edges that take no part, by their ids, with their reasons.
    pub(crate) fn refusals(&self) -> BTreeMap<String, String> {
        let refused = self.asking.answers().into_iter().filter_map(|(edge, told)| match told {
            Told::Refused { reason } => Some((edge, reason)),
            _ => None,
        });
        refused.collect()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tails.open.lock().remove(&self.id);
    }
}

/// One line with its line feed.
pub(crate) fn encode(line: &TailLine) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use verge_config::tail::{Event, MAX_WAITING};

    fn open(
        tails: &Arc<Tails>,
        questions: &Arc<Questions>,
        tenant: &str,
    ) -> Result<Open, NotOpened> {
        tails.open(questions, tenant, "shop", Filter::default())
    }

    fn batch(tail: &Open, count: usize) -> Batch {
        let events = vec![Event { edge: "somebody else".into(), ..Event::default() }; count];
        Batch { tail: tail.id.clone(), dropped: 0, events }
    }

    fn read(bytes: &Bytes) -> Vec<TailLine> {
        let text = std::str::from_utf8(bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_reader_is_told_who_said_what_and_what_went_away() {
        let (tails, questions) = (Arc::new(Tails::default()), Arc::new(Questions::default()));
        let tail = open(&tails, &questions, "a").unwrap();
        assert!(tails.take("one", batch(&tail, 1)));
        let lines = read(&tail.next().await);
        let [TailLine::Request(event)] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(event.edge, "one", "an edge does not say who it is");
        assert!(tails.take("one", batch(&tail, MAX_WAITING + 5)));
        assert!(tails.take("two", Batch { dropped: 3, ..batch(&tail, 0) }));
        let (mut told, mut dropped) = (0, Vec::new());
        while told < MAX_WAITING || dropped.len() < 2 {
            for line in read(&tail.next().await) {
                match line {
                    TailLine::Request(_) => told += 1,
                    TailLine::Dropped { edge, count, .. } => dropped.push((edge, count)),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!((told, dropped), (MAX_WAITING, vec![(Some("two".into()), 3), (None, 5)]));
        let id = tail.id.clone();
        drop(tail);
        let late = Batch { tail: id, ..Batch::default() };
        assert!(!tails.take("one", late), "nobody reads any more");
    }

    #[test]
    fn a_tenant_has_a_few_open_and_all_together_not_many() {
        let (tails, questions) = (Arc::new(Tails::default()), Arc::new(Questions::default()));
        let mut some: Vec<Open> =
            (0..MAX_OPEN_OF_TENANT).map(|_| open(&tails, &questions, "a").unwrap()).collect();
        assert!(matches!(open(&tails, &questions, "a"), Err(NotOpened::TooMany)));
        for n in 0..MAX_OPEN - MAX_OPEN_OF_TENANT {
            some.push(open(&tails, &questions, &format!("t{n}")).unwrap());
        }
        assert!(matches!(open(&tails, &questions, "b"), Err(NotOpened::TooMany)));
        some.pop();
        assert!(open(&tails, &questions, "b").is_ok());
    }
}
