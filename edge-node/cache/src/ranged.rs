//! Answers to ranges that are more than what is there: stored or arriving parts with the rest behind them.

use crate::api::{Outcome, Source};
use crate::cache::Inner;
use crate::cache_status::{CacheStatus, Forward};
use crate::conditional;
use crate::error::CacheError;
use crate::fill::{Head, Reader, Reading};
use crate::lookup::Ask;
use crate::object::StoredObject;
use crate::range::{ByteRange, Part};
use crate::respond;
use crate::serve::{Round, Settled};
use crate::slices::{self, Available, Plan};
use crate::start::Need;
use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Inner {
    /// Answers a range of which a part is stored, with the rest in slices.
    pub(crate) async fn sliced(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        object: &StoredObject,
        source: &Arc<dyn Source>,
    ) -> Settled {
        let available = Available::of(object);
        let (Some((part, of)), Some(total)) =
            (slices::extends(object, &ask.request), available.total)
        else {
            return Settled::Need(Need::new(Forward::Partial, true));
        };
        if ask.directives.only_if_cached {
            return Settled::Need(Need::new(Forward::Partial, false));
        }
        let mut first = Bytes::new();
        if available.begins(part) {
            match self.store.bytes(object).await {
                Ok(bytes) => {
                    let from = part.start - available.start;
                    first = crate::tier::slice(&bytes, from, part.end - available.start);
                }
                Err(_) => {
                    self.forget(ask.hash, object);
                    return Settled::Damaged;
                }
            }
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let mono = self.settings.clock.mono();
        let plan = Plan::new(self, source, &ask.request, (part, total, of)).body(first);
        let status = CacheStatus {
            forward: Some(Forward::Partial),
            ttl: Some(object.freshness.ttl(mono)),
            ..CacheStatus::default()
        };
        let mut headers = object.headers();
        headers.insert(http::header::AGE, HeaderValue::from(object.freshness.age(mono)));
        let as_what = (&status, Outcome::Miss);
        Settled::Answer(respond::from_slices(headers, (part, total), plan, as_what))
    }

    /// Where a part that arrives is less than what was asked for: how the rest is got.
    pub(crate) fn beyond(&self, ask: &Ask<'_>, head: &Head, leader: bool) -> Option<Beyond> {
        let span = head.span?;
        let len = head.length?;
        let available = Available { start: span.start, len, total: span.total };
        let range = slices::single(ask.request.headers)?;
        let part = available.resolve(range);
        if part.is_some_and(|part| available.holds(part)) {
            return None;
        }
        // The source has answered just this range, in its way.
        if leader && matches!(range, ByteRange::Last(_)) {
            return None;
        }
        let of = conditional::strong_validator(&head.fields.visible);
        Some(match (part, of, span.total) {
            (Some(part), Some(of), Some(total)) if head.stored && available.begins(part) => {
                Beyond::Slices(part, total, of)
            }
            _ => Beyond::Pass,
        })
    }

    pub(crate) async fn go_beyond(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        way: Beyond,
        (head, reader): (Arc<Head>, Reader),
        source: &Arc<dyn Source>,
    ) -> Result<Round, CacheError> {
        let Beyond::Slices(part, total, of) = way else {
            drop(reader);
            let source = Arc::clone(source);
            let passed = self.pass(&ask.request, source, Forward::Partial).await;
            return passed.map(Round::Answer);
        };
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let end = head.span.map_or(0, |span| span.start) + head.length.unwrap_or_default();
        let first = Reading::new(reader, Some((part.start, end.saturating_sub(1))));
        let rest = Part { start: end, end: part.end };
        let rest = Plan::new(self, source, &ask.request, (rest, total, of)).body(Bytes::new());
        let mono = self.settings.clock.mono();
        let freshness = &head.judgement.freshness;
        let status = CacheStatus {
            forward: Some(Forward::Partial),
            forward_status: Some(head.source_status),
            stored: head.stored,
            ttl: Some(freshness.ttl(mono)),
            ..CacheStatus::default()
        };
        let mut headers = head.fields.visible.clone();
        headers.insert(http::header::AGE, HeaderValue::from(freshness.age(mono)));
        let body = slices::chain(first.boxed_unsync(), rest);
        let as_what = (&status, Outcome::Miss);
        Ok(Round::Answer(respond::from_slices(headers, (part, total), body, as_what)))
    }
}

/// How the rest of a range is got.
pub(crate) enum Beyond {
    /// In slices of a representation of so many bytes, with this validator.
    Slices(Part, u64, HeaderValue),
    /// By asking for the range as it is.
    Pass,
}
