//! A real edge whose disk does it wrong: files that somebody changed or cut, and no room. No visitor sees
//! a wrong byte, and none is turned away.

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

/// What the edge counts of its disk's faults.
async fn faults(edge: &Edge) -> usize {
    let name = "verge_cache_disk_faults ";
    until("the gauge to be brought up to date", || async {
        let text = edge.admin("/metrics").await.expect(200).text();
        let count = text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
        count.filter(|count| *count > 0)
    })
    .await
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
    assert!(faults(&edge).await > 0);
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
