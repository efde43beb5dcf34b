//! One fetch of the source and everybody who reads it: a buffer that grows, streamed to all while it
//! arrives. Knows what arrived and who has read it; may not decide what is stored or served.

use crate::api::{BoxError, SourceError};
use crate::error::BodyError;
use crate::freshness::Judgement;
use crate::key::{Key, KeyRef};
use crate::object::{Fields, StoredObject};
use crate::tags::Tags;
use crate::vary::Selection;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How far the fastest reader of a body that is not kept may be ahead of the slowest, in bytes.
pub(crate) const WINDOW_BYTES: usize = 1024 * 1024;
/// The longest content that is joined for one reader.
const MAX_JOINED_BYTES: usize = 64 * 1024;
/// How long the slowest of several readers may hold the others up before it is cut off.
const STALL: Duration = Duration::from_secs(10);

/// What a fill has come to.
#[derive(Clone)]
pub(crate) enum Progress {
    /// The source has not answered yet.
    Waiting,
    /// The source's header section is in; the content follows.
    Head(Arc<Head>),
    /// A stored response answers.
    Object(Arc<StoredObject>, Answer),
    /// The source failed.
    Failed(Arc<SourceError>),
}

/// Why a stored response answers a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The source confirmed it with a 304.
    Revalidated,
    /// The source failed, with this status if it answered at all, and stale is allowed.
    StaleIfError(Option<StatusCode>),
}

/// A response's header section and what was decided on it.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) judgement: Judgement,
    pub(crate) selection: Option<Selection>,
    pub(crate) tags: Tags,
    /// The content's length, where the source declared it.
    pub(crate) length: Option<u64>,
    /// Whether it may answer others than the request that asked for it.
    pub(crate) shared: bool,
    /// Whether it is about to be stored.
    pub(crate) stored: bool,
    /// Not stored for its length alone.
    pub(crate) too_large: bool,
}

/// One fetch.
pub(crate) struct Fill {
    pub(crate) key: Key,
    /// The fields of the request that it was started for: they select the variant.
    pub(crate) request: HeaderMap,
    /// Whether others may join before its header section is in.
    pub(crate) collapses: bool,
    epoch: AtomicU64,
    doomed: AtomicBool,
    progress: watch::Sender<Progress>,
    buffer: Mutex<Buffer>,
    /// The producer waits here for room, and for the last reader to leave.
    stirred: Notify,
}

#[derive(Default)]
struct Buffer {
    chunks: VecDeque<Chunk>,
    /// The number of the first chunk that is still here.
    first: u64,
    bytes: usize,
    received: u64,
    /// Chunks stay after everybody has read them.
    kept: bool,
    end: Option<Result<(), BodyError>>,
    readers: Vec<Option<Place>>,
    /// Places in `readers` that are vacant.
    vacant: Vec<usize>,
    present: usize,
}

struct Chunk {
    data: Bytes,
    /// Readers who have not had it yet.
    unread: usize,
}

#[derive(Default)]
struct Place {
    next: u64,
    waker: Option<Waker>,
    cut: bool,
}

/// One reader of a fill; the fill knows of it as long as it exists.
pub(crate) struct Reader {
    fill: Arc<Fill>,
    slot: usize,
}

// === impl Fill ===

impl Fill {
    pub(crate) fn new(key: Key, request: HeaderMap, collapses: bool, epoch: u64) -> Arc<Fill> {
        Arc::new(Fill {
            key,
            request,
            collapses,
            epoch: AtomicU64::new(epoch),
            doomed: AtomicBool::new(false),
            progress: watch::channel(Progress::Waiting).0,
            buffer: Mutex::new(Buffer { kept: true, ..Buffer::default() }),
            stirred: Notify::new(),
        })
    }

    /// Whether a request of `epoch` that selects like `headers` may join. One that was `asked_anew` by
    /// its visitor takes only what the source has not answered yet.
    pub(crate) fn takes(
        &self,
        key: &KeyRef<'_>,
        headers: &HeaderMap,
        epoch: u64,
        hint: Option<&Selection>,
        asked_anew: bool,
    ) -> bool {
        if !self.collapses || self.is_doomed() || self.epoch() != epoch || !self.key.is(key) {
            return false;
        }
        match &*self.progress.borrow() {
            Progress::Head(_) | Progress::Object(..) if asked_anew => false,
            Progress::Waiting => hint.is_none_or(|hint| hint.matches(&self.request)),
            Progress::Head(head) => head.takes(headers) && self.is_whole(),
            Progress::Object(object, _) => object.selected_by(headers),
            Progress::Failed(_) => false,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The source is asked anew, after a purge.
    pub(crate) fn set_epoch(&self, applied: u64) {
        self.epoch.store(applied, Ordering::Release);
    }

    /// Its response may not be stored: the URI was invalidated after it was sent.
    pub(crate) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Acquire)
    }

    pub(crate) fn publish(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Waiting)
    }

    /// A new reader, from the first byte on.
    pub(crate) fn reader(self: &Arc<Self>) -> Reader {
        let mut buffer = self.buffer.lock();
        buffer.present += 1;
        for chunk in &mut buffer.chunks {
            chunk.unread += 1;
        }
        let place = Place { next: buffer.first, ..Place::default() };
        let slot = buffer.vacant.pop().unwrap_or(buffer.readers.len());
        match buffer.readers.get_mut(slot) {
            Some(vacant) => *vacant = Some(place),
            None => buffer.readers.push(Some(place)),
        }
        Reader { fill: Arc::clone(self), slot }
    }

    /// Nothing of it has been dropped yet.
    fn is_whole(&self) -> bool {
        self.buffer.lock().first == 0
    }

    pub(crate) fn readers(&self) -> usize {
        self.buffer.lock().present
    }

    /// From now on what everybody has read is dropped.
    pub(crate) fn stop_keeping(&self) {
        let mut buffer = self.buffer.lock();
        buffer.kept = false;
        buffer.trim();
    }

    /// Adds content; returns how much has come so far.
    pub(crate) fn push(&self, data: Bytes) -> u64 {
        let mut buffer = self.buffer.lock();
        buffer.received += data.len() as u64;
        let received = buffer.received;
        if data.is_empty() {
            return received;
        }
        buffer.bytes += data.len();
        let unread = buffer.present;
        buffer.chunks.push_back(Chunk { data, unread });
        buffer.trim();
        buffer.wake();
        received
    }

    /// No more content.
    pub(crate) fn finish(&self, end: Result<(), BodyError>) {
        let mut buffer = self.buffer.lock();
        if buffer.end.is_none() {
            buffer.end = Some(end);
        }
        buffer.wake();
    }

    /// All the content as one piece, where it was kept.
    pub(crate) fn whole(&self) -> Bytes {
        let buffer = self.buffer.lock();
        let mut whole = Vec::with_capacity(buffer.bytes);
        for chunk in &buffer.chunks {
            whole.extend_from_slice(&chunk.data);
        }
        whole.into()
    }

    /// Waits until there are no readers.
    pub(crate) async fn deserted(&self) {
        while self.readers() > 0 {
            self.stirred.notified().await;
        }
    }

    /// Waits until a body that is not kept has room, cutting off readers that hold others up too long.
    pub(crate) async fn room(&self) {
        while self.is_full() {
            if tokio::time::timeout(STALL, self.stirred.notified()).await.is_err() {
                self.buffer.lock().cut_slowest();
            }
        }
    }

    fn is_full(&self) -> bool {
        let buffer = self.buffer.lock();
        !buffer.kept && buffer.bytes > WINDOW_BYTES && buffer.present > 0
    }
}

// === impl Head ===

impl Head {
    /// Whether it may answer another request with these fields.
    pub(crate) fn takes(&self, request: &HeaderMap) -> bool {
        self.shared && self.selection.as_ref().is_none_or(|selection| selection.matches(request))
    }
}

// === impl Buffer ===

impl Buffer {
    fn wake(&mut self) {
        for place in self.readers.iter_mut().flatten() {
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
        }
    }

    /// Drops what everybody has read.
    fn trim(&mut self) {
        while !self.kept {
            match self.chunks.front() {
                Some(chunk) if chunk.unread == 0 => {
                    self.bytes -= chunk.data.len();
                    self.first += 1;
                    self.chunks.pop_front();
                }
                _ => break,
            }
        }
    }

    /// Marks everything from chunk `next` on as read by one reader that is leaving.
    fn release(&mut self, next: u64) {
        let skip = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for chunk in self.chunks.iter_mut().skip(skip) {
            chunk.unread = chunk.unread.saturating_sub(1);
        }
        self.trim();
    }

    /// The readers that have not even read the first chunk lose their place, if others have.
    fn cut_slowest(&mut self) {
        let first = self.first;
        let others = self.readers.iter().flatten().any(|place| !place.cut && place.next > first);
        if !others {
            return;
        }
        let mut cut = 0;
        for place in self.readers.iter_mut().flatten() {
            if !place.cut && place.next == first {
                place.cut = true;
                cut += 1;
                if let Some(waker) = place.waker.take() {
                    waker.wake();
                }
            }
        }
        for _ in 0..cut {
            self.release(first);
        }
        self.present -= cut;
    }
}

// === impl Reader ===

impl Reader {
    /// Waits for the answer, or at least its header section.
    pub(crate) async fn progress(&self) -> Progress {
        let mut watched = self.fill.progress.subscribe();
        let progress = watched.wait_for(|progress| !matches!(progress, Progress::Waiting)).await;
        match progress {
            Ok(progress) => progress.clone(),
            // The sender lives in the fill, which this reader keeps.
            Err(_) => Progress::Failed(Arc::new(Box::new(BodyError::Abandoned))),
        }
    }

    /// All the content as one piece, when it has come already and is not long.
    pub(crate) fn complete(&self) -> Option<Bytes> {
        let buffer = self.fill.buffer.lock();
        if buffer.first > 0 || !matches!(buffer.end, Some(Ok(()))) {
            return None;
        }
        match (buffer.chunks.front(), buffer.chunks.len()) {
            (None, _) => Some(Bytes::new()),
            (Some(only), 1) => Some(only.data.clone()),
            _ if buffer.bytes > MAX_JOINED_BYTES => None,
            _ => {
                let mut whole = Vec::with_capacity(buffer.bytes);
                buffer.chunks.iter().for_each(|chunk| whole.extend_from_slice(&chunk.data));
                Some(whole.into())
            }
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut buffer = self.fill.buffer.lock();
        let buffer = &mut *buffer;
        let Some(Some(place)) = buffer.readers.get_mut(self.slot) else { return Poll::Ready(None) };
        if place.cut {
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        }
        let at = usize::try_from(place.next.saturating_sub(buffer.first)).unwrap_or(usize::MAX);
        if let Some(chunk) = buffer.chunks.get_mut(at) {
            place.next += 1;
            chunk.unread = chunk.unread.saturating_sub(1);
            let data = chunk.data.clone();
            if at == 0 && !buffer.kept {
                buffer.trim();
                self.fill.stirred.notify_one();
            }
            return Poll::Ready(Some(Ok(data)));
        }
        match &buffer.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error.clone()))),
            None => {
                place.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut buffer = self.fill.buffer.lock();
        let place = buffer.readers.get_mut(self.slot).and_then(Option::take);
        buffer.vacant.push(self.slot);
        if let Some(place) = place.filter(|place| !place.cut) {
            buffer.present -= 1;
            buffer.release(place.next);
        }
        drop(buffer);
        self.fill.stirred.notify_one();
    }
}

/// A reader as a body: all of the content, or the bytes of one range.
pub(crate) struct Reading {
    reader: Reader,
    /// Bytes to be passed over.
    skip: u64,
    /// Bytes to be given after them; `None` is all.
    take: Option<u64>,
    /// After an error or the end there is nothing more.
    done: bool,
}

impl Reading {
    pub(crate) fn new(reader: Reader, part: Option<(u64, u64)>) -> Reading {
        let (skip, take) = match part {
            Some((start, end)) => (start, Some(end.saturating_sub(start) + 1)),
            None => (0, None),
        };
        Reading { reader, skip, take, done: false }
    }

    /// The part of `data` that is wanted.
    fn cut(&mut self, mut data: Bytes) -> Bytes {
        let passed = usize::try_from(self.skip).unwrap_or(usize::MAX).min(data.len());
        self.skip -= passed as u64;
        let mut data = data.split_off(passed);
        if let Some(take) = &mut self.take {
            data.truncate(usize::try_from(*take).unwrap_or(usize::MAX));
            *take -= data.len() as u64;
        }
        data
    }
}

impl http_body::Body for Reading {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if self.done || self.take == Some(0) {
                return Poll::Ready(None);
            }
            match self.reader.poll_chunk(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    self.done = true;
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(Box::new(error))));
                }
                Poll::Ready(Some(Ok(data))) => {
                    let data = self.cut(data);
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::sync::Arc;
    use verge_config::site::CachePolicy;

    fn fill() -> Arc<Fill> {
        let key = Key {
            site: "s".into(),
            scheme: "http".into(),
            host: "h".into(),
            path: "/".into(),
            query: None,
            kind: 0,
            policy: Arc::new(CachePolicy::default()),
        };
        Fill::new(key, HeaderMap::new(), true, 0)
    }

    fn next(reader: &mut Reader) -> Option<Option<Result<Bytes, BodyError>>> {
        std::future::poll_fn(|cx| reader.poll_chunk(cx)).now_or_never()
    }

    fn bytes(fill: &Fill) -> usize {
        fill.buffer.lock().bytes
    }

    #[test]
    fn a_body_that_is_not_kept_holds_only_what_somebody_has_yet_to_read() {
        let fill = fill();
        let (mut fast, mut slow) = (fill.reader(), fill.reader());
        fill.stop_keeping();
        fill.push("one".into());
        fill.push("two".into());
        assert!(matches!(next(&mut fast), Some(Some(Ok(data))) if data == "one"));
        assert!(matches!(next(&mut fast), Some(Some(Ok(data))) if data == "two"));
        assert!(next(&mut fast).is_none(), "no more yet");
        assert_eq!(bytes(&fill), 6);
        assert!(matches!(next(&mut slow), Some(Some(Ok(data))) if data == "one"));
        assert_eq!(bytes(&fill), 3);
        // Who leaves holds nothing.
        drop(slow);
        assert_eq!((bytes(&fill), fill.readers()), (0, 1));
        fill.finish(Ok(()));
        assert!(matches!(next(&mut fast), Some(None)));
    }

    #[test]
    fn only_those_who_hold_others_up_are_cut_off() {
        let fill = fill();
        let (mut fast, mut slow) = (fill.reader(), fill.reader());
        fill.stop_keeping();
        fill.push("one".into());
        // Nobody is ahead: nobody is cut off.
        fill.buffer.lock().cut_slowest();
        assert_eq!(fill.readers(), 2);
        assert!(matches!(next(&mut fast), Some(Some(Ok(_)))));
        fill.buffer.lock().cut_slowest();
        assert!(matches!(next(&mut slow), Some(Some(Err(BodyError::TooSlow)))));
        assert_eq!((bytes(&fill), fill.readers()), (0, 1));
        drop(slow);
        assert_eq!(fill.readers(), 1);
        fill.push("two".into());
        assert!(matches!(next(&mut fast), Some(Some(Ok(data))) if data == "two"));
    }

    #[test]
    fn a_place_is_used_again_by_the_next_reader() {
        let fill = fill();
        for _ in 0..100 {
            drop(fill.reader());
        }
        let places = fill.buffer.lock().readers.len();
        assert_eq!((places, fill.readers()), (1, 0));
    }
}
