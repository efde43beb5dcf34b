//! `verge rollback SITE`: back to the version that was active before.

use crate::Ended;
use crate::args::Global;
use crate::client::{Call, Client, new_key};
use crate::commands::activate::told;
use crate::error::CliError;
use crate::output::Output;
use clap::Args;
use verge_config::api::Activated;

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The site.
    site: String,
}

pub(crate) async fn run(
    args: RollbackArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    // Sent again without a key, a rollback would go back by two.
    let key = new_key();
    let path = ["v1", "sites", &args.site, "rollback"];
    let activated: Activated = client.read(Call::post(&path).idempotency_key(&key)).await?;
    output.result(&activated, told);
    Ok(Ended::Done)
}
