//! From a site's document to what serves it: validated, its components loaded, its pools made.
//! Gives everything or every fault; may not put anything in force.

use super::client::ClientError;
use super::session::SessionError;
use crate::handlers::{Gate, Runner, UsageBook};
use crate::origin::{AddressClass, OriginPool, OriginSettings, classify};
use crate::snapshot::{Parts, SiteRuntime};
use ahash::RandomState;
use bytes::Bytes;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use verge_config::process::edge::HandlerHost;
use verge_config::secrets::Secrets;
use verge_config::site::{ComponentRef, Context, Origin, Site, SiteDocument};
use verge_config::{Faults, Revision};
use verge_handlers::{Component, Handler, LoadError, Sandbox};

/// Where components come from.
pub trait Components: Send + Sync {
    /// The component's bytes; by digest, they are checked against it.
    fn read<'a>(
        &'a self,
        reference: &'a ComponentRef,
    ) -> BoxFuture<'a, Result<Bytes, ComponentError>>;

    /// The component, where it was made ready before it was asked for; or why it cannot be.
    fn ready(&self, reference: &ComponentRef) -> Option<Result<Arc<Component>, LoadError>> {
        let _ = reference;
        None
    }
}

/// Why a component's bytes cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// There is none by this reference, and there will be none.
    #[error("{0}")]
    Refused(String),
    /// It cannot be had now; a later attempt may find it.
    #[error("{0}")]
    Missing(String),
    /// The control plane is away.
    #[error(transparent)]
    Away(ClientError),
}

/// Why a site cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The document, or what it names, is wrong: told to its developer.
    #[error("{0}")]
    Refused(Faults),
    /// As it is now it cannot be built; a later attempt may do.
    #[error("{0}")]
    Later(Faults),
    /// The control plane went away while a component was fetched.
    #[error(transparent)]
    Away(ClientError),
}

/// Builds sites; one for the whole edge.
pub struct Builder {
    sandbox: Sandbox,
    origins: Arc<OriginSettings>,
    context: Context,
    secrets: Arc<Secrets>,
    per_site: u32,
    per_site_behind: u32,
    usage: Arc<UsageBook>,
}

/// Components that were made ready before their site's turn, by digest.
#[derive(Debug, Default)]
pub(super) struct Prepared(HashMap<String, Result<Arc<Component>, LoadError>>);

/// Components, some of which are prepared.
pub(super) struct Ready<'a> {
    pub(super) prepared: &'a Prepared,
    pub(super) others: &'a dyn Components,
}

/// What is to be built.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) revision: Revision,
    pub(super) site: String,
    pub(super) version: u64,
    pub(super) document: Arc<SiteDocument>,
}

// === impl Builder ===

impl Builder {
    /// A builder for a fleet's edge or a standalone one.
    #[must_use]
    pub fn new(sandbox: Sandbox, origins: Arc<OriginSettings>, context: Context) -> Builder {
        Builder {
            sandbox,
            origins,
            context,
            secrets: Arc::default(),
            per_site: HandlerHost::default().per_site,
            per_site_behind: behind(&HandlerHost::default()),
            usage: Arc::new(UsageBook::unread()),
        }
    }

    /// The same, and these are the secrets of every site that it builds: for an edge whose sites are
    /// all of one author.
    #[must_use]
    pub fn with_secrets(self, secrets: Arc<Secrets>) -> Builder {
        Builder { secrets, ..self }
    }

    /// As it is, with as many requests of one site's handlers at once as this says, and what they use in
    /// this book.
    #[must_use]
    pub fn with_handlers(self, host: &HandlerHost, usage: Arc<UsageBook>) -> Builder {
        Builder { per_site: host.per_site, per_site_behind: behind(host), usage, ..self }
    }

    /// The secrets of every site that has none of its own.
    pub(super) fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
    }

    /// Where it counts what handlers use.
    pub(super) fn usage(&self) -> &Arc<UsageBook> {
        &self.usage
    }

    /// Makes the components of these documents ready. One that cannot be had is left out: it is asked for
    /// again when its site is built.
    pub(super) async fn prepare(
        &self,
        documents: &[Arc<SiteDocument>],
        components: &dyn Components,
    ) -> Prepared {
        let mut prepared = HashMap::new();
        for digest in documents.iter().flat_map(|document| components_of(document)) {
            if prepared.contains_key(digest) {
                continue;
            }
            if let Ok(bytes) = components.read(&ComponentRef::Digest(digest.to_owned())).await {
                prepared.insert(digest.to_owned(), self.sandbox.load(bytes).await);
            }
        }
        Prepared(prepared)
    }

    /// The runtime of a document. Pools of origins that are as they were are taken over from
    /// `previous`, with their connections.
    pub(super) async fn build(
        &self,
        wanted: &Wanted,
        components: &dyn Components,
        previous: Option<&Arc<SiteRuntime>>,
    ) -> Result<Arc<SiteRuntime>, BuildError> {
        let site = Site::from_document(&wanted.document, self.context);
        let site = site.map_err(BuildError::Refused)?;
        self.check_origins(&site).map_err(BuildError::Refused)?;
        let handlers = self.handlers(&site, wanted.version, components, previous).await?;
        let origins = site
            .origins
            .iter()
            .map(|(name, origin)| (name.clone(), self.pool(origin, previous)))
            .collect();
        let runtime = SiteRuntime::new(Parts {
            version: wanted.version,
            revision: wanted.revision,
            digest: digest(&wanted.document).into(),
            gate: self.gate(&site, previous),
            site: Arc::new(site),
            origins,
            handlers,
            secrets: Arc::clone(&self.secrets),
        });
        Ok(Arc::new(runtime.after(previous.map(Arc::as_ref))))
    }

    /// Addresses written in the document are judged now, so that its developer hears of it; those of
    /// names are judged at each connection, where they cannot change any more.
    fn check_origins(&self, site: &Site) -> Result<(), Faults> {
        let mut faults = Faults::default();
        for (name, origin) in &site.origins {
            for (index, url) in origin.urls.iter().enumerate() {
                let place = format!("origins.{name}.urls[{index}]");
                match url.address().map(|address| classify(address.ip())) {
                    Some(AddressClass::Never(why)) => {
                        faults.add(place, format!("{} is {why}; no origin can be there", url.host));
                    }
                    Some(AddressClass::Private(why)) if !self.origins.allow_private => {
                        let hint = "this edge's operator does not allow private origins \
                                    (allow_private_origins)";
                        faults.add(place, format!("{} is {why}; {hint}", url.host));
                    }
                    _ => {}
                }
            }
        }
        faults.or(())
    }

    async fn handlers(
        &self,
        site: &Site,
        version: u64,
        components: &dyn Components,
        previous: Option<&Arc<SiteRuntime>>,
    ) -> Result<HashMap<String, Arc<Runner>, RandomState>, BuildError> {
        let mut handlers = HashMap::default();
        let (mut faults, mut later) = (Faults::default(), false);
        for (name, spec) in &site.handlers {
            let place = format!("handlers.{name}.component");
            let loaded = match components.ready(&spec.component) {
                Some(loaded) => loaded,
                None => match components.read(&spec.component).await {
                    Ok(bytes) => self.sandbox.load(bytes).await,
                    Err(ComponentError::Away(error)) => return Err(BuildError::Away(error)),
                    Err(error) => {
                        later |= matches!(error, ComponentError::Missing(_));
                        faults.add(place, error.to_string());
                        continue;
                    }
                },
            };
            match loaded {
                Ok(component) => {
                    let handler = Handler::new(component, Arc::clone(&site.name), Arc::clone(spec));
                    let usage = self.usage.counters(&site.name, &spec.name, version);
                    let previous = previous.and_then(|previous| previous.handler(name));
                    let runner = Runner::new(handler, spec, usage, previous);
                    handlers.insert(name.clone(), Arc::new(runner));
                }
                Err(error) => faults.add(place, error.to_string()),
            }
        }
        match faults.or(handlers) {
            Err(faults) if later => Err(BuildError::Later(faults)),
            result => result.map_err(BuildError::Refused),
        }
    }

    /// The gate of a site: the one before where it is as wide, with all who are in it.
    fn gate(&self, site: &Site, previous: Option<&Arc<SiteRuntime>>) -> Arc<Gate> {
        let most = site.handler_concurrency.map_or(self.per_site, |own| own.min(self.per_site));
        previous
            .map(|previous| &previous.gate)
            .filter(|gate| gate.most() == most)
            .map_or_else(|| Arc::new(Gate::new(most, self.per_site_behind)), Arc::clone)
    }

    fn pool(&self, origin: &Arc<Origin>, previous: Option<&Arc<SiteRuntime>>) -> Arc<OriginPool> {
        previous
            .and_then(|previous| previous.origin(&origin.name))
            .filter(|pool| pool.origin() == origin)
            .map_or_else(
                || Arc::new(OriginPool::new(Arc::clone(origin), Arc::clone(&self.origins))),
                Arc::clone,
            )
    }
}

impl Components for Ready<'_> {
    fn read<'a>(
        &'a self,
        reference: &'a ComponentRef,
    ) -> BoxFuture<'a, Result<Bytes, ComponentError>> {
        self.others.read(reference)
    }

    fn ready(&self, reference: &ComponentRef) -> Option<Result<Arc<Component>, LoadError>> {
        match reference {
            ComponentRef::Digest(digest) => self.prepared.0.get(digest).cloned(),
            ComponentRef::Path(_) => None,
        }
    }
}

/// How many handlers of one site run behind others at once: half of what the edge has, so that no site
/// takes them all by what each of its requests may start.
fn behind(host: &HandlerHost) -> u32 {
    host.instances / 2
}

impl From<SessionError> for ComponentError {
    fn from(error: SessionError) -> ComponentError {
        match error {
            SessionError::Client(error) if error.is_away() || error.is_unauthorised() => {
                ComponentError::Away(error)
            }
            error => ComponentError::Missing(error.to_string()),
        }
    }
}

/// SHA-256 of a document, in hexadecimal.
pub(super) fn digest(document: &SiteDocument) -> String {
    hex::encode(Sha256::digest(document.to_json()))
}

/// The digests of the components that a document names.
pub(super) fn components_of(document: &SiteDocument) -> impl Iterator<Item = &str> {
    document.handlers.values().filter_map(|handler| handler.component.strip_prefix("sha256:"))
}
