//! `verge tokens`: makes, lists and revokes tokens. A new token's secret is shown once, alone on
//! standard output.

use crate::Ended;
use crate::args::Global;
use crate::client::{Call, Client};
use crate::error::CliError;
use crate::output::{Output, ago, table};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::time::Duration;
use verge_config::api::{NewToken, Scope, TokenCreated, TokenInfo};
use verge_config::units::parse_duration;

/// More than any tenant has.
const MOST: usize = 10_000;

#[derive(Debug, Args)]
pub(crate) struct TokensArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token; its secret is shown once, on standard output.
    Create {
        /// What it is for.
        name: String,
        /// What it may do; several by commas or repetition.
        #[arg(long = "scope", required = true, value_delimiter = ',', value_name = "SCOPE")]
        scopes: Vec<ScopeName>,
        /// The tenant; your own when absent.
        #[arg(long)]
        tenant: Option<String>,
        /// When it ends, as in 30d; never when absent.
        #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
        expires: Option<Duration>,
    },
    /// List the tokens.
    List,
    /// Revoke a token.
    Revoke {
        /// Its id, as the list shows it.
        id: String,
    },
}

/// A scope, as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeName {
    /// Everything in the tenant.
    Admin,
    /// Upload, activate, roll back; and read.
    Deploy,
    /// Purge, and read receipts.
    Purge,
    /// Read.
    Read,
    /// Enrol edges.
    Join,
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Scope {
        match name {
            ScopeName::Admin => Scope::Admin,
            ScopeName::Deploy => Scope::Deploy,
            ScopeName::Purge => Scope::Purge,
            ScopeName::Read => Scope::Read,
            ScopeName::Join => Scope::Join,
        }
    }
}

pub(crate) async fn run(
    args: TokensArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    match args.action {
        Action::Create { name, scopes, tenant, expires } => {
            let scopes = scopes.into_iter().map(Scope::from).collect();
            let expires_in_seconds = expires.map(|expires| expires.as_secs());
            let new = NewToken { name, scopes, tenant, expires_in_seconds };
            let call = Call::post(&["v1", "tokens"]);
            let created: TokenCreated = client.json(call, Some(&new)).await?.1;
            output.note(&format!("token {} is told only now:", created.info.id));
            output.result(&created, |created| created.token.clone());
        }
        Action::List => {
            let tokens: Vec<TokenInfo> = client.list(&["v1", "tokens"], MOST).await?;
            output.result(&tokens, |tokens| shown(tokens));
        }
        Action::Revoke { id } => {
            client.done(Call::delete(&["v1", "tokens", &id])).await?;
            output.result(&json!({ "revoked": id }), |_| format!("token {id} is revoked"));
        }
    }
    Ok(Ended::Done)
}

fn shown(tokens: &[TokenInfo]) -> String {
    table(
        ["ID", "NAME", "TENANT", "SCOPES", "MADE", "ENDS"],
        tokens.iter().map(|token| {
            let scopes: Vec<String> =
                token.scopes.iter().map(|scope| format!("{scope:?}").to_lowercase()).collect();
            [
                token.id.clone(),
                token.name.clone(),
                token.tenant.clone(),
                scopes.join(" "),
                ago(token.created_ms),
                token.expires_ms.map_or_else(|| "never".to_owned(), ago),
            ]
        }),
    )
}
