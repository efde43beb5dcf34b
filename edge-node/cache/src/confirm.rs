//! Validation of what is stored: the validators that go to the source, and what its 304 makes of the
//! stored response (RFC 9111 sections 4.3.1, 4.3.3 and 4.3.4). Asks no source itself.

use crate::compress;
use crate::conditional;
use crate::fetch::{Exchange, Job};
use crate::fields::{Fields, VERGE_CODED, merge, with_date, with_length};
use crate::freshness::NotStored;
use crate::object::{Parts, StoredObject};
use crate::purge_index::Verdict;
use crate::shape;
use crate::store::Inserted;
use http::header::{ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderValue, StatusCode};
use std::sync::Arc;

impl Job {
    /// The stored object as a 304 confirms it, and updated by it (RFC 9111 section 4.3.4). `None` when
    /// a purge since the request was sent selects it.
    pub(crate) fn confirm(&self, exchange: &Exchange) -> Option<(StoredObject, bool)> {
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
        // What was compressed here has another length than the source's, and no word of it by now.
        with_length(&mut fields.visible, stale.status, stale.len());
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
        let object = StoredObject::with_content(parts, stale.shared_content());
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

    /// Whether a 304 is for another representation than the stored one: its strong entity-tag is not the
    /// one that was asked about, and so it selects nothing that is stored (RFC 9111 section 4.3.4). Of a
    /// weak tag the opaque part counts: there are sources that leave the `W/` away in a 304.
    pub(crate) fn is_of_another(&self, exchange: &Exchange) -> bool {
        let stored = self.stale.as_ref().and_then(|stale| entity_tag(&stale.fields().original()));
        let said = exchange.response.headers.get(ETAG).filter(|tag| conditional::is_strong(tag));
        match (stored, said) {
            (Some(stored), Some(said)) => !conditional::same_opaque(&stored, said),
            _ => false,
        }
    }

    /// What is stored is no longer what the source answers.
    pub(crate) fn drop_stale(&self) {
        if let Some(stale) = &self.stale {
            self.inner.forget(self.hash, stale);
        }
    }
}

/// Whether it is the request that keeps a response out of the store: what is stored for others stays.
pub(crate) fn for_one_visitor(reason: NotStored) -> bool {
    matches!(reason, NotStored::Authorization | NotStored::Cookie)
}

/// The entity-tag of a stored response with these fields, as the source gave it.
fn entity_tag(fields: &HeaderMap) -> Option<HeaderValue> {
    let tag = fields.get(ETAG)?;
    let own = compress::origin_etag(tag).filter(|_| fields.contains_key(VERGE_CODED));
    Some(own.unwrap_or_else(|| tag.clone()))
}

/// `If-None-Match` and `If-Modified-Since` of ours; whether there was anything to send.
pub(crate) fn add_validators(object: &StoredObject, headers: &mut HeaderMap) -> bool {
    let validator = object.field(&ETAG).is_some() || object.field(&LAST_MODIFIED).is_some();
    if !validator || object.status != StatusCode::OK {
        return false;
    }
    let fields = object.fields().original();
    if let Some(tag) = entity_tag(&fields) {
        headers.insert(IF_NONE_MATCH, tag);
    }
    if let Some(modified) = fields.get(LAST_MODIFIED) {
        headers.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    true
}
