//! What the admin listener may ask of the edge that runs, and what it is answered.

use crate::admin::{AdminHooks, PurgeDone, PurgeRefused, Readiness};
use crate::control_link::{LinkStatus, LocalPurges};
use crate::serve::Edge;
use crate::telemetry;
use futures::future::BoxFuture;
use serde_json::Value;
use std::sync::Arc;
use verge_config::PurgeRequest;

/// What the admin listener may ask of this edge.
pub(super) struct Hooks {
    pub(super) edge: Arc<Edge>,
    pub(super) status: Arc<LinkStatus>,
    pub(super) purges: Option<Arc<LocalPurges>>,
    pub(super) control: String,
}

impl AdminHooks for Hooks {
    fn edge_name(&self) -> String {
        self.edge.id.to_string()
    }

    fn readiness(&self) -> Readiness {
        if self.status.is_ready() {
            Readiness::Ready { revision: self.edge.snapshot.load().revision }
        } else {
            Readiness::NotReady("no configuration is in force yet")
        }
    }

    fn explain(&self, url: &str) -> Result<Value, String> {
        self.edge.explain(url).map_err(|error| error.to_string())
    }

    fn purge(&self, request: PurgeRequest) -> BoxFuture<'_, Result<PurgeDone, PurgeRefused>> {
        Box::pin(async move {
            let control_plane = self.control.clone();
            let purges = self.purges.clone().ok_or(PurgeRefused::Fleet { control_plane })?;
            let site = request.site.clone().unwrap_or_default();
            // A scan of a large cache may take a while; it must not hold up a thread of the data path.
            let applied = tokio::task::spawn_blocking(move || purges.purge(&request)).await;
            match applied {
                Ok(Ok(done)) => {
                    let metrics = telemetry::metrics();
                    metrics.purges.inc();
                    metrics.purged_objects.inc_by(done.matched);
                    Ok(PurgeDone {
                        site: done.purge.site,
                        revision: done.purge.revision,
                        matched: done.matched,
                    })
                }
                Ok(Err(_)) if site.is_empty() => Err(PurgeRefused::NotReady),
                Ok(Err(_)) => Err(PurgeRefused::UnknownSite(site)),
                Err(_) => Err(PurgeRefused::NotReady),
            }
        })
    }
}
