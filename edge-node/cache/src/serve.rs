//! The way of a request that is more than a plain hit: look up, join or start a fill, wait for its
//! header section, answer. Everything that arrives is read from a fill, never from the source itself,
//! save what is not for the cache at all.

use crate::api::{Body, Outcome, Request, Response, Source, SourceRequest};
use crate::cache::{Cache, Inner, Passing};
use crate::cache_status::{CacheStatus, Forward};
use crate::directives::RequestDirectives;
use crate::error::CacheError;
use crate::fetch::Job;
use crate::fill::{Answer, Fill, Head, Progress, Reader};
use crate::key::KeyRef;
use crate::lookup::{Ask, Lookup, lookup, may_stand_in};
use crate::object::{Fields, StoredObject};
use crate::purge_index::Verdict;
use crate::respond;
use crate::vary::Selection;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderValue, Method};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use verge_config::site::{CacheMode, ClientCacheControl};

/// How often a request joins a fill that turns out not to be for it before it goes on alone.
const MAX_ROUNDS: usize = 4;

/// Why a fill is needed, and how it is to be made.
struct Need {
    forward: Forward,
    /// What is stored and may be confirmed or stand in.
    stale: Option<Arc<StoredObject>>,
    /// Whether it may be shared with others.
    collapse: bool,
    /// How the request selects among variants, where that is known.
    hint: Option<Selection>,
}

/// The result of looking for a fill under the key's lock.
enum Joined {
    /// This request's own.
    Leader(Reader),
    /// Another's.
    Follower(Reader),
    /// The store has got an answer meanwhile.
    Stored(Lookup),
}

/// The way a round ended.
enum Round {
    Answer(Response),
    /// The fill was not for this request.
    Again(Option<Selection>),
}

impl Cache {
    /// Everything: lookup, collapsing, fill, revalidation, stale, range, conditional.
    ///
    /// # Errors
    /// [`CacheError::Source`] when the source fails and nothing stale may be served;
    /// [`CacheError::OnlyIfCached`] when the visitor wants no fetch and nothing is stored.
    pub async fn serve(
        &self,
        request: Request<'_>,
        source: Arc<dyn Source>,
    ) -> Result<Response, CacheError> {
        let inner = &self.inner;
        let safe = *request.method == Method::GET || *request.method == Method::HEAD;
        if !safe {
            return inner.pass(&request, source, Forward::Method).await;
        }
        let directives = match request.policy.client_cache_control {
            ClientCacheControl::Honour => RequestDirectives::of(request.headers),
            ClientCacheControl::Ignore => RequestDirectives::default(),
        };
        if matches!(request.policy.mode, CacheMode::Bypass)
            || request.headers.contains_key(IF_MATCH)
            || request.headers.contains_key(IF_UNMODIFIED_SINCE)
        {
            return inner.pass(&request, source, Forward::Bypass).await;
        }
        if directives.no_store && !directives.only_if_cached {
            return inner.pass(&request, source, Forward::Request).await;
        }
        let key = KeyRef::of(&request);
        let hash = key.hash(&inner.hasher);
        inner.answer(Ask { request, key, hash, directives }, source).await
    }
}

impl Inner {
    async fn answer(
        self: &Arc<Self>,
        ask: Ask<'_>,
        source: Arc<dyn Source>,
    ) -> Result<Response, CacheError> {
        let mut found = lookup(&self.store, &ask, self.settings.clock.mono());
        let mut hint = None;
        for round in 0..=MAX_ROUNDS {
            let mut need = match self.settle(&ask, found, &source) {
                Ok(response) => return Ok(response),
                Err(need) => need,
            };
            if ask.directives.only_if_cached {
                return Err(CacheError::OnlyIfCached);
            }
            if hint.is_some() {
                need.hint = hint.take();
            }
            need.collapse &= round < MAX_ROUNDS;
            if *ask.request.method == Method::HEAD {
                return self.pass_head(&ask, source, &need).await;
            }
            let mark = self.marked(ask.hash);
            if mark == Some(Passing::TooLarge) && ask.request.headers.contains_key(RANGE) {
                return self.pass(&ask.request, source, Forward::Partial).await;
            }
            need.collapse &= mark != Some(Passing::Unshared);
            let (reader, leader) = match self.join(&ask, &need, &source) {
                Joined::Leader(reader) => (reader, true),
                Joined::Follower(reader) => (reader, false),
                Joined::Stored(again) => {
                    found = again;
                    continue;
                }
            };
            match self.read(&ask, &need, reader, leader, &source).await? {
                Round::Answer(response) => return Ok(response),
                Round::Again(selection) => hint = selection,
            }
            found = lookup(&self.store, &ask, self.settings.clock.mono());
        }
        // The last round does not collapse, so that it answers; this is for the compiler.
        self.pass(&ask.request, source, Forward::UriMiss).await
    }

    /// Answers what the store can answer; otherwise says what is needed.
    fn settle(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        found: Lookup,
        source: &Arc<dyn Source>,
    ) -> Result<Response, Need> {
        let mono = self.settings.clock.mono();
        let authorised = ask.request.headers.contains_key(AUTHORIZATION);
        match found {
            Lookup::Fresh(object) => {
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                let status = CacheStatus::hit(object.freshness.ttl(mono));
                let age = object.freshness.age(mono);
                Ok(respond::from_object(&ask.request, &object, age, &status, Outcome::Hit))
            }
            Lookup::Stale { object, refresh } => {
                self.counters.stale.fetch_add(1, Ordering::Relaxed);
                let ttl = object.freshness.ttl(mono);
                let status = CacheStatus { detail: Some("stale"), ..CacheStatus::hit(ttl) };
                let age = object.freshness.age(mono);
                let response =
                    respond::from_object(&ask.request, &object, age, &status, Outcome::Stale);
                if refresh && !authorised {
                    let stale = Some(object);
                    let need = Need { forward: Forward::Stale, stale, collapse: true, hint: None };
                    // Nobody waits for it; if one is under way already, that one does.
                    drop(self.join_or_start(ask, &need, source, true));
                }
                Ok(response)
            }
            Lookup::Revalidate { object, forced } => {
                // What is never used without asking first is asked for by everybody alone.
                let collapse = !authorised
                    && (forced || object.freshness.lifetime > 0)
                    && !object.freshness.always_revalidate;
                let forward = if forced { Forward::Request } else { Forward::Stale };
                Err(Need { forward, stale: Some(object), collapse, hint: None })
            }
            Lookup::Miss { forward, hint } => {
                Err(Need { forward, stale: None, collapse: !authorised, hint })
            }
        }
    }

    fn join(self: &Arc<Self>, ask: &Ask<'_>, need: &Need, source: &Arc<dyn Source>) -> Joined {
        self.join_or_start(ask, need, source, false)
    }

    /// Under the key's lock: looks again, joins a fill that takes the request, or starts one.
    fn join_or_start(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        need: &Need,
        source: &Arc<dyn Source>,
        background: bool,
    ) -> Joined {
        let site = self.site(ask.request.site);
        self.flights.with(ask.hash, |flights| {
            let anew = need.forward == Forward::Request;
            if !anew {
                let again = lookup(&self.store, ask, self.settings.clock.mono());
                if !need.still_is(&again, background) {
                    return Joined::Stored(again);
                }
            }
            let oldest = need.stale.as_ref().map(|stale| stale.epoch.applied);
            let (epoch, guard) = site.hold(oldest);
            let hint = need.hint.clone().or_else(|| need.stale.as_ref()?.selection.clone());
            if need.collapse {
                let headers = ask.request.headers;
                let takes = |fill: &&Arc<Fill>| {
                    fill.takes(&ask.key, headers, epoch.applied, hint.as_ref(), anew)
                };
                if let Some(fill) = flights.fills().iter().find(takes) {
                    return Joined::Follower(fill.reader());
                }
            }
            let fill = Fill::new(
                ask.key.keep(ask.request.policy),
                ask.request.headers.clone(),
                need.collapse,
                epoch.applied,
            );
            flights.add(Arc::clone(&fill));
            let reader = fill.reader();
            let strip = need.collapse || need.stale.is_some();
            let job = Job {
                inner: Arc::clone(self),
                site: Arc::clone(&site),
                fill,
                hash: ask.hash,
                source: Arc::clone(source),
                request: for_source(ask.request.headers, strip),
                policy: Arc::clone(ask.request.policy),
                stale: need.stale.clone(),
                epoch,
                guard,
            };
            tokio::spawn(job.run());
            Joined::Leader(reader)
        })
    }

    /// Waits for the fill and answers from it.
    async fn read(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        need: &Need,
        reader: Reader,
        leader: bool,
        source: &Arc<dyn Source>,
    ) -> Result<Round, CacheError> {
        let progress = reader.progress().await;
        let counter = if leader { &self.counters.misses } else { &self.counters.collapsed };
        match progress {
            Progress::Waiting => Err(CacheError::Abandoned),
            Progress::Failed(error) => Err(CacheError::Source(error)),
            Progress::Object(object, answer) => {
                if !leader && !object.selected_by(ask.request.headers) {
                    return Ok(Round::Again(selection_like(ask, object.selection.as_ref())));
                }
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(Round::Answer(self.stored_answer(ask, need, &object, answer, leader)))
            }
            Progress::Head(head) => {
                if !leader && !head.takes(ask.request.headers) {
                    return Ok(Round::Again(selection_like(ask, head.selection.as_ref())));
                }
                let ranged = ask.request.headers.contains_key(RANGE);
                if head.too_large && ranged && need.collapse {
                    drop(reader);
                    let source = Arc::clone(source);
                    let passed = self.pass(&ask.request, source, Forward::Partial).await;
                    return passed.map(Round::Answer);
                }
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(Round::Answer(self.arriving_answer(ask, need, &head, reader, leader)))
            }
        }
    }

    fn stored_answer(
        &self,
        ask: &Ask<'_>,
        need: &Need,
        object: &StoredObject,
        answer: Answer,
        leader: bool,
    ) -> Response {
        let mono = self.settings.clock.mono();
        let (outcome, forward_status, detail) = match answer {
            Answer::Revalidated => {
                self.counters.revalidated.fetch_add(1, Ordering::Relaxed);
                (Outcome::Revalidated, Some(http::StatusCode::NOT_MODIFIED), None)
            }
            Answer::StaleIfError(status) => {
                self.counters.stale.fetch_add(1, Ordering::Relaxed);
                (Outcome::Stale, status, Some("stale-if-error"))
            }
        };
        let status = CacheStatus {
            hit: false,
            forward: Some(need.forward),
            forward_status,
            stored: false,
            collapsed: !leader,
            ttl: Some(object.freshness.ttl(mono)),
            detail,
        };
        let age = object.freshness.age(mono);
        respond::from_object(&ask.request, object, age, &status, outcome)
    }

    fn arriving_answer(
        &self,
        ask: &Ask<'_>,
        need: &Need,
        head: &Head,
        reader: Reader,
        leader: bool,
    ) -> Response {
        let mono = self.settings.clock.mono();
        let freshness = &head.judgement.freshness;
        let status = CacheStatus {
            hit: false,
            forward: Some(need.forward),
            forward_status: Some(head.status),
            stored: head.stored,
            collapsed: !leader,
            ttl: head.stored.then(|| freshness.ttl(mono)),
            detail: None,
        };
        let outcome = if leader { Outcome::Miss } else { Outcome::Collapsed };
        let age = freshness.age(mono);
        respond::from_head(&ask.request, head, reader, age, &status, outcome)
    }

    /// A HEAD for what is not stored goes on as a HEAD; what is stale may stand in for its failure.
    async fn pass_head(
        &self,
        ask: &Ask<'_>,
        source: Arc<dyn Source>,
        need: &Need,
    ) -> Result<Response, CacheError> {
        let passed = self.pass(&ask.request, source, need.forward).await;
        let Some(stale) = &need.stale else { return passed };
        let failed = match &passed {
            Ok(response) => matches!(response.status.as_u16(), 500 | 502..=504),
            Err(_) => true,
        };
        let mono = self.settings.clock.mono();
        let key = ask.key.keep(ask.request.policy);
        let soft = match self.site(ask.request.site).verdict(&key, stale) {
            Verdict::Dead => return passed,
            Verdict::Soft { since } => Some(since),
            Verdict::Alive => None,
        };
        if !failed || !may_stand_in(stale, soft, mono) {
            return passed;
        }
        Ok(self.stored_answer(ask, need, stale, Answer::StaleIfError(None), true))
    }

    /// Straight through, nothing stored.
    async fn pass(
        &self,
        request: &Request<'_>,
        source: Arc<dyn Source>,
        forward: Forward,
    ) -> Result<Response, CacheError> {
        let counter = if *request.method == Method::HEAD && forward != Forward::Bypass {
            &self.counters.misses
        } else {
            &self.counters.bypassed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let sent =
            SourceRequest { method: request.method.clone(), headers: request.headers.clone() };
        let answer = source.fetch(sent).await.map_err(|e| CacheError::Source(Arc::new(e)))?;
        let status = CacheStatus {
            forward: Some(forward),
            forward_status: Some(answer.status),
            ..CacheStatus::default()
        };
        let age = answer.headers.get(http::header::AGE).cloned();
        let fields = Fields::part(answer.headers, &[], None);
        let mut headers = respond::with_status(&fields.visible, &status);
        if let Some(age) = age {
            headers.insert(http::header::AGE, age);
        }
        let empty = *request.method == Method::HEAD || respond::bodiless(answer.status);
        let body = if empty { Body::Empty } else { Body::Stream(answer.body) };
        let outcome = match forward {
            Forward::Bypass | Forward::Method | Forward::Request | Forward::Partial => {
                Outcome::Bypass
            }
            Forward::UriMiss | Forward::VaryMiss | Forward::Stale => Outcome::Miss,
        };
        Ok(Response { status: answer.status, headers, body, outcome })
    }
}

impl Need {
    /// Whether the store still has just what made the need.
    fn still_is(&self, found: &Lookup, background: bool) -> bool {
        match (found, &self.stale) {
            (Lookup::Miss { .. }, None) => true,
            (Lookup::Revalidate { object, .. }, Some(stale)) => Arc::ptr_eq(object, stale),
            (Lookup::Stale { object, .. }, Some(stale)) => background && Arc::ptr_eq(object, stale),
            _ => false,
        }
    }
}

/// How the request selects by the fields that a response varies by.
fn selection_like(ask: &Ask<'_>, selection: Option<&Selection>) -> Option<Selection> {
    let names: Vec<_> = selection?.names().cloned().collect();
    Some(Selection::of(&names, ask.request.headers))
}

/// The fields that go to the source: `Accept-Encoding` in its normal form, and for a whole response
/// neither conditions nor a range of the visitor's.
fn for_source(headers: &HeaderMap, strip: bool) -> HeaderMap {
    let mut headers = headers.clone();
    if headers.contains_key(ACCEPT_ENCODING) {
        let normal = crate::vary::accept_encoding(&headers);
        if let Ok(value) = HeaderValue::try_from(normal) {
            headers.insert(ACCEPT_ENCODING, value);
        }
    }
    if strip {
        for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, RANGE, IF_RANGE] {
            headers.remove(name);
        }
    }
    headers
}
