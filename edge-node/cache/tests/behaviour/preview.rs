//! What a purge would be for, told without purging: the same count as the purge's own, samples within
//! their number, and nothing changed.

use http::Method;
use std::sync::Arc;
use verge_cache::Tier;
use verge_config::purge::{Purge, Selector};
use verge_config::{Mode, Revision};

use crate::common::{Bench, Scripted, reply};

fn source() -> Arc<Scripted> {
    Scripted::new(|_, request| {
        let own = request.headers.get("foo").map_or("-", |v| v.to_str().unwrap()).to_owned();
        let fields = [("cache-control", "max-age=100"), ("vary", "foo"), ("cache-tag", "assets")];
        reply(200, &fields, own)
    })
}

fn purge(site: &str, mode: Mode, selector: Selector) -> Purge {
    Purge { revision: Revision(0), site: site.into(), selectors: vec![selector], mode }
}

#[tokio::test]
async fn it_counts_what_the_purge_counts_and_purges_nothing() {
    let (bench, source) = (Bench::new(), source());
    for target in ["/a", "/a?x=1", "/b/c"] {
        for value in ["1", "2"] {
            bench.ok(target, &[("foo", value)], &source).await;
        }
    }
    let fetches = source.count();
    for (selector, count, samples) in [
        (Selector::Url("/a".into()), 2, vec!["https://shop.example/a"]),
        (
            Selector::Prefix("/a".into()),
            4,
            vec!["https://shop.example/a", "https://shop.example/a?x=1"],
        ),
        (Selector::Tag("ASSETS".into()), 6, vec![]),
        (Selector::Everything(true), 6, vec![]),
        (Selector::Host("other.example".into()), 0, vec![]),
    ] {
        for mode in [Mode::Hard, Mode::Soft] {
            let mut seen = bench.cache.preview(&purge("shop", mode, selector.clone()), 10);
            seen.samples.sort();
            assert_eq!(seen.matched, count, "{selector:?}");
            if !samples.is_empty() || count == 0 {
                assert_eq!(seen.samples, samples, "{selector:?}");
            }
        }
    }
    let all = purge("shop", Mode::Hard, Selector::Everything(true));
    assert_eq!(bench.cache.preview(&all, 2).samples.len(), 2);
    assert_eq!(bench.cache.preview(&all, 0).samples.len(), 0);
    let foreign = Purge { site: "another".into(), ..all.clone() };
    assert_eq!(bench.cache.preview(&foreign, 10).matched, 0);
    for target in ["/a", "/a?x=1", "/b/c"] {
        bench.ok(target, &[("foo", "1")], &source).await;
    }
    assert_eq!(source.count(), fetches, "everything is still fresh");
    // The purge itself says the same, and after it there is nothing left to preview.
    assert_eq!(bench.hard(1, Selector::Prefix("/a".into())), 4);
    assert_eq!(bench.cache.preview(&all, 10).matched, 2);
    bench.hard(2, Selector::Everything(true));
    assert_eq!(bench.cache.preview(&all, 10).matched, 0);
}

#[tokio::test]
async fn what_a_soft_purge_made_stale_is_still_there_to_purge() {
    let (bench, source) = (Bench::new(), source());
    bench.ok("/a", &[], &source).await;
    bench.purge(1, Mode::Soft, &[Selector::Everything(true)]);
    let all = purge("shop", Mode::Hard, Selector::Everything(true));
    assert_eq!(bench.cache.preview(&all, 10).matched, 1);
}

#[tokio::test]
async fn an_explanation_names_the_tier() {
    let (bench, source) = (Bench::new(), source());
    let none = http::HeaderMap::new();
    let tier = || bench.cache.explain(&bench.request(&Method::GET, "/a", &none)).tier;
    assert_eq!(tier(), Tier::None);
    bench.ok("/a", &[], &source).await;
    assert_eq!(tier(), if bench.folder.is_some() { Tier::Disk } else { Tier::Ram });
}
