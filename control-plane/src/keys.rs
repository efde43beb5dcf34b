//! The installation's key file, with which sites' secrets are sealed before they get to the store. The only
//! room that holds a key; knows no store and no request, and tells nothing of a value to anybody's log.

use crate::state::Sealed;
use rand::TryRngCore;
use rand::rngs::OsRng;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use verge_config::process::Secret;
use verge_config::seal::{KEY_BYTES, NONCE_BYTES, SealError, SealKey, Zeroizing};

/// The most keys in the file.
const MAX_KEYS: usize = 16;
/// What others than the file's owner may do with it.
const OTHERS: u32 = 0o077;

/// The keys of this installation: the last one seals, each opens what it has sealed.
#[derive(Debug)]
pub(crate) struct Keys(Vec<SealKey>);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read or made.
    #[error("the key of secrets, {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The store has secrets, and the file is gone.
    #[error(
        "there are secrets in the store, and the key that they are sealed with is not there: {0}; put it \
         back from its copy (secrets_key in control.toml says where it is looked for)"
    )]
    Missing(PathBuf),
    /// The store has secrets that another key has sealed.
    #[error(
        "the store has secrets that are sealed with the key {id}, which is not in {path}; put the right \
         file back from its copy (secrets_key in control.toml says where it is looked for)"
    )]
    Another {
        /// The file.
        path: PathBuf,
        /// The key's id.
        id: String,
    },
    /// Others than its owner have access to it.
    #[error("{path} can be used by others than its owner (mode {mode:04o}): chmod 600 it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not a file of keys.
    #[error("{0} is not a file of keys: 32 random bytes, or up to {MAX_KEYS} times as many")]
    Invalid(PathBuf),
}

/// Why a secret is not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsealed {
    #[error("the system's random source fails")]
    NoRandomness,
    #[error("there is no key {0}")]
    NoKey(String),
    #[error("the secret {name} of the site {site}: {error}")]
    Refused { site: String, name: String, error: SealError },
    #[error("the secret {name} of the site {site} is no text")]
    NoText { site: String, name: String },
}

// === impl Keys ===

impl Keys {
    /// Reads the key file. `used` are the ids of the keys that the store's secrets are sealed with: only
    /// where there are none is a file made that is not there.
    ///
    /// # Errors
    /// When it cannot be had, or is not the right one.
    pub(crate) fn open(path: &Path, used: &[String]) -> Result<Keys, KeysError> {
        let failed = |error| KeysError::Io { path: path.to_owned(), error };
        let keys = match File::open(path) {
            Ok(file) => Keys::read(path, file)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Err(_) if used.is_empty() => {
                make(path).map_err(failed)?;
                tracing::info!(path = %path.display(), "a key for secrets is made; keep a copy apart from the store's");
                Keys::read(path, File::open(path).map_err(failed)?)?
            }
            Err(_) => return Err(KeysError::Missing(path.to_owned())),
        };
        match used.iter().find(|id| keys.named(id).is_none()) {
            Some(id) => Err(KeysError::Another { path: path.to_owned(), id: id.clone() }),
            None => Ok(keys),
        }
    }

    fn read(path: &Path, file: File) -> Result<Keys, KeysError> {
        let failed = |error| KeysError::Io { path: path.to_owned(), error };
        // Of the file that is open, whatever its name may lead to by now.
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            return Err(KeysError::Exposed { path: path.to_owned(), mode });
        }
        let longest = MAX_KEYS * KEY_BYTES;
        // Never moved while it grows, so that no copy of it is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * longest));
        file.take(longest as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.is_empty() || bytes.len() > longest || bytes.len() % KEY_BYTES != 0 {
            return Err(KeysError::Invalid(path.to_owned()));
        }
        Ok(Keys(bytes.chunks_exact(KEY_BYTES).filter_map(SealKey::new).collect()))
    }

    fn named(&self, id: &str) -> Option<&SealKey> {
        self.0.iter().find(|key| key.id() == id)
    }

    /// Seals a secret for its place.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn seal(&self, site: &str, name: &str, value: &Secret) -> Result<Sealed, Unsealed> {
        let key = self.0.last().ok_or_else(|| Unsealed::NoKey(String::new()))?;
        let mut nonce = [0; NONCE_BYTES];
        OsRng.try_fill_bytes(&mut nonce).map_err(|_| Unsealed::NoRandomness)?;
        let bytes = key.seal(nonce, &place(site, name), value.reveal().as_bytes());
        let bytes = bytes.map_err(|error| refused(site, name, error))?;
        Ok(Sealed { key: key.id().to_owned(), bytes })
    }

    /// Opens a secret that was sealed for this place.
    ///
    /// # Errors
    /// When it was sealed for another one or with a key that is not there, or is damaged.
    pub(crate) fn open_secret(
        &self,
        site: &str,
        name: &str,
        sealed: &Sealed,
    ) -> Result<Secret, Unsealed> {
        let key = self.named(&sealed.key).ok_or_else(|| Unsealed::NoKey(sealed.key.clone()))?;
        let opened = key.open(&place(site, name), &sealed.bytes);
        let opened = opened.map_err(|error| refused(site, name, error))?;
        let text = std::str::from_utf8(&opened)
            .map_err(|_| Unsealed::NoText { site: site.to_owned(), name: name.to_owned() })?;
        Ok(Secret::new(text))
    }
}

fn refused(site: &str, name: &str, error: SealError) -> Unsealed {
    Unsealed::Refused { site: site.to_owned(), name: name.to_owned(), error }
}

/// What is sealed with a value: neither a site's name nor a secret's holds a zero.
fn place(site: &str, name: &str) -> Vec<u8> {
    [b"verge secret 1".as_slice(), site.as_bytes(), name.as_bytes()].join(&0)
}

/// Makes a file of one key. It gets its name when it is whole, and durable with it.
fn make(path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    OsRng.try_fill_bytes(&mut *key).map_err(|_| io::Error::other("no randomness is to be had"))?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(&*key)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_made_once_and_never_where_another_has_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        let used = ["0".repeat(16)];
        assert!(matches!(Keys::open(&path, &used), Err(KeysError::Missing(_))));
        assert!(!path.exists());
        let keys = Keys::open(&path, &[]).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), KEY_BYTES);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let sealed = keys.seal("shop", "KEY", &Secret::new("canary")).unwrap();
        let again = Keys::open(&path, std::slice::from_ref(&sealed.key)).unwrap();
        assert_eq!(again.open_secret("shop", "KEY", &sealed).unwrap().reveal(), "canary");
        assert!(matches!(Keys::open(&path, &used), Err(KeysError::Another { .. })));
        // A later key beside it seals, and what the first has sealed is opened as before.
        fs::write(&path, [bytes, vec![7; KEY_BYTES]].concat()).unwrap();
        let both = Keys::open(&path, std::slice::from_ref(&sealed.key)).unwrap();
        assert_eq!(both.open_secret("shop", "KEY", &sealed).unwrap().reveal(), "canary");
        assert_ne!(both.seal("shop", "KEY", &Secret::new("canary")).unwrap().key, sealed.key);
    }

    #[test]
    fn a_file_that_is_no_key_or_everybody_s_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        Keys::open(&path, &[]).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Keys::open(&path, &[]), Err(KeysError::Exposed { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for length in [0, 1, 31, 33, 17 * 32, 10_000] {
            fs::write(&path, vec![1; length]).unwrap();
            assert!(matches!(Keys::open(&path, &[]), Err(KeysError::Invalid(_))), "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_secret_is_opened_in_its_own_place_only(value in "\\PC{0,60}", site in "[a-z-]{1,9}", name in "[A-Z_]{1,9}", other in "[a-z-]{1,9}") {
            let keys = Keys(vec![SealKey::new(&[5; KEY_BYTES]).unwrap()]);
            let sealed = keys.seal(&site, &name, &Secret::new(value.as_str())).unwrap();
            let opened = keys.open_secret(&site, &name, &sealed).unwrap();
            prop_assert_eq!(opened.reveal(), value.as_str());
            let again = keys.seal(&site, &name, &Secret::new(value.as_str())).unwrap();
            prop_assert_ne!(&again.bytes, &sealed.bytes, "a nonce of its own");
            if other != site {
                prop_assert!(keys.open_secret(&other, &name, &sealed).is_err());
            }
            let longer = format!("{name}X");
            prop_assert!(keys.open_secret(&site, &longer, &sealed).is_err());
            let stranger = Keys(vec![SealKey::new(&[6; KEY_BYTES]).unwrap()]);
            prop_assert!(stranger.open_secret(&site, &name, &sealed).is_err());
        }
    }
}
