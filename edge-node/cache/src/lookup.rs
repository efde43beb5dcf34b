//! What the store has for a request: one enum that names every outcome (RFC 9111 section 4). Reads the
//! store and the purges; starts nothing.

use crate::api::Request;
use crate::cache_status::Forward;
use crate::directives::{RequestDirectives, ResponseDirectives};
use crate::key::KeyRef;
use crate::object::StoredObject;
use crate::purge_index::Verdict;
use crate::slices;
use crate::store::{Entry, Store};
use crate::vary::Selection;
use http::header::RANGE;

/// A request with what is needed to look for it.
pub(crate) struct Ask<'a> {
    pub(crate) request: Request<'a>,
    pub(crate) key: KeyRef<'a>,
    pub(crate) hash: u64,
    pub(crate) directives: RequestDirectives,
}

/// What the store has.
pub(crate) enum Lookup {
    /// Fresh, and fresh enough for the request.
    Fresh(StoredObject),
    /// A fresh part of what is asked for: the rest can be had in slices.
    Partial(StoredObject),
    /// Stale, and may be served as it is.
    Stale {
        object: StoredObject,
        /// Whether it is to be revalidated meanwhile.
        refresh: bool,
    },
    /// To be confirmed by the source before it is used.
    Revalidate {
        object: StoredObject,
        /// What the visitor's directives demand, rather than its staleness.
        forced: bool,
    },
    /// Nothing that the request selects.
    Miss {
        /// Nothing at all, or other variants only.
        forward: Forward,
        /// How the request selects among the variants known.
        hint: Option<Selection>,
    },
}

/// Looks in the store.
pub(crate) fn lookup(store: &Store, ask: &Ask<'_>, mono: u64) -> Lookup {
    let Some(entry) = store.get(ask.hash, &ask.key) else {
        return Lookup::Miss { forward: Forward::UriMiss, hint: None };
    };
    let selected = |object: &&StoredObject| object.selected_by(ask.request.headers);
    for object in entry.variants().filter(|o| o.span.is_none()).filter(selected) {
        match object.verdict() {
            Verdict::Dead => {}
            Verdict::Alive => return weigh(object, ask, None, mono),
            Verdict::Soft { since } => return weigh(object, ask, Some(since), mono),
        }
    }
    if ask.request.headers.contains_key(RANGE) {
        let parts = entry.variants().filter(|object| object.span.is_some()).filter(selected);
        let fresh = |object: &&StoredObject| {
            object.verdict() == Verdict::Alive
                && matches!(weigh(object, ask, None, mono), Lookup::Fresh(_))
        };
        let mut longer = None;
        for object in parts.filter(fresh) {
            if slices::answers(object, &ask.request) {
                return Lookup::Fresh(object.clone());
            }
            longer = longer.or_else(|| slices::extends(object, &ask.request).map(|_| object));
        }
        if let Some(object) = longer {
            return Lookup::Partial(object.clone());
        }
    }
    miss(&entry, ask)
}

fn miss(entry: &Entry, ask: &Ask<'_>) -> Lookup {
    let alive = |object: &&StoredObject| object.verdict() != Verdict::Dead;
    let Some(object) = entry.variants().find(alive) else {
        return Lookup::Miss { forward: Forward::UriMiss, hint: None };
    };
    let hint = object.selection.as_ref().map(|selection| selection.like(ask.request.headers));
    let part = object.span.is_some() && object.selected_by(ask.request.headers);
    let forward = if part { Forward::Partial } else { Forward::VaryMiss };
    Lookup::Miss { forward, hint }
}

/// How long the object has been stale, in milliseconds; `None` while it is fresh.
pub(crate) fn staleness(object: &StoredObject, soft: Option<u64>, mono: u64) -> Option<u64> {
    let freshness = &object.freshness;
    let purged = soft.map(|since| mono.saturating_sub(since));
    if freshness.is_fresh(mono) {
        return purged;
    }
    Some(freshness.staleness_ms(mono).max(purged.unwrap_or(0)))
}

/// What a stored object is good for, given that the request selects it.
pub(crate) fn weigh(object: &StoredObject, ask: &Ask<'_>, soft: Option<u64>, mono: u64) -> Lookup {
    let freshness = &object.freshness;
    let wanted = &ask.directives;
    let old = wanted.max_age.is_some_and(|most| freshness.age(mono) > most)
        // With max-age=0 nothing stored is ever young enough, not even within its first second.
        || wanted.max_age == Some(0);
    // A reload of what does not change while it is fresh (RFC 8246 section 2).
    let immutable = old && soft.is_none() && freshness.is_fresh(mono) && is_immutable(object);
    let too_old = old && !immutable;
    let object = object.clone();
    let Some(stale_ms) = staleness(&object, soft, mono) else {
        let left = freshness.ttl(mono).max(0).unsigned_abs();
        let too_short = wanted.min_fresh.is_some_and(|least| left < least);
        return if wanted.no_cache || too_old || too_short {
            Lookup::Revalidate { object, forced: true }
        } else {
            Lookup::Fresh(object)
        };
    };
    let forbidden = freshness.stale_forbidden || freshness.always_revalidate || wanted.no_cache;
    let within = |window: u64| stale_ms <= window.saturating_mul(1000);
    if !forbidden && !too_old && wanted.min_fresh.is_none() {
        if wanted.max_stale.is_some_and(within) {
            return Lookup::Stale { object, refresh: false };
        }
        if freshness.stale_while_revalidate > 0 && within(freshness.stale_while_revalidate) {
            return Lookup::Stale { object, refresh: true };
        }
    }
    let forced = wanted.no_cache;
    Lookup::Revalidate { object, forced }
}

fn is_immutable(object: &StoredObject) -> bool {
    ResponseDirectives::of(&object.headers()).immutable
}

/// Whether a stale object may stand in for a source that fails (RFC 5861 section 4).
pub(crate) fn may_stand_in(
    object: &StoredObject,
    soft: Option<u64>,
    wanted: u64,
    mono: u64,
) -> bool {
    let freshness = &object.freshness;
    let window = freshness.stale_if_error.max(wanted);
    if freshness.stale_forbidden || freshness.always_revalidate || window == 0 {
        return false;
    }
    staleness(object, soft, mono).is_none_or(|stale| stale <= window.saturating_mul(1000))
}
