//! Where a fill begins: what is needed of the source, and the one place, under the key's lock, where a
//! request joins a fill or starts one.

use crate::api::Source;
use crate::cache::Inner;
use crate::cache_status::Forward;
use crate::complete::Completion;
use crate::compress;
use crate::fetch::Job;
use crate::fill::{Fill, Reader};
use crate::lookup::{Ask, Lookup, lookup};
use crate::object::{Epoch, StoredObject};
use crate::site::EpochGuard;
use crate::slices::Asked;
use crate::vary::Selection;
use http::header::{ACCEPT_ENCODING, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;

/// Why a fill is needed, and how it is to be made.
pub(crate) struct Need {
    pub(crate) forward: Forward,
    /// What is stored and may be confirmed or stand in.
    pub(crate) stale: Option<StoredObject>,
    /// Whether it may be shared with others.
    pub(crate) collapse: bool,
    /// How many hit-for-miss marks there had been when its key was seen to have none, where that is why
    /// it may be shared. One that was left since then, by a fill that is over, says that waiting for
    /// another is in vain.
    pub(crate) unmarked: Option<u64>,
    /// How the request selects among variants, where that is known.
    pub(crate) hint: Option<Selection>,
    /// The part that is needed; all of it when there is none.
    pub(crate) asked: Option<Asked>,
    /// The stored part whose missing bytes are enough.
    pub(crate) completion: Option<Completion>,
    /// A word for `Cache-Status`.
    pub(crate) detail: Option<&'static str>,
}

/// The result of looking for a fill under the key's lock.
pub(crate) enum Joined {
    /// This request's own.
    Leader(Reader),
    /// Another's.
    Follower(Reader),
    /// The store has got an answer meanwhile.
    Stored(Lookup),
}

impl Need {
    pub(crate) fn new(forward: Forward, collapse: bool) -> Need {
        Need {
            forward,
            stale: None,
            collapse,
            unmarked: None,
            hint: None,
            asked: None,
            completion: None,
            detail: None,
        }
    }

    /// A part, which others may share.
    pub(crate) fn part(forward: Forward, asked: Asked) -> Need {
        Need { asked: Some(asked), ..Need::new(forward, true) }
    }

    /// Whether the store still has just what made the need.
    fn still_is(&self, found: &Lookup, background: bool) -> bool {
        match (found, &self.stale) {
            (Lookup::Miss { .. }, None) => true,
            (Lookup::Revalidate { object, .. }, Some(stale)) => object.is(stale),
            (Lookup::Stale { object, .. }, Some(stale)) => background && object.is(stale),
            _ => false,
        }
    }
}

impl Inner {
    /// Under the key's lock: looks again, joins a fill that takes the request, or starts one.
    pub(crate) fn join_or_start(
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
            if need.unmarked.is_some_and(|marks| self.marked_since(ask.hash, marks)) {
                return Joined::Stored(lookup(&self.store, ask, self.settings.clock.mono()));
            }
            let part = need.completion.as_ref().map(|completion| completion.epoch().applied);
            let oldest = need.stale.as_ref().map(|stale| stale.epoch.applied).or(part);
            let (epoch, guard) = site.hold(oldest);
            let hint =
                need.hint.clone().or_else(|| need.stale.as_ref()?.selection.as_deref().cloned());
            if need.collapse {
                let headers = ask.request.headers;
                let asked = (need.asked.as_ref(), anew);
                let takes = |fill: &&Arc<Fill>| {
                    fill.takes(&ask.key, headers, epoch.applied, hint.as_ref(), asked)
                };
                // One that has dropped its beginning has no reader for those who come now.
                let mut fills = flights.fills().iter().filter(takes);
                if let Some(reader) = fills.find_map(|fill| fill.reader()) {
                    return Joined::Follower(reader);
                }
            }
            let job = self.job(ask, need, source, (epoch, guard), background);
            let (fill, reader) = (Arc::clone(&job.fill), job.fill.reader());
            flights.add(fill);
            tokio::spawn(job.run());
            match reader {
                Some(reader) => Joined::Leader(reader),
                // A fill that has just begun has dropped nothing.
                None => Joined::Stored(Lookup::Miss { forward: need.forward, hint: None }),
            }
        })
    }

    /// A fill of its own, that nobody joins before it has an answer.
    pub(crate) fn start(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        need: &Need,
        source: &Arc<dyn Source>,
        begun: (Epoch, EpochGuard),
    ) -> Option<Reader> {
        self.flights.with(ask.hash, |flights| {
            let job = self.job(ask, need, source, begun, false);
            let (fill, reader) = (Arc::clone(&job.fill), job.fill.reader());
            flights.add(fill);
            tokio::spawn(job.run());
            reader
        })
    }

    fn job(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        need: &Need,
        source: &Arc<dyn Source>,
        (epoch, guard): (Epoch, EpochGuard),
        background: bool,
    ) -> Job {
        let fill = Fill::new(
            Arc::new(ask.key.keep()),
            ask.request.headers.clone(),
            (need.collapse, need.asked.clone()),
            epoch.applied,
        );
        Job {
            inner: Arc::clone(self),
            site: self.site(ask.request.site),
            fill,
            hash: ask.hash,
            source: Arc::clone(source),
            request: for_source(ask.request.headers, need.collapse || need.stale.is_some()),
            policy: Arc::clone(ask.request.policy),
            stale: need.stale.clone(),
            wanted_if_error: ask.directives.stale_if_error.unwrap_or(0),
            asked: need.asked.clone(),
            completion: need.completion.clone(),
            background,
            epoch,
            guard: Some(guard),
        }
    }
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
    } else {
        compress::restore_conditions(&mut headers);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{SourceError, SourceRequest, SourceResponse};
    use crate::cache::{Cache, Passing, Settings};
    use crate::directives::RequestDirectives;
    use crate::key::KeyRef;
    use crate::site_name::SiteName;
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use http::Method;
    use verge_config::site::CachePolicy;

    /// A source that never answers: a fill of it stays as it was begun.
    struct Silent;

    impl Source for Silent {
        fn fetch(
            &self,
            _: SourceRequest,
        ) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
            futures::future::pending().boxed()
        }
    }

    /// A request that found no mark on its key, and then, before it has the key's lock, a fill ends that
    /// leaves one and another begins: that one's answer is for its own visitor, too.
    #[tokio::test]
    async fn a_mark_left_since_the_request_looked_keeps_it_from_waiting() {
        let cache = Cache::new(Settings::default());
        let inner = &cache.inner;
        let (site, policy) = (SiteName::from("s"), Arc::new(CachePolicy::default()));
        let (method, headers) = (Method::GET, HeaderMap::new());
        let request = crate::api::Request {
            site: &site,
            scheme: "https",
            host: "h",
            path: "/",
            query: None,
            method: &method,
            headers: &headers,
            policy: &policy,
        };
        let key = KeyRef::of(&request);
        let hash = key.hash(&inner.hasher);
        let ask = Ask { request, key, hash, directives: RequestDirectives::default() };
        let source: Arc<dyn Source> = Arc::new(Silent);
        let join = |need: &Need| inner.join_or_start(&ask, need, &source, false);

        let seen = inner.mark_count();
        let need = || Need { unmarked: Some(seen), ..Need::new(Forward::UriMiss, true) };
        let first = join(&need());
        assert!(matches!(first, Joined::Leader(_)));
        // For control: nothing was left on the key, so it waits; nor on another's.
        assert!(matches!(join(&need()), Joined::Follower(_)));
        inner.mark(hash.wrapping_add(1), Some(Passing::Unshared), None, 0);
        assert!(matches!(join(&need()), Joined::Follower(_)));
        inner.mark(hash, Some(Passing::Unshared), None, 0);
        assert!(matches!(join(&need()), Joined::Stored(Lookup::Miss { .. })), "it looks again");
    }
}
