//! Purges: what each selector reaches, and that no fill, however it is interleaved, brings back what a
//! purge was for.

use bytes::Bytes;
use futures::FutureExt;
use http::Method;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;
use verge_config::purge::Selector;
use verge_config::site::{CachePolicy, QueryKey};
use verge_config::{Mode, Revision};

use crate::common::{Bench, Scripted, read, reply, tapped};

fn url(value: &str) -> Selector {
    Selector::Url(value.into())
}

fn tagged() -> Arc<Scripted> {
    Scripted::new(|_, request| {
        let own = request.headers.get("foo").map_or("-", |v| v.to_str().unwrap()).to_owned();
        let fields = [
            ("cache-control", "max-age=100"),
            ("vary", "foo"),
            ("cache-tag", "Assets, css"),
            ("surrogate-key", "k1 k2"),
        ];
        reply(200, &fields, own)
    })
}

#[tokio::test]
async fn every_selector_reaches_what_it_names_and_nothing_else() {
    let cases = [
        (url("https://shop.example/blog/a?x=1"), vec!["/blog/a?x=1"]),
        (url("http://SHOP.example:80/blog/a?x=1"), vec!["/blog/a?x=1"]),
        (url("/blog/a"), vec!["/blog/a"]),
        (url("https://other.example/blog/a"), vec![]),
        (Selector::Prefix("/blog/".into()), vec!["/blog/a", "/blog/a?x=1", "/blog/b/c"]),
        (Selector::Prefix("/blog/a".into()), vec!["/blog/a", "/blog/a?x=1"]),
        (Selector::Prefix("/blog/a?x".into()), vec!["/blog/a?x=1"]),
        (
            Selector::Prefix("https://shop.example/bl".into()),
            vec!["/blog/a", "/blog/a?x=1", "/blog/b/c"],
        ),
        (
            Selector::Prefix("https://shop.example".into()),
            vec!["/blog/a", "/blog/a?x=1", "/blog/b/c", "/x"],
        ),
        (Selector::Prefix("https://other.example/".into()), vec![]),
        (Selector::Host("Shop.Example".into()), vec!["/blog/a", "/blog/a?x=1", "/blog/b/c", "/x"]),
        (Selector::Host("other.example".into()), vec![]),
        (Selector::Tag("ASSETS".into()), vec!["/blog/a", "/blog/a?x=1", "/blog/b/c", "/x"]),
        (Selector::Tag("k2".into()), vec!["/blog/a", "/blog/a?x=1", "/blog/b/c", "/x"]),
        (Selector::Tag("k3".into()), vec![]),
        (Selector::Everything(true), vec!["/blog/a", "/blog/a?x=1", "/blog/b/c", "/x"]),
    ];
    for (selector, expected) in cases {
        let bench = Bench::new();
        let source = tagged();
        let all = ["/blog/a", "/blog/a?x=1", "/blog/b/c", "/x"];
        for target in all {
            for value in ["1", "2"] {
                bench.ok(target, &[("foo", value)], &source).await;
            }
        }
        let matched = bench.hard(1, selector.clone());
        assert_eq!(matched, 2 * expected.len() as u64, "{selector:?}");
        let before = source.count();
        for target in all {
            for value in ["1", "2"] {
                let fetches = source.count();
                bench.ok(target, &[("foo", value)], &source).await;
                let gone = source.count() > fetches;
                assert_eq!(gone, expected.contains(&target), "{selector:?} {target} {value}");
            }
        }
        assert_eq!(source.count() - before, 2 * expected.len());
        // What was fetched after it is not touched by it; repeating it is a purge anew.
        assert!(all.iter().all(|target| {
            let request = crate::common::headers(&[("foo", "1")]);
            bench.cache.hit(&bench.request(&Method::GET, target, &request)).is_some()
        }));
    }
}

#[tokio::test]
async fn a_url_purge_reaches_every_copy_under_any_query_policy() {
    let names = || vec!["a".to_owned()];
    for (query, stored, purged, reached) in [
        (QueryKey::Ignore, "/p?x=1", "/p", true),
        (QueryKey::Ignore, "/p?x=1", "/p?x=2", true),
        (QueryKey::Sort, "/p?b=1&a=2", "/p?a=2&b=1", true),
        (QueryKey::Sort, "/p?b=1&a=2", "/p?a=2", false),
        (QueryKey::Include(names()), "/p?b=1&a=2", "/p?a=2&c=3", true),
        (QueryKey::Include(names()), "/p?b=1&a=2", "/p?a=3", false),
        (QueryKey::Exclude(names()), "/p?b=1&a=2", "/p?b=1&a=7", true),
        (QueryKey::Exclude(names()), "/p?b=1&a=2", "/p?b=2", false),
        (QueryKey::All, "/p?b=1&a=2", "/p?b=1&a=2", true),
        (QueryKey::All, "/p?b=1&a=2", "/p?a=2&b=1", false),
        (QueryKey::All, "/p?b=1", "/p", false),
    ] {
        let bench = Bench::policy(CachePolicy {
            key: Arc::new(query.clone().into()),
            ..CachePolicy::default()
        });
        bench.ok(stored, &[], &tagged()).await;
        assert!(bench.hits(stored));
        assert_eq!(bench.hard(1, url(purged)), u64::from(reached), "{query:?} {stored} {purged}");
        assert_eq!(bench.hits(stored), !reached, "{query:?} {stored} {purged}");
    }
}

#[tokio::test]
async fn sites_do_not_touch_each_other_and_a_flush_touches_all() {
    let bench = Bench::new();
    bench.ok("/a", &[], &tagged()).await;
    let mut purge = verge_config::purge::Purge {
        revision: Revision(9),
        site: "other".into(),
        selectors: vec![Selector::Everything(true)],
        mode: Mode::Hard,
    };
    assert_eq!(bench.cache.purge(&purge), 0);
    assert!(bench.hits("/a"));
    bench.cache.flush(Revision(2));
    assert!(!bench.hits("/a"));
    bench.ok("/a", &[], &tagged()).await;
    assert!(bench.hits("/a"), "revisions below those of the lost history count");
    purge.site = "shop".into();
    purge.revision = Revision(3);
    assert_eq!(bench.cache.purge(&purge), 1);
    assert!(!bench.hits("/a"));
}

#[tokio::test]
async fn the_index_forgets_what_nothing_is_old_enough_for() {
    let bench = Bench::new();
    let source = tagged();
    for n in 0..500 {
        bench.hard(n + 1, url(&format!("/gone/{n}")));
    }
    assert!(bench.cache.stats().selectors < 64, "{:?}", bench.cache.stats());
    // An object keeps the purges that came after it.
    bench.ok("/a", &[], &source).await;
    for n in 0..500 {
        bench.hard(n + 1000, url(&format!("/gone/{n}")));
    }
    assert!(bench.cache.stats().selectors >= 500);
    assert!(bench.hits("/a"));
    bench.hard(2000, url("/a"));
    for n in 0..1000 {
        bench.hard(n + 3000, url(&format!("/gone/{n}")));
    }
    assert!(bench.cache.stats().selectors < 600);
}

#[tokio::test]
async fn too_many_selectors_purge_everything() {
    let bench = Bench::new();
    bench.ok("/a", &[], &tagged()).await;
    let many = |n: usize| (0..n).map(|i| url(&format!("/gone/{i}"))).collect::<Vec<_>>();
    bench.purge(1, Mode::Hard, &many(100_000));
    assert!(bench.hits("/a"), "for control");
    bench.purge(2, Mode::Hard, &many(100_002));
    assert!(!bench.hits("/a"));
}

/// Where the source is held while the purge comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    BeforeHead,
    MidBody,
    On304,
}

/// The origin's truth is a number, and a purge follows each change of it. Whatever is interleaved, a GET
/// that begins after the purge has returned may not see an older number.
struct Race {
    held: Held,
    bench: Arc<Bench>,
    source: Arc<Scripted>,
    stage: Arc<Stage>,
}

/// What the source and the test share.
struct Stage {
    truth: AtomicU64,
    /// The source has read the truth.
    asked: Semaphore,
    /// It may answer.
    gate: Semaphore,
    /// Bodies on their way, each with what it will say.
    taps: Mutex<Vec<(crate::common::Tap, u64)>>,
}

impl Stage {
    async fn answer(
        &self,
        held: Held,
        request: verge_cache::SourceRequest,
    ) -> crate::common::Reply {
        // What it is when the origin reads it, not when the answer gets through.
        let now = self.truth.load(Ordering::SeqCst);
        let tag = format!("\"{now}\"");
        let fields = [("cache-control", "max-age=1"), ("etag", tag.as_str()), ("cache-tag", "t")];
        self.asked.add_permits(1);
        if held != Held::MidBody {
            self.gate.acquire().await.unwrap().forget();
        }
        if request.headers.get("if-none-match").is_some_and(|theirs| *theirs == *tag) {
            return reply(304, &fields, "");
        }
        let mut answer = reply(200, &fields, now.to_string())?;
        if held == Held::MidBody {
            let (tap, body) = tapped();
            self.taps.lock().push((tap, now));
            answer.body = body;
        }
        Ok(answer)
    }

    /// Lets through whatever is held.
    fn release(&self) {
        self.gate.add_permits(1);
        for (tap, value) in self.taps.lock().drain(..) {
            let text = value.to_string();
            let (a, b) = text.split_at(text.len() / 2);
            for part in [a, b] {
                drop(tap.send(Ok(Bytes::copy_from_slice(part.as_bytes()))));
            }
        }
    }

    fn reset(&self) {
        for semaphore in [&self.gate, &self.asked] {
            while semaphore.forget_permits(100) > 0 {}
        }
    }
}

impl Race {
    fn new(held: Held) -> Race {
        let stage = Arc::new(Stage {
            truth: AtomicU64::new(0),
            asked: Semaphore::new(0),
            gate: Semaphore::new(0),
            taps: Mutex::default(),
        });
        let shared = Arc::clone(&stage);
        let source = Scripted::later(move |_, request| {
            let stage = Arc::clone(&shared);
            async move { stage.answer(held, request).await }.boxed()
        });
        Race { held, bench: Arc::new(Bench::new()), source, stage }
    }

    fn get(&self) -> tokio::task::JoinHandle<u64> {
        let (bench, source) = (Arc::clone(&self.bench), Arc::clone(&self.source));
        tokio::spawn(async move {
            let response = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
            read(response).await.unwrap().text().parse().unwrap()
        })
    }

    async fn finish(&self, get: tokio::task::JoinHandle<u64>) -> u64 {
        while !get.is_finished() {
            self.stage.release();
            tokio::task::yield_now().await;
        }
        get.await.unwrap()
    }

    /// One race; how many of the two GETs after the purge saw what was before it.
    async fn once(&self, n: u64, selector: Option<&Selector>) -> usize {
        if self.held == Held::On304 {
            // Something stored and stale, which the origin would confirm.
            self.finish(self.get()).await;
            self.bench.advance(2);
            self.stage.reset();
        }
        let old = self.get();
        // The origin has read its truth and is held.
        self.stage.asked.acquire().await.unwrap().forget();
        if self.held == Held::MidBody {
            crate::common::until("the head is in", || !self.stage.taps.lock().is_empty()).await;
        }
        self.stage.truth.store(n, Ordering::SeqCst);
        if let Some(selector) = selector {
            self.bench.hard(n, selector.clone());
        }
        // The next one begins after the purge: it must not join, and not find, what was before.
        let next = self.get();
        if n.is_multiple_of(2) && selector.is_some() {
            self.stage.asked.acquire().await.unwrap().forget();
        }
        let next = self.finish(next).await;
        self.finish(old).await;
        // What is stored by now must be of after the purge too.
        let after = self.finish(self.get()).await;
        self.stage.reset();
        self.bench.advance(2);
        self.bench.hard(n, url("/a"));
        usize::from(next < n) + usize::from(after < n)
    }
}

/// How often a race was lost.
async fn lost(held: Held, times: u64, selector: Option<Selector>) -> usize {
    let race = Race::new(held);
    let mut lost = 0;
    for n in 1..=times {
        lost += race.once(n, selector.as_ref()).await;
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_before_the_header_section_wins() {
    assert_eq!(lost(Held::BeforeHead, 1000, Some(url("/a"))).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_in_mid_body_wins() {
    assert_eq!(lost(Held::MidBody, 1000, Some(Selector::Tag("t".into()))).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_during_a_revalidation_wins_over_its_304() {
    assert_eq!(lost(Held::On304, 1000, Some(Selector::Prefix("/".into()))).await, 0);
}

/// For control: without the purge each race does show what is old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_purge_every_race_is_lost() {
    for held in [Held::BeforeHead, Held::MidBody, Held::On304] {
        assert!(lost(held, 20, None).await > 0, "{held:?}");
    }
}
