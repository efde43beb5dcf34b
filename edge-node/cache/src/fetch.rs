//! A fill's own task: asks the source, confirms or replaces what is stored, and pours the content into
//! the buffer that everybody reads. No visitor owns it; epochs are noted before the source is asked.

use crate::api::{Source, SourceRequest, SourceResponse, StreamBody};
use crate::buffer::Keeping;
use crate::cache::{Inner, Passing};
use crate::clock::Now;
use crate::compress;
use crate::error::BodyError;
use crate::fill::{Answer, Fill, Head, Progress};
use crate::freshness::{self, Input, Judgement, NotStored};
use crate::keep::{Dropped, Keeper, Kept};
use crate::lookup::may_stand_in;
use crate::object::{Epoch, Fields, Parts, StoredObject, VERGE_CODED, merge, with_date};
use crate::purge_index::Verdict;
use crate::shape;
use crate::site::{EpochGuard, SiteState};
use crate::slices::{self, Asked};
use crate::store::Inserted;
use crate::tags::Tags;
use crate::vary::{self, Selection, Vary};
use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
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
    pub(crate) stale: Option<Arc<StoredObject>>,
    /// For how long the visitor takes a stale response when the source fails, in seconds.
    pub(crate) wanted_if_error: u64,
    /// The part that the source is asked for; all of the representation when there is none.
    pub(crate) asked: Option<Asked>,
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

impl Job {
    /// Runs the fill to its end.
    pub(crate) async fn run(mut self) {
        let _ender =
            Ender { inner: Arc::clone(&self.inner), fill: Arc::clone(&self.fill), hash: self.hash };
        loop {
            self.inner.counters.fetches.fetch_add(1, Ordering::Relaxed);
            let exchange = match self.exchange().await {
                Ok(exchange) => exchange,
                Err(error) => return self.fail(error),
            };
            let status = exchange.response.status;
            if status == StatusCode::NOT_MODIFIED && exchange.conditional {
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
            return Box::pin(self.receive(exchange)).await;
        }
    }

    async fn exchange(&self) -> Result<Exchange, crate::api::SourceError> {
        let mut headers = self.request.clone();
        let conditional = match &self.stale {
            // Asked after the epoch was noted: a purge before it is seen here, a later one afterwards.
            Some(object) if object.verdict() != Verdict::Dead => {
                add_validators(object, &mut headers)
            }
            _ => false,
        };
        if let Some(asked) = &self.asked {
            asked.put(&mut headers);
        }
        let requested = self.inner.settings.clock.now();
        let request = SourceRequest { method: Method::GET, headers };
        let response = self.source.fetch(request).await?;
        let received = self.inner.settings.clock.now();
        Ok(Exchange { response, requested, received, conditional })
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

    fn fail(&self, error: crate::api::SourceError) {
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

    fn answer(&self, object: Arc<StoredObject>, answer: Answer) {
        self.leave();
        self.fill.publish(Progress::Object(object, answer));
        self.fill.finish(Ok(()));
    }

    /// The stored object that may be served in the place of a failure.
    fn stand_in(&self) -> Option<Arc<StoredObject>> {
        let object = self.stale.as_ref()?;
        let soft = match object.verdict() {
            Verdict::Dead => return None,
            Verdict::Soft { since } => Some(since),
            Verdict::Alive => None,
        };
        may_stand_in(object, soft, self.wanted_if_error, self.inner.settings.clock.mono())
            .then(|| Arc::clone(object))
    }

    /// The stored object as a 304 confirms it, and updated by it (RFC 9111 section 4.3.4). `None` when
    /// a purge since the request was sent selects it.
    pub(crate) fn confirm(&self, exchange: &Exchange) -> Option<(Arc<StoredObject>, bool)> {
        let stale = self.stale.as_ref()?;
        let mut update = exchange.response.headers.clone();
        with_date(&mut update, exchange.received.wall);
        let stored = stale.fields();
        let coded = stored.hidden.get(VERGE_CODED).and_then(shape::form_of);
        let mut headers = merge(&stored, &update);
        if let Some(form) = coded {
            compress::apply(&mut headers, form);
        }
        let judged = HeaderMap::clone(&headers);
        let judgement = self.judge(stale.status, &judged, &exchange.response.headers, exchange);
        let tags = self.tags(&headers);
        let mut fields = Fields::part(headers, &judgement.excluded, self.policy.browser_ttl);
        fields.personal.clear();
        let parts = Parts {
            key: stale.key.clone(),
            site: Arc::clone(&self.site),
            status: stale.status,
            fields,
            freshness: judgement.freshness,
            selection: self.selection(&judged).ok()?.map(Box::new),
            tags,
            span: None,
            epoch: self.epoch,
        };
        let object = Arc::new(StoredObject::with_content(parts, stale.shared_content()));
        let mut refreshed = false;
        match judgement.refused {
            None => match self.put(&object) {
                Inserted::Purged => return None,
                Inserted::Stored => {
                    refreshed = true;
                    self.inner.rewrite(&object);
                }
                Inserted::Collision | Inserted::Outdated => {}
            },
            Some(reason) => {
                self.inner.note(reason);
                if !for_one_visitor(reason) {
                    self.drop_stale();
                }
            }
        }
        (object.verdict() != Verdict::Dead).then_some((object, refreshed))
    }

    /// Judges fields; `Age` is taken from the message that came now.
    fn judge(
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

    fn selection(&self, headers: &HeaderMap) -> Result<Option<Selection>, NotStored> {
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
    pub(crate) fn put(&self, object: &Arc<StoredObject>) -> Inserted {
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

    /// What is stored is no longer what the source answers.
    fn drop_stale(&self) {
        if let Some(stale) = &self.stale {
            self.inner.store.retain(self.hash, |object| !std::ptr::eq(object, &raw const **stale));
        }
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
        Head { status, fields, judgement, selection, tags, span, length, shared, stored, too_large }
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

    fn tags(&self, headers: &HeaderMap) -> Tags {
        let tags = Tags::of(headers, &self.policy.tags);
        self.inner.counters.ignored_tags.fetch_add(tags.ignored as u64, Ordering::Relaxed);
        tags
    }
}

/// No content.
pub(crate) fn empty() -> StreamBody {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Whether it is the request that keeps a response out of the store: what is stored for others stays.
fn for_one_visitor(reason: NotStored) -> bool {
    matches!(reason, NotStored::Authorization | NotStored::Cookie)
}

/// `If-None-Match` and `If-Modified-Since` of ours; whether there was anything to send.
fn add_validators(object: &StoredObject, headers: &mut HeaderMap) -> bool {
    let validator = object.field(&ETAG).is_some() || object.field(&LAST_MODIFIED).is_some();
    if !validator || object.status != StatusCode::OK {
        return false;
    }
    let fields = object.fields().original();
    let coded = fields.contains_key(VERGE_CODED);
    if let Some(tag) = fields.get(ETAG) {
        let own = compress::origin_etag(tag).filter(|_| coded);
        headers.insert(IF_NONE_MATCH, own.unwrap_or_else(|| tag.clone()));
    }
    if let Some(modified) = fields.get(LAST_MODIFIED) {
        headers.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    true
}

/// The length that the source declares for the content that follows.
pub(crate) fn declared_length(response: &SourceResponse) -> Option<u64> {
    if crate::respond::bodiless(response.status) {
        return None;
    }
    let value = response.headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    crate::range::number(value.trim())
}
