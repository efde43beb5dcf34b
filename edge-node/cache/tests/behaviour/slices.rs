//! Ranges of what is not stored: slices, stored parts, and parts put together.

use http::{HeaderMap, Method};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use verge_cache::HitContent;

use crate::common::{Bench, Scripted, read, reply};

const SLICE: usize = 1 << 20;

/// `length` bytes that differ from place to place.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + at / 251) % 251).unwrap()).collect()
}

/// A source that does ranges of content, whose entity-tag is `"v"` and the count of changes.
fn ranged(content: Vec<u8>, changes: &Arc<AtomicUsize>) -> Arc<Scripted> {
    let changes = Arc::clone(changes);
    Scripted::new(move |_, request| {
        let tag = format!("\"v{}\"", changes.load(Ordering::SeqCst));
        let fields = [("cache-control", "max-age=100"), ("etag", tag.as_str())];
        let condition = request.headers.get("if-range").map(|tag| tag.to_str().unwrap().to_owned());
        let Some(range) =
            request.headers.get("range").filter(|_| condition.is_none_or(|c| c == tag))
        else {
            return reply(200, &fields, content.clone());
        };
        let (first, last) = range.to_str().unwrap()["bytes=".len()..].split_once('-').unwrap();
        let total = content.len();
        let (first, last) = if first.is_empty() {
            (total - last.parse::<usize>().unwrap(), total - 1)
        } else {
            let last = last.parse().unwrap_or(usize::MAX).min(total - 1);
            (first.parse().unwrap(), last)
        };
        if first >= total {
            return reply(416, &[("content-range", &format!("bytes */{total}"))], "");
        }
        let range = format!("bytes {first}-{last}/{total}");
        let fields = [fields[0], fields[1], ("content-range", range.as_str())];
        reply(206, &fields, content[first..=last].to_vec())
    })
}

#[tokio::test]
async fn a_long_range_is_fetched_and_kept_in_slices() {
    let (bench, changes) = (Bench::new(), Arc::default());
    let whole = content(5 * SLICE + 1000);
    let source = ranged(whole.clone(), &changes);
    for (range, first, last, fetches) in [
        ("bytes=100-199", 100, 199, 1),
        ("bytes=200-299", 200, 299, 1),
        ("bytes=1048000-3200000", 1_048_000, 3_200_000, 4),
        ("bytes=2000000-3200000", 2_000_000, 3_200_000, 4),
        ("bytes=4000000-", 4_000_000, whole.len() - 1, 6),
        ("bytes=-1500", whole.len() - 1500, whole.len() - 1, 6),
    ] {
        let got = bench.ok("/a", &[("range", range)], &source).await;
        assert_eq!(got.status, 206, "{range}");
        let expected = format!("bytes {first}-{last}/{}", whole.len());
        assert_eq!(got.header("content-range"), expected, "{range}");
        assert_eq!(got.header("content-length"), (last - first + 1).to_string(), "{range}");
        assert!(got.body == whole[first..=last], "{range}");
        assert_eq!(source.count(), fetches, "{range}: {:?}", got.headers);
    }
    // What lies behind the end is known to be nowhere, or is asked for.
    let got = bench.ok("/a", &[("range", "bytes=99999999-")], &source).await;
    assert_eq!(got.status, 416);
    // The whole is another thing; it takes the place of its parts.
    assert!(bench.ok("/a", &[], &source).await.body == whole);
    let fetches = source.count();
    assert!(bench.ok("/a", &[("range", "bytes=7-8")], &source).await.body == whole[7..=8]);
    assert_eq!(source.count(), fetches);
}

#[tokio::test]
async fn a_purge_reaches_every_slice() {
    let (bench, changes) = (Bench::new(), Arc::default());
    let source = ranged(content(3 * SLICE), &changes);
    bench.ok("/a", &[("range", "bytes=0-3000000")], &source).await;
    assert_eq!(source.count(), 3);
    assert_eq!(bench.hard(1, verge_config::purge::Selector::Url("/a".into())), 3);
    bench.ok("/a", &[("range", "bytes=0-3000000")], &source).await;
    assert_eq!(source.count(), 6);
}

#[tokio::test]
async fn slices_of_two_representations_are_never_put_together() {
    let (bench, changes) = (Bench::new(), Arc::<AtomicUsize>::default());
    let source = ranged(content(3 * SLICE), &changes);
    bench.ok("/a", &[("range", "bytes=0-10")], &source).await;
    changes.fetch_add(1, Ordering::SeqCst);
    let broken = bench.get("/a", &[("range", "bytes=0-3000000")], &source).await;
    assert!(broken.unwrap_err().contains("changed"));
    // For control: without the change it is whole.
    changes.fetch_sub(1, Ordering::SeqCst);
    let got = bench.ok("/a", &[("range", "bytes=0-3000000")], &source).await;
    assert!(got.body == content(3 * SLICE)[..=3_000_000]);
}

#[tokio::test]
async fn what_is_short_is_stored_whole_by_its_first_range() {
    let (bench, changes) = (Bench::new(), Arc::default());
    let source = ranged(content(1000), &changes);
    assert_eq!(bench.ok("/a", &[("range", "bytes=10-19")], &source).await.body.len(), 10);
    let whole = bench.ok("/a", &[], &source).await;
    assert_eq!((whole.status, whole.body.len(), source.count()), (200, 1000, 1));
    assert_eq!(whole.header("content-range"), "");
}

#[tokio::test]
async fn a_part_is_stored_and_answers_what_lies_in_it() {
    let bench = Bench::new();
    let source = Scripted::new(|_, request| {
        assert_eq!(request.headers["range"], "bytes=-5");
        reply(206, &[("cache-control", "max-age=100"), ("content-range", "bytes 5-9/10")], "56789")
    });
    for (range, text, content_range) in [
        ("bytes=-5", "56789", "bytes 5-9/10"),
        ("bytes=-5", "56789", "bytes 5-9/10"),
        ("bytes=6-7", "67", "bytes 6-7/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=-1", "9", "bytes 9-9/10"),
    ] {
        let got = bench.ok("/a", &[("range", range)], &source).await;
        assert_eq!((got.status, got.text()), (206, text), "{range}");
        assert_eq!(got.header("content-range"), content_range, "{range}");
    }
    assert_eq!(source.count(), 1);
}

#[tokio::test]
async fn parts_of_one_representation_are_combined() {
    let bench = Bench::new();
    let source = Scripted::new(|n, request| {
        let range = request.headers["range"].to_str().unwrap().to_owned();
        let (part, body) = match range.as_str() {
            "bytes=-4" => ("bytes 6-9/10", "6789"),
            "bytes=-7" => ("bytes 3-9/10", "3456789"),
            // Less than was asked for.
            _ => ("bytes 0-5/10", "012345"),
        };
        assert!(n < 2, "{range}");
        let fields = [("cache-control", "max-age=100"), ("etag", "\"v\""), ("content-range", part)];
        reply(206, &fields, body)
    });
    bench.ok("/a", &[("range", "bytes=-4")], &source).await;
    assert_eq!(bench.ok("/a", &[("range", "bytes=0-3")], &source).await.text(), "0123");
    // Both together are all of it.
    let whole = bench.ok("/a", &[], &source).await;
    assert_eq!((whole.status, whole.text()), (200, "0123456789"));
    assert_eq!(bench.ok("/a", &[("range", "bytes=2-8")], &source).await.text(), "2345678");
}

#[tokio::test]
async fn what_may_not_be_stored_is_asked_for_as_it_is() {
    let bench = Bench::new();
    let source = Scripted::new(|_, request| {
        let range = request.headers["range"].to_str().unwrap().to_owned();
        let (part, body) = match range.as_str() {
            "bytes=5-2000000" => ("bytes 5-2000000/3000000", content(1_999_996)),
            _ => ("bytes 0-1048575/3000000", content(SLICE)),
        };
        reply(206, &[("cache-control", "no-store"), ("content-range", part)], body)
    });
    for _ in 0..2 {
        let got = bench.ok("/a", &[("range", "bytes=5-2000000")], &source).await;
        assert_eq!((got.status, got.body.len()), (206, 1_999_996));
    }
}

#[tokio::test]
async fn several_ranges_are_several_parts() {
    let bench = Bench::new();
    let whole = content(5000);
    let source = ranged(whole.clone(), &Arc::default());
    bench.ok("/a", &[], &source).await;
    let got = bench.ok("/a", &[("range", "bytes=0-9,4000-4009")], &source).await;
    assert_eq!(got.status, 206);
    let kind = got.header("content-type").to_owned();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert_eq!(got.header("content-length"), got.body.len().to_string());
    let holds = |needle: &[u8]| got.body.windows(needle.len()).any(|w| w == needle);
    assert!(holds(b"bytes 0-9/5000") && holds(b"bytes 4000-4009/5000"));
    assert!(holds(&whole[0..10]) && holds(&whole[4000..4010]));
    assert!(got.body.ends_with(format!("\r\n--{boundary}--\r\n").as_bytes()));
}

#[tokio::test]
async fn many_visitors_of_one_slice_make_one_request() {
    let bench = Bench::new();
    let source = ranged(content(3 * SLICE), &Arc::default());
    let requests = (0..50).map(|_| async {
        let response = bench.serve(Method::GET, "/a", &[("range", "bytes=5-10")], &source).await;
        read(response.unwrap()).await.unwrap().body.len()
    });
    assert!(futures::future::join_all(requests).await.iter().all(|length| *length == 6));
    assert_eq!(source.count(), 1);
}

#[tokio::test]
async fn long_content_in_memory_is_a_file_and_reads_as_any_other() {
    let bench = Bench::new();
    let whole = content(300_000);
    let body = whole.clone();
    let source = Scripted::new(move |_, request| {
        let fields = [("cache-control", "max-age=10"), ("etag", "\"v\"")];
        match request.headers.contains_key("if-none-match") {
            true => reply(304, &fields, ""),
            false => reply(200, &fields, body.clone()),
        }
    });
    assert_eq!(bench.ok("/a", &[], &source).await.body, whole);
    for _ in 0..2 {
        let none = HeaderMap::new();
        let hit = bench.cache.hit(&bench.request(&Method::GET, "/a", &none)).unwrap();
        let is_file = matches!(hit.content, HitContent::File(part) if part.len == 300_000);
        assert!(
            is_file || std::env::var_os("VERGE_CACHE_TIER").is_some(),
            "on disk either will do"
        );
        assert_eq!(bench.ok("/a", &[], &source).await.body, whole);
        let part = bench.ok("/a", &[("range", "bytes=1000-269999")], &source).await;
        assert_eq!((part.status, &part.body[..]), (206, &whole[1000..270_000]));
        let parts = bench.ok("/a", &[("range", "bytes=5-9,280000-280003")], &source).await;
        assert_eq!(parts.status, 206);
        let has = |bytes: &[u8]| parts.body.windows(bytes.len()).any(|found| found == bytes);
        assert!(has(&whole[5..10]) && has(&whole[280_000..280_004]));
        // Once more, when it was confirmed.
        bench.advance(20);
        assert_eq!(bench.ok("/a", &[], &source).await.body, whole);
    }
    assert_eq!(source.count(), 3);
}
