//! Notices that something was saved: every event, and the clock, only make it look again at what the
//! files say, so that a missed event is late and nothing is built twice for the same content.

use crate::build;
use crate::error::CliError;
use crate::site_file;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use verge_config::site::ComponentRef;

/// Looked at in any case.
const TICK: Duration = Duration::from_secs(1);
/// Editors write in several steps.
const SETTLE: Duration = Duration::from_millis(60);
/// The most files of a site that are watched, and the deepest.
const MAX_FILES: usize = 20_000;
const MAX_DEPTH: usize = 16;
/// Larger files are told apart by their time and length.
const MAX_HASHED: u64 = 1024 * 1024;
/// Folders of what builds make.
const MADE: [&str; 5] = ["target", "node_modules", "__pycache__", "build", "dist"];

/// What a file is by its look.
type Looks = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// The files that a site is made from.
pub(super) struct Sources {
    site: PathBuf,
    no_build: bool,
    watcher: RecommendedWatcher,
    watched: HashSet<PathBuf>,
    events: mpsc::Receiver<()>,
    looks: Looks,
    content: u64,
}

impl Sources {
    /// Watches the site file's folder, and the components that no project here builds.
    pub(super) fn new(site: &Path, no_build: bool) -> Result<Sources, CliError> {
        // One event is as good as many: it only makes it look.
        let (send, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |_| {
            let _ = send.try_send(());
        });
        let watcher = watcher.map_err(|error| CliError::Dev(format!("cannot watch: {error}")))?;
        let mut sources = Sources {
            site: site.to_owned(),
            no_build,
            watcher,
            watched: HashSet::new(),
            events,
            looks: Looks::new(),
            content: 0,
        };
        sources.remember();
        Ok(sources)
    }

    /// Takes what is there now as known.
    pub(super) fn remember(&mut self) {
        let looks = self.look();
        self.content = content(&looks);
        self.looks = looks;
    }

    /// Waits until the files say something else than what is known.
    pub(super) async fn changed(&mut self) {
        loop {
            let looks = self.look();
            if looks != self.looks {
                let content = content(&looks);
                self.looks = looks;
                if content != self.content {
                    return;
                }
            }
            tokio::select! {
                _ = self.events.recv() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// All sources by their look; folders that are new are watched from here on.
    fn look(&mut self) -> Looks {
        let folder = site_file::folder(&self.site).to_owned();
        let mut found = Found::default();
        let (single, built) = self.components(&folder);
        walk(&folder, 0, &built, &mut found);
        for path in single {
            found.add(&path);
            found.folders.extend(path.parent().map(Path::to_owned));
        }
        for folder in found.folders {
            // A folder that cannot be watched is still looked at by the clock.
            if !self.watched.contains(&folder)
                && self.watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok()
            {
                self.watched.insert(folder);
            }
        }
        found.looks
    }

    /// The components that are sources, and those that a build here makes of sources.
    fn components(&self, folder: &Path) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
        let Ok(document) = site_file::read(&self.site) else { return Default::default() };
        let mut sources = BTreeSet::new();
        let mut built = BTreeSet::new();
        for handler in document.handlers.values() {
            let Some(ComponentRef::Path(path)) = ComponentRef::parse(&handler.component) else {
                continue;
            };
            let is_built = !self.no_build && build::project_of(folder, Path::new(&path)).is_some();
            let kind = if is_built { &mut built } else { &mut sources };
            kind.insert(folder.join(path));
        }
        (sources, built)
    }
}

#[derive(Default)]
struct Found {
    looks: Looks,
    folders: BTreeSet<PathBuf>,
}

impl Found {
    fn add(&mut self, path: &Path) {
        if let Ok(meta) = fs::metadata(path) {
            self.looks.insert(path.to_owned(), (meta.len(), meta.modified().ok()));
        }
    }
}

fn walk(folder: &Path, depth: usize, built: &BTreeSet<PathBuf>, found: &mut Found) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    found.folders.insert(folder.to_owned());
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let hidden = name.starts_with('.') || name.ends_with('~');
        if hidden || built.contains(&path) || found.looks.len() >= MAX_FILES {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                if depth < MAX_DEPTH && !MADE.contains(&&*name) {
                    walk(&path, depth + 1, built, found);
                }
            }
            Ok(_) => found.add(&path),
            Err(_) => {}
        }
    }
}

/// What the files say. A build that writes the same again has changed nothing.
fn content(looks: &Looks) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (path, look) in looks {
        path.hash(&mut hasher);
        match fs::read(path) {
            Ok(bytes) if look.0 <= MAX_HASHED => bytes.hash(&mut hasher),
            _ => look.hash(&mut hasher),
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "site = 'shop'\ndomains = ['shop.example']\n[handlers.h]\n\
                        component = 'h.wasm'\n[[routes]]\npath = '/*'\nhandler = 'h'\n";
    const SOON: Duration = Duration::from_secs(10);
    /// Longer than the clock's tick, by which every change is noticed.
    const QUIET: Duration = Duration::from_millis(1_300);

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    async fn is_noticed(sources: &mut Sources, within: Duration) -> bool {
        let noticed = tokio::time::timeout(within, sources.changed()).await.is_ok();
        sources.remember();
        noticed
    }

    #[tokio::test]
    async fn saves_are_noticed_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        write(at, "verge.toml", SITE);
        write(at, "package.json", r#"{"scripts": {"build": "x"}}"#);
        write(at, "handler.js", "one");
        let mut sources = Sources::new(&at.join("verge.toml"), false).unwrap();
        write(at, "handler.js", "two");
        assert!(is_noticed(&mut sources, SOON).await);
        write(at, "lib/deep/more.js", "new");
        assert!(is_noticed(&mut sources, SOON).await, "a new folder");
        write(at, "lib/deep/more.js", "newer");
        assert!(is_noticed(&mut sources, SOON).await, "a file in it");
        fs::remove_file(at.join("lib/deep/more.js")).unwrap();
        assert!(is_noticed(&mut sources, SOON).await, "a removal");

        // What a build makes, what is hidden, and the same again.
        write(at, "h.wasm", "built");
        write(at, "target/x", "built");
        write(at, "node_modules/y/z.js", "installed");
        write(at, "__pycache__/handler.cpython-311.pyc", "compiled");
        write(at, ".venv/lib/x.py", "installed");
        write(at, ".git/index", "x");
        write(at, "handler.js", "two");
        assert!(!is_noticed(&mut sources, QUIET).await);
    }

    #[tokio::test]
    async fn a_component_that_nothing_builds_is_a_source() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        write(at, "verge.toml", &SITE.replace("h.wasm", "build/h.wasm"));
        write(at, "build/h.wasm", "one");
        let mut sources = Sources::new(&at.join("verge.toml"), false).unwrap();
        write(at, "build/h.wasm", "two");
        assert!(is_noticed(&mut sources, SOON).await);
    }
}
