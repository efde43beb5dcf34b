//! `verge edges`: which edges there are, how far behind they are and what they refuse.

use crate::Ended;
use crate::args::Global;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, ago, clean, table};
use clap::Args;
use verge_config::api::EdgeInfo;

/// More than any fleet has.
const MOST: usize = 10_000;

#[derive(Debug, Args)]
pub(crate) struct EdgesArgs {}

pub(crate) async fn run(_: EdgesArgs, global: &Global, output: Output) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    let edges = all(&client).await?;
    output.result(&edges, |edges| shown(edges));
    Ok(Ended::Done)
}

/// Every edge.
pub(crate) async fn all(client: &Client) -> Result<Vec<EdgeInfo>, CliError> {
    client.list(&["v1", "edges"], MOST).await
}

fn shown(edges: &[EdgeInfo]) -> String {
    let mut text = table(
        ["EDGE", "STATE", "REVISION", "BEHIND", "SEEN", "SOFTWARE"],
        edges.iter().map(|edge| {
            [
                edge.name.clone(),
                if edge.connected { "connected" } else { "offline" }.to_owned(),
                edge.applied.to_string(),
                edge.lag.to_string(),
                edge.last_seen_ms.map_or_else(|| "never".to_owned(), ago),
                edge.version.clone(),
            ]
        }),
    );
    for edge in edges {
        for refusal in &edge.refusals {
            let (name, site, revision) = (&edge.name, &refusal.site, refusal.revision);
            let line = format!("\n{name} refuses {site} at revision {revision}: ");
            text.push_str(&clean(&(line + &refusal.reason)));
        }
    }
    text
}
