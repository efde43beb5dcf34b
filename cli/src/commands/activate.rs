//! `verge activate SITE VERSION`: moves the site's pointer.

use crate::Ended;
use crate::args::Global;
use crate::client::{Call, Client};
use crate::error::CliError;
use crate::output::Output;
use clap::Args;
use verge_config::api::{Activate, Activated};

#[derive(Debug, Args)]
pub(crate) struct ActivateArgs {
    /// The site.
    site: String,
    /// The version, as `verge versions` lists it.
    version: u64,
}

pub(crate) async fn run(
    args: ActivateArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    let activated = activate(&client, &args.site, args.version).await?;
    output.result(&activated, told);
    Ok(Ended::Done)
}

/// Activates a version.
pub(crate) async fn activate(
    client: &Client,
    site: &str,
    version: u64,
) -> Result<Activated, CliError> {
    let path = ["v1", "sites", site, "active"];
    Ok(client.json(Call::put(&path), Some(&Activate { version })).await?.1)
}

/// What happened, in words.
pub(crate) fn told(activated: &Activated) -> String {
    let Activated { site, version, previous, revision } = activated;
    let before = match previous {
        Some(previous) if previous == version => " (as before)".to_owned(),
        Some(previous) => format!(" (before: version {previous})"),
        None => String::new(),
    };
    crate::output::clean(&format!(
        "{site}: version {version} is active under revision {revision}{before}"
    ))
}
