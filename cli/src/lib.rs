//! The command line: what developers and admins type. One file per command; it speaks to the control
//! plane over HTTP only, but for `dev`, which runs one and an edge in this process.

mod args;
mod build;
mod client;
mod commands;
mod credentials;
mod error;
mod lines;
mod output;
mod requests;
mod site_file;

pub use args::Cli;

use args::Command;
use error::CliError;
use output::Output;
use std::process::ExitCode;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All is done.
    Done,
    /// It was committed, but what was waited for did not come about in time.
    Incomplete,
}

/// The exit code of [`Ended::Incomplete`].
const INCOMPLETE: u8 = 3;

/// Runs a command and tells how it ended: failures on standard error, results on standard output.
pub async fn run(cli: Cli) -> ExitCode {
    let output = Output::new(cli.global.json);
    match command(cli, output).await {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Incomplete) => ExitCode::from(INCOMPLETE),
        Err(error) => {
            output.failure(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn command(cli: Cli, output: Output) -> Result<Ended, CliError> {
    let global = cli.global;
    match cli.command {
        Command::Login(args) => commands::login::run(args, &global, output).await,
        Command::Init(args) => commands::init::run(&args, output),
        Command::Component(args) => commands::component::run(&args, output),
        Command::Dev(args) => commands::dev::run(args, output).await,
        Command::Deploy(args) => commands::deploy::run(args, &global, output).await,
        Command::Sites(args) => commands::sites::run(args, &global, output).await,
        Command::Versions(args) => commands::versions::run(args, &global, output).await,
        Command::Activate(args) => commands::activate::run(args, &global, output).await,
        Command::Rollback(args) => commands::rollback::run(args, &global, output).await,
        Command::Preview(args) => commands::preview::run(args, &global, output).await,
        Command::Purge(args) => commands::purge::run(args, &global, output).await,
        Command::Kv(args) => commands::kv::run(args, &global, output).await,
        Command::Edges(args) => commands::edges::run(args, &global, output).await,
        Command::Usage(args) => commands::usage::run(args, &global, output).await,
        Command::Secrets(args) => commands::secrets::run(args, &global, output).await,
        Command::Tokens(args) => commands::tokens::run(args, &global, output).await,
        Command::Tail(args) => commands::tail::run(args, &global, output).await,
        Command::Explain(args) => commands::explain::run(args, &global, output).await,
        Command::DebugToken => commands::debug_token::run(output),
        Command::CompileComponent => Ok(Ended::Done),
    }
}
