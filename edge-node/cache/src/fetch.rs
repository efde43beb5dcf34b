//! A fill's own task: asks the source, confirms or replaces what is stored, and pours the content into
//! the buffer that everybody reads. No visitor owns it; epochs are noted before the source is asked.

use crate::api::{Source, SourceError, SourceRequest, SourceResponse, StreamBody};
use crate::buffer::Keeping;
use crate::cache::{Inner, Passing};
use crate::clock::Now;
use crate::complete::{Completed, Completion};
use crate::confirm::{self, for_one_visitor};
use crate::error::BodyError;
use crate::fields::{Fields, VERGE_CODED, with_date};
use crate::fill::{Answer, Fill, Head, Progress};
use crate::freshness::{self, Input, Judgement, NotStored};
use crate::keep::{Dropped, Keeper, Kept};
use crate::lookup::may_stand_in;
use crate::object::{Epoch, StoredObject};
use crate::purge_index::Verdict;
use crate::site::{EpochGuard, SiteState};
use crate::slices::{self, Asked};
use crate::store::Inserted;
use crate::tags::Tags;
use crate::vary::{self, Selection, Vary};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use verge_config::site::CachePolicy;

/// Everything that a fill needs.
pub(crate) struct Job {
    pub(crate) inner: Arc<Inner>,
    pub(crate) site: Arc<SiteState>,
    pub(crate) fill: Arc<Fill>,
    pub(crate) hash: u64,
    pub(crate) source: Arc<dyn Source>,
    /// The fields for the source, without validators of ours.
    pub(crate) request: HeaderMap,
    pub(crate) policy: Arc<CachePolicy>,
    /// What is stored and stale: to be confirmed, or to stand in when the source fails.
    pub(crate) stale: Option<StoredObject>,
    /// For how long the visitor takes a stale response when the source fails, in seconds.
    pub(crate) wanted_if_error: u64,
    /// The part that the source is asked for; all of the representation when there is none.
    pub(crate) asked: Option<Asked>,
    /// The stored part whose missing bytes the source is asked for.
    pub(crate) completion: Option<Completion>,
    /// Nobody waits for it, and it is to be finished all the same.
    pub(crate) background: bool,
    pub(crate) epoch: Epoch,
    pub(crate) guard: Option<EpochGuard>,
}

/// A response with the moments of its exchange.
pub(crate) struct Exchange {
    pub(crate) response: SourceResponse,
    pub(crate) requested: Now,
    pub(crate) received: Now,
    /// Validators of ours were sent.
    pub(crate) conditional: bool,
    /// The status that the source sent.
    pub(crate) source_status: StatusCode,
}

/// Ends the fill however its task ends, so that no reader waits for ever.
struct Ender {
    inner: Arc<Inner>,
    fill: Arc<Fill>,
    hash: u64,
}

impl Drop for Ender {
    fn drop(&mut self) {
        self.inner.flights.leave(self.hash, &self.fill);
        if self.fill.is_waiting() {
            let error = Arc::new(Box::new(BodyError::Abandoned).into());
            self.fill.publish(Progress::Failed(error));
        }
        self.fill.finish(Err(BodyError::Abandoned));
    }
}

// === impl Exchange ===

impl Exchange {
    pub(crate) fn new(
        response: SourceResponse,
        requested: Now,
        received: Now,
        conditional: bool,
    ) -> Exchange {
        let source_status = response.status;
        Exchange { response, requested, received, conditional, source_status }
    }

    /// Whether it is a 304 to validators of ours.
    fn confirms(&self) -> bool {
        self.conditional && self.source_status == StatusCode::NOT_MODIFIED
    }

    /// Whether a request without conditions got nothing that answers it.
    fn is_no_answer(&self) -> bool {
        self.source_status == StatusCode::NOT_MODIFIED || self.source_status.as_u16() >= 500
    }
}

// === impl Job ===

impl Job {
    /// Runs the fill to its end.
    pub(crate) async fn run(mut self) {
        let _ender =
            Ender { inner: Arc::clone(&self.inner), fill: Arc::clone(&self.fill), hash: self.hash };
        loop {
            let exchange = match self.ask().await {
                Ok(exchange) => exchange,
                Err(error) => return self.fail(error),
            };
            let status = exchange.response.status;
            if exchange.confirms() {
                if let Some((object, stored)) = self.confirm(&exchange) {
                    return self.answer(object, Answer::Revalidated { stored });
                }
                // A purge came between: what the source confirmed is what the purge was for.
                self.stale = None;
                self.renew();
                continue;
            }
            if matches!(status.as_u16(), 500 | 502..=504)
                && let Some(object) = self.stand_in()
            {
                return self.answer(object, Answer::StaleIfError(Some(status)));
            }
            let Completed::Answer(exchange) = self.complete(exchange).await else {
                self.renew();
                continue;
            };
            return Box::pin(self.receive(*exchange)).await;
        }
    }

    /// Asks the source; once more, and without conditions, when its 304 is for another representation
    /// than the stored one (RFC 9111 section 4.3.4). Where nothing comes of that, the 304 counts: it was
    /// the answer to the stored entity-tag, and the alternative is an error.
    async fn ask(&mut self) -> Result<Exchange, SourceError> {
        let exchange = self.exchange(true).await?;
        if !exchange.confirms() || !self.is_of_another(&exchange) {
            return Ok(exchange);
        }
        match self.exchange(false).await {
            Ok(whole) if !whole.is_no_answer() => Ok(whole),
            Ok(_) | Err(_) => Ok(exchange),
        }
    }

    /// Asks the source once; with validators of what is stored, if those are wanted.
    async fn exchange(&mut self, validate: bool) -> Result<Exchange, SourceError> {
        self.inner.counters.fetches.fetch_add(1, Ordering::Relaxed);
        let mut headers = self.request.clone();
        let conditional = match self.stale.as_ref().filter(|_| validate) {
            // Asked after the epoch was noted: a purge before it is seen here, a later one afterwards.
            Some(object) if object.verdict() != Verdict::Dead => {
                confirm::add_validators(object, &mut headers)
            }
            _ => false,
        };
        if let Some(asked) = &self.asked {
            asked.put(&mut headers);
        }
        self.ask_for_rest(&mut headers);
        let requested = self.inner.settings.clock.now();
        let request = SourceRequest { method: Method::GET, headers };
        let response = self.source.fetch(request).await?;
        let received = self.inner.settings.clock.now();
        Ok(Exchange::new(response, requested, received, conditional))
    }

    /// Notes a new epoch before the source is asked again.
    fn renew(&mut self) {
        let (epoch, guard) = self.site.hold(None);
        self.epoch = epoch;
        self.guard = Some(guard);
        self.fill.set_epoch(epoch.applied);
    }

    fn leave(&self) {
        self.inner.flights.leave(self.hash, &self.fill);
    }

    fn fail(&self, error: SourceError) {
        match self.stand_in() {
            Some(object) => self.answer(object, Answer::StaleIfError(None)),
            None => {
                self.inner.counters.failures.fetch_add(1, Ordering::Relaxed);
                self.leave();
                self.fill.publish(Progress::Failed(Arc::new(error)));
                self.fill.finish(Ok(()));
            }
        }
    }

    fn answer(&self, object: StoredObject, answer: Answer) {
        self.leave();
        self.fill.publish(Progress::Object(object, answer));
        self.fill.finish(Ok(()));
    }

    /// The stored object that may be served in the place of a failure.
    fn stand_in(&self) -> Option<StoredObject> {
        let object = self.stale.as_ref()?;
        let soft = match object.verdict() {
            Verdict::Dead => return None,
            Verdict::Soft { since } => Some(since),
            Verdict::Alive => None,
        };
        may_stand_in(object, soft, self.wanted_if_error, self.inner.settings.clock.mono())
            .then(|| object.clone())
    }

    /// Judges fields; `Age` is taken from the message that came now.
    pub(crate) fn judge(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        message: &HeaderMap,
        exchange: &Exchange,
    ) -> Judgement {
        let mut headers = headers.clone();
        headers.remove(http::header::AGE);
        if let Some(age) = message.get(http::header::AGE) {
            headers.insert(http::header::AGE, age.clone());
        }
        freshness::judge(&Input {
            status,
            headers: &headers,
            request: &self.fill.request,
            policy: &self.policy,
            requested: exchange.requested,
            received: exchange.received,
        })
    }

    pub(crate) fn selection(&self, headers: &HeaderMap) -> Result<Option<Selection>, NotStored> {
        match vary::parse(headers) {
            Vary::None => Ok(None),
            Vary::Fields(names) => {
                let mut selection = Selection::of(&names, &self.fill.request);
                if let (true, Some(rule)) =
                    (headers.contains_key(VERGE_CODED), &self.policy.compress)
                {
                    selection = selection.in_form_of(&rule.codings, &self.fill.request);
                }
                Ok(Some(selection.in_language_of(headers)))
            }
            Vary::Any => Err(NotStored::Vary),
        }
    }

    /// Stores, unless the URI was invalidated meanwhile; that check and the insertion are one step.
    pub(crate) fn put(&self, object: &StoredObject) -> Inserted {
        let inserted = self.inner.flights.with(self.hash, |_| {
            if self.fill.is_doomed() {
                return Inserted::Purged;
            }
            self.inner.store.insert(self.hash, object)
        });
        match inserted {
            Inserted::Stored => self.inner.counters.stored.fetch_add(1, Ordering::Relaxed),
            Inserted::Purged => {
                self.inner.counters.refused_by_purge.fetch_add(1, Ordering::Relaxed)
            }
            Inserted::Collision | Inserted::Outdated => 0,
        };
        inserted
    }

    /// A full response: decides on it, lets the readers know, and takes in the content.
    async fn receive(mut self, mut exchange: Exchange) {
        self.compress(&mut exchange.response).await;
        let head = self.head(&exchange);
        let status = head.status;
        let personal = head.judgement.refused.is_some_and(for_one_visitor);
        if !head.stored && status.is_success() && !personal {
            self.drop_stale();
        }
        if !head.stored {
            self.fill.keep(Keeping::Unread);
        }
        if let Some(span) = head.span {
            self.fill.starts_at(span.start);
        }
        let passing = if head.too_large {
            Some(Passing::TooLarge)
        } else {
            (!head.shared).then_some(Passing::Unshared)
        };
        let reason =
            if head.too_large { Some(NotStored::TooLarge) } else { head.judgement.refused };
        if passing.is_some() || reason.is_some() {
            let delay = exchange.received.mono.saturating_sub(exchange.requested.mono);
            self.inner.mark(self.hash, passing, reason, delay);
        }
        // What may not be stored is for those who wait already, at most.
        if head.judgement.refused.is_some() {
            self.leave();
        }
        if let Some(reason) = reason {
            self.inner.note(reason);
        }
        let head = Arc::new(head);
        self.fill.publish(Progress::Head(Arc::clone(&head)));
        let end = self.pour(exchange.response.body, &head).await;
        match end {
            Ok(kept) => {
                // Stored before its readers know that they have all of it: who asks again finds it.
                let stored = match kept {
                    Some(kept) => self.store(&head, kept).await,
                    None => None,
                };
                self.leave();
                self.fill.finish(Ok(()));
                // It is in the store, where its epoch is counted.
                self.guard = None;
                if let Some(object) = stored {
                    self.inner.write(&object).await;
                }
            }
            Err(error) => {
                self.inner.note(NotStored::Incomplete);
                self.leave();
                self.fill.finish(Err(error));
            }
        }
    }

    fn head(&self, exchange: &Exchange) -> Head {
        let response = &exchange.response;
        let mut headers = response.headers.clone();
        let mut status = response.status;
        let mut length = declared_length(response);
        let mut span = self.asked.as_ref().and_then(|_| slices::span_of(response, &mut length));
        if span.is_some_and(|span| span.start == 0 && span.total == length && length.is_some()) {
            // All of it came as a part.
            (span, status) = (None, StatusCode::OK);
            headers.remove(CONTENT_RANGE);
        }
        // What may be stored of a part is what might be of the whole.
        let judged = if span.is_some() { StatusCode::OK } else { status };
        let mut judgement = self.judge(judged, &headers, &headers, exchange);
        if self.asked.as_ref().is_some_and(|asked| !asked.is_answered_by(span, &headers)) {
            // Under a slice's key nothing but that slice is ever stored.
            judgement.refused = judgement.refused.or(Some(NotStored::Partial));
        }
        if !exchange.response.delimited {
            judgement.refused = judgement.refused.or(Some(NotStored::Incomplete));
        }
        let most = if span.is_some() { slices::SLICE_BYTES } else { self.inner.max_object };
        let too_large = length.is_some_and(|length| length > most);
        let selection = self.selection(&headers).unwrap_or_default();
        let stored = judgement.refused.is_none() && !too_large;
        let usable = judgement.freshness.is_fresh(exchange.received.mono)
            || judgement.freshness.stale_while_revalidate > 0;
        let shared =
            (judgement.refused.is_none() && usable) || self.shares_failure(exchange, &judgement);
        let tags = self.tags(&headers);
        if stored {
            with_date(&mut headers, exchange.received.wall);
        }
        let age = headers.get(http::header::AGE).cloned().filter(|_| !stored);
        let browser_ttl = self.policy.browser_ttl.filter(|_| judgement.refused.is_none());
        let mut fields = Fields::part(headers, &judgement.excluded, browser_ttl);
        if let Some(age) = age {
            fields.visible.insert(http::header::AGE, age);
        }
        Head {
            status,
            source_status: exchange.source_status,
            fields,
            judgement,
            selection,
            tags,
            span,
            length,
            shared,
            stored,
            too_large,
        }
    }

    /// A failing source is not asked by every waiter in turn: those who waited get its failure, unless
    /// it is marked as being for one visitor.
    fn shares_failure(&self, exchange: &Exchange, judgement: &Judgement) -> bool {
        matches!(exchange.response.status.as_u16(), 500 | 502..=504)
            && matches!(judgement.refused, None | Some(NotStored::NoLifetime))
            && !exchange.response.headers.contains_key(http::header::SET_COOKIE)
    }

    /// Takes in the content; returns it when it is whole and to be stored.
    async fn pour(&self, mut body: StreamBody, head: &Head) -> Result<Option<Kept>, BodyError> {
        let mut keeper = head.stored.then(|| Keeper::new(&self.inner, &self.fill));
        let start = head.span.map_or(0, |span| span.start);
        let mut received = 0;
        loop {
            let frame = tokio::select! {
                // The last reader's leaving comes first: a body nobody reads may be endless and always
                // ready.
                biased;
                () = self.fill.deserted(), if keeper.is_none() => return Ok(None),
                frame = body.frame() => frame,
            };
            let data = match frame {
                None => break,
                Some(Err(error)) => return Err(BodyError::Source(Arc::new(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    // Trailers are not kept (RFC 9110 section 6.5.1 lets an intermediary drop them).
                    Err(_) => continue,
                },
            };
            let size = data.len() as u64;
            if let Some(declared) = head.length.filter(|declared| received + size > *declared) {
                return Err(BodyError::Length { declared, received: received + size });
            }
            // The last bytes of content that is to be stored are read once it is: who has all of it and
            // asks again is to find it.
            let last = keeper.is_some() && head.length == Some(received + size);
            received = self.fill.push(data, last) - start;
            if let Some(keeping) = &mut keeper {
                if let Err(dropped) = keeping.took(size, received).await {
                    self.drop_content(dropped);
                    keeper = None;
                } else if self.is_deserted() && !Keeper::may_finish_alone(received, head.length) {
                    return Ok(None);
                }
            }
            if keeper.is_none() {
                self.fill.room().await;
            }
        }
        match head.length {
            Some(declared) if declared != received => Err(BodyError::Length { declared, received }),
            _ => Ok(match keeper {
                Some(keeper) => {
                    keeper.finish().await.inspect_err(|_| self.fill.keep(Keeping::Unread)).ok()
                }
                None => None,
            }),
        }
    }

    fn is_deserted(&self) -> bool {
        !self.background && self.fill.readers() == 0
    }

    fn drop_content(&self, dropped: Dropped) {
        if matches!(dropped, Dropped::TooLarge) {
            self.inner.note(NotStored::TooLarge);
        }
        self.fill.keep(Keeping::Unread);
    }

    pub(crate) fn tags(&self, headers: &HeaderMap) -> Tags {
        let tags = Tags::of(headers, &self.policy.tags);
        self.inner.counters.ignored_tags.fetch_add(tags.ignored as u64, Ordering::Relaxed);
        tags
    }
}

/// No content.
pub(crate) fn empty() -> StreamBody {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The length that the source declares for the content that follows.
pub(crate) fn declared_length(response: &SourceResponse) -> Option<u64> {
    if crate::respond::bodiless(response.status) {
        return None;
    }
    let value = response.headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    crate::range::number(value.trim())
}
