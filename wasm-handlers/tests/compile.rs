//! Components are compiled once, in a child that is cut at its limits; what lies on disk is loaded only
//! when this installation wrote it; what is wrong with a component is said to its developer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use support::{Recorder, get, guest, roomy, settings, spec, text};
use verge_handlers::{Component, Handler, LoadError, Sandbox};

/// A sandbox of few instances, with a log of how often its compiler was started.
struct Counted {
    folder: tempfile::TempDir,
    sandbox: Sandbox,
}

impl Counted {
    fn new() -> Counted {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Counted::open(folder.path());
        Counted { folder, sandbox }
    }

    fn open(folder: &Path) -> Sandbox {
        let mut settings = settings(folder.join("artefacts"));
        settings.max_instances = 4;
        // The shell notes the start, then becomes the compiler.
        let compiler = settings.compiler.program.display().to_string();
        let log = folder.join("starts").display().to_string();
        settings.compiler.program = "/bin/sh".into();
        settings.compiler.args = vec!["-c".into(), format!("echo x >> '{log}'; exec '{compiler}'")];
        Sandbox::new(settings).unwrap()
    }

    fn starts(&self) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("starts"));
        log.map_or(0, |log| log.lines().count())
    }

    fn artefact(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.folder.path().join("artefacts")).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.find(|path| path.extension().is_some_and(|e| e == "cwasm")).expect("no artefact")
    }
}

async fn answers(component: std::sync::Arc<Component>) {
    let handler = Handler::new(component, "site".into(), spec(roomy(), &[]));
    let answer = handler.call(get("/"), Recorder::new()).await.unwrap();
    assert_eq!(text(answer).await, "Hello from Verge\n");
}

#[tokio::test]
async fn loads_at_the_same_time_compile_once_and_the_artefact_outlives_the_process() {
    let counted = Counted::new();
    let bytes = guest("hello-rust");
    let loads = (0..8).map(|_| counted.sandbox.load(bytes.clone()));
    let loaded: Vec<_> =
        futures::future::join_all(loads).await.into_iter().map(Result::unwrap).collect();
    assert!(loaded.iter().all(|other| std::sync::Arc::ptr_eq(other, &loaded[0])));
    assert_eq!(counted.starts(), 1);
    answers(loaded[0].clone()).await;
    let began = Instant::now();
    let again = Counted::open(counted.folder.path()).load(bytes).await.unwrap();
    println!("loaded from its artefact, a new engine included, in {:?}", began.elapsed());
    assert_eq!(counted.starts(), 1);
    answers(again).await;
}

#[tokio::test]
async fn a_damaged_artefact_is_compiled_again_and_never_loaded() {
    let counted = Counted::new();
    let bytes = guest("hello-rust");
    drop(counted.sandbox.load(bytes.clone()).await.unwrap());
    let artefact = counted.artefact();
    let whole = std::fs::read(&artefact).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x80;
    let empty = Vec::new();
    for (n, content) in [&damaged, &whole[..middle].to_vec(), &empty].into_iter().enumerate() {
        std::fs::write(&artefact, content).unwrap();
        answers(counted.sandbox.load(bytes.clone()).await.unwrap()).await;
        assert_eq!(counted.starts(), 2 + n);
        assert_eq!(std::fs::read(&artefact).unwrap().len(), whole.len(), "it is kept anew");
    }
}

async fn refused(bytes: impl Into<Bytes>) -> LoadError {
    support::sandbox().load(bytes.into()).await.expect_err("it must be refused")
}

#[tokio::test]
async fn what_is_no_component_is_refused_with_its_reason() {
    for bytes in [&b""[..], b"<html>", b"\0asm", b"\0asm\x0d\0\x01\0\xff\xff\xff\xff\xff"] {
        let error = refused(bytes).await;
        assert!(matches!(error, LoadError::Invalid(_)), "{bytes:?}: {error:?}");
        assert!(error.is_permanent());
    }
    let error = refused(&b"\0asm\x01\0\0\0"[..]).await;
    assert!(matches!(error, LoadError::Module), "{error:?}");
    let error = refused(vec![0; 50 * 1024 * 1024 + 1]).await;
    assert!(matches!(error, LoadError::TooLarge(_)), "{error:?}");
    let error = refused(&b"\0asm\x0d\0\x01\0"[..]).await;
    assert!(matches!(error, LoadError::NoHandler(_)), "{error:?}");
    assert!(error.to_string().contains("incoming-handler"), "{error}");
}

#[tokio::test]
async fn every_cut_and_many_flips_of_a_component_are_refused_or_run() {
    let whole = guest("hello-rust");
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let error = refused(whole.slice(..at)).await;
        assert!(matches!(error, LoadError::Invalid(_)), "cut at {at}: {error:?}");
        let mut flipped = whole.to_vec();
        flipped[at] ^= 0x41;
        // Some flips change nothing that is checked; none may harm the sandbox.
        if let Err(error) = support::sandbox().load(flipped.into()).await {
            assert!(error.is_permanent(), "flip at {at}: {error:?}");
        }
    }
}

#[tokio::test]
async fn an_import_that_no_edge_offers_is_named() {
    let component = with_import("acme:db/store@1.0.0");
    let error = refused(component).await;
    let LoadError::Import(reason) = &error else { panic!("{error:?}") };
    assert!(reason.contains("acme:db/store@1.0.0"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compile_bomb_is_cut_at_its_limits_while_others_run() {
    let bomb = bomb();
    println!("the bomb has {} bytes", bomb.len());
    let folder = tempfile::tempdir().unwrap();
    let mut limited = settings(folder.path());
    limited.max_instances = 4;
    limited.compile.cpu = Duration::from_secs(1);
    let began = Instant::now();
    let error = Sandbox::new(limited.clone()).unwrap().load(bomb.clone()).await.unwrap_err();
    let LoadError::TooCostly(reason) = &error else { panic!("{error:?}") };
    assert!(reason.contains("1 s of CPU time"), "{reason}");
    println!("cut at its CPU limit after {:?}", began.elapsed());

    limited.compile.cpu = Duration::from_secs(60);
    limited.compile.wall = Duration::from_millis(300);
    let error = Sandbox::new(limited.clone()).unwrap().load(bomb.clone()).await.unwrap_err();
    let LoadError::TooCostly(reason) = &error else { panic!("{error:?}") };
    assert!(reason.contains("took longer"), "{reason}");

    limited.compile.wall = Duration::from_secs(60);
    limited.compile.memory = 96 << 20;
    let error = Sandbox::new(limited.clone()).unwrap().load(bomb).await.unwrap_err();
    let LoadError::TooCostly(reason) = &error else { panic!("{error:?}") };
    assert!(reason.contains("96 MiB"), "{reason}");

    // The control: within these limits a good component compiles.
    answers(Sandbox::new(limited).unwrap().load(guest("hello-rust")).await.unwrap()).await;
}

#[tokio::test]
async fn a_compiler_that_cannot_be_started_is_no_fault_of_the_component() {
    let folder = tempfile::tempdir().unwrap();
    let mut broken = settings(folder.path());
    broken.max_instances = 1;
    broken.compiler.program = "/nonexistent/compiler".into();
    let sandbox = Sandbox::new(broken.clone()).unwrap();
    let error = sandbox.load(guest("hello-rust")).await.unwrap_err();
    assert!(matches!(error, LoadError::Internal(_)) && !error.is_permanent(), "{error:?}");
    broken.compiler.program = "/bin/false".into();
    let error = Sandbox::new(broken).unwrap().load(guest("hello-rust")).await.unwrap_err();
    assert!(!error.is_permanent(), "{error:?}");
}

/// A component that imports one instance of this name.
fn with_import(name: &str) -> Vec<u8> {
    let mut section = vec![1, 0];
    section.extend(leb(name.len()));
    section.extend(name.as_bytes());
    // An instance of type 0, which exports one function `f` without parameters or results.
    section.extend([5, 0]);
    let types = [1, 0x42, 2, 1, 0x40, 0, 1, 0, 4, 0, 1, b'f', 1, 0];
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    component.push(7);
    component.extend(leb(types.len()));
    component.extend(types);
    component.push(10);
    component.extend(leb(section.len()));
    component.extend(section);
    component
}

/// A component around a core module whose one function holds very much straight code with very many
/// live values: small to send, costly to compile.
fn bomb() -> Bytes {
    let functions = 40usize;
    let mut body = vec![1, 8, 0x7e];
    for n in 0..60_000u32 {
        let local = |k: u32| u8::try_from((n * 7 + k * 3) % 8).unwrap();
        // local.get a; local.get b; i64.mul; local.get c; i64.rotl; local.set d
        body.extend([0x20, local(0), 0x20, local(1), 0x7e, 0x20, local(2), 0x89, 0x21, local(3)]);
        if n % 3 == 0 {
            // if (local.get a; i64.eqz) … end: blocks make the register allocator work.
            body.extend([0x20, local(1), 0x50, 0x04, 0x40, 0x42, 1, 0x21, local(2), 0x0b]);
        }
    }
    body.push(0x0b);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    let mut section = |id: u8, content: Vec<u8>| {
        module.push(id);
        module.extend(leb(content.len()));
        module.extend(content);
    };
    section(1, vec![1, 0x60, 0, 0]);
    section(3, [leb(functions), vec![0; functions]].concat());
    let mut code = leb(functions);
    for _ in 0..functions {
        code.extend(leb(body.len()));
        code.extend(&body);
    }
    section(10, code);
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    component.push(1);
    component.extend(leb(module.len()));
    component.extend(module);
    component.into()
}

fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(n & 0x7f).unwrap();
        n >>= 7;
        if n == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
