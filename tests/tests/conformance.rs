//! The public suite of HTTP caching tests against the edge, by both versions of HTTP on both sides. It
//! judges by two lists beside the suite: `exceptions.txt` and `optimal.txt`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use tempfile::TempDir;
use verge_tests::process::repository;
use verge_tests::suite::{Kind, Suite, Verdict, Verdicts, kinds};
use verge_tests::tls::Certificate;
use verge_tests::{Bridge, Edge};

/// Fewer tests than this, and the suite is not what it should be.
const LEAST_REQUIRED: usize = 150;
const LEAST_OPTIMAL: usize = 90;

/// A way to set the edge up; the lists name those that a line is for.
#[derive(Debug, Clone, Copy)]
struct Setup {
    name: &'static str,
    http2_clients: bool,
    http2_origins: bool,
    /// Every object on disk, none in RAM.
    disk: bool,
}

const RAM: Setup = Setup { name: "ram", http2_clients: false, http2_origins: false, disk: false };
const CLIENTS: Setup = Setup { name: "http2-clients", http2_clients: true, ..RAM };
const ORIGINS: Setup = Setup { name: "http2-origins", http2_origins: true, ..RAM };
const DISK: Setup = Setup { name: "disk", disk: true, ..RAM };

/// A line of a list: this test fails, in this part of it, and that is known.
#[derive(Debug)]
struct Known {
    part: String,
    why: String,
}

/// Reads the lines of a list that are for a setup: `id | setups | part of the test | why`.
fn read_list(text: &str, setup: &str) -> BTreeMap<String, Known> {
    let mut list = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let parts: Vec<_> = line.split('|').map(str::trim).collect();
        let [id, setups, part, why] = parts[..] else { panic!("four columns, not: {line}") };
        assert!(!why.is_empty(), "every exception has its reason: {line}");
        if setups == "all" || setups.split(' ').any(|name| name == setup) {
            let known = Known { part: part.to_owned(), why: why.to_owned() };
            assert!(list.insert(id.to_owned(), known).is_none(), "twice: {id}");
        }
    }
    list
}

/// What the lists say about one setup.
struct Expectation {
    exceptions: BTreeMap<String, Known>,
    optimal: BTreeMap<String, Known>,
}

impl Expectation {
    fn of(setup: &str) -> Expectation {
        let read = |name: &str| {
            let path = repository().join("tests/conformance").join(name);
            read_list(&fs::read_to_string(path).unwrap(), setup)
        };
        Expectation { exceptions: read("exceptions.txt"), optimal: read("optimal.txt") }
    }

    /// Everything that is not as it should be, and the figures in words.
    fn judge(&self, kinds: &BTreeMap<String, Kind>, verdicts: &Verdicts) -> (Vec<String>, String) {
        let mut faults = Vec::new();
        // Passed, an exception that holds, all.
        let mut counts: BTreeMap<Kind, (usize, usize, usize)> = BTreeMap::new();
        for (id, verdict) in verdicts {
            let Some(kind) = kinds.get(id) else {
                faults.push(format!("{id}: of no known kind"));
                continue;
            };
            let known = self.exceptions.get(id).or_else(|| self.optimal.get(id));
            let expected = known.is_none_or(|known| match verdict {
                Verdict::Failed(part, _) => *part == known.part,
                Verdict::Passed => false,
            });
            let excepted = self.exceptions.contains_key(id) && expected;
            let (passed, exceptions, all) = counts.entry(*kind).or_default();
            *passed += usize::from(*verdict == Verdict::Passed);
            *exceptions += usize::from(excepted);
            *all += 1;
            match (verdict, known) {
                (Verdict::Failed(part, why), None) if *kind != Kind::Check => {
                    faults.push(format!("{id} ({kind:?}): {part}: {why}"));
                }
                (verdict, Some(known)) if !expected => faults.push(format!(
                    "{id} ({kind:?}): the list says that it fails in {} ({}), but: {verdict:?}",
                    known.part, known.why
                )),
                _ => {}
            }
        }
        for id in self.exceptions.keys().chain(self.optimal.keys()) {
            if !verdicts.contains_key(id) {
                faults.push(format!("{id}: in a list, but not in the suite"));
            }
        }
        for (kind, least) in [(Kind::Required, LEAST_REQUIRED), (Kind::Optimal, LEAST_OPTIMAL)] {
            let all = counts.get(&kind).map_or(0, |(_, _, all)| *all);
            if all < least {
                faults.push(format!("only {all} {kind:?} tests; at least {least} are expected"));
            }
        }
        let figures = counts.iter().fold(String::new(), |mut text, (kind, count)| {
            let (passed, exceptions, all) = count;
            write!(text, " {kind:?} {passed} + {exceptions} exceptions of {all};").unwrap();
            text
        });
        (faults, figures)
    }
}

async fn conforms(setup: Setup) {
    let suite = Suite::start().await;
    let folder = TempDir::new().unwrap();
    let certificate = Certificate::make(folder.path(), &["localhost"]);
    let origin_bridge = match setup.http2_origins {
        true => Some(Bridge::from_http2(suite.address, &certificate).await),
        false => None,
    };
    let url = match &origin_bridge {
        Some(bridge) => format!("https://localhost:{}", bridge.address.port()),
        None => format!("http://{}", suite.address),
    };
    let mut edge = Edge::standalone(suite.site(&url)).trusting(&certificate);
    if setup.disk {
        let cache = folder.path().join("cache").display().to_string();
        edge = edge.with(&["--cache-dir", &cache, "--ram", "0"]);
    }
    let edge = edge.start().await;
    let client_bridge = match setup.http2_clients {
        true => Some(Bridge::to_http2(edge.http).await),
        false => None,
    };
    let address = client_bridge.as_ref().map_or(edge.http, |bridge| bridge.address);
    let verdicts = suite.run(address).await;
    let (faults, figures) = Expectation::of(setup.name).judge(&kinds(), &verdicts);
    println!("{}:{figures}", setup.name);
    assert!(faults.is_empty(), "{}:{figures}\n{}", setup.name, faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_ram() {
    conforms(RAM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_http2_clients() {
    conforms(CLIENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_http2_origins() {
    conforms(ORIGINS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_disk() {
    conforms(DISK).await;
}

/// The control: what has no cache at all fails by the dozen, and the judge says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_cache_does_not_conform() {
    let suite = Suite::start().await;
    let verdicts = suite.run(suite.address).await;
    let (faults, figures) = Expectation::of(RAM.name).judge(&kinds(), &verdicts);
    assert!(faults.len() > 50, "{figures}\n{}", faults.join("\n"));
}

/// The judge can find each kind of fault.
#[test]
fn the_judge_finds_every_kind_of_fault() {
    let failed = |part: &str| Verdict::Failed(part.to_owned(), "so".to_owned());
    let expectation = Expectation {
        exceptions: read_list("# a list\nflip | all | Assertion | RFC\n", "ram"),
        optimal: read_list("known | ram | Assertion | not yet\n", "ram"),
    };
    let mut kinds = BTreeMap::new();
    let mut verdicts = Verdicts::new();
    for number in 0..LEAST_REQUIRED.max(LEAST_OPTIMAL) {
        for (name, kind) in [("required", Kind::Required), ("optimal", Kind::Optimal)] {
            kinds.insert(format!("{name}-{number}"), kind);
            verdicts.insert(format!("{name}-{number}"), Verdict::Passed);
        }
    }
    kinds.insert("flip".to_owned(), Kind::Required);
    kinds.insert("known".to_owned(), Kind::Optimal);
    kinds.insert("question".to_owned(), Kind::Check);
    verdicts.insert("flip".to_owned(), failed("Assertion"));
    verdicts.insert("known".to_owned(), failed("Assertion"));
    verdicts.insert("question".to_owned(), failed("Assertion"));
    let faults = |verdicts: &Verdicts| expectation.judge(&kinds, verdicts).0;
    assert_eq!(faults(&verdicts), Vec::<String>::new());

    for (id, verdict) in [
        ("required-7", failed("Assertion")),
        ("optimal-7", failed("Setup")),
        ("flip", Verdict::Passed),
        ("flip", failed("Setup")),
        ("known", Verdict::Passed),
        ("nobody-knows-it", Verdict::Passed),
    ] {
        let mut changed = verdicts.clone();
        changed.insert(id.to_owned(), verdict);
        let faults = faults(&changed);
        assert!(faults.len() == 1 && faults[0].contains(id), "{id}: {faults:?}");
    }
    let mut shorter = verdicts.clone();
    shorter.remove("flip");
    assert_eq!(faults(&shorter).len(), 1);
    shorter.retain(|id, _| !id.starts_with("optimal-8"));
    assert!(faults(&shorter).len() <= 2);
    shorter.retain(|id, _| !id.starts_with("optimal"));
    assert_eq!(faults(&shorter).len(), 2);
    assert!(read_list("known | ram | Assertion | not yet\n", "disk").is_empty());
}
