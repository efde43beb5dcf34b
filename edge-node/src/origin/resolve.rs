//! From a host to its addresses: a bounded cache before the system's resolver, which blocks and so
//! gets threads of its own. Judges no address; that is `address`'s part.

use super::OriginError;
use ahash::AHashMap;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How long an answer counts.
const POSITIVE_TTL: Duration = Duration::from_secs(10);
/// How long a failure counts.
const NEGATIVE_TTL: Duration = Duration::from_secs(1);
/// How long the last good answer stands in when the resolver fails.
const LAST_GOOD_FOR: Duration = Duration::from_secs(3600);
/// The most names remembered.
const MAX_NAMES: usize = 4096;
/// The most addresses kept of one name.
const MAX_ADDRESSES: usize = 16;
/// The most lookups at once; a hung resolver ties up no more threads than this.
const MAX_LOOKUPS: usize = 64;
/// The longest name (RFC 1035 section 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// Blocks until the name's addresses are known. Tests script it; the real one is `getaddrinfo`.
pub type Lookup = dyn Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync;
type Answer = Result<Arc<[IpAddr]>, OriginError>;
type Pending = Shared<BoxFuture<'static, Answer>>;

/// Resolves names; one for the whole edge, cheap to share.
pub struct Resolver {
    lookup: Arc<Lookup>,
    names: Arc<Mutex<AHashMap<String, Name>>>,
    permits: Arc<Semaphore>,
}

/// What is known of one name.
#[derive(Default)]
struct Name {
    good: Option<(Arc<[IpAddr]>, Instant)>,
    failed: Option<(OriginError, Instant)>,
    pending: Option<Pending>,
    used: Option<Instant>,
}

// === impl Resolver ===

impl Default for Resolver {
    fn default() -> Resolver {
        Resolver::new()
    }
}

impl Resolver {
    /// A resolver that asks the system.
    #[must_use]
    pub fn new() -> Resolver {
        Resolver::with_lookup(Arc::new(|host: &str| {
            Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
        }))
    }

    /// A resolver that asks `lookup`, on a thread that may block.
    #[must_use]
    pub fn with_lookup(lookup: Arc<Lookup>) -> Resolver {
        Resolver { lookup, names: Arc::default(), permits: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }

    /// The addresses of `host`, at least one, in the resolver's order.
    ///
    /// # Errors
    /// `DnsFailed` when the name has none and never had one lately; `DnsTimeout` when nothing is
    /// known within `patience`.
    pub async fn resolve(&self, host: &str, patience: Duration) -> Answer {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Arc::from([address]));
        }
        if host.is_empty() || host.len() > MAX_NAME_BYTES || host.contains('\0') {
            let cause = "not a name".to_owned();
            return Err(OriginError::DnsFailed { host: host.chars().take(80).collect(), cause });
        }
        let pending = match self.known_or_pending(host, Instant::now()) {
            Ok(answer) => return answer,
            Err(pending) => pending,
        };
        match tokio::time::timeout(patience, pending).await {
            Ok(answer) => answer,
            Err(_) => self
                .last_good(host)
                .ok_or_else(|| OriginError::DnsTimeout { host: host.to_owned(), after: patience }),
        }
    }

    /// What is known now, or the lookup to wait for: one per name, however many wait.
    fn known_or_pending(&self, host: &str, now: Instant) -> Result<Answer, Pending> {
        let mut names = self.names.lock();
        if !names.contains_key(host) {
            make_room(&mut names);
        }
        let name = names.entry(host.to_owned()).or_default();
        name.used = Some(now);
        if let Some((addresses, at)) = &name.good
            && now.duration_since(*at) < POSITIVE_TTL
        {
            return Ok(Ok(Arc::clone(addresses)));
        }
        if let Some((error, at)) = &name.failed
            && now.duration_since(*at) < NEGATIVE_TTL
        {
            return Ok(name.last_good(now).ok_or_else(|| error.clone()));
        }
        Err(name.pending.get_or_insert_with(|| self.start(host.to_owned())).clone())
    }

    fn last_good(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        self.names.lock().get(host).and_then(|name| name.last_good(Instant::now()))
    }

    /// Starts a lookup as a task of its own, so that one who stops waiting ends it for nobody.
    fn start(&self, host: String) -> Pending {
        let lookup = Arc::clone(&self.lookup);
        let names = Arc::clone(&self.names);
        let permits = Arc::clone(&self.permits);
        let task = tokio::spawn(async move {
            let found = ask(lookup, permits, host.clone()).await;
            let now = Instant::now();
            let mut names = names.lock();
            let name = names.entry(host).or_default();
            name.pending = None;
            match found {
                Ok(addresses) => {
                    name.good = Some((Arc::clone(&addresses), now));
                    name.failed = None;
                    Ok(addresses)
                }
                Err(error) => {
                    name.failed = Some((error.clone(), now));
                    name.last_good(now).ok_or(error)
                }
            }
        });
        task.map(|done| done.unwrap_or_else(|gone| Err(failed("", &gone)))).boxed().shared()
    }
}

impl Name {
    fn last_good(&self, now: Instant) -> Option<Arc<[IpAddr]>> {
        let (addresses, at) = self.good.as_ref()?;
        (now.duration_since(*at) < LAST_GOOD_FOR).then(|| Arc::clone(addresses))
    }
}

async fn ask(lookup: Arc<Lookup>, permits: Arc<Semaphore>, host: String) -> Answer {
    let permit = permits.acquire_owned().await.map_err(|closed| failed(&host, &closed))?;
    let asked = host.clone();
    let found = tokio::task::spawn_blocking(move || {
        // Held by the thread, not by the waiter: the limit counts blocked threads.
        let _permit = permit;
        lookup(&asked)
    });
    let mut addresses = match found.await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(failed(&host, &error)),
        Err(error) => return Err(failed(&host, &error)),
    };
    let mut seen = Vec::with_capacity(addresses.len().min(MAX_ADDRESSES));
    addresses.retain(|address| {
        let fresh = seen.len() < MAX_ADDRESSES && !seen.contains(address);
        if fresh {
            seen.push(*address);
        }
        fresh
    });
    if addresses.is_empty() {
        return Err(OriginError::DnsFailed { host, cause: "no address".to_owned() });
    }
    Ok(addresses.into())
}

fn failed(host: &str, cause: &dyn std::error::Error) -> OriginError {
    OriginError::DnsFailed { host: host.to_owned(), cause: cause.to_string() }
}

/// Forgets the names longest unused, an eighth at once, so that it costs little per name.
fn make_room(names: &mut AHashMap<String, Name>) {
    if names.len() < MAX_NAMES {
        return;
    }
    let mut used: Vec<_> = names.values().map(|name| name.used).collect();
    let (_, cut, _) = used.select_nth_unstable(MAX_NAMES / 8);
    let cut = *cut;
    names.retain(|_, name| name.used > cut || name.pending.is_some());
    if names.len() >= MAX_NAMES {
        // All of them wait on a hung resolver: forgetting them loses nothing.
        names.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn many_who_ask_at_once_are_one_lookup() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let resolver = Arc::new(Resolver::with_lookup(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(vec![IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 1])])
        })));
        let asked = (0..100).map(|_| resolver.resolve("a.test", PATIENCE));
        for answer in futures::future::join_all(asked).await {
            assert_eq!(&*answer.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failure_is_told_and_remembered_for_a_moment() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let resolver = Resolver::with_lookup(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Err(std::io::Error::other("no such name"))
        }));
        for _ in 0..5 {
            let error = resolver.resolve("gone.test", PATIENCE).await.unwrap_err();
            assert!(matches!(error, OriginError::DnsFailed { .. }), "{error}");
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn the_last_good_answer_stands_in_for_a_failing_resolver() {
        let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let failing = Arc::clone(&fails);
        let resolver = Resolver::with_lookup(Arc::new(move |_| {
            if failing.load(Ordering::SeqCst) {
                Err(std::io::Error::other("the resolver is down"))
            } else {
                Ok(vec![IpAddr::from([192, 0, 2, 7])])
            }
        }));
        resolver.resolve("a.test", PATIENCE).await.unwrap();
        fails.store(true, Ordering::SeqCst);
        let past = Instant::now().checked_sub(POSITIVE_TTL).unwrap();
        if let Some(good) = &mut resolver.names.lock().get_mut("a.test").unwrap().good {
            good.1 = past;
        }
        assert_eq!(
            &*resolver.resolve("a.test", PATIENCE).await.unwrap(),
            [IpAddr::from([192, 0, 2, 7])]
        );
        assert!(resolver.resolve("b.test", PATIENCE).await.is_err(), "only names it has known");
    }

    #[tokio::test]
    async fn a_hung_resolver_costs_the_asker_no_more_than_its_patience() {
        let (release, hold) = std::sync::mpsc::channel::<()>();
        let hold = Mutex::new(hold);
        let resolver = Resolver::with_lookup(Arc::new(move |_| {
            let _ = hold.lock().recv();
            Ok(vec![])
        }));
        let error = resolver.resolve("slow.test", Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, OriginError::DnsTimeout { .. }), "{error}");
        drop(release);
        let error = resolver.resolve("slow.test", PATIENCE).await.unwrap_err();
        assert!(matches!(error, OriginError::DnsFailed { .. }), "{error}");
    }

    #[tokio::test]
    async fn names_are_bounded() {
        let resolver = Resolver::with_lookup(Arc::new(|_| Ok(vec![IpAddr::from([192, 0, 2, 1])])));
        for n in 0..MAX_NAMES + 100 {
            resolver.resolve(&format!("n{n}.test"), PATIENCE).await.unwrap();
        }
        assert!(resolver.names.lock().len() <= MAX_NAMES);
        let long = "a".repeat(300);
        assert!(resolver.resolve(&long, PATIENCE).await.is_err());
    }
}
