//! Sites' secrets on the edge's disk, for a start without the control plane: a sealed file for each site, and
//! the key of this edge. Knows files and their damage; may not know the feed, or who asks for a secret.

use super::last_good::{StateError, is_site_name};
use super::record::{self, Stored};
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use verge_config::seal::{KEY_BYTES, NONCE_BYTES, SealError, SealKey, Zeroizing};
use verge_config::secrets::{MAX_ANSWER_BYTES, SiteSecrets};

/// How the file of a site's secrets ends.
const SECRETS: &str = ".secrets";
/// The longest payload of a file: what an answer of the control plane can carry, and its frame.
const FILE_MAX: u64 = MAX_ANSWER_BYTES as u64 + 4096;

/// A site's secrets as they are kept; none of them means that there is no file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SecretsRecord {
    /// The history that the revision is of.
    pub(super) history: String,
    /// The site.
    pub(super) site: String,
    /// All of them, and their revision.
    #[serde(flatten)]
    pub(super) told: SiteSecrets,
}

/// The files, in the state folder that the caller holds the lock of.
#[derive(Debug)]
pub(super) struct Vault {
    folder: PathBuf,
    key: SealKey,
}

// === impl Vault ===

impl Vault {
    /// Opens the vault of a state folder; makes its key when there is none that is whole.
    pub(super) fn open(root: &Path) -> Result<Vault, StateError> {
        let path = root.join("secrets.key");
        let failed = |source| StateError::Io { path: path.clone(), source };
        let key = match read_key(&path).map_err(failed)? {
            Some(key) => key,
            None => make_key(&path).map_err(failed)?,
        };
        Ok(Vault { folder: root.join("sites"), key })
    }

    /// Keeps a site's secrets, or forgets that there were any.
    pub(super) fn save(&self, record: &SecretsRecord) -> Result<(), StateError> {
        let path = self.file(&record.site);
        let failed = |source| StateError::Io { path: path.clone(), source };
        if !record.told.secrets.is_empty() {
            let sealed = self.sealed(record).map_err(failed)?;
            return record::write(&path, &sealed).map_err(failed);
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => record::sync_folder_of(&path).map_err(failed),
        }
    }

    fn sealed(&self, record: &SecretsRecord) -> io::Result<Vec<u8>> {
        let plain = Zeroizing::new(serde_json::to_vec(record)?);
        let mut nonce = [0; NONCE_BYTES];
        OsRng.try_fill_bytes(&mut nonce).map_err(|_| no_randomness())?;
        self.key.seal(nonce, &place(&record.site), &plain).map_err(io::Error::other)
    }

    /// Every site's secrets that are kept, and whether all of them could be read; what is damaged is logged.
    pub(super) fn all(&self) -> (Vec<SecretsRecord>, bool) {
        let (mut records, mut whole) = (Vec::new(), true);
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let site = name.to_str().and_then(|name| name.strip_suffix(SECRETS));
            let Some(site) = site.filter(|site| is_site_name(site)) else { continue };
            match self.read(site) {
                Ok(record) => records.push(record),
                Err(reason) => {
                    whole = false;
                    tracing::error!(path = %entry.path().display(), reason, "damaged state file; it is passed over");
                }
            }
        }
        (records, whole)
    }

    fn read(&self, site: &str) -> Result<SecretsRecord, String> {
        let sealed = match record::read(&self.file(site), FILE_MAX) {
            Stored::Whole(sealed) => sealed,
            Stored::Absent => return Err("it is gone".to_owned()),
            Stored::Damaged(reason) => return Err(reason),
        };
        self.opened(site, &sealed).map_err(|error| error.to_string())
    }

    fn opened(&self, site: &str, sealed: &[u8]) -> Result<SecretsRecord, SealError> {
        let plain = self.key.open(&place(site), sealed)?;
        // What a parser would say of it is not for a log.
        let record: SecretsRecord =
            serde_json::from_slice(&plain).map_err(|_| SealError::NotOpened)?;
        if record.site == site { Ok(record) } else { Err(SealError::NotOpened) }
    }

    fn file(&self, site: &str) -> PathBuf {
        debug_assert!(is_site_name(site), "names are checked where they come in");
        self.folder.join(format!("{site}{SECRETS}"))
    }
}

/// What is sealed with a site's secrets, so that no file stands in for another.
fn place(site: &str) -> Vec<u8> {
    [b"verge edge secrets 1".as_slice(), site.as_bytes()].join(&0)
}

fn read_key(path: &Path) -> io::Result<Option<SealKey>> {
    let bytes = match record::read_bounded(path, KEY_BYTES as u64) {
        Ok(bytes) => Zeroizing::new(bytes.unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Whoever put the folder back from a copy may have made it everybody's.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let key = SealKey::new(&bytes);
    if key.is_none() {
        tracing::error!(path = %path.display(), "damaged key of secrets; another is made, and secrets are asked for again");
    }
    Ok(key)
}

fn make_key(path: &Path) -> io::Result<SealKey> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    OsRng.try_fill_bytes(&mut *bytes).map_err(|_| no_randomness())?;
    record::write_raw(path, &*bytes)?;
    SealKey::new(&*bytes).ok_or_else(no_randomness)
}

fn no_randomness() -> io::Error {
    io::Error::other("no randomness is to be had")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;
    use verge_config::Revision;
    use verge_config::process::Secret;

    fn record(site: &str, value: Option<&str>) -> SecretsRecord {
        let secrets = value.map(|value| ("KEY".to_owned(), Secret::new(value)));
        SecretsRecord {
            history: "h".to_owned(),
            site: site.to_owned(),
            told: SiteSecrets { revision: Revision(3), secrets: secrets.into_iter().collect() },
        }
    }

    /// A state folder, as the room beside this one makes it.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sites")).unwrap();
        folder
    }

    #[test]
    fn what_is_kept_comes_back_and_is_in_no_file_as_it_is() {
        let folder = folder();
        let vault = Vault::open(folder.path()).unwrap();
        vault.save(&record("shop", Some("canary-of-the-vault"))).unwrap();
        for name in ["secrets.key", "sites/shop.secrets"] {
            let path = folder.path().join(name);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(6).any(|part| part == b"canary"), "{name}");
        }
        let vault = Vault::open(folder.path()).unwrap();
        let expected = record("shop", Some("canary-of-the-vault"));
        assert_eq!(vault.all(), (vec![expected], true));
        vault.save(&record("shop", None)).unwrap();
        vault.save(&record("shop", None)).unwrap();
        assert_eq!(vault.all(), (vec![], true));
        assert!(!folder.path().join("sites/shop.secrets").exists());
    }

    #[test]
    fn a_file_of_another_site_or_another_key_is_passed_over() {
        let folder = folder();
        let vault = Vault::open(folder.path()).unwrap();
        let (shop, blog) = (vault.file("shop"), vault.file("blog"));
        vault.save(&record("shop", Some("a"))).unwrap();
        fs::copy(&shop, &blog).unwrap();
        assert_eq!(vault.all(), (vec![record("shop", Some("a"))], false));
        fs::remove_file(&blog).unwrap();
        fs::write(folder.path().join("secrets.key"), b"short").unwrap();
        let vault = Vault::open(folder.path()).unwrap();
        assert_eq!(vault.all(), (vec![], false), "another key is made");
        vault.save(&record("shop", Some("b"))).unwrap();
        let again = Vault::open(folder.path()).unwrap();
        assert_eq!(again.all(), (vec![record("shop", Some("b"))], true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn damage_gives_nothing_and_random_bytes_are_no_secrets(at in any::<prop::sample::Index>(), flip in 1..=255_u8, noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let folder = folder();
            let vault = Vault::open(folder.path()).unwrap();
            vault.save(&record("shop", Some("value"))).unwrap();
            let path = vault.file("shop");
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            fs::write(&path, &bytes).unwrap();
            prop_assert_eq!(vault.all(), (vec![], false));
            // Under a checksum of their own, too.
            record::write(&path, &noise).unwrap();
            prop_assert_eq!(vault.all(), (vec![], false));
            prop_assert_eq!(vault.opened("shop", &noise), Err(SealError::NotOpened));
        }
    }
}
