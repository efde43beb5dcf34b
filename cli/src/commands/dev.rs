//! `verge dev`: the site on this machine, on the real edge with the real cache and the real limits: a
//! control plane and an edge in this process, a build and a new version on every save.

mod local;
mod requests;
mod watch;

use crate::client::Client;
use crate::commands::{activate, deploy, edges};
use crate::error::CliError;
use crate::output::Output;
use crate::site_file::{self, SiteFile};
use crate::{Ended, build};
use clap::Args;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use verge_config::Revision;
use verge_config::site::SiteDocument;

/// How long the edge may take to bring a version into force, its compilation included.
const IN_FORCE: Duration = Duration::from_secs(120);
/// How often the edge is asked how far it is.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// The site file.
    #[arg(long, default_value = "verge.toml", value_name = "FILE")]
    pub(crate) site: PathBuf,
    /// Where to serve it.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// The edge's admin listener, on loopback, which `verge explain` asks.
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDR")]
    pub(crate) admin: SocketAddr,
    /// Take the components as they are.
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Once bound, write the addresses here: lines `http=` and `admin=`.
    #[arg(long, value_name = "FILE")]
    pub(crate) port_file: Option<PathBuf>,
}

/// How the last save ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InForce {
    version: u64,
    revision: Revision,
}

/// A save that is in force.
struct Saved {
    now: InForce,
    /// What the project's own build took.
    built: Duration,
}

pub(crate) async fn run(args: DevArgs, output: Output) -> Result<Ended, CliError> {
    // A file that is not there is no fault that a save could mend.
    std::fs::metadata(&args.site).map_err(|error| CliError::file(&args.site, error))?;
    requests::start_logs()?;
    let mut local = local::Local::start(&args, requests::shown(output)).await?;
    let client = local.client()?;
    for address in &local.addresses.http {
        output.note(&format!("serving {} on http://{address}", args.site.display()));
    }
    if let Some(admin) = local.addresses.admin {
        output.note(&format!("explain: verge explain --admin http://{admin} URL"));
    }
    let ended = tokio::select! {
        ended = local.edge_ended() => ended,
        failed = follow(&args, &client, output) => failed,
        stopped = stop() => stopped,
    };
    local.stop().await;
    ended.map(|()| Ended::Done)
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop() -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::Dev(format!("no signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Brings every saved state into force, for ever. A faulty one is told of, and the last good one
/// stays.
async fn follow(args: &DevArgs, client: &Client, output: Output) -> Result<(), CliError> {
    let mut sources = watch::Sources::new(&args.site, args.no_build)?;
    let mut before = None;
    loop {
        sources.remember();
        let started = Instant::now();
        match save(args, client, output).await {
            Ok(saved) if Some(saved.now) == before => {}
            Ok(Saved { now, built }) => {
                before = Some(now);
                let (took, build) = (started.elapsed().as_millis(), built.as_millis());
                let (site, version) = (args.site.display().to_string(), now.version);
                let event =
                    json!({ "site": site, "version": version, "took_ms": took, "build_ms": build });
                let text = format!(
                    "version {version} is in force ({} ms after a build of {build} ms)",
                    took - build
                );
                output.event(&event, &text);
            }
            Err(error) => output.failure(&error),
        }
        sources.changed().await;
    }
}

/// Builds, uploads and activates what is there now, and waits until the edge serves it.
async fn save(args: &DevArgs, client: &Client, output: Output) -> Result<Saved, CliError> {
    let document = site_file::read(&args.site)?;
    let started = Instant::now();
    if !args.no_build {
        build::build_all(site_file::folder(&args.site), &document, output).await?;
    }
    let built = started.elapsed();
    let file = site_file::load(&args.site, here(document, args.listen.ip()))?;
    let uploaded = deploy::upload(client, &file, output).await?;
    let activated = activate::activate(client, &uploaded.site, uploaded.version).await?;
    let now = InForce { version: activated.version, revision: activated.revision };
    in_force(client, &file, &args.site, now).await?;
    Ok(Saved { now, built })
}

async fn in_force(
    client: &Client,
    file: &SiteFile,
    path: &Path,
    now: InForce,
) -> Result<(), CliError> {
    let started = Instant::now();
    while started.elapsed() < IN_FORCE {
        for edge in edges::all(client).await? {
            let refusal = edge.refusals.iter().find(|refusal| {
                refusal.site == file.document.site && refusal.revision == now.revision
            });
            if let Some(refusal) = refusal {
                let faults = verge_config::Faults::one("", refusal.reason.clone());
                return Err(CliError::Faults { what: path.display().to_string(), faults });
            }
            if edge.applied >= now.revision {
                return Ok(());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    let seconds = IN_FORCE.as_secs();
    Err(CliError::Dev(format!("version {} is not in force after {seconds} s", now.version)))
}

/// The document for this machine: it answers the names by which a browser here reaches it, too.
fn here(mut document: SiteDocument, listen: IpAddr) -> SiteDocument {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
    match listen {
        IpAddr::V4(address) => names.push(address.to_string()),
        IpAddr::V6(address) => names.push(format!("[{address}]")),
    }
    // `*` is for edges that serve one file; here it stands for the names of this machine.
    document.domains.retain(|domain| domain != "*");
    for name in names {
        let there = |domain: &String| domain.trim_end_matches('.').eq_ignore_ascii_case(&name);
        if !document.domains.iter().any(there) {
            document.domains.push(name);
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use verge_config::Site;
    use verge_config::site::Context;

    #[test]
    fn a_site_answers_this_machine_too() {
        let text = "site = 'shop'\ndomains = ['*', 'LocalHost.']\n\
                    [[routes]]\npath = '/*'\nstatic = {}\n";
        let document = SiteDocument::from_toml(text).unwrap();
        let local = here(document, "10.0.0.7".parse().unwrap());
        assert_eq!(local.domains, ["LocalHost.", "127.0.0.1", "[::1]", "10.0.0.7"]);
        assert!(Site::from_document(&local, Context::Fleet).is_ok());
    }
}
