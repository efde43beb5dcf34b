//! Interim responses (RFC 9110 section 15.2) on their way from an origin to the one visitor whose
//! request it answers. Knows no connection on either side.

use super::outgoing;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, StatusCode};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The most interim responses to one request that are passed on; what comes after them is dropped.
const MAX_INTERIM: usize = 16;

/// An interim response: its status and fields.
pub type InterimResponse = (StatusCode, HeaderMap);

/// What is passed from an origin to a visitor before the response; cheap to clone, and nobody need
/// read it.
#[derive(Debug, Clone, Default)]
pub struct Interim(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    responses: VecDeque<InterimResponse>,
    count: usize,
    reader: Option<Waker>,
}

impl Interim {
    /// The next one that came; pending when there is none.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<InterimResponse> {
        let mut waiting = self.0.lock();
        if let Some(response) = waiting.responses.pop_front() {
            return Poll::Ready(response);
        }
        match &mut waiting.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            reader => *reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Asks hyper for the interim responses to `request`.
    pub(super) fn watch<B>(&self, request: &mut Request<B>) {
        let this = self.clone();
        hyper::ext::on_informational(request, move |response| {
            this.put(response.status(), response.headers());
        });
    }

    fn put(&self, status: StatusCode, headers: &HeaderMap) {
        // 100 is between two neighbours (RFC 9110 section 15.2.1): each front says its own.
        if status == StatusCode::CONTINUE || status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let mut waiting = self.0.lock();
        if waiting.count >= MAX_INTERIM {
            return;
        }
        waiting.count += 1;
        let mut headers = headers.clone();
        outgoing::strip_hop_by_hop(&mut headers);
        headers.remove(CONTENT_LENGTH);
        waiting.responses.push_back((status, headers));
        if let Some(reader) = waiting.reader.take() {
            drop(waiting);
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn next(interim: &Interim) -> Option<InterimResponse> {
        match interim.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(response) => Some(response),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_for_one_connection_stays_there() {
        let interim = Interim::default();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("link", "</a.css>"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        interim.put(StatusCode::CONTINUE, &headers);
        interim.put(StatusCode::EARLY_HINTS, &headers);
        let (status, passed) = next(&interim).unwrap();
        assert_eq!(status, StatusCode::EARLY_HINTS);
        assert_eq!(passed.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["link"]);
        assert!(next(&interim).is_none());
    }

    #[test]
    fn there_is_an_end_to_them() {
        let interim = Interim::default();
        for _ in 0..3 * MAX_INTERIM {
            interim.put(StatusCode::PROCESSING, &HeaderMap::new());
        }
        assert_eq!(std::iter::from_fn(|| next(&interim)).count(), MAX_INTERIM);
        interim.put(StatusCode::PROCESSING, &HeaderMap::new());
        assert!(next(&interim).is_none(), "read or not, there are no more of them");
    }
}
