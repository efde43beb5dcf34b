//! A real edge that is killed in the middle of its work, again and again, and goes on from its disk: warm,
//! right to the last byte, and with every purge in force.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::task::JoinSet;
use verge_tests::origin::Seen;
use verge_tests::{Edge, Http1, Origin, answer, site, until};

const HOST: &str = "kill.example";
const CYCLES: usize = 6;
const OBJECTS: usize = 300;
/// An object has one of so many tags.
const TAGS: usize = 30;
const LANES: usize = 6;
/// Responses under load before the edge is killed.
const BEFORE_THE_KILL: usize = 400;
/// How many bytes there are of some objects, from many short ones to few long ones.
const LENGTHS: [(usize, usize); 6] =
    [(40, 1_024), (70, 5_000), (88, 30_000), (95, 200_000), (98, 1_048_576), (100, 3_000_000)];
const SCANNED: &str = "the cache's disk is read";

/// A request: path and the language that an object with variants is asked for in.
type Key = (String, &'static str);

/// What the origin serves: for each path the version that is right now.
struct World {
    /// How often a purge began or ended: while one is on its way, two versions are right.
    purges: AtomicUsize,
    versions: Vec<AtomicUsize>,
}

impl World {
    fn new() -> Arc<World> {
        let versions = (0..OBJECTS).map(|_| AtomicUsize::new(1)).collect();
        Arc::new(World { purges: AtomicUsize::new(0), versions })
    }

    /// The objects that are there from the beginning, in each of their variants.
    fn keys() -> Vec<Key> {
        let all = (0..OBJECTS).flat_map(|n| {
            let languages: &[&'static str] = if varies(n) { &["de", "en"] } else { &["en"] };
            languages.iter().map(move |language| (format!("/o/{n}"), *language))
        });
        all.collect()
    }

    fn body(&self, (path, language): (&str, &str)) -> Vec<u8> {
        let number = number(path);
        let version = self.version(path);
        let length = LENGTHS.iter().find(|(share, _)| number * 37 % 100 < *share).unwrap().1;
        let language = if varies(number) { language } else { "any" };
        let name = format!("{path} version {version} in {language}\n");
        let mut body = name.clone().into_bytes();
        if is_text(number) {
            body = name.repeat(length / name.len() + 1).into_bytes();
        } else {
            let mut noise = vec![0; length];
            StdRng::seed_from_u64((number * 1_000 + version) as u64).fill_bytes(&mut noise);
            body.extend(noise);
        }
        body
    }

    fn version(&self, path: &str) -> usize {
        let known = path.starts_with("/o/").then(|| &self.versions[number(path)]);
        known.map_or(1, |version| version.load(Ordering::SeqCst))
    }

    fn answer(&self, seen: &Seen) -> verge_tests::origin::Answer {
        let language = seen.headers.get("x-language").map_or("en", |v| v.to_str().unwrap());
        let number = number(&seen.path);
        let (tag, etag) = (
            format!("t{}, all", number % TAGS),
            format!("\"{number}-{}-{language}\"", self.version(&seen.path)),
        );
        let mut fields = vec![
            ("Cache-Control", "max-age=86400"),
            ("Cache-Tag", tag.as_str()),
            ("ETag", etag.as_str()),
            ("Content-Type", if is_text(number) { "text/plain" } else { "image/png" }),
        ];
        if varies(number) {
            fields.push(("Vary", "X-Language"));
        }
        answer(200, &fields, self.body((&seen.path, language)))
    }
}

fn number(path: &str) -> usize {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

fn varies(number: usize) -> bool {
    number % 5 == 1
}

/// What is compressed when it is stored.
fn is_text(number: usize) -> bool {
    number.is_multiple_of(3)
}

/// Asks for an object; it must be right whether it was stored or not. Whether it was a hit.
async fn ask(client: &mut Http1, world: &World, (path, language): (&str, &str)) -> bool {
    let fields = [("X-Language", language)];
    let reply = client.request("GET", HOST, path, &fields, b"").await.expect(200);
    assert!(reply.whole, "{path} in {language} was cut");
    assert!(reply.body == world.body((path, language)), "{path} in {language}: {reply:?}");
    reply.is_hit()
}

/// Asks for all of these once; which of them were hits.
async fn hits(edge: &Edge, world: &World, keys: &[Key]) -> Vec<Key> {
    let mut client = edge.client().await;
    let mut hits = Vec::new();
    for (path, language) in keys {
        if ask(&mut client, world, (path, language)).await {
            hits.push((path.clone(), *language));
        }
    }
    hits
}

/// The text forms that are stored compressed: the same bytes as long as the version is the same.
async fn compressed(edge: &Edge, world: &World, seen: &mut BTreeMap<(usize, usize), Vec<u8>>) {
    let mut client = edge.client().await;
    for number in (0..OBJECTS).filter(|n| is_text(*n) && !varies(*n)) {
        let path = format!("/o/{number}");
        let fields = [("Accept-Encoding", "gzip")];
        let reply = client.request("GET", HOST, &path, &fields, b"").await.expect(200);
        assert_eq!(reply.field("content-encoding"), "gzip", "{reply:?}");
        let key = (number, world.version(&path));
        let known = seen.entry(key).or_insert_with(|| reply.body.to_vec());
        assert!(*known == reply.body, "{path}: another compressed form");
    }
}

/// Asks for old and new objects until the edge is gone; counts responses.
fn load(edge: &Edge, world: &Arc<World>, cycle: usize, done: &Arc<AtomicUsize>) -> JoinSet<()> {
    let mut lanes = JoinSet::new();
    let over = Arc::new(AtomicBool::new(false));
    for lane in 0..LANES {
        let (address, done, over) = (edge.http, Arc::clone(done), Arc::clone(&over));
        let world = Arc::clone(world);
        lanes.spawn(async move {
            let mut random = StdRng::seed_from_u64((cycle * LANES + lane) as u64);
            let mut client = Http1::connect(address).await;
            while !over.load(Ordering::SeqCst) {
                let path = match random.random_range(0..3) {
                    0 => format!("/new/{cycle}/{}", random.random_range(0..1_000)),
                    _ => format!("/o/{}", random.random_range(0..OBJECTS)),
                };
                let before = world.purges.load(Ordering::SeqCst);
                let fields = [("X-Language", "en")];
                let reply = client.try_request("GET", HOST, &path, &fields, b"").await;
                let Some(reply) = reply.ok().filter(|reply| reply.whole) else {
                    // Killed: nobody needs to ask any longer.
                    over.store(true, Ordering::SeqCst);
                    return;
                };
                if before.is_multiple_of(2) && world.purges.load(Ordering::SeqCst) == before {
                    let right = world.body((&path, "en"));
                    assert!(reply.body == right, "{path}: {reply:?}");
                }
                done.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    lanes
}

/// New versions of some objects, and the purges that say so: two by URL, all with one tag. Their paths.
async fn purge_some(edge: &Edge, world: &World, cycle: usize) -> Vec<String> {
    let urls: Vec<usize> = vec![cycle * 7 + 1, cycle * 11 + 2];
    let tag = cycle * 3 % TAGS;
    let tagged = (0..OBJECTS).filter(|n| n % TAGS == tag);
    let purged: Vec<usize> = urls.iter().copied().chain(tagged).collect();
    world.purges.fetch_add(1, Ordering::SeqCst);
    for number in &purged {
        world.versions[*number].fetch_add(1, Ordering::SeqCst);
    }
    let mut selectors: Vec<_> =
        urls.iter().map(|n| json!({ "url": format!("http://{HOST}/o/{n}") })).collect();
    selectors.push(json!({ "tag": format!("t{tag}") }));
    edge.purge(&json!({ "selectors": selectors })).await.expect(201);
    world.purges.fetch_add(1, Ordering::SeqCst);
    purged.iter().map(|number| format!("/o/{number}")).collect()
}

/// Something in the folder that a scan has to wait at: no file is all of them.
fn hold_scan(folder: &std::path::Path) -> std::path::PathBuf {
    let inner = folder.join("responses/objects/00/00");
    fs::create_dir_all(&inner).unwrap();
    let pipe = inner.join("0000000000000001");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    pipe
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_is_killed_goes_on_warm_and_right() {
    let world = World::new();
    let served = Arc::clone(&world);
    let origin = Origin::start(move |seen| {
        let answer = served.answer(&seen);
        async move { answer }
    })
    .await;
    let folder = TempDir::new().unwrap();
    let dir = folder.path().display().to_string();
    let mut edge =
        Edge::standalone(site::plain(&origin)).with(&["--cache-dir", &dir]).start().await;
    let (keys, mut forms) = (World::keys(), BTreeMap::new());
    let (mut stored_in_all, mut hits_in_all) = (0, 0);
    for cycle in 0..CYCLES {
        hits(&edge, &world, &keys).await;
        compressed(&edge, &world, &mut forms).await;
        let stored = hits(&edge, &world, &keys).await;
        assert_eq!(stored.len(), keys.len(), "all of it is stored before the work begins");
        let done = Arc::new(AtomicUsize::new(0));
        let lanes = load(&edge, &world, cycle, &done);
        until("half of the work", || async {
            (done.load(Ordering::SeqCst) > BEFORE_THE_KILL / 2).then_some(())
        })
        .await;
        let purged = purge_some(&edge, &world, cycle).await;
        let so_far = done.load(Ordering::SeqCst);
        until("the other half", || async {
            (done.load(Ordering::SeqCst) > so_far + BEFORE_THE_KILL / 2).then_some(())
        })
        .await;
        edge.process.kill();
        lanes.join_all().await;
        let pipe = hold_scan(folder.path());
        edge.restart().await;
        // Requests are served, rightly, while the scan has not seen all.
        ask(&mut edge.client().await, &world, ("/o/0", "en")).await;
        ask(&mut edge.client().await, &world, (&format!("/during/{cycle}"), "en")).await;
        assert_eq!(edge.process.output().matches(SCANNED).count(), cycle + 1, "it is held");
        // Opening the other end is what lets it go on.
        let other_end = move || fs::File::options().write(true).open(pipe);
        tokio::task::spawn_blocking(other_end).await.unwrap().unwrap();
        until("the scan to end", || async {
            (edge.process.output().matches(SCANNED).count() == cycle + 2).then_some(())
        })
        .await;
        let kept: Vec<Key> =
            stored.into_iter().filter(|(path, _)| !purged.contains(path)).collect();
        let asked = origin.seen().len();
        let hit = hits(&edge, &world, &kept).await.len();
        assert_eq!(origin.seen().len() - asked, kept.len() - hit, "a hit asks nobody");
        assert!(hit * 100 >= kept.len() * 99, "cycle {cycle}: {hit} of {} hit", kept.len());
        (stored_in_all, hits_in_all) = (stored_in_all + kept.len(), hits_in_all + hit);
        // What was purged is right, too: the versions are compared.
        hits(&edge, &world, &keys).await;
    }
    eprintln!("{hits_in_all} of {stored_in_all} hit after {CYCLES} kills");
}
