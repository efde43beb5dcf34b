//! `verge secrets`: sets, lists and deletes the secrets that a site's handlers read by their names. A value is
//! read from a file, from standard input or from a terminal that does not show it; never from the command
//! line, which every process on the machine can see. None is ever shown: nobody can read one back.

use crate::Ended;
use crate::args::Global;
use crate::client::{Call, Client};
use crate::commands::tail::site_of;
use crate::error::CliError;
use crate::output::{Output, ago, clean, table};
use clap::{Args, Subcommand};
use console::Term;
use serde_json::json;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use verge_config::Faults;
use verge_config::api::SecretInfo;
use verge_config::process::Secret;
use verge_config::seal::Zeroizing;
use verge_config::secrets::{MAX_SECRETS, MAX_VALUE_BYTES, NewSecret, check};

/// One byte more than may be there, and a line's end, show that there is too much.
const MOST_BYTES: usize = MAX_VALUE_BYTES + 3;

#[derive(Debug, Args)]
pub(crate) struct SecretsArgs {
    #[command(subcommand)]
    action: Action,
    /// The site; the one of `verge.toml` here when absent.
    #[arg(long, global = true, value_name = "SITE")]
    site: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Set a secret. Its value is asked for, or read from standard input or a file.
    Put {
        /// Its name: letters, digits and _, no digit first.
        name: String,
        /// Where its value is; - for standard input. The line feed at the end of a single line is no part
        /// of it.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List the secrets: their names, and who set them when.
    List,
    /// Delete a secret.
    Delete {
        /// Its name, as the list shows it.
        name: String,
    },
}

pub(crate) async fn run(
    args: SecretsArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    let site = site_of(args.site.as_deref(), Path::new("verge.toml"))?;
    match args.action {
        Action::Put { name, file } => put(&client, &site, &name, file.as_deref(), output).await?,
        Action::List => {
            let path = ["v1", "sites", &site, "secrets"];
            let secrets: Vec<SecretInfo> = client.list(&path, MAX_SECRETS).await?;
            output.result(&secrets, |secrets| listed(secrets));
        }
        Action::Delete { name } => {
            client.done(Call::delete(&["v1", "sites", &site, "secrets", &name])).await?;
            let deleted = json!({ "site": site, "deleted": name });
            output.result(&deleted, |_| clean(&format!("{site}: {name} is deleted")));
        }
    }
    Ok(Ended::Done)
}

async fn put(
    client: &Client,
    site: &str,
    name: &str,
    file: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    if client.is_in_the_clear() {
        let message = "the secret would go over the network in the clear; use https for --control";
        return Err(CliError::Usage(message.to_owned()));
    }
    let value = value(name, file)?;
    let faulty = |faults| CliError::Faults { what: "the secret".to_owned(), faults };
    check(name, &value).map_err(faulty)?;
    let path = ["v1", "sites", site, "secrets", name];
    let call = Call::put(&path);
    let set: SecretInfo = client.json(call, Some(&NewSecret { value })).await?.1;
    output.result(&set, |set| {
        let SecretInfo { site, name, revision, .. } = set;
        clean(&format!("{site}: {name} is set; edges have it from revision {revision} on"))
    });
    Ok(())
}

/// The value, from where it is.
fn value(name: &str, file: Option<&Path>) -> Result<Secret, CliError> {
    let stdin = std::io::stdin();
    let (from, mut source): (PathBuf, Box<dyn Read>) = match file {
        Some(path) if path != Path::new("-") => {
            let file = File::open(path).map_err(|error| CliError::file(path, error))?;
            (path.to_owned(), Box::new(file))
        }
        None if stdin.is_terminal() => return asked(name),
        _ => ("standard input".into(), Box::new(stdin.lock())),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES));
    let read = source.by_ref().take(MOST_BYTES as u64).read_to_end(&mut bytes);
    read.map_err(|error| CliError::file(&from, error))?;
    let faulty = |message: String| CliError::Faults {
        what: from.display().to_string(),
        faults: Faults::one("value", message),
    };
    if bytes.len() == MOST_BYTES {
        return Err(faulty(format!("longer than {MAX_VALUE_BYTES} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| faulty("is no text (UTF-8)".to_owned()))?;
    let value = Secret::new(without_its_line_feed(text));
    if value.reveal().is_empty() {
        return Err(CliError::Usage(format!("no value: {} is empty", from.display())));
    }
    Ok(value)
}

/// Asks whoever sits at the terminal, which does not show the answer.
fn asked(name: &str) -> Result<Secret, CliError> {
    let failed = |error| CliError::file("the terminal", error);
    let terminal = Term::stderr();
    if !terminal.is_term() {
        let message =
            "there is no terminal to ask at: write the value to standard input, or --file";
        return Err(CliError::Usage(message.to_owned()));
    }
    terminal.write_str(&clean(&format!("value of {name} (not shown): "))).map_err(failed)?;
    let value = Secret::new(terminal.read_secure_line().map_err(failed)?);
    if value.reveal().is_empty() {
        return Err(CliError::Usage("no value was typed; nothing was changed".to_owned()));
    }
    Ok(value)
}

/// A single line's end is an editor's or `echo`'s; of several lines (a PEM file) it is a part.
fn without_its_line_feed(text: &str) -> &str {
    match text.strip_suffix('\n') {
        Some(line) if !line.contains('\n') => line.strip_suffix('\r').unwrap_or(line),
        _ => text,
    }
}

fn listed(secrets: &[SecretInfo]) -> String {
    let row = |secret: &SecretInfo| {
        let SecretInfo { name, set_ms, set_by, revision, .. } = secret;
        [name.clone(), ago(*set_ms), set_by.clone(), revision.to_string()]
    };
    table(["SECRET", "SET", "BY", "REVISION"], secrets.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_single_line_is_no_part_of_it() {
        for (text, value) in [
            ("a", "a"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a \n", "a "),
            ("\n", ""),
            ("a\nb\n", "a\nb\n"),
            ("a\n\n", "a\n\n"),
        ] {
            assert_eq!(without_its_line_feed(text), value, "{text:?}");
        }
    }
}
