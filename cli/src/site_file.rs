//! A site file on disk: read, checked whole, its components read, hashed and put in by digest. Sends
//! nothing.

use crate::error::CliError;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use verge_config::site::{ComponentRef, Context, SiteDocument};
use verge_config::{Faults, Site};

/// The largest component, as the control plane takes it by default.
const MAX_COMPONENT_BYTES: u64 = 50 * 1024 * 1024;
/// How every component begins: the magic of WebAssembly, version 13, layer 1.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
/// How every core module begins.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A site file with its components.
#[derive(Debug)]
pub(crate) struct SiteFile {
    /// The document, its components by digest.
    pub(crate) document: SiteDocument,
    /// The components to upload, by digest.
    pub(crate) components: BTreeMap<String, Component>,
}

/// A component on disk.
#[derive(Debug, Clone)]
pub(crate) struct Component {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Bytes,
}

/// Reads a site file's document, without a look at its components.
pub(crate) fn read(path: &Path) -> Result<SiteDocument, CliError> {
    let text = fs::read_to_string(path).map_err(|error| CliError::file(path, error))?;
    SiteDocument::from_toml(&text).map_err(|faults| invalid(path, faults))
}

/// The folder that a site file's paths are relative to.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Checks a document and reads its components: every fault of both at once.
pub(crate) fn load(path: &Path, mut document: SiteDocument) -> Result<SiteFile, CliError> {
    let folder = folder(path);
    let mut missing = Faults::default();
    let mut components = BTreeMap::new();
    for (name, handler) in &mut document.handlers {
        let Some(ComponentRef::Path(relative)) = ComponentRef::parse(&handler.component) else {
            continue;
        };
        let file = folder.join(&relative);
        let (digest, component) = match component(&file) {
            Ok(component) => (hex::encode(Sha256::digest(&component.bytes)), Some(component)),
            Err(message) => {
                missing.add(format!("handlers.{name}.component"), message);
                // Any digest will do: the rest of the document is still to be checked.
                ("0".repeat(64), None)
            }
        };
        handler.component = format!("sha256:{digest}");
        components.extend(component.map(|component| (digest, component)));
    }
    let mut faults = Site::from_document(&document, Context::Fleet).err().unwrap_or_default();
    faults.0.extend(missing.0);
    faults.or(SiteFile { document, components }).map_err(|faults| invalid(path, faults))
}

fn component(path: &Path) -> Result<Component, String> {
    let shown = path.display();
    let size = match fs::metadata(path) {
        Ok(meta) if meta.is_file() => meta.len(),
        Ok(_) => return Err(format!("{shown} is not a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("there is no file {shown}; is the handler built?"));
        }
        Err(error) => return Err(format!("{shown}: {error}")),
    };
    if size > MAX_COMPONENT_BYTES {
        return Err(format!("{shown} has {size} bytes; at most {MAX_COMPONENT_BYTES} are taken"));
    }
    let bytes = fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
    if bytes.starts_with(MODULE) {
        let target = "build it for wasm32-wasip2, or make a component of it with wasm-tools";
        return Err(format!("{shown} is a core module, not a component: {target}"));
    }
    if !bytes.starts_with(COMPONENT) {
        return Err(format!("{shown} is not a WebAssembly component"));
    }
    Ok(Component { path: path.to_owned(), bytes: Bytes::from(bytes) })
}

fn invalid(path: &Path, faults: Faults) -> CliError {
    CliError::Faults { what: path.display().to_string(), faults }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "site = 'shop'\ndomains = ['shop.example']\n[handlers.h]\n\
                        component = 'h.wasm'\n[[routes]]\npath = '/*'\nhandler = 'h'\n";

    fn load_text(folder: &Path, text: &str) -> Result<SiteFile, CliError> {
        let path = folder.join("verge.toml");
        fs::write(&path, text).unwrap();
        load(&path, read(&path)?)
    }

    #[test]
    fn components_are_put_in_by_digest() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("h.wasm"), [COMPONENT, b"x"].concat()).unwrap();
        let loaded = load_text(folder.path(), SITE).unwrap();
        let digest = hex::encode(Sha256::digest([COMPONENT, b"x"].concat()));
        assert_eq!(loaded.document.handlers["h"].component, format!("sha256:{digest}"));
        assert_eq!(loaded.components[&digest].bytes.len(), 9);
    }

    #[test]
    fn missing_files_and_faults_are_told_together() {
        let folder = tempfile::tempdir().unwrap();
        let text = SITE.replace("'shop.example'", "'*'").replace("'/*'", "'x'");
        let error = load_text(folder.path(), &text).unwrap_err();
        let paths: Vec<_> = error.faults().iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["domains[0]", "routes[0].path", "handlers.h.component"]);
        assert_eq!(error.exit_code(), 5);
    }

    #[test]
    fn what_is_no_component_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        for (bytes, wanted) in [(MODULE, "core module"), (b"hello".as_slice(), "not a WebAssembly")]
        {
            fs::write(folder.path().join("h.wasm"), bytes).unwrap();
            let error = load_text(folder.path(), SITE).unwrap_err();
            assert!(error.faults()[0].message.contains(wanted), "{error:?}");
        }
    }
}
