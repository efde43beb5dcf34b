//! The content of a guest's outgoing request. Whoever sends it may stop reading at any time, and the
//! guest must not take that for a failure of the fetch, whose response is what counts.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use wasmtime_wasi_http::WasiBody;

use crate::{Body, BoxError};

/// How long the first piece of content is waited for where there is hardly ever any.
const PEEK: Duration = Duration::from_millis(50);

/// Makes the request that the host sends. A guest's library opens a body for every request; where the
/// method has no use for one (RFC 9110 section 9.3) it is looked at first, so that an empty one is
/// known to be empty and the request goes out without content.
pub(super) async fn prepare(request: Request<WasiBody>) -> Request<Body> {
    let (parts, mut body) = request.into_parts();
    let has_no_use = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let mut first = None;
    if has_no_use && !parts.headers.contains_key(CONTENT_LENGTH) {
        match tokio::time::timeout(PEEK, body.frame()).await {
            Ok(None) => return Request::from_parts(parts, empty()),
            Ok(Some(frame)) => first = Some(frame.map_err(BoxError::from)),
            Err(_) => {}
        }
    }
    if first.is_none() && body.is_end_stream() {
        return Request::from_parts(parts, empty());
    }
    let upload = Upload { first, body: Some(body) };
    Request::from_parts(parts, upload.boxed_unsync())
}

fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Content that is read to its end in any case: by its reader, or once that is gone, for nothing. The
/// guest's end closes with the guest, so this outlives it by nothing.
struct Upload {
    first: Option<Result<Frame<Bytes>, BoxError>>,
    body: Option<WasiBody>,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.body = None;
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(None | Some(Err(_))) = Pin::new(&mut body).poll_frame(&mut context) {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
        }
    }
}
