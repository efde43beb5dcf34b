//! `verge login`: checks a token with its control plane and stores both.

use crate::Ended;
use crate::args::Global;
use crate::client::{Call, Client};
use crate::credentials::{self, Credentials};
use crate::error::CliError;
use crate::output::Output;
use clap::Args;
use serde::Serialize;
use std::io::{BufRead, IsTerminal};
use verge_config::api::{Page, SiteInfo};
use verge_config::process::Secret;

/// The longest token that is read.
const MAX_TOKEN_BYTES: usize = 1_024;

/// Without `--token`, the token is read from standard input, so that it stays out of the shell's
/// history.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {}

#[derive(Serialize)]
struct LoggedIn {
    control: String,
    stored: String,
}

pub(crate) async fn run(_: LoginArgs, global: &Global, output: Output) -> Result<Ended, CliError> {
    let control = global.control.as_deref().ok_or_else(|| {
        CliError::Usage("say which control plane: verge login --control URL".to_owned())
    })?;
    let control = credentials::parse_control(control)?;
    let token = match &global.token {
        Some(token) => token.0.clone(),
        None => ask()?,
    };
    let path = credentials::path().ok_or_else(|| {
        CliError::Usage("neither XDG_CONFIG_HOME nor HOME says where to store it".to_owned())
    })?;
    let credentials = Credentials { control, token };
    let client = Client::with(credentials.clone())?;
    if client.is_in_the_clear() {
        output.note("warning: the token goes over the network in the clear; use https");
    }
    check(&client).await?;
    credentials::store(&path, &credentials)?;
    let shown = LoggedIn { control: client.base().to_string(), stored: path.display().to_string() };
    output.result(&shown, |shown| format!("logged in to {} ({})", shown.control, shown.stored));
    Ok(Ended::Done)
}

/// Whether the control plane knows the token; a token that may only purge may not list sites, which
/// says that it is known.
async fn check(client: &Client) -> Result<(), CliError> {
    let page = client.read::<Page<SiteInfo>>(Call::get(&["v1", "sites"])).await;
    match page {
        Ok(_) => Ok(()),
        Err(CliError::Problem(problem)) if problem.status == 403 => Ok(()),
        Err(error) => Err(error),
    }
}

fn ask() -> Result<Secret, CliError> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprint!("token: ");
    }
    let mut line = String::new();
    let mut limited = std::io::Read::take(stdin.lock(), MAX_TOKEN_BYTES as u64);
    limited.read_line(&mut line).map_err(|error| CliError::file("standard input", error))?;
    let token = line.trim();
    if token.is_empty() {
        return Err(CliError::Usage(
            "no token: give --token, or write it to standard input".into(),
        ));
    }
    Ok(Secret::new(token))
}
