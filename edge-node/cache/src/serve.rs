//! The way of a request that is more than a plain hit: look up, join or start a fill, wait for its
//! header section, answer. Everything that arrives is read from a fill, never from the source itself,
//! save what is not for the cache at all.

use crate::api::{Body, Outcome, Request, Response, Source, SourceRequest};
use crate::cache::{Cache, Inner};
use crate::cache_status::{CacheStatus, Forward};
use crate::compress;
use crate::directives::RequestDirectives;
use crate::error::CacheError;
use crate::fields::Fields;
use crate::fill::{Answer, Head, Progress, Reader};
use crate::key::KeyRef;
use crate::lookup::{Ask, Lookup, lookup, may_stand_in};
use crate::object::StoredObject;
use crate::purge_index::Verdict;
use crate::respond::{self, Needed, Prepared};
use crate::slices::Asked;
use crate::start::{Joined, Need};
use crate::tier::Held;
use crate::vary::Selection;
use http::Method;
use http::header::{AUTHORIZATION, IF_MATCH, IF_UNMODIFIED_SINCE, RANGE};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use verge_config::site::{CacheMode, ClientCacheControl};

/// How often a request joins a fill that turns out not to be for it before it goes on alone.
const MAX_ROUNDS: usize = 4;

/// What the store has got for a request.
pub(crate) enum Settled {
    Answer(Response),
    Need(Need),
    /// What it had could not be read, and is gone.
    Damaged,
}

/// The way a round ended.
pub(crate) enum Round {
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
            let mut need = match self.settle(&ask, found, &source).await {
                Settled::Answer(response) => return Ok(response),
                Settled::Need(need) => need,
                Settled::Damaged => {
                    found = lookup(&self.store, &ask, self.settings.clock.mono());
                    continue;
                }
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
            let marks = self.mark_count();
            if self.is_unshared(ask.hash) {
                need.collapse = false;
                need.detail = Some("hit-for-miss");
            }
            need.unmarked = need.collapse.then_some(marks);
            if need.collapse && need.stale.is_none() {
                need.asked = Asked::cold(ask.request.headers);
                // Where nothing is stored at all there is nothing to look for.
                if matches!(need.forward, Forward::Partial | Forward::VaryMiss) {
                    need.completion = self.completion(&ask);
                }
            }
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
        self.pass(&ask.request, source, Forward::UriMiss).await
    }

    /// Answers what the store can answer; otherwise says what is needed.
    async fn settle(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        found: Lookup,
        source: &Arc<dyn Source>,
    ) -> Settled {
        let mono = self.settings.clock.mono();
        let authorised = ask.request.headers.contains_key(AUTHORIZATION);
        match found {
            Lookup::Fresh(object) => {
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                let status = CacheStatus::hit(object.freshness.ttl(mono));
                self.stored(ask, &object, (&status, Outcome::Hit)).await
            }
            Lookup::Partial(object) => self.sliced(ask, &object, source).await,
            Lookup::Stale { object, refresh } => {
                self.counters.stale.fetch_add(1, Ordering::Relaxed);
                // A soft purge makes stale what is young.
                let ttl = object.freshness.ttl(mono).min(0);
                let status = CacheStatus { detail: Some("stale"), ..CacheStatus::hit(ttl) };
                let settled = self.stored(ask, &object, (&status, Outcome::Stale)).await;
                if refresh && !authorised && matches!(settled, Settled::Answer(_)) {
                    let need = Need { stale: Some(object), ..Need::new(Forward::Stale, true) };
                    // Nobody waits for it; if one is under way already, that one does.
                    drop(self.join_or_start(ask, &need, source, true));
                }
                settled
            }
            Lookup::Revalidate { object, forced } => {
                // What is never used without asking first is asked for by everybody alone.
                let collapse = !authorised
                    && (forced || object.freshness.lifetime > 0)
                    && !object.freshness.always_revalidate;
                let forward = if forced { Forward::Request } else { Forward::Stale };
                Settled::Need(Need { stale: Some(object), ..Need::new(forward, collapse) })
            }
            Lookup::Miss { forward, hint } => {
                Settled::Need(Need { hint, ..Need::new(forward, !authorised) })
            }
        }
    }

    /// Answers with a stored object.
    async fn stored(
        &self,
        ask: &Ask<'_>,
        object: &StoredObject,
        as_what: (&CacheStatus, Outcome),
    ) -> Settled {
        let prepared = Prepared::of(&ask.request, object);
        let held = match prepared.needs() {
            Needed::Nothing => Ok(None),
            Needed::Content => self.store.hold(object).await.map(Some),
            Needed::Bytes => self.store.bytes(object).await.map(|bytes| Some(Held::Bytes(bytes))),
        };
        let Ok(held) = held else {
            self.forget(ask.hash, object);
            return Settled::Damaged;
        };
        let age = object.freshness.age(self.settings.clock.mono());
        Settled::Answer(prepared.with(held, age, as_what))
    }

    /// An object that cannot be read is of no use.
    pub(crate) fn forget(&self, hash: u64, object: &StoredObject) {
        self.store.retain(hash, |other| !other.is(object));
    }

    fn join(self: &Arc<Self>, ask: &Ask<'_>, need: &Need, source: &Arc<dyn Source>) -> Joined {
        self.join_or_start(ask, need, source, false)
    }

    /// Waits for a fill of its own and answers from it.
    pub(crate) async fn answer_of(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        need: &Need,
        reader: Reader,
        source: &Arc<dyn Source>,
    ) -> Result<Response, CacheError> {
        match self.read(ask, need, reader, true, source).await? {
            Round::Answer(response) => Ok(response),
            Round::Again(_) => Err(CacheError::Abandoned),
        }
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
            Progress::Failed(cause) => {
                let status = CacheStatus {
                    forward: Some(need.forward),
                    collapsed: !leader,
                    detail: need.detail,
                    ..CacheStatus::default()
                };
                Err(CacheError::Source { cause, status })
            }
            Progress::Object(object, answer) => {
                if !leader && !object.selected_by(ask.request.headers) {
                    return Ok(Round::Again(selection_like(ask, object.selection.as_deref())));
                }
                counter.fetch_add(1, Ordering::Relaxed);
                match self.stored_answer(ask, need, &object, answer, leader).await {
                    Settled::Answer(response) => Ok(Round::Answer(response)),
                    Settled::Need(_) | Settled::Damaged => Ok(Round::Again(None)),
                }
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
                if let Some(way) = self.beyond(ask, &head, leader) {
                    return self.go_beyond(ask, way, (head, reader), source).await;
                }
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(Round::Answer(self.arriving_answer(ask, need, &head, reader, leader)))
            }
        }
    }

    async fn stored_answer(
        &self,
        ask: &Ask<'_>,
        need: &Need,
        object: &StoredObject,
        answer: Answer,
        leader: bool,
    ) -> Settled {
        let mono = self.settings.clock.mono();
        let mut stored = false;
        let (outcome, forward_status, detail) = match answer {
            Answer::Revalidated { stored: refreshed } => {
                stored = refreshed;
                self.counters.revalidated.fetch_add(1, Ordering::Relaxed);
                (Outcome::Revalidated, Some(http::StatusCode::NOT_MODIFIED), None)
            }
            Answer::StaleIfError(status) => {
                self.counters.stale.fetch_add(1, Ordering::Relaxed);
                (Outcome::Stale, status, Some("stale-if-error"))
            }
        };
        let ttl = object.freshness.ttl(mono);
        let is_stale = need.forward == Forward::Stale && outcome == Outcome::Stale;
        let status = CacheStatus {
            hit: false,
            forward: Some(need.forward),
            forward_status,
            stored,
            collapsed: !leader,
            ttl: Some(if is_stale { ttl.min(0) } else { ttl }),
            detail,
        };
        self.stored(ask, object, (&status, outcome)).await
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
            forward_status: Some(head.source_status),
            stored: head.stored,
            collapsed: !leader,
            ttl: head.stored.then(|| freshness.ttl(mono)),
            detail: need.detail,
        };
        let outcome = if leader { Outcome::Miss } else { Outcome::Collapsed };
        let age = freshness.age(mono);
        respond::from_head(&ask.request, head, reader, age, (&status, outcome))
    }

    /// A HEAD for what is not stored goes on as a HEAD; what is stale may stand in for its failure.
    async fn pass_head(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        source: Arc<dyn Source>,
        need: &Need,
    ) -> Result<Response, CacheError> {
        let begun = Cache { inner: Arc::clone(self) }.begin(ask.request.site);
        let passed = self.pass(&ask.request, source, need.forward).await;
        if let (Some(stored), Ok(response)) = (&need.stale, &passed) {
            self.weigh_head(ask, stored, begun, (response.status, &response.headers));
        }
        let Some(stale) = &need.stale else { return passed };
        let failed = match &passed {
            Ok(response) => matches!(response.status.as_u16(), 500 | 502..=504),
            Err(_) => true,
        };
        let mono = self.settings.clock.mono();
        let soft = match stale.verdict() {
            Verdict::Dead => return passed,
            Verdict::Soft { since } => Some(since),
            Verdict::Alive => None,
        };
        if !failed || !may_stand_in(stale, soft, ask.directives.stale_if_error.unwrap_or(0), mono) {
            return passed;
        }
        match self.stored_answer(ask, need, stale, Answer::StaleIfError(None), true).await {
            Settled::Answer(response) => Ok(response),
            Settled::Need(_) | Settled::Damaged => passed,
        }
    }

    /// Straight through, nothing stored.
    pub(crate) async fn pass(
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
        let mut sent = request.headers.clone();
        compress::restore_conditions(&mut sent);
        let sent = SourceRequest { method: request.method.clone(), headers: sent };
        let mut status = CacheStatus { forward: Some(forward), ..CacheStatus::default() };
        let answer = source
            .fetch(sent)
            .await
            .map_err(|cause| CacheError::Source { cause: Arc::new(cause), status })?;
        status.forward_status = Some(answer.status);
        let age = answer.headers.get(http::header::AGE).cloned();
        let fields = Fields::part(answer.headers, &[], None);
        let mut headers = respond::with_status(fields.visible, &status);
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

/// How the request selects by the fields that a response varies by.
fn selection_like(ask: &Ask<'_>, selection: Option<&Selection>) -> Option<Selection> {
    Some(selection?.like(ask.request.headers))
}
