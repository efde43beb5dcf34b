//! `verge purge`: purges and shows the receipt, each edge with its latency.

use crate::Ended;
use crate::args::Global;
use crate::client::{CALL, Call, Client, new_key};
use crate::error::CliError;
use crate::output::{Output, clean, table};
use crate::site_file;
use clap::{Args, ValueEnum};
use reqwest::StatusCode;
use std::path::Path;
use std::time::Duration;
use verge_config::api::{EdgePurgeState, Receipt};
use verge_config::units::{parse_duration, write_duration};
use verge_config::{Mode, PurgeRequest, Selector};

/// Where the site's name is found when it is not given.
const SITE_FILE: &str = "verge.toml";
/// How long to wait when it is not said.
const USUAL_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("selectors").required(true).multiple(true)
    .args(["url", "tag", "prefix", "host", "everything"]))]
pub(crate) struct PurgeArgs {
    /// The site; the one of ./verge.toml when absent.
    #[arg(long)]
    site: Option<String>,
    /// A URL with its query, in all its variants; or a path on all hosts of the site. Repeatable.
    #[arg(long)]
    url: Vec<String>,
    /// A tag. Repeatable.
    #[arg(long)]
    tag: Vec<String>,
    /// The beginning of URLs, or of paths on all hosts of the site. Repeatable.
    #[arg(long)]
    prefix: Vec<String>,
    /// A host. Repeatable.
    #[arg(long)]
    host: Vec<String>,
    /// All of the site.
    #[arg(long)]
    everything: bool,
    /// Make it stale, not dead: it may still be served where stale responses may.
    #[arg(long)]
    soft: bool,
    /// Purge nothing: show how many objects it would be for on each edge, with some of their URLs.
    #[arg(long)]
    dry_run: bool,
    /// Wait until every edge (or more than half of them) has applied it, or answered a dry run.
    #[arg(
        long, value_enum, value_name = "WHOM", num_args = 0..=1, require_equals = true,
        default_missing_value = "all"
    )]
    wait: Option<Wait>,
    /// How long to wait; 10s when absent, and 2s for a dry run without --wait.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// Purge a standalone edge through its admin listener instead, as http://127.0.0.1:9090.
    #[arg(long, value_name = "URL", conflicts_with = "wait")]
    admin: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// Every edge that there was.
    All,
    /// More than half of them.
    Quorum,
}

pub(crate) async fn run(
    args: PurgeArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let request = request(&args)?;
    let (status, receipt) = match &args.admin {
        Some(admin) => {
            let client = Client::admin(admin)?;
            client.json::<Receipt>(Call::post(&["purges"]), Some(&request)).await?
        }
        None => send(&args, &request, &Client::control(global)?).await?,
    };
    output.result(&receipt, if receipt.dry_run { shown_dry } else { shown });
    // 202: committed, and not yet applied by all that were waited for.
    let incomplete = match args.wait {
        None => false,
        Some(Wait::All) if receipt.dry_run => !receipt.complete,
        Some(Wait::Quorum) if receipt.dry_run => receipt.applied <= receipt.edges.len() as u64 / 2,
        Some(_) => status == StatusCode::ACCEPTED,
    };
    Ok(if incomplete { Ended::Incomplete } else { Ended::Done })
}

async fn send(
    args: &PurgeArgs,
    request: &PurgeRequest,
    client: &Client,
) -> Result<(StatusCode, Receipt), CliError> {
    let key = new_key();
    let mut query = Vec::new();
    let mut limit = CALL;
    if let Some(wait) = args.wait {
        let wait = if wait == Wait::All { "all" } else { "quorum" };
        query.push(("wait", wait.to_owned()));
    }
    if args.wait.is_some() || (args.dry_run && args.timeout.is_some()) {
        let timeout = args.timeout.unwrap_or(USUAL_WAIT);
        query.push(("timeout", write_duration(timeout)));
        limit += timeout;
    }
    let call = Call::post(&["v1", "purges"]).query(&query).timeout(limit).idempotency_key(&key);
    client.json(call, Some(request)).await
}

fn request(args: &PurgeArgs) -> Result<PurgeRequest, CliError> {
    let all = |values: &[String], make: fn(String) -> Selector| -> Vec<Selector> {
        values.iter().cloned().map(make).collect()
    };
    let mut selectors = all(&args.url, Selector::Url);
    selectors.extend(all(&args.tag, Selector::Tag));
    selectors.extend(all(&args.prefix, Selector::Prefix));
    selectors.extend(all(&args.host, Selector::Host));
    if args.everything {
        selectors.push(Selector::Everything(true));
    }
    let site = match &args.site {
        Some(site) => Some(site.clone()),
        // A standalone edge has one site, which is meant.
        None if args.admin.is_some() => None,
        None => Some(site_here(Path::new(SITE_FILE))?),
    };
    let mode = if args.soft { Mode::Soft } else { Mode::Hard };
    let request = PurgeRequest { site, selectors, mode, dry_run: args.dry_run };
    let what = "the purge".to_owned();
    request.validate().map_err(|faults| CliError::Faults { what, faults })?;
    Ok(request)
}

fn site_here(path: &Path) -> Result<String, CliError> {
    if !path.exists() {
        let message = format!("say which site: --site NAME; there is no {} here", path.display());
        return Err(CliError::Usage(message));
    }
    Ok(site_file::read(path)?.site)
}

fn shown(receipt: &Receipt) -> String {
    let milliseconds =
        |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let edges = table(
        ["EDGE", "STATE", "LATENCY", "MATCHED"],
        receipt.edges.iter().map(|edge| {
            let state = match edge.state {
                EdgePurgeState::Applied => "applied",
                EdgePurgeState::Counted => "counted",
                EdgePurgeState::Pending => "pending",
                EdgePurgeState::Offline => "offline",
            };
            [
                edge.edge.clone(),
                state.to_owned(),
                milliseconds(edge.latency_ms),
                edge.matched.map_or_else(|| "-".to_owned(), |matched| matched.to_string()),
            ]
        }),
    );
    let Receipt { id, site, revision, applied, pending, offline, matched, .. } = receipt;
    let state = if receipt.complete { "complete" } else { "not complete" };
    let mode = if receipt.mode == Mode::Soft { "soft purge" } else { "purge" };
    let mut text = clean(&format!("{mode} {id} of {site}, revision {revision}: {state}\n"));
    text.push_str(&edges);
    text.push_str(&format!(
        "\n{applied} applied, {pending} pending, {offline} offline; {matched} objects matched"
    ));
    if receipt.p50_ms.is_some() {
        let (p50, p99) = (milliseconds(receipt.p50_ms), milliseconds(receipt.p99_ms));
        text.push_str(&format!("; p50 {p50}, p99 {p99}"));
    }
    for note in &receipt.notes {
        text.push_str(&clean(&format!("\nnote: {note}")));
    }
    text
}

/// What a dry run found: each edge with its count, and a line for each sample.
fn shown_dry(receipt: &Receipt) -> String {
    let mut rows = Vec::new();
    for edge in &receipt.edges {
        let state = match edge.state {
            EdgePurgeState::Counted | EdgePurgeState::Applied => "counted",
            EdgePurgeState::Pending => "no answer",
            EdgePurgeState::Offline => "offline",
        };
        let matched = edge.matched.map_or_else(|| "-".to_owned(), |matched| matched.to_string());
        let mut samples = edge.samples.iter().cloned();
        let first = samples.next().unwrap_or_default();
        rows.push([edge.edge.clone(), state.to_owned(), matched, first]);
        rows.extend(samples.map(|sample| [String::new(), String::new(), String::new(), sample]));
    }
    let Receipt { site, revision, matched, .. } = receipt;
    let mode = if receipt.mode == Mode::Soft { "a soft purge" } else { "a purge" };
    let head = format!("dry run of {mode} of {site} at revision {revision}: nothing is purged\n");
    let mut text = clean(&head);
    text.push_str(&table(["EDGE", "STATE", "MATCHED", "SAMPLES"], rows));
    text.push_str(&format!("\n{matched} objects matched on {} edges", receipt.applied));
    for note in &receipt.notes {
        text.push_str(&clean(&format!("\nnote: {note}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn parse(arguments: &[&str]) -> Result<PurgeArgs, clap::Error> {
        let all = ["verge", "purge"].iter().chain(arguments);
        match Cli::try_parse_from(all)?.command {
            Command::Purge(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn selectors_and_the_mode() {
        let args = parse(&["--site", "shop", "--tag", "a", "--tag", "b", "--url", "/x", "--soft"])
            .unwrap();
        let request = request(&args).unwrap();
        assert_eq!(request.mode, Mode::Soft);
        assert_eq!(
            request.selectors,
            [Selector::Url("/x".into()), Selector::Tag("a".into()), Selector::Tag("b".into())]
        );
    }

    #[test]
    fn a_purge_of_nothing_is_a_usage_fault() {
        assert!(parse(&["--site", "shop"]).is_err());
    }

    #[test]
    fn faults_are_told_before_anything_is_sent() {
        let args = parse(&["--site", "shop", "--tag", "a b", "--url", "ftp://x"]).unwrap();
        let error = request(&args).unwrap_err();
        assert_eq!(error.faults().len(), 2);
        assert_eq!(error.exit_code(), 5);
    }

    #[test]
    fn whom_to_wait_for() {
        let base = ["--site", "shop", "--everything"];
        let with = |more: &str| parse(&[&base[..], &[more]].concat());
        assert_eq!(parse(&base).unwrap().wait, None);
        assert_eq!(with("--wait").unwrap().wait, Some(Wait::All));
        assert_eq!(with("--wait=quorum").unwrap().wait, Some(Wait::Quorum));
        assert!(with("--wait=some").is_err());
        assert_eq!(with("--timeout=2s").unwrap().timeout, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_dry_run_is_asked_for_and_shows_its_samples() {
        let args = parse(&["--site", "shop", "--everything", "--dry-run"]).unwrap();
        assert!(request(&args).unwrap().dry_run);
        let json = r#"{"id": "dry_1", "site": "shop", "revision": 4, "mode": "hard", "selectors": [],
            "created_ms": 0, "created_by": "me", "complete": false, "applied": 1, "pending": 0,
            "offline": 1, "matched": 3, "p50_ms": null, "p99_ms": null, "dry_run": true,
            "notes": ["edge b is offline"], "edges": [
                {"edge": "a", "state": "counted", "matched": 3, "latency_ms": null,
                 "samples": ["https://s/1", "https://s/2"]},
                {"edge": "b", "state": "offline", "matched": null, "latency_ms": null}]}"#;
        let text = shown_dry(&serde_json::from_str(json).unwrap());
        let words: Vec<_> = text.split_whitespace().collect();
        let table = "MATCHED SAMPLES a counted 3 https://s/1 https://s/2 b offline - 3 objects";
        assert!(words.join(" ").contains(table), "{text}");
        assert!(text.contains("nothing is purged") && text.contains("note: edge b"), "{text}");
    }
}
