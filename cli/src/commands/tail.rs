//! `verge tail [SITE]`: the site's requests on every connected edge, as they end.

use crate::Ended;
use crate::args::Global;
use crate::client::{Call, Client};
use crate::error::CliError;
use crate::lines::Lines;
use crate::output::Output;
use crate::{requests, site_file};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;
use verge_config::tail::{ALIVE_SECONDS, Statuses, TailLine};

/// A tail that says nothing for so long is dead.
const SILENCE: Duration = Duration::from_secs(3 * ALIVE_SECONDS);
/// The pause before a tail that broke off is opened again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often that is tried in a row.
const ATTEMPTS: u32 = 30;

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// The site; the one of `verge.toml` here when absent.
    site: Option<String>,
    /// Requests of this handler's routes only.
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Requests with this status only, as in 404 or 5xx.
    #[arg(long, value_name = "STATUS")]
    status: Option<Statuses>,
    /// Requests that ended so only, as in responded, trapped, out_of_cpu, timed_out, hit, miss, failed.
    #[arg(long, value_name = "WORD")]
    outcome: Option<String>,
    /// Requests whose path begins so only.
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Requests on this edge only. Repeatable.
    #[arg(long, value_name = "NAME")]
    edge: Vec<String>,
    /// A part of the requests, at random, as in 0.1.
    #[arg(long, value_name = "PART")]
    sample: Option<f64>,
    /// Show queries, too; they may hold secrets of visitors.
    #[arg(long)]
    query: bool,
    /// End after this many requests.
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
}

pub(crate) async fn run(
    args: TailArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    let site = site_of(args.site.as_deref(), Path::new("verge.toml"))?;
    let query = query(&args);
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut failures = 0;
    loop {
        let opened = open(&client, &site, &query).await;
        let ended = match opened {
            Ok(mut lines) => {
                failures = 0;
                follow(&mut lines, &mut left, output).await
            }
            // The first attempt says what is wrong; later ones wait for the control plane.
            Err(error @ CliError::Network { .. }) if (1..ATTEMPTS).contains(&failures) => {
                Err(error)
            }
            Err(error) => return Err(error),
        };
        match ended {
            Ok(()) => return Ok(Ended::Done),
            Err(error) => output.note(&format!(
                "-- the tail broke off ({error}); what passes until it is open again is not shown"
            )),
        }
        failures += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The site that is named, or the one of the site file here.
pub(crate) fn site_of(named: Option<&str>, file: &Path) -> Result<String, CliError> {
    match named {
        Some(site) => Ok(site.to_owned()),
        None if !file.exists() => {
            let file = PathBuf::from(file);
            Err(CliError::Usage(format!("name a site: there is no {} here", file.display())))
        }
        None => Ok(site_file::read(file)?.site),
    }
}

fn query(args: &TailArgs) -> Vec<(&'static str, String)> {
    let texts = [("handler", &args.handler), ("outcome", &args.outcome), ("path", &args.path)];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?)));
    let mut query: Vec<_> = texts.collect();
    query.extend(args.status.map(|status| ("status", status.to_string())));
    query.extend(args.edge.iter().map(|edge| ("edge", edge.clone())));
    query.extend(args.sample.map(|sample| ("sample", sample.to_string())));
    query.extend(args.query.then(|| ("query", "true".to_owned())));
    query
}

async fn open(client: &Client, site: &str, query: &[(&str, String)]) -> Result<Lines, CliError> {
    let path = ["v1", "sites", site, "tail"];
    client.lines(Call::get(&path).query(query), SILENCE).await
}

/// Shows lines until enough were shown or nobody takes them.
async fn follow(lines: &mut Lines, left: &mut u64, output: Output) -> Result<(), CliError> {
    while *left > 0 {
        let line = lines.next().await?;
        // A line that this version cannot read is one of a newer control plane.
        let line = serde_json::from_slice(&line).unwrap_or(TailLine::Unknown);
        *left -= u64::from(matches!(line, TailLine::Request(_)));
        if !requests::show(&line, output) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_site_is_named_or_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("verge.toml");
        assert_eq!(site_of(Some("shop"), &file).unwrap(), "shop");
        assert!(matches!(site_of(None, &file), Err(CliError::Usage(_))));
        let text = "site = 'here'\ndomains = ['a.example']\n[[routes]]\npath = '/*'\nstatic = {}\n";
        std::fs::write(&file, text).unwrap();
        assert_eq!(site_of(None, &file).unwrap(), "here");
    }
}
