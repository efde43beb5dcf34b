//! Reads and writes with a keeper that can be away and slow.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Default)]
struct Scripted {
    away: AtomicBool,
    asked: AtomicUsize,
    entries: Mutex<(u64, BTreeMap<String, Bytes>)>,
    /// Nobody is answered while it is held.
    slow: tokio::sync::Mutex<()>,
}

impl Keeper for Scripted {
    fn is_there(&self) -> bool {
        !self.away.load(Ordering::Relaxed)
    }

    fn get<'a>(&'a self, _: &'a str, key: &'a str) -> BoxFuture<'a, Result<Fetched, KvError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let _answer = self.slow.lock().await;
            let entries = self.entries.lock();
            Ok(Fetched { value: entries.1.get(key).cloned(), as_of: Revision(entries.0) })
        })
    }

    fn set<'a>(
        &'a self,
        _: &'a str,
        key: &'a str,
        value: Option<Bytes>,
    ) -> BoxFuture<'a, Result<Revision, KvError>> {
        let mut entries = self.entries.lock();
        entries.0 += 1;
        match value {
            Some(value) => drop(entries.1.insert(key.to_owned(), value)),
            None => drop(entries.1.remove(key)),
        }
        Box::pin(std::future::ready(Ok(Revision(entries.0))))
    }

    fn keys<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, Result<KeyPage, KvError>> {
        let keys = self.entries.lock().1.keys().cloned().collect();
        Box::pin(std::future::ready(Ok(KeyPage { keys, next: None })))
    }
}

fn kv() -> (Arc<Kv>, Arc<Scripted>) {
    let keeper = Arc::new(Scripted::default());
    let copies = Arc::new(Copies::new(1 << 20));
    (Arc::new(Kv::Fleet(Shared::new(copies, keeper.clone()))), keeper)
}

fn site(name: &str) -> Arc<str> {
    name.into()
}

#[tokio::test]
async fn what_is_here_is_read_while_the_keeper_is_away() {
    let (kv, keeper) = kv();
    let shop = site("shop");
    kv.set(&shop, "k".to_owned(), Some("v".into())).await.unwrap();
    assert_eq!(kv.get(&shop, "none").await.unwrap(), None);
    keeper.away.store(true, Ordering::Relaxed);
    assert_eq!(kv.get(&shop, "k").await.unwrap(), Some("v".into()));
    assert_eq!(kv.get(&shop, "none").await.unwrap(), None);
    let unknown = kv.get(&shop, "unknown").await.unwrap_err();
    assert_eq!(unknown, KvError::Away(Wish::Read));
    let written = kv.set(&shop, "k".to_owned(), None).await.unwrap_err();
    assert!(written.to_string().contains("can be read, not written"), "{written}");
    assert_eq!(kv.keys(&shop, 0).await.unwrap_err(), KvError::Away(Wish::List));
    assert_eq!(kv.get(&shop, "k").await.unwrap(), Some("v".into()), "what was refused did nothing");
    keeper.away.store(false, Ordering::Relaxed);
    assert_eq!(kv.keys(&shop, 0).await.unwrap().keys, ["k"]);
    kv.set(&shop, "k".to_owned(), None).await.unwrap();
    assert_eq!(kv.get(&shop, "k").await.unwrap(), None);
    assert_eq!(keeper.asked.load(Ordering::Relaxed), 1, "the copies answered the rest");
}

#[tokio::test(start_paused = true)]
async fn a_site_that_asks_much_waits_for_itself() {
    let (kv, keeper) = kv();
    let held = keeper.slow.lock().await;
    let ask = |of: &str, key: String| {
        let (kv, of) = (Arc::clone(&kv), site(of));
        tokio::spawn(async move { kv.get(&of, &key).await })
    };
    let flood: Vec<_> = (0..100).map(|key| ask("flood", key.to_string())).collect();
    tokio::task::yield_now().await;
    let asked = || keeper.asked.load(Ordering::Relaxed);
    assert_eq!(asked(), TURNS_PER_SITE);
    let other = ask("other", "k".to_owned());
    tokio::task::yield_now().await;
    assert_eq!(asked(), TURNS_PER_SITE + 1, "another site's question is asked at once");
    tokio::time::sleep(PATIENCE * 2).await;
    drop(held);
    assert_eq!(other.await.unwrap().unwrap(), None);
    let mut busy = 0;
    for one in flood {
        busy += usize::from(one.await.unwrap() == Err(KvError::Busy));
    }
    assert_eq!(busy, 100 - TURNS_PER_SITE);
    // The turns are given back.
    assert_eq!(kv.get(&site("flood"), "again").await.unwrap(), None);
}
