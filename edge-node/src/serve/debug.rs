//! What the holder of a site's debug token is told in the response: `Verge-Explain`, a fuller
//! `Cache-Status`, `Server-Timing`. The token itself ends here: no origin, handler, key or log sees it.

use super::{Admitted, Edge};
use crate::respond::EdgeError;
use crate::snapshot::SiteRuntime;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use verge_cache::cache_status::CACHE_STATUS;
use verge_cache::freshness::{self, Input, Judgement};
use verge_cache::{
    Clock, Explanation, Now, Outcome, Source, SourceError, SourceRequest, SourceResponse, State,
    Tier,
};
use verge_config::site::{Route, Target};

/// The field that carries a token.
pub const VERGE_DEBUG: HeaderName = HeaderName::from_static("verge-debug");
const VERGE_EXPLAIN: HeaderName = HeaderName::from_static("verge-explain");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 256;
/// The longest text in a field, in bytes; a longer one is cut.
const MAX_TEXT_BYTES: usize = 512;
/// The most tags in a field.
const MAX_TAGS: usize = 32;

/// A request whose answer is explained.
pub(super) struct Debugging {
    began: Instant,
    site: Arc<SiteRuntime>,
    route: Arc<Route>,
    request: Admitted,
    /// As the request found it.
    before: Explanation,
    seen: Arc<Mutex<Option<Seen>>>,
}

/// The head of what the source answered to this very request.
struct Seen {
    status: StatusCode,
    headers: HeaderMap,
    requested: Now,
    received: Now,
    took: Duration,
}

/// A source that is watched.
struct Watched {
    source: Arc<dyn Source>,
    seen: Arc<Mutex<Option<Seen>>>,
}

/// The facts of one answer.
struct Facts {
    decision: &'static str,
    tier: Tier,
    ttl_source: Option<String>,
    remaining: Option<i64>,
    stored: bool,
    why: Option<String>,
}

/// Takes the token out of a request's fields. Several are none.
pub(super) fn take_token(headers: &mut HeaderMap) -> Option<HeaderValue> {
    if !headers.contains_key(VERGE_DEBUG) {
        return None;
    }
    let alone = headers.get_all(VERGE_DEBUG).iter().count() == 1;
    headers.remove(VERGE_DEBUG).filter(|token| alone && token.len() <= MAX_TOKEN_BYTES)
}

/// Whether a token is one of the site's: all hashes are compared, each in full, so that the time
/// tells nothing.
fn is_holder(hashes: &[[u8; 32]], token: &HeaderValue) -> bool {
    let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    let differs = |known: &[u8; 32]| {
        let bits = known.iter().zip(&hash).fold(0, |bits, (a, b)| bits | (a ^ b));
        std::hint::black_box(bits) != 0
    };
    hashes.iter().fold(false, |found, known| found | !differs(known))
}

/// A word of the cache's as a structured-field token.
pub(super) fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text.replace('_', "-"),
        _ => String::new(),
    }
}

// === impl Debugging ===

impl Debugging {
    /// Begins where the request's token is one of the site's.
    pub(super) fn begin(
        edge: &Edge,
        token: Option<&HeaderValue>,
        site: &Arc<SiteRuntime>,
        route: &Arc<Route>,
        request: &Admitted,
    ) -> Option<Box<Debugging>> {
        if !is_holder(&site.site.debug_tokens, token?) {
            return None;
        }
        Some(Box::new(Debugging {
            began: Instant::now(),
            site: Arc::clone(site),
            route: Arc::clone(route),
            request: request.clone(),
            before: edge.cache.explain(&request.key(site, &route.cache)),
            seen: Arc::default(),
        }))
    }

    /// The source, watched.
    pub(super) fn watch(&self, source: Arc<dyn Source>) -> Arc<dyn Source> {
        Arc::new(Watched { source, seen: Arc::clone(&self.seen) })
    }

    /// Adds what is told to the fields of the answer.
    pub(super) fn tell(&self, edge: &Edge, outcome: Option<Outcome>, headers: &mut HeaderMap) {
        let after = edge.cache.explain(&self.request.key(&self.site, &self.route.cache));
        let facts = self.facts(outcome, &after, headers);
        fuller_status(headers, &self.before.key, &facts);
        let text = self.dictionary(&facts, &after);
        insert(headers, VERGE_EXPLAIN, &text);
        self.time(headers, facts.decision);
    }

    /// Adds what is told to an answer that is the edge's own, for want of one.
    pub(super) fn tell_failure(&self, edge: &Edge, error: &EdgeError, headers: &mut HeaderMap) {
        let after = edge.cache.explain(&self.request.key(&self.site, &self.route.cache));
        let facts = Facts {
            decision: "failed",
            tier: Tier::None,
            ttl_source: None,
            remaining: None,
            stored: false,
            why: Some(format!("status-{}", error.status().as_u16())),
        };
        let text = self.dictionary(&facts, &after);
        insert(headers, VERGE_EXPLAIN, &text);
        self.time(headers, facts.decision);
    }

    fn facts(&self, outcome: Option<Outcome>, after: &Explanation, headers: &HeaderMap) -> Facts {
        let mut facts = Facts {
            decision: self.decision(outcome),
            tier: Tier::None,
            ttl_source: None,
            remaining: None,
            stored: false,
            why: None,
        };
        match outcome {
            Some(Outcome::Hit | Outcome::Stale) => facts.take(&self.before, self.before.tier),
            Some(Outcome::Revalidated) => facts.take(after, self.before.tier),
            Some(Outcome::Miss | Outcome::Collapsed) => {
                match self.judgement() {
                    Some(judgement) => facts.judge(&judgement),
                    None => facts.take(after, Tier::None),
                }
                facts.stored = own_status(headers).is_some_and(|own| own.contains("; stored"));
                if facts.stored {
                    facts.why = None;
                } else if facts.why.is_none() {
                    facts.why = after.not_stored.map(word);
                }
            }
            Some(Outcome::Bypass) => {
                let reason = own_status(headers).and_then(|own| {
                    let rest = own.split_once("fwd=")?.1;
                    Some(rest.split([';', ' ']).next().unwrap_or_default().to_owned())
                });
                facts.why = reason.or_else(|| Some("bypass".to_owned()));
            }
            None => facts.why = Some("not-for-the-cache".to_owned()),
        }
        facts
    }

    fn decision(&self, outcome: Option<Outcome>) -> &'static str {
        match (outcome, &self.route.target) {
            (Some(Outcome::Hit), _) => "hit",
            (Some(Outcome::Stale), _) => "stale",
            (Some(Outcome::Revalidated), _) => "revalidated",
            (Some(Outcome::Miss), _) => "miss",
            (Some(Outcome::Collapsed), _) => "collapsed",
            (Some(Outcome::Bypass), _) => "bypass",
            (None, Target::Static(_)) => "static",
            (None, Target::Redirect { .. }) => "redirect",
            (None, Target::Origin(_) | Target::Handler { .. }) => "passed",
        }
    }

    /// What the cache's rules say of the answer that was fetched for this request.
    fn judgement(&self) -> Option<Judgement> {
        let seen = self.seen.lock();
        let seen = seen.as_ref().filter(|seen| seen.status != StatusCode::NOT_MODIFIED)?;
        Some(freshness::judge(&Input {
            status: seen.status,
            headers: &seen.headers,
            request: &self.request.headers,
            policy: &self.route.cache,
            requested: seen.requested,
            received: seen.received,
        }))
    }

    /// `Verge-Explain`: a dictionary (RFC 9651 section 3.2).
    fn dictionary(&self, facts: &Facts, after: &Explanation) -> String {
        let mut out = Dictionary::default();
        out.bare("rule", &self.route.index.to_string());
        out.parameter("path", self.route.path.as_str());
        let target = match &self.route.target {
            Target::Origin(origin) => format!("origin {}", origin.name),
            Target::Handler { chain, .. } => format!("handler {}", chain.name()),
            Target::Redirect { .. } => "redirect".to_owned(),
            Target::Static(_) => "static".to_owned(),
        };
        out.parameter("target", &target);
        out.bare("decision", facts.decision);
        out.text("key", &self.before.key);
        if let Some(variant) = self.before.variant.as_ref().or(after.variant.as_ref()) {
            out.text("variant", variant);
        }
        out.bare("tier", &word(facts.tier));
        if let Some(source) = &facts.ttl_source {
            out.bare("ttl-source", source);
        }
        if let Some(remaining) = facts.remaining {
            out.bare("remaining", &remaining.to_string());
        }
        let stored = if self.before.state == State::Absent { after } else { &self.before };
        out.list("tags", &stored.tags);
        if let Some(epoch) = stored.epoch {
            out.bare("epoch", &epoch.to_string());
        }
        out.bare("purged", &after.purged.to_string());
        out.bare("stored", if facts.stored { "?1" } else { "?0" });
        if let Some(why) = &facts.why {
            out.bare("why", why);
        }
        out.text("site", &self.site.name);
        out.bare("version", &self.site.version.to_string());
        out.bare("took-ms", &milliseconds(self.began.elapsed()));
        out.0
    }

    /// `Server-Timing`: up to the head of the answer, and of that the source's part.
    fn time(&self, headers: &mut HeaderMap, decision: &str) {
        let took = milliseconds(self.began.elapsed());
        let mut text = format!("verge;desc=\"{decision}\";dur={took}");
        if let Some(seen) = &*self.seen.lock() {
            let _ = write!(text, ", source;dur={}", milliseconds(seen.took));
        }
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(SERVER_TIMING, value);
        }
    }
}

// === impl Facts ===

impl Facts {
    /// What is told of a stored response.
    fn take(&mut self, explanation: &Explanation, tier: Tier) {
        self.tier = tier;
        self.ttl_source = explanation.ttl_source.map(word);
        self.remaining = explanation.ttl;
        self.stored = explanation.tier != Tier::None;
        self.why = explanation.not_stored.map(word);
    }

    fn judge(&mut self, judgement: &Judgement) {
        self.ttl_source = Some(word(judgement.freshness.source));
        self.remaining = Some(judgement.freshness.ttl(Clock::System.mono()));
        self.why = judgement.refused.map(word);
    }
}

// === impl Watched ===

impl Source for Watched {
    fn fetch(
        &self,
        request: SourceRequest,
    ) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
        let (seen, requested) = (Arc::clone(&self.seen), Clock::System.now());
        let began = Instant::now();
        let answer = self.source.fetch(request);
        Box::pin(async move {
            let answer = answer.await?;
            *seen.lock() = Some(Seen {
                status: answer.status,
                headers: answer.headers.clone(),
                requested,
                received: Clock::System.now(),
                took: began.elapsed(),
            });
            Ok(answer)
        })
    }
}

/// This cache's own member of `Cache-Status`, which is the last one.
fn own_status(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(CACHE_STATUS).iter().next_back()?.to_str().ok()
}

/// Adds `key` and `detail` to this cache's own member (RFC 9211 sections 2.7 and 2.8).
fn fuller_status(headers: &mut HeaderMap, key: &str, facts: &Facts) {
    let mut values: Vec<HeaderValue> = headers.get_all(CACHE_STATUS).iter().cloned().collect();
    let Some(own) = values.last_mut() else { return };
    let mut text = own.to_str().unwrap_or_default().to_owned();
    let _ = write!(text, "; key=\"{}\"", escaped(key));
    if !text.contains("; detail=") {
        let detail = match (&facts.why, &facts.ttl_source) {
            (Some(why), _) => why.clone(),
            (None, Some(source)) => source.clone(),
            (None, None) => facts.decision.to_owned(),
        };
        let _ = write!(text, "; detail={detail}");
    }
    let Ok(value) = HeaderValue::try_from(text) else { return };
    *own = value;
    headers.remove(CACHE_STATUS);
    for value in values {
        headers.append(CACHE_STATUS, value);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// An sf-decimal with three digits behind the point.
fn milliseconds(took: Duration) -> String {
    let micros = took.as_micros();
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

/// The inside of an sf-string (RFC 9651 section 3.3.3): printable ASCII, all else as `%XX`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if out.len() >= MAX_TEXT_BYTES {
            out.push_str("...");
            break;
        }
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            0x20..=0x7e => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// A dictionary as it is written.
#[derive(Default)]
struct Dictionary(String);

// === impl Dictionary ===

impl Dictionary {
    fn key(&mut self, key: &str) {
        if !self.0.is_empty() {
            self.0.push_str(", ");
        }
        let _ = write!(self.0, "{key}=");
    }

    /// A token, a number or a boolean.
    fn bare(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push_str(value);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        let _ = write!(self.0, "\"{}\"", escaped(value));
    }

    fn list(&mut self, key: &str, values: &[String]) {
        self.key(key);
        let shown = values.iter().take(MAX_TAGS);
        let items: Vec<String> = shown.map(|value| format!("\"{}\"", escaped(value))).collect();
        let _ = write!(self.0, "({})", items.join(" "));
    }

    /// A parameter of the last member.
    fn parameter(&mut self, key: &str, value: &str) {
        let _ = write!(self.0, ";{key}=\"{}\"", escaped(value));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use verge_cache::structured;

    fn token(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    #[test]
    fn only_a_holder_is_one() {
        let hash = |text: &str| -> [u8; 32] { Sha256::digest(text).into() };
        let known = [hash("one"), hash("two")];
        assert!(is_holder(&known, &token("one")) && is_holder(&known, &token("two")));
        assert!(!is_holder(&known, &token("three")));
        assert!(!is_holder(&known, &token("")));
        assert!(!is_holder(&[], &token("one")));
    }

    #[test]
    fn a_token_is_taken_out_whatever_it_is() {
        let mut headers = HeaderMap::new();
        assert_eq!(take_token(&mut headers), None);
        headers.append(VERGE_DEBUG, token("one"));
        assert_eq!(take_token(&mut headers), Some(token("one")));
        headers.append(VERGE_DEBUG, token("one"));
        headers.append(VERGE_DEBUG, token("two"));
        assert_eq!(take_token(&mut headers), None);
        headers.append(VERGE_DEBUG, token(&"x".repeat(MAX_TOKEN_BYTES + 1)));
        assert_eq!(take_token(&mut headers), None);
        assert!(headers.is_empty());
    }

    #[test]
    fn the_last_member_of_cache_status_is_ours() {
        let mut headers = HeaderMap::new();
        headers.append(CACHE_STATUS, token("Shield; hit"));
        headers.append(CACHE_STATUS, token("Verge; fwd=uri-miss; stored"));
        let facts = Facts {
            decision: "miss",
            tier: Tier::None,
            ttl_source: Some("max-age".into()),
            remaining: None,
            stored: true,
            why: None,
        };
        fuller_status(&mut headers, "shop https://a/\"b", &facts);
        let all: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
        let own = r#"Verge; fwd=uri-miss; stored; key="shop https://a/\"b"; detail=max-age"#;
        assert_eq!(all, ["Shield; hit", own]);
    }

    proptest! {
        #[test]
        fn whatever_is_told_is_a_dictionary(text in "\\PC{0,40}|.{0,600}", tags in proptest::collection::vec(".{0,9}", 0..40)) {
            let mut out = Dictionary::default();
            out.bare("rule", "3");
            out.parameter("path", &text);
            out.text("key", &text);
            out.list("tags", &tags);
            out.bare("stored", "?0");
            out.bare("took-ms", &milliseconds(Duration::from_micros(text.len() as u64 * 997)));
            let members = structured::dictionary(&out.0).expect("a dictionary");
            prop_assert_eq!(members.len(), 5);
            prop_assert!(HeaderValue::from_str(&out.0).is_ok());
        }
    }
}
