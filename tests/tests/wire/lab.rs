//! One edge before one scripted origin, and the two questions that most cases ask of it: is the stored
//! response reused, or is the origin asked? It gathers what is wrong, so that one run shows all of it.

use super::known::KNOWN;
use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::sync::Mutex;
use tempfile::TempDir;
use verge_tests::{Edge, Reply, Script, Turn, site, until};

/// Header fields, as a case writes them.
pub(crate) type Fields = &'static [(&'static str, &'static str)];

/// Every client of the cases asks for this host, unless a case says otherwise.
pub(crate) const HOST: &str = "wire.example";

/// A response that leaves no trace.
pub(crate) const NO_STORE: Fields = &[("Cache-Control", "no-store")];
/// A response that is fresh for an hour.
pub(crate) const FRESH: Fields = &[("Cache-Control", "max-age=3600")];

/// How the edge is run, and how it is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) http2: bool,
    pub(crate) disk: bool,
}

/// What the second of two requests gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The stored response.
    Reused,
    /// The origin's next one.
    Asked,
}

/// A case of two requests: id, first request, status and fields of its answer, second request, what it
/// gets.
pub(crate) type Case = (&'static str, Fields, u16, Fields, Fields, Want);

/// The place where cases run.
pub(crate) struct Lab {
    pub(crate) script: Script,
    pub(crate) edge: Edge,
    setup: Setup,
    checked: Mutex<BTreeSet<String>>,
    faults: Mutex<Vec<(String, String)>>,
    _cache: TempDir,
}

impl Lab {
    pub(crate) async fn start(setup: Setup) -> Lab {
        let script = Script::start().await;
        let cache = TempDir::new().unwrap();
        let mut edge = Edge::standalone(site::plain(script.origin()));
        if setup.disk {
            let folder = cache.path().display().to_string();
            edge = edge.with(&["--cache-dir", &folder, "--ram", "0"]);
        }
        let edge = edge.start().await;
        let (checked, faults) = (Mutex::default(), Mutex::default());
        Lab { script, edge, setup, checked, faults, _cache: cache }
    }

    /// A request on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.ask_host(method, HOST, path, fields, b"").await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[]).await
    }

    /// A request for a host, with content. One that ends without a response is a reply of status 0.
    ///
    /// The cases send one request after the other; one that joined the fill of the one before, which
    /// had its last byte a moment ago, is sent again, so that the case is about what is stored.
    pub(crate) async fn ask_host(
        &self,
        method: &str,
        host: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        until("the fill to end", || async {
            let reply = self.ask_once(method, host, path, fields, body).await;
            (!reply.cache_status().contains("collapsed")).then_some(reply)
        })
        .await
    }

    async fn ask_once(
        &self,
        method: &str,
        host: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let dated: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, verge_tests::script::with_dates(value)))
            .collect();
        let fields: Vec<_> = dated.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = if self.setup.http2 {
            let mut client = self.edge.client2().await;
            client.try_request(method, host, path, &fields, body).await.ok()
        } else {
            let mut client = self.edge.client().await;
            client.try_request(method, host, path, &fields, body).await.ok()
        };
        reply.unwrap_or_else(|| Reply {
            status: 0,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            whole: false,
        })
    }

    /// Notes whether something is as it should be.
    pub(crate) fn check(&self, id: &str, good: bool, said: impl Display) {
        self.checked.lock().unwrap().insert(id.to_owned());
        if !good {
            self.faults.lock().unwrap().push((id.to_owned(), said.to_string()));
        }
    }

    /// Notes whether two things are the same.
    pub(crate) fn same<T: PartialEq + Debug>(&self, id: &str, got: T, wanted: T, reply: &Reply) {
        let good = got == wanted;
        self.check(id, good, format!("got {got:?}, wanted {wanted:?}: {reply:?}"));
    }

    /// Runs cases of two requests.
    pub(crate) async fn run(&self, cases: &[Case]) {
        for case in cases {
            self.run_one(case).await;
        }
    }

    async fn run_one(&self, (id, first, status, answer, second, want): &Case) {
        let path = format!("/{id}");
        let turns = [Turn::new(*status, answer, "1"), Turn::new(200, NO_STORE, "2")];
        self.script.plan(&path, turns);
        let stored = self.ask("GET", &path, first).await;
        if stored.status != *status {
            self.check(id, false, format!("the first answer is not passed on: {stored:?}"));
            return;
        }
        let reply = self.ask("GET", &path, second).await;
        self.judge(id, &path, &stored, &reply, *want);
    }

    /// Whether the second reply is what it should be, given the first; the origin has two turns.
    pub(crate) fn judge(&self, id: &str, path: &str, stored: &Reply, reply: &Reply, want: Want) {
        let count = self.script.count(path);
        let got = match (count, reply.text().as_str()) {
            (1, _) if reply.status == stored.status && reply.body == stored.body => {
                Some(Want::Reused)
            }
            (2, "2") if reply.status == 200 => Some(Want::Asked),
            _ => None,
        };
        let said = format!("got {got:?} after {count} requests, wanted {want:?}: {reply:?}");
        self.check(id, got == Some(want), said);
        if got == Some(Want::Reused) {
            self.judge_hit(stored, reply);
        }
    }

    /// What holds of every response from the store.
    pub(crate) fn judge_hit(&self, stored: &Reply, reply: &Reply) {
        let ages: Vec<_> = reply.headers.get_all("age").iter().collect();
        let number = ages.first().and_then(|age| age.to_str().ok()?.parse::<u64>().ok());
        // RFC 9111 sections 4 and 5.1.
        self.check("hit-age", ages.len() == 1 && number.is_some(), format!("{reply:?}"));
        // RFC 9110 section 6.6.1: the Date is of the origin's making, and stays.
        self.same("hit-date", reply.field("date"), stored.field("date"), reply);
        let dates = reply.headers.get_all("date").iter().count();
        self.same("hit-one-date", dates, 1, reply);
        // RFC 9211 section 2.1: a hit was not forwarded.
        let good = reply.is_hit() && !reply.cache_status().contains("fwd");
        self.check("hit-cache-status", good, format!("{reply:?}"));
    }

    /// Ends it.
    ///
    /// # Panics
    /// When a case failed that is not known to, or one passed that is.
    pub(crate) fn finish(self) {
        let setup = self.setup;
        let checked = self.checked.into_inner().unwrap();
        let failed = self.faults.into_inner().unwrap();
        let known = |id: &str| KNOWN.iter().find(|(known, _)| *known == id);
        let mut faults: Vec<String> = failed
            .iter()
            .filter(|(id, _)| known(id).is_none())
            .map(|(id, said)| format!("{id}: {said}"))
            .collect();
        for (id, why) in KNOWN {
            let holds = failed.iter().any(|(failed, _)| failed == id);
            if checked.contains(*id) && !holds {
                faults.push(format!("{id}: passes; take it out of the list ({why})"));
            }
        }
        assert!(!checked.is_empty(), "nothing was checked");
        assert!(
            faults.is_empty(),
            "{setup:?}: {} of {} cases:\n{}",
            faults.len(),
            checked.len(),
            faults.join("\n")
        );
    }
}
