//! Invalidation by unsafe methods (RFC 9111 section 4.4): what is stored for a URI goes, and what is on its
//! way to be stored will not be. Unlike a purge it is nobody's command, and leaves no mark behind.

use crate::api::Request;
use crate::cache::{Cache, Inner};
use crate::purge_index::{PurgeIndex, Verdict};
use crate::reference;
use http::{HeaderMap, header};
use verge_config::purge::{Mode, Selector};

impl Cache {
    /// After a non-error response to an unsafe method: what is stored for the target URI, and for
    /// `Location` and `Content-Location` of the same origin, is gone (RFC 9111 section 4.4), and fills
    /// that are under way for them will not be stored.
    pub fn invalidate(&self, request: &Request<'_>, response_headers: &HeaderMap) {
        self.inner.invalidate(request);
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let Some(value) = response_headers.get(&name).and_then(|v| v.to_str().ok()) else {
                continue;
            };
            let target = reference::resolve(value, request);
            if let Some(target) = target.filter(|t| t.scheme.is_none_or(|s| s == request.scheme)) {
                let (path, query) = (target.path.as_str(), target.query.as_deref());
                self.inner.invalidate(&Request { path, query, ..*request });
            }
        }
    }
}

impl Inner {
    fn invalidate(&self, request: &Request<'_>) {
        let Request { host, path, .. } = request;
        let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
        let url = [Selector::Url(format!("http://{host}{path}{query}"))];
        // Copies under every scheme, field, cookie and slice: the index alone knows what the URL selects.
        let mut only = PurgeIndex::default();
        only.insert(&url, Mode::Hard, u64::MAX, 0);
        let site = self.site(request.site);
        self.flights.each(|fill| {
            let same = *fill.key.site() == **request.site;
            if same && only.judge(&fill.key, &[], 0) == Verdict::Dead {
                fill.doom();
            }
        });
        for object in site.catalogue.candidates(&url) {
            let hash = object.key.hash(&self.hasher);
            self.flights.with(hash, |_| {
                self.store.retain(hash, |object| only.verdict(object) == Verdict::Alive);
            });
            self.store.remove_file(&object);
        }
    }
}
