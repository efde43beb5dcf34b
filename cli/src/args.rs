//! What can be typed: the commands, the flags that all share, and the exit codes. Does nothing.

use crate::commands::{
    activate, component, deploy, dev, edges, explain, init, kv, login, preview, purge, rollback,
    secrets, sites, tail, tokens, usage, versions,
};
use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the network, the control plane, a build
  2  the command line is wrong
  3  incomplete: committed, but not in force everywhere within the time given
  4  not found, not allowed, or not logged in
  5  refused: a file or request has faults; each is named with its place";

/// Deploys sites to Verge, purges its caches, and says what its edges do.
#[derive(Debug, Parser)]
#[command(name = "verge", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The flags of all commands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The control plane's URL; the one that `verge login` stored when absent.
    #[arg(long, global = true, env = "VERGE_CONTROL", value_name = "URL")]
    pub(crate) control: Option<String>,
    /// The token; the one that `verge login` stored when absent.
    #[arg(long, global = true, env = "VERGE_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<Token>,
    /// JSON instead of tables: results on standard output, failures on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// A token as it was typed; its `Debug` says nothing of it.
#[derive(Clone)]
pub(crate) struct Token(pub(crate) verge_config::process::Secret);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for Token {
    fn from(text: &str) -> Token {
        Token(verge_config::process::Secret::new(text))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store the control plane's URL and a token.
    Login(login::LoginArgs),
    /// Make a new site with a handler that deploys as is.
    Init(init::InitArgs),
    /// Make a component of a core module, as compilers of C make them.
    Component(component::ComponentArgs),
    /// Serve the site here, on the real edge; build and reload on every save.
    Dev(dev::DevArgs),
    /// Check, build, upload and activate a site.
    Deploy(deploy::DeployArgs),
    /// List the sites.
    Sites(sites::SitesArgs),
    /// List the versions of a site, the newest first.
    Versions(versions::VersionsArgs),
    /// Make a version the one that edges serve.
    Activate(activate::ActivateArgs),
    /// Go back to the version that was active before.
    Rollback(rollback::RollbackArgs),
    /// Let the holder of a new token reach a version that is not active.
    Preview(preview::PreviewArgs),
    /// Purge what the edges have stored, and show the receipt.
    Purge(purge::PurgeArgs),
    /// Write, read, list and delete what a site's handlers find in its key-value store.
    Kv(kv::KvArgs),
    /// List the edges and how far they are behind.
    Edges(edges::EdgesArgs),
    /// Show what handlers have used: requests, CPU time, memory, bytes.
    Usage(usage::UsageArgs),
    /// Set, list and delete the secrets that a site's handlers read.
    Secrets(secrets::SecretsArgs),
    /// Make, list and revoke tokens.
    Tokens(tokens::TokensArgs),
    /// Show a site's requests on all edges as they end, with what handlers log.
    Tail(tail::TailArgs),
    /// Say what the edges would do with a URL, and why.
    Explain(explain::ExplainArgs),
    /// Make a token for explanations in responses, and the line for the site file.
    DebugToken,
    /// The compiler child: a component in, an artefact out.
    #[command(hide = true)]
    CompileComponent,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_exit_codes_are_in_the_help() {
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("3  incomplete"), "{help}");
    }

    #[test]
    fn a_token_is_not_in_the_debug_output() {
        let cli = Cli::try_parse_from(["verge", "--token", "vrg_canary", "sites"]).unwrap();
        assert!(!format!("{cli:?}").contains("canary"));
    }
}
