//! `verge dev`.

use crate::Ended;
use crate::error::CliError;
use crate::output::Output;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct DevArgs {}

pub(crate) async fn run(_: DevArgs, _output: Output) -> Result<Ended, CliError> {
    Err(CliError::Dev("not yet".into()))
}
