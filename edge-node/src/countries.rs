//! In which country an address is, by the operator's database. It reads one file and asks nobody: no
//! address of a visitor leaves the edge.

use arc_swap::ArcSwap;
use maxminddb::{MaxMindDbError, PathElement, Reader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where the code is in a record, in MaxMind's databases and in others that are made like them.
const CODE: [PathElement<'static>; 2] = [PathElement::Key("country"), PathElement::Key("iso_code")];

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct CountriesError {
    path: PathBuf,
    source: MaxMindDbError,
}

/// A database of countries, in the MaxMind DB format (version 2.0 of its specification), whole in memory.
pub struct Countries {
    path: PathBuf,
    reader: ArcSwap<Reader<Vec<u8>>>,
}

impl Countries {
    /// Reads a database.
    ///
    /// # Errors
    /// When the file cannot be read, or is not a database.
    pub fn open(path: &Path) -> Result<Countries, CountriesError> {
        let reader = ArcSwap::from_pointee(read(path)?);
        Ok(Countries { path: path.to_owned(), reader })
    }

    /// Reads the file again. The database in force stays when it cannot be used.
    ///
    /// # Errors
    /// As for [`Countries::open`].
    pub fn reload(&self) -> Result<(), CountriesError> {
        self.reader.store(std::sync::Arc::new(read(&self.path)?));
        Ok(())
    }

    /// The country of an address as two letters (ISO 3166-1 alpha-2), where the database knows it.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<String> {
        let reader = self.reader.load();
        // A record that cannot be read is one that knows nothing.
        let code = reader.lookup(address).ok()?.decode_path::<&str>(&CODE).ok()??;
        let is_code = code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        is_code.then(|| code.to_owned())
    }
}

fn read(path: &Path) -> Result<Reader<Vec<u8>>, CountriesError> {
    Reader::open_readfile(path).map_err(|source| CountriesError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_database_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("countries.mmdb");
        assert!(Countries::open(&path).is_err(), "it is not there");
        std::fs::write(&path, "192.0.2.0/24,DE\n").unwrap();
        let told = Countries::open(&path).err().unwrap().to_string();
        assert!(told.contains("countries.mmdb"), "{told}");
    }

    proptest! {
        /// Whatever is in the file, it is refused or answers.
        #[test]
        fn no_file_makes_it_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            nodes in 0_u8..8,
            version in prop::sample::select(vec![4_u8, 6]),
            address in any::<[u8; 4]>(),
        ) {
            // With metadata that reads, so that what is before it is looked into.
            bytes.extend(b"\xAB\xCD\xEFMaxMind.com\xE9");
            for (name, value) in [
                ("node_count", vec![0xC1, nodes]),
                ("record_size", vec![0xA1, 24]),
                ("ip_version", vec![0xA1, version]),
                ("database_type", b"\x41c".to_vec()),
                ("languages", vec![0x00, 0x04]),
                ("binary_format_major_version", vec![0xA1, 2]),
                ("binary_format_minor_version", vec![0xA0]),
                ("build_epoch", vec![0x00, 0x02]),
                ("description", vec![0xE0]),
            ] {
                bytes.extend([0x40 | u8::try_from(name.len()).unwrap()]);
                bytes.extend(name.as_bytes());
                bytes.extend(value);
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("countries.mmdb");
            std::fs::write(&path, bytes).unwrap();
            if let Ok(countries) = Countries::open(&path) {
                let _ = countries.of(address.into());
                let _ = countries.of(std::net::Ipv6Addr::LOCALHOST.into());
            }
        }
    }
}
