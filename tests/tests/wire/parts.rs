//! A stored part that is completed for a request for the whole (RFC 9111 sections 3.3 and 3.4), and what
//! must not be put together.

use super::lab::{FRESH, Fields, Lab, NO_STORE};
use verge_tests::script::End;
use verge_tests::{Gate, Reply, Turn};

const LM: &str = "Mon, 06 Jan 2025 10:00:00 GMT";
const TEXT: &str = "0123456789";
const OTHER: &str = "abcdefghij";
const RANGE: Fields = &[("Range", "bytes=0-3")];
const TAG: (&str, &str) = ("ETag", "\"v1\"");

/// A 206 that is fresh for an hour.
fn part(fields: &[(&str, &str)], range: &str, body: &str) -> Turn {
    let range = [("Content-Range", range)];
    let fields: Vec<_> = FRESH.iter().chain(fields).chain(&range).copied().collect();
    Turn::new(206, &fields, body)
}

/// The first four bytes.
fn first() -> Turn {
    part(&[TAG, ("Content-Type", "text/plain"), ("A", "1")], "bytes 0-3/10", "0123")
}

/// The rest, without the fields that a source need not repeat (RFC 9110 section 15.3.7).
fn rest() -> Turn {
    part(&[TAG, ("A", "2")], "bytes 4-9/10", "456789")
}

/// All of another representation.
fn other() -> Turn {
    Turn::new(200, &[FRESH[0], ("ETag", "\"v2\"")], OTHER)
}

/// `Range` and `If-Range` of the request that the origin saw as this one, from nought.
fn asked(lab: &Lab, path: &str, index: usize) -> [String; 2] {
    let seen = lab.script.seen(path);
    ["range", "if-range"].map(|name| {
        let value = seen.get(index).and_then(|seen| seen.headers.get(name));
        value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    })
}

fn is_whole(lab: &Lab, id: &str, reply: &Reply, text: &str) {
    lab.same(id, (reply.status, reply.text().as_str()), (200, text), reply);
    lab.same(id, reply.field("content-length"), text.len().to_string().as_str(), reply);
    lab.same(id, reply.field("content-range"), "", reply);
}

/// What is asked for, how it is answered, and what is stored of it.
pub(crate) async fn completed(lab: &Lab) {
    lab.script.plan("/complete", [first(), rest(), Turn::new(200, NO_STORE, "asked")]);
    lab.ask("GET", "/complete", RANGE).await;
    let reply = lab.get("/complete").await;
    is_whole(lab, "complete", &reply, TEXT);
    lab.same(
        "complete-asks",
        asked(lab, "/complete", 1),
        ["bytes=4-".into(), "\"v1\"".into()],
        &reply,
    );
    // 3.4: fields of the newer response replace the stored ones; those that it lacks stay.
    for (name, value) in [("a", "2"), ("content-type", "text/plain"), ("etag", "\"v1\"")] {
        lab.same("complete-fields", reply.field(name), value, &reply);
    }
    let said = reply.cache_status().to_owned();
    for word in ["fwd=partial", "fwd-status=206", "stored"] {
        lab.check("complete-status", said.contains(word), format!("{word}: {reply:?}"));
    }
    // It is stored as the whole that it is.
    let hit = lab.get("/complete").await;
    is_whole(lab, "complete-stored", &hit, TEXT);
    lab.judge_hit(&reply, &hit);
    let range = lab.ask("GET", "/complete", &[("Range", "bytes=2-6")]).await;
    lab.same("complete-range", (range.status, range.text().as_str()), (206, "23456"), &range);
    let none = lab.ask("GET", "/complete", &[("If-None-Match", "\"v1\"")]).await;
    lab.same("complete-304", none.status, 304, &none);
    lab.same("complete-stored", lab.script.count("/complete"), 2, &none);

    // A date that is strong is a validator too (RFC 9110 section 8.8.2.2).
    let dated = [("Last-Modified", LM)];
    let turns = [part(&dated, "bytes 0-3/10", "0123"), part(&dated, "bytes 4-9/10", "456789")];
    lab.script.plan("/complete-dated", turns);
    lab.ask("GET", "/complete-dated", RANGE).await;
    let reply = lab.get("/complete-dated").await;
    is_whole(lab, "complete-dated", &reply, TEXT);
    lab.same(
        "complete-dated",
        asked(lab, "/complete-dated", 1),
        ["bytes=4-".into(), LM.into()],
        &reply,
    );

    // The visitor's own condition is judged by the whole.
    lab.script.plan("/complete-inm", [first(), rest()]);
    lab.ask("GET", "/complete-inm", RANGE).await;
    let reply = lab.ask("GET", "/complete-inm", &[("If-None-Match", "\"v1\"")]).await;
    lab.same("complete-inm", (reply.status, reply.body.len()), (304, 0), &reply);

    // A 200 says that the representation is another one by now: it takes the place of the part.
    lab.script.plan("/replaces", [first(), other(), Turn::new(200, NO_STORE, "asked")]);
    lab.ask("GET", "/replaces", RANGE).await;
    for _ in 0..2 {
        is_whole(lab, "replaces", &lab.get("/replaces").await, OTHER);
    }
    let reply = lab.ask("GET", "/replaces", RANGE).await;
    lab.same("replaces", (reply.status, reply.text().as_str()), (206, "abcd"), &reply);

    // An answer that may not be stored is passed on, whole.
    let private = [("Cache-Control", "no-store"), TAG, ("Content-Range", "bytes 4-9/10")];
    lab.script.plan("/unstored", [first(), Turn::new(206, &private, "456789")]);
    lab.ask("GET", "/unstored", RANGE).await;
    is_whole(lab, "complete-unstored", &lab.get("/unstored").await, TEXT);
}

/// Answers to the request for the rest that cannot be put behind the part: all of it is asked for.
pub(crate) async fn unfit(lab: &Lab) {
    let two = [TAG, ("Content-Range", "bytes 4-9/10")];
    for (id, turn) in [
        ("rest-of-another-length", part(&[TAG], "bytes 4-10/11", "4567890")),
        ("rest-from-elsewhere", part(&[TAG], "bytes 5-9/10", "56789")),
        ("rest-from-before", part(&[TAG], "bytes 3-9/10", "3456789")),
        ("rest-that-ends-early", part(&[TAG], "bytes 4-8/10", "45678")),
        ("rest-of-unknown-length", part(&[TAG], "bytes 4-9/*", "456789")),
        ("rest-with-another-tag", part(&[("ETag", "\"v2\"")], "bytes 4-9/10", "456789")),
        ("rest-with-a-weak-tag", part(&[("ETag", "W/\"v1\"")], "bytes 4-9/10", "456789")),
        ("rest-without-a-tag", part(&[], "bytes 4-9/10", "456789")),
        ("rest-with-two-ranges", part(&two, "bytes 4-9/10", "456789")),
        ("rest-too-short", part(&[TAG], "bytes 4-9/10", "45678")),
        ("rest-without-a-range", Turn::new(206, &[FRESH[0], TAG], "456789")),
        ("rest-not-there", Turn::new(416, &[("Content-Range", "bytes */4")], "")),
    ] {
        let path = format!("/{id}");
        lab.script.plan(&path, [first(), turn, other(), Turn::new(200, NO_STORE, "asked")]);
        lab.ask("GET", &path, RANGE).await;
        let reply = lab.get(&path).await;
        is_whole(lab, id, &reply, OTHER);
        lab.same(id, asked(lab, &path, 1)[0].as_str(), "bytes=4-", &reply);
        lab.same(id, asked(lab, &path, 2), [String::new(), String::new()], &reply);
        is_whole(lab, id, &lab.get(&path).await, OTHER);
        lab.same(id, lab.script.count(&path), 3, &reply);
    }

    // What the origin says of the resource itself is passed on as it is.
    for status in [404, 500, 503] {
        let (id, path) = (format!("rest-{status}"), format!("/rest-{status}"));
        lab.script.plan(&path, [first(), Turn::new(status, NO_STORE, "no")]);
        lab.ask("GET", &path, RANGE).await;
        let reply = lab.get(&path).await;
        lab.same(&id, (reply.status, reply.text().as_str()), (status, "no"), &reply);
        lab.same(&id, lab.script.count(&path), 2, &reply);
    }
}

/// Parts that are not completed: the request for the whole goes out as it came.
pub(crate) async fn left_alone(lab: &Lab) {
    let tagged = |range, body| part(&[TAG], range, body);
    let no_cache: Fields = &[("Cache-Control", "no-cache")];
    let stale = [("Age", "7200"), TAG];
    for (id, stored, request) in [
        ("part-weak", part(&[("ETag", "W/\"v1\"")], "bytes 0-3/10", "0123"), &[] as Fields),
        ("part-bare", part(&[], "bytes 0-3/10", "0123"), &[]),
        ("part-stale", part(&stale, "bytes 0-3/10", "0123"), &[]),
        ("part-later", tagged("bytes 1-4/10", "1234"), &[]),
        ("part-small", tagged("bytes 0-0/9", "0"), &[]),
        ("part-of-unknown", tagged("bytes 0-3/*", "0123"), &[]),
        ("part-reloaded", tagged("bytes 0-3/10", "0123"), no_cache),
        ("part-varied", part(&[TAG, ("Vary", "Foo")], "bytes 0-3/10", "0123"), &[("Foo", "1")]),
        ("part-authorised", tagged("bytes 0-3/10", "0123"), &[("Authorization", "Basic eA==")]),
    ] {
        let path = format!("/{id}");
        lab.script.plan(&path, [stored, other()]);
        // What is asked for first is within each of the parts but one.
        let range = if id == "part-later" { "bytes=1-3" } else { "bytes=0-0" };
        lab.ask("GET", &path, &[("Range", range)]).await;
        let reply = lab.ask("GET", &path, request).await;
        is_whole(lab, id, &reply, OTHER);
        lab.same(id, asked(lab, &path, 1), [String::new(), String::new()], &reply);
        lab.same(id, lab.script.count(&path), 2, &reply);
    }
    // The control: as much as is worth it, of the same variant.
    let varied = [TAG, ("Vary", "Foo")];
    let turns = [part(&varied, "bytes 0-0/8", "0"), part(&varied, "bytes 1-7/8", "1234567")];
    lab.script.plan("/part-enough", turns);
    lab.ask("GET", "/part-enough", &[("Range", "bytes=0-0"), ("Foo", "1")]).await;
    let reply = lab.ask("GET", "/part-enough", &[("Foo", "1")]).await;
    is_whole(lab, "part-enough", &reply, "01234567");
    lab.same("part-enough", asked(lab, "/part-enough", 1)[0].as_str(), "bytes=1-", &reply);

    // HEAD goes out as HEAD, and leaves the part as it was.
    let head = [FRESH[0], TAG, ("Content-Length", "10")];
    lab.script.plan("/part-head", [first(), Turn::new(200, &head, ""), rest()]);
    lab.ask("GET", "/part-head", RANGE).await;
    let reply = lab.ask("HEAD", "/part-head", &[]).await;
    lab.same("part-head", (reply.status, reply.field("content-length")), (200, "10"), &reply);
    lab.same("part-head", asked(lab, "/part-head", 1), [String::new(), String::new()], &reply);
    is_whole(lab, "part-head", &lab.get("/part-head").await, TEXT);

    // Only what is there: nobody is asked.
    lab.script.plan("/part-only", [first()]);
    lab.ask("GET", "/part-only", RANGE).await;
    let reply = lab.ask("GET", "/part-only", &[("Cache-Control", "only-if-cached")]).await;
    lab.same("part-only", reply.status, 504, &reply);
    lab.same("part-only", lab.script.count("/part-only"), 1, &reply);
}

/// Several visitors at once, and an origin that breaks off.
pub(crate) async fn under_way(lab: &Lab) {
    let gate = Gate::default();
    lab.script.plan("/together", [first(), rest().held_at(2, &gate), other()]);
    lab.ask("GET", "/together", RANGE).await;
    let leader = lab.get("/together");
    let follower = async {
        gate.reached().await;
        let opened = async { gate.open_for_good() };
        tokio::join!(
            lab.get("/together"),
            lab.ask("GET", "/together", &[("Range", "bytes=2-5")]),
            opened
        )
    };
    let (leader, (follower, range, ())) = tokio::join!(leader, follower);
    is_whole(lab, "together", &leader, TEXT);
    is_whole(lab, "together", &follower, TEXT);
    lab.same("together", (range.status, range.text().as_str()), (206, "2345"), &range);
    lab.same("together", lab.script.count("/together"), 2, &follower);

    // What broke off is neither whole nor stored; the part is as good as before.
    let broken = part(&[TAG, ("Content-Length", "6")], "bytes 4-9/10", "456").then(End::Close);
    lab.script.plan("/broken", [first(), broken, rest(), Turn::new(200, NO_STORE, "asked")]);
    lab.ask("GET", "/broken", RANGE).await;
    let reply = lab.get("/broken").await;
    lab.check("broken", !reply.whole && TEXT.starts_with(&reply.text()), format!("{reply:?}"));
    for _ in 0..2 {
        is_whole(lab, "broken", &lab.get("/broken").await, TEXT);
    }
    lab.same("broken", asked(lab, "/broken", 2)[0].as_str(), "bytes=4-", &reply);
    lab.same("broken", lab.script.count("/broken"), 3, &reply);
}
