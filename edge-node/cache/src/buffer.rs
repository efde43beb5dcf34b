//! Content on its way from one writer to many readers: kept whole, or only as far as somebody has yet to
//! read it, or in a file once it is long. Counts in bytes; knows no HTTP.

use crate::disk::{poll_part, read_part};
use crate::error::BodyError;
use crate::open_file::OpenFile;
use bytes::Bytes;
use std::collections::VecDeque;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::task::JoinHandle;

/// How much of a body that is not kept may wait for its slowest reader, and how much of one that goes
/// to a file stays in memory for those who read along, in bytes.
pub(crate) const WINDOW_BYTES: usize = 1024 * 1024;
/// How much of a file is read at a time.
const READ_BYTES: u64 = 256 * 1024;

/// What stays of content that was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// All of it.
    #[default]
    All,
    /// What somebody has yet to read.
    Unread,
    /// What is not in the file yet, and a window before that.
    Filed,
}

/// The content.
#[derive(Default)]
pub(crate) struct Buffer {
    chunks: VecDeque<Chunk>,
    /// Bytes in `chunks`.
    bytes: usize,
    /// The offset of the first byte, and that behind the last one that came.
    start: u64,
    end: u64,
    keeping: Keeping,
    /// The last chunk is not read yet, though it is there.
    holding: bool,
    file: Option<(Arc<OpenFile>, u64)>,
    finished: Option<Result<(), BodyError>>,
    readers: Vec<Option<Place>>,
    /// Places in `readers` that are vacant.
    vacant: Vec<usize>,
    present: usize,
}

struct Chunk {
    start: u64,
    data: Bytes,
    /// Readers who have not had it yet.
    unread: usize,
}

/// A reader's place.
#[derive(Default)]
struct Place {
    at: u64,
    waker: Option<Waker>,
    cut: bool,
}

/// What a reader finds.
pub(crate) enum Next {
    Data(Bytes),
    End,
    Failed(BodyError),
    /// It is in the file by now: so many bytes from there.
    InFile(Arc<OpenFile>, u64, usize),
    NotYet,
}

/// A read of the file that a reader waits for.
pub(crate) type Reading = JoinHandle<std::io::Result<Bytes>>;

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

impl Buffer {
    /// Content begins at `start` of the representation. Said before any comes.
    pub(crate) fn starts_at(&mut self, start: u64) {
        (self.start, self.end) = (start, start);
        for place in self.readers.iter_mut().flatten() {
            place.at = place.at.max(start);
        }
    }

    /// Places for readers, vacant ones too.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.readers.len()
    }

    pub(crate) fn readers(&self) -> usize {
        self.present
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A new reader from `at` on, if what it wants is still here or in the file.
    pub(crate) fn enter(&mut self, at: u64) -> Option<usize> {
        let at = at.max(self.start);
        let first = self.chunks.front().map_or(self.end, |chunk| chunk.start);
        if first > at && self.file.is_none() {
            return None;
        }
        self.present += 1;
        for chunk in self.chunks.iter_mut().filter(|chunk| chunk.end() > at) {
            chunk.unread += 1;
        }
        let place = Place { at, ..Place::default() };
        let slot = self.vacant.pop().unwrap_or(self.readers.len());
        match self.readers.get_mut(slot) {
            Some(vacant) => *vacant = Some(place),
            None => self.readers.push(Some(place)),
        }
        Some(slot)
    }

    /// A reader that has no place: what it wants is gone.
    pub(crate) fn enter_cut(&mut self) -> usize {
        self.readers.push(Some(Place { cut: true, ..Place::default() }));
        self.readers.len() - 1
    }

    /// A reader goes.
    pub(crate) fn leave(&mut self, slot: usize) {
        let place = self.readers.get_mut(slot).and_then(Option::take);
        self.vacant.push(slot);
        if let Some(place) = place.filter(|place| !place.cut) {
            self.present -= 1;
            self.release(place.at);
        }
    }

    /// From now on the last chunk that comes is not read before the end, or it is.
    pub(crate) fn hold(&mut self, holding: bool) {
        self.holding = holding;
    }

    /// Goes over to keeping less.
    pub(crate) fn keep(&mut self, keeping: Keeping) {
        self.keeping = keeping;
        self.trim();
    }

    /// Adds content; returns the offset behind it.
    pub(crate) fn push(&mut self, data: Bytes) -> u64 {
        if data.is_empty() {
            return self.end;
        }
        let start = self.end;
        self.end += data.len() as u64;
        self.bytes += data.len();
        let end = self.end;
        let unread = self.readers.iter().flatten().filter(|p| !p.cut && p.at < end).count();
        self.chunks.push_back(Chunk { start, data, unread });
        self.trim();
        self.wake();
        end
    }

    /// What is not in the file yet.
    pub(crate) fn unwritten(&self) -> Vec<Bytes> {
        let written = self.file.as_ref().map_or(0, |(_, written)| *written);
        let new = self.chunks.iter().filter(|chunk| chunk.end() > written);
        new.map(|chunk| {
            let known = usize::try_from(written.saturating_sub(chunk.start)).unwrap_or(usize::MAX);
            chunk.data.slice(known.min(chunk.data.len())..)
        })
        .collect()
    }

    /// The file has everything up to `written`.
    pub(crate) fn is_in_file(&mut self, file: Arc<OpenFile>, written: u64) {
        self.file = Some((file, written));
        self.trim();
    }

    /// No more content.
    pub(crate) fn finish(&mut self, end: Result<(), BodyError>) {
        self.holding = false;
        if self.finished.is_none() {
            self.finished = Some(end);
        }
        self.wake();
    }

    /// All of it, when nothing was dropped.
    pub(crate) fn pieces(&self) -> Vec<Bytes> {
        self.chunks.iter().map(|chunk| chunk.data.clone()).collect()
    }

    /// All of it has come and is still here.
    pub(crate) fn is_complete(&self) -> bool {
        let first = self.chunks.front().map_or(self.end, |chunk| chunk.start);
        first == self.start && matches!(self.finished, Some(Ok(())))
    }

    /// Content that somebody has yet to read has no more room.
    pub(crate) fn is_full(&self) -> bool {
        self.keeping == Keeping::Unread && self.bytes > WINDOW_BYTES && self.present > 0
    }

    /// What a reader finds at its place, which moves behind it.
    pub(crate) fn next(&mut self, slot: usize, cx: &mut Context<'_>) -> Next {
        let Some(Some(place)) = self.readers.get_mut(slot) else { return Next::End };
        if place.cut {
            return Next::Failed(BodyError::TooSlow);
        }
        let at = place.at;
        let index = self.chunks.partition_point(|chunk| chunk.end() <= at);
        let held = self.holding && self.chunks.back().is_some_and(|last| at >= last.start);
        if held {
            place.waker = Some(cx.waker().clone());
            return Next::NotYet;
        }
        if let Some(chunk) = self.chunks.get_mut(index)
            && chunk.start <= at
        {
            let known = usize::try_from(at - chunk.start).unwrap_or(usize::MAX);
            let data = chunk.data.slice(known.min(chunk.data.len())..);
            place.at = chunk.end();
            chunk.unread = chunk.unread.saturating_sub(1);
            self.trim();
            return Next::Data(data);
        }
        if let Some((file, written)) = self.file.as_ref().filter(|(_, written)| *written > at) {
            let length = READ_BYTES.min(written - at);
            return Next::InFile(Arc::clone(file), at, usize::try_from(length).unwrap_or(0));
        }
        match &self.finished {
            Some(Ok(())) => Next::End,
            Some(Err(error)) => Next::Failed(error.clone()),
            None => {
                place.waker = Some(cx.waker().clone());
                Next::NotYet
            }
        }
    }

    /// A reader has got so many bytes out of the file.
    pub(crate) fn got(&mut self, slot: usize, bytes: u64) {
        let Some(Some(place)) = self.readers.get_mut(slot) else { return };
        let (from, to) = (place.at, place.at + bytes);
        place.at = to;
        for chunk in self.chunks.iter_mut().filter(|c| c.end() > from && c.end() <= to) {
            chunk.unread = chunk.unread.saturating_sub(1);
        }
    }

    fn wake(&mut self) {
        for place in self.readers.iter_mut().flatten() {
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
        }
    }

    fn trim(&mut self) {
        let written = self.file.as_ref().map_or(0, |(_, written)| *written);
        while let Some(chunk) = self.chunks.front() {
            let dispensable = match self.keeping {
                Keeping::All => false,
                Keeping::Unread => chunk.unread == 0,
                Keeping::Filed => chunk.end() <= written && self.bytes > WINDOW_BYTES,
            };
            if !dispensable {
                break;
            }
            self.bytes -= chunk.data.len();
            self.chunks.pop_front();
        }
    }

    /// Everything from `at` on counts as read by one reader that is leaving.
    fn release(&mut self, at: u64) {
        for chunk in self.chunks.iter_mut().filter(|chunk| chunk.end() > at) {
            chunk.unread = chunk.unread.saturating_sub(1);
        }
        self.trim();
    }

    /// The readers that have not even read the first chunk lose their place, if others have.
    pub(crate) fn cut_slowest(&mut self) {
        let Some(first) = self.chunks.front().map(Chunk::end) else { return };
        let others = self.readers.iter().flatten().any(|place| !place.cut && place.at >= first);
        if !others {
            return;
        }
        let mut cut = Vec::new();
        for place in self.readers.iter_mut().flatten() {
            if !place.cut && place.at < first {
                place.cut = true;
                cut.push(place.at);
                if let Some(waker) = place.waker.take() {
                    waker.wake();
                }
            }
        }
        for at in &cut {
            self.release(*at);
        }
        self.present -= cut.len();
    }
}

/// Polls a reader's read of the file, which is begun when there is none.
pub(crate) fn poll_file(
    reading: &mut Option<Reading>,
    (file, at, length): (&Arc<OpenFile>, u64, usize),
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<Bytes>> {
    let mut under_way = reading.take().unwrap_or_else(|| read_part(file, at, length));
    let polled = poll_part(&mut under_way, cx);
    if polled.is_pending() {
        *reading = Some(under_way);
    }
    polled
}
