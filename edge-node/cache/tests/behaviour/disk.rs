//! The disk tier: warm after a restart, right whatever became of its files, and no loss when it fails.

use http::Method;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use verge_cache::{ManualClock, Outcome};
use verge_config::Revision;
use verge_config::purge::{Mode, Selector};
use verge_config::site::CachePolicy;

use crate::common::{Bench, NOW, Scripted, reply};

struct Place {
    folder: Arc<TempDir>,
    clock: Arc<ManualClock>,
}

impl Place {
    fn new() -> Place {
        Place { folder: Arc::new(tempfile::tempdir().unwrap()), clock: ManualClock::new(NOW) }
    }

    /// A process with this folder.
    async fn start(&self) -> Bench {
        Bench::on_disk(&self.folder, &self.clock).await
    }

    /// Files of objects, once there are `count`.
    async fn files(&self, count: usize) -> Vec<PathBuf> {
        let started = std::time::Instant::now();
        loop {
            let files = below(&self.folder.path().join("objects"));
            if files.len() == count {
                return files;
            }
            assert!(started.elapsed().as_secs() < 20, "{count} files were expected: {files:?}");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] })
        .collect();
    files.sort();
    files
}

fn source() -> Arc<Scripted> {
    Scripted::new(|n, _| {
        let fields = [("cache-control", "max-age=1000"), ("cache-tag", "t"), ("x-n", "1")];
        reply(200, &fields, format!("content {n}"))
    })
}

#[tokio::test]
async fn a_restart_keeps_what_was_stored() {
    let (place, source) = (Place::new(), source());
    let bench = place.start().await;
    for n in 0..300 {
        bench.ok(&format!("/{n}"), &[], &source).await;
    }
    place.files(300).await;
    drop(bench);
    place.clock.advance(std::time::Duration::from_secs(10));
    let bench = place.start().await;
    for n in 0..300 {
        let got = bench.ok(&format!("/{n}"), &[], &source).await;
        assert_eq!((got.outcome, got.text()), (Outcome::Hit, format!("content {n}").as_str()));
        assert_eq!((got.header("age"), got.header("x-n")), ("10", "1"));
        assert_eq!(got.header("cache-tag"), "");
    }
    assert_eq!(source.count(), 300);
    // Freshness goes on where it was.
    place.clock.advance(std::time::Duration::from_secs(1000));
    assert_eq!(bench.ok("/1", &[], &source).await.outcome, Outcome::Miss);
}

#[tokio::test]
async fn no_byte_of_a_file_can_change_unnoticed() {
    let place = Place::new();
    let source = Scripted::new(|_, _| {
        reply(200, &[("cache-control", "max-age=1000"), ("vary", "x")], "the one right content")
    });
    let bench = place.start().await;
    bench.ok("/a", &[], &source).await;
    let files = place.files(1).await;
    drop(bench);
    let good = fs::read(&files[0]).unwrap();
    let spoilt = (0..good.len()).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let short = (0..good.len()).map(|length| good[..length].to_vec());
    let long = [[good.clone(), vec![0]].concat(), [vec![0], good.clone()].concat()];
    for bytes in spoilt.chain(short).chain(long) {
        let place = Place::new();
        let path =
            place.folder.path().join(files[0].strip_prefix(first_folder(&files[0])).unwrap());
        // A folder that is believed, with one file that is not what was written.
        drop(place.start().await);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let (bench, before) = (place.start().await, source.count());
        assert_eq!(bench.ok("/a", &[], &source).await.text(), "the one right content");
        assert_eq!(source.count(), before + 1);
    }
    // For control: the file as it was is used.
    let place = Place::new();
    let path = place.folder.path().join(files[0].strip_prefix(first_folder(&files[0])).unwrap());
    drop(place.start().await);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, good).unwrap();
    let (bench, before) = (place.start().await, source.count());
    assert_eq!(bench.ok("/a", &[], &source).await.outcome, Outcome::Hit);
    assert_eq!(source.count(), before);
}

/// The folder that the cache was given: four above its files.
fn first_folder(file: &Path) -> PathBuf {
    file.ancestors().nth(4).unwrap().to_owned()
}

#[tokio::test]
async fn a_file_that_changes_under_a_running_cache_is_noticed() {
    let (place, source) = (Place::new(), source());
    let bench = place.start().await;
    bench.ok("/a", &[], &source).await;
    let file = place.files(1).await.remove(0);
    assert_eq!(bench.ok("/a", &[], &source).await.outcome, Outcome::Hit);
    let mut bytes = fs::read(&file).unwrap();
    bytes[3] ^= 1;
    fs::write(&file, bytes).unwrap();
    let got = bench.ok("/a", &[], &source).await;
    assert_eq!((got.text(), got.outcome), ("content 1", Outcome::Miss));
    assert_eq!(bench.cache.stats().disk_faults, 1);
    // A file that is gone is a miss as well.
    let file = place.files(1).await.remove(0);
    fs::remove_file(file).unwrap();
    let bench_text = bench.ok("/a", &[], &source).await;
    assert!(["content 1", "content 2"].contains(&bench_text.text()));
}

#[tokio::test]
async fn purges_survive_a_restart() {
    let (place, source) = (Place::new(), source());
    let bench = place.start().await;
    for path in ["/a", "/b", "/c"] {
        bench.ok(path, &[], &source).await;
    }
    let files: Vec<_> =
        place.files(3).await.into_iter().map(|f| (f.clone(), fs::read(f).unwrap())).collect();
    bench.hard(1, Selector::Url("/a".into()));
    bench.purge(2, Mode::Soft, &[Selector::Url("/b".into())]);
    place.files(2).await;
    drop(bench);
    // As if the process had been killed before the file was deleted.
    for (file, bytes) in &files {
        fs::write(file, bytes).unwrap();
    }
    let bench = place.start().await;
    assert_eq!(bench.ok("/a", &[], &source).await.outcome, Outcome::Miss);
    assert_eq!(bench.ok("/b", &[], &source).await.outcome, Outcome::Miss);
    assert_eq!(bench.ok("/c", &[], &source).await.outcome, Outcome::Hit);
    drop(bench);
    // And once more, after the log was written anew.
    for (file, bytes) in &files {
        fs::write(file, bytes).unwrap();
    }
    let bench = place.start().await;
    assert_eq!(bench.ok("/c", &[], &source).await.outcome, Outcome::Hit);
    assert!(bench.ok("/a", &[], &source).await.text() != "content 0");
    bench.cache.flush(Revision(9));
    drop(bench);
    for (file, bytes) in &files {
        fs::write(file, bytes).unwrap();
    }
    let bench = place.start().await;
    assert_eq!(bench.ok("/c", &[], &source).await.outcome, Outcome::Miss);
}

#[tokio::test]
async fn without_its_log_of_purges_nothing_is_believed() {
    let (place, source) = (Place::new(), source());
    let bench = place.start().await;
    bench.ok("/a", &[], &source).await;
    bench.hard(1, Selector::Url("/b".into()));
    place.files(1).await;
    drop(bench);
    let log = place.folder.path().join("purges");
    fs::write(&log, "{\"what\"\n").unwrap();
    let bench = place.start().await;
    assert_eq!(bench.ok("/a", &[], &source).await.outcome, Outcome::Miss);
    place.files(1).await;
    drop(bench);
    // Nor without the word that the folder may be.
    fs::remove_file(place.folder.path().join("state")).unwrap();
    let bench = place.start().await;
    assert_eq!(bench.ok("/a", &[], &source).await.outcome, Outcome::Miss);
}

#[tokio::test]
async fn a_second_use_brings_short_content_into_memory() {
    let (folder, clock) = (Arc::new(tempfile::tempdir().unwrap()), ManualClock::new(NOW));
    let ram = |settings: &mut verge_cache::Settings| settings.ram_bytes = 1 << 20;
    let bench = Bench::open(clock, Some(folder), ram, CachePolicy::default()).unwrap();
    let source = source();
    bench.ok("/a", &[], &source).await;
    let started = std::time::Instant::now();
    while bench.cache.stats().ram_bytes == 0 {
        assert!(started.elapsed().as_secs() < 20);
        assert_eq!(bench.ok("/a", &[], &source).await.outcome, Outcome::Hit);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(bench.hits("/a"));
    assert_eq!(source.count(), 1);
}

#[tokio::test]
async fn a_disk_that_fails_costs_no_request() {
    let (place, source) = (Place::new(), source());
    let bench = place.start().await;
    fs::remove_dir_all(place.folder.path().join("tmp")).unwrap();
    for n in 0..10 {
        assert_eq!(bench.ok(&format!("/{n}"), &[], &source).await.status, 200);
    }
    let started = std::time::Instant::now();
    while bench.cache.stats().disk_faults < 10 {
        assert!(started.elapsed().as_secs() < 20, "{:?}", bench.cache.stats());
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    fs::create_dir(place.folder.path().join("tmp")).unwrap();
    bench.ok("/again", &[], &source).await;
    place.files(1).await;
}

#[tokio::test]
async fn what_is_evicted_leaves_no_file() {
    let (folder, clock) = (Arc::new(tempfile::tempdir().unwrap()), ManualClock::new(NOW));
    let small = |settings: &mut verge_cache::Settings| {
        settings.disk.as_mut().unwrap().bytes = 4 << 20;
        settings.max_object_bytes = Some(1 << 20);
    };
    let bench =
        Bench::open(clock, Some(Arc::clone(&folder)), small, CachePolicy::default()).unwrap();
    let source = Scripted::new(|n, _| {
        let content = vec![u8::try_from(n % 256).unwrap(); 100_000];
        reply(200, &[("cache-control", "max-age=1000")], content)
    });
    for n in 0..200 {
        bench.ok(&format!("/{n}"), &[], &source).await;
    }
    let files = || {
        let lengths =
            below(folder.path()).into_iter().filter_map(|f| Some(fs::metadata(f).ok()?.len()));
        lengths.filter(|length| *length > 100_000).count() as u64
    };
    // Files are written and removed beside the work: in the end there is one for each that is kept.
    let started = std::time::Instant::now();
    loop {
        let stats = bench.cache.stats();
        if stats.evicted >= 100 && files() == stats.entries {
            break;
        }
        assert!(started.elapsed().as_secs() < 20, "{} {stats:?}", files());
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert!((10..50).contains(&files()), "for control: {}", files());
}

#[tokio::test]
async fn long_content_goes_to_its_file_while_it_is_read() {
    let (place, length) = (Place::new(), 40 << 20);
    let bench = place.start().await;
    let (tap, body) = crate::common::tapped();
    let body = std::sync::Mutex::new(Some(body));
    let source = Scripted::new(move |_, _| {
        let mut answer = reply(200, &[("cache-control", "max-age=1000")], "").unwrap();
        answer.headers.remove("content-length");
        answer.body = body.lock().unwrap().take().unwrap();
        Ok(answer)
    });
    let piece = |n: usize| vec![u8::try_from(n % 251).unwrap(); 1 << 16];
    let first = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
    let mut most = 0;
    for n in 0..length >> 16 {
        tap.send(Ok(piece(n).into())).unwrap();
        while bench.cache.stats().fill_bytes > 2 << 20 {
            tokio::task::yield_now().await;
        }
        most = most.max(bench.cache.stats().fill_bytes);
    }
    assert!(most < 3 << 20, "{most} bytes in memory");
    // Who comes late, and who comes for the middle, reads what is in the file by now.
    let late = bench.serve(Method::GET, "/a", &[], &source).await.unwrap();
    drop(tap);
    for response in [first, late] {
        let got = crate::common::read(response).await.unwrap();
        assert_eq!(got.body.len(), length);
        for (n, chunk) in got.body.chunks(1 << 16).enumerate() {
            assert_eq!(chunk[0], u8::try_from(n % 251).unwrap(), "chunk {n}");
        }
    }
    let got = bench.ok("/a", &[("range", "bytes=20000000-20000009")], &source).await;
    assert_eq!((got.status, got.outcome), (206, Outcome::Hit));
    assert_eq!(got.body, vec![u8::try_from((20_000_000 >> 16) % 251).unwrap(); 10]);
    assert_eq!(source.count(), 1);
}

#[tokio::test]
async fn several_ranges_are_read_from_the_file() {
    let place = Place::new();
    let bench = place.start().await;
    let source = Scripted::new(|_, _| {
        let content: Vec<u8> = (0..5000).map(|at| u8::try_from(at % 251).unwrap()).collect();
        reply(200, &[("cache-control", "max-age=1000")], content)
    });
    bench.ok("/a", &[], &source).await;
    place.files(1).await;
    // Once it is sent from its file, too.
    for _ in 0..3 {
        let got = bench.ok("/a", &[("range", "bytes=0-3,4000-4003")], &source).await;
        assert_eq!((got.status, got.header("content-length")), (206, &*got.body.len().to_string()));
        assert!(got.body.windows(4).any(|bytes| bytes == [235, 236, 237, 238]));
        assert_eq!(bench.ok("/a", &[("range", "bytes=4-5")], &source).await.body[..], [4, 5]);
    }
    assert_eq!(source.count(), 1);
}

#[tokio::test]
async fn a_confirmed_object_is_as_fresh_after_a_restart() {
    let place = Place::new();
    let source = Scripted::new(|n, _| {
        let status = if n == 0 { 200 } else { 304 };
        reply(
            status,
            &[("cache-control", "max-age=100"), ("etag", "\"v\"")],
            if n == 0 { "content" } else { "" },
        )
    });
    let bench = place.start().await;
    bench.ok("/a", &[], &source).await;
    let file = place.files(1).await.remove(0);
    let before = fs::read(&file).unwrap();
    place.clock.advance(std::time::Duration::from_secs(150));
    assert_eq!(bench.ok("/a", &[], &source).await.outcome, Outcome::Revalidated);
    let started = std::time::Instant::now();
    while fs::read(&file).unwrap() == before {
        assert!(started.elapsed().as_secs() < 20);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    drop(bench);
    place.clock.advance(std::time::Duration::from_secs(50));
    let bench = place.start().await;
    let got = bench.ok("/a", &[], &source).await;
    assert_eq!((got.outcome, got.header("age"), got.text()), (Outcome::Hit, "50", "content"));
    assert_eq!(source.count(), 2);
}
