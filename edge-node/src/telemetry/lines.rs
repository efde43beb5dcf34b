//! Lines on their way to a slow reader: a bounded queue before a thread of its own. A full queue
//! drops lines and counts them; it never makes the writer wait.

use super::metrics;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use tracing_subscriber::fmt::MakeWriter;

/// The most lines waiting.
const MAX_WAITING: usize = 16 * 1024;
/// The most bytes gathered for one write.
const BATCH_BYTES: usize = 64 * 1024;

/// The writers' side; cheap to clone.
#[derive(Clone)]
pub(super) struct Lines {
    queue: SyncSender<Vec<u8>>,
}

/// Ends when all writers' sides are gone, or on [`LinesGuard::flush`].
pub(super) struct LinesGuard {
    queue: SyncSender<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
}

/// One line being written.
pub(super) struct Line<'a> {
    text: Vec<u8>,
    lines: &'a Lines,
}

/// Starts the thread that writes to `out`.
///
/// # Errors
/// When the system has no thread to spare.
pub(super) fn start(out: Box<dyn Write + Send>, name: &str) -> io::Result<(Lines, LinesGuard)> {
    let (queue, waiting) = sync_channel(MAX_WAITING);
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || write_all(&waiting, out))?;
    let guard = LinesGuard { queue: queue.clone(), thread: Some(thread) };
    Ok((Lines { queue }, guard))
}

/// Writes what waits, many lines at once, until an empty one says that it is the end.
fn write_all(waiting: &Receiver<Vec<u8>>, mut out: Box<dyn Write + Send>) {
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    while let Ok(line) = waiting.recv() {
        let mut last = line.is_empty();
        batch.extend_from_slice(&line);
        while batch.len() < BATCH_BYTES && !last {
            let Ok(line) = waiting.try_recv() else { break };
            last = line.is_empty();
            batch.extend_from_slice(&line);
        }
        // A reader that is gone is no reason to stop serving.
        let _ = out.write_all(&batch);
        let _ = out.flush();
        batch.clear();
        if last {
            return;
        }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.text.is_empty() {
            return;
        }
        let line = std::mem::take(&mut self.text);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.lines.queue.try_send(line)
        {
            metrics().log_lines_dropped.inc();
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { text: Vec::with_capacity(512), lines: self }
    }
}

impl Drop for LinesGuard {
    fn drop(&mut self) {
        // The empty line is behind all others; when the queue is full its reader is stuck, and an
        // ending process does not wait for it.
        if self.queue.try_send(Vec::new()).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;
    use std::sync::mpsc;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_in_order_and_all_before_the_end() {
        let out = Shared::default();
        let (lines, guard) = start(Box::new(out.clone()), "lines").unwrap();
        for n in 0..1000 {
            writeln!(lines.make_writer(), "{n}").unwrap();
        }
        drop(guard);
        let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
        assert_eq!(String::from_utf8(out.0.lock().clone()).unwrap(), expected);
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_no_time() {
        let (release, stuck) = mpsc::channel();
        let (lines, guard) = start(Box::new(Stuck(stuck)), "stuck").unwrap();
        let before = metrics().log_lines_dropped.get();
        // More than the queue and the batch in the thread's hands hold together.
        for _ in 0..2 * (MAX_WAITING + BATCH_BYTES) {
            lines.make_writer().write_all(b"x").unwrap();
        }
        assert!(metrics().log_lines_dropped.get() > before);
        drop(release);
        drop(lines);
        drop(guard);
    }
}
