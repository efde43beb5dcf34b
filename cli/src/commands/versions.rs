//! `verge versions SITE`: what was uploaded, and which of it is active.

use crate::Ended;
use crate::args::Global;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, ago, table};
use clap::Args;
use verge_config::api::VersionInfo;

#[derive(Debug, Args)]
pub(crate) struct VersionsArgs {
    /// The site.
    site: String,
    /// At most this many, the newest first.
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
}

pub(crate) async fn run(
    args: VersionsArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    let path = ["v1", "sites", &args.site, "versions"];
    let versions: Vec<VersionInfo> = client.list(&path, args.limit).await?;
    output.result(&versions, |versions| {
        table(
            ["VERSION", "ACTIVE", "UPLOADED", "BY", "DIGEST"],
            versions.iter().map(|version| {
                [
                    version.version.to_string(),
                    if version.active { "active" } else { "" }.to_owned(),
                    ago(version.created_ms),
                    version.created_by.clone(),
                    version.digest.chars().take(12).collect(),
                ]
            }),
        )
    });
    Ok(Ended::Done)
}
