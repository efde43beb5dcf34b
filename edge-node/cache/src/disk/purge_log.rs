//! The purges of a folder's objects, on disk beside them: what was purged stays purged when the process
//! is killed and started again. Appends and reads lines; knows no index.

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use verge_config::Revision;
use verge_config::purge::{Mode, Selector};

/// A log longer than this is written anew, in bytes.
const LONG_BYTES: u64 = 4 * 1024 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Logged {
    /// A purge, as the site's `applied`th.
    Purged { site: String, applied: u64, revision: Revision, mode: Mode, selectors: Vec<Selector> },
    /// Everything before `applied` is dead.
    Flushed { site: String, applied: u64, revision: Revision },
    /// How far a site was when the log was written anew; objects from before `forgotten` are dead.
    Known { site: String, applied: u64, revision: Revision, forgotten: u64 },
}

/// An open log.
#[derive(Debug)]
pub(crate) struct PurgeLog {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl PurgeLog {
    /// Opens the log and reads it; `None` in the place of its lines when some cannot be read: nobody
    /// knows then what was purged.
    pub(crate) fn open(path: PathBuf) -> io::Result<(PurgeLog, Option<Vec<Logged>>)> {
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        // A line without an end was never acknowledged.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = text.get(..whole).unwrap_or_default();
        let read = lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(serde_json::from_slice)
            .collect::<Result<Vec<Logged>, _>>();
        let file = File::options().append(true).create(true).open(&path)?;
        file.set_len(whole as u64)?;
        Ok((PurgeLog { path, file, bytes: whole as u64 }, read.ok()))
    }

    /// Adds a line; it is safe from the death of this process when this returns.
    pub(crate) fn append(&mut self, line: &Logged) -> io::Result<()> {
        let text = text_of(std::slice::from_ref(line))?;
        self.file.write_all(&text)?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Whether it is time to write it anew.
    pub(crate) fn is_long(&self) -> bool {
        self.bytes > LONG_BYTES
    }

    /// Puts these lines in the place of all.
    pub(crate) fn replace(&mut self, lines: &[Logged]) -> io::Result<()> {
        let text = text_of(lines)?;
        let unfinished = self.path.with_extension("new");
        fs::write(&unfinished, &text)?;
        fs::rename(&unfinished, &self.path)?;
        self.file = File::options().append(true).open(&self.path)?;
        self.bytes = text.len() as u64;
        Ok(())
    }
}

fn text_of(lines: &[Logged]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn line(applied: u64) -> Logged {
        let selectors = vec![Selector::Tag("t".into())];
        let (site, revision) = ("s".to_owned(), Revision(applied));
        Logged::Purged { site, applied, revision, mode: Mode::Hard, selectors }
    }

    #[test]
    fn a_torn_last_line_was_never_said_and_any_other_spoils_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("purges");
        let (mut log, lines) = PurgeLog::open(path.clone()).unwrap();
        assert_eq!(lines.unwrap(), []);
        log.append(&line(1)).unwrap();
        log.append(&line(2)).unwrap();
        drop(log);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let (mut log, lines) = PurgeLog::open(path.clone()).unwrap();
        assert_eq!(lines.unwrap(), [line(1)]);
        log.append(&line(3)).unwrap();
        drop(log);
        let (mut log, lines) = PurgeLog::open(path.clone()).unwrap();
        assert_eq!(lines.unwrap(), [line(1), line(3)]);
        log.replace(&[line(3)]).unwrap();
        log.append(&line(4)).unwrap();
        drop(log);
        let (_, lines) = PurgeLog::open(path.clone()).unwrap();
        assert_eq!(lines.unwrap(), [line(3), line(4)]);
        let mut spoilt = fs::read(&path).unwrap();
        spoilt[3] = b'\0';
        fs::write(&path, spoilt).unwrap();
        assert_eq!(PurgeLog::open(path).unwrap().1, None);
    }
}
