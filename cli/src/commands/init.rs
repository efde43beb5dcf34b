//! `verge init`: writes a new site with a handler that builds, tests and deploys as it is. Overwrites
//! nothing.

mod templates;

use self::templates::{Language, files};
use crate::Ended;
use crate::error::CliError;
use crate::output::Output;
use clap::Args;
use serde::Serialize;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder, made when it is not there; here when absent.
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    /// The language of the handler.
    #[arg(long, value_enum, default_value = "rust")]
    lang: Language,
    /// The site's name; made from the folder's when absent.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Serialize)]
struct Made {
    site: String,
    folder: PathBuf,
    files: Vec<String>,
}

pub(crate) fn run(args: &InitArgs, output: Output) -> Result<Ended, CliError> {
    let name = name(args)?;
    let files = files(args.lang, &name);
    let taken: Vec<&str> = files
        .iter()
        .map(|(path, _)| path.as_str())
        .filter(|path| args.folder.join(path).symlink_metadata().is_ok())
        .collect();
    if !taken.is_empty() {
        let folder = args.folder.display();
        let message = format!("{folder} has {} already; nothing was written", taken.join(", "));
        return Err(CliError::Usage(message));
    }
    for (path, text) in &files {
        let path = args.folder.join(path);
        write_new(&path, text).map_err(|error| CliError::file(&path, error))?;
    }
    let made = Made {
        site: name,
        folder: args.folder.clone(),
        files: files.into_iter().map(|(path, _)| path).collect(),
    };
    output.result(&made, |made| {
        let folder = made.folder.display();
        format!(
            "{} is in {folder}: {}\nnext: cd {folder} && verge dev",
            made.site,
            made.files.join(" ")
        )
    });
    Ok(Ended::Done)
}

/// The site's name: as given, or as near to the folder's as a name can be.
fn name(args: &InitArgs) -> Result<String, CliError> {
    let text = match &args.name {
        Some(name) => name.clone(),
        None => {
            let folder = fs::canonicalize(&args.folder).unwrap_or_else(|_| args.folder.clone());
            let last = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            let name: String =
                last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let name: String = name.trim_matches('-').chars().take(63).collect();
            name.trim_matches('-').to_owned()
        }
    };
    // It names a package and a library, too, and those begin with a letter.
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= 63
        && text.bytes().all(letters)
        && !text.ends_with('-');
    if good {
        Ok(text)
    } else {
        Err(CliError::Usage(format!(
            "{text:?} is not a site's name; give one with --name: 1 to 63 of a-z, 0-9 and hyphens, \
             a letter first"
        )))
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_folders() {
        let of = |folder: &str| {
            name(&InitArgs { folder: folder.into(), lang: Language::Rust, name: None })
        };
        assert_eq!(of("some/My Shop_2").unwrap(), "my-shop-2");
        assert!(of("some/42").is_err());
        let given = |text: &str| {
            let name = Some(text.to_owned());
            super::name(&InitArgs { folder: ".".into(), lang: Language::Rust, name })
        };
        assert!(given("shop").is_ok());
        for odd in ["", "Shop", "a_b", "-a", "a-", "1a"] {
            assert!(given(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("verge.toml"), "mine").unwrap();
        let name = Some("shop".to_owned());
        let args = InitArgs { folder: folder.path().to_owned(), lang: Language::Rust, name };
        let error = run(&args, Output::new(true)).unwrap_err();
        assert!(error.to_string().contains("verge.toml already"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
