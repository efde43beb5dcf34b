//! A 304 for another representation than the stored one (RFC 9111 section 4.3.4), and 304s that only look
//! like one.

use super::lab::{FRESH, Fields, Lab, NO_STORE};
use super::validation::{OTHER, STALE};
use verge_tests::Turn;

/// Stale as it comes.
const WEAK: Fields = &[("Cache-Control", "max-age=60"), ("Age", "120"), ("ETag", "W/\"v1\"")];

/// `If-None-Match` of every request that the origin saw.
fn asked_about(lab: &Lab, path: &str) -> Vec<String> {
    let tag = |seen: &verge_tests::origin::Seen| {
        let tag = seen.headers.get("if-none-match");
        tag.map_or(String::new(), |tag| tag.to_str().unwrap().to_owned())
    };
    lab.script.seen(path).iter().map(tag).collect()
}

/// Freshens nothing: the origin is asked again, whole.
pub(crate) async fn asked_again(lab: &Lab) {
    lab.script.plan(
        "/304-other",
        [Turn::new(200, STALE, "1"), Turn::new(304, OTHER, ""), Turn::new(200, OTHER, "2")],
    );
    lab.get("/304-other").await;
    let reply = lab.get("/304-other").await;
    lab.check("304-other", reply.text() == "2" || reply.status >= 500, format!("{reply:?}"));
    let reply = lab.get("/304-other").await;
    lab.same("304-other", reply.text().as_str(), "2", &reply);
    lab.same(
        "304-other",
        asked_about(lab, "/304-other"),
        ["", "\"v1\"", ""].map(String::from).into(),
        &reply,
    );

    // Where nothing comes of that, the 304 is the answer to the stored tag all the same; the tag stays.
    let nothing = [Turn::new(500, NO_STORE, "broken"), Turn::new(304, OTHER, ""), Turn::hang_up()];
    for (at, turn) in nothing.into_iter().enumerate() {
        let (id, path) = (format!("304-other-fails-{at}"), format!("/304-other-fails-{at}"));
        lab.script.plan(&path, [Turn::new(200, STALE, "1"), Turn::new(304, OTHER, ""), turn]);
        lab.get(&path).await;
        for _ in 0..2 {
            let reply = lab.get(&path).await;
            lab.same(&id, (reply.status, reply.text().as_str()), (200, "1"), &reply);
            lab.same(&id, reply.field("etag"), "\"v1\"", &reply);
        }
    }
}

/// What is the stored representation's all the same.
pub(crate) async fn the_same(lab: &Lab) {
    // A weak tag whose 304 leaves the mark away is the same; so is one that was changed for compression.
    let text = "0123456789".repeat(200);
    for (id, stored, tag, count) in [
        ("304-weak", WEAK, "\"v1\"", 2),
        ("304-weak-other", WEAK, "\"v2\"", 3),
        ("304-coded", STALE, "\"v1\"", 2),
        ("304-coded-other", STALE, "\"v2\"", 3),
        ("304-bare", STALE, "W/\"v2\"", 2),
    ] {
        let path = format!("/{id}");
        let again = [FRESH[0], ("ETag", tag)];
        let turns = [
            Turn::new(200, stored, text.as_str()),
            Turn::new(304, &again, ""),
            Turn::new(200, OTHER, text.as_str()),
            Turn::new(200, NO_STORE, "asked"),
        ];
        lab.script.plan(&path, turns);
        for _ in 0..3 {
            let reply = lab.ask("GET", &path, &[("Accept-Encoding", "gzip")]).await;
            lab.same(id, reply.status, 200, &reply);
            let length = reply.body.len().to_string();
            let streamed = reply.cache_status().contains("fwd-status=200");
            lab.check(
                id,
                streamed || reply.field("content-length") == length,
                format!("{reply:?}"),
            );
            let coded = if stored == WEAK { "" } else { "gzip" };
            lab.check(
                id,
                reply.field("content-encoding") == coded || tag == "\"v2\"",
                format!("{reply:?}"),
            );
        }
        lab.same(id, lab.script.count(&path), count, &lab.ask("HEAD", "/none", &[]).await);
    }

    // The visitor's own condition, which we do not make ours: its 304 is for the visitor.
    lab.script.plan("/304-own", [Turn::new(304, OTHER, ""), Turn::new(200, NO_STORE, "asked")]);
    let own = [("Authorization", "Basic eA=="), ("If-None-Match", "\"v1\"")];
    let reply = lab.ask("GET", "/304-own", &own).await;
    lab.same("304-own", (reply.status, reply.field("etag")), (304, "\"v2\""), &reply);
    lab.same("304-own", asked_about(lab, "/304-own"), vec!["\"v1\"".to_owned()], &reply);
}
