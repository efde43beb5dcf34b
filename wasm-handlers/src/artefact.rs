//! Compiled artefacts on disk: only those that this installation compiled itself are ever loaded,
//! proved by a keyed checksum. Whatever else lies there counts as absent.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

const KEY_FILE: &str = "key";
/// As long as a block of SHA-256, the longest that HMAC takes as it is.
const KEY_BYTES: usize = 64;
const TAG_BYTES: usize = 32;
const EXTENSION: &str = "cwasm";
/// How old a draft must be to count as left behind by a process that is gone.
const DRAFT_AGE: Duration = Duration::from_secs(3600);

/// The folder of artefacts, its key and the engine that they must fit.
pub(crate) struct Artefacts {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    engine: Engine,
    compatibility: u64,
    most: u64,
}

impl Artefacts {
    /// Opens the folder, for this user only, and makes it and its key when absent. It is kept below
    /// so many bytes; what was not used for longest goes first.
    pub(crate) fn open(folder: &Path, most: u64, engine: &Engine) -> io::Result<Artefacts> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let key = match read_key(folder)? {
            Some(key) => key,
            None => make_key(folder)?,
        };
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let compatibility = hasher.finish();
        let (folder, engine) = (folder.to_owned(), engine.clone());
        let artefacts = Artefacts { folder, key, engine, compatibility, most };
        artefacts.prune()?;
        Ok(artefacts)
    }

    /// The component with this digest, when this installation has compiled it for this engine.
    /// Anything damaged or foreign is removed and counts as absent.
    pub(crate) fn load(&self, digest: &str) -> Option<Component> {
        let path = self.path(digest);
        let sealed = fs::read(&path).ok()?;
        // Its time tells when it was last used; that it cannot be set only makes it go earlier.
        let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        let loaded = self.unseal(digest, &sealed).and_then(|artefact| {
            self.deserialize(artefact)
                .inspect_err(|error| tracing::warn!(digest, %error, "artefact does not load"))
                .ok()
        });
        if loaded.is_none() {
            tracing::warn!(digest, "artefact is damaged or not of this installation; dropped");
            let _ = fs::remove_file(&path);
        }
        loaded
    }

    /// Keeps what the compiler child made of the component with this digest, and loads it. That it
    /// cannot be kept is no error: it is compiled again next time.
    pub(crate) fn keep(&self, digest: &str, artefact: &[u8]) -> wasmtime::Result<Component> {
        let component = self.deserialize(artefact)?;
        if let Err(error) = self.write(digest, artefact) {
            tracing::warn!(digest, %error, "artefact cannot be kept");
        }
        Ok(component)
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}-{:016x}.{EXTENSION}", self.compatibility))
    }

    fn write(&self, digest: &str, artefact: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&self.tag(digest, artefact).finalize().into_bytes())?;
        file.write_all(artefact)?;
        file.as_file().sync_data()?;
        file.persist(self.path(digest)).map_err(|error| error.error)?;
        self.prune()
    }

    /// Removes the drafts that were left behind, and artefacts until the rest is small enough.
    fn prune(&self) -> io::Result<()> {
        let now = SystemTime::now();
        let (mut artefacts, mut total) = (Vec::new(), 0u64);
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            let used = metadata.modified()?;
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                total = total.saturating_add(metadata.len());
                artefacts.push((used, metadata.len(), path));
            } else if path.file_name().is_some_and(|name| name != KEY_FILE)
                && now.duration_since(used).is_ok_and(|age| age > DRAFT_AGE)
            {
                let _ = fs::remove_file(&path);
            }
        }
        artefacts.sort();
        for (_, length, path) in artefacts {
            if total <= self.most {
                break;
            }
            fs::remove_file(&path)?;
            total = total.saturating_sub(length);
        }
        Ok(())
    }

    fn unseal<'a>(&self, digest: &str, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (tag, artefact) = sealed.split_at_checked(TAG_BYTES)?;
        // Compared in constant time by the crate.
        self.tag(digest, artefact).verify_slice(tag).ok()?;
        Some(artefact)
    }

    /// The checksum binds the artefact to its component and its engine, so that no valid file can
    /// stand in for another.
    fn tag(&self, digest: &str, artefact: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as Mac>::new((&self.key).into());
        mac.update(digest.as_bytes());
        mac.update(&self.compatibility.to_be_bytes());
        mac.update(artefact);
        mac
    }

    /// Loads machine code.
    ///
    /// The bytes must be an artefact that wasmtime itself wrote: hostile ones are arbitrary code
    /// execution. That holds because they come from two places only. Either the compiler child just
    /// wrote them to the pipe of the process that started it: it is our own program, and a component
    /// is to it nothing but data that it validates. Or they come from this folder and bear a checksum
    /// under a key that only this user can read, made when the first case held.
    #[allow(unsafe_code)]
    fn deserialize(&self, artefact: &[u8]) -> wasmtime::Result<Component> {
        // SAFETY: see above.
        unsafe { Component::deserialize(&self.engine, artefact) }
    }
}

fn read_key(folder: &Path) -> io::Result<Option<[u8; KEY_BYTES]>> {
    let mut file = match File::open(folder.join(KEY_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A key that others could read may have sealed what others made.
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!("the key of the artefacts was open to others; a new one is made");
        return Ok(None);
    }
    let mut key = [0; KEY_BYTES];
    match file.read_exact(&mut key) {
        Ok(()) => Ok(Some(key)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a key; of two processes that do so at once, the last one's counts for both after a restart,
/// and until then each loads only what it sealed itself.
fn make_key(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    rand::fill(&mut key);
    let draft = folder.join(format!("{KEY_FILE}.{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(KEY_FILE))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use verge_config::component::Contract;

    fn open(folder: &Path) -> Artefacts {
        bounded(folder, u64::MAX)
    }

    fn bounded(folder: &Path, most: u64) -> Artefacts {
        Artefacts::open(folder, most, &crate::engine::compiler(Contract::Incoming).unwrap())
            .unwrap()
    }

    fn compiled(store: &Artefacts) -> Vec<u8> {
        store.engine.precompile_component(b"\0asm\x0d\0\x01\0").unwrap()
    }

    #[test]
    fn what_was_kept_loads_again_in_a_new_process() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        store.keep("a", &compiled(&store)).unwrap();
        assert!(store.load("a").is_some());
        assert!(open(folder.path()).load("a").is_some());
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        store.keep("a", &compiled(&store)).unwrap();
        let whole = fs::read(store.path("a")).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(store.unseal("a", &damaged).is_none(), "byte {at}");
            assert!(store.unseal("a", whole.get(..at).unwrap()).is_none(), "cut at {at}");
        }
        assert!(store.unseal("a", &whole).is_some());
    }

    #[test]
    fn a_damaged_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        store.keep("a", &compiled(&store)).unwrap();
        fs::write(store.path("a"), b"short").unwrap();
        assert!(store.load("a").is_none());
        assert!(!store.path("a").exists());
    }

    #[test]
    fn one_components_artefact_does_not_pass_for_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        store.keep("a", &compiled(&store)).unwrap();
        fs::copy(store.path("a"), store.path("b")).unwrap();
        assert!(store.load("b").is_none());
        assert!(store.load("a").is_some());
    }

    #[test]
    fn an_artefact_of_another_installation_is_absent() {
        let (mine, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mine, theirs) = (open(mine.path()), open(theirs.path()));
        theirs.keep("a", &compiled(&theirs)).unwrap();
        fs::copy(theirs.path("a"), mine.path("a")).unwrap();
        assert!(mine.load("a").is_none());
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let size = {
            let store = open(folder.path());
            compiled(&store).len() as u64 + TAG_BYTES as u64
        };
        let store = bounded(folder.path(), size * 2);
        let artefact = compiled(&store);
        let used = |name: &str, seconds: u64| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            File::open(store.path(name)).unwrap().set_modified(time).unwrap();
        };
        for (n, name) in ["a", "b"].into_iter().enumerate() {
            store.keep(name, &artefact).unwrap();
            used(name, n as u64);
        }
        assert!(store.load("a").is_some(), "used again, so it stays");
        store.keep("c", &artefact).unwrap();
        let kept = ["a", "b", "c"].map(|name| store.path(name).exists());
        assert_eq!(kept, [true, false, true]);
    }

    #[test]
    fn drafts_left_behind_go_and_the_key_stays() {
        let folder = tempfile::tempdir().unwrap();
        let key = open(folder.path()).key;
        let old = SystemTime::now() - DRAFT_AGE * 2;
        for name in [".tmpold", KEY_FILE] {
            let path = folder.path().join(name);
            let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.set_modified(old).unwrap();
        }
        fs::write(folder.path().join(".tmpnew"), b"half").unwrap();
        assert_eq!(open(folder.path()).key, key);
        assert!(!folder.path().join(".tmpold").exists());
        assert!(folder.path().join(".tmpnew").exists());
    }

    #[test]
    fn the_folder_and_its_key_are_for_this_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("deep/artefacts");
        open(&inner);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&inner), 0o700);
        assert_eq!(mode(&inner.join(KEY_FILE)), 0o600);
        let key = read_key(&inner).unwrap().unwrap();
        fs::set_permissions(inner.join(KEY_FILE), fs::Permissions::from_mode(0o644)).unwrap();
        assert_ne!(open(&inner).key, key, "a key that was open to others is not used again");
    }
}
