//! Lines of the feed that have come and whose turn has not: while the components of a site are compiled,
//! the lines behind it wait, except for those that it does not concern. Brings nothing into force itself.

use super::build::Prepared;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Instant;
use tokio::task::JoinSet;
use verge_config::feed::{Asked, FeedLine, Question};

/// The most lines that wait, and the most bytes of them; what comes after is left unread.
const MAX_LINES: usize = 10_000;
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// The lines that wait, in their order.
#[derive(Default)]
pub(super) struct Ahead {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// At most one: the preparation of the first line.
    preparing: JoinSet<Prepared>,
}

/// A line that waits.
pub(super) struct Waiting {
    /// As it came.
    pub(super) line: Bytes,
    /// As it reads.
    pub(super) read: ReadLine,
    /// When it came.
    pub(super) arrived: Instant,
    /// What was prepared for it.
    pub(super) prepared: Option<Prepared>,
    concern: Concern,
}

/// What a line says, or why nobody can tell.
pub(super) type ReadLine = Result<FeedLine, serde_json::Error>;

/// Whom a line is about.
#[derive(Debug, PartialEq, Eq)]
enum Concern {
    /// No site.
    Nobody,
    /// One site.
    Site(String),
    /// It may be about any site.
    Everybody,
}

// === impl Ahead ===

impl Ahead {
    /// Whether every line has had its turn.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the first line's turn is yet to come.
    pub(super) fn is_preparing(&self) -> bool {
        !self.preparing.is_empty()
    }

    /// Whether another line may be read.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_LINES && self.bytes < MAX_BYTES
    }

    /// Takes a line that has come. Gives what it says where it need not wait: nothing before it is about
    /// its site. What has a revision still has its turn later.
    pub(super) fn push(&mut self, line: Bytes, arrived: Instant) -> Option<FeedLine> {
        let read: ReadLine = serde_json::from_slice(&line);
        let mut concern = read.as_ref().map_or(Concern::Everybody, Concern::of);
        let mut passes = None;
        if let Ok(said) = &read
            && !self.is_empty()
            && self.may_pass(said, &concern)
        {
            passes = Some(said.clone());
            if matches!(said, FeedLine::Question(_)) {
                return passes;
            }
            concern = Concern::Nobody;
        }
        self.bytes += line.len();
        self.waiting.push_back(Waiting { line, read, arrived, prepared: None, concern });
        passes
    }

    /// The line whose turn it is. `prepare` says what is to be prepared for one before that.
    pub(super) fn next(
        &mut self,
        prepare: impl FnOnce(&FeedLine) -> Option<futures::future::BoxFuture<'static, Prepared>>,
    ) -> Option<Waiting> {
        if self.is_preparing() {
            return None;
        }
        let first = self.waiting.front()?;
        if first.prepared.is_none()
            && let Ok(said) = &first.read
            && let Some(work) = prepare(said)
        {
            self.preparing.spawn(work);
            return None;
        }
        let first = self.waiting.pop_front()?;
        self.bytes -= first.line.len();
        Some(first)
    }

    /// Waits until the first line is prepared. Nothing is lost when it is dropped before it is ready.
    pub(super) async fn prepared(&mut self) {
        let prepared = match self.preparing.join_next().await {
            Some(Ok(prepared)) => prepared,
            // What could not be prepared is made in its turn.
            Some(Err(_)) | None => Prepared::default(),
        };
        if let Some(first) = self.waiting.front_mut() {
            first.prepared = Some(prepared);
        }
    }

    fn may_pass(&self, line: &FeedLine, concern: &Concern) -> bool {
        let Concern::Site(site) = concern else { return false };
        matches!(line, FeedLine::Purge(_) | FeedLine::Entry(_) | FeedLine::Question(_))
            && self.waiting.iter().all(|before| match &before.concern {
                Concern::Nobody => true,
                Concern::Site(other) => other != site,
                Concern::Everybody => false,
            })
    }
}

// === impl Concern ===

impl Concern {
    fn of(line: &FeedLine) -> Concern {
        let site = match line {
            FeedLine::Site { site, .. }
            | FeedLine::SiteRemoved { site, .. }
            | FeedLine::Secrets { site, .. } => site,
            FeedLine::Previews(previews) => &previews.site,
            FeedLine::Purge(purge) => &purge.site,
            FeedLine::Entry(changed) => &changed.site,
            FeedLine::Question(Question { asked, .. }) => match asked {
                Asked::Preview { site, .. } | Asked::Explain { site, .. } => site,
                Asked::Tail(tail) => &tail.site,
                Asked::Unknown => return Concern::Nobody,
            },
            FeedLine::Head { .. } | FeedLine::Unknown => return Concern::Nobody,
            FeedLine::Hello { .. } => return Concern::Everybody,
        };
        Concern::Site(site.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;
    use verge_config::purge::Purge;
    use verge_config::{Mode, Revision, Selector};

    fn purge(site: &str, revision: u64) -> Bytes {
        let selectors = vec![Selector::Tag("t".into())];
        let (revision, site) = (Revision(revision), site.to_owned());
        let purge = Purge { revision, site, selectors, mode: Mode::Hard };
        serde_json::to_vec(&FeedLine::Purge(purge)).unwrap().into()
    }

    fn removed(site: &str, revision: u64) -> Bytes {
        format!(r#"{{"type":"site_removed","revision":{revision},"site":"{site}"}}"#).into()
    }

    fn question(site: &str) -> Bytes {
        let (site, url) = (site.to_owned(), "http://x/".to_owned());
        let asked = Asked::Explain { site, url, fields: Vec::new() };
        let question = Question { id: "q".to_owned(), asked };
        serde_json::to_vec(&FeedLine::Question(question)).unwrap().into()
    }

    /// A queue whose first line is of the site `slow`, and is being prepared.
    fn preparing() -> Ahead {
        let mut ahead = Ahead::default();
        assert!(ahead.push(removed("slow", 1), Instant::now()).is_none());
        let never = || std::future::pending::<Prepared>().boxed();
        assert!(ahead.next(|_| Some(never())).is_none());
        assert!(ahead.is_preparing());
        ahead
    }

    #[tokio::test]
    async fn what_is_of_another_site_need_not_wait() {
        let mut ahead = preparing();
        let now = Instant::now();
        assert!(matches!(ahead.push(purge("other", 2), now), Some(FeedLine::Purge(_))));
        assert!(matches!(ahead.push(question("other"), now), Some(FeedLine::Question(_))));
        // The purge has its turn as well, for its revision; the question has none.
        assert_eq!(ahead.waiting.len(), 2);
    }

    #[tokio::test]
    async fn what_may_be_of_a_site_that_waits_waits() {
        let now = Instant::now();
        for line in [purge("slow", 2), question("slow"), removed("other", 2)] {
            let mut ahead = preparing();
            assert!(ahead.push(line.clone(), now).is_none(), "{line:?}");
            assert_eq!(ahead.waiting.len(), 2);
        }
        let mut ahead = preparing();
        assert!(ahead.push(removed("other", 2), now).is_none());
        assert!(ahead.push(purge("other", 3), now).is_none(), "its site's line comes before");
        let mut ahead = preparing();
        assert!(ahead.push("{\"type\":\"purge\",\"selectors\":7}".into(), now).is_none());
        assert!(ahead.push(purge("other", 3), now).is_none(), "a line that nobody can read");
    }

    #[tokio::test]
    async fn a_line_is_prepared_once_and_then_has_its_turn() {
        let mut ahead = Ahead::default();
        let now = Instant::now();
        ahead.push(removed("slow", 1), now);
        ahead.push(removed("other", 2), now);
        let ready = || std::future::ready(Prepared::default()).boxed();
        assert!(ahead.next(|_| Some(ready())).is_none());
        assert!(ahead.next(|_| unreachable!()).is_none());
        ahead.prepared().await;
        assert_eq!(ahead.next(|_| unreachable!()).unwrap().line, removed("slow", 1));
        assert_eq!(ahead.next(|_| None).unwrap().line, removed("other", 2));
        assert!(ahead.is_empty() && ahead.bytes == 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut ahead = Ahead::default();
        while ahead.has_room() {
            ahead.push(removed("a", 1), Instant::now());
        }
        assert_eq!(ahead.waiting.len(), MAX_LINES);
    }

    proptest! {
        /// Whatever passes, every line with a revision has its turn, in the order of coming.
        #[test]
        fn no_line_is_lost(sites in prop::collection::vec(("[ab]", any::<bool>()), 1..20)) {
            let mut ahead = Ahead::default();
            let lines: Vec<Bytes> = sites
                .iter()
                .zip(1..)
                .map(|((site, is_purge), n)| if *is_purge { purge(site, n) } else { removed(site, n) })
                .collect();
            for line in &lines {
                ahead.push(line.clone(), Instant::now());
            }
            let turns: Vec<Bytes> =
                std::iter::from_fn(|| ahead.next(|_| None)).map(|waiting| waiting.line).collect();
            prop_assert_eq!(turns, lines);
        }
    }
}
