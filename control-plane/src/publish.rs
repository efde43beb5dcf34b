//! Committed changes to every open feed: each encoded once, shared by all. Level-triggered: a stream
//! watches the head and reads on from where it is, from the ring here or, further back, from the
//! store; so a slow reader costs no memory. May not touch the database.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::watch;
use verge_config::Revision;

/// The most that the ring holds, in bytes and in lines.
const RING_BYTES: usize = 16 * 1024 * 1024;
const RING_LINES: usize = 8_192;
/// The most lines and bytes taken from it at once.
const BATCH_LINES: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;

/// One line of the feed with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) revision: Revision,
    /// The thing whose state the line tells; a later line of the same thing replaces it.
    pub(crate) of: Option<String>,
    /// The line with its line feed.
    pub(crate) line: Bytes,
}

/// The newest lines, and the head.
pub(crate) struct Publisher {
    ring: Mutex<Ring>,
    head: watch::Sender<Revision>,
}

struct Ring {
    /// Every line after this revision is in the ring, but sites' lines that later ones replace.
    floor: Revision,
    lines: VecDeque<Entry>,
    bytes: usize,
}

// === impl Publisher ===

impl Publisher {
    pub(crate) fn new(head: Revision) -> Publisher {
        let ring = Ring { floor: head, lines: VecDeque::new(), bytes: 0 };
        Publisher { ring: Mutex::new(ring), head: watch::Sender::new(head) }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    /// Tells of committed lines, in order.
    pub(crate) fn publish(&self, lines: Vec<Entry>, head: Revision) {
        if lines.is_empty() {
            return;
        }
        let mut ring = self.ring.lock();
        for line in lines {
            ring.push(line);
        }
        drop(ring);
        self.head.send_replace(head);
    }

    /// Forgets the lines: all streams go on from the store.
    pub(crate) fn reset(&self, head: Revision) {
        let mut ring = self.ring.lock();
        *ring = Ring { floor: head, lines: VecDeque::new(), bytes: 0 };
        drop(ring);
        self.head.send_replace(head);
    }

    /// The next lines after `since`; `None` when the ring does not reach back so far.
    pub(crate) fn after(&self, since: Revision) -> Option<Vec<Entry>> {
        let ring = self.ring.lock();
        if since < ring.floor {
            return None;
        }
        let start = ring.lines.partition_point(|entry| entry.revision <= since);
        let mut bytes = 0;
        let batch = ring.lines.iter().skip(start).take(BATCH_LINES).take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.line.len();
            first || bytes <= BATCH_BYTES
        });
        Some(batch.cloned().collect())
    }
}

// === impl Ring ===

impl Ring {
    fn push(&mut self, entry: Entry) {
        if entry.of.is_some()
            && let Some(at) = self.lines.iter().position(|old| old.of == entry.of)
            && let Some(old) = self.lines.remove(at)
        {
            self.bytes -= old.line.len();
        }
        self.bytes += entry.line.len();
        self.lines.push_back(entry);
        while self.bytes > RING_BYTES || self.lines.len() > RING_LINES {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.line.len();
            self.floor = oldest.revision;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(revision: u64, bytes: usize) -> Entry {
        Entry { revision: Revision(revision), of: None, line: vec![b'x'; bytes].into() }
    }

    fn site(revision: u64, name: &str) -> Entry {
        Entry { of: Some(name.to_owned()), ..line(revision, 1) }
    }

    #[test]
    fn streams_go_on_from_where_they_are() {
        let publisher = Publisher::new(Revision(5));
        assert_eq!(publisher.after(Revision(4)), None);
        assert_eq!(publisher.after(Revision(5)), Some(vec![]));
        publisher.publish(vec![line(6, 1), line(7, 1)], Revision(7));
        assert_eq!(publisher.after(Revision(6)), Some(vec![line(7, 1)]));
        assert_eq!(*publisher.watch().borrow(), Revision(7));
    }

    #[test]
    fn a_sites_line_replaces_its_older_one() {
        let publisher = Publisher::new(Revision(0));
        let lines = vec![site(1, "a"), line(2, 1), site(3, "b"), site(4, "a")];
        publisher.publish(lines, Revision(4));
        let expected = vec![line(2, 1), site(3, "b"), site(4, "a")];
        assert_eq!(publisher.after(Revision(0)), Some(expected));
        assert_eq!(publisher.ring.lock().bytes, 3);
    }

    #[test]
    fn the_ring_is_bounded_and_knows_where_it_begins() {
        let publisher = Publisher::new(Revision(0));
        for revision in 1..=20 {
            publisher.publish(vec![line(revision, 1 << 20)], Revision(revision));
        }
        assert!(publisher.ring.lock().bytes <= RING_BYTES);
        assert_eq!(publisher.after(Revision(3)), None);
        assert_eq!(publisher.after(Revision(4)).map(|lines| lines.len()), Some(1));
        assert_eq!(publisher.after(Revision(20)), Some(vec![]));
    }
}
