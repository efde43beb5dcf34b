//! Whether a response may be stored and how long it is fresh (RFC 9111 sections 3 and 4.2, RFC 9213,
//! RFC 5861); pure: takes the moment from its caller and keeps nothing.

use crate::clock::Now;
use crate::date;
use crate::directives::{MAX_DELTA_SECONDS, ResponseDirectives, Scoped, delta_seconds};
use http::header::{AGE, DATE, EXPIRES, HeaderName, LAST_MODIFIED, SET_COOKIE, VARY};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use verge_config::site::{CacheMode, CachePolicy};

/// `CDN-Cache-Control` (RFC 9213).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// Ours alone: wins over `CDN-Cache-Control` and is not passed on.
pub const VERGE_CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("verge-cdn-cache-control");

/// The longest lifetime that is guessed from `Last-Modified`, in seconds.
const MAX_HEURISTIC_SECONDS: u64 = 86_400;

/// Who said how long a response is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TtlSource {
    /// The site's rule for the status.
    Rule,
    /// `Verge-CDN-Cache-Control`.
    VergeCdnCacheControl,
    /// `CDN-Cache-Control`.
    CdnCacheControl,
    /// `Cache-Control: s-maxage`.
    SMaxage,
    /// `Cache-Control: max-age`.
    MaxAge,
    /// `Expires`.
    Expires,
    /// A tenth of the time since `Last-Modified` (RFC 9111 section 4.2.2).
    Heuristic,
    /// Nobody: it is stale from the start and revalidated on every use.
    Nobody,
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotStored {
    /// The site's rule says bypass, or zero seconds for this status.
    Rule,
    /// The visitor's `no-store`.
    RequestNoStore,
    /// The response's `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// An answer to `Authorization` that nothing allows to be shared (RFC 9111 section 3.5).
    Authorization,
    /// It sets or answered a cookie, and nothing says explicitly that it is for everybody.
    Cookie,
    /// A 206, 304 or other partial answer.
    Partial,
    /// `must-understand` with a status that is not known here.
    NotUnderstood,
    /// `Vary: *`, or a `Vary` that is not valid.
    Vary,
    /// Neither fresh for a moment nor something to revalidate it by.
    NoLifetime,
    /// Longer than what is stored.
    TooLarge,
    /// It did not arrive whole.
    Incomplete,
    /// A purge came while it was on its way.
    Purged,
    /// The source failed.
    SourceFailed,
}

/// How long a stored response is fresh, from when on, and what may be done with it afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// Seconds.
    pub lifetime: u64,
    /// Who said so.
    pub source: TtlSource,
    /// `corrected_initial_age` (RFC 9111 section 4.2.3), in milliseconds.
    pub initial_age_ms: u64,
    /// When it was received: milliseconds on the monotonic clock.
    pub received: u64,
    /// Seconds after the end of freshness.
    pub stale_while_revalidate: u64,
    /// Seconds after the end of freshness.
    pub stale_if_error: u64,
    /// `no-cache`: every use needs a revalidation first.
    pub always_revalidate: bool,
    /// `must-revalidate` and its kin: never served stale (RFC 9111 section 4.2.4).
    pub stale_forbidden: bool,
}

/// A response as the rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Its final status.
    pub status: StatusCode,
    /// Its fields as the source sent them.
    pub headers: &'a HeaderMap,
    /// The fields of the request that it answers.
    pub request: &'a HeaderMap,
    /// The route's policy.
    pub policy: &'a CachePolicy,
    /// When the request was sent.
    pub requested: Now,
    /// When the response's header section came.
    pub received: Now,
}

/// The verdict: its freshness, and the reason if it may not be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// How fresh it is, stored or not.
    pub freshness: Freshness,
    /// `None` when it may be stored.
    pub refused: Option<NotStored>,
    /// Fields that `no-cache="…"` or `private="…"` exclude from the store.
    pub excluded: Vec<HeaderName>,
}

// === impl Freshness ===

impl Freshness {
    /// `current_age`, in milliseconds.
    #[must_use]
    pub fn age_ms(&self, mono: u64) -> u64 {
        self.initial_age_ms.saturating_add(mono.saturating_sub(self.received))
    }

    /// `current_age`, in seconds: the `Age` field.
    #[must_use]
    pub fn age(&self, mono: u64) -> u64 {
        self.age_ms(mono) / 1000
    }

    /// Seconds of freshness left; negative once it is stale.
    #[must_use]
    pub fn ttl(&self, mono: u64) -> i64 {
        let lifetime = i64::try_from(self.lifetime).unwrap_or(i64::MAX);
        let age = i64::try_from(self.age(mono)).unwrap_or(i64::MAX);
        lifetime.saturating_sub(age)
    }

    /// `freshness_lifetime > current_age`, and no `no-cache`.
    #[must_use]
    pub fn is_fresh(&self, mono: u64) -> bool {
        !self.always_revalidate && self.lifetime.saturating_mul(1000) > self.age_ms(mono)
    }

    /// How long it has been stale, in milliseconds; zero while it is fresh.
    #[must_use]
    pub fn staleness_ms(&self, mono: u64) -> u64 {
        self.age_ms(mono).saturating_sub(self.lifetime.saturating_mul(1000))
    }
}

// === impl Judgement ===

/// Judges a response.
#[must_use]
pub fn judge(input: &Input<'_>) -> Judgement {
    let (directives, targeted) = effective(input.headers);
    let rule = match &input.policy.mode {
        CacheMode::Override(rules) => rules.of(input.status.as_u16()).map(|ttl| ttl.as_secs()),
        CacheMode::Respect | CacheMode::Bypass => None,
    };
    let (lifetime, source) = match (rule, targeted) {
        (Some(ttl), _) => (ttl.min(MAX_DELTA_SECONDS), TtlSource::Rule),
        (None, Some(source)) => targeted_lifetime(&directives, source),
        (None, None) => plain_lifetime(input, &directives),
    };
    let ruled = rule.is_some();
    let freshness = Freshness {
        lifetime,
        source,
        initial_age_ms: initial_age_ms(input),
        received: input.received.mono,
        stale_while_revalidate: input
            .policy
            .stale_while_revalidate
            .map_or(directives.stale_while_revalidate.unwrap_or(0), |window| window.as_secs()),
        stale_if_error: input
            .policy
            .stale_if_error
            .map_or(directives.stale_if_error.unwrap_or(0), |window| window.as_secs()),
        always_revalidate: !ruled && directives.no_cache == Scoped::Whole,
        // A rule of the site stands above the origin's wish, as its lifetime does.
        stale_forbidden: !ruled
            && (directives.must_revalidate
                || directives.proxy_revalidate
                || directives.s_maxage.is_some()
                || directives.no_cache == Scoped::Whole),
    };
    let refused = refusal(input, &directives, &freshness, rule);
    let mut excluded = directives.no_cache.fields().to_vec();
    excluded.extend_from_slice(directives.private.fields());
    Judgement { freshness, refused, excluded }
}

/// The directives that count, and who gave them when it was a targeted field.
fn effective(headers: &HeaderMap) -> (ResponseDirectives, Option<TtlSource>) {
    let ours = ResponseDirectives::targeted(headers, &VERGE_CDN_CACHE_CONTROL);
    if let Some(directives) = ours {
        return (directives, Some(TtlSource::VergeCdnCacheControl));
    }
    if let Some(directives) = ResponseDirectives::targeted(headers, &CDN_CACHE_CONTROL) {
        return (directives, Some(TtlSource::CdnCacheControl));
    }
    (ResponseDirectives::of(headers), None)
}

fn targeted_lifetime(directives: &ResponseDirectives, source: TtlSource) -> (u64, TtlSource) {
    match directives.s_maxage.or(directives.max_age) {
        Some(lifetime) => (lifetime, source),
        None => (0, TtlSource::Nobody),
    }
}

fn plain_lifetime(input: &Input<'_>, directives: &ResponseDirectives) -> (u64, TtlSource) {
    if let Some(lifetime) = directives.s_maxage {
        return (lifetime, TtlSource::SMaxage);
    }
    if let Some(lifetime) = directives.max_age {
        return (lifetime, TtlSource::MaxAge);
    }
    let date = date::field(input.headers, &DATE).unwrap_or(input.received.wall);
    if input.headers.contains_key(EXPIRES) {
        // An invalid date is in the past (RFC 9111 section 5.3).
        let expires = date::field(input.headers, &EXPIRES).unwrap_or(0);
        return (expires.saturating_sub(date).min(MAX_DELTA_SECONDS), TtlSource::Expires);
    }
    if (heuristically_cacheable(input.status) || directives.public)
        && let Some(modified) = date::field(input.headers, &LAST_MODIFIED)
    {
        let tenth = date.saturating_sub(modified) / 10;
        return (tenth.min(MAX_HEURISTIC_SECONDS), TtlSource::Heuristic);
    }
    (0, TtlSource::Nobody)
}

/// RFC 9110 section 15.1.
fn heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// `corrected_initial_age` (RFC 9111 section 4.2.3).
fn initial_age_ms(input: &Input<'_>) -> u64 {
    let apparent = date::field(input.headers, &DATE)
        .map_or(0, |date| input.received.wall.saturating_sub(date))
        .saturating_mul(1000);
    let delay = input.received.mono.saturating_sub(input.requested.mono);
    let corrected = age_field(input.headers).saturating_mul(1000).saturating_add(delay);
    apparent.max(corrected)
}

/// The `Age` that the source sent: the first member of the first line, its parameters dropped; what is
/// not a whole number is ignored (RFC 9111 section 5.1).
fn age_field(headers: &HeaderMap) -> u64 {
    headers
        .get(AGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(',').next())
        .and_then(|member| member.split(';').next())
        .and_then(|number| delta_seconds(number.trim()))
        .unwrap_or(0)
}

fn refusal(
    input: &Input<'_>,
    directives: &ResponseDirectives,
    freshness: &Freshness,
    rule: Option<u64>,
) -> Option<NotStored> {
    let explicit = directives.public || directives.s_maxage.is_some();
    let authorised = input.request.contains_key(http::header::AUTHORIZATION);
    let guessed =
        matches!(freshness.source, TtlSource::Heuristic | TtlSource::Rule | TtlSource::Nobody)
            && !explicit;
    let understood = input.status.canonical_reason().is_some();
    if rule == Some(0) || matches!(input.policy.mode, CacheMode::Bypass) {
        return Some(NotStored::Rule);
    }
    if matches!(input.status.as_u16(), 100..=199 | 206 | 304 | 412 | 416) {
        return Some(NotStored::Partial);
    }
    if directives.must_understand && !understood {
        return Some(NotStored::NotUnderstood);
    }
    // A cache that understands the status may disregard no-store (RFC 9111 section 5.2.2.3).
    if directives.no_store && !directives.must_understand {
        return Some(NotStored::NoStore);
    }
    if directives.private == Scoped::Whole {
        return Some(NotStored::Private);
    }
    if authorised && !explicit && !directives.must_revalidate {
        return Some(NotStored::Authorization);
    }
    // RFC 9111 section 7.3 lets explicitly fresh responses be shared with their Set-Cookie; a lifetime
    // that was guessed, or set by a rule that cannot see the cookie, never shares one.
    let sets = input.headers.contains_key(SET_COOKIE);
    let guessed_for_one = sets
        || (freshness.source != TtlSource::Rule
            && input.request.contains_key(http::header::COOKIE));
    if guessed && guessed_for_one {
        return Some(NotStored::Cookie);
    }
    if input.headers.contains_key(VARY)
        && matches!(crate::vary::parse(input.headers), crate::vary::Vary::Any)
    {
        return Some(NotStored::Vary);
    }
    lifeless(input, freshness).then_some(NotStored::NoLifetime)
}

/// Of no use in a store: never fresh, never servable stale, and without a validator.
fn lifeless(input: &Input<'_>, freshness: &Freshness) -> bool {
    let fresh = freshness.is_fresh(input.received.mono);
    let stale_use = freshness.stale_while_revalidate.max(freshness.stale_if_error) > 0;
    // An explicit lifetime makes even a stale response worth keeping: `max-stale` may ask for it.
    let explicit = !matches!(freshness.source, TtlSource::Nobody | TtlSource::Heuristic);
    let aged = explicit && freshness.lifetime > 0;
    let validator =
        input.headers.contains_key(http::header::ETAG) || input.headers.contains_key(LAST_MODIFIED);
    let revalidatable = validator && input.status == StatusCode::OK;
    !(fresh || stale_use || aged || revalidatable)
}
