//! How much content has flowed in and out of one request's guest. Counts, and holds nothing back.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::Call;
use crate::{Body, BoxError};

/// The bytes of one request's content and of its response's.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    received: AtomicU64,
    sent: AtomicU64,
    /// Content of the request is still to come, or nobody reads what was written.
    waits_for_visitor: AtomicBool,
}

impl Flow {
    /// Bytes that the response's reader has taken.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn bytes_in(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_out(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The response's reader does not come for more.
    pub(crate) fn waits_for_reader(&self) {
        self.waits_for_visitor.store(true, Ordering::Relaxed);
    }

    /// Whether it is the visitor who is waited for.
    pub(super) fn waits_for_visitor(&self) -> bool {
        self.waits_for_visitor.load(Ordering::Relaxed)
    }
}

/// A request's content, counted as the guest takes it.
pub(crate) struct Counted {
    body: Body,
    call: Arc<Call>,
}

impl Counted {
    pub(crate) fn new(body: Body, call: &Arc<Call>) -> Counted {
        call.flow.waits_for_visitor.store(!body.is_end_stream(), Ordering::Relaxed);
        Counted { body, call: Arc::clone(call) }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let flow = &self.call.flow;
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            flow.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            flow.waits_for_visitor.store(false, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
