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

/// The newest lines, and the head.
pub(crate) struct Publisher {
    ring: Mutex<Ring>,
    head: watch::Sender<Revision>,
}

struct Ring {
    /// Every line after this revision is in the ring.
    floor: Revision,
    lines: VecDeque<(Revision, Bytes)>,
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
    pub(crate) fn publish(&self, lines: Vec<(Revision, Bytes)>, head: Revision) {
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
    pub(crate) fn after(&self, since: Revision) -> Option<Vec<(Revision, Bytes)>> {
        let ring = self.ring.lock();
        if since < ring.floor {
            return None;
        }
        let start = ring.lines.partition_point(|(revision, _)| *revision <= since);
        let mut bytes = 0;
        let batch = ring.lines.iter().skip(start).take(BATCH_LINES).take_while(|(_, line)| {
            let first = bytes == 0;
            bytes += line.len();
            first || bytes <= BATCH_BYTES
        });
        Some(batch.cloned().collect())
    }
}

// === impl Ring ===

impl Ring {
    fn push(&mut self, line: (Revision, Bytes)) {
        self.bytes += line.1.len();
        self.lines.push_back(line);
        while self.bytes > RING_BYTES || self.lines.len() > RING_LINES {
            let Some((revision, line)) = self.lines.pop_front() else { break };
            self.bytes -= line.len();
            self.floor = revision;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(revision: u64, bytes: usize) -> (Revision, Bytes) {
        (Revision(revision), vec![b'x'; bytes].into())
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
