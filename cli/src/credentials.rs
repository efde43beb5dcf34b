//! Which control plane, with which token: flags and environment first, then the stored credentials.
//! The only room that reads or writes the credentials file; a token is never shown.

use crate::args::Global;
use crate::error::CliError;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use url::Url;
use verge_config::process::Secret;

/// A control plane and the token for it.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) control: Url,
    pub(crate) token: Secret,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    control: String,
    token: String,
}

/// The credentials for this run.
pub(crate) fn find(global: &Global) -> Result<Credentials, CliError> {
    let given = global.control.as_deref().map(parse_control).transpose()?;
    let token = global.token.as_ref().map(|token| token.0.clone());
    if let (Some(control), Some(token)) = (&given, &token) {
        return Ok(Credentials { control: control.clone(), token: token.clone() });
    }
    let path = path().ok_or_else(not_logged_in)?;
    let Some(stored) = load(&path)? else { return Err(not_logged_in()) };
    choose(given, token, stored)
}

/// A stored token goes to the control plane that it is of, and to no other.
fn choose(
    given: Option<Url>,
    token: Option<Secret>,
    stored: Credentials,
) -> Result<Credentials, CliError> {
    let control = given.unwrap_or_else(|| stored.control.clone());
    match token {
        Some(token) => Ok(Credentials { control, token }),
        None if control == stored.control => Ok(stored),
        None => Err(CliError::NotLoggedIn(format!(
            "the stored token is for {}, not for {control}: run `verge login --control {control}`, \
             or set VERGE_TOKEN",
            stored.control
        ))),
    }
}

fn not_logged_in() -> CliError {
    CliError::NotLoggedIn(
        "not logged in: run `verge login --control URL`, or set VERGE_CONTROL and VERGE_TOKEN"
            .to_owned(),
    )
}

/// A control plane's base URL, without a path.
pub(crate) fn parse_control(text: &str) -> Result<Url, CliError> {
    let wanted = || {
        CliError::Usage(format!(
            "{text:?} is not a control plane's URL, as https://control.example"
        ))
    };
    let url = Url::parse(text).map_err(|_| wanted())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if plain { Ok(url) } else { Err(wanted()) }
}

/// `$XDG_CONFIG_HOME/verge/credentials.toml`, or the same under `~/.config`.
pub(crate) fn path() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(config.join("verge").join("credentials.toml"))
}

fn load(path: &Path) -> Result<Option<Credentials>, CliError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CliError::file(path, error)),
    };
    let mode =
        fs::metadata(path).map_err(|error| CliError::file(path, error))?.permissions().mode();
    if mode & 0o077 != 0 {
        let message = "others may read it; run `chmod 600` on it, and revoke its token";
        return Err(CliError::file(path, io::Error::other(message)));
    }
    // The parser's own message would quote the line with the token.
    let stored: Stored = toml::from_str(&text).map_err(|_| {
        let message = "not a credentials file; run `verge login` again";
        CliError::file(path, io::Error::other(message))
    })?;
    let control = parse_control(&stored.control)?;
    Ok(Some(Credentials { control, token: Secret::new(stored.token) }))
}

/// Stores credentials so that only their owner can read them: a new file under another name, then
/// put in place whole.
pub(crate) fn store(path: &Path, credentials: &Credentials) -> Result<(), CliError> {
    let stored = Stored {
        control: credentials.control.to_string(),
        token: credentials.token.reveal().to_owned(),
    };
    let text = toml::to_string(&stored).map_err(|error| {
        CliError::file(path, io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    })?;
    write_private(path, text.as_bytes()).map_err(|error| CliError::file(path, error))
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let temporary = folder.join(format!(".credentials.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(control: &str) -> Credentials {
        Credentials { control: Url::parse(control).unwrap(), token: Secret::new("vrg_canary") }
    }

    #[test]
    fn what_is_stored_is_found_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verge").join("credentials.toml");
        assert!(load(&path).unwrap().is_none());
        store(&path, &credentials("http://127.0.0.1:7700")).unwrap();
        store(&path, &credentials("https://control.example")).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let found = load(&path).unwrap().unwrap();
        assert_eq!(found.control.as_str(), "https://control.example/");
        assert_eq!(found.token.reveal(), "vrg_canary");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        store(&path, &credentials("http://127.0.0.1:7700")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("others may read it"));
    }

    #[test]
    fn a_broken_file_does_not_show_its_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        write_private(&path, b"token = 'vrg_canary").unwrap();
        assert!(!load(&path).unwrap_err().to_string().contains("canary"));
    }

    #[test]
    fn a_stored_token_goes_to_no_other_control_plane() {
        let stored = || credentials("https://control.example");
        let other = || Some(Url::parse("https://evil.example").unwrap());
        assert!(choose(other(), None, stored()).is_err());
        let found = choose(other(), Some(Secret::new("mine")), stored()).unwrap();
        assert_eq!(found.token.reveal(), "mine");
        assert_eq!(choose(None, None, stored()).unwrap().token.reveal(), "vrg_canary");
    }

    #[test]
    fn control_urls() {
        assert!(parse_control("http://127.0.0.1:7700").is_ok());
        assert!(parse_control("https://control.example/").is_ok());
        for odd in
            ["control.example", "ftp://x", "http://", "http://x/v1", "http://u:p@x", "http://x?q"]
        {
            assert!(parse_control(odd).is_err(), "{odd}");
        }
    }
}
