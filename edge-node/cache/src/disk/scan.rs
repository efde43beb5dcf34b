//! Finds the objects in a folder when the process starts. Reads records, not content: that is checked
//! when it is first used.

use super::filed::{read_end, read_exact};
use super::record::{Record, Trailer};
use super::{Disk, DiskError, Filed};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

/// An object that was found.
pub(crate) struct Found<'a> {
    pub(crate) record: Record<'a>,
    pub(crate) filed: Arc<Filed>,
}

/// Reads every record, two folders deep; what cannot be read, or is not `wanted`, is deleted.
pub(crate) fn scan(disk: &Disk, mut wanted: impl FnMut(&Found<'_>) -> bool) {
    for folder in entries(disk, &disk.folder().objects()) {
        for inner in entries(disk, &folder) {
            for file in entries(disk, &inner) {
                match look(disk, &file, &mut wanted) {
                    Ok(true) => {}
                    Ok(false) => forget(disk, &file),
                    Err(error) => {
                        disk.fault("scan", &error);
                        forget(disk, &file);
                    }
                }
            }
        }
    }
}

fn entries(disk: &Disk, folder: &Path) -> Vec<std::path::PathBuf> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) => {
            disk.fault("scan", &error);
            Vec::new()
        }
    }
}

fn forget(disk: &Disk, file: &Path) {
    if let Err(error) = fs::remove_file(file) {
        disk.fault("delete", &error);
    }
}

fn look(
    disk: &Disk,
    path: &Path,
    wanted: &mut impl FnMut(&Found<'_>) -> bool,
) -> Result<bool, DiskError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Ok(id) = u64::from_str_radix(name, 16) else { return Ok(false) };
    if !disk.is_earlier(id) {
        // Written while this looks for others.
        return Ok(true);
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let (end, start) = read_end(&file, size)?;
    let trailer = Trailer::parse(&end, size).ok_or(DiskError::Damaged)?;
    let length = trailer.record as usize;
    let mut longer = Vec::new();
    let record = match trailer.content.checked_sub(start) {
        Some(at) => usize::try_from(at).ok().and_then(|at| end.get(at..at + length)),
        None => {
            longer.resize(length, 0);
            read_exact(&file, &mut longer, trailer.content)?;
            Some(longer.as_slice())
        }
    };
    let record = record.and_then(|record| trailer.open(record)).ok_or(DiskError::Damaged)?;
    let filed = Arc::new(Filed::of(id, trailer.content, record.sums.clone()));
    Ok(wanted(&Found { record, filed }))
}
