//! A handler behind another, in a task of its own: what it computes is not counted as the other's time,
//! and it goes on while the other waits for something else. Holds one piece of its content at most, and
//! never ends cleanly what broke off. Knows neither sites nor requests.

use crate::body::{self, Body, BoxError};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::Response;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use verge_handlers::Ended;

/// A piece of content, or its end.
type Piece = Option<Result<Frame<Bytes>, BoxError>>;

/// Runs a handler in a task of its own; dropping the future or the content stops it.
pub(super) async fn run(
    work: BoxFuture<'static, Result<Response<Body>, Ended>>,
) -> Result<Response<Body>, Ended> {
    let (answer, head) = oneshot::channel();
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let (parts, content) = match work.await {
            Ok(response) => response.into_parts(),
            Err(ended) => {
                let _ = answer.send(Err(ended));
                return;
            }
        };
        let (pieces, reader) = mpsc::channel(1);
        let reader = (!content.is_end_stream()).then_some(reader);
        if answer.send(Ok((parts, reader))).is_ok() {
            pass_on(content, pieces).await;
        }
    }));
    let gone = |_| Ended::Internal("the task of a handler behind another is gone".to_owned());
    let (parts, reader) = head.await.map_err(gone)??;
    let content = match reader {
        Some(pieces) => Apart { pieces, is_over: false, _task: task }.boxed_unsync(),
        None => body::empty(),
    };
    Ok(Response::from_parts(parts, content))
}

/// Moves content on as its reader takes it, with word of its end.
async fn pass_on(mut content: Body, pieces: mpsc::Sender<Piece>) {
    loop {
        let piece = content.frame().await;
        let is_last = !matches!(piece, Some(Ok(_)));
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

/// The content of a handler that runs elsewhere.
struct Apart {
    pieces: mpsc::Receiver<Piece>,
    is_over: bool,
    _task: AbortOnDropHandle<()>,
}

impl http_body::Body for Apart {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        // A task that is gone without a word of the end has not come to it.
        let piece = ready!(self.pieces.poll_recv(context));
        let piece = piece.unwrap_or_else(|| Some(Err("the content broke off".into())));
        self.is_over = !matches!(piece, Some(Ok(_)));
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::{FutureExt, StreamExt, stream};
    use http_body_util::StreamBody;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Content of these pieces, and how many of them were taken.
    fn counted(pieces: Vec<Result<Frame<Bytes>, BoxError>>) -> (Body, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let pieces = stream::iter(pieces).inspect(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        (BodyExt::boxed_unsync(StreamBody::new(pieces)), taken)
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    async fn content(body: Body) -> Body {
        let work = async move { Ok(Response::new(body)) };
        run(work.boxed()).await.unwrap().into_body()
    }

    #[tokio::test]
    async fn content_and_trailers_come_through_as_they_are_asked_for() {
        let trailers = http::HeaderMap::from_iter([(
            http::header::ETAG,
            http::HeaderValue::from_static("\"x\""),
        )]);
        let mut pieces: Vec<_> = (0..100).map(|_| data("ab")).collect();
        pieces.push(Ok(Frame::trailers(trailers.clone())));
        let (body, taken) = counted(pieces);
        let mut content = content(body).await;
        assert!(content.frame().await.unwrap().unwrap().is_data());
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        // The one that was read, one that waits, and one on its way.
        assert!(taken.load(Ordering::SeqCst) <= 3, "{taken:?}");
        let rest = content.collect().await.unwrap();
        assert_eq!(rest.trailers(), Some(&trailers));
        assert_eq!(rest.to_bytes().len(), 198);
    }

    #[tokio::test]
    async fn what_breaks_off_never_looks_whole() {
        let (body, _) = counted(vec![data("ab"), Err("broken".into())]);
        assert!(content(body).await.collect().await.is_err());
        // Nor does what its task never came to the end of.
        let pieces = stream::once(async { data("ab") }).chain(stream::once(async { panic!("x") }));
        let mut content = content(BodyExt::boxed_unsync(StreamBody::new(pieces))).await;
        assert!(content.frame().await.unwrap().is_ok());
        assert!(content.frame().await.unwrap().is_err());
        assert!(content.frame().await.is_none());
    }

    #[tokio::test]
    async fn whoever_lets_go_of_the_answer_stops_the_work() {
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let work = async move {
            let _held = held;
            std::future::pending().await
        };
        assert!(run(work.boxed()).now_or_never().is_none());
        let held = Arc::clone(&alive);
        let pieces = stream::once(async { data("ab") }).chain(stream::once(async move {
            let _held = held;
            std::future::pending().await
        }));
        let mut content = content(BodyExt::boxed_unsync(StreamBody::new(pieces))).await;
        assert!(content.frame().await.unwrap().is_ok());
        drop(content);
        while Arc::strong_count(&alive) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_end_without_a_response_is_told() {
        let work = async { Err(Ended::NoResponse) };
        assert_eq!(run(work.boxed()).await.unwrap_err(), Ended::NoResponse);
    }
}
