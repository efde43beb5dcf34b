//! Lines in any order, repeated, and poisoned: the applier converges and the last good stays.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::origin::{OriginSettings, Resolver};
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use verge_config::purge::Purge;
use verge_config::site::Context;
use verge_handlers::{CompilerCommand, Sandbox, SandboxSettings};

#[derive(Default)]
struct Sink(Mutex<Vec<u64>>);

impl PurgeSink for Sink {
    fn purge(&self, purge: &Purge) -> u64 {
        self.0.lock().push(purge.revision.0);
        1
    }

    fn flush(&self, _revision: Revision) {}
}

/// What the appliers of one test share: a sandbox is expensive.
struct Bench {
    folder: tempfile::TempDir,
    builder: Arc<Builder>,
    kept: Arc<LastGood>,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let compiler = CompilerCommand { program: "/bin/false".into(), args: Vec::new() };
        let mut settings = SandboxSettings::new(folder.path().join("artefacts"), compiler);
        settings.max_instances = 1;
        let origins = OriginSettings {
            allow_private: false,
            edge_id: "e1".into(),
            resolver: Arc::new(Resolver::new()),
            roots: Arc::new(rustls::RootCertStore::empty()),
            own: Arc::from([]),
        };
        let sandbox = Sandbox::new(settings).unwrap();
        let builder = Arc::new(Builder::new(sandbox, Arc::new(origins), Context::Fleet));
        let kept = Arc::new(LastGood::open(&folder.path().join("state")).unwrap());
        Bench { folder, builder, kept }
    }

    fn applier(&self) -> (Applier, Arc<Sink>) {
        let (sink, outbox) = (Arc::new(Sink::default()), Arc::new(Outbox::default()));
        let vault = crate::control_link::vault::Vault::open(&self.folder.path().join("state"));
        let vault = vault.unwrap();
        let effects = Effects {
            builder: Arc::clone(&self.builder),
            blobs: Arc::new(Blobs::local(self.folder.path().to_owned())),
            cell: Arc::new(SnapshotCell::from_pointee(Snapshot::default())),
            cache: sink.clone(),
            copies: Arc::new(crate::kv::Copies::new(1 << 20)),
            kept: Arc::clone(&self.kept),
            status: Arc::default(),
            outbox: Arc::clone(&outbox),
            questions: Arc::new(Questions::new(outbox)),
            secrets: Arc::new(secrets::Source { vault, session: None }),
        };
        (Applier::new(effects, Position::default()), sink)
    }
}

async fn say(applier: &mut Applier, line: &Value) -> Result<(), ApplyError> {
    let line = line.to_string();
    let read = serde_json::from_str(&line);
    applier.line(line.as_bytes(), read, Instant::now()).await
}

fn hello(head: u64) -> Value {
    json!({"type": "hello", "head": head, "flush": false, "history": "h"})
}

fn document(name: &str, body: u64) -> Value {
    json!({"site": name, "domains": [format!("{name}.example")], "routes": [{"path": "/*", "static": {"body": body.to_string()}}]})
}

/// What a line of the history does.
#[derive(Debug, Clone, Copy)]
enum Change {
    Site(u8),
    Removed(u8),
    Purge,
}

fn line(revision: u64, change: Change) -> Value {
    let name = |site: u8| format!("s{site}");
    match change {
        Change::Site(site) => {
            json!({"type": "site", "revision": revision, "site": name(site), "version": revision, "document": document(&name(site), revision)})
        }
        Change::Removed(site) => {
            json!({"type": "site_removed", "revision": revision, "site": name(site)})
        }
        Change::Purge => {
            json!({"type": "purge", "revision": revision, "site": "s0", "selectors": [{"tag": "t"}], "mode": "hard"})
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..3_u8).prop_map(Change::Site),
        1 => (0..3_u8).prop_map(Change::Removed),
        2 => Just(Change::Purge),
    ]
}

#[test]
fn reordered_and_repeated_lines_converge() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let order = prop::collection::vec(any::<prop::sample::Index>(), 0..40);
    let strategy = (prop::collection::vec(change(), 1..14), order);
    let mut runner =
        TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let result = runner.run(&strategy, |(changes, picks)| {
        let lines: Vec<_> =
            (1..).zip(&changes).map(|(revision, &change)| line(revision, change)).collect();
        // Repeats in any order first, then each at least once, the last ones first.
        let order = picks.iter().map(|pick| pick.index(lines.len())).chain((0..lines.len()).rev());
        let (mut applier, sink) = bench.applier();
        runtime.block_on(async {
            say(&mut applier, &hello(lines.len() as u64)).await.unwrap();
            for index in order {
                say(&mut applier, &lines[index]).await.unwrap();
            }
            say(&mut applier, &json!({"type": "head", "head": lines.len()})).await.unwrap();
            applier.swap();
        });
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        let mut purges = Vec::new();
        for (revision, &change) in (1..).zip(&changes) {
            match change {
                Change::Site(site) => drop(expected.insert(format!("s{site}"), revision)),
                Change::Removed(site) => drop(expected.remove(&format!("s{site}"))),
                Change::Purge => purges.push(revision),
            }
        }
        let snapshot = applier.effects.cell.load_full();
        let served: BTreeMap<_, _> =
            snapshot.sites.values().map(|site| (site.name.to_string(), site.version)).collect();
        prop_assert_eq!(served, expected);
        let mut told = sink.0.lock().clone();
        told.sort_unstable();
        prop_assert_eq!(told, purges, "each purge once");
        Ok(())
    });
    result.unwrap();
}

/// Changes one thing of a JSON value, somewhere.
fn spoil(value: &mut Value, path: &mut impl Iterator<Item = usize>) {
    let poison = [
        json!(null),
        json!(-1),
        json!("\u{0}"),
        json!([]),
        json!({"x": 1}),
        json!(1e99),
        json!("é".repeat(9_000)),
        json!(true),
    ];
    let pick = path.next().unwrap_or(0);
    match value {
        Value::Object(fields) if !fields.is_empty() && !pick.is_multiple_of(4) => {
            let key = fields.keys().nth(pick % fields.len()).unwrap().clone();
            match pick % 5 {
                1 => drop(fields.remove(&key)),
                2 => drop(fields.insert(format!("{key}x"), json!(1))),
                _ => spoil(fields.get_mut(&key).unwrap(), path),
            }
        }
        Value::Array(items) if !items.is_empty() && !pick.is_multiple_of(4) => {
            let at = pick % items.len();
            spoil(&mut items[at], path);
        }
        other => *other = poison[pick % poison.len()].clone(),
    }
}

#[test]
fn poison_is_refused_or_served_and_never_ends_the_feed() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut applier, _) = bench.applier();
    runtime.block_on(say(&mut applier, &hello(1))).unwrap();
    runtime.block_on(say(&mut applier, &line(1, Change::Site(0)))).unwrap();
    let good = json!({
        "site": "s0", "domains": ["s0.example", "*.s0.example"],
        "origins": {"web": {"urls": ["https://web.example", {"url": "http://b.example:81", "weight": 3}], "host": "h.example", "timeouts": {"connect": "2s", "first_byte": "3s"}}},
        "handlers": {"greet": {"component": format!("sha256:{}", "0".repeat(64)), "limits": {"cpu": "50ms", "memory": "64MiB", "fetches": 3}, "env": {"A": "b"}, "fetch": ["api.example.com"]}},
        "routes": [
            {"path": "/a/*", "origin": "web", "cache": {"mode": "override", "ttl": {"200-299": "1d"}, "tags": ["t"]}},
            {"path": "/old/*", "redirect": {"to": "/new/$1", "status": 308}},
            {"path": "/s", "static": {"status": 200, "headers": {"a": "b"}, "body": "x"}},
        ],
    });
    let mut revision = 1;
    let mut refused = 0;
    let picks = prop::collection::vec(0..1_000_usize, 12);
    let mut runner =
        TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let applier = Mutex::new((&mut applier, &mut revision, &mut refused));
    let result = runner.run(&picks, |picks| {
        let mut held = applier.lock();
        let (applier, revision, refused) = &mut *held;
        **revision += 1;
        let mut bad = good.clone();
        spoil(&mut bad, &mut picks.into_iter());
        let line = json!({"type": "site", "revision": **revision, "site": "s0", "version": **revision, "document": bad});
        runtime.block_on(say(applier, &line)).unwrap();
        let is_refused = applier.refusals.get("s0").is_some_and(|r| r.revision.0 == **revision);
        **refused += u64::from(is_refused);
        let runtime = applier.known["s0"].runtime.as_ref();
        prop_assert!(runtime.is_some(), "the last good stays");
        prop_assert_eq!(is_refused, runtime.unwrap().version != **revision, "refused or served");
        prop_assert!(applier.position.applied.0 == **revision, "and the feed goes on");
        Ok(())
    });
    result.unwrap();
    assert!(refused >= 200, "{refused} refused");
}

#[test]
fn a_purge_that_cannot_be_understood_purges_everything_of_its_site() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut applier, sink) = bench.applier();
    runtime.block_on(async {
        say(&mut applier, &hello(1)).await.unwrap();
        let newer = json!({"type": "purge", "revision": 2, "site": "s0", "selectors": [{"colour": "red"}], "mode": "lukewarm"});
        say(&mut applier, &newer).await.unwrap();
        assert_eq!(*sink.0.lock(), [2]);
        let nameless = json!({"type": "purge", "selectors": []});
        assert!(matches!(say(&mut applier, &nameless).await, Err(ApplyError::Broken(_))));
    });
}

#[tokio::test]
async fn a_question_that_is_not_understood_breaks_nothing() {
    let bench = Bench::new();
    let (mut applier, sink) = bench.applier();
    say(&mut applier, &hello(1)).await.unwrap();
    let odd = json!({"type": "question", "id": "q1", "asked": {"kind": "preview", "site": "s", "selectors": [{"colour": "red"}]}});
    say(&mut applier, &odd).await.unwrap();
    let odd = json!({"type": "question", "id": "q2", "asked": {"kind": "weather"}});
    say(&mut applier, &odd).await.unwrap();
    say(&mut applier, &json!({"type": "question"})).await.unwrap();
    let answers = applier.effects.outbox.waiting_answers();
    let ids: Vec<_> = answers.iter().map(|answer| answer.id.as_str()).collect();
    assert_eq!(ids, ["q1", "q2"]);
    assert_eq!(applier.position.applied, Revision::ZERO, "it has no place in history");
    let purge = json!({"type": "purge", "revision": 1, "site": "s", "selectors": [{"tag": "t"}], "mode": "hard"});
    say(&mut applier, &purge).await.unwrap();
    assert_eq!(*sink.0.lock(), [1]);
}

#[tokio::test]
async fn changes_of_entries_reach_their_copies() {
    use crate::kv::Found;
    let bench = Bench::new();
    let (mut applier, _) = bench.applier();
    let copies = Arc::clone(&applier.effects.copies);
    let keep = |as_of: u64| {
        for key in ["a", "b"] {
            let value = Some("v".into());
            copies.keep(copies.mark(), "shop", key, value, Revision(as_of), Instant::now());
        }
    };
    let held = || {
        ["a", "b"]
            .map(|key| copies.find("shop", key, Instant::now()) == Found::Copy(Some("v".into())))
    };
    say(&mut applier, &hello(9)).await.unwrap();
    keep(5);
    let line = json!({"type": "entry", "revision": 6, "site": "shop", "key": "a", "after": 5});
    say(&mut applier, &line).await.unwrap();
    assert_eq!(held(), [false, true]);
    assert_eq!(applier.position.applied, Revision(6));
    keep(6);
    // What cannot be understood may be of any key.
    let odd = json!({"type": "entry", "revision": 7, "site": "shop", "key": 5});
    say(&mut applier, &odd).await.unwrap();
    assert_eq!(held(), [false, false]);
    assert_eq!(applier.position.applied, Revision(7));
    say(&mut applier, &json!({"type": "head", "head": 7})).await.unwrap();
    keep(7);
    assert_eq!(held(), [true, true]);
    // Another history: nothing is known to be good.
    let other = json!({"type": "hello", "head": 9, "flush": false, "history": "other"});
    assert!(say(&mut applier, &other).await.is_err());
    assert_eq!(held(), [false, false]);
}
