//! A fill's own task: asks the source, confirms or replaces what is stored, and pours the content into
//! the buffer that everybody reads. No visitor owns it; epochs are noted before the source is asked.

use crate::api::{Source, SourceRequest, SourceResponse, StreamBody};
use crate::cache::{Inner, Passing};
use crate::clock::Now;
use crate::error::BodyError;
use crate::fill::{Answer, Fill, Head, Progress};
use crate::freshness::{self, Input, Judgement, NotStored};
use crate::lookup::may_stand_in;
use crate::object::{Epoch, Fields, StoredObject, merge, with_date, with_length};
use crate::purge_index::Verdict;
use crate::site::{EpochGuard, SiteState};
use crate::store::Inserted;
use crate::tags::Tags;
use crate::vary::{self, Selection, Vary};
use bytes::Bytes;
use http::header::{
    CONTENT_LENGTH, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
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
    pub(crate) epoch: Epoch,
    pub(crate) guard: EpochGuard,
}

/// A response with the moments of its exchange.
struct Exchange {
    response: SourceResponse,
    requested: Now,
    received: Now,
    /// Validators of ours were sent.
    conditional: bool,
}

/// Ends the fill however its task ends, so that no reader waits for ever.
struct Ender {
    inner: Arc<Inner>,
    fill: Arc<Fill>,
    hash: u64,
}

/// Bytes of a fill, counted among those of all fills.
struct Filling<'a> {
    all: &'a AtomicU64,
    own: u64,
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

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::Relaxed);
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
                if let Some(object) = self.confirm(&exchange) {
                    return self.answer(object, Answer::Revalidated);
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
            Some(object) if self.site.verdict(&self.fill.key, object) != Verdict::Dead => {
                add_validators(object, &mut headers)
            }
            _ => false,
        };
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
        self.guard = guard;
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
        let soft = match self.site.verdict(&self.fill.key, object) {
            Verdict::Dead => return None,
            Verdict::Soft { since } => Some(since),
            Verdict::Alive => None,
        };
        may_stand_in(object, soft, self.inner.settings.clock.mono()).then(|| Arc::clone(object))
    }

    /// The stored object as a 304 confirms it, and updated by it (RFC 9111 section 4.3.4). `None` when
    /// a purge since the request was sent selects it.
    fn confirm(&self, exchange: &Exchange) -> Option<Arc<StoredObject>> {
        let stale = self.stale.as_ref()?;
        let mut update = exchange.response.headers.clone();
        with_date(&mut update, exchange.received.wall);
        let headers = merge(&stale.fields, &update);
        let judged = HeaderMap::clone(&headers);
        let judgement = self.judge(stale.status, &judged, &exchange.response.headers, exchange);
        let tags = Tags::of(&headers, &self.policy.tags);
        let mut fields = Fields::part(headers, &judgement.excluded, self.policy.browser_ttl);
        fields.personal.clear();
        let object = Arc::new(StoredObject {
            status: stale.status,
            fields,
            body: stale.body.clone(),
            freshness: judgement.freshness,
            selection: self.selection(&judged).ok()?,
            tags,
            epoch: self.epoch,
            checked: AtomicU64::new(u64::MAX),
            head1: OnceLock::new(),
        });
        match judgement.refused {
            None => match self.put(&object) {
                Inserted::Purged => return None,
                Inserted::Stored | Inserted::Collision | Inserted::Outdated => {}
            },
            Some(reason) => {
                self.inner.note(reason);
                if !for_one_visitor(reason) {
                    self.drop_stale();
                }
            }
        }
        (self.site.verdict(&self.fill.key, &object) != Verdict::Dead).then_some(object)
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
                let selection = Selection::of(&names, &self.fill.request);
                Ok(Some(selection.in_language_of(headers)))
            }
            Vary::Any => Err(NotStored::Vary),
        }
    }

    /// Stores, unless the URI was invalidated meanwhile; that check and the insertion are one step.
    fn put(&self, object: &Arc<StoredObject>) -> Inserted {
        let inserted = self.inner.flights.with(self.hash, |_| {
            if self.fill.is_doomed() {
                return Inserted::Purged;
            }
            self.inner.store.insert(self.hash, &self.fill.key, &self.site, object)
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
            self.inner
                .store
                .retain(self.hash, |_, object| !std::ptr::eq(object, &raw const **stale));
        }
    }

    /// A full response: decides on it, lets the readers know, and takes in the content.
    async fn receive(self, exchange: Exchange) {
        let head = self.head(&exchange);
        let status = head.status;
        let personal = head.judgement.refused.is_some_and(for_one_visitor);
        if !head.stored && status.is_success() && !personal {
            self.drop_stale();
        }
        if !head.stored {
            self.fill.stop_keeping();
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
        let end = match end {
            Ok(true) => {
                self.store(&head);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                self.inner.note(NotStored::Incomplete);
                Err(error)
            }
        };
        self.leave();
        self.fill.finish(end);
    }

    fn head(&self, exchange: &Exchange) -> Head {
        let response = &exchange.response;
        let mut headers = response.headers.clone();
        let judgement = self.judge(response.status, &headers, &headers, exchange);
        let length = declared_length(response);
        let too_large = length.is_some_and(|l| l > self.inner.settings.max_object_bytes);
        let selection = self.selection(&headers).unwrap_or_default();
        let stored = judgement.refused.is_none() && !too_large;
        let usable = judgement.freshness.is_fresh(exchange.received.mono)
            || judgement.freshness.stale_while_revalidate > 0;
        let shared =
            (judgement.refused.is_none() && usable) || self.shares_failure(exchange, &judgement);
        let tags = Tags::of(&headers, &self.policy.tags);
        if stored {
            with_date(&mut headers, exchange.received.wall);
        }
        let age = headers.get(http::header::AGE).cloned().filter(|_| !stored);
        let browser_ttl = self.policy.browser_ttl.filter(|_| judgement.refused.is_none());
        let mut fields = Fields::part(headers, &judgement.excluded, browser_ttl);
        if let Some(age) = age {
            fields.visible.insert(http::header::AGE, age);
        }
        let status = response.status;
        Head { status, fields, judgement, selection, tags, length, shared, stored, too_large }
    }

    /// A failing source is not asked by every waiter in turn: those who waited get its failure, unless
    /// it is marked as being for one visitor.
    fn shares_failure(&self, exchange: &Exchange, judgement: &Judgement) -> bool {
        matches!(exchange.response.status.as_u16(), 500 | 502..=504)
            && matches!(judgement.refused, None | Some(NotStored::NoLifetime))
            && !exchange.response.headers.contains_key(http::header::SET_COOKIE)
    }

    /// Takes in the content. `Ok(true)` when it is whole and to be stored.
    async fn pour(&self, mut body: StreamBody, head: &Head) -> Result<bool, BodyError> {
        let limit = self.inner.settings.max_object_bytes;
        let mut storing = head.stored;
        let mut filling = Filling { all: &self.inner.filling, own: 0 };
        let mut received = 0;
        loop {
            let frame = tokio::select! {
                // The last reader's leaving comes first: a body nobody reads may be endless and always
                // ready.
                biased;
                () = self.fill.deserted(), if !storing => return Ok(false),
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
            received = self.fill.push(data);
            if storing {
                filling.own += size;
                let all = self.inner.filling.fetch_add(size, Ordering::Relaxed) + size;
                if received > limit || all > self.inner.settings.fill_bytes {
                    storing = false;
                    self.inner.note(NotStored::TooLarge);
                    self.fill.stop_keeping();
                }
            }
            if !storing {
                self.fill.room().await;
            }
        }
        match head.length {
            Some(declared) if declared != received => Err(BodyError::Length { declared, received }),
            _ => Ok(storing),
        }
    }

    fn store(&self, head: &Head) {
        let body: Bytes = self.fill.whole();
        let mut fields = head.fields.clone();
        fields.personal.clear();
        with_length(&mut fields.visible, head.status, body.len() as u64);
        let object = Arc::new(StoredObject {
            status: head.status,
            fields,
            body,
            freshness: head.judgement.freshness.clone(),
            selection: head.selection.clone(),
            tags: head.tags.clone(),
            epoch: self.epoch,
            checked: AtomicU64::new(u64::MAX),
            head1: OnceLock::new(),
        });
        if self.put(&object) == Inserted::Purged {
            self.inner.note(NotStored::Purged);
        }
    }
}

/// Whether it is the request that keeps a response out of the store: what is stored for others stays.
fn for_one_visitor(reason: NotStored) -> bool {
    matches!(reason, NotStored::Authorization | NotStored::Cookie)
}

/// `If-None-Match` and `If-Modified-Since` of ours; whether there was anything to send.
fn add_validators(object: &StoredObject, headers: &mut HeaderMap) -> bool {
    if !object.has_validator() || object.status != StatusCode::OK {
        return false;
    }
    if let Some(tag) = object.fields.visible.get(ETAG) {
        headers.insert(IF_NONE_MATCH, tag.clone());
    }
    if let Some(modified) = object.fields.visible.get(LAST_MODIFIED) {
        headers.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    true
}

/// The length that the source declares for the content that follows.
fn declared_length(response: &SourceResponse) -> Option<u64> {
    if crate::respond::bodiless(response.status) {
        return None;
    }
    let value = response.headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    crate::range::number(value.trim())
}
