//! A whole response made of a stored part and the bytes that are missing (RFC 9111 sections 3.3 and 3.4):
//! when that is worth while, what the source is asked for, and whether its answer fits. It decides on
//! neither freshness nor storing: what it makes is a 200 like any other.

use crate::api::SourceResponse;
use crate::cache::Inner;
use crate::conditional;
use crate::fetch::{Exchange, Job, declared_length, empty};
use crate::fields::{merge, with_date};
use crate::lookup::{Ask, Lookup, weigh};
use crate::object::{Epoch, StoredObject};
use crate::purge_index::Verdict;
use crate::range::{ContentRange, Part};
use crate::slices::{Available, chain};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full};

/// A part is worth completing when it is at least the n-th part of the whole. A source that refuses is
/// asked twice, and its visitors wait for both answers: what is saved has to make up for that.
const WORTH_ONE_OF: u64 = 8;

/// A stored part that begins with the first byte, and what is missing of it.
#[derive(Debug, Clone)]
pub(crate) struct Completion {
    part: StoredObject,
    /// Its strong validator.
    of: HeaderValue,
    /// The first byte that is missing.
    from: u64,
    /// The length of the whole.
    total: u64,
}

/// What became of the source's answer to the request for what is missing.
pub(crate) enum Completed {
    /// It is to be taken as it is: the two together, or an answer that stands for itself.
    Answer(Box<Exchange>),
    /// It does not fit what is stored, which is gone: all of it is to be asked for.
    Unfit,
}

// === impl Completion ===

impl Completion {
    /// The completion of a stored part, where it has one.
    fn of(part: &StoredObject) -> Option<Completion> {
        let Available { start, len, total } = Available::of(part);
        let total = total.filter(|total| *total <= len.saturating_mul(WORTH_ONE_OF))?;
        if part.span.is_none() || start != 0 || len >= total {
            return None;
        }
        let of = conditional::strong_validator(&part.headers())?;
        Some(Completion { part: part.clone(), of, from: len, total })
    }

    /// When the part was fetched, in the order of purges.
    pub(crate) fn epoch(&self) -> Epoch {
        self.part.epoch
    }

    /// Asks for what is missing, or else for all of what there is by now.
    fn put(&self, headers: &mut HeaderMap) {
        let range = HeaderValue::try_from(format!("bytes={}-", self.from));
        headers.insert(RANGE, range.unwrap_or_else(|_| HeaderValue::from_static("bytes=0-")));
        headers.insert(IF_RANGE, self.of.clone());
    }

    /// Whether a 206 is all that is missing, and of the same representation.
    fn fits(&self, response: &SourceResponse) -> bool {
        let mut lines = response.headers.get_all(CONTENT_RANGE).iter();
        let range = lines.next().and_then(|line| ContentRange::parse(line.as_bytes()));
        let missing = Part { start: self.from, end: self.total.saturating_sub(1) };
        let expected = ContentRange::Part { part: missing, whole: Some(self.total) };
        range == Some(expected)
            && lines.next().is_none()
            && declared_length(response).is_none_or(|length| length == missing.length())
            && conditional::strong_validator(&response.headers).as_ref() == Some(&self.of)
    }
}

impl Inner {
    /// The stored part that may be completed to answer a request for the whole: a fresh one that the
    /// request selects and no purge does.
    pub(crate) fn completion(&self, ask: &Ask<'_>) -> Option<Completion> {
        if *ask.request.method != Method::GET || ask.request.headers.contains_key(RANGE) {
            return None;
        }
        let entry = self.store.get(ask.hash, &ask.key)?;
        let mono = self.settings.clock.mono();
        let parts = entry.variants().filter(|object| {
            object.selected_by(ask.request.headers)
                && is_alive(object)
                && matches!(weigh(object, ask, None, mono), Lookup::Fresh(_))
        });
        let longest = parts.filter_map(Completion::of).max_by_key(|completion| completion.from);
        longest.filter(|completion| completion.total <= self.max_object)
    }
}

impl Job {
    /// Asks for what is missing of the part that is to be completed, if that may be used still. Asked
    /// after the epoch was noted: a purge before it is seen here, a later one afterwards.
    pub(crate) fn ask_for_rest(&mut self, headers: &mut HeaderMap) {
        let kept = self.completion.take().filter(|completion| is_alive(&completion.part));
        if let Some(completion) = &kept {
            completion.put(headers);
        }
        self.completion = kept;
    }

    /// Puts the source's answer behind the part that it completes. The result is as old as the part.
    pub(crate) async fn complete(&mut self, mut exchange: Exchange) -> Completed {
        let Some(completion) = self.completion.take() else {
            return Completed::Answer(Box::new(exchange));
        };
        let status = exchange.response.status;
        if status != StatusCode::PARTIAL_CONTENT && status != StatusCode::RANGE_NOT_SATISFIABLE {
            return Completed::Answer(Box::new(exchange));
        }
        let Completion { part, total, .. } = &completion;
        let first = match completion.fits(&exchange.response) && is_alive(part) {
            true => self.inner.store.bytes(part).await.ok(),
            false => None,
        };
        let Some(first) = first.filter(|first| first.len() as u64 == completion.from) else {
            // Neither the part nor what the source says of it is to be believed any longer.
            self.inner.forget(self.hash, part);
            return Completed::Unfit;
        };
        let response = &mut exchange.response;
        with_date(&mut response.headers, exchange.received.wall);
        let mut headers = merge(&part.fields(), &response.headers);
        headers.remove(CONTENT_RANGE);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(*total));
        response.headers = headers;
        response.status = StatusCode::OK;
        let rest = std::mem::replace(&mut response.body, empty());
        let first = Full::new(first).map_err(|never| match never {}).boxed_unsync();
        response.body = chain(first, rest);
        self.epoch = completion.epoch();
        Completed::Answer(Box::new(exchange))
    }
}

fn is_alive(object: &StoredObject) -> bool {
    object.verdict() == Verdict::Alive
}
