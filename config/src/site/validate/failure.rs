//! What a site says of failing and of too many requests at once: its breakers, what takes a failing
//! handler's place, and its share of an edge's instances.

use super::choice;
use crate::Faults;
use crate::read::key_notation;
use crate::site::{
    BreakerDocument, BreakerLimits, CacheMode, CachePolicy, CachePosition, Handler, OnFailure,
    Route, Target,
};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The most requests of a site's handlers at once that can be asked for; an edge may give less.
pub const MAX_HANDLER_CONCURRENCY: u64 = 100_000;
/// How many failures may trip a breaker.
const FAILURES: RangeInclusive<u64> = 1..=100_000;
/// How long the failures may take.
const WINDOW: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

pub(super) fn concurrency(raw: Option<u64>, faults: &mut Faults) -> Option<u32> {
    let most = MAX_HANDLER_CONCURRENCY;
    let count = faults.count("handler_concurrency", raw, most, 1..=most);
    raw.and_then(|_| u32::try_from(count).ok())
}

pub(super) fn on_failure(path: &str, raw: Option<&str>, faults: &mut Faults) -> OnFailure {
    let values =
        [("error", OnFailure::Error), ("stale", OnFailure::Stale), ("bypass", OnFailure::Bypass)];
    choice(&format!("{path}.on_failure"), raw, &values, faults).unwrap_or_default()
}

pub(super) fn breaker(
    path: &str,
    raw: Option<&BreakerDocument>,
    faults: &mut Faults,
) -> BreakerLimits {
    let default = BreakerLimits::default();
    let Some(raw) = raw else { return default };
    let at = |name: &str| format!("{path}.breaker.{name}");
    let failures =
        faults.count(&at("failures"), raw.failures, u64::from(default.failures), FAILURES);
    BreakerLimits {
        failures: u32::try_from(failures).unwrap_or(default.failures),
        window: faults.duration(&at("window"), raw.window.as_deref(), default.window, WINDOW),
    }
}

/// What a cache before a handler keeps may stand in for it, where the handler's site says so and the
/// route does not say for how long.
pub(super) fn stand_in(target: Option<&Target>, policy: &mut CachePolicy) {
    if let Some(Target::Handler { chain, .. }) = target
        && chain.first().is_some_and(|handler| handler.on_failure == OnFailure::Stale)
        && is_before(policy)
        && policy.stale_if_error.is_none()
    {
        policy.stale_if_error = Some(BreakerLimits::STALE);
    }
}

/// What takes a failing handler's place must be there on its routes. Before a handler that is not its
/// route's first stands no cache; what takes the place of one that is not its last is the next one.
pub(super) fn check_routes(
    handlers: &BTreeMap<String, Arc<Handler>>,
    routes: &[Arc<Route>],
    faults: &mut Faults,
) {
    for (name, handler) in handlers {
        let path = format!("handlers.{}.on_failure", key_notation(name));
        let own = routes.iter().filter_map(|route| match &route.target {
            Target::Handler { chain, origin } => {
                let is =
                    |other: Option<&Arc<Handler>>| other.is_some_and(|other| *other.name == **name);
                let is_in = chain.handlers().iter().any(|other| is(Some(other)));
                is_in.then(|| (route, is(chain.first()), is(chain.last()) && origin.is_none()))
            }
            _ => None,
        });
        match handler.on_failure {
            OnFailure::Error => {}
            OnFailure::Stale => {
                let mut own = own.peekable();
                let is_kept =
                    |(route, is_first, _): (&Arc<Route>, _, _)| is_first && is_before(&route.cache);
                if own.peek().is_some() && !own.any(is_kept) {
                    let hint =
                        "give a route that it is the first of cache = { position = \"before\" }";
                    faults.add(path, format!("\"stale\" needs a cache before the handler; {hint}"));
                }
            }
            OnFailure::Bypass => {
                for (route, _, _) in own.filter(|(_, _, lacks_origin)| *lacks_origin) {
                    let index = route.index;
                    let message = format!("\"bypass\" needs an origin; routes[{index}] names none");
                    faults.add(path.as_str(), message);
                }
            }
        }
    }
}

fn is_before(policy: &CachePolicy) -> bool {
    matches!(policy.position, CachePosition::Before | CachePosition::Both)
        && policy.mode != CacheMode::Bypass
}
