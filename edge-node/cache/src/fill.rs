//! One fetch of the source and everybody who reads it: a buffer that grows, streamed to all while it
//! arrives. Knows what arrived and who has read it; may not decide what is stored or served.

use crate::api::{BoxError, SourceError};
use crate::buffer::{self, Buffer, Keeping, Next};
use crate::error::BodyError;
use crate::fields::Fields;
use crate::freshness::Judgement;
use crate::key::{Key, KeyRef};
use crate::object::{Span, StoredObject};
use crate::open_file::OpenFile;
use crate::slices::Asked;
use crate::tags::Tags;
use crate::vary::Selection;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use parking_lot::Mutex;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, watch};

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
    Object(StoredObject, Answer),
    /// The source failed.
    Failed(Arc<SourceError>),
}

/// Why a stored response answers a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The source confirmed it with a 304.
    Revalidated {
        /// Whether the store has it as it was confirmed.
        stored: bool,
    },
    /// The source failed, with this status if it answered at all, and stale is allowed.
    StaleIfError(Option<StatusCode>),
}

/// A response's header section and what was decided on it.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    /// The status that the source sent: another one where parts of a representation make the whole.
    pub(crate) source_status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) judgement: Judgement,
    pub(crate) selection: Option<Selection>,
    pub(crate) tags: Tags,
    /// Which bytes of the representation the content is; `None` when it is all of them.
    pub(crate) span: Option<Span>,
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
    pub(crate) key: Arc<Key>,
    /// The fields of the request that it was started for: they select the variant.
    pub(crate) request: HeaderMap,
    /// Whether others may join before its header section is in.
    pub(crate) collapses: bool,
    /// The part that the source is asked for; all of the representation when there is none.
    asked: Option<Asked>,
    epoch: AtomicU64,
    doomed: AtomicBool,
    progress: watch::Sender<Progress>,
    buffer: Mutex<Buffer>,
    /// The producer waits here for room, and for the last reader to leave.
    stirred: Notify,
}

/// One reader of a fill; the fill knows of it as long as it exists.
pub(crate) struct Reader {
    fill: Arc<Fill>,
    slot: usize,
    reading: Option<buffer::Reading>,
}

// === impl Fill ===

impl Fill {
    pub(crate) fn new(
        key: Arc<Key>,
        request: HeaderMap,
        (collapses, asked): (bool, Option<Asked>),
        epoch: u64,
    ) -> Arc<Fill> {
        Arc::new(Fill {
            key,
            request,
            collapses,
            asked,
            epoch: AtomicU64::new(epoch),
            doomed: AtomicBool::new(false),
            progress: watch::channel(Progress::Waiting).0,
            buffer: Mutex::new(Buffer::default()),
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
        (asked, asked_anew): (Option<&Asked>, bool),
    ) -> bool {
        // What asks for all of it also serves those who want a part.
        if self.asked.is_some() && self.asked.as_ref() != asked {
            return false;
        }
        if !self.collapses || self.is_doomed() || self.epoch() != epoch || !self.key.is(key) {
            return false;
        }
        match &*self.progress.borrow() {
            Progress::Head(_) | Progress::Object(..) if asked_anew => false,
            Progress::Waiting => hint.is_none_or(|hint| hint.matches(&self.request)),
            Progress::Head(head) => head.takes(headers),
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
    pub(crate) fn reader(self: &Arc<Self>) -> Option<Reader> {
        let slot = self.buffer.lock().enter(0)?;
        Some(Reader { fill: Arc::clone(self), slot, reading: None })
    }

    pub(crate) fn readers(&self) -> usize {
        self.buffer.lock().readers()
    }

    /// The content that comes begins at `start` of the representation.
    pub(crate) fn starts_at(&self, start: u64) {
        self.buffer.lock().starts_at(start);
    }

    /// From now on less is kept than all.
    pub(crate) fn keep(&self, keeping: Keeping) {
        self.buffer.lock().keep(keeping);
    }

    /// Adds content; returns the offset behind it.
    /// The `last` of it is read when it is let out, with the end.
    pub(crate) fn push(&self, data: Bytes, last: bool) -> u64 {
        let mut buffer = self.buffer.lock();
        buffer.hold(last);
        buffer.push(data)
    }

    /// What is not in a file yet.
    pub(crate) fn unwritten(&self) -> Vec<Bytes> {
        self.buffer.lock().unwritten()
    }

    /// A file has everything up to `written`.
    pub(crate) fn is_in_file(&self, file: Arc<OpenFile>, written: u64) {
        self.buffer.lock().is_in_file(file, written);
    }

    /// No more content.
    pub(crate) fn finish(&self, end: Result<(), BodyError>) {
        self.buffer.lock().finish(end);
    }

    /// All the content, where it was kept.
    pub(crate) fn pieces(&self) -> Vec<Bytes> {
        self.buffer.lock().pieces()
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
        self.buffer.lock().is_full()
    }
}

// === impl Head ===

impl Head {
    /// Whether it may answer another request with these fields.
    pub(crate) fn takes(&self, request: &HeaderMap) -> bool {
        self.shared && self.selection.as_ref().is_none_or(|selection| selection.matches(request))
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

    /// Goes on from `at` rather than from the first byte that comes.
    pub(crate) fn seek(&mut self, at: u64) -> bool {
        let mut buffer = self.fill.buffer.lock();
        buffer.leave(self.slot);
        match buffer.enter(at) {
            Some(slot) => {
                self.slot = slot;
                true
            }
            None => {
                // The place is given back when the reader goes.
                self.slot = buffer.enter_cut();
                false
            }
        }
    }

    /// All the content as one piece, when it has come already and is not long.
    pub(crate) fn complete(&self) -> Option<Bytes> {
        let buffer = self.fill.buffer.lock();
        if !buffer.is_complete() || buffer.bytes() > MAX_JOINED_BYTES {
            return None;
        }
        match buffer.pieces().as_slice() {
            [] => Some(Bytes::new()),
            [only] => Some(only.clone()),
            pieces => Some(pieces.concat().into()),
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut buffer = self.fill.buffer.lock();
        let next = buffer.next(self.slot, cx);
        drop(buffer);
        Poll::Ready(match next {
            Next::NotYet => return Poll::Pending,
            Next::End => None,
            Next::Failed(error) => Some(Err(error)),
            Next::Data(data) => {
                self.fill.stirred.notify_one();
                Some(Ok(data))
            }
            Next::InFile(file, at, length) => {
                match std::task::ready!(buffer::poll_file(
                    &mut self.reading,
                    (&file, at, length),
                    cx
                )) {
                    Ok(data) => {
                        self.fill.buffer.lock().got(self.slot, data.len() as u64);
                        Some(Ok(data))
                    }
                    Err(error) => Some(Err(BodyError::Disk(Arc::new(error)))),
                }
            }
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.buffer.lock().leave(self.slot);
        self.fill.stirred.notify_one();
    }
}

/// A reader as a body: all of the content, or the bytes of one range.
pub(crate) struct Reading {
    reader: Reader,
    /// Bytes to be given; `None` is all.
    take: Option<u64>,
    /// After an error or the end there is nothing more.
    done: bool,
}

impl Reading {
    /// The bytes of the representation from `start` to `end`, both included, or all that come.
    pub(crate) fn new(mut reader: Reader, part: Option<(u64, u64)>) -> Reading {
        let take = part.map(|(start, end)| {
            reader.seek(start);
            end.saturating_sub(start) + 1
        });
        Reading { reader, take, done: false }
    }

    /// The part of `data` that is wanted.
    fn cut(&mut self, mut data: Bytes) -> Bytes {
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt;
    use std::sync::Arc;

    fn fill() -> Arc<Fill> {
        Fill::new(Arc::new(Key::at("/")), HeaderMap::new(), (true, None), 0)
    }

    fn next(reader: &mut Reader) -> Option<Option<Result<Bytes, BodyError>>> {
        std::future::poll_fn(|cx| reader.poll_chunk(cx)).now_or_never()
    }

    fn bytes(fill: &Fill) -> usize {
        fill.buffer.lock().bytes()
    }

    #[test]
    fn a_body_that_is_not_kept_holds_only_what_somebody_has_yet_to_read() {
        let fill = fill();
        let (mut fast, mut slow) = (fill.reader().unwrap(), fill.reader().unwrap());
        fill.keep(Keeping::Unread);
        fill.push("one".into(), false);
        fill.push("two".into(), false);
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
        let (mut fast, mut slow) = (fill.reader().unwrap(), fill.reader().unwrap());
        fill.keep(Keeping::Unread);
        fill.push("one".into(), false);
        // Nobody is ahead: nobody is cut off.
        fill.buffer.lock().cut_slowest();
        assert_eq!(fill.readers(), 2);
        assert!(matches!(next(&mut fast), Some(Some(Ok(_)))));
        fill.buffer.lock().cut_slowest();
        assert!(matches!(next(&mut slow), Some(Some(Err(BodyError::TooSlow)))));
        assert_eq!((bytes(&fill), fill.readers()), (0, 1));
        drop(slow);
        assert_eq!(fill.readers(), 1);
        fill.push("two".into(), false);
        assert!(matches!(next(&mut fast), Some(Some(Ok(data))) if data == "two"));
    }

    #[test]
    fn a_place_is_used_again_by_the_next_reader() {
        let fill = fill();
        for _ in 0..100 {
            drop(fill.reader().unwrap());
        }
        let places = fill.buffer.lock().places();
        assert_eq!((places, fill.readers()), (1, 0));
    }
}
