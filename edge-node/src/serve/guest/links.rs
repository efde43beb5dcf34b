//! The handlers of a route as one of them sees them: itself, and who is behind it; whose turn it is, and
//! who is asked when it fetches. Decided on values alone.

use std::sync::Arc;
use verge_config::site::named_origin;

/// A handler, and those behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Links<T> {
    here: T,
    behind: Option<Arc<Links<T>>>,
}

/// Whose turn it is with a request that has come to a handler.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<T, L, E> {
    /// The first of these, which was given leave.
    Runs {
        /// It, and those behind it.
        links: Links<T>,
        /// Its leave.
        leave: L,
        /// It is not the one that the request came to.
        stands_in: bool,
    },
    /// Nobody's: all gave way, and whoever is behind the last answers.
    Past(E),
    /// Nobody's, and nobody answers.
    Refused(E),
}

/// Who is asked when a handler fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// The origin of this name.
    Origin(&'a str),
    /// Its own site: the next handler, or what is behind the last.
    Own,
    /// Somebody else.
    Outside,
}

/// Who is asked for something of a normalised host. An origin's name comes before everything: no site
/// has such a host.
pub(super) fn asked(host: &str, is_own: bool) -> Asked<'_> {
    match named_origin(host) {
        Some(name) => Asked::Origin(name),
        None if is_own => Asked::Own,
        None => Asked::Outside,
    }
}

// === impl Links ===

impl<T: Clone> Links<T> {
    /// A handler before those that there are already.
    pub(super) fn before(here: T, behind: Option<Links<T>>) -> Links<T> {
        Links { here, behind: behind.map(Arc::new) }
    }

    /// The handler itself.
    pub(super) fn here(&self) -> &T {
        &self.here
    }

    /// Who gets what it asks of its own site; nobody for the last.
    pub(super) fn behind(&self) -> Option<Links<T>> {
        self.behind.as_deref().cloned()
    }

    /// Whose turn it is: the first one's that is given leave, as long as each before it gives way.
    pub(super) fn turn<L, E>(
        self,
        admit: impl Fn(&T) -> Result<L, E>,
        gives_way: impl Fn(&T) -> bool,
    ) -> Turn<T, L, E> {
        let (mut links, mut stands_in) = (self, false);
        loop {
            let refusal = match admit(&links.here) {
                Ok(leave) => return Turn::Runs { links, leave, stands_in },
                Err(refusal) => refusal,
            };
            if !gives_way(&links.here) {
                return Turn::Refused(refusal);
            }
            let Some(next) = links.behind() else { return Turn::Past(refusal) };
            (links, stands_in) = (next, true);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn links<T: Clone>(items: &[T]) -> Option<Links<T>> {
        items.iter().rev().fold(None, |behind, here| Some(Links::before(here.clone(), behind)))
    }

    #[test]
    fn hosts_and_who_is_asked() {
        for (host, is_own, who) in [
            ("shop.example", true, Asked::Own),
            ("api.example", false, Asked::Outside),
            ("web.origin.alt", false, Asked::Origin("web")),
            ("web.origin.alt", true, Asked::Origin("web")),
            ("origin.alt", false, Asked::Origin("")),
            ("origin.alt.example", true, Asked::Own),
        ] {
            assert_eq!(asked(host, is_own), who, "{host}");
        }
    }

    /// What is to be known of a handler: whether it is given leave, and whether it gives way.
    type Kind = (bool, bool);

    proptest! {
        /// From each to the one behind it, a request comes to all, in order, and to none twice.
        #[test]
        fn each_is_asked_by_the_one_before_it(count in 1_usize..9) {
            let items: Vec<usize> = (0..count).collect();
            let mut next = links(&items);
            let mut seen = Vec::new();
            while let Some(now) = next {
                seen.push(*now.here());
                next = now.behind();
            }
            prop_assert_eq!(seen, items);
        }

        /// The scan over the whole list that a turn must equal.
        #[test]
        fn the_turn_is_the_first_one_s_that_runs(
            kinds in prop::collection::vec(any::<Kind>(), 1..9),
        ) {
            let items: Vec<(usize, Kind)> = kinds.iter().copied().enumerate().collect();
            let admit = |(index, (runs, _)): &(usize, Kind)| if *runs { Ok(*index) } else { Err(*index) };
            let turn = links(&items).unwrap().turn(admit, |(_, (_, gives_way))| *gives_way);
            let stop = kinds.iter().position(|(runs, gives_way)| *runs || !gives_way);
            let expected = match stop {
                None => Turn::Past(kinds.len() - 1),
                Some(at) if !kinds[at].0 => Turn::Refused(at),
                Some(at) => Turn::Runs {
                    links: links(&items[at..]).unwrap(),
                    leave: at,
                    stands_in: at > 0,
                },
            };
            prop_assert_eq!(turn, expected);
        }
    }
}
