//! The edges as they are now: whose feed is open, who has applied what; and a purge's receipt from
//! it. Waiting is level-triggered: on every report, and on a timer.

use crate::state::{EdgeRecord, State};
use crate::store::{PurgeRow, ReceiptRow};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::watch;
use verge_config::Revision;
use verge_config::api::{EdgeInfo, EdgePurgeState, EdgeReceipt, Receipt};
use verge_config::purge::{Selector, UrlParts, normalise_host};

/// What is known of the edges and need not survive a restart.
#[derive(Default)]
pub(crate) struct Fleet {
    live: Mutex<HashMap<String, Live>>,
    changes: watch::Sender<u64>,
}

#[derive(Default, Clone, Copy)]
struct Live {
    feeds: u32,
    seen_ms: Option<u64>,
}

/// An open feed: the edge counts as connected for as long as it lives.
pub(crate) struct Connected {
    fleet: Arc<Fleet>,
    edge: String,
}

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Every edge that was told.
    All,
    /// More than half of them.
    Quorum,
    /// Nothing.
    None,
}

// === impl Fleet ===

impl Fleet {
    /// Wakes whoever waits for edges.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn connect(self: &Arc<Self>, edge: &str) -> Connected {
        self.live.lock().entry(edge.to_owned()).or_default().feeds += 1;
        self.changed();
        Connected { fleet: self.clone(), edge: edge.to_owned() }
    }

    /// The edge was heard of.
    pub(crate) fn seen(&self, edge: &str, now_ms: u64) {
        self.live.lock().entry(edge.to_owned()).or_default().seen_ms = Some(now_ms);
    }

    pub(crate) fn forget(&self, edge: &str) {
        self.live.lock().retain(|id, live| id != edge || live.feeds > 0);
        self.changed();
    }

    /// How many feeds an edge has open.
    pub(crate) fn feeds(&self, edge: &str) -> u32 {
        self.live.lock().get(edge).map_or(0, |live| live.feeds)
    }

    pub(crate) fn is_connected(&self, edge: &str) -> bool {
        self.live.lock().get(edge).is_some_and(|live| live.feeds > 0)
    }

    pub(crate) fn connected(&self) -> usize {
        self.live.lock().values().filter(|live| live.feeds > 0).count()
    }

    /// Whether enough has come of what the enrolled edges are asked for. With [`Wait::None`] the edges
    /// that are connected are waited for, and those that are away are not.
    pub(crate) fn is_enough(
        &self,
        state: &State,
        wait: Wait,
        is_answered_by: impl Fn(&str) -> bool,
    ) -> bool {
        let live = self.live.lock();
        let connected = |id: &str| live.get(id).is_some_and(|live| live.feeds > 0);
        let (mut all, mut answered, mut open) = (0_usize, 0_usize, 0_usize);
        for edge in state.edges.values().filter(|edge| edge.removed.is_none()) {
            all += 1;
            if is_answered_by(&edge.id) {
                answered += 1;
            } else if connected(&edge.id) {
                open += 1;
            }
        }
        match wait {
            Wait::None => open == 0,
            Wait::All => answered == all,
            Wait::Quorum => all == 0 || answered > all / 2,
        }
    }

    /// The enrolled edges, by name, with the refusals of `tenant`'s sites, or of all.
    pub(crate) fn list(&self, state: &State, tenant: Option<&str>) -> Vec<EdgeInfo> {
        let live = self.live.lock().clone();
        let visible = |refused: &str| {
            let site = verge_config::preview::site_of(refused);
            tenant.is_none_or(|tenant| state.sites.get(site).is_some_and(|s| s.tenant == tenant))
        };
        let info = |edge: &EdgeRecord| {
            let now = live.get(&edge.id).copied().unwrap_or_default();
            EdgeInfo {
                id: edge.id.clone(),
                name: edge.name.clone(),
                version: edge.version.clone(),
                connected: now.feeds > 0,
                applied: edge.applied,
                lag: edge.applied.lag(state.revision),
                last_seen_ms: now.seen_ms.max(edge.seen_ms),
                refusals: edge.refusals.iter().filter(|r| visible(&r.site)).cloned().collect(),
            }
        };
        let enrolled = state.edges.values().filter(|edge| edge.removed.is_none());
        let mut list: Vec<EdgeInfo> = enrolled.map(info).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }
}

// === impl Connected ===

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(live) = self.fleet.live.lock().get_mut(&self.edge) {
            live.feeds = live.feeds.saturating_sub(1);
        }
        self.fleet.changed();
    }
}

// === impl Wait ===

impl Wait {
    /// Whether it is over for a purge with this revision.
    pub(crate) fn is_over(self, state: &State, revision: Revision) -> bool {
        let told = state.told_of(revision).filter(|edge| edge.removed.is_none());
        let (mut all, mut applied) = (0_usize, 0_usize);
        for edge in told {
            all += 1;
            applied += usize::from(edge.has_purged(revision));
        }
        match self {
            Wait::None => true,
            Wait::All => applied == all,
            Wait::Quorum => all == 0 || applied > all / 2,
        }
    }
}

/// An edge's part in a receipt, before it is summed up.
struct Part {
    receipt: EdgeReceipt,
    removed: bool,
}

/// The receipt of a purge: what every edge that was told of it has done.
pub(crate) fn receipt(
    state: &State,
    fleet: &Fleet,
    row: &PurgeRow,
    rows: &BTreeMap<String, ReceiptRow>,
) -> Receipt {
    let revision = row.purge.revision;
    let mut parts: Vec<Part> = state
        .told_of(revision)
        .map(|edge| Part {
            receipt: part(edge, fleet.is_connected(&edge.id), row, rows.get(&edge.id)),
            removed: edge.removed.is_some(),
        })
        .collect();
    parts.sort_by(|a, b| a.receipt.edge.cmp(&b.receipt.edge));
    let mut notes = notes(&parts);
    notes.extend(foreign_hosts(state, &row.purge.site, &row.purge.selectors));
    // A removed edge is no longer waited for; what it did before counts.
    parts.retain(|part| !part.removed || part.receipt.state == EdgePurgeState::Applied);
    let edges: Vec<EdgeReceipt> = parts.into_iter().map(|part| part.receipt).collect();
    let count = |state| edges.iter().filter(|edge| edge.state == state).count() as u64;
    let mut latencies: Vec<u64> = edges.iter().filter_map(|edge| edge.latency_ms).collect();
    latencies.sort_unstable();
    let applied = count(EdgePurgeState::Applied);
    Receipt {
        id: row.id.clone(),
        site: row.purge.site.clone(),
        revision,
        mode: row.purge.mode,
        selectors: row.purge.selectors.clone(),
        created_ms: row.created_ms,
        created_by: row.created_by.clone(),
        complete: applied == edges.len() as u64,
        applied,
        pending: count(EdgePurgeState::Pending),
        offline: count(EdgePurgeState::Offline),
        matched: edges.iter().filter_map(|edge| edge.matched).sum(),
        p50_ms: percentile(&latencies, 50),
        p99_ms: percentile(&latencies, 99),
        notes,
        dry_run: false,
        edges,
    }
}

fn part(
    edge: &EdgeRecord,
    connected: bool,
    row: &PurgeRow,
    receipt: Option<&ReceiptRow>,
) -> EdgeReceipt {
    let state = match (receipt, connected) {
        (Some(_), _) => EdgePurgeState::Applied,
        (None, true) => EdgePurgeState::Pending,
        (None, false) => EdgePurgeState::Offline,
    };
    EdgeReceipt {
        edge: edge.name.clone(),
        state,
        latency_ms: receipt.map(|r| r.applied_ms.saturating_sub(row.created_ms)),
        matched: receipt.and_then(|r| r.matched),
        samples: Vec::new(),
    }
}

/// A host that the site does not answer is most often a slip.
pub(crate) fn foreign_hosts(state: &State, site: &str, selectors: &[Selector]) -> Option<String> {
    let domains = state.sites.get(site)?.domains();
    let answers = |host: &str| {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        domains.iter().any(|domain| match domain.strip_prefix('*') {
            Some(suffix) => name.ends_with(suffix),
            None => domain == name,
        })
    };
    let hosts = selectors.iter().filter_map(|selector| match selector {
        Selector::Url(url) => UrlParts::parse(url)?.host,
        Selector::Prefix(prefix) => UrlParts::parse_prefix(prefix)?.host,
        Selector::Host(host) => Some(normalise_host(host)),
        Selector::Tag(_) | Selector::Everything(_) => None,
    });
    let mut foreign: Vec<String> = hosts.filter(|host| !answers(host)).collect();
    foreign.dedup();
    foreign.truncate(5);
    let list = foreign.join(", ");
    (!foreign.is_empty()).then(|| format!("not a host of the site's active version: {list}"))
}

fn notes(parts: &[Part]) -> Vec<String> {
    /// A receipt of a large fleet names the first few.
    const MOST: usize = 20;
    let mut notes = Vec::new();
    let current: Vec<&Part> = parts.iter().filter(|part| !part.removed).collect();
    if current.is_empty() {
        notes.push("no edge was enrolled when this purge was committed".to_owned());
    }
    let applied = parts.iter().filter(|part| part.receipt.state == EdgePurgeState::Applied);
    let matched: Vec<u64> = applied.clone().filter_map(|part| part.receipt.matched).collect();
    if !matched.is_empty() && matched.len() == applied.count() && matched.iter().all(|m| *m == 0) {
        let whole = matched.len() == current.len();
        notes.push(if whole {
            "matched nothing on any edge".to_owned()
        } else {
            "matched nothing on the edges that have applied it so far".to_owned()
        });
    }
    let away = |part: &&Part| part.receipt.state == EdgePurgeState::Offline;
    for part in parts.iter().filter(away).take(MOST) {
        let edge = &part.receipt.edge;
        notes.push(if part.removed {
            format!("edge {edge} was removed before it applied this purge")
        } else {
            format!(
                "edge {edge} is offline; it will apply it before anything newer when it is back, \
                 and until then may serve what it has"
            )
        });
    }
    let more = parts.iter().filter(away).count().saturating_sub(MOST);
    if more > 0 {
        notes.push(format!("{more} more edges are offline"));
    }
    notes
}

/// The nearest-rank percentile of sorted values.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&[7], 99), Some(7));
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), Some(50));
        assert_eq!(percentile(&hundred, 99), Some(99));
        assert_eq!(percentile(&[1, 2, 3], 50), Some(2));
    }

    #[test]
    fn an_edge_is_connected_while_any_of_its_feeds_is_open() {
        let fleet = Arc::new(Fleet::default());
        let first = fleet.connect("e");
        let second = fleet.connect("e");
        drop(first);
        assert!(fleet.is_connected("e"));
        drop(second);
        assert!(!fleet.is_connected("e"));
        assert_eq!(fleet.connected(), 0);
    }
}
