//! `verge kv`: writes, reads, lists and removes entries of a site's key-value store.

use crate::Ended;
use crate::args::Global;
use crate::client::{Call, Client};
use crate::commands::tail::site_of;
use crate::error::CliError;
use crate::output::{Output, ago, clean, table};
use clap::{Args, Subcommand};
use serde_json::json;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use verge_config::kv::{EntryInfo, MAX_ENTRIES, MAX_VALUE_BYTES};

#[derive(Debug, Args)]
pub(crate) struct KvArgs {
    /// The site; the one of ./verge.toml when absent.
    #[arg(long, global = true)]
    site: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write the value of a key, in the place of what was there.
    Put {
        /// The key: 1 to 512 bytes.
        key: String,
        /// The value, up to 1 MiB; "-" reads it from standard input.
        #[arg(required_unless_present = "file")]
        value: Option<String>,
        /// The file that holds the value.
        #[arg(long, value_name = "FILE", conflicts_with = "value")]
        file: Option<PathBuf>,
    },
    /// Write the value of a key to standard output, as it is.
    Get {
        /// The key.
        key: String,
    },
    /// List the keys, in their order, without their values.
    List {
        /// Those that begin with this.
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// Remove the entry of a key.
    Delete {
        /// The key.
        key: String,
    },
}

pub(crate) async fn run(args: KvArgs, global: &Global, output: Output) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    let site = site_of(args.site.as_deref(), Path::new("verge.toml"))?;
    let entry = ["v1", "sites", &site, "kv", "entry"];
    let named = |key: &str| [("key", key.to_owned())];
    match args.action {
        Action::Put { key, value, file } => {
            let value = value_of(value, file)?;
            let query = named(&key);
            let call = Call::put(&entry).query(&query);
            let written: EntryInfo = client.put_bytes(call, &value).await?;
            output.result(&written, |written| {
                let EntryInfo { key, bytes, revision, .. } = written;
                clean(&format!("{site}: {key} has {bytes} bytes, revision {revision}"))
            });
        }
        Action::Get { key } => {
            let query = named(&key);
            let value = client.bytes(Call::get(&entry).query(&query)).await?;
            if output.is_json() {
                output.result(&shown(&site, &key, &value), |_| String::new());
            } else {
                write_out(&value)?;
            }
        }
        Action::List { prefix } => {
            let most = usize::try_from(MAX_ENTRIES).unwrap_or(usize::MAX);
            let asked = [("prefix", prefix)];
            let path = ["v1", "sites", &site, "kv"];
            let entries: Vec<EntryInfo> = client.list_where(&path, &asked, most).await?;
            output.result(&entries, |entries| listed(entries));
        }
        Action::Delete { key } => {
            let query = named(&key);
            client.done(Call::delete(&entry).query(&query)).await?;
            let deleted = json!({ "site": site, "deleted": key });
            output.result(&deleted, |_| clean(&format!("{site}: {key} is deleted")));
        }
    }
    Ok(Ended::Done)
}

/// The value to be written, from wherever it is.
fn value_of(value: Option<String>, file: Option<PathBuf>) -> Result<Vec<u8>, CliError> {
    match (value, file) {
        (_, Some(path)) => {
            let content = File::open(&path).and_then(read);
            bounded(content.map_err(|error| CliError::file(&path, error))?)
        }
        (Some(value), None) if value == "-" => {
            let content = read(std::io::stdin().lock());
            bounded(content.map_err(|error| CliError::file("standard input", error))?)
        }
        (value, None) => bounded(value.unwrap_or_default().into_bytes()),
    }
}

/// At most a byte more than a value may have.
fn read(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_VALUE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn bounded(value: Vec<u8>) -> Result<Vec<u8>, CliError> {
    if value.len() <= MAX_VALUE_BYTES {
        return Ok(value);
    }
    Err(CliError::Usage(format!("the value is too long: at most {MAX_VALUE_BYTES} bytes")))
}

/// A value for programs: as text where it is one.
fn shown(site: &str, key: &str, value: &[u8]) -> serde_json::Value {
    match std::str::from_utf8(value) {
        Ok(text) => json!({ "site": site, "key": key, "value": text }),
        Err(_) => json!({ "site": site, "key": key, "value_hex": hex::encode(value) }),
    }
}

/// Writes a value as it is; to a terminal without what could steer it.
fn write_out(value: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let written = if out.is_terminal() {
        writeln!(out, "{}", clean(&String::from_utf8_lossy(value)))
    } else {
        out.write_all(value).and_then(|()| out.flush())
    };
    match written {
        // A reader that went away (`verge kv get k | head`) is no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::file("standard output", error))
        }
        _ => Ok(()),
    }
}

fn listed(entries: &[EntryInfo]) -> String {
    let row = |entry: &EntryInfo| {
        let EntryInfo { key, bytes, revision, updated_ms } = entry;
        // A key with a line feed in it is a row of the table, not two.
        [key.replace('\n', "\u{fffd}"), bytes.to_string(), revision.to_string(), ago(*updated_ms)]
    };
    table(["KEY", "BYTES", "REVISION", "WRITTEN"], entries.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_bounded_wherever_it_comes_from() {
        let text = value_of(Some("v".to_owned()), None).unwrap();
        assert_eq!(text, b"v");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value");
        std::fs::write(&path, vec![0; MAX_VALUE_BYTES]).unwrap();
        assert_eq!(value_of(None, Some(path.clone())).unwrap().len(), MAX_VALUE_BYTES);
        std::fs::write(&path, vec![0; MAX_VALUE_BYTES + 1]).unwrap();
        assert!(matches!(value_of(None, Some(path)), Err(CliError::Usage(_))));
    }

    #[test]
    fn a_key_cannot_forge_rows() {
        let entry = |key: &str| EntryInfo {
            key: key.to_owned(),
            bytes: 1,
            revision: verge_config::Revision(7),
            updated_ms: 0,
        };
        let shown = listed(&[entry("a\nb"), entry("c")]);
        assert_eq!(shown.lines().count(), 3, "{shown}");
        assert_eq!(
            super::shown("s", "k", &[0xff]),
            json!({"site": "s", "key": "k", "value_hex": "ff"})
        );
    }
}
