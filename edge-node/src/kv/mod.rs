//! The key-value stores of sites as their handlers reach them: from the copies of this edge, or from
//! whoever keeps the entries. Knows no request and no way to the control plane.

mod alone;
mod copies;

pub use alone::Alone;
pub use copies::{Copies, Found, Mark};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use verge_config::Revision;
use verge_config::kv::KeyPage;

/// Questions to the keeper at once, of all sites.
const TURNS: usize = 32;
/// Questions of one site at once.
const TURNS_PER_SITE: usize = 8;
/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a handler gets no answer; it is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The keeper is away; what this edge has of it is readable all the same.
    #[error("the control plane is away: {0}")]
    Away(Wish),
    /// A write was sent and not answered.
    #[error("the control plane did not answer: the write may have been made, or not")]
    Unanswered,
    /// The keeper says no.
    #[error("{0}")]
    Refused(String),
    /// Too much is asked at once.
    #[error("too many calls of this site's key-value store wait for the control plane; try again")]
    Busy,
}

/// What a handler wishes that only the keeper can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To read an entry of which there is no copy.
    Read,
    /// To write one.
    Write,
    /// To list keys.
    List,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wish::Read => "this edge has no copy of the entry",
            Wish::Write => "entries can be read, not written",
            Wish::List => "keys cannot be listed",
        })
    }
}

/// Who keeps the entries of all sites.
pub trait Keeper: Send + Sync + 'static {
    /// Whether it can be asked now; if not, asking it would only take time.
    fn is_there(&self) -> bool;
    /// The value of a key.
    fn get<'a>(&'a self, site: &'a str, key: &'a str) -> BoxFuture<'a, Result<Fetched, KvError>>;
    /// Writes a value, or removes it; the revision of the write, once it is durable.
    fn set<'a>(
        &'a self,
        site: &'a str,
        key: &'a str,
        value: Option<Bytes>,
    ) -> BoxFuture<'a, Result<Revision, KvError>>;
    /// Keys in their order, without the first `skip`.
    fn keys<'a>(&'a self, site: &'a str, skip: u64) -> BoxFuture<'a, Result<KeyPage, KvError>>;
}

/// A value as its keeper told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The value; none where there is no such key.
    pub value: Option<Bytes>,
    /// It has in it all of the site's changes up to here.
    pub as_of: Revision,
}

/// The key-value stores of the sites of this edge.
pub enum Kv {
    /// Kept by the control plane, with copies here.
    Fleet(Shared),
    /// Kept here, and gone with the process.
    Alone(Alone),
}

/// What is kept elsewhere.
pub struct Shared {
    copies: Arc<Copies>,
    keeper: Arc<dyn Keeper>,
    turns: Arc<Semaphore>,
    sites: Mutex<HashMap<Arc<str>, Weak<Semaphore>>>,
}

/// A turn to ask; the site's is given back after the edge's.
struct Turn {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _site: Arc<Semaphore>,
}

// === impl Kv ===

impl Kv {
    /// The value of a key, from the copy here if there is one.
    ///
    /// # Errors
    /// There is none here, and the keeper is away or says no.
    pub async fn get(&self, site: &Arc<str>, key: &str) -> Result<Option<Bytes>, KvError> {
        match self {
            Kv::Fleet(shared) => shared.get(site, key).await,
            Kv::Alone(alone) => Ok(alone.get(site, key)),
        }
    }

    /// Writes a value, or removes what is there. When this returns, a read here finds it.
    ///
    /// # Errors
    /// The keeper is away or says no.
    pub async fn set(
        &self,
        site: &Arc<str>,
        key: String,
        value: Option<Bytes>,
    ) -> Result<(), KvError> {
        match self {
            Kv::Fleet(shared) => shared.set(site, &key, value).await,
            Kv::Alone(alone) => alone.set(site, key, value),
        }
    }

    /// Keys in their order, without the first `skip`.
    ///
    /// # Errors
    /// The keeper is away or says no.
    pub async fn keys(&self, site: &Arc<str>, skip: u64) -> Result<KeyPage, KvError> {
        match self {
            Kv::Fleet(shared) => {
                let _turn = shared.turn(site, Wish::List).await?;
                shared.keeper.keys(site, skip).await
            }
            Kv::Alone(alone) => Ok(alone.keys(site, skip)),
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Entries that `keeper` keeps, with these copies.
    pub fn new(copies: Arc<Copies>, keeper: Arc<dyn Keeper>) -> Shared {
        let turns = Arc::new(Semaphore::new(TURNS));
        Shared { copies, keeper, turns, sites: Mutex::default() }
    }

    async fn get(&self, site: &Arc<str>, key: &str) -> Result<Option<Bytes>, KvError> {
        if let Found::Copy(value) = self.copies.find(site, key, Instant::now()) {
            return Ok(value);
        }
        let _turn = self.turn(site, Wish::Read).await?;
        // Whoever waited behind another for the same entry finds it now.
        if let Found::Copy(value) = self.copies.find(site, key, Instant::now()) {
            return Ok(value);
        }
        let mark = self.copies.mark();
        let Fetched { value, as_of } = self.keeper.get(site, key).await?;
        self.copies.keep(mark, site, key, value.clone(), as_of, Instant::now());
        Ok(value)
    }

    async fn set(&self, site: &Arc<str>, key: &str, value: Option<Bytes>) -> Result<(), KvError> {
        let _turn = self.turn(site, Wish::Write).await?;
        let mark = self.copies.mark();
        let revision = self.keeper.set(site, key, value.clone()).await?;
        self.copies.wrote(mark, site, key, value, revision, Instant::now());
        Ok(())
    }

    /// A turn to ask the keeper, if it is there.
    async fn turn(&self, site: &Arc<str>, wish: Wish) -> Result<Turn, KvError> {
        if !self.keeper.is_there() {
            return Err(KvError::Away(wish));
        }
        let own = self.turns_of(site);
        let taken = async {
            // Its own first: one site's questions must not wait in the place of others'.
            let mine = Arc::clone(&own).acquire_owned().await;
            let all = Arc::clone(&self.turns).acquire_owned().await;
            mine.ok().zip(all.ok())
        };
        match tokio::time::timeout(PATIENCE, taken).await {
            Ok(Some((mine, all))) => Ok(Turn { _all: all, _own: mine, _site: own }),
            Ok(None) | Err(_) => Err(KvError::Busy),
        }
    }

    /// The turns of a site, as long as one of them is waited for or taken.
    fn turns_of(&self, site: &Arc<str>) -> Arc<Semaphore> {
        let mut sites = self.sites.lock();
        if let Some(turns) = sites.get(site).and_then(Weak::upgrade) {
            return turns;
        }
        // Few are in use at a time: those that are not go when another comes.
        sites.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(TURNS_PER_SITE));
        sites.insert(Arc::clone(site), Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests;
