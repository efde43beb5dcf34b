//! `verge deploy`: checks everything here first, builds, uploads what the control plane does not
//! have, uploads the version and activates it.

use crate::args::Global;
use crate::client::{Call, Client, new_key};
use crate::commands::{activate, edges, preview};
use crate::error::CliError;
use crate::output::{Output, clean};
use crate::site_file::{self, Component, SiteFile};
use crate::{Ended, build};
use clap::Args;
use futures::stream;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use verge_config::Revision;
use verge_config::api::{EdgeInfo, PreviewCreated, VersionInfo};
use verge_config::preview::DEFAULT_TTL;
use verge_config::units::parse_duration;

/// The pieces in which a component is sent.
const PIECE: usize = 64 * 1024;
/// How often edges are looked at while one waits for them.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// The site file.
    #[arg(long, default_value = "verge.toml", value_name = "FILE")]
    site: PathBuf,
    /// Upload only; `verge activate` makes it active.
    #[arg(long)]
    no_activate: bool,
    /// Upload only, and make a preview of the version that lasts a day.
    #[arg(long, conflicts_with_all = ["no_activate", "wait"])]
    preview: bool,
    /// Take the components as they are.
    #[arg(long)]
    no_build: bool,
    /// Wait until every connected edge serves it.
    #[arg(long, conflicts_with = "no_activate")]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_parser = parse_duration, default_value = "30s", value_name = "DURATION")]
    timeout: Duration,
}

/// What was deployed.
#[derive(Debug, Serialize)]
pub(crate) struct Deployed {
    pub(crate) site: String,
    pub(crate) version: u64,
    /// Whether it is active now.
    pub(crate) active: bool,
    /// The revision of the activation.
    pub(crate) revision: Option<Revision>,
    /// The version that was active before.
    pub(crate) previous: Option<u64>,
    /// The digests that the control plane did not have.
    pub(crate) uploaded: Vec<String>,
    /// Edges that serve it, when they were waited for.
    pub(crate) edges: Option<Reached>,
    /// Where the version can be seen, when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) preview: Option<PreviewCreated>,
}

/// How far an activation has come.
#[derive(Debug, Serialize)]
pub(crate) struct Reached {
    applied: usize,
    pending: Vec<String>,
    offline: Vec<String>,
    refused: Vec<String>,
}

pub(crate) async fn run(
    args: DeployArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    let document = site_file::read(&args.site)?;
    if !args.no_build {
        build::build_all(site_file::folder(&args.site), &document, output).await?;
    }
    let file = site_file::load(&args.site, document)?;
    let mut deployed = upload(&client, &file, output).await?;
    if args.preview {
        let (site, version) = (&deployed.site, deployed.version);
        deployed.preview = Some(preview::create(&client, site, version, DEFAULT_TTL).await?);
    } else if !args.no_activate {
        let activated = activate::activate(&client, &deployed.site, deployed.version).await?;
        deployed.active = true;
        deployed.revision = Some(activated.revision);
        deployed.previous = activated.previous;
    }
    if let (true, Some(revision)) = (args.wait, deployed.revision) {
        deployed.edges = Some(reached(&client, &deployed.site, revision, args.timeout).await?);
    }
    output.result(&deployed, shown);
    match &deployed.edges {
        Some(reached) if !reached.pending.is_empty() || !reached.refused.is_empty() => {
            Ok(Ended::Incomplete)
        }
        _ => Ok(Ended::Done),
    }
}

/// Uploads a site's missing components and its document; activates nothing.
pub(crate) async fn upload(
    client: &Client,
    file: &SiteFile,
    output: Output,
) -> Result<Deployed, CliError> {
    let mut uploaded = Vec::new();
    for (digest, component) in &file.components {
        if !client.exists(&["v1", "blobs", digest]).await? {
            upload_component(client, digest, component, output).await?;
            uploaded.push(digest.clone());
        }
    }
    let key = new_key();
    let path = ["v1", "sites", &file.document.site, "versions"];
    let call = Call::post(&path).idempotency_key(&key);
    let info: VersionInfo = client.json(call, Some(&file.document)).await?.1;
    Ok(Deployed {
        site: info.site,
        version: info.version,
        active: info.active,
        revision: None,
        previous: None,
        uploaded,
        edges: None,
        preview: None,
    })
}

async fn upload_component(
    client: &Client,
    digest: &str,
    component: &Component,
    output: Output,
) -> Result<(), CliError> {
    let length = component.bytes.len() as u64;
    let name = component.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bar =
        if output.shows_progress() { ProgressBar::new(length) } else { ProgressBar::hidden() };
    let template = "uploading {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(clean(&name));
    let moving = bar.clone();
    let rest = component.bytes.clone();
    let pieces = stream::unfold(rest, move |mut rest| {
        let moving = moving.clone();
        async move {
            if rest.is_empty() {
                return None;
            }
            let piece = rest.split_to(PIECE.min(rest.len()));
            moving.inc(piece.len() as u64);
            Some((Ok::<_, std::io::Error>(piece), rest))
        }
    });
    let path = ["v1", "blobs", digest];
    let sent = client.upload(&path, length, reqwest::Body::wrap_stream(pieces)).await;
    bar.finish_and_clear();
    sent?;
    output.note(&format!("uploaded {name} ({})", HumanBytes(length)));
    Ok(())
}

/// Waits until every connected edge has applied `revision`, or the time is over.
async fn reached(
    client: &Client,
    site: &str,
    revision: Revision,
    timeout: Duration,
) -> Result<Reached, CliError> {
    let started = Instant::now();
    loop {
        let reached = look(&edges::all(client).await?, site, revision);
        if reached.pending.is_empty() || started.elapsed() >= timeout {
            return Ok(reached);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn look(edges: &[EdgeInfo], site: &str, revision: Revision) -> Reached {
    let mut reached =
        Reached { applied: 0, pending: Vec::new(), offline: Vec::new(), refused: Vec::new() };
    for edge in edges {
        let refusal = edge
            .refusals
            .iter()
            .find(|refusal| refusal.site == site && refusal.revision == revision);
        match refusal {
            Some(refusal) => reached.refused.push(format!("{}: {}", edge.name, refusal.reason)),
            None if edge.applied >= revision => reached.applied += 1,
            None if edge.connected => reached.pending.push(edge.name.clone()),
            None => reached.offline.push(edge.name.clone()),
        }
    }
    reached
}

fn shown(deployed: &Deployed) -> String {
    let Deployed { site, version, .. } = deployed;
    let mut text = match (deployed.revision, deployed.previous) {
        (Some(revision), previous) => {
            let before = match previous {
                Some(previous) if previous != *version => format!(" (before: version {previous})"),
                Some(_) => " (as before)".to_owned(),
                None => String::new(),
            };
            format!("{site}: version {version} is active under revision {revision}{before}")
        }
        (None, _) if deployed.active => format!("{site}: version {version} is active already"),
        (None, _) => format!(
            "{site}: version {version} is uploaded; activate it with \
             `verge activate {site} {version}`"
        ),
    };
    if let Some(preview) = &deployed.preview {
        text.push('\n');
        text.push_str(&preview::shown(preview));
    }
    if let Some(reached) = &deployed.edges {
        text.push_str(&match reached.applied {
            1 => "\n1 edge serves it".to_owned(),
            applied => format!("\n{applied} edges serve it"),
        });
        for (state, names) in [("pending", &reached.pending), ("offline", &reached.offline)] {
            if !names.is_empty() {
                text.push_str(&format!("; {state}: {}", names.join(", ")));
            }
        }
        for refusal in &reached.refused {
            text.push_str(&format!("\nrefused by {refusal}"));
        }
    }
    clean(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use verge_config::feed::Refusal;

    fn edge(name: &str, connected: bool, applied: u64, refuses: bool) -> EdgeInfo {
        let refusal =
            Refusal { revision: Revision(7), site: "shop".into(), reason: "no such import".into() };
        EdgeInfo {
            id: name.into(),
            name: name.into(),
            version: String::new(),
            connected,
            applied: Revision(applied),
            lag: 0,
            last_seen_ms: None,
            refusals: if refuses { vec![refusal] } else { Vec::new() },
        }
    }

    #[test]
    fn every_edge_is_in_one_state() {
        let edges = [
            edge("a", true, 7, false),
            edge("b", true, 6, false),
            edge("c", false, 6, false),
            edge("d", true, 7, true),
            edge("e", false, 9, false),
        ];
        let reached = look(&edges, "shop", Revision(7));
        assert_eq!(reached.applied, 2);
        assert_eq!(reached.pending, ["b"]);
        assert_eq!(reached.offline, ["c"]);
        assert_eq!(reached.refused, ["d: no such import"]);
        assert_eq!(look(&edges, "other", Revision(7)).refused.len(), 0);
    }
}
