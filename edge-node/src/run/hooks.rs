//! What the admin listener and the control plane may ask of the edge that runs, and what they are
//! answered.

use crate::admin::{AdminHooks, PurgeDone, PurgeRefused, Readiness};
use crate::control_link::{LinkStatus, LocalPurges, PurgeLog, Witness};
use crate::serve::{Edge, Wondered};
use crate::telemetry;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;
use verge_config::feed::{Asked, MAX_SAMPLE_BYTES, MAX_SAMPLES, Told};
use verge_config::purge::{Purge, PurgeRequest};

/// What may be asked of this edge.
pub(super) struct Hooks {
    pub(super) edge: Arc<Edge>,
    pub(super) status: Arc<LinkStatus>,
    pub(super) purges: Option<Arc<LocalPurges>>,
    pub(super) log: Arc<PurgeLog>,
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

    fn explain(&self, url: &str, fields: &[(String, String)]) -> Result<Value, String> {
        self.explained(url, fields, None)
    }

    fn purge(&self, request: PurgeRequest) -> BoxFuture<'_, Result<PurgeDone, PurgeRefused>> {
        Box::pin(async move {
            let control_plane = self.control.clone();
            let purges = self.purges.clone().ok_or(PurgeRefused::Fleet { control_plane })?;
            let site = request.site.clone().unwrap_or_default();
            let edge = Arc::clone(&self.edge);
            // A scan of a large cache may take a while; it must not hold up a thread of the data path.
            let done = tokio::task::spawn_blocking(move || {
                if request.dry_run {
                    let planned = purges.planned(&request)?;
                    let (matched, samples) = preview(&edge, &planned);
                    return Ok((planned, matched, samples));
                }
                let done = purges.purge(&request)?;
                let metrics = telemetry::metrics();
                metrics.purges.inc();
                metrics.purged_objects.inc_by(done.matched);
                Ok::<_, verge_config::Faults>((done.purge, done.matched, Vec::new()))
            });
            match done.await {
                Ok(Ok((Purge { site, revision, .. }, matched, samples))) => {
                    Ok(PurgeDone { site, revision, matched, samples })
                }
                Ok(Err(_)) if site.is_empty() => Err(PurgeRefused::NotReady),
                Ok(Err(_)) => Err(PurgeRefused::UnknownSite(site)),
                Err(_) => Err(PurgeRefused::NotReady),
            }
        })
    }
}

impl Witness for Hooks {
    fn answer(&self, asked: Asked) -> Told {
        match asked {
            Asked::Preview { site, selectors, mode } => {
                if self.edge.snapshot.load().site(&site).is_none() {
                    // What is not served here has nothing stored that a visitor could get.
                    return Told::Preview { matched: 0, samples: Vec::new() };
                }
                let revision = self.status.applied();
                let planned = Purge { revision, site, selectors, mode };
                let (matched, samples) = preview(&self.edge, &planned);
                Told::Preview { matched, samples }
            }
            Asked::Explain { site, url, fields } => {
                match self.explained(&url, &fields, Some(&site)) {
                    Ok(explanation) => Told::Explained { explanation },
                    Err(reason) => Told::Refused { reason },
                }
            }
            Asked::Tail(tail) => {
                if self.edge.tails.open(tail, Instant::now()) {
                    Told::Tailing
                } else {
                    Told::Refused { reason: "this edge has as many tails as it may".to_owned() }
                }
            }
            Asked::Unknown => Told::Refused {
                reason: "this edge's version does not know the question".to_owned(),
            },
        }
    }
}

impl Hooks {
    /// What the edge does with a GET, with the last purge that touched it.
    fn explained(
        &self,
        url: &str,
        fields: &[(String, String)],
        site: Option<&str>,
    ) -> Result<Value, String> {
        let headers = header_map(fields)?;
        let wondered = Wondered { url, headers: &headers, site };
        let mut explained = self.edge.explain(&wondered).map_err(|error| error.to_string())?;
        if let Some((key, tags)) = &explained.stored_as
            && let Some(Value::Object(cache)) = explained.value.get_mut("cache")
        {
            let last = self.log.last(key.site(), key, tags);
            let last = serde_json::to_value(last).unwrap_or_default();
            cache.insert("last_purge".to_owned(), last);
        }
        Ok(explained.value)
    }
}

/// How many live objects a purge would be for, and the URLs of some.
fn preview(edge: &Edge, purge: &Purge) -> (u64, Vec<String>) {
    let preview = edge.cache.preview(purge, MAX_SAMPLES);
    let mut samples = preview.samples;
    for sample in &mut samples {
        if sample.len() > MAX_SAMPLE_BYTES {
            let end = (0..=MAX_SAMPLE_BYTES - 3).rev().find(|at| sample.is_char_boundary(*at));
            sample.truncate(end.unwrap_or(0));
            sample.push_str("...");
        }
    }
    samples.sort_unstable();
    (preview.matched, samples)
}

fn header_map(fields: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let wrong = |_: &dyn std::error::Error| format!("{name:?} is no field with that value");
        let field = HeaderName::try_from(name.as_str()).map_err(|error| wrong(&error))?;
        let value = HeaderValue::try_from(value.as_str()).map_err(|error| wrong(&error))?;
        headers.append(field, value);
    }
    Ok(headers)
}
