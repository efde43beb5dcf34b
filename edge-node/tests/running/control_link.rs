//! The control link against a scripted control plane over real sockets: order, refusals, lost history,
//! lost connections, offline starts and damaged state.

use serde_json::{Value, json};
use std::sync::Arc;

use crate::support::{Control, Edge, Told, site};

#[tokio::test]
async fn applies_in_order_acknowledges_and_serves_offline_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    assert!(!edge.status.is_ready(), "nothing is in force yet");
    let feed = control.feed().await;
    assert_eq!((feed.since, feed.history.as_deref()), (0, None));
    feed.hello(3, false, "h").await;
    feed.site(1, site("shop", "shop.example")).await;
    feed.purge(2, "a").await;
    feed.site(3, site("blog", "blog.example")).await;
    feed.head(3).await;
    edge.applied(3).await;
    assert!(edge.status.is_ready() && edge.status.is_connected());
    assert_eq!(edge.serves("shop.example"), Some(1));
    assert_eq!(edge.serves("blog.example:8080"), Some(3));
    assert_eq!(edge.told(), [Told::Purge(2, 1)], "the site before a purge is in force before it");
    let report = control.report("the purge is acknowledged", |r| !r.purges.is_empty()).await;
    assert!(report.applied.0 >= 2);
    assert_eq!((report.purges[0].revision.0, report.purges[0].matched), (2, 7));
    edge.stop().await;

    let url = control.url.clone();
    drop(control);
    let edge = Edge::start(folder.path(), &url).await;
    assert!(edge.status.is_ready(), "in force before anything listens");
    assert_eq!(edge.serves("shop.example"), Some(1));
    assert_eq!(edge.serves("blog.example"), Some(3));
    assert_eq!(edge.status.applied().0, 3);
    assert!(!edge.status.is_connected());
    edge.stop().await;
}

#[tokio::test]
async fn a_restarted_edge_asks_for_what_it_missed_with_the_credential_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    feed.hello(1, false, "h").await;
    feed.site(1, site("shop", "shop.example")).await;
    feed.head(1).await;
    edge.applied(1).await;
    edge.stop().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    assert_eq!((feed.since, feed.history.as_deref()), (1, Some("h")));
    assert_eq!(control.enrolments(), 1);
    feed.hello(2, false, "h").await;
    feed.purge(2, "missed").await;
    feed.head(2).await;
    edge.applied(2).await;
    assert_eq!(edge.told().len(), 1);
    assert_eq!(edge.serves("shop.example"), Some(1));
    edge.stop().await;
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_and_the_last_good_version_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    feed.hello(1, false, "h").await;
    feed.site(1, site("shop", "shop.example")).await;
    feed.head(1).await;
    edge.applied(1).await;

    let origin = |url: &str| json!({"site": "shop", "domains": ["shop.example"], "origins": {"web": {"urls": [url]}}, "routes": [{"path": "/*", "origin": "web"}]});
    let poison = [
        (
            json!({"site": "shop", "domains": ["shop.example"], "routes": [{"path": "/*", "origin": "no"}]}),
            "routes[0].origin",
        ),
        (json!({"site": "shop", "domains": ["*"], "routes": []}), "domains[0]"),
        (
            json!({"site": "shop", "domains": ["shop.example"], "unknown": 1, "routes": []}),
            "unknown",
        ),
        (json!({"site": "shop", "domains": 7, "routes": []}), "cannot be read"),
        (origin("http://127.0.0.1:9000"), "allow_private_origins"),
        (origin("http://[::ffff:10.0.0.1]"), "allow_private_origins"),
        (origin("http://169.254.169.254"), "no origin can be there"),
        (
            json!({"site": "shop", "domains": ["shop.example"], "handlers": {"greet": {"component": "greet.wasm"}}, "routes": [{"path": "/*", "handler": "greet"}]}),
            "handlers.greet.component",
        ),
        (json!(7), "cannot be read"),
    ];
    let mut revision = 1;
    for (document, reason) in poison {
        revision += 1;
        feed.say(json!({"type": "site", "revision": revision, "site": "shop", "version": revision, "document": document})).await;
        feed.head(revision).await;
        edge.applied(revision).await;
        let refusals = edge.status.refusals();
        assert_eq!(refusals.len(), 1, "{document}");
        assert!(refusals[0].reason.contains(reason), "{reason:?} in {:?}", refusals[0].reason);
        assert_eq!(refusals[0].revision.0, revision);
        assert_eq!(edge.serves("shop.example"), Some(1), "{document}");
    }
    let told = control.report("the refusal is told", |r| r.applied.0 == revision).await;
    assert_eq!(told.refusals.len(), 1);
    edge.stop().await;

    // After a restart the refused revision is asked for again: a newer edge may take it.
    let edge = Edge::start(folder.path(), &control.url).await;
    assert_eq!(edge.status.refusals().len(), 1);
    let feed = control.feed().await;
    assert_eq!(feed.since, revision - 1);
    feed.hello(revision, false, "h").await;
    feed.site(revision, site("shop", "shop.example")).await;
    feed.head(revision).await;
    edge.until("the refusal is gone", |status| status.refusals().is_empty()).await;
    assert_eq!(edge.serves("shop.example"), Some(revision));
    edge.stop().await;
}

#[tokio::test]
async fn a_lost_feed_is_opened_again_where_it_was_and_repeats_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    feed.hello(5, false, "h").await;
    feed.site(5, site("shop", "shop.example")).await;
    feed.purge(6, "a").await;
    edge.applied(6).await;
    let before = edge.cell.load_full();
    drop(feed);

    let feed = control.feed().await;
    assert_eq!(feed.since, 0, "the start from zero had not reached the head");
    feed.hello(7, false, "h").await;
    feed.site(5, site("shop", "shop.example")).await;
    feed.site(4, site("shop", "older.example")).await;
    feed.purge(6, "a").await;
    feed.head(7).await;
    edge.applied(7).await;
    assert!(Arc::ptr_eq(&before, &edge.cell.load_full()), "nothing new, nothing swapped");
    assert_eq!(edge.told().len(), 1, "a repeated purge is not applied twice");
    // The rest of a line that broke off is not a line, and neither is what comes before it.
    feed.raw("{\"type\":\"site_remo").await;
    drop(feed);
    let feed = control.feed().await;
    assert_eq!(feed.since, 7);
    feed.hello(7, false, "h").await;
    feed.raw("this is no feed\n").await;
    let feed = control.feed().await;
    assert_eq!(feed.since, 7);
    feed.hello(8, false, "h").await;
    feed.say(json!({"type": "from_the_future", "revision": 8, "x": {}})).await;
    feed.say(json!({"type": "site_removed", "revision": 9, "site": "shop", "why": "new field"}))
        .await;
    feed.site(8, site("shop", "shop.example")).await;
    feed.head(9).await;
    edge.applied(9).await;
    assert_eq!(edge.serves("shop.example"), None, "an older line cannot revive a removed site");
    edge.stop().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    assert_eq!(edge.serves("shop.example"), None);
    edge.stop().await;
}

#[tokio::test]
async fn lost_history_flushes_and_starts_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    feed.hello(50, false, "h").await;
    feed.site(40, site("shop", "shop.example")).await;
    feed.site(50, site("gone", "gone.example")).await;
    feed.head(50).await;
    edge.applied(50).await;
    drop(feed);
    // Another history, told without a flush: the edge asks again, from its beginning.
    let feed = control.feed().await;
    feed.hello(3, false, "other").await;
    let feed = control.feed().await;
    assert_eq!((feed.since, feed.history.as_deref()), (0, Some("other")));
    assert_eq!(edge.told(), [Told::Flush(3)]);
    feed.hello(3, true, "other").await;
    feed.site(2, site("shop", "shop.example")).await;
    feed.purge(3, "a").await;
    edge.until("the site is the new history's", |_| edge.serves("shop.example") == Some(2)).await;
    assert_eq!(edge.serves("gone.example"), Some(50), "until the head, it may still be named");
    feed.head(3).await;
    edge.applied(3).await;
    assert_eq!(edge.serves("gone.example"), None);
    assert_eq!(edge.told(), [Told::Flush(3), Told::Flush(3), Told::Purge(3, 2)]);
    let report = control.report("the new history is acknowledged", |r| r.applied.0 == 3).await;
    assert_eq!(report.purges[0].revision.0, 3);
    edge.stop().await;
}

#[tokio::test]
async fn a_revoked_credential_is_replaced_with_the_join_token() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    control.revoke_all();
    drop(feed);
    let feed = control.feed().await;
    assert_eq!(control.enrolments(), 2);
    feed.hello(1, false, "h").await;
    feed.head(1).await;
    edge.applied(1).await;
    edge.stop().await;
}

#[tokio::test]
async fn silence_ends_a_feed() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    feed.hello(1, false, "h").await;
    feed.head(1).await;
    edge.applied(1).await;
    assert!(edge.status.is_connected());
    tokio::time::pause();
    edge.until("the feed is given up", |status| !status.is_connected()).await;
    tokio::time::resume();
    assert_eq!(control.feed().await.since, 1);
    assert!(feed.since == 0, "the silent feed was open all the time");
    edge.stop().await;
}

#[tokio::test]
async fn purges_stay_in_the_outbox_while_the_control_plane_is_deaf() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    control.deaf(true);
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    feed.hello(2, false, "h").await;
    feed.purge(1, "a").await;
    feed.purge(2, "b").await;
    feed.head(2).await;
    edge.applied(2).await;
    assert!(control.reports().is_empty());
    control.deaf(false);
    let report = control.report("both are told", |r| r.purges.len() == 2).await;
    assert_eq!(report.applied.0, 2);
    edge.stop().await;
}

#[tokio::test]
async fn a_damaged_site_file_gives_the_version_before_and_is_told_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    feed.hello(2, false, "h").await;
    for revision in [1, 2] {
        feed.site(revision, site("shop", "shop.example")).await;
        feed.head(revision).await;
        edge.applied(revision).await;
    }
    edge.stop().await;
    let path = folder.path().join("state/sites/shop.site");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let edge = Edge::start(folder.path(), &control.url).await;
    assert_eq!(edge.serves("shop.example"), Some(1));
    let feed = control.feed().await;
    assert_eq!(feed.since, 0, "what is damaged here is asked for again");
    feed.hello(2, false, "h").await;
    feed.site(2, site("shop", "shop.example")).await;
    feed.head(2).await;
    edge.until("the newest version is back", |_| edge.serves("shop.example") == Some(2)).await;
    edge.stop().await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_in_force_and_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    feed.hello(1, false, "h").await;
    feed.head(1).await;
    edge.applied(1).await;
    // A file where the folder was: nothing can be written there, whoever tries.
    let sites = folder.path().join("state/sites");
    std::fs::remove_dir_all(&sites).unwrap();
    std::fs::write(&sites, b"").unwrap();
    feed.site(2, site("shop", "shop.example")).await;
    feed.purge(3, "a").await;
    edge.until("the site is in force", |_| edge.serves("shop.example") == Some(2)).await;
    feed.head(3).await;
    edge.until("the head is heard", |status| status.head().0 == 3).await;
    assert_eq!(edge.status.applied().0, 1);
    assert_eq!(edge.told(), [Told::Purge(3, 2)]);
    std::fs::remove_file(&sites).unwrap();
    std::fs::create_dir(&sites).unwrap();
    feed.head(3).await;
    edge.applied(3).await;
    let report = control.report("it is acknowledged now", |r| r.applied.0 == 3).await;
    assert_eq!(report.purges.len(), 1);
    assert!(control.reports().iter().all(|r| r.applied.0 == 3 || r.purges.is_empty()));
    edge.stop().await;
}

#[tokio::test]
async fn components_are_checked_against_their_digest() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    feed.hello(1, false, "h").await;
    feed.site(1, site("shop", "shop.example")).await;
    let module = b"\0asm\x01\0\0\0".as_slice();
    let digest = "93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476";
    let document = json!({"site": "shop", "domains": ["shop.example"], "handlers": {"greet": {"component": format!("sha256:{digest}")}}, "routes": [{"path": "/*", "handler": "greet"}]});
    let reasons = ["404", "other content", "core WebAssembly module"];
    for (revision, reason) in (2..).zip(reasons) {
        match revision {
            3 => control.blob(digest, b"something else".as_slice()),
            4 => control.blob(digest, module),
            _ => {}
        }
        feed.site(revision, document.clone()).await;
        feed.head(revision).await;
        edge.applied(revision).await;
        let refusals = edge.status.refusals();
        assert!(refusals[0].reason.contains(reason), "{reason:?} in {:?}", refusals[0].reason);
        assert!(refusals[0].reason.contains("handlers.greet.component"));
        assert_eq!(edge.serves("shop.example"), Some(1));
    }
    edge.stop().await;
}

fn secrets(revision: u64, value: &str) -> Value {
    json!({"revision": revision, "secrets": {"KEY": value}})
}

#[tokio::test]
async fn secrets_are_fetched_in_their_turn_and_kept_for_a_start_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    control.secrets("shop", 200, secrets(1, "canary-one"));
    feed.hello(3, false, "h").await;
    // Before the site that they are of: it begins with them.
    feed.secrets(1, "shop").await;
    feed.site(2, site("shop", "shop.example")).await;
    feed.site(3, site("blog", "blog.example")).await;
    feed.head(3).await;
    edge.applied(3).await;
    assert_eq!(edge.secret("shop.example", "KEY").as_deref(), Some("canary-one"));
    assert_eq!(edge.secret("blog.example", "KEY"), None);
    let before = Arc::clone(edge.cell.load().site("shop").unwrap());

    // Others: the site goes on with them, and what it has beside them stays.
    control.secrets("shop", 200, secrets(5, "canary-two"));
    feed.secrets(4, "shop").await;
    feed.head(4).await;
    edge.applied(4).await;
    assert_eq!(edge.secret("shop.example", "KEY").as_deref(), Some("canary-two"));
    let after = Arc::clone(edge.cell.load().site("shop").unwrap());
    assert!(Arc::ptr_eq(&before.gate, &after.gate) && Arc::ptr_eq(&before.site, &after.site));
    assert_eq!(before.secrets.get("KEY").unwrap().reveal(), "canary-one", "requests under way");
    let asked = control.asked();
    // What came with the answer before is not asked for again, nor is a repeat.
    feed.secrets(5, "shop").await;
    feed.secrets(4, "shop").await;
    feed.site(6, site("shop", "shop.example")).await;
    feed.head(6).await;
    edge.applied(6).await;
    assert_eq!((control.asked(), edge.serves("shop.example")), (asked, Some(6)));
    assert_eq!(edge.secret("shop.example", "KEY").as_deref(), Some("canary-two"));
    edge.stop().await;

    for entry in walk(folder.path()) {
        let bytes = std::fs::read(&entry).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"canary"), "{entry:?}");
    }
    let url = control.url.clone();
    drop(control);
    let edge = Edge::start(folder.path(), &url).await;
    assert!(edge.status.is_ready());
    assert_eq!(edge.secret("shop.example", "KEY").as_deref(), Some("canary-two"));
    edge.stop().await;
}

/// Every file of a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[tokio::test]
async fn secrets_that_are_gone_are_gone_here_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    for name in ["shop", "blog", "gone"] {
        control.secrets(name, 200, secrets(6, "canary"));
    }
    feed.hello(6, false, "h").await;
    for (revision, name) in [(1, "shop"), (2, "blog"), (3, "gone")] {
        feed.site(revision, site(name, &format!("{name}.example"))).await;
        feed.secrets(revision + 3, name).await;
    }
    feed.head(6).await;
    edge.applied(6).await;
    control.secrets("shop", 200, json!({"revision": 7, "secrets": {}}));
    feed.secrets(7, "shop").await;
    feed.say(json!({"type": "site_removed", "revision": 8, "site": "gone"})).await;
    feed.head(8).await;
    edge.applied(8).await;
    assert_eq!(edge.secret("shop.example", "KEY"), None);
    assert_eq!(edge.secret("blog.example", "KEY").as_deref(), Some("canary"));
    let file = |name: &str| folder.path().join(format!("state/sites/{name}.secrets"));
    assert!(!file("shop").exists() && !file("gone").exists() && file("blog").exists());
    edge.stop().await;

    // A file that is lost is missed: everything is told again.
    std::fs::remove_file(file("blog")).unwrap();
    let edge = Edge::start(folder.path(), &control.url).await;
    assert_eq!(edge.secret("blog.example", "KEY"), None);
    let feed = control.feed().await;
    assert_eq!(feed.since, 0);
    feed.hello(8, false, "h").await;
    feed.site(1, site("shop", "shop.example")).await;
    feed.site(2, site("blog", "blog.example")).await;
    feed.secrets(5, "blog").await;
    feed.head(8).await;
    edge.until("the secrets to be back", |_| edge.secret("blog.example", "KEY").is_some()).await;
    edge.stop().await;
}

#[tokio::test]
async fn secrets_that_cannot_be_had_are_refused_and_the_last_good_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    control.secrets("shop", 200, secrets(2, "canary-one"));
    feed.hello(2, false, "h").await;
    feed.site(1, site("shop", "shop.example")).await;
    feed.secrets(2, "shop").await;
    edge.until("the secret", |_| edge.secret("shop.example", "KEY").is_some()).await;
    let mut revision = 2;
    for (status, answer) in [
        (503, json!({"detail": "sealed"})),
        (404, json!({})),
        (200, json!({"canary": "canary-two"})),
        // Older than what was told: an answer that somebody kept.
        (200, secrets(2, "canary-two")),
    ] {
        revision += 1;
        control.secrets("shop", status, answer);
        feed.secrets(revision, "shop").await;
        feed.head(revision).await;
        edge.applied(revision).await;
        assert_eq!(edge.secret("shop.example", "KEY").as_deref(), Some("canary-one"));
        let refusals = edge.status.refusals();
        assert_eq!((refusals.len(), refusals[0].revision.0), (1, revision));
        assert_eq!(refusals[0].site, "shop@secrets");
        assert!(!refusals[0].reason.contains("canary"), "{}", refusals[0].reason);
    }
    let report = control.report("it is told", |r| !r.refusals.is_empty()).await;
    assert_eq!(report.refusals[0].site, "shop@secrets");
    // A change of the site's previews is no word on its secrets.
    let previews = json!({"type": "previews", "revision": 7, "site": "shop", "previews": []});
    feed.say(previews).await;
    feed.head(7).await;
    edge.applied(7).await;
    assert_eq!(edge.status.refusals().len(), 1);
    edge.stop().await;
    // After a restart they are asked for again.
    control.secrets("shop", 200, secrets(8, "canary-three"));
    let edge = Edge::start(folder.path(), &control.url).await;
    assert_eq!(edge.secret("shop.example", "KEY").as_deref(), Some("canary-one"));
    let feed = control.feed().await;
    assert_eq!(feed.since, 5);
    feed.hello(8, false, "h").await;
    feed.secrets(8, "shop").await;
    feed.head(8).await;
    edge.until("the refusal is gone", |status| status.refusals().is_empty()).await;
    assert_eq!(edge.secret("shop.example", "KEY").as_deref(), Some("canary-three"));
    edge.stop().await;
}

#[tokio::test]
async fn an_edge_of_before_asks_for_what_it_has_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start().await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    feed.hello(2, false, "h").await;
    feed.site(1, site("shop", "shop.example")).await;
    // As an edge that does not know secrets takes their line.
    feed.say(json!({"type": "from_the_future", "revision": 2, "site": "shop"})).await;
    feed.head(2).await;
    edge.applied(2).await;
    edge.stop().await;
    let path = folder.path().join("state/position");
    let text = std::fs::read_to_string(&path).unwrap();
    let (_, payload) = text.split_once('\n').unwrap();
    let older = payload.replace(",\"secrets\":0", "");
    assert_ne!(older, payload);
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&older));
    std::fs::write(&path, format!("verge-state-1 {digest} {}\n{older}", older.len())).unwrap();

    let edge = Edge::start(folder.path(), &control.url).await;
    assert_eq!(edge.serves("shop.example"), Some(1));
    let feed = control.feed().await;
    assert_eq!(feed.since, 0);
    control.secrets("shop", 200, secrets(2, "canary"));
    feed.hello(2, false, "h").await;
    feed.site(1, site("shop", "shop.example")).await;
    feed.secrets(2, "shop").await;
    feed.head(2).await;
    edge.until("the secrets to be there", |_| edge.secret("shop.example", "KEY").is_some()).await;
    assert_eq!(edge.told(), [], "and nothing is flushed for it");
    edge.stop().await;
}

/// An address of this machine that is not loopback: a packet to a network that nobody has would leave
/// from it. Nothing is sent.
fn another_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

#[tokio::test]
async fn over_a_network_in_the_clear_no_secret_is_asked_for() {
    let Some(address) = another_address() else {
        println!("skipped: this machine has no address but loopback");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control::start_at(address).await;
    let edge = Edge::start(folder.path(), &control.url).await;
    let feed = control.feed().await;
    control.secrets("shop", 200, secrets(2, "canary"));
    feed.hello(2, false, "h").await;
    feed.site(1, site("shop", "shop.example")).await;
    feed.secrets(2, "shop").await;
    feed.head(2).await;
    edge.applied(2).await;
    assert_eq!((edge.serves("shop.example"), edge.secret("shop.example", "KEY")), (Some(1), None));
    assert_eq!(control.asked(), 0);
    let reason = edge.status.refusals()[0].reason.clone();
    assert!(reason.contains("https://") && reason.contains("plain HTTP"), "{reason}");
    edge.stop().await;
}
