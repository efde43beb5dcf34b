//! What `Cache-Status` says (RFC 9211).

use super::lab::{FRESH, Fields, Lab, NO_STORE};
use std::collections::BTreeMap;
use verge_tests::{Reply, Turn};

/// The parameters of our member, by name; a bare one has an empty value.
fn ours(reply: &Reply) -> BTreeMap<String, String> {
    let mut parts = reply.cache_status().split(';').map(str::trim);
    parts.next();
    parts
        .map(|part| match part.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (part.to_owned(), String::new()),
        })
        .collect()
}

fn has(reply: &Reply, name: &str, value: &str) -> bool {
    ours(reply).get(name).is_some_and(|found| found == value)
}

pub(crate) async fn members(lab: &Lab) {
    // 2.1 to 2.5: a miss that is stored, and a hit.
    lab.script.plan("/cs-hit", [Turn::new(200, FRESH, "1")]);
    let miss = lab.get("/cs-hit").await;
    lab.check("cs-miss", has(&miss, "fwd", "uri-miss"), format!("{miss:?}"));
    lab.check("cs-stored", has(&miss, "stored", ""), format!("{miss:?}"));
    lab.check("cs-miss", !miss.is_hit(), format!("{miss:?}"));
    let hit = lab.get("/cs-hit").await;
    let said = ours(&hit);
    lab.check("cs-hit", has(&hit, "hit", "") && !said.contains_key("fwd"), format!("{hit:?}"));
    lab.check("cs-hit", !said.contains_key("stored"), format!("{hit:?}"));
    let ttl: i64 = said.get("ttl").and_then(|ttl| ttl.parse().ok()).unwrap_or(-1);
    let age: i64 = hit.field("age").parse().unwrap_or(-1);
    lab.check("cs-ttl", (3590..=3601).contains(&(ttl + age)), format!("{hit:?}"));
    let name = hit.cache_status().split(';').next().unwrap_or_default().trim().to_owned();
    lab.check("cs-name", !name.is_empty() && !name.contains(' '), format!("{hit:?}"));

    // What is not stored does not say so.
    lab.script.plan("/cs-no-store", [Turn::new(200, NO_STORE, "1")]);
    let reply = lab.get("/cs-no-store").await;
    lab.check("cs-not-stored", !ours(&reply).contains_key("stored"), format!("{reply:?}"));

    // Vary: a stored response that does not match.
    let varied: Fields = &[("Cache-Control", "max-age=60"), ("Vary", "Foo")];
    lab.script.plan("/cs-vary", [Turn::new(200, varied, "1"), Turn::new(200, varied, "2")]);
    lab.ask("GET", "/cs-vary", &[("Foo", "1")]).await;
    let reply = lab.ask("GET", "/cs-vary", &[("Foo", "2")]).await;
    lab.check("cs-vary-miss", has(&reply, "fwd", "vary-miss"), format!("{reply:?}"));

    // Stale: revalidated, and the status of the origin's answer when it is another (2.3).
    let stale: Fields = &[("Cache-Control", "max-age=60"), ("Age", "120"), ("ETag", "\"1\"")];
    let again: Fields = &[("Cache-Control", "max-age=60"), ("ETag", "\"1\"")];
    lab.script.plan("/cs-stale", [Turn::new(200, stale, "1"), Turn::new(304, again, "")]);
    lab.get("/cs-stale").await;
    let reply = lab.get("/cs-stale").await;
    lab.check("cs-stale", has(&reply, "fwd", "stale"), format!("{reply:?}"));
    lab.check("cs-fwd-status", has(&reply, "fwd-status", "304"), format!("{reply:?}"));
    lab.check("cs-refreshed", has(&reply, "stored", ""), format!("{reply:?}"));

    // A stale response that is served: its ttl is below nought.
    let allowed: Fields =
        &[("Cache-Control", "max-age=60, stale-while-revalidate=3600"), ("Age", "120")];
    lab.script.plan("/cs-swr", [Turn::new(200, allowed, "1"), Turn::new(500, NO_STORE, "2")]);
    lab.get("/cs-swr").await;
    let reply = lab.get("/cs-swr").await;
    let ttl: i64 = ours(&reply).get("ttl").and_then(|ttl| ttl.parse().ok()).unwrap_or(0);
    lab.check("cs-swr", reply.is_hit() && ttl < 0, format!("{reply:?}"));

    // The request asked for it.
    lab.script.plan("/cs-request", [Turn::new(200, FRESH, "1"), Turn::new(200, FRESH, "2")]);
    lab.get("/cs-request").await;
    let reply = lab.ask("GET", "/cs-request", &[("Cache-Control", "no-cache")]).await;
    lab.check("cs-request", has(&reply, "fwd", "request"), format!("{reply:?}"));

    // The method is not one that is answered from the store.
    lab.script.plan("/cs-method", [Turn::new(200, NO_STORE, "1")]);
    let reply = lab.ask("POST", "/cs-method", &[]).await;
    lab.check("cs-method", has(&reply, "fwd", "method"), format!("{reply:?}"));

    // What caches behind us said comes first (section 2).
    let before: Fields = &[("Cache-Control", "max-age=60"), ("Cache-Status", "Behind; hit; ttl=5")];
    lab.script.plan("/cs-chain", [Turn::new(200, before, "1")]);
    for _ in 0..2 {
        let reply = lab.get("/cs-chain").await;
        let all: Vec<_> = reply
            .headers
            .get_all("cache-status")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let all = all.join(", ");
        lab.check("cs-chain", all.starts_with("Behind; hit; ttl=5, "), format!("{reply:?}"));
        lab.same("cs-chain", all.matches("Behind").count(), 1, &reply);
    }

    // A 304 to the visitor from the store is a hit.
    let tagged: Fields = &[("Cache-Control", "max-age=60"), ("ETag", "\"1\"")];
    lab.script.plan("/cs-304", [Turn::new(200, tagged, "1")]);
    lab.get("/cs-304").await;
    let reply = lab.ask("GET", "/cs-304", &[("If-None-Match", "\"1\"")]).await;
    lab.same("cs-304", reply.status, 304, &reply);
    lab.check("cs-304", has(&reply, "hit", ""), format!("{reply:?}"));
}

/// What the edge answers itself.
pub(crate) async fn own_answers(lab: &Lab) {
    // only-if-cached, and nothing there: nobody was asked.
    let reply = lab.ask("GET", "/cs-only", &[("Cache-Control", "only-if-cached")]).await;
    lab.same("cs-only-if-cached", reply.status, 504, &reply);
    let said = ours(&reply);
    let neither = !said.contains_key("hit") && !said.contains_key("fwd");
    let detail = has(&reply, "detail", "only-if-cached");
    lab.check("cs-only-if-cached", neither && detail, format!("{reply:?}"));

    // What the edge answers itself, since the origin did not (2.2: it was forwarded all the same).
    let hang_up = || [Turn::hang_up(), Turn::hang_up(), Turn::hang_up(), Turn::hang_up()];
    lab.script.plan("/cs-failed", hang_up());
    let reply = lab.get("/cs-failed").await;
    lab.same("cs-failed", reply.status, 502, &reply);
    let said = has(&reply, "fwd", "uri-miss") && !ours(&reply).contains_key("fwd-status");
    lab.check("cs-failed", said, format!("{reply:?}"));
    let strict = &[("Cache-Control", "max-age=60, must-revalidate"), ("Age", "120")];
    lab.script.plan("/cs-failed-stale", [Turn::new(200, strict, "1")]);
    lab.get("/cs-failed-stale").await;
    lab.script.plan("/cs-failed-stale", hang_up());
    let reply = lab.get("/cs-failed-stale").await;
    lab.check("cs-failed-stale", reply.status >= 500, format!("{reply:?}"));
    lab.check("cs-failed-stale", has(&reply, "fwd", "stale"), format!("{reply:?}"));
}
