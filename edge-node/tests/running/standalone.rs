//! One site file alone: real files in a real folder, changed the ways editors and tools change them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use verge_config::site::Context;
use verge_config::{Mode, PurgeRequest, Selector};
use verge_edge::control_link::{LinkStatus, LocalPurges, Standalone, StandaloneError};
use verge_edge::snapshot::SnapshotCell;

use crate::support::{Sink, Told, builder, sink, within};

struct Alone {
    cell: Arc<SnapshotCell>,
    sink: Arc<Sink>,
    status: Arc<LinkStatus>,
    purges: Arc<LocalPurges>,
    stop: CancellationToken,
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn text(path: &str) -> String {
    format!(
        "site = \"shop\"\ndomains = [\"*\"]\n[[routes]]\npath = \"{path}\"\nstatic = {{ body = \"x\" }}\n"
    )
}

fn write(folder: &Path, content: &str) -> PathBuf {
    let path = folder.join("verge.toml");
    fs::write(&path, content).unwrap();
    path
}

async fn open(folder: &Path, path: PathBuf) -> Result<Alone, StandaloneError> {
    let (cell, sink) = sink();
    let builder = builder(folder, Context::Standalone, true);
    let alone = Standalone::open(path, builder, Arc::clone(&cell), sink.clone()).await?;
    let (status, purges, stop) = (alone.status(), alone.purges(), CancellationToken::new());
    tokio::spawn(alone.run(stop.clone()));
    Ok(Alone { cell, sink, status, purges, stop })
}

impl Alone {
    async fn until(&self, what: &str, test: impl Fn(&Alone) -> bool) {
        let mut changes = self.status.changes();
        within(what, async {
            while !test(self) {
                changes.changed().await.unwrap();
            }
        })
        .await;
    }

    fn answers(&self, path: &str) -> bool {
        verge_edge::routing::find(&self.cell.load(), "any.example", path).is_ok()
    }
}

#[tokio::test]
async fn a_change_is_in_force_a_fault_is_refused_and_the_last_good_stays() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    fs::create_dir(&site).unwrap();
    let alone = open(folder.path(), write(&site, &text("/a"))).await.unwrap();
    assert!(alone.status.is_ready() && alone.answers("/a") && !alone.answers("/b"));

    write(&site, &text("/b"));
    alone.until("the change is in force", |alone| alone.answers("/b")).await;
    assert!(!alone.answers("/a"));
    let good = alone.cell.load_full();

    write(&site, &text("/c").replace("body", "bdy"));
    alone.until("the fault is told", |alone| !alone.status.refusals().is_empty()).await;
    assert!(alone.status.refusals()[0].reason.contains("bdy"));
    assert!(Arc::ptr_eq(&good, &alone.cell.load_full()));

    fs::remove_file(site.join("verge.toml")).unwrap();
    alone
        .until("its loss is told", |alone| {
            alone.status.refusals().first().is_some_and(|refusal| {
                refusal.reason.contains("verge.toml") && !refusal.reason.contains("bdy")
            })
        })
        .await;
    assert!(Arc::ptr_eq(&good, &alone.cell.load_full()));

    // As editors save: a new file, renamed over the old name.
    fs::write(site.join("new"), text("/d")).unwrap();
    fs::rename(site.join("new"), site.join("verge.toml")).unwrap();
    alone.until("the renamed file is in force", |alone| alone.answers("/d")).await;
    alone.until("nothing is refused", |alone| alone.status.refusals().is_empty()).await;
}

#[tokio::test]
async fn a_changed_component_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    fs::create_dir_all(site.join("handlers")).unwrap();
    let alone = open(folder.path(), write(&site, &text("/a"))).await.unwrap();
    let with_handler = "site = \"shop\"\ndomains = [\"*\"]\n[handlers.greet]\ncomponent = \"handlers/greet.wasm\"\n[[routes]]\npath = \"/b\"\nhandler = \"greet\"\n";
    write(&site, with_handler);
    let reason = |alone: &Alone, text: &str| {
        alone.status.refusals().first().is_some_and(|refusal| refusal.reason.contains(text))
    };
    alone
        .until("it is missing", |alone| {
            reason(alone, "handlers.greet.component: handlers/greet.wasm: No such file")
        })
        .await;
    // The site file stays as it is; its component comes, in a folder of its own.
    fs::write(site.join("handlers/greet.wasm"), b"\0asm\x01\0\0\0").unwrap();
    alone.until("it is no component", |alone| reason(alone, "core WebAssembly module")).await;
    assert!(alone.answers("/a"));
}

#[tokio::test]
async fn a_faulty_file_at_the_start_tells_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    let broken =
        "site = \"Shop!\"\ndomains = [\"*\"]\n[[routes]]\npath = \"a\"\norigin = \"nowhere\"\n";
    let error = open(folder.path(), write(folder.path(), broken)).await.err().unwrap().to_string();
    for place in ["site:", "routes[0].path", "routes[0].origin", "verge.toml"] {
        assert!(error.contains(place), "{place} in {error}");
    }
    let missing = open(folder.path(), folder.path().join("none.toml")).await.err().unwrap();
    assert!(matches!(missing, StandaloneError::Read { .. }));
}

#[tokio::test]
async fn purges_and_reloads_share_one_line_of_revisions() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    fs::create_dir(&site).unwrap();
    let alone = open(folder.path(), write(&site, &text("/a"))).await.unwrap();
    assert_eq!(alone.status.applied().0, 1);
    let mut request = PurgeRequest {
        dry_run: false,
        site: None,
        selectors: vec![Selector::Tag("assets".to_owned())],
        mode: Mode::Hard,
    };
    let done = alone.purges.purge(&request).unwrap();
    assert_eq!((done.purge.revision.0, done.purge.site.as_str(), done.matched), (2, "shop", 7));
    write(&site, &text("/b"));
    alone.until("the change is in force", |alone| alone.answers("/b")).await;
    assert_eq!(alone.cell.load().revision.0, 3);
    request.site = Some("shop".to_owned());
    assert_eq!(alone.purges.purge(&request).unwrap().purge.revision.0, 4);
    request.site = Some("other".to_owned());
    assert!(
        alone.purges.purge(&request).unwrap_err().to_string().contains("this edge serves \"shop\"")
    );
    request.selectors.clear();
    assert!(alone.purges.purge(&request).is_err());
    assert_eq!(*alone.sink.told.lock(), [Told::Purge(2, 1), Told::Purge(4, 3)]);
}
