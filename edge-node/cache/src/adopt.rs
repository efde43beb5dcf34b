//! Answers to other methods that are of use to later GETs: a POST's that says so, and a HEAD's that confirms
//! or refutes what is stored (RFC 9110 section 9.3.3, RFC 9111 section 4.3.5). Fetches nothing.

use crate::api::{BoxError, Request, Response, Source, SourceRequest, SourceResponse};
use crate::cache::{Cache, Inner};
use crate::cache_status::Forward;
use crate::clock::Now;
use crate::compress;
use crate::directives::RequestDirectives;
use crate::error::CacheError;
use crate::fetch::{Exchange, Job};
use crate::fields::VERGE_CODED;
use crate::fill::Fill;
use crate::freshness::{self, Input};
use crate::key::KeyRef;
use crate::lookup::Ask;
use crate::methods::{self, HeadUpdate};
use crate::object::{Epoch, StoredObject};
use crate::site::EpochGuard;
use crate::start::Need;
use futures::future::BoxFuture;
use http::header::{CONTENT_LENGTH, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, RANGE};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use std::sync::Arc;

/// A moment before the source is asked: what a purge after it selects is not stored from the answer.
pub struct Begun {
    epoch: Epoch,
    guard: EpochGuard,
    at: Now,
}

/// The answer that is there already, as a source.
struct Once(Mutex<Option<SourceResponse>>);

impl Source for Once {
    fn fetch(&self, _: SourceRequest) -> BoxFuture<'static, Result<SourceResponse, BoxError>> {
        let answer = self.0.lock().take().ok_or_else(|| "asked twice".into());
        Box::pin(std::future::ready(answer))
    }
}

/// The fields as the source sent them, so far as they were not those of a form that was made here.
fn as_sent(stored: &StoredObject) -> http::HeaderMap {
    let mut fields = stored.fields().original();
    if fields.contains_key(VERGE_CODED) {
        fields.remove(CONTENT_LENGTH);
        if let Some(tag) = fields.get(ETAG).and_then(compress::origin_etag) {
            fields.insert(ETAG, tag);
        }
    }
    fields
}

impl Cache {
    /// To be called before a request that is not for the cache goes to the source, when its answer may
    /// be for [`Cache::adopt`].
    #[must_use]
    pub fn begin(&self, site: &Arc<str>) -> Begun {
        let (epoch, guard) = self.inner.site(site).hold(None);
        Begun { epoch, guard, at: self.inner.settings.clock.now() }
    }

    /// Stores the answer to a POST for later GETs, where it says that it may be. Gives it back where it
    /// does not.
    ///
    /// # Errors
    /// As for [`Cache::serve`].
    pub async fn adopt(
        &self,
        request: Request<'_>,
        begun: Begun,
        answer: SourceResponse,
    ) -> Result<Result<Response, CacheError>, SourceResponse> {
        let inner = &self.inner;
        let judgement = freshness::judge(&Input {
            status: answer.status,
            headers: &answer.headers,
            request: request.headers,
            policy: request.policy,
            requested: begun.at,
            received: inner.settings.clock.now(),
        });
        if !methods::answers_get(&request, answer.status, &answer.headers, &judgement) {
            return Err(answer);
        }
        let mut headers = request.headers.clone();
        for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, RANGE] {
            headers.remove(name);
        }
        let request = Request { method: &Method::GET, headers: &headers, ..request };
        let key = KeyRef::of(&request);
        let hash = key.hash(&inner.hasher);
        let ask = Ask { request, key, hash, directives: RequestDirectives::default() };
        let source: Arc<dyn Source> = Arc::new(Once(Mutex::new(Some(answer))));
        Ok(inner.take_in(&ask, (begun.epoch, begun.guard), &source).await)
    }
}

impl Inner {
    async fn take_in(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        (epoch, guard): (Epoch, EpochGuard),
        source: &Arc<dyn Source>,
    ) -> Result<Response, CacheError> {
        let need = Need::new(Forward::Method, false);
        let reader = self.start(ask, &need, source, (epoch, guard)).ok_or(CacheError::Abandoned)?;
        self.answer_of(ask, &need, reader, source).await
    }

    /// What the answer to a HEAD means for the stored response that it might have been of.
    pub(crate) fn weigh_head(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        stored: &StoredObject,
        begun: Begun,
        (status, headers): (StatusCode, &http::HeaderMap),
    ) {
        match methods::head_update(&as_sent(stored), status, headers) {
            HeadUpdate::Nothing => {}
            HeadUpdate::Invalidate => self.forget(ask.hash, stored),
            HeadUpdate::Freshen => {
                let fill = Fill::new(
                    Arc::new(ask.key.keep()),
                    ask.request.headers.clone(),
                    (false, None),
                    begun.epoch.applied,
                );
                let response = SourceResponse {
                    status,
                    headers: headers.clone(),
                    body: crate::fetch::empty(),
                    delimited: true,
                };
                let received = self.settings.clock.now();
                let exchange = Exchange::new(response, begun.at, received, true);
                let job = Job {
                    inner: Arc::clone(self),
                    site: self.site(ask.request.site),
                    fill,
                    hash: ask.hash,
                    source: Arc::new(Once(Mutex::new(None))),
                    request: http::HeaderMap::new(),
                    policy: Arc::clone(ask.request.policy),
                    stale: Some(stored.clone()),
                    wanted_if_error: 0,
                    asked: None,
                    completion: None,
                    background: true,
                    epoch: begun.epoch,
                    guard: Some(begun.guard),
                };
                drop(job.confirm(&exchange));
            }
        }
    }
}
