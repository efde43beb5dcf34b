//! Secrets of sites, brought into force like all else that the feed tells: it says whose have changed, they
//! are fetched over a connection that nobody between can read, and sites go on with them in their turn, on
//! the same pools and breakers. What cannot be fetched is refused and tried again; the last good ones stay.

use super::apply::{Applier, ApplyError, RETRY_EVERY};
use super::client::ClientError;
use super::last_good::is_site_name;
use super::session::{Session, SessionError, collect};
use super::vault::{SecretsRecord, Vault};
use crate::snapshot::SiteRuntime;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use verge_config::Revision;
use verge_config::secrets::{MAX_ANSWER_BYTES, Secrets, SiteSecrets, secrets_of};

/// The most sites with secrets on one edge.
const SITES_MAX: usize = 100_000;
/// The longest pause in an answer.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The secrets of all sites, as they are known here.
pub(super) struct Held {
    /// Of sites that have any.
    known: HashMap<String, Known>,
    /// In force and not on disk yet.
    pub(super) unsaved: BTreeMap<String, SecretsRecord>,
    /// Sites whose secrets could not be had, with the revision that was told.
    later: BTreeMap<String, Revision>,
    retried: Instant,
}

struct Known {
    /// What they were fetched at; at least what was told.
    revision: Revision,
    secrets: Arc<Secrets>,
}

/// Where secrets come from and where they are kept.
pub(super) struct Source {
    pub(super) vault: Vault,
    /// Absent in tests, where nothing is asked.
    pub(super) session: Option<Arc<Session>>,
}

/// Why secrets cannot be had.
#[derive(Debug, thiserror::Error)]
enum NotHad {
    /// The control plane is away.
    #[error(transparent)]
    Away(ClientError),
    /// It does not give them, or not in a way that they may be taken.
    #[error("{0}")]
    Refused(String),
}

// === impl Source ===

impl Source {
    /// A site's secrets, of `revision` or later.
    async fn fetch(&self, site: &str, revision: Revision) -> Result<SiteSecrets, NotHad> {
        let unasked = || NotHad::Refused("there is nobody to ask".to_owned());
        let session = self.session.as_ref().ok_or_else(unasked)?;
        let target = format!("/v1/edges/self/secrets/{site}");
        let response = session.get_in_private(&target).await?;
        let content = collect(response, MAX_ANSWER_BYTES, PAUSE_MAX).await;
        let content = content.map_err(SessionError::from)?;
        // The answer holds the secrets: what a parser would say of it is not for a log.
        let told: SiteSecrets = serde_json::from_slice(&content).map_err(|_| {
            NotHad::Refused("the control plane's answer cannot be understood".to_owned())
        })?;
        if told.revision < revision {
            let older = format!("the control plane gave those of revision {}", told.revision);
            return Err(NotHad::Refused(older));
        }
        Ok(told)
    }
}

impl From<SessionError> for NotHad {
    fn from(error: SessionError) -> NotHad {
        match error {
            SessionError::Client(error) if error.is_away() || error.is_unauthorised() => {
                NotHad::Away(error)
            }
            error => NotHad::Refused(error.to_string()),
        }
    }
}

// === impl Held ===

impl Held {
    pub(super) fn new() -> Held {
        Held {
            known: HashMap::new(),
            unsaved: BTreeMap::new(),
            later: BTreeMap::new(),
            retried: Instant::now(),
        }
    }

    /// How many sites have any.
    pub(super) fn sites(&self) -> u64 {
        self.known.len() as u64
    }
}

// === impl Applier ===

impl Applier {
    /// A site's secrets have changed.
    pub(super) async fn secrets(
        &mut self,
        revision: Revision,
        site: &str,
    ) -> Result<(), ApplyError> {
        self.effects.status.saw(revision);
        if let Some(seen) = &mut self.seen {
            seen.insert(secrets_of(site));
        }
        let known = self.secrets.known.get(site);
        if is_site_name(site) && known.is_none_or(|known| known.revision < revision) {
            self.fetch_secrets(revision, site).await?;
        }
        self.advance(revision);
        Ok(())
    }

    async fn fetch_secrets(&mut self, revision: Revision, site: &str) -> Result<(), ApplyError> {
        let held = &self.secrets.known;
        let fetched = if held.contains_key(site) || held.len() < SITES_MAX {
            self.effects.secrets.fetch(site, revision).await
        } else {
            Err(NotHad::Refused(format!("more than {SITES_MAX} sites with secrets on this edge")))
        };
        match fetched {
            Ok(told) => self.accept_secrets(site, told),
            Err(NotHad::Away(error)) => return Err(error.into()),
            Err(NotHad::Refused(reason)) => {
                let reason = format!("the site's secrets: {reason} (it is tried again)");
                self.refuse_part(revision, secrets_of(site), reason);
                self.secrets.later.insert(site.to_owned(), revision);
            }
        }
        Ok(())
    }

    fn accept_secrets(&mut self, site: &str, told: SiteSecrets) {
        let (revision, count) = (told.revision, told.secrets.len());
        tracing::info!(site, %revision, count, "secrets applied");
        self.refusals.remove(&secrets_of(site));
        self.secrets.later.remove(site);
        self.hold_secrets(site, &told);
        let (history, name) = (self.position.history.clone(), site.to_owned());
        self.secrets.unsaved.insert(name.clone(), SecretsRecord { history, site: name, told });
        self.give_secrets(site);
    }

    fn hold_secrets(&mut self, site: &str, told: &SiteSecrets) {
        if told.secrets.is_empty() {
            self.secrets.known.remove(site);
        } else {
            let (revision, secrets) = (told.revision, Arc::new(told.secrets.clone()));
            self.secrets.known.insert(site.to_owned(), Known { revision, secrets });
        }
    }

    /// The site and its previews go on with the secrets that it has now.
    fn give_secrets(&mut self, site: &str) {
        let secrets = Arc::clone(self.secrets_held(site));
        if let Some(runtime) = self.known.get_mut(site).and_then(|known| known.runtime.as_mut()) {
            *runtime = Arc::new(runtime.with_secrets(Arc::clone(&secrets)));
            self.changed = true;
        }
        if let Some(previews) = self.previews.get_mut(site) {
            previews.give_secrets(&secrets);
            self.changed = true;
        }
    }

    /// A site's secrets; where the control plane has none, those that the operator gave this edge.
    fn secrets_held(&self, site: &str) -> &Arc<Secrets> {
        let known = self.secrets.known.get(site).map(|known| &known.secrets);
        known.unwrap_or_else(|| self.effects.builder.secrets())
    }

    /// What was built for a site, with its secrets.
    pub(super) fn with_secrets(&self, site: &str, runtime: Arc<SiteRuntime>) -> Arc<SiteRuntime> {
        let secrets = self.secrets_held(site);
        if Arc::ptr_eq(secrets, &runtime.secrets) {
            return runtime;
        }
        Arc::new(runtime.with_secrets(Arc::clone(secrets)))
    }

    /// The site is no longer served: nothing of its secrets stays here.
    pub(super) fn drop_secrets(&mut self, site: &str) {
        self.refusals.remove(&secrets_of(site));
        self.secrets.later.remove(site);
        if self.secrets.known.remove(site).is_some() {
            let (history, revision) = (self.position.history.clone(), self.position.applied);
            let told = SiteSecrets { revision, secrets: Secrets::default() };
            let record = SecretsRecord { history, site: site.to_owned(), told };
            self.secrets.unsaved.insert(site.to_owned(), record);
            self.give_secrets(site);
        }
    }

    /// After a start from zero: the secrets that were not named are gone.
    pub(super) fn drop_unseen_secrets(&mut self, seen: impl Fn(&str) -> bool) {
        let known = self.secrets.known.keys();
        let gone: Vec<String> = known.filter(|site| !seen(&secrets_of(site))).cloned().collect();
        for site in gone {
            self.drop_secrets(&site);
        }
    }

    /// Nothing that was told counts any more; what is in force stays until it is replaced.
    pub(super) fn forget_secrets_revisions(&mut self) {
        self.secrets.later.clear();
        for known in self.secrets.known.values_mut() {
            known.revision = Revision::ZERO;
        }
    }

    /// Tries again, from time to time, what could not be had.
    pub(super) async fn retry_secrets(&mut self) -> Result<(), ApplyError> {
        if self.secrets.later.is_empty() || self.secrets.retried.elapsed() < RETRY_EVERY {
            return Ok(());
        }
        self.secrets.retried = Instant::now();
        for (site, revision) in self.secrets.later.clone() {
            self.fetch_secrets(revision, &site).await?;
        }
        Ok(())
    }

    /// Reads the secrets that are on disk, before the sites are built that go on with them; says whether
    /// all of them could be read.
    pub(super) fn restore_secrets(&mut self) -> bool {
        let (records, mut whole) = self.effects.secrets.vault.all();
        // Before the first history there is nothing that could be missed.
        whole &=
            self.position.history.is_empty() || self.position.secrets == Some(records.len() as u64);
        for SecretsRecord { history, site, mut told } in records {
            if history != self.position.history {
                (told.revision, whole) = (Revision::ZERO, false);
            }
            self.hold_secrets(&site, &told);
        }
        // Refused before: tried again, even where its line is not told again.
        for refusal in self.refusals.values() {
            let site = verge_config::preview::site_of(&refusal.site);
            if refusal.site == secrets_of(site) {
                self.secrets.later.insert(site.to_owned(), refusal.revision);
            }
        }
        whole
    }
}
