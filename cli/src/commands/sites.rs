//! `verge sites`: the tenant's sites.

use crate::Ended;
use crate::args::Global;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, table};
use clap::Args;
use verge_config::api::SiteInfo;

#[derive(Debug, Args)]
pub(crate) struct SitesArgs {
    /// At most this many.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    limit: usize,
}

pub(crate) async fn run(
    args: SitesArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    let sites: Vec<SiteInfo> = client.list(&["v1", "sites"], args.limit).await?;
    output.result(&sites, |sites| {
        table(
            ["SITE", "ACTIVE", "LATEST", "REVISION", "DOMAINS"],
            sites.iter().map(|site| {
                [
                    site.site.clone(),
                    site.active.map_or_else(|| "-".to_owned(), |active| active.to_string()),
                    site.latest.to_string(),
                    site.revision.to_string(),
                    site.domains.join(" "),
                ]
            }),
        )
    });
    Ok(Ended::Done)
}
