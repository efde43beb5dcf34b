//! A request's content on its way from a connection to whoever reads it: one piece at a time, and only
//! when it is asked for, so that a slow reader slows the visitor and not the edge's memory.

use crate::body::{Body, BoxError};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Slot {
    piece: Option<Result<Bytes, BoxError>>,
    complete: bool,
    wanted: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The connection's side.
pub struct Upload(Arc<Mutex<Slot>>);

/// What the reader of an upload wants at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The next piece.
    Piece,
    /// Nothing any more: it dropped the content.
    Nothing,
}

/// An upload and the content that it feeds.
#[must_use]
pub fn pair() -> (Upload, Body) {
    let slot = Arc::new(Mutex::new(Slot::default()));
    (Upload(Arc::clone(&slot)), Reader(slot).boxed_unsync())
}

impl Upload {
    /// Waits until the reader asks for a piece, or goes away.
    pub fn poll_wish(&self, cx: &mut Context<'_>) -> Poll<Wish> {
        let mut slot = self.0.lock();
        if slot.reader_gone {
            return Poll::Ready(Wish::Nothing);
        }
        if slot.wanted && slot.piece.is_none() {
            return Poll::Ready(Wish::Piece);
        }
        slot.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Hands a piece over.
    pub fn give(&self, piece: Bytes) {
        self.put(|slot| slot.piece = Some(Ok(piece)));
    }

    /// The content is complete.
    pub fn complete(&self) {
        self.put(|slot| slot.complete = true);
    }

    /// The content will never be complete.
    pub fn fail(&self, error: BoxError) {
        self.put(|slot| {
            slot.piece = Some(Err(error));
            slot.complete = true;
        });
    }

    fn put(&self, change: impl FnOnce(&mut Slot)) {
        let mut slot = self.0.lock();
        change(&mut slot);
        slot.wanted = false;
        if let Some(reader) = slot.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        if !slot.complete && slot.piece.is_none() {
            slot.piece = Some(Err("the visitor went away".into()));
            slot.complete = true;
        }
        if let Some(reader) = slot.reader.take() {
            reader.wake();
        }
    }
}

struct Reader(Arc<Mutex<Slot>>);

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut slot = self.0.lock();
        if let Some(piece) = slot.piece.take() {
            return Poll::Ready(Some(piece.map(Frame::data)));
        }
        if slot.complete {
            return Poll::Ready(None);
        }
        slot.wanted = true;
        slot.reader = Some(cx.waker().clone());
        if let Some(writer) = slot.writer.take() {
            writer.wake();
        }
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        slot.reader_gone = true;
        if let Some(writer) = slot.writer.take() {
            writer.wake();
        }
    }
}
