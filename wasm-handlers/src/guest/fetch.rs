//! A guest's outgoing requests: counted, queued, timed, and handed to the edge. No connection is ever
//! opened from here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpHooks,
};

use super::{Call, upload};
use crate::host::FetchError;
use crate::settings::limits;
use crate::{Body, BoxError};

/// The hooks of one request's guest.
pub(super) struct Hooks {
    call: Arc<Call>,
    turns: Option<Arc<Semaphore>>,
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Io), Error>;

impl Hooks {
    pub(super) fn new(call: Arc<Call>) -> Hooks {
        Hooks { call, turns: None }
    }
}

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let call = Arc::clone(&self.call);
        let most = call.limits.fetches;
        let so_far = call.fetches.fetch_add(1, Ordering::Relaxed);
        if so_far >= most {
            if so_far == most {
                call.note(format!("fetch refused: {}", FetchError::TooMany(most)));
            }
            return Box::new(std::future::ready(Err(Error::ConnectionLimitReached)));
        }
        let turns =
            self.turns.get_or_insert_with(|| Arc::new(Semaphore::new(limits::CONCURRENT_FETCHES)));
        let turns = Arc::clone(turns);
        Box::new(async move {
            // Held until the head is there and no longer: a guest that keeps bodies unread must not
            // lock itself out. The semaphore is never closed.
            let _turn = turns.acquire_owned().await;
            send(&call, request, options.unwrap_or_default()).await
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        limits::BODY_CHUNK_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        limits::BODY_CHUNK_BYTES
    }
}

async fn send(call: &Call, request: Request<WasiBody>, options: RequestOptions) -> Sent {
    let deadline = Instant::from_std(call.deadline());
    let wanted = match (options.connect_timeout, options.first_byte_timeout) {
        (None, None) => None,
        (connect, first_byte) => {
            let sum = connect.unwrap_or_default().checked_add(first_byte.unwrap_or_default());
            sum.and_then(|wait| Instant::now().checked_add(wait))
        }
    };
    let until = wanted.map_or(deadline, |wanted| wanted.min(deadline));
    let fetch = async { call.host.fetch(upload::prepare(request).await).await };
    match tokio::time::timeout_at(until, fetch).await {
        Ok(Ok(response)) => {
            let pause = options.between_bytes_timeout.unwrap_or(call.limits.wall);
            let response = response.map(|body| Timed::new(body, pause).boxed_unsync());
            Ok((response, Box::new(std::future::ready(Ok(())))))
        }
        Ok(Err(error)) => {
            call.note(format!("fetch failed: {error}"));
            Err(to_wasi(error))
        }
        Err(_) => {
            call.note("fetch failed: no response in time".into());
            Err(Error::HttpResponseTimeout)
        }
    }
}

/// What the guest is told: the kind, not the reason.
fn to_wasi(error: FetchError) -> Error {
    match error {
        FetchError::Refused(_) => Error::HttpRequestDenied,
        FetchError::Dns(_) => Error::DnsError { rcode: None, info_code: None },
        FetchError::Connect(_) => Error::ConnectionRefused,
        FetchError::Timeout => Error::HttpResponseTimeout,
        FetchError::Protocol(_) => Error::HttpProtocolError,
        FetchError::BadRequest(_) => Error::HttpRequestUriInvalid,
        FetchError::Loop => Error::LoopDetected,
        FetchError::TooMany(_) | FetchError::TooManyRuns(_) => Error::ConnectionLimitReached,
        FetchError::Internal(_) => Error::InternalError(None),
    }
}

/// A response's content, with a limit on each pause in it.
struct Timed {
    body: Body,
    pause: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    fn new(body: Body, pause: Duration) -> Timed {
        Timed { body, pause, sleep: None }
    }
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.sleep = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        let pause = this.pause;
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        sleep.as_mut().poll(context).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Content that broke off, as a guest is told of it.
pub(super) fn broken(_: BoxError) -> Error {
    Error::HttpResponseIncomplete
}
