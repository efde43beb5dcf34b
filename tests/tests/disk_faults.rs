//! A real edge whose disk does it wrong: files that somebody changed or cut, no room, nothing that can be
//! written, or read. No visitor sees a wrong byte, and none is turned away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use serde_json::json;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tempfile::TempDir;
use verge_tests::{Edge, Origin, Reply, answer, site, until};

const HOST: &str = "disk.example";
const MIB: usize = 1024 * 1024;
/// Changed and cut files.
const SPOILT: usize = 60;
/// Bytes of content, in ascending order.
const LENGTHS: [usize; 4] = [1_000, 60_000, 300_000, 1_500_000];
/// Files that nobody touched, for control.
const GOOD: usize = 12;
const TOLD: &str = "the cache's disk fails";

/// An object of a length that its path ends with, `/<number>/<length>`; `version` is in its bytes.
fn body(path: &str, version: usize) -> Vec<u8> {
    let mut parts = path.rsplit('/');
    let length: usize = parts.next().unwrap().parse().unwrap();
    let number: u64 = parts.next().unwrap().parse().unwrap();
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(number * 1_000 + version as u64).fill_bytes(&mut bytes);
    bytes
}

/// Its origin, and the version that it serves of all of them.
async fn origin() -> (Origin, Arc<AtomicUsize>) {
    let version = Arc::new(AtomicUsize::new(1));
    let now = Arc::clone(&version);
    let origin = Origin::start(move |seen| {
        let fields = [("Cache-Control", "max-age=86400"), ("Content-Type", "image/png")];
        let answer = answer(200, &fields, body(&seen.path, now.load(Ordering::SeqCst)));
        async move { answer }
    })
    .await;
    (origin, version)
}

/// Short ones, some of a few blocks, and long ones that are sent block by block.
fn paths() -> Vec<String> {
    let length = |number| LENGTHS[number % LENGTHS.len()];
    (0..SPOILT + GOOD).map(|number| format!("/{number}/{}", length(number))).collect()
}

/// The files of stored objects, those of one length beside each other.
fn files(folder: &Path) -> Vec<PathBuf> {
    fn below(folder: &Path, found: &mut Vec<(u64, PathBuf)>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(data) if data.is_dir() => below(&entry.path(), found),
                Ok(data) => found.push((data.len(), entry.path())),
                Err(_) => {}
            }
        }
    }
    let mut found = Vec::new();
    below(&folder.join("responses/objects"), &mut found);
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

async fn all_files(folder: &Path, count: usize) -> Vec<PathBuf> {
    until("all objects to have files", || async {
        let files = files(folder);
        (files.len() == count).then_some(files)
    })
    .await
}

/// Changes a bit of a file, or cuts it: together all parts of files, content, record and trailer. Whether
/// it hit the content.
fn spoil(index: usize, file: &Path) -> bool {
    let size = fs::metadata(file).unwrap().len();
    // Half of the places anywhere, half in what lies behind the content.
    let at = match index % 4 {
        0 | 1 => size * (index as u64 * 7 % 60) / 60,
        _ => size - 1 - index as u64 * 5 % 320,
    };
    let content = *LENGTHS.iter().rfind(|length| **length as u64 <= size).unwrap() as u64;
    let file = File::options().read(true).write(true).open(file).unwrap();
    if index.is_multiple_of(2) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << (index % 8))], at).unwrap();
    } else {
        file.set_len(at).unwrap();
    }
    at < content
}

/// Asks for all objects: nothing wrong may come. What is found wrong on the way is cut short there, and
/// right when it is asked for again. How many were hits to their end.
async fn hits(edge: &Edge, paths: &[String]) -> usize {
    let mut hits = 0;
    for path in paths {
        let right = body(path, 1);
        let reply = edge.get(HOST, path).await.expect(200);
        assert!(right.starts_with(&reply.body), "{path}: a wrong byte");
        assert_eq!(reply.whole, reply.body.len() == right.len(), "{path}");
        hits += usize::from(reply.is_hit() && reply.whole);
        if !reply.whole {
            let again = edge.get(HOST, path).await.expect(200);
            assert!(!again.is_hit(), "{path}: a damaged file is used again: {again:?}");
            assert!(again.whole && again.body == right, "{path}: asked again: {again:?}");
        }
    }
    hits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wrong_byte_comes_from_files_that_were_changed() {
    let (origin, _) = origin().await;
    let (folder, paths) = (TempDir::new().unwrap(), paths());
    let dir = folder.path().display().to_string();
    // Nothing whole in memory: all of it comes from the files.
    let arguments = ["--cache-dir", &dir, "--ram", "0"];
    let mut edge = Edge::standalone(site::plain(&origin)).with(&arguments).start().await;
    hits(&edge, &paths).await;
    let stored = all_files(folder.path(), paths.len()).await;
    assert_eq!(hits(&edge, &paths).await, paths.len(), "for control: all are hits");

    edge.process.kill();
    for (index, file) in stored[..SPOILT].iter().enumerate() {
        spoil(index, file);
    }
    edge.restart().await;
    until("the scan to end", || async {
        (edge.process.output().matches("the cache's disk is read").count() == 2).then_some(())
    })
    .await;
    assert_eq!(hits(&edge, &paths).await, GOOD, "after a restart");

    // The same under a running edge, which has seen these files as they were.
    hits(&edge, &paths).await;
    let stored = all_files(folder.path(), paths.len()).await;
    assert_eq!(hits(&edge, &paths).await, paths.len(), "for control: all are hits again");
    let spoil = |(index, file): (usize, &PathBuf)| spoil(index, file);
    let wrong = stored[..SPOILT].iter().enumerate().map(spoil).filter(|is_wrong| *is_wrong).count();
    assert!(wrong > SPOILT / 3, "{wrong} contents were hit");
    // The record is in memory: what became of it in the file is of no matter yet.
    assert_eq!(hits(&edge, &paths).await, paths.len() - wrong, "under a running edge");
    assert_eq!(hits(&edge, &paths).await, paths.len(), "and all are stored again");
}

/// Waits until the edge has counted so many faults of its disk: the gauge is brought up to date now and
/// then.
async fn counts_faults(edge: &Edge, least: usize) {
    let name = "verge_cache_disk_faults ";
    until(&format!("{least} faults to be counted"), || async {
        let text = edge.admin("/metrics").await.expect(200).text();
        let count = text.lines().find_map(|line| line.strip_prefix(name)?.parse::<usize>().ok());
        (count? >= least).then_some(())
    })
    .await;
}

/// A file system of its own that is soon full; gone when this is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where this process may not mount one.
    fn mount(bytes: usize) -> Option<SmallDisk> {
        let folder = TempDir::new().unwrap();
        let size = format!("size={bytes}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output()
            .ok()?;
        mount.status.success().then(|| SmallDisk(folder))
    }

    /// Takes all the room that is left, with a file of this name.
    fn fill(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let file = File::create(&path).unwrap();
        let mut at = 0;
        for piece in [vec![1; 64 * 1024], vec![1]] {
            while let Ok(count @ 1..) = file.write_at(&piece, at) {
                at += count as u64;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn is_right(reply: &Reply, path: &str, version: usize) -> bool {
    reply.status == 200 && reply.whole && reply.body == body(path, version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_turns_nobody_away() {
    let Some(disk) = SmallDisk::mount(24 * MIB) else {
        eprintln!("skipped: a small file system to fill cannot be mounted here");
        return;
    };
    let (origin, version) = origin().await;
    let dir = disk.0.path().join("cache").display().to_string();
    let arguments = ["--cache-dir", &dir, "--disk", "1GiB"];
    let mut edge = Edge::standalone(site::plain(&origin)).with(&arguments).start().await;
    let started = Instant::now();
    let short: Vec<_> = (0..100).map(|number| format!("/{number}/200000")).collect();
    let long: Vec<_> = (0..10).map(|number| format!("/{number}/3000000")).collect();
    let filler = disk.fill("filler");
    for path in short.iter().chain(&long) {
        assert!(is_right(&edge.get(HOST, path).await, path, 1), "{path}");
    }
    counts_faults(&edge, 1).await;
    let told = edge.process.output().matches(TOLD).count();
    let most = 1 + usize::try_from(started.elapsed().as_secs() / 60).unwrap();
    assert!((1..=most).contains(&told), "told of {told} times");
    // What needs no disk is kept in memory.
    for path in &short[90..] {
        let reply = edge.get(HOST, path).await;
        assert!(is_right(&reply, path, 1) && reply.is_hit(), "{path}: {reply:?}");
    }

    // A purge that cannot be written down is in force, and stays so.
    version.store(2, Ordering::SeqCst);
    let url = format!("http://{HOST}{}", short[99]);
    edge.purge(&json!({ "selectors": [{ "url": url }] })).await.expect(201);
    assert!(is_right(&edge.get(HOST, &short[99]).await, &short[99], 2), "purged");
    edge.process.kill();
    let more = disk.fill("more");
    edge.restart().await;
    edge.ready().await;
    for path in [&short[99], &short[0], &long[0]] {
        assert!(is_right(&edge.get(HOST, path).await, path, 2), "{path} after a restart");
    }

    // With room again it is a disk tier again.
    fs::remove_file(filler).unwrap();
    fs::remove_file(more).unwrap();
    edge.restart().await;
    edge.ready().await;
    for path in &short[..20] {
        assert!(is_right(&edge.get(HOST, path).await, path, 2), "{path}");
    }
    all_files(&disk.0.path().join("cache"), 20).await;
    edge.restart().await;
    until("the scan to find them", || async {
        edge.process.output().contains("is read found=20").then_some(())
    })
    .await;
    for path in &short[..20] {
        let reply = edge.get(HOST, path).await;
        assert!(is_right(&reply, path, 2) && reply.is_hit(), "{path}: {reply:?}");
    }
}

/// A folder that can only be read, by whoever opens something in it; as it was when this is dropped.
struct ReadOnly(PathBuf);

impl ReadOnly {
    /// `None` where this process may not mount it over itself.
    fn over(folder: PathBuf) -> Option<ReadOnly> {
        let mount = |arguments: &[&str]| {
            let done = Command::new("mount").args(arguments).arg(&folder).output();
            done.is_ok_and(|done| done.status.success())
        };
        if !mount(&["--bind", folder.to_str()?]) {
            return None;
        }
        let read_only = ReadOnly(folder.clone());
        mount(&["-o", "remount,bind,ro"]).then_some(read_only)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// That it was told of, and at most once a minute since `started`.
fn is_told(edge: &Edge, started: Instant) {
    let told = edge.process.output().matches(TOLD).count();
    let most = 1 + usize::try_from(started.elapsed().as_secs() / 60).unwrap();
    assert!((1..=most).contains(&told), "told of {told} times");
}

/// Asks for all of these; how many were hits. Each is right and whole.
async fn right_hits(edge: &Edge, paths: &[String], version: usize) -> usize {
    let mut hits = 0;
    for path in paths {
        let reply = edge.get(HOST, path).await;
        assert!(is_right(&reply, path, version), "{path}: {reply:?}");
        hits += usize::from(reply.is_hit());
    }
    hits
}

/// Paths of objects of so many bytes.
fn of_length(numbers: std::ops::Range<usize>, length: usize) -> Vec<String> {
    numbers.map(|number| format!("/{number}/{length}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_becomes_read_only_turns_nobody_away() {
    let (origin, _) = origin().await;
    let folder = TempDir::new().unwrap();
    let dir = folder.path().display().to_string();
    let mut edge =
        Edge::standalone(site::plain(&origin)).with(&["--cache-dir", &dir]).start().await;
    let started = Instant::now();
    let (early, early_long) = (of_length(0..20, 200_000), of_length(0..4, 3_000_000));
    for paths in [&early, &early_long] {
        assert_eq!(right_hits(&edge, paths, 1).await, 0);
    }
    all_files(folder.path(), 24).await;
    assert!(!edge.process.output().contains(TOLD), "for control: nothing fails yet");
    let Some(read_only) = ReadOnly::over(folder.path().join("responses")) else {
        eprintln!("skipped: a folder cannot be made read-only for this user here");
        return;
    };

    // What is there is there still.
    for paths in [&early, &early_long] {
        assert_eq!(right_hits(&edge, paths, 1).await, paths.len());
    }
    // What is new is served, and what needs no disk is kept in memory.
    let (late, late_long) = (of_length(100..140, 200_000), of_length(100..104, 3_000_000));
    assert_eq!(right_hits(&edge, &late, 1).await, 0);
    assert_eq!(right_hits(&edge, &late_long, 1).await, 0);
    assert_eq!(right_hits(&edge, &late, 1).await, late.len());
    right_hits(&edge, &late_long, 1).await;
    counts_faults(&edge, late.len()).await;
    is_told(&edge, started);
    assert_eq!(files(folder.path()).len(), 24, "nothing new came to the disk");

    // Once it can be written to it is a disk tier again, to the next process, too.
    drop(read_only);
    let again = of_length(200..220, 200_000);
    assert_eq!(right_hits(&edge, &again, 1).await, 0);
    all_files(folder.path(), 44).await;
    is_told(&edge, started);
    edge.restart().await;
    until("the scan to find them", || async {
        edge.process.output().contains("is read found=44").then_some(())
    })
    .await;
    for paths in [&early, &early_long, &again] {
        assert_eq!(right_hits(&edge, paths, 1).await, paths.len());
    }
}

/// The folders of files go, and cannot be made again: nothing can be opened and nothing written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_can_no_longer_be_read_are_fetched_again() {
    let (origin, version) = origin().await;
    let folder = TempDir::new().unwrap();
    let dir = folder.path().display().to_string();
    let mut edge =
        Edge::standalone(site::plain(&origin)).with(&["--cache-dir", &dir]).start().await;
    let (short, long) = (of_length(0..30, 200_000), of_length(0..4, 3_000_000));
    for paths in [&short, &long] {
        assert_eq!(right_hits(&edge, paths, 1).await, 0);
    }
    all_files(folder.path(), 34).await;
    // A new process has none of it in memory, and no file open.
    edge.restart().await;
    let started = Instant::now();
    until("the scan to find them", || async {
        edge.process.output().contains("is read found=34").then_some(())
    })
    .await;
    let asked = origin.seen().len();
    assert_eq!(right_hits(&edge, &short[..5], 1).await, 5, "for control: they can be read");
    assert_eq!(origin.seen().len(), asked, "for control: nobody is asked");

    let responses = folder.path().join("responses");
    for name in ["objects", "tmp"] {
        fs::rename(responses.join(name), responses.join(format!("{name}-away"))).unwrap();
        fs::write(responses.join(name), "no folder").unwrap();
    }
    let unread = &short[5..];
    assert_eq!(right_hits(&edge, unread, 1).await, 0);
    assert_eq!(right_hits(&edge, &long, 1).await, 0);
    assert_eq!(origin.seen().len() - asked, unread.len() + long.len(), "each is asked for once");
    counts_faults(&edge, unread.len()).await;
    is_told(&edge, started);
    assert_eq!(right_hits(&edge, unread, 1).await, unread.len(), "from memory");

    // What is purged meanwhile is gone, whatever lies in the folder.
    version.store(2, Ordering::SeqCst);
    edge.purge(&json!({ "selectors": [{ "prefix": "/1" }] })).await.expect(201);
    let is_purged = |path: &&String| path.starts_with("/1");
    let purged: Vec<_> = short.iter().chain(&long).filter(is_purged).cloned().collect();
    assert!(purged.len() > 10);
    assert_eq!(right_hits(&edge, &purged, 2).await, 0);
    edge.process.kill();
    for name in ["objects", "tmp"] {
        fs::remove_file(responses.join(name)).unwrap();
        fs::rename(responses.join(format!("{name}-away")), responses.join(name)).unwrap();
    }
    edge.restart().await;
    until("the scan to end", || async {
        (edge.process.output().matches("the cache's disk is read").count() == 3).then_some(())
    })
    .await;
    assert_eq!(right_hits(&edge, &purged, 2).await, 0, "the old files do not come back");
    let kept: Vec<_> = short.iter().filter(|path| !is_purged(path)).cloned().collect();
    assert_eq!(right_hits(&edge, &kept, 1).await, kept.len(), "for control: the others do");
}
