//! The file of secrets that an operator gives an edge: read once, at the start, and only if nobody else
//! on this machine can read it. Gives no value away in its errors.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use verge_config::Faults;
use verge_config::secrets::{MAX_FILE_BYTES, Secrets};

/// What others than a file's owner may do with it.
const OTHERS: u32 = 0o077;

/// Why there are no secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner have access to it.
    #[error("{path} can be used by others than its owner (mode {mode:04o}): chmod 600 it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not a file of secrets.
    #[error("{path} is not valid:\n{faults}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong.
        faults: Faults,
    },
}

/// Reads a file of secrets.
///
/// # Errors
/// When it cannot be read, others have access to it, or something in it is wrong.
pub fn read(path: &Path) -> Result<Secrets, SecretsError> {
    let unread = |source| SecretsError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unread)?;
    // Of the file that is open, whatever its name may lead to by now.
    let mode = file.metadata().map_err(unread)?.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(SecretsError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    // One byte more than may be there shows that there is too much.
    let most = MAX_FILE_BYTES as u64 + 1;
    file.take(most).read_to_string(&mut text).map_err(unread)?;
    Secrets::from_toml(&text)
        .map_err(|faults| SecretsError::Invalid { path: path.to_owned(), faults })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    fn a_file_is_read_only_if_it_is_its_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.toml");
        std::fs::write(&path, "KEY = 'canary'\n").unwrap();
        for mode in [0o600, 0o400, 0o700] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let secrets = read(&path).unwrap();
            assert_eq!(secrets.get("KEY").map(|secret| secret.reveal()), Some("canary"));
        }
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, SecretsError::Exposed { mode: told, .. } if told == mode));
            assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_with_it_is_told_without_a_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.toml");
        assert!(matches!(read(&path), Err(SecretsError::Read { .. })));
        std::fs::write(&path, "KEY = canary\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let error = read(&path).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains("line 1") && !told.contains("canary"), "{told}");
        std::fs::write(&path, "#".repeat(MAX_FILE_BYTES + 10)).unwrap();
        assert!(matches!(read(&path), Err(SecretsError::Invalid { .. })));
    }
}
