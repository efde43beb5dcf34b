//! The store against a real SQLite file: what is in memory is what is on the disk, whatever happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::{CommitError, First, Idempotency, Store, StoreError, create, open};
use crate::publish::Entry;
use crate::state::{
    Actor, Command, EntryWrite, OPERATOR, Outcome, Sealed, State, TokenRecord, Upload,
};
use proptest::prelude::*;
use sqlx::Connection;
use std::path::Path;
use std::sync::Arc;
use verge_config::api::{Enrol, Scope};
use verge_config::feed::{AppliedPurge, Refusal, Report};
use verge_config::{Mode, PurgeRequest, Revision, Selector};

fn actor(tenant: &str) -> Actor {
    Actor { id: "tok_x".to_owned(), name: "x".to_owned(), tenant: tenant.to_owned() }
}

async fn fresh(folder: &Path) -> Arc<Store> {
    let token = TokenRecord {
        id: "tok_first".to_owned(),
        name: "first".to_owned(),
        tenant: OPERATOR.to_owned(),
        scopes: vec![Scope::Admin],
        created_ms: 1,
        expires_ms: None,
    };
    let first = First { history: "his_x".to_owned(), secret: [1; 32], token };
    create(folder, first).await.unwrap();
    Arc::new(open(folder).await.unwrap())
}

async fn reopened(folder: &Path, store: Arc<Store>) -> Arc<Store> {
    store.clone().close().await;
    drop(store);
    Arc::new(open(folder).await.unwrap())
}

fn upload(site: &str, marker: &str) -> Command {
    let document = format!(
        "{{\"site\":\"{site}\",\"domains\":[\"{site}.example\"],\"routes\":[],\
         \"origins\":{{\"m{marker}\":{{\"urls\":[]}}}}}}"
    );
    Command::Upload(Upload {
        site: site.to_owned(),
        digest: marker.to_owned(),
        domains: vec![format!("{site}.example")],
        components: Vec::new(),
        document: document.into(),
    })
}

fn purge(id: &str, site: &str) -> Command {
    let selectors = vec![Selector::Tag("t".to_owned())];
    let request = PurgeRequest { site: None, selectors, mode: Mode::Hard, dry_run: false };
    Command::Purge { id: id.to_owned(), site: site.to_owned(), request }
}

/// A command out of small numbers, so that they often hit what is there.
fn command(number: u64, kind: u8, a: u8, b: u8) -> (String, Command) {
    let (site, tenant) = (format!("s{}", a % 4), format!("t{}", a % 2));
    let command = match kind % 16 {
        0 | 1 => upload(&site, &b.to_string()),
        2 | 3 => Command::Activate { site, version: u64::from(b % 5), expected: None },
        4 => Command::Rollback { site, expected: None },
        5 => Command::RemoveSite { site, purge_id: format!("prg_r{number}"), expected: None },
        6 => Command::AddBlob { digest: format!("{b}"), bytes: u64::from(b) },
        7 => purge(&format!("prg_{number}"), &site),
        8 => Command::CreateTenant { name: tenant.clone() },
        9 => Command::CreateToken {
            id: format!("tok_{number}"),
            // Two secrets of 256 random bits never meet; those of a byte would.
            secret: number_hash(number | 1 << 40),
            name: "n".to_owned(),
            tenant: tenant.clone(),
            scopes: vec![Scope::Read],
            expires_ms: b.is_multiple_of(2).then_some(number + 20),
        },
        10 => {
            let enrol = Enrol { name: format!("e{}", a % 3), version: b.to_string() };
            Command::Enrol { id: format!("edg_{number}"), secret: number_hash(number), enrol }
        }
        13 => {
            let sealed = Sealed { key: "k".to_owned(), bytes: vec![a, b] };
            Command::PutSecret { site, name: format!("N{}", b % 3), sealed }
        }
        14 => Command::RemoveSecret { site, name: format!("N{}", b % 3) },
        12 | 15 => Command::WriteEntry(EntryWrite {
            site,
            key: format!("k{}", b % 5),
            value: (!b.is_multiple_of(3)).then(|| vec![b; usize::from(b)].into()),
            by_handler: b.is_multiple_of(2),
            held: None,
        }),
        11 => Command::RemoveEdge { name: format!("e{}", a % 3) },
        _ => {
            let applied = Revision(u64::from(b % 16));
            let purges = vec![AppliedPurge { revision: applied, matched: 1, took_us: 1 }];
            let refusal = Refusal { revision: applied, site, reason: "r".to_owned() };
            let report = Report {
                applied,
                purges,
                refusals: vec![refusal],
                answers: vec![],
                version: b.to_string(),
            };
            Command::Report { edge: format!("e{}", a % 3), report }
        }
    };
    (tenant, command)
}

fn number_hash(number: u64) -> [u8; 32] {
    let mut hash = [9; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    hash
}

fn normal(mut state: State) -> State {
    // Tokens that ran out are dropped when there is need; both sides agree on the rest.
    state.quotas = crate::state::Quotas::default();
    state
}

/// Which entries have changed is told once; later only that some of a site's have.
fn without_entries(lines: Vec<Entry>) -> Vec<Entry> {
    let is_entry = |line: &Entry| line.line.starts_with(b"{\"type\":\"entry\"");
    lines.into_iter().filter(|line| !is_entry(line)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// After any commands, the state in memory is the state on the disk, the revision is the number
    /// of changes that edges were told of, and the feed from zero ends at it.
    #[test]
    fn memory_and_disk_agree(commands in prop::collection::vec(any::<(u8, u8, u8)>(), 1..80)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = fresh(folder.path()).await;
            let mut told = 0;
            for (number, (kind, a, b)) in (10_u64..).zip(commands) {
                let (tenant, command) = command(number, kind, a, b);
                let command = match command {
                    Command::Report { edge: name, report } => {
                        let id = store.read(|s| s.edge_named(&name).map(|edge| edge.id.clone()));
                        Command::Report { edge: id.unwrap_or(name), report }
                    }
                    other => other,
                };
                let before = store.read(|state| state.revision);
                let result = store.commit(actor(&tenant), None, command, number).await;
                let after = store.read(|state| state.revision);
                assert!(after >= before);
                match result {
                    Ok(_) => told += after.0 - before.0,
                    Err(CommitError::Rejected(_)) => assert_eq!(after, before),
                    Err(error) => panic!("{error}"),
                }
            }
            let memory = normal(store.read(Clone::clone));
            assert_eq!(memory.revision.0, told);
            let live = store.publisher.after(Revision::ZERO).unwrap();
            let live = without_entries(live);
            let stored = store.feed(Revision::ZERO, memory.revision).await.unwrap();
            let stored = without_entries(stored);
            assert_eq!(live, stored, "the ring and the store tell the same");
            let store = reopened(folder.path(), store).await;
            assert_eq!(normal(store.read(Clone::clone)), memory);
        });
    }
}

#[tokio::test]
async fn a_full_disk_is_not_acknowledged_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path()).await;
    store.commit(actor("t"), None, upload("s", "1"), 1).await.unwrap();
    let before = store.read(Clone::clone);
    let mut full = 0;
    for number in 0..50 {
        limit_pages(&store, 1).await;
        let site = format!("s-{}-{number}", "x".repeat(2_000));
        match store.commit(actor("t"), None, upload(&site, "1"), 1).await {
            Err(CommitError::Full) => full += 1,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(full > 0, "the disk was full");
    let acknowledged = store.read(Clone::clone);
    store.commit(actor("t"), None, upload("s", "2"), 1).await.unwrap();
    let memory = store.read(Clone::clone);
    assert_eq!(memory.sites.len(), acknowledged.sites.len());
    assert!(memory.sites.len() >= before.sites.len());
    let store = reopened(folder.path(), store).await;
    assert_eq!(store.read(Clone::clone), memory);
}

/// SQLite's own bound on the file stands in for the disk's.
async fn limit_pages(store: &Store, pages: u32) {
    let mut writer = store.writer.lock().await;
    let pragma = format!("PRAGMA max_page_count = {pages}");
    sqlx::query(&pragma).execute(&mut writer.connection).await.unwrap();
}

#[tokio::test]
async fn settings_that_do_not_hold_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path()).await;
    let mut writer = store.writer.lock().await;
    super::open::verify(&mut writer.connection).await.unwrap();
    sqlx::query("PRAGMA synchronous = NORMAL").execute(&mut writer.connection).await.unwrap();
    let refused = super::open::verify(&mut writer.connection).await;
    assert!(matches!(refused, Err(StoreError::Unsafe { pragma: "synchronous", .. })));
    drop(writer);
    let path = folder.path().join("plain.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Delete);
    let mut plain = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let refused = super::open::verify(&mut plain).await;
    assert!(matches!(refused, Err(StoreError::Unsafe { pragma: "journal_mode", .. })));
}

#[tokio::test]
async fn keys_end_after_a_day_and_are_swept() {
    const DAY: u64 = 24 * 3_600 * 1_000;
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path()).await;
    store.commit(actor("t"), None, upload("s", "1"), 1).await.unwrap();
    let key = || Some(Idempotency { key: "k".to_owned(), fingerprint: [0; 32] });
    let ask =
        async |id: &str, now| store.commit(actor("t"), key(), purge(id, "s"), now).await.unwrap();
    let first = ask("prg_1", 10).await;
    assert_eq!(first.outcome, Outcome::Purge { id: "prg_1".to_owned() });
    assert_eq!(ask("prg_2", 9 + DAY).await.outcome, first.outcome);
    let later = ask("prg_3", 11 + DAY).await;
    assert_eq!(later.outcome, Outcome::Purge { id: "prg_3".to_owned() });
    store.sweep(12 + 2 * DAY).await.unwrap();
    let mut writer = store.writer.lock().await;
    let row = sqlx::query("SELECT count(*) FROM idempotency");
    let row = row.fetch_one(&mut writer.connection).await.unwrap();
    assert_eq!(sqlx::Row::get::<i64, _>(&row, 0), 0);
}

#[tokio::test]
async fn versions_make_room_and_never_those_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path()).await;
    store.state.write().quotas.versions_per_site = 3;
    let commit = async |command| store.commit(actor("t"), None, command, 1).await.unwrap();
    for version in 1..=2 {
        commit(upload("s", &version.to_string())).await;
        commit(Command::Activate { site: "s".to_owned(), version, expected: None }).await;
    }
    for version in 3..=6 {
        commit(upload("s", &version.to_string())).await;
    }
    let kept = store.read(|state| state.sites["s"].versions.keys().copied().collect::<Vec<_>>());
    assert_eq!(kept, [1, 2, 6], "the active one, the one before it, and the newest");
    assert_eq!(store.document("s", 3).await.unwrap(), None);
    assert!(store.document("s", 6).await.unwrap().is_some());
}
