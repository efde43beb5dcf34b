//! Sums in a real SQLite file: counted with their number or not at all, and forgotten in time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::state::{OPERATOR, TokenRecord};
use crate::store::{First, create, open};
use crate::usage::asked;
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use verge_config::usage::UsageBy;

async fn fresh(folder: &Path) -> Arc<Store> {
    let token = TokenRecord {
        id: "tok_first".to_owned(),
        name: "first".to_owned(),
        tenant: OPERATOR.to_owned(),
        scopes: Vec::new(),
        created_ms: 1,
        expires_ms: None,
    };
    let first = First { history: "his_x".to_owned(), secret: [1; 32], token };
    create(folder, first).await.unwrap();
    Arc::new(open(folder).await.unwrap())
}

fn item(site: &str, handler: &str, version: u64, hour: u64, count: u64) -> UsageItem {
    let outcomes = BTreeMap::from([("responded".to_owned(), count)]);
    let sums = Sums { outcomes, cpu_us: count, bytes_out: count * 2, ..Sums::default() };
    UsageItem { site: site.to_owned(), handler: handler.to_owned(), version, hour, sums }
}

fn batch(epoch: &str, number: u64, items: Vec<UsageItem>) -> Batch {
    Batch {
        edge: "edg_1".to_owned(),
        epoch: epoch.to_owned(),
        number: Some(number),
        counted: Counted { items, left_out: 0 },
    }
}

async fn total(store: &Store, site: &str, hours: u64) -> u64 {
    let asked = Asked { from_hour: 0, to_hour: hours, by: UsageBy::Total };
    let rows = store.usage(site, &asked, None, 10_000).await.unwrap();
    for (_, row) in &rows {
        assert_eq!((row.requests, row.sums.bytes_out), (row.sums.cpu_us, row.sums.cpu_us * 2));
    }
    rows.iter().map(|(_, row)| row.sums.cpu_us).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_batch_above_the_highest_counts_and_no_other(
        batches in prop::collection::vec((0_u8..3, 0_u64..6, 0_u64..4, 1_u64..50), 1..24),
        reopen in any::<prop::sample::Index>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut store = fresh(folder.path()).await;
            let reopen = reopen.index(batches.len());
            let (mut highest, mut wanted) = (HashMap::new(), 0);
            for (at, (epoch, number, hour, count)) in batches.into_iter().enumerate() {
                let highest: &mut u64 = highest.entry(epoch).or_default();
                if number > *highest {
                    *highest = number;
                    wanted += count;
                }
                let sent = batch(&epoch.to_string(), number, vec![item("s", "h", 1, hour, count)]);
                let applied = store.count_usage(sent, 1).await.unwrap();
                assert_eq!(applied, *highest);
                if at == reopen {
                    store.clone().close().await;
                    drop(store);
                    store = Arc::new(open(folder.path()).await.unwrap());
                }
            }
            assert_eq!(total(&store, "s", 10).await, wanted);
        });
    }
}

#[tokio::test]
async fn old_hours_and_epochs_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path()).await;
    store.count_usage(batch("old", 1, vec![item("s", "h", 1, 5, 1)]), 5 * HOUR_MS).await.unwrap();
    let later = 5 + KEPT_HOURS;
    let new = batch("new", 1, vec![item("s", "h", 1, later, 2)]);
    store.count_usage(new, later * HOUR_MS).await.unwrap();
    store.sweep_usage(later * HOUR_MS).await.unwrap();
    assert_eq!(total(&store, "s", later + 1).await, 3, "just within what is kept");
    store.sweep_usage((later + 1) * HOUR_MS).await.unwrap();
    let asked = asked(Some(6 * HOUR_MS), Some((later + 1) * HOUR_MS), None, 0).unwrap();
    let rows = store.usage("s", &asked, None, 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    let early = Asked { from_hour: 0, to_hour: 6, ..asked };
    assert!(store.usage("s", &early, None, 10).await.unwrap().is_empty());
    let ask = Batch { number: None, ..batch("old", 1, vec![]) };
    assert_eq!(store.count_usage(ask, 0).await.unwrap(), 0);
    let ask = Batch { number: None, ..batch("new", 1, vec![]) };
    assert_eq!(store.count_usage(ask, 0).await.unwrap(), 1);
}

#[tokio::test]
async fn one_hour_of_a_site_has_so_many_rows_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path()).await;
    let count = MAX_ROWS_OF_AN_HOUR + 10;
    for (number, from) in (0..count).step_by(500).enumerate() {
        let items = (from..(from + 500).min(count)).map(|version| item("s", "h", version, 1, 1));
        store.count_usage(batch("e", number as u64 + 1, items.collect()), 1).await.unwrap();
    }
    // What has its row keeps it.
    store.count_usage(batch("e", 100, vec![item("s", "h", 1, 1, 1)]), 1).await.unwrap();
    let asked = asked(Some(0), Some(2 * HOUR_MS), None, 0).unwrap();
    let rows = store.usage("s", &asked, None, 10_000).await.unwrap();
    assert_eq!(rows.len() as u64, MAX_ROWS_OF_AN_HOUR + 1);
    assert_eq!((rows[0].0.handler.as_str(), rows[0].1.sums.cpu_us), ("", 10));
    assert_eq!(total(&store, "s", 2).await, count + 1);
}

#[tokio::test]
async fn the_epochs_of_an_edge_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path()).await;
    sqlx::query("PRAGMA synchronous=OFF")
        .execute(&mut store.writer.lock().await.connection)
        .await
        .unwrap();
    for n in 0..MAX_EPOCHS as u64 + 3 {
        store.count_usage(batch(&format!("e{n}"), 7, vec![]), n).await.unwrap();
    }
    let ask = |epoch: &str| Batch { number: None, ..batch(epoch, 1, vec![]) };
    assert_eq!(store.count_usage(ask("e2"), 0).await.unwrap(), 0);
    assert_eq!(store.count_usage(ask("e3"), 0).await.unwrap(), 7);
}
